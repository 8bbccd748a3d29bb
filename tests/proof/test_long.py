"""The long proof, `make prove`: every deed is done by a process of its own, and many of these are killed over it.

`MINUTES` and `SEED` choose how long, and which seasons. The report goes to docs/money-proof.md.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bazaar import Bazaar
from conftest import TEMPLATE, Cluster
from haat.infra.embedded import EmbeddedPostgres
from haat.infra.keyring import Keyring
from haat.infra.migrate import migrate
from haat.infra.postgres import Database
from haat.infra.prepare import set_passwords
from haat.kernel.clock import SetClock
from haat.settings import Settings

from .hands import Killing
from .market import OPENS
from .report import Report
from .season import Season

pytestmark = pytest.mark.prove

MINUTES = float(os.environ.get("MINUTES") or 5)
SEED = int(os.environ.get("SEED") or time.time())
COUNTED = {
    "usage rows": "SELECT count(*) AS n FROM usage",
    "in doubt, and not billed": "SELECT count(*) AS n FROM usage WHERE outcome IN ('unconfirmed', 'interrupted')",
    "set aside: too late, too early": "SELECT count(*) AS n FROM usage_quarantine",
    "voided or corrected": "SELECT count(*) AS n FROM usage_corrections",
    "invoices": "SELECT count(*) AS n FROM invoices WHERE kind = 'invoice'",
    "of them withdrawn": "SELECT count(*) AS n FROM invoice_states WHERE state = 'void'",
    "invoice lines": "SELECT count(*) AS n FROM invoice_lines",
    "of them adjustments": "SELECT count(*) AS n FROM invoice_lines WHERE kind = 'adjustment'",
    "of them fees and minimums": "SELECT count(*) AS n FROM invoice_lines WHERE kind IN ('fee', 'minimum')",
    "debit notes": "SELECT count(*) AS n FROM invoices WHERE kind = 'debit_note'",
    "credit notes": "SELECT count(*) AS n FROM credit_notes",
    "of them for a broken service level": "SELECT count(*) AS n FROM credit_notes WHERE reason = 'sla'",
    "of them by a dispute": "SELECT count(*) AS n FROM credit_notes WHERE reason = 'dispute'",
    "statements of providers": "SELECT count(*) AS n FROM settlements",
    "payouts": "SELECT count(*) AS n FROM payouts",
    "ledger entries": "SELECT count(*) AS n FROM ledger_entries",
}


@pytest.fixture
def server(data_dir: Path) -> Iterator[tuple[EmbeddedPostgres, Cluster]]:
    """A PostgreSQL that keeps what it said was kept, also when it is killed: the tests' common one need not."""
    settings = Settings(data_dir=data_dir, database_url=None)
    keyring = Keyring.load(data_dir)
    lazy = {"fsync": "off"}  # processes are killed, the machine goes on
    server = EmbeddedPostgres(data_dir, keyring, settings.postgres_account, options=lazy)
    cluster = Cluster(settings, keyring)
    server.start()
    try:
        cluster.create(TEMPLATE, "template0")
        migrate(cluster.dsn("owner", TEMPLATE))
        set_passwords(cluster.dsn("owner", TEMPLATE), keyring)
        yield server, cluster
    finally:
        server.stop(5)


@asynccontextmanager
async def fresh(cluster: Cluster, number: int) -> AsyncIterator[tuple[str, Database]]:
    """Yield the name of a database of a season's own, and a connection to it for whoever looks on."""
    name = f"proof_{os.getpid()}_{number}"
    cluster.create(name, TEMPLATE)
    try:
        async with Database(cluster.dsn("service", name), max_size=2) as onlooker:
            yield name, onlooker
    finally:
        cluster.drop(name)


async def come_back(database: Database) -> None:
    """Wait until a database that was killed answers again, and forget connections to it that are dead."""
    async with asyncio.timeout(60):
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(database.dsn) as connection:
                    await connection.execute("SELECT 1")
                await database._pool.check()
                return
            except psycopg.OperationalError:
                await asyncio.sleep(0.1)


async def test_every_paisa_traces_to_a_call_whichever_process_is_killed(
    server: tuple[EmbeddedPostgres, Cluster], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report(SEED, f"{datetime.now(UTC):%Y-%m-%d}")
    postgres, cluster = server
    struck: dict[str, set[str]] = {}
    steps: Counter[str] = Counter()
    began = time.monotonic()
    while not report.seasons or time.monotonic() - began < MINUTES * 60:
        seed = SEED + report.seasons
        chance, folder = random.Random(seed), tmp_path / str(seed)
        folder.mkdir()
        async with fresh(cluster, report.seasons) as (name, onlooker):
            dsns: Any = (cluster.dsn("app", name), cluster.dsn("service", name))
            hands = Killing(
                random.Random(seed), folder, dsns, 2, postgres.server_pid, lambda db=onlooker: come_back(db),
                steps=steps, struck=struck,
            )  # fmt: skip
            bazaar = Bazaar(onlooker, SetClock(OPENS), chance)
            calls, customers = chance.choice([(60, 4), (150, 6), (300, 7)])
            season = Season(bazaar, cluster.dsn("owner", name), hands, folder, chance, calls, customers)
            try:
                findings = await season.run()
            except BaseException as failure:
                failure.add_note(f"Repeat it with SEED={seed} MINUTES=0 make prove; {season.tally}")
                raise
            counts = Counter({what: (await bazaar.rows(query))[0]["n"] for what, query in COUNTED.items()})
        report.add(season.tally, counts, hands.crashes, findings)
        report.seconds = time.monotonic() - began
        with capsys.disabled():
            killed = sum(report.crashes.values())
            print(f"\nseed {seed}: {report.seconds:.0f} s, {killed} killed so far, all equations hold", end="")
    assert report.difference == 0
    report.write()
    with capsys.disabled():
        print(f"\n{report.markdown()}")

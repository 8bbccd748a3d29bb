"""How long a month takes to close: rated, invoiced, posted and settled, by the commands that people use.

The calls of the last month are made in PostgreSQL with their rollups. Then a worker runs, as an installation has one,
and `haat billing run PERIOD --wait` closes the month together with it; a second pass over the month does nothing. The
worker also looks for whom to mail each invoice to; customers here have no members, so no PDF is made.
What the month came to is worked out once more in SQL, apart from rating, and must be the same to the paisa.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import psycopg

from bench import money_calls, money_market
from bench.processes import end, process_tree, running, say, tail
from haat.infra import postgres
from haat.invoices.terms import GRACE
from haat.kernel.clock import Period, SystemClock, month_of

LOOK_SECONDS = 0.1
START_SECONDS, MAILS_SECONDS = 60.0, 1800.0
QUIET_LOOKS = 30
"""So often nothing may wait: events become jobs within a second."""
ZONE = "Asia/Kolkata"
_HAAT = (sys.executable, "-m", "haat.cli.main")


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass over the month. CPU seconds and megabytes are Haat's processes' together, and PostgreSQL's.

    PostgreSQL's memory counts what its processes share once.
    """

    seconds: float
    issued: int
    unchanged: int
    haat_cpu_seconds: float
    postgres_cpu_seconds: float
    haat_most_mb: float
    postgres_most_mb: float


@dataclass(frozen=True, slots=True)
class Closed:
    """``net`` is what was billed before tax, in rupees."""

    events: int
    subscriptions: int
    lines: int
    net: str
    first: Pass
    again: Pass


def close(work: Path, events: int, subscriptions: int) -> Closed:
    """Measure in a fresh database."""
    month = last_month(SystemClock().now())
    with money_market.database(work / "close", subscriptions) as made:
        money_calls.fill(made, events, month.start, month.end)
        asyncio.run(_roll_up(made))
        with psycopg.connect(made.dsn("owner"), autocommit=True) as owner:
            owner.execute("VACUUM ANALYZE")  # as autovacuum does meanwhile when calls come one after the other
            owner.execute("CHECKPOINT")
        return close_month(made, month, work)


def close_month(made: money_market.Database, month: Period, work: Path) -> Closed:
    """Measure in a database with the month's calls in it."""
    log, environment = work / "close-worker.log", {**os.environ, "HAAT_DATA_DIR": str(made.settings.data_dir)}
    with psycopg.connect(made.dsn("owner"), autocommit=True) as owner:
        postmaster = psutil.Process(owner.info.backend_pid).ppid()
    with running([*_HAAT, "worker"], log, environment=environment) as worker:
        _await_worker(made, log)
        first = _pass(["--wait"], month, environment, worker, postmaster)
        _await_mails(made)
        again = _pass(["--wait", "--again"], month, environment, worker, postmaster)
    if again.issued:
        raise RuntimeError(f"{again.issued} invoices were issued by a second pass")
    events, lines, net = _check(made, month)
    return Closed(events, len(money_market.subscriptions(made)), lines, str(net), first, again)


def last_month(now: datetime) -> Period:
    """Return the newest month that can be closed."""
    running_now = month_of(now - GRACE, ZONE)
    return month_of(running_now.start - timedelta(days=1), ZONE)


async def _roll_up(made: money_market.Database) -> None:
    async with postgres.Database(made.dsn("service"), max_size=1) as service:
        await money_calls.roll_up(service)


def _await_worker(made: money_market.Database, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    with psycopg.connect(made.dsn("owner"), autocommit=True) as owner:
        while time.monotonic() < deadline:
            if owner.execute("SELECT FROM procrastinate_workers").rowcount:
                return
            time.sleep(LOOK_SECONDS)
    raise RuntimeError(f"the worker did not come up\n{tail(log)}")


def _await_mails(made: money_market.Database) -> None:
    """Wait until what follows from issued invoices is done: each is to be mailed, here to nobody."""
    quiet, deadline = 0, time.monotonic() + MAILS_SECONDS
    with psycopg.connect(made.dsn("owner"), autocommit=True) as owner:
        while quiet < QUIET_LOOKS:
            if time.monotonic() > deadline:
                raise RuntimeError(f"mails still wait after {MAILS_SECONDS:.0f} s")
            time.sleep(LOOK_SECONDS)
            quiet = 0 if owner.execute(_WAITING).rowcount else quiet + 1


def _pass(options: Sequence[str], month: Period, environment: dict[str, str], worker: int, postmaster: int) -> Pass:
    command = [*_HAAT, "billing", "run", month.label, "--json", *options]
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    try:
        with Watched([worker, process.pid]) as haat, Watched([postmaster], shared=True) as server:
            out, _ = process.communicate()
            seconds = time.perf_counter() - began
    finally:
        if process.poll() is None:
            end(process)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}: {out[-2000:]!r}")
    run: dict[str, Any] = json.loads(out)
    say(f"  {month.label} {run['state']} in {seconds:.1f} s: {run['issued']} issued, {run['unchanged']} unchanged")
    return Pass(
        seconds,
        run["issued"],
        run["unchanged"],
        haat.cpu_seconds,
        server.cpu_seconds,
        haat.most_mb,
        server.most_mb,
    )


class Watched:
    """What some processes and their children use while it is open. ``shared``: memory they share counts once."""

    def __init__(self, pids: Sequence[int], *, shared: bool = False) -> None:
        self._pids, self._shared = pids, shared
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._used: dict[tuple[int, float], float] = {}
        self._before: dict[tuple[int, float], float] = {}
        self.most_mb = 0.0

    @property
    def cpu_seconds(self) -> float:
        return sum(used - self._before.get(who, 0.0) for who, used in self._used.items())

    def __enter__(self) -> Watched:
        self._look()
        self._before = dict(self._used)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(LOOK_SECONDS * (5 if self._shared else 1)):
            self._look()

    def _look(self) -> None:
        megabytes = 0.0
        for process in (one for pid in self._pids for one in process_tree(pid)):
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    memory = process.memory_full_info().pss if self._shared else process.memory_info().rss
                    self._used[process.pid, process.create_time()] = times.user + times.system
                    megabytes += memory / (1 << 20)
            except psutil.Error:  # it has just ended
                continue
        self.most_mb = max(self.most_mb, megabytes)


def _check(made: money_market.Database, month: Period) -> tuple[int, int, Decimal]:
    """Return how many calls and lines there are, and what they came to; raise RuntimeError where that is wrong."""
    with psycopg.connect(made.dsn("owner")) as owner:
        expected = owner.execute(_EXPECTED, {"start": month.start, "end": month.end}).fetchone()
        found = owner.execute(
            """
            SELECT (SELECT count(*) FROM invoice_lines), (SELECT sum(taxable) FROM invoice_lines),
                   (SELECT sum(calls) FROM invoice_lines)
            """
        ).fetchone()
        assert expected is not None
        assert found is not None
        if found != expected:
            raise RuntimeError(f"lines, value and calls are {found}, not {expected}")
        others = owner.execute(_OTHERS).fetchone()
        if others != (found[1], found[1], Decimal(0), 0):
            raise RuntimeError(f"{found[1]} was billed, but booked, settled, rest of books, gaps are {others}")
        calls = owner.execute("SELECT count(*) FROM usage").fetchone()
        assert calls is not None
    return calls[0], found[0], found[1]


_WAITING = "SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing') AND task_name LIKE 'event:%' LIMIT 1"
_EXPECTED = """
    SELECT count(*), sum(round(greatest(characters - 1000, 0) * 0.0002, 2)), sum(calls)::numeric
    FROM (SELECT subscription_id, sum(characters) AS characters, count(*) AS calls FROM usage
          WHERE at >= %(start)s AND at < %(end)s AND outcome IN ('completed', 'client_left')
          GROUP BY subscription_id) AS used
"""
_OTHERS = """
    SELECT (SELECT -sum(amount) FROM ledger_entries WHERE account = 'revenue'),
           (SELECT sum(gross) FROM settlements), (SELECT sum(amount) FROM ledger_balances),
           (SELECT max(last) FROM invoice_serials) - (SELECT count(DISTINCT serial) FROM invoices)
"""

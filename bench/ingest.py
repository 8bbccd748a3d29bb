"""From journal files to deduplicated rows: how many events a second, and who spends the time.

Two gateways' journals are written as gateways write them, with a confirmation a turn, in order of time. Then a shipper
takes them in, in one process, into an embedded PostgreSQL as an installation has it: on disk, with fsync.

The calls are those of twenty minutes. Where an hour of the organisations' wall ends among them, there are half as many
rollup rows again: both are measured, lest the minute at which one measures decide.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import psutil
import psycopg

from bench import money_market
from bench.money_market import PAIRS, Bought
from bench.processes import process_tree
from haat.infra import postgres
from haat.kernel.clock import SystemClock
from haat.usage.event import VERSION, Outcome, Timings, UsageEvent, encode
from haat.usage.journal import JournalWriter, Kind
from haat.usage.shipper import Shipper

TURN = 16
"""Calls that a turn of a busy gateway ends, and so a confirmation holds."""
GATEWAYS = 2
SPAN_MS = 1_200_000
"""The calls are of so long a time."""
_HOUR_MS, _HALF_MS = 3_600_000, 1_800_000
_HOWS = (
    ((Outcome.COMPLETED, 200),) * 93
    + ((Outcome.REFUSED, 429),) * 4
    + ((Outcome.PROVIDER_FAILED, 502),) * 2
    + ((Outcome.CLIENT_LEFT, 200),)
)


@dataclass(frozen=True, slots=True)
class Ingested:
    """One round. CPU seconds are those of the shipper, and of all PostgreSQL's processes."""

    events: int
    seconds: float
    shipper_cpu_seconds: float
    postgres_cpu_seconds: float
    rollup_rows: int
    rss_mb: float

    @property
    def per_second(self) -> float:
        return self.events / self.seconds


def ingest(work: Path, events: int, *, astride: bool = False) -> Ingested:
    """Measure one round in a fresh database; ``astride`` has an hour end in the middle of the calls."""
    with money_market.database(work / "ingest") as made:
        journal = work / "journal"
        write_journals(journal, money_market.subscriptions(made), events, _newest(astride))
        with psycopg.connect(made.dsn("owner")) as connection:
            server = connection.execute("SELECT pg_backend_pid()").fetchone()
            assert server is not None
            postmaster = psutil.Process(server[0]).ppid()
        before, mine, began = _cpu(postmaster), _own(), time.perf_counter()
        shipped = asyncio.run(_ship(made.dsn("service"), journal))
        seconds, own = time.perf_counter() - began, _own() - mine
        spent = _cpu(postmaster) - before
        with psycopg.connect(made.dsn("owner")) as connection:
            found = connection.execute(
                "SELECT (SELECT count(*) FROM usage), sum(calls), count(*) FROM usage_hourly"
            ).fetchone()
        assert found is not None
        if not shipped == found[0] == found[1] == events:
            raise RuntimeError(f"{events} events were written, {shipped} shipped, {found} are in rows and rollups")
        rss = psutil.Process().memory_info().rss / (1 << 20)
        return Ingested(events, seconds, own, spent, found[2], rss)


async def _ship(dsn: str, journal: Path) -> int:
    async with postgres.Database(dsn, max_size=2, application_name="haat-shipper") as db:
        shipper = Shipper(db, journal, SystemClock())
        await shipper.keep_house()
        shipped = 0
        while count := await shipper.ship_once():
            shipped += count
        return shipped


def _newest(astride: bool) -> int:
    """Return when the newest call is, in ms: the latest time that has its twenty minutes within an hour, or astride.

    Hours end with the half hours of UTC in India, and with the whole ones elsewhere.
    """
    now = int(time.time() * 1000)
    if astride:
        end = now - SPAN_MS // 2
        return end - (end - _HALF_MS) % _HOUR_MS + SPAN_MS // 2
    since = now % _HALF_MS
    return now if since >= SPAN_MS else now - since


def write_journals(directory: Path, bought: Sequence[Bought], events: int, newest: int) -> None:
    """Write the calls of the twenty minutes before ``newest`` (ms)."""
    chance = random.Random(11)  # noqa: S311 - it makes up calls, no secrets
    writers = [JournalWriter(directory, f"gateway-{number}", 1 << 26, 1000) for number in range(GATEWAYS)]
    for turn, start in enumerate(range(0, events, TURN)):
        writer = writers[turn % GATEWAYS]
        ids = []
        for event in _events(
            chance, bought, range(start, min(start + TURN, events)), newest - SPAN_MS, SPAN_MS / events
        ):
            writer.append(Kind.USAGE, encode(event))
            ids.append(UUID(event.id).bytes)
        writer.confirm(ids)
    for writer in writers:
        writer.close()


def _events(
    chance: random.Random, bought: Sequence[Bought], numbers: range, oldest: int, apart: float
) -> Iterator[UsageEvent]:
    for number in numbers:
        at = oldest + int(number * apart)
        one = bought[int(len(bought) * chance.random() ** 3)]
        outcome, status = chance.choice(_HOWS)
        total = int(chance.lognormvariate(10.8, 0.6))
        yield UsageEvent(
            id=str(UUID(int=at << 80 | 0x7 << 76 | chance.getrandbits(12) << 64 | 0b10 << 62 | chance.getrandbits(62))),
            at=at,
            outcome=outcome,
            v=VERSION,
            org=str(one.org),
            application=str(one.application),
            credential=str(one.application),
            subscription=str(one.id),
            plan="basic",
            provider=one.provider,
            provider_org=str(one.provider_org),
            service=str(one.service),
            service_slug=one.slug,
            version="1",
            method="POST",
            path_template="/invoke",
            status=status,
            units={} if outcome is Outcome.REFUSED else {"requests": "1", "characters": str(chance.randint(20, 2000))},
            units_source="counted",
            timings_us=Timings(40, 0, 0, total - 30, total),
            bytes_in=chance.randint(100, 4000),
            bytes_out=chance.randint(100, 4000),
            language_pair=PAIRS[int(len(PAIRS) * chance.random() ** 2)],
            gateway="gateway-0",
        )


def _cpu(pid: int) -> float:
    total = 0.0
    for process in process_tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):  # ended meanwhile: its parent has its seconds
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def _own() -> float:
    times = psutil.Process().cpu_times()
    return times.user + times.system

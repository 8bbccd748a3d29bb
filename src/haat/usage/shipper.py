"""The shipper: from the gateways' journals to the usage store, at least once; ids make it exactly once.

A record leaves when its confirmation is read, or when the seal of a worker that ended or died says that
none will come: then as ``unconfirmed``, or ``interrupted`` for a stream that never closed. The position
stored with the rows is the place of the oldest record still waiting, so a restart at any point reads it
again; what it reads twice the store knows by its id.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from datetime import date, datetime, timedelta
from itertools import chain
from pathlib import Path

import psycopg

from haat.infra.dsn import dsn_for
from haat.infra.keyring import Keyring, keyring_of
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database
from haat.kernel.clock import Clock, SystemClock
from haat.settings import Settings
from haat.usage import intake, rollups, store
from haat.usage.disk import CROWDED, Gauge, Space, space_of
from haat.usage.journal import (
    START,
    CorruptJournal,
    Frame,
    JournalReader,
    Kind,
    Position,
    encode_frame,
    workers,
)
from haat.usage.record import Record
from haat.usage.tail import Tail

log = logging.getLogger(__name__)

BATCH = 500_000
"""Records in one transaction: the more there are, the fewer rollups are touched for each."""
CAREFUL_BATCH = 5_000
"""Records in one transaction when some of them may be stored already, or may be refused."""
READ_BYTES = 256 * 1024
"""Read at once. While a piece is decoded the database works on what lies in its socket, which must not run dry."""
RETRY_DAMAGED_SECONDS = 30.0
SWEEP_SECONDS = 60.0
MAX_BACKOFF_SECONDS = 10.0
KEEP_BATCHES = timedelta(days=7)
FRAME_OVERHEAD = len(encode_frame(Kind.USAGE, b""))


class Shipper:
    """Ships what lies below a journal directory into a database (as `haat_service`)."""

    def __init__(
        self,
        db: Database,
        journal: Path,
        clock: Clock,
        *,
        batch: int = BATCH,
        careful_for: int = CAREFUL_BATCH,
        keep: timedelta = timedelta(hours=24),
        max_bytes: int = 0,
        ask: Callable[[Path], Space] = space_of,
    ) -> None:
        self._db, self._journal, self._clock = db, journal, clock
        self._batch, self._keep, self._max_bytes, self._ask = batch, keep, max_bytes, ask
        self._tails: dict[str, Tail] = {}
        self._careful_for = careful_for
        """So many records go in by the long way: what is read after a start may be stored already."""
        self._read_last = 0
        """Records of the batch at hand, as far as it was read."""
        self._damaged: dict[str, float] = {}
        self._kept_house: date | None = None
        self._settled: date | None = None

    async def ship_once(self) -> int:
        """Ship one batch and return how many records it held; 0 when there is nothing new.

        When the database fails, what was read is forgotten and read again from the stored positions.
        """
        try:
            return await self._ship()
        except intake.NotAllNew as refusal:
            log.info("a batch goes into the store by the long way: %s", refusal)
            self._tails.clear()
            return await self._ship()
        except BaseException:
            self._tails.clear()
            self._careful_for = CAREFUL_BATCH
            raise

    async def _ship(self) -> int:
        await self._open_tails()
        problems: dict[str, str] = {}
        careful = self._careful_for > 0
        records = self._read_on(problems, min(self._batch, CAREFUL_BATCH) if careful else self._batch)
        first = next(records, None)
        if first is None and not problems and not self._moved():
            return 0
        now = self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            taken = None
            if first is not None:  # the rest is read while the database is at work
                taken = await self._take(connection, chain((first,), records), now, new=not careful)
            moved = self._moved()
            for worker, position in moved.items():
                await store.move(connection, worker, position.segment, position.offset, now)
            for worker, problem in problems.items():
                await store.report_problem(connection, worker, problem, now)
        for worker, position in moved.items():
            self._tails[worker].stored = position
        for worker in problems:  # read again later, from what is stored: the operator may have mended it
            del self._tails[worker]
        if taken is not None and careful:
            # A journal that is read again may go on with more of what is stored.
            self._careful_for = CAREFUL_BATCH if taken.duplicates else max(0, self._careful_for - self._read_last)
        return self._read_last

    async def _take(
        self, connection: Connection, records: Iterable[Record], now: datetime, *, new: bool
    ) -> intake.Taken | None:
        try:
            return await intake.take(connection, records, now, expect_new=new)
        except intake.NotAllNew:
            self._careful_for = self._read_last + CAREFUL_BATCH  # it is one of these
            raise

    def _moved(self) -> dict[str, Position]:
        """Return where the journals are to be read on, of those where that isn't stored yet."""
        return {name: tail.resume for name, tail in self._tails.items() if tail.resume != tail.stored}

    def _read_on(self, problems: dict[str, str], most: int) -> Iterator[Record]:
        """Yield a batch of records that are final, from all journals in turn."""
        self._read_last = 0
        active = list(self._tails.values())
        while active and self._read_last < most:
            going = []
            for tail in active:
                records = self._read(tail, problems)
                if records is not None:
                    going.append(tail)
                    self._read_last += len(records)
                    yield from records
            active = going

    def _read(self, tail: Tail, problems: dict[str, str]) -> list[Record] | None:
        """Read one piece of a journal; return None when nothing more is there for now."""
        try:
            frames = _read_up_to_damage(tail)
        except CorruptJournal as damage:
            worker = tail.reader.worker
            log.error("metering of worker %s stands still: %s", worker, damage)
            self._damaged[worker] = time.monotonic() + RETRY_DAMAGED_SECONDS
            problems[worker] = str(damage)
            return None
        return tail.feed(frames) if frames else None

    async def _open_tails(self) -> None:
        """Begin with journals that are new, or that a restart or a failure made us forget."""
        now = time.monotonic()
        fresh = [
            name for name in workers(self._journal) if name not in self._tails and self._damaged.get(name, 0.0) <= now
        ]
        if not fresh:
            return
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            stored = await store.positions(connection)
        for name in fresh:
            self._damaged.pop(name, None)
            at = Position(*stored.get(name, START))
            self._tails[name] = Tail(JournalReader(self._journal, name), at, at)

    async def keep_house(self) -> None:
        """Once a day: make the partitions of this month and the next, forget the statistics of old batches.

        And once a day is over in every zone: settle it (see `haat.usage.rollups`).
        """
        now = self._clock.now()
        if self._kept_house != now.date():
            async with self._db.transaction(PLATFORM_SCOPE) as connection:
                await intake.ensure_partition(connection, intake.month_start(now))
                await intake.ensure_partition(connection, intake.month_start(now.replace(day=28) + timedelta(days=5)))
                await intake.forget_batches(connection, now - KEEP_BATCHES)
            self._kept_house = now.date()
        if self._settled != (now - rollups.LATEST).date():
            async with self._db.transaction(PLATFORM_SCOPE) as connection:
                await intake.lock(connection)
                await rollups.settle(connection, now)
            self._settled = (now - rollups.LATEST).date()

    def sweep(self) -> int:
        """Delete sealed segments whose records are all in the store and that are older than the keep time.

        On a crowded disk they go at once: the room is needed for what is in no store yet.
        """
        deleted = 0
        oldest = time.time() - self._keep.total_seconds()
        for worker, tail in self._tails.items():
            space = Gauge(worker, self._max_bytes, self._ask).read(self._journal / worker)
            for path in tail.reader.shipped(tail.stored):
                if path.stat().st_mtime < oldest or space.share >= CROWDED:
                    path.unlink()
                    deleted += 1
        return deleted


def _read_up_to_damage(tail: Tail) -> list[Frame]:
    """Read on; what lies before a damaged place is still good and is read first."""
    try:
        return tail.reader.read(tail.position, READ_BYTES)
    except CorruptJournal as damage:
        good = damage.offset - tail.position.offset
        if good <= FRAME_OVERHEAD:
            raise
        return tail.reader.read(tail.position, good - FRAME_OVERHEAD)  # the reader adds one header's length


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Ship until ``stop`` is set, then once more. While the database is away the journals grow."""
    keyring = keyring_of(settings)
    interval = settings.ship_interval_ms / 1000
    pause = interval
    while not stop.is_set():
        try:
            async with _database(settings, keyring) as db:
                shipper = Shipper(
                    db,
                    settings.data_dir / "journal",
                    SystemClock(),
                    keep=timedelta(hours=settings.journal_keep_hours),
                    max_bytes=settings.journal_max_bytes,
                )
                swept = 0.0
                while not stop.is_set():
                    await shipper.keep_house()
                    shipped = await shipper.ship_once()
                    pause = interval
                    if time.monotonic() - swept >= SWEEP_SECONDS:
                        shipper.sweep()
                        swept = time.monotonic()
                    if shipped < CAREFUL_BATCH:
                        await _wait(stop, interval)
                while await shipper.ship_once() >= CAREFUL_BATCH:  # what the gateways wrote while they were ending
                    pass
        except (psycopg.Error, OSError) as error:
            log.error("usage can't be stored right now, the journals keep it: %s", error)
            await _wait(stop, pause)
            pause = min(pause * 2, MAX_BACKOFF_SECONDS)


@contextlib.asynccontextmanager
async def _database(settings: Settings, keyring: Keyring) -> AsyncIterator[Database]:
    async with Database(dsn_for(settings, keyring, "service"), max_size=2, application_name="haat-shipper") as db:
        yield db


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)

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
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import chain
from pathlib import Path

import psycopg

from haat.infra.dsn import dsn_for
from haat.infra.keyring import Keyring, keyring_of
from haat.infra.postgres import PLATFORM_SCOPE, Database
from haat.kernel.clock import Clock, SystemClock
from haat.settings import Settings
from haat.usage import intake, store
from haat.usage.disk import CROWDED, Gauge, Space, space_of
from haat.usage.event import Outcome, UsageEvent, decode, decode_checkpoint
from haat.usage.intake import Record
from haat.usage.journal import (
    START,
    CorruptJournal,
    Frame,
    JournalReader,
    Kind,
    Position,
    SealReason,
    confirmed_ids,
    encode_frame,
    workers,
)
from haat.usage.rows import id_bytes

log = logging.getLogger(__name__)

BATCH = 50_000
"""Records in one transaction. The more there are, the fewer rollups are touched for each; it takes about 100 MB."""
READ_BYTES = 256 * 1024
"""Read at once. While a piece is decoded the database works on what lies in its socket, which must not run dry."""
RETRY_DAMAGED_SECONDS = 30.0
SWEEP_SECONDS = 60.0
MAX_BACKOFF_SECONDS = 10.0
KEEP_BATCHES = timedelta(days=7)
FRAME_OVERHEAD = len(encode_frame(Kind.USAGE, b""))


@dataclass(slots=True)
class _Waiting:
    """A record that is not final yet, and where its first frame stood."""

    event: UsageEvent
    start: Position
    opened: bool


@dataclass(slots=True)
class Tail:
    """One worker's journal as far as it was read."""

    reader: JournalReader
    position: Position
    stored: Position
    waiting: dict[bytes, _Waiting] = field(default_factory=dict)

    @property
    def resume(self) -> Position:
        """Where a successor must begin: the oldest record still waiting (they are kept in that order)."""
        oldest = next(iter(self.waiting.values()), None)
        return oldest.start if oldest else self.position

    def feed(self, frames: list[Frame]) -> list[Record]:
        """Join frames with what waits; return the records that are final now."""
        ready: list[Record] = []
        for frame in frames:
            start, self.position = self.position, frame.end
            if start == START:  # the oldest segment there is; its number shows in the frame's end
                start = Position(frame.end.segment - (1 if frame.kind == Kind.SEAL else 0), 0)
            try:
                self._feed_one(frame, start, ready)
            except ValueError as error:  # also UnreadableEvent: the checksum is right and the content is not
                ready.append(self._record(None, start, frame.payload, f"a frame of kind {frame.kind}: {error}"))
        return ready

    def _feed_one(self, frame: Frame, start: Position, ready: list[Record]) -> None:
        if frame.kind == Kind.USAGE:
            event = decode(frame.payload)
            key = id_bytes(event.id)
            known = self.waiting.get(key)
            self.waiting[key] = _Waiting(event, known.start if known else start, opened=False)
        elif frame.kind == Kind.CONFIRM:
            for identifier in confirmed_ids(frame.payload):
                found = self.waiting.pop(identifier, None)
                if found is not None:  # otherwise it was shipped before a restart
                    ready.append(self._record(found.event, found.start))
        elif frame.kind == Kind.OPEN:
            event = decode(frame.payload)
            self.waiting.setdefault(id_bytes(event.id), _Waiting(event, start, opened=True))
        elif frame.kind == Kind.CHECKPOINT:
            checkpoint = decode_checkpoint(frame.payload)
            stream = self.waiting.get(id_bytes(checkpoint.id))
            if stream is not None and stream.opened:
                stream.event.units, stream.event.bytes_out = checkpoint.units, checkpoint.bytes_out
        elif frame.kind == Kind.SEAL and frame.payload[0] != SealReason.ROTATED:
            for left in self.waiting.values():
                left.event.outcome = Outcome.INTERRUPTED if left.opened else Outcome.UNCONFIRMED
                ready.append(self._record(left.event, left.start))
            self.waiting.clear()

    def _record(self, event: UsageEvent | None, at: Position, payload: bytes = b"", unreadable: str = "") -> Record:
        return Record(event, self.reader.worker, at.segment, at.offset, payload, unreadable)


class _Counted(Iterator[Record]):
    """Passes records on and counts them."""

    def __init__(self, records: Iterator[Record]) -> None:
        self._records = records
        self.count = 0

    def __next__(self) -> Record:
        record = next(self._records)
        self.count += 1
        return record


class Shipper:
    """Ships what lies below a journal directory into a database (as `haat_service`)."""

    def __init__(
        self,
        db: Database,
        journal: Path,
        clock: Clock,
        *,
        batch: int = BATCH,
        keep: timedelta = timedelta(hours=24),
        max_bytes: int = 0,
        ask: Callable[[Path], Space] = space_of,
    ) -> None:
        self._db, self._journal, self._clock = db, journal, clock
        self._batch, self._keep, self._max_bytes, self._ask = batch, keep, max_bytes, ask
        self._tails: dict[str, Tail] = {}
        self._expect_new = False
        """Whether the last batch held nothing that was stored before. What is read after a start may be."""
        self._damaged: dict[str, float] = {}
        self._kept_house: date | None = None

    async def ship_once(self) -> int:
        """Ship one batch and return how many records it held; 0 when there is nothing new.

        When the database fails, what was read is forgotten and read again from the stored positions.
        """
        try:
            return await self._ship()
        except BaseException:
            self._tails.clear()
            self._expect_new = False
            raise

    async def _ship(self) -> int:
        await self._open_tails()
        problems: dict[str, str] = {}
        records = _Counted(self._read_on(problems))
        first = next(records, None)
        if first is None and not problems and not self._moved():
            return 0
        now = self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            taken = None
            if first is not None:  # the rest is read while the database is at work
                taken = await intake.take(connection, chain((first,), records), now, expect_new=self._expect_new)
            moved = self._moved()
            for worker, position in moved.items():
                await store.move(connection, worker, position.segment, position.offset, now)
            for worker, problem in problems.items():
                await store.report_problem(connection, worker, problem, now)
        for worker, position in moved.items():
            self._tails[worker].stored = position
        for worker in problems:  # read again later, from what is stored: the operator may have mended it
            del self._tails[worker]
        if taken is not None:
            self._expect_new = not taken.duplicates
        return records.count

    def _moved(self) -> dict[str, Position]:
        """Return where the journals are to be read on, of those where that isn't stored yet."""
        return {name: tail.resume for name, tail in self._tails.items() if tail.resume != tail.stored}

    def _read_on(self, problems: dict[str, str]) -> Iterator[Record]:
        """Yield a batch of records that are final, from all journals in turn."""
        count = 0
        active = list(self._tails.values())
        while active and count < self._batch:
            going = []
            for tail in active:
                records = self._read(tail, problems)
                if records is not None:
                    going.append(tail)
                    count += len(records)
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
        """Once a day: make the partitions of this month and the next, forget the statistics of old batches."""
        now = self._clock.now()
        if self._kept_house == now.date():
            return
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await intake.ensure_partition(connection, intake.month_start(now))
            await intake.ensure_partition(connection, intake.month_start(now.replace(day=28) + timedelta(days=5)))
            await intake.forget_batches(connection, now - KEEP_BATCHES)
        self._kept_house = now.date()

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
                    if shipped < BATCH:
                        await _wait(stop, interval)
                while await shipper.ship_once() >= BATCH:  # what the gateways wrote while they were ending
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

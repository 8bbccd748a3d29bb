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
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import date, timedelta
from pathlib import Path

import psycopg

from haat.infra.dsn import dsn_for
from haat.infra.keyring import Keyring, keyring_of
from haat.infra.postgres import PLATFORM_SCOPE, Database
from haat.kernel.clock import Clock, SystemClock
from haat.settings import Settings
from haat.usage import intake, keys, rollups, store
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
from haat.usage.load import Load
from haat.usage.tail import Tail

log = logging.getLogger(__name__)

BATCH = 500_000
"""Records in one transaction: the more there are, the fewer rollups are touched for each."""
CAREFUL_BATCH = 5_000
"""Records in one transaction when some of them may be stored already, or may be refused."""
READ_BYTES = 256 * 1024
"""Read at once. Meanwhile the database works on what lies in its socket, which must not run dry."""
AHEAD_BYTES = 64 << 20
"""So many bytes of rows are made ahead while the database is busy."""
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
        self._loads: deque[Load] = deque()
        """The first one is shipped next, the last one is open."""
        self._damaged: dict[str, float] = {}
        self._kept_house: date | None = None
        self._settled: date | None = None
        self._keys_noted: int | None = None
        """The newest batch whose calls were noted at their keys."""

    async def ship_once(self) -> int:
        """Ship one batch and return how many records it held; 0 when there is nothing new.

        When the database fails, what was read is forgotten and read again from the stored positions.
        """
        while True:
            try:
                return await self._ship()
            except intake.NotAllNew as refusal:
                log.info("a batch goes into the store by the long way: %s", refusal)
                self._careful_for = self._loads[0].read + CAREFUL_BATCH  # it is one of these
                self._forget()
            except intake.NotNext:  # a correction or another shipper came first: the rows say a number that is taken
                self._forget()
            except BaseException:
                self._forget()
                self._careful_for = CAREFUL_BATCH
                raise

    async def _ship(self) -> int:
        await self._open_journals()
        careful = self._careful_for > 0
        least = min(self._batch, CAREFUL_BATCH) if careful else 1
        load = self._loads[0]
        while load.read < least and self._read(load):
            pass
        if not load.read and not load.problems and self._resume() == self._stored():
            return 0
        now = self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            if careful or not load.read:
                self._close()
                taken = await intake.take(connection, load.records, now)
            else:
                taken = await intake.take_new(connection, load.found, self._rows(load), now, self._make_ahead)
            assert load.resume is not None
            stored = self._stored()
            moved = {worker: at for worker, at in load.resume.items() if at != stored.get(worker, at)}
            for worker, position in moved.items():
                await store.move(connection, worker, position.segment, position.offset, now)
            for worker, problem in load.problems.items():
                await store.report_problem(connection, worker, problem, now)
        self._loads.popleft()
        for worker, position in moved.items():
            self._tails[worker].stored = position
        for worker in load.problems:  # read again later, from what is stored: the operator may have mended it
            del self._tails[worker]
        if taken is not None and careful:
            # A journal that is read again may go on with more of what is stored.
            self._careful_for = CAREFUL_BATCH if taken.duplicates else max(0, self._careful_for - load.read)
        return load.read

    def _forget(self) -> None:
        self._tails.clear()
        self._loads.clear()

    def _rows(self, load: Load) -> Iterator[bytes]:
        """Yield a load's rows, those that were made ahead and then the others, and close it unless it is full."""
        while True:
            rows = load.rows()
            if rows is not None:
                yield rows
            elif load.resume is not None:
                return
            elif not self._read_on():
                self._close()

    def _make_ahead(self) -> bool:
        """Make some rows that the database can't take yet; return False when there are enough of them or no more."""
        return sum(load.size for load in self._loads) < AHEAD_BYTES and self._read_on()

    def _read_on(self) -> bool:
        """Go on with the load that is open; return False when nothing more is there for now."""
        load = self._loads[-1]
        if load.sort(int(self._clock.now().timestamp() * 1000)):
            return True
        if load.read >= self._batch or len(load.found.unusual) >= AHEAD_BYTES:
            self._close()
            return True
        return self._read(load)

    def _close(self) -> None:
        """Close the load that is open, and open the next one. What holds no records takes no batch number."""
        load = self._loads[-1]
        load.resume = self._resume()
        self._loads.append(Load(load.found.batch + (1 if load.read else 0), usual=load.is_usual))

    def _resume(self) -> dict[str, Position]:
        """Return where the journals are to be read on, once all that was read is stored."""
        return {name: tail.resume for name, tail in self._tails.items()}

    def _stored(self) -> dict[str, Position]:
        return {name: tail.stored for name, tail in self._tails.items()}

    def _read(self, load: Load) -> bool:
        """Read one piece of a journal into a load; return False when nothing more is there for now."""
        for worker, tail in list(self._tails.items()):
            if worker in self._damaged:
                continue
            try:
                frames = _read_up_to_damage(tail)
            except CorruptJournal as damage:
                log.error("metering of worker %s stands still: %s", worker, damage)
                self._damaged[worker] = time.monotonic() + RETRY_DAMAGED_SECONDS
                load.problems[worker] = str(damage)
                continue
            if frames:
                load.add(tail.feed(frames))
                self._tails[worker] = self._tails.pop(worker)  # now it's the others' turn
                return True
        return False

    async def _open_journals(self) -> None:
        """Begin with journals that are new, or that a restart or a failure made us forget, and open a first load."""
        now = time.monotonic()
        fresh = [
            name for name in workers(self._journal) if name not in self._tails and self._damaged.get(name, 0.0) <= now
        ]
        if not fresh and self._loads:
            return
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            stored = await store.positions(connection)
            newest = await intake.watermark(connection)
        for name in fresh:
            self._damaged.pop(name, None)
            at = Position(*stored.get(name, START))
            self._tails[name] = Tail(JournalReader(self._journal, name), at, at)
        if not self._loads:
            self._loads.append(Load(newest + 1))

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

    async def note_keys(self) -> None:
        """Note of the keys that were used when that was (see `haat.usage.keys`)."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            if self._keys_noted is None:
                self._keys_noted = await keys.first_batch(connection, self._clock.now())
            self._keys_noted = await keys.note_use(connection, self._keys_noted)

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
                        await shipper.note_keys()
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

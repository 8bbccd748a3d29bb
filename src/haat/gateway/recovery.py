"""What was used before this gateway started, so that a restart gives nothing away.

The usage store knows what was shipped, the journals know the rest. Both are read against one
snapshot of PostgreSQL, which holds rows and shipping positions as of the same moment. What was
counted into coarse grains is taken as later than it was: limits may admit less, never more.

With PostgreSQL down, the counters that the predecessor kept on disk and the journal after them
stand in.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import msgspec
from psycopg import AsyncConnection, IsolationLevel
from psycopg.rows import dict_row

from haat.gateway import store
from haat.gateway.limits import SECOND, SPANS, Kept, Limits
from haat.gateway.snapshot import Directory, save
from haat.kernel.clock import month_of
from haat.usage import event as usage
from haat.usage import journal
from haat.usage.event import Outcome, UsageEvent
from haat.usage.journal import START, CorruptJournal, JournalReader, Kind, Position

log = logging.getLogger(__name__)

COUNTED = (Outcome.COMPLETED, Outcome.CLIENT_LEFT, Outcome.INTERRUPTED, Outcome.UNCONFIRMED)
"""What counts towards a month's quota. The last two may have been executed, so they count."""
_GRAINS = {"minute": 1, "hour": 60, "day": 900}
_ATTEMPTS = 3


class _Tally:
    """Collects, per application and service, what `Limits.remember` wants."""

    def __init__(self, now: int, zones: Mapping[tuple[str, str], str], default_zone: str) -> None:
        self.now, self._zones, self._default_zone = now, zones, default_zone
        self._used: dict[tuple[str, str], int] = defaultdict(int)
        self._admissions: dict[tuple[str, str], dict[str, list[tuple[int, int]]]] = defaultdict(
            lambda: {name: [] for name, _ in SPANS}
        )
        self._months: dict[str, int] = {}

    def month_start(self, key: tuple[str, str]) -> int:
        return self.start_in(self._zones.get(key, self._default_zone))

    def start_in(self, zone: str) -> int:
        if zone not in self._months:
            start = month_of(datetime.fromtimestamp(self.now / SECOND, UTC), zone).start
            self._months[zone] = int(start.timestamp()) * SECOND
        return self._months[zone]

    def use(self, key: tuple[str, str], calls: int) -> None:
        self._used[key] += calls

    def admit(self, key: tuple[str, str], window: str, at: int, calls: int) -> None:
        self._admissions[key][window].append((at, calls))

    def add_event(self, event: UsageEvent) -> None:
        """Count one event that the store doesn't have."""
        if not event.application or not event.service or event.outcome is Outcome.REFUSED:
            return
        key, at = (event.application, event.service), event.at * 1000
        for name, span in SPANS:
            if at > self.now - span:
                self.admit(key, name, at, 1)
        if event.outcome in COUNTED and at >= self.month_start(key):
            self.use(key, 1)

    def hand_over(self, limits: Limits) -> None:
        for key in {*self._used, *self._admissions}:
            admissions = {name: sorted(entries) for name, entries in self._admissions[key].items()}
            limits.remember(*key, self.month_start(key), self._used[key], admissions)


async def from_store(
    dsn: str, journal_dir: Path, directory: Directory, limits: Limits, now: int, default_zone: str
) -> None:
    """Restore the limits from the usage store and the journals' unshipped tails.

    Raise psycopg's errors when PostgreSQL can't be reached.
    """
    zones = {key: entry.zone for key, entry in directory.subscriptions.items()}
    async with await AsyncConnection.connect(dsn, row_factory=dict_row, connect_timeout=5) as connection:
        await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        for attempt in range(1, _ATTEMPTS + 1):
            tally = _Tally(now, zones, default_zone)
            async with connection.transaction():
                positions = await store.ship_positions(connection)
                try:
                    tail = await asyncio.to_thread(read_tail, journal_dir, positions)
                except CorruptJournal as error:
                    if attempt == _ATTEMPTS:
                        log.error("limits are restored without a part of the journal: %s", error)
                        tail = {}
                    else:
                        continue  # the shipper deleted a segment since: its rows are in a newer snapshot
                present = await store.stored_ids(connection, [UUID(identifier) for identifier in tail])
                for zone in {*zones.values(), default_zone}:
                    start = datetime.fromtimestamp(tally.start_in(zone) / SECOND, UTC)
                    for found in await store.used_in_month(connection, zone, start, COUNTED):
                        tally.use((found.application, found.service), found.calls)
                for name, span in SPANS:
                    start = datetime.fromtimestamp(now / SECOND, UTC) - timedelta(microseconds=span)
                    for found in await store.admitted_since(connection, start, _GRAINS[name]):
                        tally.admit((found.application, found.service), name, found.at_us, found.calls)
            for identifier, event in tail.items():
                if UUID(identifier) not in present:
                    tally.add_event(event)
            tally.hand_over(limits)
            return


def read_tail(journal_dir: Path, positions: Mapping[str, Position]) -> dict[str, UsageEvent]:
    """Return the newest record of each call after the positions given, over all workers, by id.

    Raise CorruptJournal.
    """
    found: dict[str, UsageEvent] = {}
    for worker in journal.workers(journal_dir):
        reader = JournalReader(journal_dir, worker)
        position = positions.get(worker, START)
        while frames := reader.read(position):
            for event in _events(frames):
                found[event.id] = event
            position = frames[-1].end
    return found


def _events(frames: Iterable[journal.Frame]) -> Iterable[UsageEvent]:
    for frame in frames:
        if frame.kind in (Kind.USAGE, Kind.OPEN):
            try:
                yield usage.decode(frame.payload)
            except usage.UnreadableEvent as error:
                log.error("a record of the journal is left out of the limits: %s", error)


# --- without PostgreSQL ------------------------------------------------------------------------


class KeptLimits(msgspec.Struct):
    """The counters at a place of the journal."""

    v: int
    at: int
    worker: str
    segment: int
    offset: int
    allowances: list[Kept]


def keep(path: Path, limits: Limits, worker: str, position: Position, now: int) -> None:
    """Write the counters to disk, for a successor that can't reach PostgreSQL; raise OSError."""
    save(path, msgspec.msgpack.encode(KeptLimits(1, now, worker, position.segment, position.offset, limits.kept(now))))


def from_disk(path: Path, journal_dir: Path, directory: Directory, limits: Limits, now: int, default_zone: str) -> None:
    """Restore the limits from the counters kept on disk and the journal after them."""
    zones = {key: entry.zone for key, entry in directory.subscriptions.items()}
    tally = _Tally(now, zones, default_zone)
    positions: dict[str, Position] = {}
    try:
        kept = msgspec.msgpack.decode(path.read_bytes(), type=KeptLimits)
    except (FileNotFoundError, msgspec.MsgspecError) as error:
        log.warning("no counters of a predecessor: what its journal still holds is all that counts (%s)", error)
    else:
        positions[kept.worker] = Position(kept.segment, kept.offset)
        for entry in kept.allowances:
            key = (entry.application, entry.service)
            if entry.month_start == tally.month_start(key):
                tally.use(key, entry.used)
            for name, size in entry.sizes.items():
                if size:
                    tally.admit(key, name, kept.at, size)
    try:
        tail = read_tail(journal_dir, positions)
    except CorruptJournal as error:
        log.error("limits are restored without a part of the journal: %s", error)
        tail = {}
    for event in tail.values():
        tally.add_event(event)
    tally.hand_over(limits)

"""What was used before this gateway started, so that a restart gives nothing away.

After the death of a process the shared counts know it (`haat.gateway.limits.shared`): only what the process had
reserved for calls in flight must become what these have used. After the machine's own restart the usage
store knows what was shipped and the journals know the rest. Both are read against one snapshot of
PostgreSQL, which holds rows and shipping positions as of the same moment. What was counted into coarse
grains is taken as later than it was: limits may admit less, never more.

With PostgreSQL down, the counters that were kept on disk and the journal after them stand in.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import msgspec
from psycopg import AsyncConnection, IsolationLevel
from psycopg.rows import dict_row

from haat.gateway.limits import store
from haat.gateway.limits.counts import (
    DAY,
    DAY_END,
    FLYING,
    MONTH,
    MONTH_END,
    SLOT_CELLS,
    SLOT_FLYING,
    SLOT_RESERVED_DAY,
    SLOT_RESERVED_MONTH,
    SLOT_UNIT,
    SLOTS,
)
from haat.gateway.limits.plan import MICRO, Kept, PlanLimits, to_micro
from haat.gateway.limits.registry import Limits
from haat.gateway.limits.shared import SharedCounts
from haat.gateway.limits.windows import SECOND, SPANS, History, in_span
from haat.gateway.market.snapshot import Directory, Subscription, save
from haat.kernel.clock import Period, anniversary_of, day_of, month_of
from haat.usage import event as usage
from haat.usage import journal
from haat.usage.event import Outcome, UsageEvent
from haat.usage.journal import START, CorruptJournal, JournalReader, Kind, Position
from haat.usage.model import UNITS

log = logging.getLogger(__name__)

COUNTED = (Outcome.COMPLETED, Outcome.CLIENT_LEFT, Outcome.INTERRUPTED, Outcome.UNCONFIRMED)
"""What counts towards a quota. The last two may have been executed, so they count."""
_GRAINS = {"minute": 1, "hour": 60, "day": 900}
_WINDOWS = tuple((name, span) for name, span in SPANS if name in _GRAINS)
_ATTEMPTS = 3
Key = tuple[str, str]


class _Account(NamedTuple):
    """How a subscription's quota is counted at present. Starts and ends are microseconds since the epoch."""

    limits: PlanLimits
    zone: str
    started_at: int
    unit: str
    month: tuple[int, int]
    day: tuple[int, int]


class _Tally:
    """Collects, per application and service, what `Limits.restore` wants."""

    def __init__(self, now: int, subscriptions: Mapping[Key, Subscription], default_zone: str) -> None:
        self.now, self._subscriptions, self.default_zone = now, subscriptions, default_zone
        self._at = datetime.fromtimestamp(now / SECOND, UTC)
        self._accounts: dict[Key, _Account] = {}
        self._periods: dict[tuple[str, int], tuple[int, int]] = {}
        self._month: dict[Key, int] = defaultdict(int)
        self._day: dict[Key, int] = defaultdict(int)
        self._admissions: dict[Key, dict[str, History]] = defaultdict(lambda: {name: [] for name, _ in _WINDOWS})

    def account(self, key: Key) -> _Account:
        found = self._accounts.get(key)
        if found is None:
            found = self._accounts[key] = self._open(self._subscriptions.get(key))
        return found

    def _open(self, entry: Subscription | None) -> _Account:
        limits = entry.limits if entry else PlanLimits()
        zone, started_at = (entry.zone, entry.started_at) if entry else (self.default_zone, 0)
        anchor = datetime.fromtimestamp(started_at / SECOND, UTC)
        anchored = limits.quota_reset == "anniversary"
        month = self._periods.get((zone, anchor.toordinal() if anchored else 0))
        if month is None:
            month = _edges(anniversary_of(self._at, anchor, zone) if anchored else month_of(self._at, zone))
        day = self._periods.get((zone, -1)) or _edges(day_of(self._at, zone))
        self._periods[zone, -1] = day
        if not anchored:
            self._periods[zone, 0] = month
        return _Account(limits, zone, started_at, limits.quota_unit, month, day)

    def starts(self) -> dict[int, set[str]]:
        """Return the beginnings of all running months and days that matter, with the units asked for."""
        found: dict[int, set[str]] = defaultdict(set)
        for key in self._subscriptions:
            account = self.account(key)
            found[account.month[0]].add(account.unit)
            if account.limits.quota_per_day is not None:
                found[account.day[0]].add(account.unit)
        found[self._open(None).month[0]].add("requests")
        return found

    def add_used(self, start: int, found: store.Used) -> None:
        """Count what was used since an instant for those whose month or day began then."""
        key = (found.application, found.service)
        account = self.account(key)
        amount = found.calls * MICRO if account.unit == "requests" else to_micro(found.units.get(account.unit, "0"))
        if account.month[0] == start:
            self._month[key] += amount
        if account.day[0] == start and account.limits.quota_per_day is not None:
            self._day[key] += amount

    def admit(self, key: Key, window: str, at: int, calls: int) -> None:
        self._admissions[key][window].append((at, calls))

    def add_event(self, event: UsageEvent) -> None:
        """Count one event that the store doesn't have."""
        if not event.application or not event.service or event.outcome is Outcome.REFUSED or event.is_test:
            return
        key, at = (event.application, event.service), event.at * 1000
        for name, span in _WINDOWS:
            if at > self.now - span:
                self.admit(key, name, at, 1)
        account = self.account(key)
        if event.outcome in COUNTED:
            amount = _quantity(event, account.unit)
            if at >= account.month[0]:
                self._month[key] += amount
            if at >= account.day[0]:
                self._day[key] += amount

    def add_kept(self, entry: Kept, at: int) -> None:
        """Count what was kept on disk at an instant, as far as its month and day are still running."""
        key = (entry.application, entry.service)
        unit = self.account(key).unit
        if self.now < entry.month_end:
            self._month[key] += entry.month.get(unit, 0)
        if self.now < entry.day_end:
            self._day[key] += entry.day.get(unit, 0)
        for name, size in entry.sizes.items():
            if size and name in _GRAINS:
                self.admit(key, name, at, size)

    def hand_over(self, limits: Limits) -> None:
        for key in {*self._month, *self._day, *self._admissions}:
            account, admissions = self.account(key), []
            for name, span in _WINDOWS:
                young = [(at, calls) for at, calls in self._admissions[key][name] if at > self.now - span]
                admissions.append(sorted(young))
            limits.restore(
                *key,
                account.limits,
                account.zone,
                self.now,
                account.started_at,
                self._month[key],
                self._day[key],
                admissions,
            )


def _edges(period: Period) -> tuple[int, int]:
    return int(period.start.timestamp()) * SECOND, int(period.end.timestamp()) * SECOND


def _quantity(event: UsageEvent, unit: str) -> int:
    if unit == "requests":
        return 0 if event.cache == "replay" else MICRO  # an answer given again is not another call
    return to_micro(event.units.get(unit, "0"))


async def from_store(
    dsn: str, journal_dir: Path, directory: Directory, limits: Limits, now: int, default_zone: str
) -> None:
    """Restore the limits from the usage store and the journals' unshipped tails.

    Raise psycopg's errors when PostgreSQL can't be reached.
    """
    async with await AsyncConnection.connect(dsn, row_factory=dict_row, connect_timeout=5) as connection:
        await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        for attempt in range(1, _ATTEMPTS + 1):
            tally = _Tally(now, directory.subscriptions, default_zone)
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
                for start, units in tally.starts().items():
                    since = datetime.fromtimestamp(start / SECOND, UTC)
                    for found in await store.used_since(connection, since, COUNTED, sorted(units)):
                        tally.add_used(start, found)
                for name, span in _WINDOWS:
                    since = datetime.fromtimestamp(now / SECOND, UTC) - timedelta(microseconds=span)
                    for found in await store.admitted_since(connection, since, _GRAINS[name]):
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
        _read(JournalReader(journal_dir, worker), positions.get(worker, START), found)
    return found


def _read(reader: JournalReader, position: Position, found: dict[str, UsageEvent]) -> None:
    """Collect the newest record of each call; a stream cut off has the units of its last checkpoint."""
    while frames := reader.read(position):
        for frame in frames:
            try:
                if frame.kind in (Kind.USAGE, Kind.OPEN):
                    event = usage.decode(frame.payload)
                    found[event.id] = event
                elif frame.kind == Kind.CHECKPOINT:
                    checkpoint = usage.decode_checkpoint(frame.payload)
                    if checkpoint.id in found:
                        found[checkpoint.id].units = checkpoint.units
            except usage.UnreadableEvent as error:
                log.error("a record of the journal is left out of the limits: %s", error)
        position = frames[-1].end


# --- after the death of a process ----------------------------------------------------------------


def take_over(counts: SharedCounts, slot: int, journal_dir: Path) -> int:
    """Turn what a dead process had reserved into what its calls have used; return how many there were.

    Streams count with their last checkpoint, as far as it was reserved. Calls that had not been recorded
    were not answered: they count nothing. None of them is billed.
    """
    found: dict[str, UsageEvent] = {}
    worker = f"gateway-{slot}"
    begun = [number for number in journal.segments(journal_dir, worker) if number >= counts.life(slot)]
    if begun:
        try:
            _read(JournalReader(journal_dir, worker), Position(begun[0], 0), found)
        except CorruptJournal as error:
            log.error("what streams of %s have used is not counted: %s", worker, error)
    cut: dict[str, list[UsageEvent]] = defaultdict(list)
    for event in found.values():
        if event.outcome is Outcome.INTERRUPTED and not event.is_test:
            cut[f"{event.application}\n{event.service}"].append(event)
    ended = 0
    counts.acquire()
    counts.look()
    counts.release()
    for key in counts.keys():  # noqa: SIM118  # not a dictionary
        counts.acquire()
        try:
            ended += _settle(counts, key, slot, cut.get(key, []))
        finally:
            counts.release()
    return ended


def _settle(counts: SharedCounts, key: str, slot: int, cut: list[UsageEvent]) -> int:
    cells = counts.find(key)
    assert cells is not None
    at = SLOTS + SLOT_CELLS * slot
    unit = cells[at + SLOT_UNIT]
    used = sum(_quantity(event, UNITS[unit]) for event in cut)
    for place, first in ((SLOT_RESERVED_MONTH, MONTH), (SLOT_RESERVED_DAY, DAY)):
        reserved = cells[at + place]
        if reserved:
            cells[at + place] = 0  # first: killed in between, too much is counted, never too little
            cells[first + unit] += min(used, reserved) - reserved
    flying = cells[FLYING]
    cells[at + SLOT_FLYING] = 0
    if counts.lock is None:
        cells[FLYING] = 0
    else:
        cells[FLYING] = sum(cells[SLOTS + SLOT_CELLS * one + SLOT_FLYING] for one in range(counts.slots))
    return flying - cells[FLYING]


# --- without PostgreSQL ------------------------------------------------------------------------


class KeptLimits(msgspec.Struct):
    """The counters, and places of the journals at which they knew all that is before."""

    v: int
    at: int
    positions: dict[str, tuple[int, int]]
    allowances: list[Kept]


def kept(limits: Limits, key: str, now: int) -> Kept | None:
    """Return what a successor must know of one record, None for one that has no quota."""
    application, _, service = key.partition("\n")
    counts = limits.counts
    counts.acquire()
    try:
        cells = counts.find(key)
        if cells is None or not application:
            return None
        return Kept(
            application,
            service,
            cells[MONTH_END],
            {unit: cells[MONTH + place] for place, unit in enumerate(UNITS) if cells[MONTH + place]},
            cells[DAY_END],
            {unit: cells[DAY + place] for place, unit in enumerate(UNITS) if cells[DAY + place]},
            {name: size for place, (name, _) in enumerate(SPANS) if (size := in_span(cells, place, now))},
        )
    finally:
        counts.release()


def keep(path: Path, allowances: list[Kept], positions: Mapping[str, tuple[int, int]], now: int) -> None:
    """Write the counters to disk, for a start without PostgreSQL after the machine's own; raise OSError.

    The positions must have been read before the counters: what lies between counts twice, not never.
    """
    save(path, msgspec.msgpack.encode(KeptLimits(2, now, dict(positions), allowances)))


def from_disk(path: Path, journal_dir: Path, directory: Directory, limits: Limits, now: int, default_zone: str) -> None:
    """Restore the limits from the counters kept on disk and the journal after them."""
    tally = _Tally(now, directory.subscriptions, default_zone)
    positions: dict[str, Position] = {}
    try:
        found = msgspec.msgpack.decode(path.read_bytes(), type=KeptLimits)
    except (FileNotFoundError, msgspec.MsgspecError) as error:
        log.warning("no counters of a predecessor: what its journal still holds is all that counts (%s)", error)
    else:
        positions = {worker: Position(*place) for worker, place in found.positions.items()}
        for entry in found.allowances:
            tally.add_kept(entry, found.at)
    try:
        tail = read_tail(journal_dir, positions)
    except CorruptJournal as error:
        log.error("limits are restored without a part of the journal: %s", error)
        tail = {}
    for event in tail.values():
        tally.add_event(event)
    tally.hand_over(limits)

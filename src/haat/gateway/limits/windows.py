"""Sliding windows and a token bucket over one history of admissions. No I/O, no clock.

"60 a minute" means at most 60 in any 60 seconds. All windows of a record look at the same history,
which is kept in cells of 64 bits, so that it can lie in memory that several processes share:

- ``COUNT``, how many were ever admitted;
- a ring with the times of the last ones. The window of a limit up to `EXACT_LIMIT` is exact: what it
  holds begins at the first of them that is younger than the span, its *tail*;
- for a window with a larger limit an *area*: how many had been admitted at the beginning of each of the
  last 1,025 thousandths of the span. Such a window lets a thousandth go when its youngest admission has
  left: it never admits more than the limit in any span, and gives places back at most a thousandth of
  the span late.

So counting one call is one number and at most one time, whatever the number of windows, and a plan that
changes finds the history it needs. Times are microseconds since the epoch and are given by the caller;
when they step back, the latest time seen counts.

What a process knows of a window besides, where its tail is and when that moves, is derived from the
history and may be out of date on the safe side only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from haat.gateway.limits.faces import NO_FACE

SECOND: Final = 1_000_000
EXACT_LIMIT: Final = 16_384
FAR: Final = (1 << 62) - 1

SPANS: Final = (("second", SECOND), ("minute", 60 * SECOND), ("hour", 3600 * SECOND), ("day", 86_400 * SECOND))
"""Which spans there can be. Their places are part of the shared file's format."""

# Cells of a record that this module knows; `haat.gateway.limits.counts` has the others.
SIZE: Final = 0
KEY_BYTES: Final = 1
RING: Final = 2
"""How many times the ring holds: 0 or a power of two."""
AREAS: Final = 3
"""A bit for each span that has an area."""
FIRST: Final = 4
"""Where the areas begin; the ring follows, then the key."""
COUNT: Final = 5
TAT: Final = 6
"""When the bucket of the burst will be full again (GCRA's theoretical arrival time), in nanoseconds."""

_BUCKETS: Final = 1024
_SUMS: Final = _BUCKETS + 1
AREA_CELLS: Final = _SUMS + 1
"""The newest bucket's number, and a sum for each bucket."""

History = list[tuple[int, int]]
"""(time, admissions), ascending; a time is never earlier than it was."""


def width(span: int) -> int:
    return -(-span // _BUCKETS)


def ring_at(cells: memoryview[int]) -> int:
    return cells[FIRST] + AREA_CELLS * cells[AREAS].bit_count()


def area_at(cells: memoryview[int], place: int) -> int:
    return cells[FIRST] + AREA_CELLS * (cells[AREAS] & ((1 << place) - 1)).bit_count()


class Rate:
    """One window as one process sees it: ``limit`` in the span at ``place``."""

    __slots__ = ("area", "exact", "face", "frees", "limit", "name", "place", "span", "tail", "wakes")

    def __init__(self, place: int, limit: int, exact: bool | None = None) -> None:
        self.place = place
        self.name, self.span = SPANS[place]
        self.limit = limit
        self.face = NO_FACE
        self.exact = limit <= EXACT_LIMIT if exact is None else exact
        self.area = 0
        """Where its area is, 0 when it looks at the ring."""
        self.tail = 0
        """How many admissions came before the window."""
        self.wakes = 0
        """Until then the tail stays."""
        self.frees = 0
        """When the oldest in the window leaves, 0 when that must be looked up."""


class Windows:
    """A set of rates over the history in ``cells``."""

    __slots__ = ("_capacity", "_ceiling", "_cells", "_interval", "_latest", "_mask", "_rates", "_ring", "_tight",
                 "_tolerance", "_wakes")  # fmt: skip

    def __init__(self, rates: list[Rate], cells: memoryview[int], now: int) -> None:
        self._rates = rates
        self._latest = now
        self._interval = 0
        self._tolerance = 0
        self._tight: Rate | None = None
        self._ceiling = 0
        """Admissions are allowed while fewer than this were ever made."""
        self._wakes = 0
        """Until then the ceiling stays, or could only rise."""
        self.bind(cells)

    def bind(self, cells: memoryview[int]) -> None:
        """Look at these cells from now on; they must have what the rates need (`needs`)."""
        self._cells = cells
        self._capacity = cells[RING]
        self._mask = cells[RING] - 1 if cells[RING] else 0
        self._ring = ring_at(cells)
        for rate in self._rates:
            rate.area = 0 if rate.exact else area_at(cells, rate.place)
            rate.tail = rate.wakes = rate.frees = 0
        self._wakes = 0
        self.follow()

    def follow(self) -> None:
        """Never go back behind the latest admission, whoever counted it."""
        cells = self._cells
        count = cells[COUNT]
        if self._capacity and count:
            last = cells[self._ring + (count - 1 & self._mask)]
            if last > self._latest:
                self._latest = last

    def set_burst(self, burst: int, per_minute: int) -> None:
        """Let ``burst`` many come at once and further ones at the pace of ``per_minute`` (GCRA); 0 ends that."""
        self._interval = -(-60_000 * SECOND // per_minute) if burst else 0  # rounded up: never too early
        self._tolerance = (burst - 1) * self._interval if burst else 0

    def advance(self, now: int) -> None:
        """Bring tails, ceiling and waking time up to ``now``. Writes areas, so it needs the lock."""
        cells = self._cells
        count = cells[COUNT]
        ceiling = wakes = FAR
        self._tight = None
        for rate in self._rates:
            if now >= rate.wakes:
                if rate.area:
                    self._advance_area(rate, now, count)
                else:
                    self._advance_tail(rate, now, count)
            if rate.tail + rate.limit < ceiling:
                ceiling, self._tight = rate.tail + rate.limit, rate
            if rate.wakes < wakes:
                wakes = rate.wakes
        self._ceiling, self._wakes = ceiling, wakes

    def _advance_tail(self, rate: Rate, now: int, count: int) -> None:
        cells, ring, mask, edge = self._cells, self._ring, self._mask, now - rate.span
        tail = max(rate.tail, count - self._capacity)  # what the ring has forgotten is beyond every exact limit
        if tail < count and cells[ring + (count - 1 & mask)] <= edge:
            tail = count
        while tail < count and cells[ring + (tail & mask)] <= edge:
            tail += 1
        rate.tail = tail
        rate.frees = cells[ring + (tail & mask)] + rate.span if tail < count else 0
        rate.wakes = rate.frees or now + rate.span

    def _advance_area(self, rate: Rate, now: int, count: int) -> None:
        cells, area, size = self._cells, rate.area, width(rate.span)
        present = _turn(cells, area, now // size, count)
        rate.tail = cells[area + 1 + (present + 1) % _SUMS]
        rate.wakes = (present + 1) * size
        rate.frees = self._leaves(rate, rate.tail, count)

    def _leaves(self, rate: Rate, number: int, count: int) -> int:
        """Return when the admission of this number leaves the window, of which ``count`` were made."""
        cells = self._cells
        if not rate.area:
            return cells[self._ring + (number & self._mask)] + rate.span
        sums, newest = rate.area + 1, cells[rate.area]
        low, high = newest - _BUCKETS + 1, newest + 1
        while low < high:  # the first bucket before which more than ``number`` were made
            middle = (low + high) // 2
            if cells[sums + middle % _SUMS] > number:
                high = middle
            else:
                low = middle + 1
        return (low + _BUCKETS) * width(rate.span)

    def take(self, now: int) -> int:
        """Take a place in all windows and return 0, or in none and return when it can be had. Needs the lock."""
        if now < self._latest:
            now = self._latest
        self._latest = now
        if now >= self._wakes:
            self.advance(now)
        cells = self._cells
        count = cells[COUNT]
        if count >= self._ceiling:
            return self.full(count)[1]
        if self._capacity:
            cells[self._ring + (count & self._mask)] = now
        cells[COUNT] = count + 1
        return 0

    def full(self, count: int) -> tuple[Rate, int]:
        """Return which full window frees a place last, and when. Only right after `advance` or before it is due."""
        found, last = self._rates[0], 0
        for rate in self._rates:
            if count >= rate.tail + rate.limit:
                frees = self._leaves(rate, count - rate.limit, count)
                if frees > last:
                    found, last = rate, frees
        return found, last

    def resets(self, rate: Rate, count: int, now: int) -> int:
        """Return when a window frees its next place."""
        if count <= rate.tail:
            return now
        surplus = count - rate.limit
        if surplus > rate.tail:  # more than the limit are in it: the limit was lowered
            return self._leaves(rate, surplus, count)
        if not rate.frees:
            rate.frees = self._leaves(rate, rate.tail, count)
        return rate.frees


def in_span(cells: memoryview[int], place: int, now: int) -> int:
    """Return how many were admitted in the last second, minute, hour or day, as far as the cells know."""
    count, span = cells[COUNT], SPANS[place][1]
    if cells[AREAS] >> place & 1:
        area = area_at(cells, place)
        present = _turn(cells, area, now // width(span), count)
        return count - cells[area + 1 + (present + 1) % _SUMS]
    ring, mask, edge = ring_at(cells), cells[RING] - 1, now - span
    low, high = max(0, count - cells[RING]), count
    while low < high:
        middle = (low + high) // 2
        if cells[ring + (middle & mask)] > edge:
            high = middle
        else:
            low = middle + 1
    return count - low


def _turn(cells: memoryview[int], area: int, present: int, count: int) -> int:
    """Begin the buckets up to the present one; return the newest. A process killed here loses nothing."""
    newest = cells[area]
    if present <= newest:
        return newest
    for bucket in range(max(newest, present - _SUMS) + 1, present + 1):
        cells[area + 1 + bucket % _SUMS] = count
    cells[area] = present
    return present


# --- carrying a history over ---------------------------------------------------------------------


def needs(rates: Iterable[Rate]) -> tuple[int, int]:
    """Return the ring's length and the areas that these rates look at."""
    ring = areas = 0
    for rate in rates:
        if rate.exact:
            ring = max(ring, 8, 1 << (rate.limit - 1).bit_length())
        else:
            areas |= 1 << rate.place
    return ring, areas


def history(cells: memoryview[int]) -> History:
    """Return what the cells know of their past."""
    count, ring, capacity = cells[COUNT], ring_at(cells), cells[RING]
    kept = [(cells[ring + (number & capacity - 1)], 1) for number in range(max(0, count - capacity), count)]
    sources = [kept]
    for place, (_, span) in enumerate(SPANS):
        if cells[AREAS] >> place & 1:
            sources.append(_entries(cells, area_at(cells, place), width(span)))
    return merge(sources)


def _entries(cells: memoryview[int], area: int, size: int) -> History:
    newest = cells[area]
    found: History = []
    for bucket in range(newest - _BUCKETS, newest + 1):
        until = cells[area + 1 + (bucket + 1) % _SUMS] if bucket < newest else cells[COUNT]
        since = cells[area + 1 + bucket % _SUMS]
        if until > since:
            found.append(((bucket + 1) * size - 1, until - since))
    return found


def merge(sources: Iterable[History]) -> History:
    """Make one history of several accounts of the same admissions, the finest first.

    Each knows the youngest admissions, a coarser one more of them and their times less well. What only
    a coarser one knows is older than what the finer ones know.
    """
    merged: History = []
    known, oldest = 0, FAR
    for source in sources:
        more = sum(count for _, count in source) - known
        older: History = []
        for at, count in source:
            if more <= 0:
                break
            older.append((min(at, oldest), min(count, more)))
            more -= count
            known += older[-1][1]
        if older:
            merged = older + merged
            oldest = merged[0][0]
    return merged


def replay(cells: memoryview[int], past: History, now: int) -> None:
    """Count what was admitted before ``now`` into cells that have counted nothing later."""
    ring, capacity = ring_at(cells), cells[RING]
    areas = [(area_at(cells, place), width(span)) for place, (_, span) in enumerate(SPANS) if cells[AREAS] >> place & 1]
    for at, admissions in past:
        at, count = min(at, now), cells[COUNT]
        for area, size in areas:
            _turn(cells, area, at // size, count)
        for number in range(max(count, count + admissions - capacity), count + admissions):
            cells[ring + (number & capacity - 1)] = at
        cells[COUNT] = count + admissions

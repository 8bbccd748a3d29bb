"""A batch's rollups, summed up before they go to the database: cells of a customer, and cells of a seller.

Cells lie in quarters of an hour, because every zone's hours begin at one: which hour of whose wall a quarter belongs
to is PostgreSQL's to say, which has the zones.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import chain
from math import ceil, log
from typing import NamedTuple

from haat.usage.model import CALLS_BITS, GROWTH, UNITS
from haat.usage.rows import Row, Who, bigints_cell, cell, numeric_cell, uuid_cell

QUARTER_MS = 15 * 60 * 1000
MEASURES = ("calls", *UNITS, "bytes_in", "bytes_out", "latency_us", "latency")
"""What every rollup counts: the calls, their units, bytes, microseconds, and their sketch."""

_STEP = log(GROWTH)
_EPOCH_MS = 946_684_800_000
_whole = struct.Struct("!iq").pack
_wholes = struct.Struct("!iqiqiq").pack
_NO_UNITS = [numeric_cell(0)] * len(UNITS)
_class = struct.Struct("!ih").pack
_head = struct.Struct("!hiq").pack


class Cell:
    """Sums over calls. Quantities are millionths by the unit's place, latencies microseconds by bucket."""

    __slots__ = ("buckets", "bytes_in", "bytes_out", "calls", "latency_us", "units")

    def __init__(self) -> None:
        self.calls = self.bytes_in = self.bytes_out = self.latency_us = 0
        self.units: dict[int, int] = {}
        self.buckets: dict[int, int] = {}

    def add(self, other: Cell) -> None:
        self.calls += other.calls
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.latency_us += other.latency_us
        units, buckets = self.units, self.buckets
        for place, micros in other.units.items():
            units[place] = units.get(place, 0) + micros
        for bucket, calls in other.buckets.items():
            buckets[bucket] = buckets.get(bucket, 0) + calls

    def data(self) -> bytes:
        """Return the columns of `MEASURES`."""
        cells = _NO_UNITS
        if self.units:
            cells = _NO_UNITS.copy()
            for place, micros in self.units.items():
                cells[place] = numeric_cell(micros)
        buckets = self.buckets
        return b"".join(
            (
                _whole(8, self.calls),
                *cells,
                _wholes(8, self.bytes_in, 8, self.bytes_out, 8, self.latency_us),
                bigints_cell([(bucket << CALLS_BITS) + buckets[bucket] for bucket in sorted(buckets)]),
            )
        )


class _Sold(NamedTuple):
    quarter: int
    seller: bytes | None
    by: str
    service: bytes | None
    pair: str
    status_class: int
    outcome: str


class Rollup:
    """Cells of the calls that were added. Only live calls count."""

    def __init__(self) -> None:
        self._cells: dict[tuple[bytes, str, str, int, int], Cell] = {}
        self._whose: dict[bytes, Who] = {}

    def __bool__(self) -> bool:
        return bool(self._cells)

    @property
    def oldest_ms(self) -> int:
        """Where the oldest cell begins."""
        return min(key[4] for key in self._cells) * QUARTER_MS

    def add(self, row: Row) -> None:
        who, how, total_us = row.who, row.how, row.total_us
        if not how.live:
            return
        key = (who.key, how.outcome, how.pair, row.status // 100, row.time_ms // QUARTER_MS)
        found = self._cells.get(key)
        if found is None:
            found = self._cells[key] = Cell()
            self._whose[who.key] = who
        found.calls += 1
        found.bytes_in += row.bytes_in
        found.bytes_out += row.bytes_out
        found.latency_us += total_us
        units = found.units
        for place, micros in row.counted.units:
            units[place] = units.get(place, 0) + micros
        bucket = ceil(log(total_us) / _STEP) if total_us > 1 else 0  # as `latency_bucket` of migration 0003
        buckets = found.buckets
        buckets[bucket] = buckets.get(bucket, 0) + 1

    def customers(self) -> Iterator[bytes]:
        """Yield rows for `haat.usage.rollups.CUSTOMER_CELLS`."""
        for (who, outcome, pair, status_class, quarter), found in self._cells.items():
            yield b"".join(
                (
                    _head(_CUSTOMER_COLUMNS, 8, (quarter * QUARTER_MS - _EPOCH_MS) * 1000),
                    who,
                    cell(pair),
                    _class(2, status_class),
                    cell(outcome),
                    found.data(),
                )
            )

    def sellers(self) -> Iterator[bytes]:
        """Yield rows for `haat.usage.rollups.SELLER_CELLS`: by service and pair, and with either or both left out."""
        both: dict[_Sold, Cell] = {}
        for (who, outcome, pair, status_class, quarter), found in self._cells.items():
            whose = self._whose[who]
            sold = _Sold(quarter, whose.seller, "both", whose.service, pair, status_class, outcome)
            both.setdefault(sold, Cell()).add(found)
        wider: dict[_Sold, Cell] = {}
        for sold, found in both.items():
            for by in (
                sold._replace(by="service", pair=""),
                sold._replace(by="pair", service=None),
                sold._replace(by="all", service=None, pair=""),
            ):
                wider.setdefault(by, Cell()).add(found)
        for sold, found in chain(both.items(), wider.items()):
            yield b"".join(
                (
                    _head(_SELLER_COLUMNS, 8, (sold.quarter * QUARTER_MS - _EPOCH_MS) * 1000),
                    uuid_cell(sold.seller),
                    cell(sold.by),
                    uuid_cell(sold.service),
                    cell(sold.pair),
                    _class(2, sold.status_class),
                    cell(sold.outcome),
                    found.data(),
                )
            )


_CUSTOMER_COLUMNS = 1 + 9 + len(MEASURES)
_SELLER_COLUMNS = 1 + 6 + len(MEASURES)

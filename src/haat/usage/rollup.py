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
_sums = struct.Struct("!iq").pack
_head = struct.Struct("!hiq").pack


class Cell:
    """Sums over calls. Quantities are millionths, latencies microseconds by bucket."""

    __slots__ = ("buckets", "bytes_in", "bytes_out", "calls", "latency_us", "units")

    def __init__(self) -> None:
        self.calls = self.bytes_in = self.bytes_out = self.latency_us = 0
        self.units = [0] * len(UNITS)
        self.buckets: dict[int, int] = {}

    def add(self, other: Cell) -> None:
        self.calls += other.calls
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.latency_us += other.latency_us
        self.units = [one + two for one, two in zip(self.units, other.units, strict=True)]
        for bucket, calls in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + calls

    def data(self) -> bytes:
        """Return the columns of `MEASURES`."""
        return b"".join(
            (
                _sums(8, self.calls),
                *map(numeric_cell, self.units),
                numeric_cell(self.bytes_in * 1_000_000),
                numeric_cell(self.bytes_out * 1_000_000),
                numeric_cell(self.latency_us * 1_000_000),
                bigints_cell([(bucket << CALLS_BITS) + self.buckets[bucket] for bucket in sorted(self.buckets)]),
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
        _, _, time_ms, who, how, counted, status, total_us, bytes_in, bytes_out = row
        if not how.live:
            return
        key = (who.key, how.outcome, how.pair, status // 100, time_ms // QUARTER_MS)
        found = self._cells.get(key)
        if found is None:
            found = self._cells[key] = Cell()
            self._whose[who.key] = who
        found.calls += 1
        found.bytes_in += bytes_in
        found.bytes_out += bytes_out
        found.latency_us += total_us
        units = found.units
        for place, micros in counted.units:
            units[place] += micros
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
                    struct.pack("!ih", 2, status_class),
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
                    struct.pack("!ih", 2, sold.status_class),
                    cell(sold.outcome),
                    found.data(),
                )
            )


_CUSTOMER_COLUMNS = 1 + 9 + len(MEASURES)
_SELLER_COLUMNS = 1 + 6 + len(MEASURES)

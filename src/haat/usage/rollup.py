"""A batch's rollups, summed up before they go to the database: cells of a customer, and cells of a seller.

Cells lie in quarters of an hour, because every zone's hours begin at one: which hour of whose wall a quarter belongs
to is PostgreSQL's to say, which has the zones.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import chain
from math import ceil, log
from typing import Final, NamedTuple

from haat.usage.cells import EPOCH_MS, NULL, bigint_element, bigints_cell, cell, numeric_cell
from haat.usage.model import CALLS_BITS, GROWTH, UNITS
from haat.usage.parts import Amounts, Caller
from haat.usage.rows import Row

QUARTER_MS: Final = 15 * 60 * 1000
_QUARTERS: Final = 4
MEASURES = ("calls", *UNITS, "bytes_in", "bytes_out", "latency_us", "latency")
"""What every rollup counts: the calls, their units, bytes, microseconds, and their sketch."""

_STEP: Final = log(GROWTH)
_ONES: Final = [bigint_element((bucket << CALLS_BITS) + 1) for bucket in range(1024)]
"""The element of a sketch for one call in a bucket; the longest latency there is, 2^31 µs, lies in bucket 548."""
_LOOSE: Final = 32 * len(_ONES[0])
"""Up to so many bytes a sketch has an element a call: most customers have fewer calls in a quarter of an hour."""
_NO_PAIR: Final = cell("")
_whole: Final = struct.Struct("!iq").pack
_wholes: Final = struct.Struct("!iqiqiq").pack
_elements: Final = struct.Struct("!iq").iter_unpack
_class: Final = struct.Struct("!ih").pack
_head: Final = struct.Struct("!hiq").pack


class Cell(Amounts):
    """Sums over calls of a ``caller``; latencies in microseconds.

    ``sketch`` are elements of one call each, until there are so many that ``buckets`` count them.
    """

    __slots__ = ("buckets", "bytes_in", "bytes_out", "caller", "calls", "latency_us", "sketch")

    def __init__(self, caller: Caller) -> None:
        super().__init__()
        self.caller = caller
        self.calls = self.bytes_in = self.bytes_out = self.latency_us = 0
        self.sketch = b""
        self.buckets: dict[int, int] | None = None

    def count(self, bytes_in: int, bytes_out: int, total_us: int) -> None:
        """Add a call, all but its quantities."""
        self.calls += 1
        self.bytes_in += bytes_in
        self.bytes_out += bytes_out
        self.latency_us += total_us
        bucket = ceil(log(total_us) / _STEP) if total_us > 1 else 0  # as `latency_bucket` of migration 0003
        if self.buckets is not None:
            self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        else:
            self.sketch += _ONES[bucket]
            if len(self.sketch) > _LOOSE:
                self.buckets = _counted(self.sketch)

    def join(self, other: Cell) -> None:
        """Add another cell's calls."""
        self.add(other)
        self.calls += other.calls
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.latency_us += other.latency_us
        if self.buckets is None:
            self.buckets = _counted(self.sketch)
        more = _counted(other.sketch) if other.buckets is None else other.buckets
        for bucket, calls in more.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + calls

    def data(self) -> bytes:
        """Return the columns of `MEASURES`."""
        sketch = self.sketch
        if self.buckets is not None:
            sketch = b"".join(
                [bigint_element((bucket << CALLS_BITS) + calls) for bucket, calls in self.buckets.items()]
            )
        return b"".join(
            (
                _whole(8, self.calls),
                numeric_cell(self.requests),
                numeric_cell(self.characters),
                numeric_cell(self.graphemes),
                numeric_cell(self.tokens),
                numeric_cell(self.audio_seconds),
                numeric_cell(self.pages),
                numeric_cell(self.images),
                numeric_cell(self.bytes),
                numeric_cell(self.compute_seconds),
                _wholes(8, self.bytes_in, 8, self.bytes_out, 8, self.latency_us),
                bigints_cell(sketch),
            )
        )


def _counted(sketch: bytes) -> dict[int, int]:
    """Return how many of a sketch's calls lie in each bucket."""
    buckets: dict[int, int] = {}
    for _, element in _elements(sketch):
        bucket = element >> CALLS_BITS
        buckets[bucket] = buckets.get(bucket, 0) + 1
    return buckets


class _Sold(NamedTuple):
    quarter: int
    seller: bytes
    by: str
    service: bytes
    pair: bytes
    status_class: int
    outcome: bytes


class Rollup:
    """Cells of the calls that were added. Only live calls count."""

    def __init__(self) -> None:
        self._cells: dict[tuple[bytes, bytes, int, int], Cell] = {}

    def __bool__(self) -> bool:
        return bool(self._cells)

    @property
    def oldest_ms(self) -> int:
        """Where the oldest cell begins."""
        return min(key[3] for key in self._cells) * QUARTER_MS

    @property
    def minutes(self) -> set[int]:
        """At which minutes of an hour in UTC cells begin: four at most."""
        return {key[3] % _QUARTERS * 15 for key in self._cells}

    def add(self, row: Row) -> None:
        caller, rest = row.caller, row.rest
        if not rest.live:
            return
        key = (caller.key, rest.pair, row.status // 100, row.time_ms // QUARTER_MS)
        found = self._cells.get(key)
        if found is None:
            found = self._cells[key] = Cell(caller)
        found.count(row.bytes_in, row.bytes_out, row.total_us)
        found.add(row.counted.amounts)

    def customers(self) -> Iterator[bytes]:
        """Yield rows for `haat.usage.rollups.CUSTOMERS`."""
        for (caller, pair, status_class, quarter), found in self._cells.items():
            yield b"".join(
                (
                    _head(_CUSTOMER_COLUMNS, 8, (quarter * QUARTER_MS - EPOCH_MS) * 1000),
                    caller,
                    pair,
                    _class(2, status_class),
                    found.data(),
                )
            )

    def sellers(self) -> Iterator[bytes]:
        """Yield rows for `haat.usage.rollups.SELLERS`: by service and pair, and with either or both left out."""
        both: dict[_Sold, Cell] = {}
        for (_, pair, status_class, quarter), found in self._cells.items():
            caller = found.caller
            sold = _Sold(quarter, caller.seller, "both", caller.service, pair, status_class, caller.outcome)
            sum_up = both.get(sold)
            if sum_up is None:
                sum_up = both[sold] = Cell(caller)
            sum_up.join(found)
        wider: dict[_Sold, Cell] = {}
        for sold, found in both.items():
            for by in (
                sold._replace(by="service", pair=_NO_PAIR),
                sold._replace(by="pair", service=NULL),
                sold._replace(by="all", service=NULL, pair=_NO_PAIR),
            ):
                wider.setdefault(by, Cell(found.caller)).join(found)
        for sold, found in chain(both.items(), wider.items()):
            yield b"".join(
                (
                    _head(_SELLER_COLUMNS, 8, (sold.quarter * QUARTER_MS - EPOCH_MS) * 1000),
                    sold.seller,
                    cell(sold.by),
                    sold.service,
                    sold.pair,
                    _class(2, sold.status_class),
                    sold.outcome,
                    found.data(),
                )
            )


_CUSTOMER_COLUMNS = 1 + 9 + len(MEASURES)
_SELLER_COLUMNS = 1 + 6 + len(MEASURES)

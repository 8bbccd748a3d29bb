"""A batch's rollups, summed up before they go to the database: cells of a customer, and cells of a seller.

Cells lie in quarters of an hour, because every zone's hours begin at one: which hour of whose wall a quarter belongs
to is PostgreSQL's to say, which has the zones.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from itertools import chain
from math import ceil, log
from typing import Final, NamedTuple

from haat.usage.cells import EPOCH_MS, NULL, cell, numeric_cell, sketch_cell
from haat.usage.model import GROWTH, UNITS
from haat.usage.parts import Amounts, Caller
from haat.usage.rows import Row

QUARTER_MS: Final = 15 * 60 * 1000
_QUARTERS: Final = 4
MEASURES = ("calls", *UNITS, "bytes_in", "bytes_out", "latency_us", "latency")
"""What every rollup counts: the calls, their units, bytes, microseconds, and their sketch."""

_STEP: Final = log(GROWTH)
_BUCKETS: Final = 549
"""The longest latency there is, 2^31 µs, lies in the last one."""
_PLACES: Final = [bucket.to_bytes(2) for bucket in range(_BUCKETS)]
_SINGLES: Final = [sketch_cell({bucket: 1}) for bucket in range(_BUCKETS)]
_LOOSE: Final = 32 * 2
"""Up to so many bytes each call's bucket is noted: most customers have fewer calls in a quarter of an hour."""
_NO_PAIR: Final = cell("")
_whole: Final = struct.Struct("!iq").pack
_wholes: Final = struct.Struct("!iqiqiq").pack
_place: Final = struct.Struct("!H").unpack
_places: Final = struct.Struct("!H").iter_unpack
_class: Final = struct.Struct("!ih").pack
_head: Final = struct.Struct("!hiq").pack


class Cell(Amounts):
    """Sums over calls of a ``caller``; latencies in microseconds.

    ``places`` are the calls' buckets one by one, until there are so many that ``buckets`` count them.
    """

    __slots__ = ("buckets", "bytes_in", "bytes_out", "caller", "calls", "latency_us", "places")

    def __init__(self, caller: Caller) -> None:
        super().__init__()
        self.caller = caller
        self.calls = self.bytes_in = self.bytes_out = self.latency_us = 0
        self.places = b""
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
            self.places += _PLACES[bucket]
            if len(self.places) > _LOOSE:
                self.buckets = _counted(self.places)

    def join(self, other: Cell) -> None:
        """Add another cell's calls."""
        self.add(other)
        self.calls += other.calls
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.latency_us += other.latency_us
        if self.buckets is None:
            self.buckets = _counted(self.places)
        more = _counted(other.places) if other.buckets is None else other.buckets
        for bucket, calls in more.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + calls

    def data(self) -> bytes:
        """Return the columns of `MEASURES`."""
        if self.buckets is not None:
            sketch = sketch_cell(self.buckets)
        elif len(self.places) == 2:
            sketch = _SINGLES[_place(self.places)[0]]
        else:
            sketch = sketch_cell(_counted(self.places))
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
                sketch,
            )
        )


def _counted(places: bytes) -> dict[int, int]:
    """Return how many calls lie in each bucket."""
    buckets: dict[int, int] = {}
    for (bucket,) in _places(places):
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

    def sellers(self, operator: bytes) -> Iterator[bytes]:
        """Yield rows for `haat.usage.rollups.SELLERS`: by service and pair, and with either or both left out.

        The whole market's are the ``operator``'s, a cell of its id.
        """
        both: dict[_Sold, Cell] = {}
        for (_, pair, status_class, quarter), found in self._cells.items():
            caller = found.caller
            sold = _Sold(quarter, caller.seller, "both", caller.service, pair, status_class, caller.outcome)
            sum_up = both.get(sold)
            if sum_up is None:
                sum_up = both[sold] = Cell(caller)
            sum_up.join(found)
        services = _wider(both, lambda sold: sold._replace(by="service", pair=_NO_PAIR))
        pairs = _wider(both, lambda sold: sold._replace(by="pair", service=NULL))
        alls = _wider(pairs, lambda sold: sold._replace(by="all", pair=_NO_PAIR))
        market_pairs = _wider(pairs, lambda sold: sold._replace(by="market_pair", seller=operator))
        market = _wider(alls, lambda sold: sold._replace(by="market", seller=operator))
        divided = (both, services, pairs, alls, market_pairs, market)
        for sold, found in chain.from_iterable(cells.items() for cells in divided):
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


def _wider(cells: dict[_Sold, Cell], kept_by: Callable[[_Sold], _Sold]) -> dict[_Sold, Cell]:
    """Sum cells up that are kept by the same."""
    found: dict[_Sold, Cell] = {}
    for sold, one in cells.items():
        key = kept_by(sold)
        sum_up = found.get(key)
        if sum_up is None:
            sum_up = found[key] = Cell(one.caller)
        sum_up.join(one)
    return found


_CUSTOMER_COLUMNS = 1 + 9 + len(MEASURES)
_SELLER_COLUMNS = 1 + 6 + len(MEASURES)

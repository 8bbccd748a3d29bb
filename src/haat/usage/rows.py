"""What a usage event becomes in the store: a row as PostgreSQL's binary COPY takes it, or a reason why not.

A row is its numbers, which no other call shares, and three parts that recur from call to call (see
`haat.usage.parts`). Where the parts come from, an event or a glance at its JSON, makes no difference to the row.
"""

from __future__ import annotations

import struct
from typing import Final

from haat.usage.cells import EPOCH_MS, MAX_BIGINT, MAX_INT, bounded
from haat.usage.event import Timings, UsageEvent
from haat.usage.model import MAX_AHEAD_MS, MAX_BEHIND_MS, Misfit
from haat.usage.parts import (
    CALLER_COLUMNS,
    CALLER_OTHERS,
    COUNTED_COLUMNS,
    COUNTED_OTHERS,
    REST_COLUMNS,
    REST_OTHERS,
    Caller,
    Counted,
    Rest,
    caller_of,
    counted_of,
    id_bytes,
    rest_of,
)

_NUMBERS = (
    "id",
    "at",
    "batch",
    "status",
    "admission_us",
    "queue_us",
    "connect_us",
    "first_byte_us",
    "total_us",
    "bytes_in",
    "bytes_out",
)
USUAL_COLUMNS = (*_NUMBERS, *CALLER_COLUMNS, *COUNTED_COLUMNS, *REST_COLUMNS)
"""Columns of a usual row, whose others say nothing: the table's defaults cost PostgreSQL half of what cells do."""
COLUMNS = (
    *(*_NUMBERS, *CALLER_COLUMNS, *CALLER_OTHERS, *COUNTED_COLUMNS, *COUNTED_OTHERS),
    *(*REST_COLUMNS, *REST_OTHERS),
)
"""Columns of a usage row in the order of `Row.data`."""

USUAL_WIDTH: Final = len(USUAL_COLUMNS).to_bytes(2)
WIDTH: Final = len(COLUMNS).to_bytes(2)
"""What stands before a row for COPY: how many columns it has."""
_LAST_MS: Final = 253_370_764_800_000  # the year 9999, the last one that dates can name
_numbers: Final = struct.Struct("!i16s iq iq ih ii ii ii ii ii iq iq").pack


class Row:
    """A usage row: ``numbers`` and its parts' data for COPY, the rest for the rollups."""

    __slots__ = ("bytes_in", "bytes_out", "caller", "counted", "id", "numbers", "rest", "status", "time_ms", "total_us")

    def __init__(
        self,
        id: bytes,
        batch: int,
        time_ms: int,
        status: int,
        timings: Timings,
        bytes_in: int,
        bytes_out: int,
        caller: Caller,
        counted: Counted,
        rest: Rest,
    ) -> None:
        self.id, self.time_ms, self.caller, self.counted, self.rest = id, time_ms, caller, counted, rest
        self.status = status = status if 0 <= status <= 999 else 0
        self.total_us = total_us = bounded(timings.total, MAX_INT)
        self.bytes_in = bytes_in = bounded(bytes_in, MAX_BIGINT)
        self.bytes_out = bytes_out = bounded(bytes_out, MAX_BIGINT)
        self.numbers = _numbers(
            16,
            id,
            8,
            (time_ms - EPOCH_MS) * 1000,
            8,
            batch,
            2,
            status,
            4,
            bounded(timings.admission, MAX_INT),
            4,
            bounded(timings.queue, MAX_INT),
            4,
            bounded(timings.connect, MAX_INT),
            4,
            bounded(timings.first_byte, MAX_INT),
            4,
            total_us,
            8,
            bytes_in,
            8,
            bytes_out,
        )

    @property
    def data(self) -> bytes:
        """The row as COPY takes it."""
        return b"".join((WIDTH, self.numbers, self.caller.data, self.counted.data, self.rest.data))


def row_of(event: UsageEvent, batch: int, now_ms: int | None) -> Row:
    """Return the row of an event; raise Misfit for one that must be set aside."""
    try:
        identifier = id_bytes(event.id)
    except ValueError as error:
        raise Misfit("its id is not a UUID") from error
    return Row(
        identifier,
        batch,
        time_of(identifier, event.at, now_ms),
        event.status,
        event.timings_us,
        event.bytes_in,
        event.bytes_out,
        caller_of(event),
        counted_of(event),
        rest_of(event),
    )


def time_of(identifier: bytes, at: int, now_ms: int | None) -> int:
    """Return the millisecond of a call; raise Misfit for one that can't be.

    It is the one in its id: the same number decides partition, period and price, so they can't disagree. ``at`` is
    what the event says besides; ``now_ms`` bounds it (−35 days to +5 minutes), None waives that.
    """
    if identifier[6] >> 4 != 7 or identifier[8] >> 6 != 0b10:
        raise Misfit("its id is not a UUIDv7, which carries the time")
    time_ms = int.from_bytes(identifier[:6])
    if time_ms > _LAST_MS:
        raise Misfit("the time in its id is thousands of years ahead")
    if abs(at - time_ms) > MAX_AHEAD_MS:
        raise Misfit("its time and the time in its id are more than five minutes apart")
    if now_ms is not None and time_ms > now_ms + MAX_AHEAD_MS:
        raise Misfit("it lies more than five minutes in the future")
    if now_ms is not None and time_ms < now_ms - MAX_BEHIND_MS:
        raise Misfit("it is older than 35 days")
    return time_ms

"""Identifiers: UUIDv7 for every row and every call (RFC 9562, section 5.7)."""

from __future__ import annotations

import os
import threading
import time
import uuid

_lock = threading.Lock()
_last = 0
_SEQUENCE_BITS = 74  # rand_a (12) and rand_b (62) together, counted up within a millisecond
_RANDOM_MASK = (1 << (_SEQUENCE_BITS - 2)) - 1  # the top two bits start at zero: room to count


def _compose(stamp: int) -> int:
    """Lay a 48-bit millisecond and a 74-bit tail out as a version 7, variant 10 UUID."""
    milliseconds, tail = stamp >> _SEQUENCE_BITS, stamp & ((1 << _SEQUENCE_BITS) - 1)
    rand_a, rand_b = tail >> 62, tail & ((1 << 62) - 1)
    return milliseconds << 80 | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b


def new_id() -> uuid.UUID:
    """Return a UUIDv7 greater than every one this process returned before.

    Ids stay increasing when the wall clock steps back: the last millisecond is then counted on.
    """
    return uuid.UUID(int=_next())


def new_id_text() -> str:
    """Return what `new_id` does as a text, in half the time."""
    digits = f"{_next():032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _next() -> int:
    global _last
    with _lock:
        fresh = (time.time_ns() // 1_000_000) << _SEQUENCE_BITS
        fresh |= int.from_bytes(os.urandom(9), "big") & _RANDOM_MASK
        _last = fresh if fresh >> _SEQUENCE_BITS > _last >> _SEQUENCE_BITS else _last + 1
        return _compose(_last)


def id_at(milliseconds: int) -> uuid.UUID:
    """Return the smallest UUIDv7 of a millisecond since the epoch: a bound for range queries."""
    return uuid.UUID(int=_compose(milliseconds << _SEQUENCE_BITS))


def milliseconds_of(identifier: uuid.UUID) -> int:
    """Return the milliseconds since the epoch that a UUIDv7 carries."""
    return identifier.int >> 80

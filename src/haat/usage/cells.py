"""Values as PostgreSQL's binary COPY takes them: for each its length in bytes, then itself in network order."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

import msgspec

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
"""What stands before the rows of a binary COPY: the signature, no flags, no extension."""
TRAILER: Final = struct.pack("!h", -1)
NULL: Final = struct.pack("!i", -1)
EPOCH_MS: Final = 946_684_800_000
"""PostgreSQL counts its microseconds from 2000."""
MICRO: Final = 1_000_000
"""Quantities are counted in millionths: whole numbers, so that sums are exact and quick."""
MAX_SMALLINT: Final = 2**15 - 1
MAX_INT: Final = 2**31 - 1
MAX_BIGINT: Final = 2**63 - 1

_json: Final = msgspec.json.Encoder(order="sorted")
_number: Final = struct.Struct("!i4h").pack
_smallint: Final = struct.Struct("!ih").pack
_two_digits: Final = struct.Struct("!i6h").pack


def clean(value: str) -> str:
    """Return a text without NUL: PostgreSQL keeps none, and one caller's must not stop everybody's metering."""
    return value.replace("\0", "\ufffd") if "\0" in value else value


def bounded(value: int, most: int) -> int:
    return value if 0 <= value <= most else min(max(value, 0), most)


def cell(value: str) -> bytes:
    """Return a text cell."""
    data = clean(value).encode()
    return len(data).to_bytes(4) + data


def uuid_cell(value: bytes | None) -> bytes:
    return NULL if value is None else b"\0\0\0\x10" + value


def smallint_cell(value: int) -> bytes:
    return _smallint(2, bounded(value, MAX_SMALLINT))


def boolean_cell(value: bool | None) -> bytes:
    return NULL if value is None else b"\0\0\0\1\1" if value else b"\0\0\0\1\0"


def json_cell(values: Mapping[str, str]) -> bytes:
    """Return a jsonb cell: a version, then the text."""
    data = _json.encode({clean(name): clean(value) for name, value in values.items()}) if values else b"{}"
    return struct.pack("!iB", len(data) + 1, 1) + data


def numeric_cell(micros: int) -> bytes:
    """Return a numeric cell of a quantity in millionths (not negative): its digits in base 10,000."""
    if micros % MICRO == 0:
        whole = micros // MICRO
        if whole < 10_000:
            return _WHOLE[whole]
        if whole < 100_000_000 and whole % 10_000:
            return _two_digits(12, 2, 1, 0, 6, whole // 10_000, whole % 10_000)
    return _numeric_cell(micros)


def _numeric_cell(micros: int) -> bytes:
    whole, rest = divmod(micros, MICRO)
    digits = [rest // 100, rest % 100 * 100]
    weight = -1
    while whole:
        whole, digit = divmod(whole, 10_000)
        digits.insert(0, digit)
        weight += 1
    while digits and not digits[-1]:
        digits.pop()
    while digits and not digits[0]:
        digits.pop(0)
        weight -= 1
    return struct.pack(f"!i4h{len(digits)}h", 8 + 2 * len(digits), len(digits), weight if digits else 0, 0, 6, *digits)


def sketch_cell(buckets: Mapping[int, int]) -> bytes:
    """Return a numeric cell of a sketch with at least one bucket (see `haat.usage.model.SKETCH_DIGITS`).

    Twelve decimal digits are three of the type's own, which count to 10,000.
    """
    highest = max(buckets)
    digits = bytearray(6 * (highest - min(buckets) + 1))
    for bucket, calls in buckets.items():
        at = 6 * (highest - bucket)
        more, digit = divmod(calls, 10_000)
        digits[at + 4 : at + 6] = digit.to_bytes(2)
        if more:
            most, digit = divmod(more, 10_000)
            digits[at : at + 4] = most.to_bytes(2) + digit.to_bytes(2)
    return _number(8 + len(digits), len(digits) // 2, 3 * highest + 2, 0, 0) + digits


_WHOLE: Final = tuple(_numeric_cell(whole * MICRO) for whole in range(10_000))

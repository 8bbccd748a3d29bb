"""Parquet files, written as they go: columns of a few plain types, row group after row group, in constant memory.

This writes what the format (parquet-format 2.9) asks of a writer and no more: required columns, PLAIN values in
version 1 data pages, GZIP, one page a column and row group. Why it isn't a library: docs/decisions/0033-parquet.md.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import Any

MAGIC = b"PAR1"
ROWS_A_GROUP = 50_000
DECIMAL_PRECISION = 38
_DECIMAL_BYTES = 16

# Thrift's compact protocol, and the numbers of parquet.thrift.
_I32, _I64, _BINARY, _LIST, _STRUCT = 5, 6, 8, 9, 12
_INT32, _INT64, _BYTE_ARRAY, _FIXED = 1, 2, 6, 7
_PLAIN, _RLE, _GZIP = 0, 3, 2


class Kind(Enum):
    """A column's type: (physical type, length, converted type, decimals)."""

    TEXT = (_BYTE_ARRAY, None, 0, None)  # UTF8
    TIME = (_INT64, None, 9, None)  # TIMESTAMP_MILLIS, UTC
    INTEGER = (_INT32, None, None, None)
    DECIMAL = (_FIXED, _DECIMAL_BYTES, 5, 6)  # DECIMAL(38, 6)
    FINE_DECIMAL = (_FIXED, _DECIMAL_BYTES, 5, 12)  # DECIMAL(38, 12)


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    kind: Kind


@dataclass(slots=True)
class _Chunk:
    """Where a column's values of one row group lie."""

    offset: int
    values: int
    raw_bytes: int
    packed_bytes: int


class Writer:
    """Turns rows into the bytes of a file: hand on what `write` returns each time, and what `close` does at the end.

    At most a row group is held. Values must be there and of their column's kind: str, datetime, int (32 bits), Decimal
    with at most six decimals, or twelve; ValueError for a decimal that doesn't fit.
    """

    def __init__(self, columns: Sequence[Column], *, rows_a_group: int = ROWS_A_GROUP) -> None:
        self._columns, self._rows_a_group = columns, rows_a_group
        self._rows: list[Sequence[Any]] = []
        self._groups: list[tuple[int, list[_Chunk]]] = []
        self._offset = 0

    def write(self, row: Sequence[Any]) -> bytes:
        """Take a row; return bytes when a row group is full, else none."""
        self._rows.append(row)
        return self._group() if len(self._rows) >= self._rows_a_group else b""

    def close(self) -> bytes:
        """Return the rest: the last row group, and the footer that says where everything is."""
        tail = self._group() if self._rows else b""
        if not self._offset:
            tail = self._begin()
        footer = self._footer()
        return tail + footer + len(footer).to_bytes(4, "little") + MAGIC

    def _begin(self) -> bytes:
        self._offset = len(MAGIC)
        return MAGIC

    def _group(self) -> bytes:
        pieces = [self._begin()] if not self._offset else []
        chunks = []
        for place, column in enumerate(self._columns):
            encode = _ENCODERS[column.kind]
            values = b"".join([encode(row[place]) for row in self._rows])
            packer = zlib.compressobj(6, zlib.DEFLATED, 31)  # 31: in gzip's own wrapping
            packed = packer.compress(values) + packer.flush()
            head = _page_header(len(self._rows), len(values), len(packed))
            chunks.append(_Chunk(self._offset, len(self._rows), len(head) + len(values), len(head) + len(packed)))
            pieces += (head, packed)
            self._offset += len(head) + len(packed)
        self._groups.append((len(self._rows), chunks))
        self._rows = []
        return b"".join(pieces)

    def _footer(self) -> bytes:
        groups = [
            _struct(
                (1, _LIST, _list(_STRUCT, [self._chunk(*one) for one in zip(self._columns, chunks, strict=True)])),
                (2, _I64, sum(chunk.raw_bytes for chunk in chunks)),
                (3, _I64, rows),
            )
            for rows, chunks in self._groups
        ]
        root = _struct((4, _BINARY, b"schema"), (5, _I32, len(self._columns)))
        return _struct(
            (1, _I32, 1),
            (2, _LIST, _list(_STRUCT, [root, *(_schema(column) for column in self._columns)])),
            (3, _I64, sum(rows for rows, _ in self._groups)),
            (4, _LIST, _list(_STRUCT, groups)),
            (6, _BINARY, b"haat"),
        )

    @staticmethod
    def _chunk(column: Column, chunk: _Chunk) -> bytes:
        about = _struct(
            (1, _I32, column.kind.value[0]),
            (2, _LIST, _list(_I32, [_varint(_zigzag(_PLAIN)), _varint(_zigzag(_RLE))])),
            (3, _LIST, _list(_BINARY, [_binary(column.name.encode())])),
            (4, _I32, _GZIP),
            (5, _I64, chunk.values),
            (6, _I64, chunk.raw_bytes),
            (7, _I64, chunk.packed_bytes),
            (9, _I64, chunk.offset),
        )
        return _struct((2, _I64, chunk.offset), (3, _STRUCT, about))


def _schema(column: Column) -> bytes:
    physical, length, converted, decimals = column.kind.value
    fields: list[tuple[int, int, Any]] = [(1, _I32, physical)]
    if length is not None:
        fields.append((2, _I32, length))
    fields += [(3, _I32, 0), (4, _BINARY, column.name.encode())]  # 0: REQUIRED
    if converted is not None:
        fields.append((6, _I32, converted))
    if decimals is not None:
        fields += [(7, _I32, decimals), (8, _I32, DECIMAL_PRECISION)]
    return _struct(*fields)


def _page_header(values: int, raw: int, packed: int) -> bytes:
    data_page = _struct((1, _I32, values), (2, _I32, _PLAIN), (3, _I32, _RLE), (4, _I32, _RLE))
    return _struct((1, _I32, 0), (2, _I32, raw), (3, _I32, packed), (5, _STRUCT, data_page))


# --- values ---------------------------------------------------------------------------------------

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _text(value: str) -> bytes:
    data = value.encode()
    return len(data).to_bytes(4, "little") + data


def _time(value: datetime) -> bytes:
    passed = value - _EPOCH
    return (passed.days * 86_400_000 + passed.seconds * 1000 + passed.microseconds // 1000).to_bytes(
        8, "little", signed=True
    )


def _integer(value: int) -> bytes:
    return value.to_bytes(4, "little", signed=True)


def _decimal(value: Decimal, decimals: int) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        raise ValueError(f"{value} is no number")
    whole = int("".join(map(str, digits)))
    shift = exponent + decimals
    power: int = 10 ** abs(shift)
    if shift >= 0:
        whole *= power
    elif whole % power:
        raise ValueError(f"{value} has more than {decimals} decimals")
    else:
        whole //= power
    if whole >= 10**DECIMAL_PRECISION:
        raise ValueError(f"{value} has more than {DECIMAL_PRECISION} digits")
    return (-whole if sign else whole).to_bytes(_DECIMAL_BYTES, "big", signed=True)


_ENCODERS: dict[Kind, Callable[[Any], bytes]] = {
    Kind.TEXT: _text,
    Kind.TIME: _time,
    Kind.INTEGER: _integer,
    Kind.DECIMAL: partial(_decimal, decimals=6),
    Kind.FINE_DECIMAL: partial(_decimal, decimals=12),
}


# --- Thrift's compact protocol --------------------------------------------------------------------


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _varint(value: int) -> bytes:
    return bytes(_septets(value))


def _septets(value: int) -> Iterator[int]:
    while value > 0x7F:
        yield value & 0x7F | 0x80
        value >>= 7
    yield value


def _binary(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _list(kind: int, items: Sequence[bytes]) -> bytes:
    head = bytes([len(items) << 4 | kind]) if len(items) < 15 else bytes([0xF0 | kind]) + _varint(len(items))
    return head + b"".join(items)


def _struct(*fields: tuple[int, int, Any]) -> bytes:
    """Return fields of ascending numbers, less than 16 apart: integers as they are, the rest as bytes."""
    pieces: list[bytes] = []
    last = 0
    for number, kind, value in fields:
        if kind in (_I32, _I64):
            value = _varint(_zigzag(value))
        elif kind == _BINARY:
            value = _binary(value)
        pieces += (bytes([number - last << 4 | kind]), value)
        last = number
    return b"".join([*pieces, b"\0"])

"""Journals read once more, from the description of their format alone: what was metered, byte by byte.

    u32 length of kind and payload · u32 CRC-32 of kind and payload · u8 kind · payload   (little-endian)

A USAGE record counts when a CONFIRM names it, or when the seal of a worker that ended says that none will come; then
it is in doubt, and not billed.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

USAGE, CONFIRM, OPEN, CHECKPOINT, SEAL, HEADER = range(1, 7)
ROTATED = 0


class Metered(NamedTuple):
    """A record, and where its first frame stands: (worker, segment, offset)."""

    place: tuple[str, int, int]
    call: dict[str, Any]


def frame(kind: int, payload: bytes) -> bytes:
    body = bytes([kind]) + payload
    return struct.pack("<II", len(body), zlib.crc32(body)) + body


def frames(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield (offset, kind, payload) up to where a worker died."""
    at = 0
    while at + 8 <= len(data):
        length, checksum = struct.unpack_from("<II", data, at)
        body = data[at + 8 : at + 8 + length]
        if len(body) < length or zlib.crc32(body) != checksum:
            return
        yield at, body[0], body[1:]
        at += 8 + length


def metered(journal: Path) -> list[Metered]:
    """Return every record that counts for something, in doubt or not."""
    found: list[Metered] = []
    for folder in sorted(one for one in journal.iterdir() if one.is_dir()):
        waiting: dict[bytes, Metered] = {}
        for segment in sorted(folder.glob("*.log")):
            for offset, kind, payload in frames(segment.read_bytes()):
                if kind == USAGE:
                    call = json.loads(payload)
                    key = UUID(call["id"]).bytes
                    place = waiting[key].place if key in waiting else (folder.name, int(segment.stem), offset)
                    waiting[key] = Metered(place, call)
                elif kind == CONFIRM:
                    names = [payload[at : at + 16] for at in range(0, len(payload), 16)]
                    found += [waiting.pop(name) for name in names if name in waiting]
                elif kind == SEAL and payload[0] != ROTATED:
                    found += [Metered(one.place, one.call | {"outcome": "unconfirmed"}) for one in waiting.values()]
                    waiting.clear()
    return found


def written(journal: Path) -> set[str]:
    """Return the ids of all calls of which a record is on disk, whatever becomes of it."""
    if not journal.is_dir():
        return set()
    return {
        json.loads(payload)["id"]
        for segment in journal.glob("*/*.log")
        for _, kind, payload in frames(segment.read_bytes())
        if kind == USAGE
    }

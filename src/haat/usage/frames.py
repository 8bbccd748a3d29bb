"""The journal's format: how frames lie in a segment, and what readers of other versions make of them.

``<directory>/<worker>/00000001.log`` and so on; segments are numbered from 1. A frame is

    u32 length of kind and payload · u32 CRC-32 of kind and payload · u8 kind · payload   (little-endian)

    USAGE (1)       JSON of a `UsageEvent`. While its id is unconfirmed, a later USAGE frame with the
                    same id replaces it (the caller left before the kernel took the answer).
    CONFIRM (2)     ids, 16 bytes each: their USAGE frames, which always lie before, are final.
    OPEN (3)        JSON of a `UsageEvent` with outcome ``interrupted``: a stream about to be dispatched.
    CHECKPOINT (4)  JSON of a `Checkpoint`: how far that stream has come.
    SEAL (5)        one byte, a `SealReason`. The last frame of a segment.
    HEADER (6)      JSON ``{"format": 1}``: which format a reader must know to read on. The first frame of
                    a segment; segments of before it existed have none, and are format 1.

An old and a new gateway, and an old and a new shipper, run side by side while a release rolls out.
So: JSON gains members and readers ignore those they don't know; a new kind of frame below
`MUST_UNDERSTAND` is one that a reader may pass over; one at or above it, or a higher ``format``, makes an
older reader stop and say so, and lose nothing.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

import msgspec

FORMAT = 1
"""What this program writes and the newest it can read. Raised only by a change that would mislead older readers."""

MUST_UNDERSTAND = 128
"""Kinds from here on mean something that a reader can't leave out."""

HEADER = struct.Struct("<IIB")
CHECKED = 1  # the kind byte counts towards the length and the checksum
FRAME_BYTES = HEADER.size
"""Bytes of a frame besides its payload."""
SEALED_BYTES = HEADER.size + 1
MAX_FRAME_BYTES = 4 * 1024 * 1024
ID_BYTES = 16
_NAME = re.compile(r"^[0-9]{8,}\.log$")


class Kind(IntEnum):
    USAGE = 1
    CONFIRM = 2
    OPEN = 3
    CHECKPOINT = 4
    SEAL = 5
    HEADER = 6


class SealReason(IntEnum):
    ROTATED = 0
    """The segment was full; the same process goes on in the next one."""
    CLOSED = 1
    """The worker ended in order."""
    RECOVERED = 2
    """The worker died; its successor sealed what was there."""


class Position(NamedTuple):
    """A place between two frames: a segment's number and a byte offset in it."""

    segment: int
    offset: int


START = Position(0, 0)
"""Before the oldest segment there is."""


class JournalError(OSError):
    """A record could not be written: serve nothing unmetered."""


class NoSpace(JournalError):
    """The disk is full, its reserve too."""


class JournalInUse(JournalError):
    """Another process writes this worker's journal."""


class CorruptJournal(Exception):
    """A segment can't be read on; the sentence says where and what to do."""

    ADVICE = "Restore the file from a backup, or move it away and accept that the records after that byte are lost."

    def __init__(self, path: Path, offset: int, reason: str) -> None:
        self.path, self.offset = path, offset
        super().__init__(f"{path} is damaged at byte {offset}: {reason}. {self.ADVICE}")


class TooNew(CorruptJournal):
    """A segment holds what only a newer version of this program understands. Nothing is lost."""

    def __init__(self, path: Path, offset: int, reason: str) -> None:
        self.path, self.offset = path, offset
        Exception.__init__(
            self, f"{path} can't be read on at byte {offset}: {reason}. Upgrade whoever reads it; it then goes on here."
        )


class _SegmentHeader(msgspec.Struct):
    format: int = FORMAT


_segment_header = msgspec.json.Decoder(_SegmentHeader)
SEGMENT_HEADER = msgspec.json.encode(_SegmentHeader())
"""Payload of the HEADER frame that this program writes."""


def format_of(payload: bytes) -> int:
    """Return the format that a HEADER frame states; raise ValueError for one that states none."""
    try:
        return _segment_header.decode(payload).format
    except msgspec.MsgspecError as error:
        raise ValueError("a segment's header can't be read") from error


def segment_path(directory: Path, worker: str, segment: int) -> Path:
    return directory / worker / f"{segment:08d}.log"


def workers(directory: Path) -> list[str]:
    """Return the names of all workers that have written a journal below ``directory``."""
    if not directory.is_dir():
        return []
    return sorted(path.name for path in directory.iterdir() if path.is_dir() and segments(directory, path.name))


def segments(directory: Path, worker: str) -> list[int]:
    """Return the numbers of a worker's segments, ascending."""
    folder = directory / worker
    if not folder.is_dir():
        return []
    return sorted(int(path.stem) for path in folder.iterdir() if _NAME.match(path.name))


KIND_CRC = tuple(zlib.crc32(bytes([kind])) for kind in range(256))
"""The checksum of each kind byte, from which a frame's goes on."""
pack_header = HEADER.pack


def encode_frame(kind: int, payload: bytes) -> bytes:
    return pack_header(len(payload) + CHECKED, zlib.crc32(payload, KIND_CRC[kind]), kind) + payload


def confirmed_ids(payload: bytes) -> list[bytes]:
    """Return the 16-byte ids in a CONFIRM payload."""
    return [payload[at : at + ID_BYTES] for at in range(0, len(payload) - ID_BYTES + 1, ID_BYTES)]


def is_sealed(path: Path) -> bool:
    """Tell whether a segment ends with a SEAL frame."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - SEALED_BYTES))
        tail = file.read()
    return any(tail == encode_frame(Kind.SEAL, bytes([reason])) for reason in SealReason)

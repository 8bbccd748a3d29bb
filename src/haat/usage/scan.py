"""Finds the frames in a segment's bytes: of the hot path of metering, so it can be compiled."""

from __future__ import annotations

import zlib
from typing import Final, NamedTuple

from haat.usage.frames import CHECKED, FRAME_BYTES, HEADER, KIND_CRC, MAX_FRAME_BYTES, START, Kind, Position

_PREFIX: Final = FRAME_BYTES - CHECKED
_SEAL: Final = int(Kind.SEAL)
_crc32: Final = zlib.crc32
_unpack: Final = HEADER.unpack_from


class Frame:
    """A good frame, and the place after it: what a reader remembers once the frame is dealt with."""

    __slots__ = ("kind", "offset", "payload", "segment")

    def __init__(self, kind: int, payload: bytes, segment: int, offset: int) -> None:
        self.kind, self.payload, self.segment, self.offset = kind, payload, segment, offset

    @property
    def end(self) -> Position:
        return Position(self.segment, self.offset)


class Bad(NamedTuple):
    """A place where no good frame begins."""

    offset: int
    reason: str
    torn: bool
    """The frame reaches beyond the end of the data: more may be on its way."""


def scan(data: bytes, position: Position = START) -> tuple[list[Frame], Bad | None]:
    """Return the good frames at the beginning of what a segment holds from a position on, and what ends them early.

    The place after a seal is the next segment's beginning.
    """
    segment, base = position
    frames: list[Frame] = []
    at, size = 0, len(data)
    while at < size:
        if size - at < FRAME_BYTES:
            return frames, Bad(base + at, "a frame's header is cut short", True)
        length, checksum, kind = _unpack(data, at)
        end = at + _PREFIX + length
        if not CHECKED <= length <= MAX_FRAME_BYTES:
            return frames, Bad(base + at, f"a frame claims {length} bytes", False)
        if end > size:
            return frames, Bad(base + at, "a frame is cut short", True)
        payload = data[at + FRAME_BYTES : end]
        if _crc32(payload, KIND_CRC[kind]) != checksum:
            return frames, Bad(base + at, "a frame's checksum is wrong", False)
        if kind == _SEAL:
            frames.append(Frame(kind, payload, segment + 1, 0))
        else:
            frames.append(Frame(kind, payload, segment, base + end))
        at = end
    return frames, None

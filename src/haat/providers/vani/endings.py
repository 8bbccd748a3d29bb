"""Whether an encoded recording is all there, by what its format says of lengths: a decoder would take less for all.

Each check raises ValueError, in words that follow ``it``, for a file that was cut off. What a format leaves open
passes: MP3 and AAC without an index, and WebM, are streams that may end anywhere.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

_XING_WITHIN = 200
_HAS_FRAMES, _HAS_BYTES = 1, 2
_HEAD, _LONG = struct.Struct(">I4s"), struct.Struct(">Q")


def check_ogg(content: bytes) -> None:
    """Pages follow each other to the end (RFC 3533, 6): each says how long its segments are."""
    at = 0
    while at < len(content):
        segments = at + 27
        if content[at : at + 4] != b"OggS" or segments > len(content):
            raise _damaged("ogg")
        count = content[segments - 1]
        at = segments + count + sum(content[segments : segments + count])
    if at > len(content):
        raise _damaged("ogg")


def check_mp3(content: bytes) -> None:
    """Encoders leave the number of bytes in the first frame, behind ``Xing`` or ``Info``; not all do."""
    begin = 0
    if content[:3] == b"ID3" and len(content) > 10:
        size = 0
        for part in content[6:10]:
            size = size << 7 | part & 0x7F  # seven bits each (ID3v2.4, 6.2)
        begin = 10 + size
    frame = content[begin : begin + _XING_WITHIN]
    at = max(frame.find(b"Xing"), frame.find(b"Info"))
    if at < 0 or at + 16 > len(frame):
        return
    flags = int.from_bytes(frame[at + 4 : at + 8], "big")
    place = at + 8 + (4 if flags & _HAS_FRAMES else 0)
    if flags & _HAS_BYTES and len(content) - begin < int.from_bytes(frame[place : place + 4], "big"):
        raise _damaged("mp3")


def check_mp4(content: bytes) -> None:
    """Boxes follow each other to the end (ISO/IEC 14496-12, 4.2); one of no length is the last."""
    at = 0
    while at < len(content):
        if at + 8 > len(content):
            raise _damaged("m4a")
        size, _ = _HEAD.unpack_from(content, at)
        if size == 1 and at + 16 <= len(content):
            (size,) = _LONG.unpack_from(content, at + 8)
        if size == 0:
            return
        if size < 8:
            raise _damaged("m4a")
        at += size
    if at > len(content):
        raise _damaged("m4a")


def check_aac(content: bytes) -> None:
    """Frames follow each other to the end (ADTS, ISO/IEC 13818-7, 6.2): each says how long it is."""
    at = 0
    while at < len(content):
        head = content[at : at + 7]
        if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
            raise _damaged("aac")
        size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
        if size < 7:
            raise _damaged("aac")
        at += size
    if at > len(content):
        raise _damaged("aac")


def _damaged(kind: str) -> ValueError:
    return ValueError(f"can't be read as {kind}: it is damaged or cut off")


CHECKS: Mapping[str, Callable[[bytes], None]] = {
    "ogg": check_ogg,
    "mp3": check_mp3,
    "m4a": check_mp4,
    "aac": check_aac,
}
"""By what a file's first bytes say that it is. FLAC is checked by its decoder."""

"""WAV files, read strictly: every length that a file declares must be the length that it has."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal

_CHUNK = struct.Struct("<4sI")
_FORMAT = struct.Struct("<HHIIHH")
_PCM, _EXTENSIBLE = 1, 0xFFFE
_SUBFORMAT_AT = 24


@dataclass(frozen=True, slots=True)
class Wav:
    """Samples as they stand in a file: little-endian PCM, ``width`` bytes each, interleaved by channel."""

    rate: int
    channels: int
    width: int
    samples: bytes

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / (self.rate * self.channels * self.width)

    @property
    def exact_seconds(self) -> Decimal:
        """How long it lasts, for the meter: to the millisecond, a part of one counting as one."""
        frames = Decimal(len(self.samples) // (self.channels * self.width))
        return (frames / self.rate).quantize(Decimal("0.001"), rounding=ROUND_UP)


def read_wav(content: bytes) -> Wav:
    """Return the sound of a PCM WAV file; raise ValueError, in words that follow ``it``, for anything else."""
    if len(content) < 12 or content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise ValueError("is not a WAV file")
    declared = int.from_bytes(content[4:8], "little") + 8
    if declared != len(content):
        raise ValueError(f"says that it has {declared} bytes and has {len(content)}")
    chunks = _chunks(content)
    if b"fmt " not in chunks or b"data" not in chunks:
        raise ValueError("holds no format or no data")
    head, samples = chunks[b"fmt "], chunks[b"data"]
    if len(head) < _FORMAT.size:
        raise ValueError("has a format that is cut off")
    kind, channels, rate, per_second, frame, bits = _FORMAT.unpack_from(head)
    if kind == _EXTENSIBLE and len(head) >= _SUBFORMAT_AT + 2:
        kind = int.from_bytes(head[_SUBFORMAT_AT : _SUBFORMAT_AT + 2], "little")
    if kind != _PCM or not channels or not rate or bits not in (8, 16, 24, 32):
        raise ValueError("must be PCM")
    if frame != channels * bits // 8 or per_second != frame * rate:
        raise ValueError("has a format whose numbers contradict each other")
    if not samples or len(samples) % frame:
        raise ValueError("holds no sound, or a part of a sample")
    return Wav(rate, channels, bits // 8, samples)


def _chunks(content: bytes) -> dict[bytes, bytes]:
    """Return a file's chunks by name, the first of each; all must end where the file does."""
    found: dict[bytes, bytes] = {}
    at = 12
    while at < len(content):
        if at + _CHUNK.size > len(content):
            raise ValueError("ends in the middle of a chunk's head")
        name, size = _CHUNK.unpack_from(content, at)
        at += _CHUNK.size
        if at + size > len(content):
            raise ValueError(f"says that a chunk has {size} bytes where {len(content) - at} are left")
        found.setdefault(name, content[at : at + size])
        at += size
        if size % 2 and at < len(content):
            at += 1  # chunks begin at even places (RIFF)
    return found

"""What an input costs a model: how much of a batch it takes, and what the caller pays for. Pure."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from decimal import Decimal

from haat.language import count_graphemes
from haat.models.hosted import Output, Unit, Units
from haat.models.manifest import Batching, Manifest
from haat.models.runtimes.port import Input

BYTES_A_SECOND = 16_000
"""How long sound is of which only the size is known: that of speech at 128 kbit/s."""
_CHUNKS = 64  # a WAV has a handful before its sound; who has more is not believed


def characters(given: Input) -> int:
    """Return the characters of an input's texts."""
    return len(given.text) + len(given.other)


def audio_seconds(content: bytes) -> float:
    """Return how long a sound is: by the head of a WAV, for all else by its size (`BYTES_A_SECOND`)."""
    by_size = len(content) / BYTES_A_SECOND
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return by_size
    at, rate = 12, 0
    for _ in range(_CHUNKS):
        if at + 8 > len(content):
            break
        name, size = struct.unpack_from("<4sI", content, at)
        if name == b"fmt " and at + 20 <= len(content):
            (rate,) = struct.unpack_from("<I", content, at + 16)
        if name == b"data":
            # A stream's head doesn't know its size yet: what is there counts.
            return min(size, len(content) - at - 8) / rate if rate else by_size
        at += 8 + size + size % 2
    return by_size


def cost(batching: Batching, given: Input) -> float:
    """Return how much of ``batching.max_cost`` an input takes."""
    if batching.cost == "characters":
        return characters(given)
    if batching.cost == "audio_seconds":
        return audio_seconds(given.content)
    return 1


def group(batching: Batching, given: Input) -> tuple[object, ...]:
    """Return what inputs must have in common to be in one batch.

    Lengths are alike when neither is more than about four times the other: a short text does not wait for a long one.
    """
    parts: list[object] = []
    for by in batching.group_by:
        if by == "language":
            config = given.config
            parts.append((config.get("language"), config.get("source"), config.get("target")))
        else:
            parts.append((characters(given) or len(given.content)).bit_length() // 2)
    return tuple(parts)


def used(manifest: Manifest, inputs: Sequence[Input], outputs: Sequence[Output], seconds: float) -> Units:
    """Return what a call is charged for, in the unit of the model's listing; ``seconds`` is how long it ran.

    A model whose unit only it can count says so in a number of that name in each output: ``{"text": …, "tokens": 12}``.
    """
    unit: Unit = manifest.listing.unit
    return {unit: _count(unit, inputs, outputs, seconds)}


def _count(unit: Unit, inputs: Sequence[Input], outputs: Sequence[Output], seconds: float) -> Decimal:
    match unit:
        case "characters":
            return Decimal(sum(map(characters, inputs)))
        case "graphemes":
            return Decimal(sum(count_graphemes(text) for given in inputs for text in (given.text, given.other)))
        case "bytes":
            return Decimal(sum(len(given.content) or len(given.text.encode()) for given in inputs))
        case "audio_seconds" if any(given.content for given in inputs):
            return _seconds(sum(audio_seconds(given.content) for given in inputs))
        case "compute_seconds":
            return _seconds(seconds)
        case "requests":
            return Decimal(1)
        case "images":
            return Decimal(len(inputs))
    counts = [output.get(unit, 1 if unit == "pages" else 0) for output in outputs]
    return sum((_seconds(count) for count in counts if isinstance(count, (int, float)) and count > 0), Decimal(0))


def _seconds(count: float) -> Decimal:
    return Decimal(f"{count:.3f}")

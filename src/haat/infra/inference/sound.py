"""Sound between WAV files, which tasks hold, and waveforms, which many models take: FP32 in -1 to 1, one channel."""

from __future__ import annotations

import array
import io
import sys
import wave
from collections.abc import Sequence
from itertools import repeat
from operator import mul

_FULL = 32768.0
RATES = range(4_000, 192_001)


class NoSound(ValueError):
    """The file can't be used; the sentence says why."""


def read_wav(content: bytes) -> tuple[array.array[int], int]:
    """Return the samples (one channel, 16 bit) and the rate of a WAV file; raise NoSound.

    What counts is the sound that is there, not the length that the head announces.
    """
    try:
        with wave.open(io.BytesIO(content)) as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            frames = file.readframes(len(content))
    except (wave.Error, EOFError, ValueError, RuntimeError) as error:
        raise NoSound("must be a WAV file, uncompressed") from error
    if width != 2 or not 1 <= channels <= 8 or rate not in RATES:
        raise NoSound("must be a WAV file of 16 bit, at most 8 channels, 4,000 to 192,000 Hz")
    samples = array.array("h", frames[: len(frames) - len(frames) % (2 * channels)])
    if sys.byteorder == "big":
        samples.byteswap()
    if channels > 1:
        parts = [samples[channel::channels] for channel in range(channels)]
        samples = array.array("h", [sum(frame) // channels for frame in zip(*parts, strict=True)])
    if not samples:
        raise NoSound("must hold sound")
    return samples, rate


def as_waveform(samples: array.array[int]) -> array.array[float]:
    """Return samples as a model takes them."""
    return array.array("f", map(mul, samples, repeat(1 / _FULL)))


def as_wav(waveform: Sequence[float], rate: int) -> bytes:
    """Return a waveform as a WAV file of 16 bit; what is louder than full is cut."""
    try:
        samples = array.array("h", map(round, map(mul, waveform, repeat(_FULL))))
    except OverflowError:
        samples = array.array("h", [max(-32768, min(32767, round(value * _FULL))) for value in waveform])
    if sys.byteorder == "big":
        samples.byteswap()
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(rate)
        wav.writeframes(samples.tobytes())
    return file.getvalue()

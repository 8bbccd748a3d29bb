"""What simulated answers are made of: the same for the same input, on every machine and in every release."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import struct
import wave
from functools import cache
from importlib import resources
from typing import Any

import msgspec

DIMENSIONS = 64
RATE = 16_000
TONES = {"mp3": 22_050, "opus": 24_000, "aac": 22_050, "flac": 22_050, "pcm": 24_000}
"""Formats beside WAV that there is a tone in, with its sample rate. Encoding takes a program that few have."""
SECONDS = 0.25
encode = msgspec.json.Encoder(order="sorted").encode


def mark(value: Any) -> str:
    """Return eight hexadecimal digits that stand for an input."""
    return _digest(value).hex()[:8]


def marked(text: str, of: Any) -> str:
    """Return a text that nobody takes for a real answer, and that differs when the input does."""
    return f"[test {mark(of)}] {text}"


def vector(value: Any) -> list[float]:
    """Return a vector of length 1 and `DIMENSIONS` numbers."""
    numbers = [byte - 127.5 for byte in _digest(value)]
    length = math.sqrt(math.fsum(number * number for number in numbers))
    return [round(number / length, 6) for number in numbers]


def tone(value: Any) -> bytes:
    """Return a WAV file, 16 bit and one channel: a quarter of a second at a pitch that the input decides."""
    pitch = 220 + _digest(value)[0] * 2
    samples = [int(6000 * math.sin(math.tau * pitch * at / RATE)) for at in range(int(RATE * SECONDS))]
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(RATE)
        sound.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    return file.getvalue()


@cache
def tone_as(form: str) -> bytes:
    """Return such a tone in another format of `TONES`: of one pitch, whatever the input."""
    return resources.files("haat.gateway.simulator").joinpath("tones", f"tone.{form}").read_bytes()


def seconds_of(content: str) -> float:
    """Return how long a sound is: a WAV file's own word, else what so many bytes would be at 16 kHz."""
    try:
        raw = base64.b64decode(content)
    except ValueError:
        return 1.0
    try:
        with wave.open(io.BytesIO(raw)) as sound:
            return round(sound.getnframes() / sound.getframerate(), 3) or 0.001
    except (wave.Error, EOFError, RuntimeError, ZeroDivisionError):  # a head that lies
        return round(max(1, len(raw)) / (2 * RATE), 3) or 0.001


def _digest(value: Any) -> bytes:
    raw = value if isinstance(value, bytes) else encode(value)
    return hashlib.blake2b(raw, digest_size=DIMENSIONS, person=b"haat-simulator").digest()

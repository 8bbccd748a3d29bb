"""A WAV file whose chunks lie about their sizes is its sender's fault wherever one is read."""

from __future__ import annotations

import base64
import contextlib
import io
import random
import wave
from collections.abc import Callable
from typing import Any

import pytest

from haat.gateway.doors.ulca.content import pcm_of
from haat.gateway.simulator import marks
from haat.infra import ulca
from haat.infra.inference.sound import NoSound, read_wav
from haat.kernel.errors import ProviderFailed
from haat.providers.vani.command import sound_of
from haat.providers.vani.wav import read_wav as read_strictly

BEYOND = b"RIFF\x64\x00\x00\x00WAVELIST\x40\x42\x0f\x00" + b"x" * 50
READERS: dict[str, tuple[Callable[[Any], Any], Callable[[bytes], Any], type[Exception] | None]] = {
    "spoken-command": (lambda content: sound_of(read_strictly(content)), bytes, ValueError),
    "strictly": (read_strictly, bytes, ValueError),
    "a-models-sound": (read_wav, bytes, NoSound),
    "a-providers-sound": (pcm_of, lambda content: base64.b64encode(content).decode(), ProviderFailed),
    "ulca-seconds": (ulca.seconds_of, lambda content: base64.b64encode(content).decode(), None),
    "simulated-seconds": (marks.seconds_of, lambda content: base64.b64encode(content).decode(), None),
}


def lies(count: int) -> list[bytes]:
    """Return files whose heads are changed at random, the same in each run."""
    whole, chance = io.BytesIO(), random.Random(7)
    with wave.open(whole, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(b"\1\2" * 80)
    found = [BEYOND, b"", b"RIFF"]
    for _ in range(count):
        content = bytearray(whole.getvalue())
        for _ in range(chance.randint(1, 5)):
            content[chance.randrange(48)] = chance.choice((0, 1, 255, chance.randrange(256)))
        found.append(bytes(content[: chance.choice((len(content), chance.randrange(len(content))))]))
    return found


@pytest.mark.parametrize("name", READERS)
def test_whoever_reads_it_says_so(name: str) -> None:
    read, given, refusal = READERS[name]
    for content in lies(1000):
        with contextlib.suppress(*([refusal] if refusal else [])):
            read(given(content))

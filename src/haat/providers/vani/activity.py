"""Where in a recording somebody speaks: WebRTC's voice activity detector, its frames made into segments."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from importlib import resources
from typing import Any

from haat.models.hosted import HostedService, Item, Option, Output, Units
from haat.providers.companies import VANI
from haat.providers.vani.sound import FORMATS, recordings
from haat.providers.vani.wav import Wav

RATES = (8_000, 16_000, 32_000, 48_000)
FRAME_SECONDS = 0.03
DECODED_RATE = 16_000
MOST_SECONDS = 300


def speech_of(sound: Wav) -> Wav:
    """Return a WAV file's sound; raise ValueError unless it is 16-bit mono at one of `RATES`."""
    if sound.width != 2 or sound.channels != 1 or sound.rate not in RATES:
        raise ValueError("must be 16-bit PCM, one channel, 8,000, 16,000, 32,000 or 48,000 Hz")
    return sound


def segments(sound: Wav, mode: int, least_silence: float, least_speech: float) -> list[tuple[float, float]]:
    """Return where speech begins and ends, in seconds.

    Pauses shorter than ``least_silence`` don't divide, stretches shorter than ``least_speech`` don't count.
    """
    found: list[tuple[float, float]] = []
    for start, end in _spoken_frames(sound, mode):
        # Frames lie on a grid: a pause is a whole number of them, and half a frame is no pause.
        if found and start - found[-1][1] < max(least_silence, FRAME_SECONDS / 2):
            found[-1] = found[-1][0], end
        else:
            found.append((start, end))
    return [(start, min(end, sound.seconds)) for start, end in found if end - start >= least_speech]


def _spoken_frames(sound: Wav, mode: int) -> Iterator[tuple[float, float]]:
    size = int(sound.rate * FRAME_SECONDS) * sound.width
    detector = _fresh(mode)
    for number, at in enumerate(range(0, len(sound.samples), size)):
        frame = sound.samples[at : at + size].ljust(size, b"\0")
        if detector.is_speech(frame, sound.rate):
            yield number * FRAME_SECONDS, (number + 1) * FRAME_SECONDS


def _fresh(mode: int) -> Any:
    """Return a detector that has heard nothing: it adapts to what it hears, and calls must not depend on others."""
    from webrtcvad import Vad  # type: ignore[import-untyped]  # no types

    return Vad(mode)


def invoke(items: Sequence[Item], config: Mapping[str, Any]) -> tuple[list[Output], Units]:
    """Return ``{"segments": [{"start", "end"}], "seconds"}`` an item; units are seconds of audio, to the millisecond.

    Raises ValidationFailed for a recording that is not as the listing says, or not as long as its head does.
    """
    sounds = recordings(items, DECODED_RATE, MOST_SECONDS, speech_of)
    outputs: list[Output] = []
    total = Decimal(0)
    for sound in sounds:
        total += sound.exact_seconds
        found = segments(sound, config["mode"], config["least_silence"], config["least_speech"])
        shown = [{"start": round(start, 3), "end": round(end, 3)} for start, end in found]
        outputs.append({"segments": shown, "seconds": sound.exact_seconds})
    return outputs, {"audio_seconds": total}


def service() -> HostedService:
    sample = resources.files("haat.providers.vani").joinpath("samples", "turn-on-the-light.wav").read_bytes()
    return HostedService(
        company=VANI,
        slug="voice-activity",
        name="Voice activity",
        summary="Says from when to when somebody speaks in a recording, in any language.",
        description="Segments in seconds, to 30 milliseconds. It tells speech from silence and steady noise, not who "
        "speaks or what; music, other voices and sudden noises may pass for speech. `mode` 0 lets most pass, 3 "
        "least. `least_silence` is the shortest pause that divides two segments, `least_speech` the shortest segment, "
        "both in seconds. WAV, 16 bit, one channel, 8,000, 16,000, 32,000 or 48,000 Hz, or MP3, Ogg, FLAC, M4A, AAC or "
        "WebM; at most 5 minutes and 3,000,000 bytes. A file whose head lies about its length is refused.",
        category="speech_to_text",
        unit="audio_seconds",
        kind="audio",
        takes_language=False,
        capability="voice-activity",
        options=(
            Option("mode", "integer", "How strict to be.", 2, least=0, most=3),
            Option("least_silence", "number", "Shortest pause between segments, in seconds.", 0.3, least=0, most=10),
            Option("least_speech", "number", "Shortest segment, in seconds.", 0.09, least=0, most=10),
        ),
        formats=FORMATS,
        sample={"input": [{"audio": {"content": base64.b64encode(sample).decode(), "format": "wav"}}], "config": {}},
        unit_price=Decimal("0.0020"),
        free_units=5,
        max_inputs=2,
        max_bytes=3_000_000,
        typical_latency_ms=10,
        runtime="process",
        license_note="Engine: WebRTC's voice activity detector (BSD).",
        invoke=invoke,
    )

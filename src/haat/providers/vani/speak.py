"""Text spoken by espeak-ng, as a WAV file."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from haat.kernel.errors import EngineFailed
from haat.language import normalise
from haat.models.hosted import HostedService, Item, Option, Output, Units
from haat.providers.companies import VANI
from haat.providers.programs import missing_program, run_program

SECONDS = 20.0
_HEADER_BYTES = 44
_SAMPLE_RATE = 22_050  # Hz, 16 bit, one channel: espeak-ng's only output
# Konkani's voice is broken; Bodo, Dogri, Kashmiri, Maithili, Manipuri, Sanskrit and Santali have none.
VOICES = {
    "as-Beng": "as",
    "bn-Beng": "bn",
    "en-Latn": "en-gb",
    "gu-Gujr": "gu",
    "hi-Deva": "hi",
    "kn-Knda": "kn",
    "ml-Mlym": "ml",
    "mr-Deva": "mr",
    "ne-Deva": "ne",
    "or-Orya": "or",
    "pa-Guru": "pa",
    "sd-Arab": "sd",
    "ta-Taml": "ta",
    "te-Telu": "te",
    "ur-Arab": "ur",
}
_VARIANTS = {"standard": "", "female": "+f2", "male": "+m3"}


def speak(text: str, language: str, variant: str, rate: int, pitch: int) -> bytes:
    """Return a WAV file; ``rate`` is in words a minute, ``pitch`` in 0..99."""
    voice = VOICES[language] + _VARIANTS[variant]
    # `[[…]]` would be read as phonemes, and a NUL ends espeak-ng's input.
    spoken = normalise(text).replace("[[", "[ [").replace("\0", " ")
    arguments = ["espeak-ng", "-v", voice, "-s", str(rate), "-p", str(pitch), "-b", "1", "--stdin", "--stdout"]
    answer = run_program(arguments, spoken.encode(), seconds=SECONDS)
    samples = answer[_HEADER_BYTES:]
    if not samples:
        raise EngineFailed("The engine found nothing to say in this text; the call is not billed.")
    return _wav(samples[: len(samples) // 2 * 2])


def _wav(samples: bytes) -> bytes:
    # Written to a pipe, espeak-ng's own header can't tell the length and claims 2 GiB.
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(_SAMPLE_RATE)
        wav.writeframes(samples)
    return file.getvalue()


def invoke(items: Sequence[Item], config: Mapping[str, Any]) -> tuple[list[Output], Units]:
    """Return ``{"audio": {"content", "format", "sample_rate", "seconds"}}`` an item; units are characters."""
    outputs: list[Output] = []
    for item in items:
        wav = speak(item.text, config["language"], config["voice"], config["rate"], config["pitch"])
        audio = {
            "content": base64.b64encode(wav).decode(),
            "format": "wav",
            "sample_rate": _SAMPLE_RATE,
            "seconds": round((len(wav) - _HEADER_BYTES) / 2 / _SAMPLE_RATE, 3),
        }
        outputs.append({"audio": audio})
    return outputs, {"characters": Decimal(sum(len(item.text) for item in items))}


def missing() -> str | None:
    return missing_program("espeak-ng", "espeak-ng")


def service() -> HostedService:
    return HostedService(
        company=VANI,
        slug="text-to-speech",
        name="Text to speech",
        summary="Speaks a text in one of 15 languages and returns a WAV file.",
        description="A clear, synthetic voice: intelligible rather than natural. WAV, 16 bit, 22,050 Hz, one channel, "
        "base64 in `audio.content`.",
        category="text_to_speech",
        unit="characters",
        kind="text",
        languages=tuple(VOICES),
        options=(
            Option("voice", "choice", "Timbre of the voice.", "standard", choices=tuple(_VARIANTS)),
            Option("rate", "integer", "Words a minute.", 160, least=80, most=400),
            Option("pitch", "integer", "Pitch, 0 the lowest.", 50, least=0, most=99),
        ),
        sample={"input": [{"text": "नमस्ते, आप कैसे हैं?"}], "config": {"language": "hi-Deva"}},
        unit_price=Decimal("0.0030"),
        free_units=500,
        max_inputs=4,
        max_characters=400,
        typical_latency_ms=60,
        timeout_seconds=SECONDS,
        runtime="command",
        license_note="Engine: espeak-ng (GPL-3), run as a separate program.",
        invoke=invoke,
        missing=missing,
    )

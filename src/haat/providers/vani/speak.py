"""Text spoken by espeak-ng, as a WAV file or in one of the formats that ffmpeg writes."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from haat.kernel.errors import ValidationFailed
from haat.language import normalise
from haat.models.hosted import HostedService, Item, Option, Output, Units
from haat.providers.companies import VANI
from haat.providers.programs import missing_program, run_program
from haat.providers.vani import sound

SECONDS = 20.0
_HEADER_BYTES = 44
SAMPLE_RATE = 22_050  # Hz, 16 bit, one channel: espeak-ng's only output
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
    """Return a WAV file; see `spoken`."""
    return sound.wav_of(spoken(text, language, variant, rate, pitch), SAMPLE_RATE)


def spoken(text: str, language: str, variant: str, rate: int, pitch: int) -> bytes:
    """Return 16-bit samples of one channel at `SAMPLE_RATE`; ``rate`` is in words a minute, ``pitch`` in 0..99.

    Raise ValueError for a text that is all signs which have no sound.
    """
    voice = VOICES[language] + _VARIANTS[variant]
    # `[[…]]` would be read as phonemes, and a NUL ends espeak-ng's input.
    spoken = normalise(text).replace("[[", "[ [").replace("\0", " ")
    arguments = ["espeak-ng", "-v", voice, "-s", str(rate), "-p", str(pitch), "-b", "1", "--stdin", "--stdout"]
    answer = run_program(arguments, spoken.encode(), seconds=SECONDS)
    # Written to a pipe, its own header can't tell the length and claims 2 GiB.
    samples = answer[_HEADER_BYTES:]
    if not samples:
        raise ValueError("holds nothing that can be spoken")
    return samples[: len(samples) // 2 * 2]


def invoke(items: Sequence[Item], config: Mapping[str, Any]) -> tuple[list[Output], Units]:
    """Return ``{"audio": {"content", "format", "sample_rate", "seconds"}}`` an item; units are characters.

    Raise ValidationFailed for a text in which there is nothing to say.
    """
    outputs: list[Output] = []
    form = config["format"]
    for index, item in enumerate(items):
        try:
            samples = spoken(item.text, config["language"], config["voice"], config["rate"], config["pitch"])
        except ValueError as error:
            raise ValidationFailed(errors=[{"field": f"input[{index}].text", "message": str(error)}]) from error
        content, rate = (
            (sound.wav_of(samples, SAMPLE_RATE), SAMPLE_RATE)
            if form == "wav"
            else sound.encode(samples, SAMPLE_RATE, form)
        )
        audio = {
            "content": base64.b64encode(content).decode(),
            "format": form,
            "sample_rate": rate,
            "seconds": round(len(samples) / 2 / SAMPLE_RATE, 3),
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
        summary="Speaks a text in one of 15 languages, as WAV, MP3, Opus, AAC or FLAC.",
        description="A clear, synthetic voice: intelligible rather than natural. One channel, base64 in "
        "`audio.content`: WAV of 16 bit and 22,050 Hz, or in `format` MP3 (64 kbit/s), Opus in Ogg (32 kbit/s), AAC "
        "(64 kbit/s), FLAC, or bare samples (`pcm`, 16 bit, 24,000 Hz).",
        category="text_to_speech",
        unit="characters",
        kind="text",
        languages=tuple(VOICES),
        options=(
            Option("voice", "choice", "Timbre of the voice.", "standard", choices=tuple(_VARIANTS)),
            Option("rate", "integer", "Words a minute.", 160, least=80, most=400),
            Option("pitch", "integer", "Pitch, 0 the lowest.", 50, least=0, most=99),
            Option("format", "choice", "Format of the sound.", "wav", choices=("wav", *sound.ENCODED)),
        ),
        audio_formats=("wav", *sound.ENCODED) if sound.missing() is None else ("wav",),
        sample={"input": [{"text": "नमस्ते, आप कैसे हैं?"}], "config": {"language": "hi-Deva"}},
        unit_price=Decimal("0.0030"),
        free_units=500,
        max_inputs=4,
        max_characters=400,
        typical_latency_ms=60,
        timeout_seconds=SECONDS,
        runtime="command",
        license_note="Engine: espeak-ng (GPL-3), run as a separate program; ffmpeg (LGPL or GPL), another one, writes "
        "what is not WAV.",
        invoke=invoke,
        missing=missing,
    )

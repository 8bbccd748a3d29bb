"""English speech written down by pocketsphinx with the small language model that comes with it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from importlib import resources
from typing import Any

from haat.models.hosted import HostedService, Item, Output, Units
from haat.providers.companies import VANI
from haat.providers.vani.activity import segments
from haat.providers.vani.sound import FORMATS, mono, recordings
from haat.providers.vani.wav import Wav

MODEL_RATE = 16_000  # Hz, what the acoustic model was trained on
MOST_SECONDS = 60
# Silence and noise would be heard as words: only what a detector takes for a voice is listened to.
_STRICTNESS = 2
_LEAST_PAUSE = 0.5  # seconds that divide two utterances
_LEAST_SPEECH = 0.1
_MARGIN = 0.2  # seconds kept before and behind, where words begin and end softly


@lru_cache(maxsize=1)
def _decoder() -> Any:
    from pocketsphinx import Decoder, get_model_path  # type: ignore[import-untyped]  # no types

    model = get_model_path("en-us")
    return Decoder(
        hmm=f"{model}/en-us",
        lm=f"{model}/en-us.lm.bin",
        dict=f"{model}/cmudict-en-us.dict",
        samprate=MODEL_RATE,
        loglevel="FATAL",
    )


def recognise(sound: Wav) -> list[Output]:
    """Return ``{"start", "end", "text"}`` for each stretch of a sound (at `MODEL_RATE`) in which words were heard.

    Not safe in threads: the decoder is one object with a current utterance.
    """
    found: list[Output] = []
    for start, end in segments(sound, _STRICTNESS, _LEAST_PAUSE, _LEAST_SPEECH):
        text = _words(_cut(sound, start - _MARGIN, end + _MARGIN))
        if text:
            found.append({"start": round(start, 3), "end": round(end, 3), "text": text})
    return found


def _cut(sound: Wav, start: float, end: float) -> bytes:
    return sound.samples[max(0, int(start * sound.rate)) * sound.width : int(end * sound.rate) * sound.width]


def _words(samples: bytes) -> str:
    decoder = _decoder()
    decoder.start_utt()
    try:
        decoder.process_raw(samples, full_utt=True)
    finally:
        decoder.end_utt()
    heard = decoder.hyp()
    return heard.hypstr if heard is not None else ""


def invoke(items: Sequence[Item], config: Mapping[str, Any]) -> tuple[list[Output], Units]:
    """Return ``{"text", "segments", "seconds"}`` an item; units are seconds of audio, to the millisecond."""
    sounds = recordings(items, MODEL_RATE, MOST_SECONDS, lambda wav: mono(wav, MODEL_RATE))
    outputs: list[Output] = []
    for sound in sounds:
        found = recognise(sound)
        text = " ".join(one["text"] for one in found)
        outputs.append({"text": text, "segments": found, "seconds": sound.exact_seconds})
    return outputs, {"audio_seconds": sum((sound.exact_seconds for sound in sounds), Decimal(0))}


def service() -> HostedService:
    sample = resources.files("haat.providers.vani").joinpath("samples", "call-my-mother.wav").read_bytes()
    return HostedService(
        company=VANI,
        slug="dictation",
        name="Dictation",
        summary="Writes down spoken English, roughly: a stand-in for a real recogniser.",
        description="Experimental, and weak: a recogniser of an older kind with a small language model. Slow, clear "
        "American English suits it best; of synthetic voices it gets most words wrong. It writes in small letters "
        "without punctuation, and guesses where it doesn't know. `segments` says from when to when what was heard, in "
        "seconds. One recording a call, WAV, MP3, Ogg, FLAC, M4A, AAC or WebM, at most 60 seconds and 6,000,000 bytes; "
        "a second of sound takes about half a second.",
        category="speech_to_text",
        capability="dictation",
        unit="audio_seconds",
        kind="audio",
        languages=("en-Latn",),
        formats=FORMATS,
        sample={
            "input": [{"audio": {"content": base64.b64encode(sample).decode(), "format": "wav"}}],
            "config": {"language": "en-Latn"},
        },
        unit_price=Decimal("0.0100"),
        free_units=15,
        max_inputs=1,
        max_bytes=6_000_000,
        typical_latency_ms=500,
        timeout_seconds=90,
        runtime="process",
        license_note="Engine: pocketsphinx with its en-us model (BSD).",
        invoke=invoke,
    )

"""One of a few spoken English commands, recognised by pocketsphinx with a grammar of just those."""

from __future__ import annotations

import base64
import io
import math
import re
import wave
from array import array
from collections.abc import Mapping, Sequence
from decimal import ROUND_UP, Decimal
from functools import lru_cache
from importlib import resources
from itertools import accumulate, pairwise
from typing import Any

from haat.kernel.errors import InputTooLong, ValidationFailed
from haat.models.hosted import HostedService, Item, Option, Output, Units
from haat.providers.companies import VANI

MODEL_RATE = 16_000  # Hz, what the acoustic model was trained on
MOST_SECONDS = 15
# A grammar hears a command in everything. Above this bound score all of 24 commands spoken by an
# American synthetic voice and 19 of 24 by a British one, but 4 of 56 other phrases.
LEAST_SCORE = -50.0
# Digital silence explains a short command as well as it explains nothing: below this loudness (root mean
# square of the loudest tenth of a second; full scale is 32,768) nobody spoke.
LEAST_LOUDNESS = 100
_TENTH = MODEL_RATE // 10
_SILENCE = ("<sil>", "<s>", "</s>", "(NULL)")
DEFAULT_COMMANDS = (
    "turn on the light",
    "turn off the light",
    "open the door",
    "close the door",
    "play music",
    "stop",
    "call my mother",
    "what is the time",
)
_WORD = re.compile(r"[a-z']+")


@lru_cache(maxsize=1)
def _decoder() -> Any:
    from pocketsphinx import Decoder, get_model_path  # type: ignore[import-untyped]  # no types

    model = get_model_path("en-us")
    decoder = Decoder(
        hmm=f"{model}/en-us",
        dict=f"{model}/cmudict-en-us.dict",
        lm=None,
        samprate=MODEL_RATE,
        loglevel="FATAL",
        # A small grammar can afford wide beams, and its best path is lost in the lattice search that
        # helps long dictation: 47 of 48 synthetic commands were heard so, 28 with the defaults.
        bestpath=False,
        beam=1e-80,
        pbeam=1e-80,
        wbeam=1e-60,
        # Otherwise scores are relative to the sounds a search considers, and two searches can't be compared.
        compallsen=True,
    )
    decoder.add_allphone_file("phones", None)
    return decoder


def recognise(samples: bytes, commands: Sequence[str]) -> tuple[str | None, float | None]:
    """Return the command heard in 16-bit mono samples at `MODEL_RATE` (None: none of them) and its score.

    The score says how much worse than any string of phones the command explains the sound, per 10 ms
    of words and in natural logarithms: 0 is the best, below `LEAST_SCORE` it counts as something else.
    Not safe in threads: the decoder is one object with a current utterance.
    """
    if _loudness(samples) < LEAST_LOUDNESS:
        return None, None
    decoder = _decoder()
    decoder.add_jsgf_string("commands", f"#JSGF V1.0;\ngrammar commands;\npublic <command> = {' | '.join(commands)};")
    heard = _decode(decoder, "commands", samples)
    # What is cut off in the middle of a command is reported as its first words: that is no command.
    if heard is None or heard.hypstr not in commands:
        return None, None
    # Silence around the words must not dilute the score: any noise in a long pause would pass.
    frames = sum(part.end_frame - part.start_frame + 1 for part in decoder.seg() if part.word not in _SILENCE)
    anything = _decode(decoder, "phones", samples)
    if anything is None:
        return None, None
    logarithms = decoder.get_logmath()
    score = round((logarithms.log(heard.best_score) - logarithms.log(anything.best_score)) / max(1, frames), 1)
    return (heard.hypstr if score >= LEAST_SCORE else None), score


def _loudness(samples: bytes) -> float:
    values = array("h", samples)
    parts = (values[start : start + _TENTH] for start in range(0, len(values), _TENTH))
    return max((math.sqrt(sum(value * value for value in part) / len(part)) for part in parts), default=0.0)


def _decode(decoder: Any, search: str, samples: bytes) -> Any:
    decoder.activate_search(search)
    decoder.start_utt()
    try:
        decoder.process_raw(samples, full_utt=True)
    finally:
        decoder.end_utt()
    return decoder.hyp()


def check_commands(texts: Sequence[str]) -> list[str]:
    """Return commands in the dictionary's spelling; raise ValidationFailed for words it doesn't know.

    Only letters, apostrophes and spaces pass, so that nothing of the grammar's own syntax can.
    """
    commands = [" ".join(text.lower().split()) for text in texts]
    errors = []
    for index, command in enumerate(commands):
        words = command.split()
        if not words or not all(_WORD.fullmatch(word) for word in words):
            errors.append((index, "must be English words of letters only"))
        elif unknown := [word for word in words if _decoder().lookup_word(word) is None]:
            errors.append((index, f"has words the dictionary does not know: {', '.join(unknown)}"))
    if errors:
        raise ValidationFailed(
            errors=[{"field": f"config.commands[{index}]", "message": message} for index, message in errors]
        )
    return commands


def samples_of(wav: bytes) -> tuple[bytes, Decimal]:
    """Return a WAV file's sound as 16-bit mono samples at `MODEL_RATE`, and its length in seconds.

    Raises ValueError for what is not 16-bit PCM of one or two channels at 16,000 to 48,000 Hz.
    """
    try:
        with wave.open(io.BytesIO(wav)) as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            frames = file.readframes(file.getnframes())
    except (wave.Error, EOFError, RuntimeError) as error:  # the last for chunks longer than the file
        raise ValueError(f"is not a PCM WAV file: {error}") from error
    if width != 2 or channels not in (1, 2) or not MODEL_RATE <= rate <= 48_000:
        raise ValueError("must be 16-bit PCM, one or two channels, 16,000 to 48,000 Hz")
    samples = array("h", frames[: len(frames) // (2 * channels) * 2 * channels])
    if channels == 2:
        samples = array("h", ((left + right) // 2 for left, right in zip(samples[::2], samples[1::2], strict=True)))
    seconds = Decimal(len(samples)) / rate
    if rate != MODEL_RATE:
        samples = _resample(samples, rate)
    return samples.tobytes(), seconds


def _resample(samples: array[int], rate: int) -> array[int]:
    # Each new sample is the mean of the old ones it covers: a low-pass filter good enough for speech.
    sums = [0, *accumulate(samples)]
    step = rate / MODEL_RATE

    def area(at: float) -> float:
        whole = min(int(at), len(samples) - 1)
        return sums[whole] + (at - whole) * samples[whole]

    edges = [area(index * step) for index in range(int(len(samples) / step) + 1)] if samples else [0.0]
    return array("h", (round((end - start) / step) for start, end in pairwise(edges)))


def invoke(items: Sequence[Item], config: Mapping[str, Any]) -> tuple[list[Output], Units]:
    """Return ``{"command", "matched", "score", "seconds"}`` an item; units are seconds of audio, to the millisecond."""
    sounds = []
    for index, item in enumerate(items):
        try:
            samples, seconds = samples_of(item.content)
        except ValueError as error:
            field = f"input[{index}].audio.content"
            raise ValidationFailed(errors=[{"field": field, "message": str(error)}]) from None
        if seconds > MOST_SECONDS:
            raise InputTooLong(f"Recording {index} lasts {seconds:.1f} s.", limit=MOST_SECONDS, unit="seconds")
        sounds.append((samples, seconds.quantize(Decimal("0.001"), rounding=ROUND_UP)))
    commands = check_commands(config["commands"])
    outputs: list[Output] = []
    for samples, seconds in sounds:
        command, score = recognise(samples, commands)
        outputs.append({"command": command, "matched": command is not None, "score": score, "seconds": seconds})
    return outputs, {"audio_seconds": sum((seconds for _, seconds in sounds), Decimal(0))}


def service() -> HostedService:
    sample = resources.files("haat.providers.vani").joinpath("samples", "turn-on-the-light.wav").read_bytes()
    return HostedService(
        company=VANI,
        slug="spoken-command",
        name="Spoken command",
        summary="Recognises which of up to 50 English commands was spoken.",
        description="Experimental. Give your own commands or use the eight of a home. Only whole commands are "
        "recognised; most other speech is answered with `matched` false, but phrases that sound alike do pass. "
        "American English speaks to it best; words are those of an American English dictionary. WAV, 16 bit, "
        "16,000 to 48,000 Hz, at most 15 seconds.",
        category="speech_to_text",
        capability="spoken-command",
        unit="audio_seconds",
        kind="audio",
        languages=("en-Latn",),
        options=(Option("commands", "texts", "Commands to listen for.", DEFAULT_COMMANDS, least=1, most=50),),
        formats=("wav",),
        sample={
            "input": [{"audio": {"content": base64.b64encode(sample).decode(), "format": "wav"}}],
            "config": {"language": "en-Latn", "commands": ["turn on the light", "turn off the light", "open the door"]},
        },
        unit_price=Decimal("0.0150"),
        free_units=15,
        max_inputs=4,
        max_bytes=1_500_000,
        typical_latency_ms=200,
        timeout_seconds=20,
        runtime="process",
        license_note="Engine: pocketsphinx with its en-us model (BSD).",
        invoke=invoke,
    )

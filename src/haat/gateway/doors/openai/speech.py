"""``POST /v1/audio/speech``: a text spoken, as raw bytes."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from haat.gateway.doors.answers import read_task_answer
from haat.gateway.doors.bodies import read_body
from haat.gateway.doors.names import tag_of
from haat.gateway.doors.openai.protocol import DIALECT, OpenAIOperation, encode, pass_on, wrong_field, wrong_service
from haat.gateway.doors.visit import Visit, reply
from haat.kernel.errors import ProviderFailed
from haat.language import detect, detect_script

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.http.answers import Whole
    from haat.gateway.market.routes import Route

USUAL_RATE = 160
"""Words a minute that a speed of 1.0 stands for."""
FORMATS = ("wav", "pcm")
"""What every service gives that answers with WAV files; others give what their version says."""
_TYPES = {"mp3": b"audio/mpeg", "opus": b"audio/ogg", "aac": b"audio/aac", "flac": b"audio/flac", "wav": b"audio/wav"}
_KNOWN = (*_TYPES, "pcm")
_THEIR_VOICES = frozenset(
    "alloy ash ballad cedar coral echo fable marin nova onyx sage shimmer verse".split()  # noqa: SIM905  # readable so
)
"""Voices that the protocol's own service has: here they mean the listing's usual one."""


class _Speech(msgspec.Struct):
    model: str
    input: str
    voice: str | dict[str, Any] | None = None
    response_format: str | None = None
    speed: float | None = None
    stream_format: str | None = None
    language: str | None = None
    """None of the protocol's own: which of its languages the service is to speak."""


_decoder = msgspec.json.Decoder(_Speech)


class _Wanted(NamedTuple):
    """The format of the answer, and whether the service was asked for it: where not, it gives a WAV file."""

    form: str
    asked: bool


class Speech(OpenAIOperation):
    """A task service answers with ``{"audio": {"content", "format", "sample_rate"}}``."""

    name = "openai audio.speech"
    _fields: tuple[tuple[str, str], ...] = (
        ("input[0].text", "input"),
        ("config.format", "response_format"),
        ("config.rate", "speed"),
        ("config.voice", "voice"),
        ("config.language", "language"),
    )
    _too_long: str | None = "input"

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        asked: _Speech = read_body(_decoder, call, wrong_field)
        route = gateway.names.find(gateway, call, asked.model)
        if route.executing.dialect == DIALECT:
            pass_on(call, visit, route, b"/audio/speech")
            return True
        if not route.executing.takes_tasks:
            raise wrong_service(route, "speech")
        wanted = _wanted(asked.response_format, route.version.policy.audio_formats)
        if asked.stream_format not in (None, "audio"):
            raise wrong_field("stream_format", "this model gives raw audio, no events")
        if not asked.input.strip():
            raise wrong_field("input", "must be a text that is not empty")
        visit.asked = wanted
        config = _config(asked, route)
        if wanted.asked:
            config["format"] = wanted.form
        body = {"input": [{"text": asked.input}], "config": config}
        visit.become(call, route, b"/invoke", encode(body))
        return True

    def leave(self, call: Call, visit: Visit, answer: Whole) -> None:
        outputs, _ = read_task_answer(answer)
        audio = outputs[0].get("audio") if outputs else None
        wanted: _Wanted = visit.asked
        came_as = wanted.form if wanted.asked else "wav"
        try:
            if not isinstance(audio, dict) or audio.get("format", "wav") != came_as:
                raise ValueError("no such audio")
            content, rate = base64.b64decode(audio["content"], validate=True), audio.get("sample_rate", 0)
            if came_as == "wav":
                samples, rate = samples_of(content)
                content = samples if wanted.form == "pcm" else content
            if not content or (wanted.form == "pcm" and not (isinstance(rate, int) and rate > 0)):
                raise ValueError("no sound, or nobody knows at which rate")
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise ProviderFailed(
                f"The provider's answer holds no sound as {came_as}; the call is not billed."
            ) from error
        reply(answer, content, b"audio/pcm;rate=%d" % rate if wanted.form == "pcm" else _TYPES[wanted.form])


def _wanted(form: str | None, given: tuple[str, ...]) -> _Wanted:
    """Return the format of an answer: MP3 when nobody named one and the version gives it, as the protocol has it."""
    if form is None:
        form = "mp3" if "mp3" in given else "wav"
    there = tuple(dict.fromkeys((*given, *FORMATS)))
    if form not in there or form not in _KNOWN:
        raise wrong_field("response_format", f"this model gives {', '.join(one for one in there if one in _KNOWN)}")
    return _Wanted(form, form in given and form != "wav")


def _config(asked: _Speech, route: Route) -> dict[str, Any]:
    """Return the service's options: what the request says of voice, speed and language."""
    config: dict[str, Any] = {}
    voice = str(asked.voice.get("id", "")) if isinstance(asked.voice, dict) else asked.voice
    if voice and voice not in _THEIR_VOICES:
        config["voice"] = voice
    speed = 1.0 if asked.speed is None else asked.speed
    if not 0.25 <= speed <= 4.0:
        raise wrong_field("speed", "must be a number from 0.25 to 4.0")
    if speed != 1.0:
        config["rate"] = round(USUAL_RATE * speed)
    language = tag_of(asked.language or asked.model.partition(":")[2])
    languages = route.version.languages
    if not language and len(languages) > 1:
        language = _language_of(asked.input, languages)
        if not language:
            raise wrong_field("language", f"say which one the text is in: {', '.join(languages)}")
    if language:
        config["language"] = language
    return config


def _language_of(text: str, languages: tuple[str, ...]) -> str:
    """Return the one of a service's languages that a text is in, empty when nothing tells.

    A word or two are no evidence of a language, but their script is where only one of them is written in it.
    """
    best = detect(text).best
    if best is not None and str(best.tag) in languages:
        return str(best.tag)
    script = detect_script(text)
    fitting = [language for language in languages if language.partition("-")[2] == script]
    return fitting[0] if len(fitting) == 1 and best is None else ""


def samples_of(wav: bytes) -> tuple[bytes, int]:
    """Return the samples of a WAV file (RIFF) and how many there are a second; raise ValueError for anything else."""
    if wav[:4] != b"RIFF" or wav[8:12] != b"WAVE":
        raise ValueError("not a WAV file")
    at, rate = 12, 0
    while at + 8 <= len(wav):
        kind, size = wav[at : at + 4], int.from_bytes(wav[at + 4 : at + 8], "little")
        if kind == b"fmt ":
            rate = int.from_bytes(wav[at + 12 : at + 16], "little")
        elif kind == b"data" and rate:
            return wav[at + 8 : at + 8 + size], rate
        at += 8 + size + (size & 1)
    raise ValueError("a WAV file without samples")

"""``POST /v1/audio/speech``: a text spoken, as raw bytes."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

import msgspec

from haat.gateway.doors.names import tag_of
from haat.gateway.doors.openai.protocol import DIALECT, OpenAIOperation, encode, pass_on, wrong_field, wrong_service
from haat.gateway.doors.visit import Visit, read_body, read_task_answer, reply
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
USUAL_FORMAT = "wav"
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


class Speech(OpenAIOperation):
    """A task service answers with ``{"audio": {"content", "format", "sample_rate"}}``."""

    name = "openai audio.speech"
    _decoder = msgspec.json.Decoder(_Speech)

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        asked: _Speech = read_body(self._decoder, call, wrong_field)
        route = gateway.names.find(gateway, call, asked.model)
        if route.executing.dialect == DIALECT:
            pass_on(call, visit, route, b"/audio/speech")
            return True
        if not route.executing.takes_tasks:
            raise wrong_service(route, "speech")
        if (asked.response_format or USUAL_FORMAT) not in FORMATS:
            raise wrong_field("response_format", f"this model gives {' or '.join(FORMATS)}")
        if asked.stream_format not in (None, "audio"):
            raise wrong_field("stream_format", "this model gives raw audio, no events")
        if not asked.input.strip():
            raise wrong_field("input", "must be a text that is not empty")
        visit.asked = asked
        body = {"input": [{"text": asked.input}], "config": _config(asked, route)}
        visit.become(call, route, b"/invoke", encode(body))
        return True

    def leave(self, call: Call, visit: Visit, answer: Whole) -> None:
        outputs, _ = read_task_answer(answer)
        audio = outputs[0].get("audio") if outputs else None
        try:
            if not isinstance(audio, dict):
                raise ValueError("no audio")
            content = base64.b64decode(audio["content"], validate=True)
            samples, rate = samples_of(content)
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise ProviderFailed("The provider's answer holds no WAV file; the call is not billed.") from error
        if visit.asked.response_format in (None, USUAL_FORMAT):
            reply(answer, content, b"audio/wav")
        else:
            reply(answer, samples, b"audio/pcm;rate=%d" % rate)


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

"""``POST /v1/audio/speech``: a text spoken, as raw bytes."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

import msgspec

from haat.gateway.doors.answers import read_task_answer
from haat.gateway.doors.names import tag_of
from haat.gateway.doors.openai.protocol import DIALECT, OpenAIOperation, encode, pass_on, wrong_field, wrong_service
from haat.gateway.doors.operation import read_body
from haat.gateway.doors.visit import Visit, reply
from haat.kernel.errors import ProviderFailed
from haat.language import detect

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.http.answers import Whole
    from haat.gateway.market.routes import Route

USUAL_RATE = 160
"""Words a minute that a speed of 1.0 stands for."""
FORMATS = ("wav", "pcm")
_THEIR_VOICES = frozenset(
    "alloy ash ballad cedar coral echo fable marin nova onyx sage shimmer verse".split()  # noqa: SIM905  # readable so
)
"""Voices that the protocol's own service has: here they mean the listing's usual one."""


class _Speech(msgspec.Struct):
    model: str
    input: str
    voice: str | dict[str, Any] = ""
    response_format: str = "wav"
    speed: float = 1.0
    stream_format: str = "audio"
    language: str = ""
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
        if asked.response_format not in FORMATS:
            raise wrong_field("response_format", f"this model gives {' or '.join(FORMATS)}")
        if asked.stream_format != "audio":
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
        if visit.asked.response_format == "wav":
            reply(answer, content, b"audio/wav")
        else:
            reply(answer, samples, b"audio/pcm;rate=%d" % rate)


def _config(asked: _Speech, route: Route) -> dict[str, Any]:
    """Return the service's options: what the request says of voice, speed and language."""
    config: dict[str, Any] = {}
    voice = asked.voice if isinstance(asked.voice, str) else str(asked.voice.get("id", ""))
    if voice and voice not in _THEIR_VOICES:
        config["voice"] = voice
    if not 0.25 <= asked.speed <= 4.0:
        raise wrong_field("speed", "must be a number from 0.25 to 4.0")
    if asked.speed != 1.0:
        config["rate"] = round(USUAL_RATE * asked.speed)
    language = tag_of(asked.language or asked.model.partition(":")[2])
    languages = route.version.languages
    if not language and len(languages) > 1:
        best = detect(asked.input).best
        language = str(best.tag) if best is not None and str(best.tag) in languages else ""
        if not language:
            raise wrong_field("language", f"say which one the text is in: {', '.join(languages)}")
    if language:
        config["language"] = language
    return config


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

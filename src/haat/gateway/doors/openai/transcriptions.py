"""``POST /v1/audio/transcriptions``: a recording's words, as text, JSON, subtitles or a stream."""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from haat.gateway.doors.answers import read_task_answer
from haat.gateway.doors.names import tag_of
from haat.gateway.doors.openai.protocol import DIALECT, OpenAIOperation, encode, wrong_field, wrong_service
from haat.gateway.doors.openai.upload import Upload
from haat.gateway.doors.visit import Visit, reply
from haat.kernel.errors import ProviderFailed

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.http.answers import Whole
    from haat.gateway.market.routes import Route

FORMATS = ("json", "text", "verbose_json", "srt", "vtt")
LONGEST_SECONDS = 10**7
"""A recording that is said to be longer has no length that anybody knows."""
_TEXTS = ("text", "command")
"""Members of an output that hold what was said, the first that is there."""


_UNKNOWN = {"temperature": 0.0, "avg_logprob": 0.0, "compression_ratio": 1.0, "no_speech_prob": 0.0}
"""What the protocol says of each segment and no task service does: typed clients take none without."""


class _Asked(NamedTuple):
    form: str
    streams: bool
    language: str


class Transcriptions(OpenAIOperation):
    """A task service gets the recording in base64, and answers with ``{"text"}``."""

    name = "openai audio.transcriptions"
    needs_whole = False
    _fields: tuple[tuple[str, str], ...] = (("input[0].audio", "file"), ("config.language", "language"))
    _too_long: str | None = "file"

    def look(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        upload = self._upload(call, visit)
        upload.follow(gateway, call)
        if upload.waits or upload.spool is not None or upload.form.part("model") is None:
            return False
        upload.waits = self._route(gateway, call, upload).executing.dialect != DIALECT
        return not upload.waits

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        upload = self._upload(call, visit)
        upload.follow(gateway, call)
        if call.body_complete and not upload.form.ended:
            raise wrong_field("file", "the form ends before its last boundary")
        route = self._route(gateway, call, upload)
        if not (route.executing.dialect == DIALECT and route.passes_forms):
            upload.unspool(call)
        if route.executing.dialect == DIALECT:
            upload.pass_on(call, route.executing.policy.model)
            visit.pass_on(call, route, b"/audio/transcriptions")
            visit.spool = upload.spool
            visit.asked = None
            return True
        if not route.executing.takes_tasks:
            raise wrong_service(route, "transcriptions")
        if route.service.policy.capability == "voice-activity":
            raise wrong_field("model", f"{route.service.path} says when somebody speaks, and not what")
        body = _task(call, visit, upload)
        visit.become(call, route, b"/invoke", body)
        return True

    def leave(self, call: Call, visit: Visit, answer: Whole) -> None:
        outputs, usage = read_task_answer(answer)
        output = outputs[0] if outputs else {}
        text = next((output[name] for name in _TEXTS if isinstance(output.get(name), str)), None)
        if text is None and "command" not in output:
            raise ProviderFailed("The provider's answer holds no text; the call is not billed.")
        seconds = output.get("seconds", usage.get("audio_seconds", 0))
        known = isinstance(seconds, (int, float)) and 0 <= seconds <= LONGEST_SECONDS
        reply(answer, *_shape(visit.asked, text or "", float(seconds) if known else 0.0))

    @staticmethod
    def _upload(call: Call, visit: Visit) -> Upload:
        if visit.asked is None:
            visit.asked = Upload(call)
        upload: Upload = visit.asked
        return upload

    @staticmethod
    def _route(gateway: Gateway, call: Call, upload: Upload) -> Route:
        model = upload.field(call, "model")
        if not model:
            raise wrong_field("model", "name the model")
        return gateway.names.find(gateway, call, model)


def _task(call: Call, visit: Visit, upload: Upload) -> bytes:
    """Return the form as a call of the task schema; remember which shape its answer is to have."""
    file = upload.form.part("file")
    if file is None or file.filename is None or file.start == file.end:
        raise wrong_field("file", "send the recording as a file")
    form = upload.field(call, "response_format") or "json"
    if form not in FORMATS:
        raise wrong_field("response_format", f"must be one of {', '.join(FORMATS)}")
    if any("word" in upload.fields(call, name) for name in ("timestamp_granularities[]", "timestamp_granularities")):
        raise wrong_field("timestamp_granularities", "this model does not say when each word was spoken")
    streams = (upload.field(call, "stream") or "false").lower()  # Python's word for it begins with a capital
    if streams not in ("true", "false"):
        raise wrong_field("stream", "must be true or false")
    model = upload.field(call, "model") or ""
    language = tag_of(upload.field(call, "language") or model.partition(":")[2])
    extension = file.filename.rpartition(".")[2].lower() if "." in file.filename else "wav"
    content = base64.b64encode(upload.content(call, file)).decode("ascii")
    visit.asked = _Asked(form, streams == "true", language)
    config = {"language": language} if language else {}
    return encode({"input": [{"audio": {"content": content, "format": extension}}], "config": config})


def _shape(asked: _Asked, text: str, seconds: float) -> tuple[bytes, bytes]:
    """Return a transcription as it was asked for, and its content type."""
    usage = {"type": "duration", "seconds": math.ceil(seconds)}
    if asked.streams:
        delta: dict[str, Any] = {"type": "transcript.text.delta", "delta": text}
        done = {"type": "transcript.text.done", "text": text, "usage": usage}
        events = [b"data: %b\n\n" % encode(event) for event in (delta, done)]
        return b"".join(events), b"text/event-stream"
    if asked.form == "json":
        return encode({"text": text, "usage": usage}), b"application/json"
    if asked.form == "text":
        return text.encode() + b"\n", b"text/plain; charset=utf-8"
    if asked.form == "srt":
        return f"1\n{_clock(0, ',')} --> {_clock(seconds, ',')}\n{text}\n".encode(), b"text/plain; charset=utf-8"
    if asked.form == "vtt":
        cue = f"WEBVTT\n\n{_clock(0, '.')} --> {_clock(seconds, '.')}\n{text}\n"
        return cue.encode(), b"text/vtt; charset=utf-8"
    segment = {"id": 0, "seek": 0, "start": 0.0, "end": seconds, "text": text, "tokens": [], **_UNKNOWN}
    whole = {
        "task": "transcribe",
        "language": asked.language,
        "duration": seconds,
        "text": text,
        "segments": [segment],
        "usage": usage,
    }
    return encode(whole), b"application/json"


def _clock(seconds: float, point: str) -> str:
    """Return a time as subtitles have it, ``00:01:02,345``."""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{point}{rest % 1000:03}"

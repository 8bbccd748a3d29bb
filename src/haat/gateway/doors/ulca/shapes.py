"""What ULCA's clients send, and how a refusal looks to them. Members that nobody here knows are passed over."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from haat.gateway.doors.visit import Operation
from haat.kernel.errors import HaatError

encode = msgspec.json.Encoder(decimal_format="number").encode


class Language(msgspec.Struct, rename="camel"):
    """``hi``, or ``hi`` with ``Latn``."""

    source_language: str | None = None
    target_language: str | None = None
    source_script_code: str | None = None
    target_script_code: str | None = None


class TranscriptionFormat(msgspec.Struct):
    value: str | None = None


class Config(msgspec.Struct, rename="camel"):
    """The options of a task: one struct for all of them, as the protocol's are told apart by the task only."""

    language: Language | None = None
    service_id: str | None = None
    gender: str | None = None
    audio_format: str | None = None
    sampling_rate: float | None = None
    is_sentence: bool | None = None
    num_suggestions: int | None = None
    transcription_format: TranscriptionFormat | None = None


class Task(msgspec.Struct, rename="camel"):
    task_type: str
    config: Config | None = None


class Text(msgspec.Struct):
    source: str | None = None


class Audio(msgspec.Struct, rename="camel"):
    audio_content: str | None = None
    audio_uri: str | None = None


class Image(msgspec.Struct, rename="camel"):
    image_content: str | None = None
    image_uri: str | None = None


class Inputs(msgspec.Struct):
    """What the first task works on. Clients send empty ones of the other kinds beside it."""

    input: list[Text] | None = None
    audio: list[Audio] | None = None
    image: list[Image] | None = None


class UlcaOperation(Operation):
    """What all of them share: how a refusal looks. Clients read ``message`` or ``detail.message``."""

    def problem(self, error: HaatError, request_id: str) -> tuple[bytes, bytes]:
        return b"application/json", encode(refusal(error, request_id))


def refusal(error: HaatError, request_id: str) -> dict[str, Any]:
    """Return the body of a refusal: the sentence twice, for two kinds of clients, and all that is known beside it."""
    errors = _in_their_words(error)
    message = "; ".join(f"{one['field']}: {one['message']}" for one in errors) if errors else error.detail
    stage = error.extensions.get("stage")
    said = {**error.extensions, "errors": errors} if errors else error.extensions
    if errors and stage:
        message = f"Stage {stage['number']} ({stage['name']}): {message}"
    detail = {**said, "message": message, "code": error.code}
    return {"code": error.code, "message": message, "detail": detail, "request_id": request_id}


_FIELDS = (
    (re.compile(r"input(\[\d+\])\.audio\.content"), r"audio\1.audioContent"),
    (re.compile(r"input(\[\d+\])\.audio\.format|config\.format"), "config.audioFormat"),
    (re.compile(r"input(\[\d+\])\.image\.content"), r"image\1.imageContent"),
    (re.compile(r"input(\[\d+\])\.text"), r"input\1.source"),
)
"""Fields of the task schema, and those that they were made of."""


def _in_their_words(error: HaatError) -> list[dict[str, str]]:
    """Return which fields are wrong; of a service that got what the caller sent, by the caller's names."""
    errors: list[dict[str, str]] = error.extensions.get("errors") or []
    if error.extensions.get("stage", {}).get("number", 1) > 1:
        return errors
    return [{**one, "field": _their_name(one["field"])} for one in errors]


def _their_name(field: str) -> str:
    for ours, theirs in _FIELDS:
        if ours.fullmatch(field):
            return ours.sub(theirs, field)
    return field

"""What ULCA's clients send. Members that nobody here knows are passed over."""

from __future__ import annotations

import msgspec


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

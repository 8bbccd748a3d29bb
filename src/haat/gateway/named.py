"""The languages that a task's ``config`` names, and nothing else of a task."""

from __future__ import annotations

import msgspec


class Named(msgspec.Struct):
    source: str = ""
    target: str = ""
    language: str = ""


class Task(msgspec.Struct):
    config: Named = msgspec.field(default_factory=Named)


decode_languages = msgspec.json.Decoder(Task).decode

"""Which languages a call names, for the usage event."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from haat.gateway.call import Call


class _Config(msgspec.Struct):
    source: str = ""
    target: str = ""
    language: str = ""


class _TaskBody(msgspec.Struct):
    config: _Config = msgspec.field(default_factory=_Config)


_task_body = msgspec.json.Decoder(_TaskBody)
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*")


def read_languages(call: Call) -> None:
    """Note the languages a task call names: ``hi-Deva>ur-Arab``, or one alone. Its form is the service's business."""
    try:
        config = _task_body.decode(b"".join(call.body)).config
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return
    named = (config.source, config.target) if config.source or config.target else (config.language,)
    call.language_pair = ">".join(tag for tag in named if _LANGUAGE.fullmatch(tag))

"""Which languages a call names, for the usage event."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from haat.gateway.named import decode_languages

if TYPE_CHECKING:
    from haat.gateway.call import Call


_LONGEST = 100
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*")


def read_languages(call: Call) -> None:
    """Note the languages a task call names: ``hi-Deva>ur-Arab``, or one alone. Its form is the service's business."""
    try:
        config = decode_languages(b"".join(call.body)).config
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return
    call.language_pair = pair_of(config.source, config.target, config.language)


def languages_of(config: Mapping[str, object]) -> str:
    """Return the same of a ``config`` that is at hand."""
    source, target, language = config.get("source", ""), config.get("target", ""), config.get("language", "")
    if isinstance(source, str) and isinstance(target, str) and isinstance(language, str):
        return pair_of(source, target, language)
    return ""


def pair_of(source: str, target: str, language: str) -> str:
    """Return how a usage event names languages: ``hi-Deva>ur-Arab``, or one alone; what isn't a tag is left out."""
    if len(source) + len(target) + len(language) > _LONGEST:
        return _pair(source, target, language)
    return _known_pair(source, target, language)


def _pair(source: str, target: str, language: str) -> str:
    named = (source, target) if source or target else (language,)
    return ">".join(tag for tag in named if _LANGUAGE.fullmatch(tag))


_known_pair = lru_cache(1024)(_pair)

"""What may be kept: text that PostgreSQL stores, numbers that JSON knows, names a reader can see."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from haat.kernel.errors import ValidationFailed

MAX_DEPTH = 64
_LARGEST = 2**63 - 1  # of PostgreSQL's bigint
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")  # text and jsonb refuse NUL, UTF-8 has no surrogates
_OVERRIDES = re.compile(r"[\u202a-\u202e\u2066-\u2069]")  # they make a name read as another one


def is_storable(value: Any) -> bool:
    """Tell whether a value from outside can be kept: a text, or lists and mappings of such.

    Numbers must be finite and fit 64 bits, nesting ends at `MAX_DEPTH`.
    """
    waiting = [(value, 0)]
    while waiting:
        part, depth = waiting.pop()
        if depth > MAX_DEPTH:
            return False
        match part:
            case str():
                if _UNSTORABLE.search(part):
                    return False
            case float():
                if not math.isfinite(part):
                    return False
            case int():
                if abs(part) > _LARGEST:
                    return False
            case Mapping():
                waiting.extend((inner, depth + 1) for pair in part.items() for inner in pair)
            case list() | tuple():
                waiting.extend((inner, depth + 1) for inner in part)
    return True


def tidy(text: str) -> str:
    """Return a line of text in NFC with single spaces and none around it."""
    return unicodedata.normalize("NFC", " ".join(text.split()))


def is_readable(text: str) -> bool:
    """Tell whether a line shows something and hides nothing: no control characters, no overrides."""
    categories = [unicodedata.category(letter) for letter in text]
    return (
        any(category[0] in "LNPS" for category in categories)
        and not {"Cc", "Cs"} & set(categories)
        and not _OVERRIDES.search(text)
    )


def check_name(name: str, field: str = "name", longest: int = 120) -> str:
    """Return a name in NFC without surrounding space; raise ValidationFailed when empty or too long.

    Nothing that can't be seen makes a name, and nothing in it may turn the text around it.
    """
    name = tidy(name)
    if len(name) > longest or not is_readable(name):
        raise ValidationFailed(errors=[{"field": field, "message": f"Enter 1 to {longest} visible characters."}])
    return name

"""What a model may answer: JSON that JSON can say."""

from __future__ import annotations

import math
from typing import Any

_DEEPEST = 32
_SCALARS = (str, bool, int, type(None))


def problem_of(output: object) -> str:
    """Return what is wrong with an output in a sentence that names where, or nothing.

    An output is an object. In it may be texts, numbers, booleans, None, bytes (which become base64), lists and
    objects, 32 deep; no NaN or Infinity, no lone surrogates, and nothing else.
    """
    if not isinstance(output, dict):
        return f"The model's output is of the type {type(output).__name__}, not an object; the call is not billed."
    found = _wrong(output, "output", 0)
    return f"The model's {found}; the call is not billed." if found else ""


def _wrong(value: Any, at: str, depth: int) -> str:
    if type(value) is float:
        return "" if math.isfinite(value) else f"{at} is {value}, which is not a number"
    if isinstance(value, str):
        return "" if _is_utf8(value) else f"{at} has half a character (a lone surrogate)"
    if isinstance(value, int) and not isinstance(value, bool):
        return "" if -(1 << 63) <= value < 1 << 64 else f"{at} is a whole number of more than 64 bits"
    if isinstance(value, (*_SCALARS, bytes)):
        return ""
    if depth >= _DEEPEST:
        return f"{at} is nested too deeply"
    if isinstance(value, dict):
        for name, member in value.items():
            if not isinstance(name, str) or not _is_utf8(name):
                return f"{at} has a member whose name is not a text"
            if found := _wrong(member, f"{at}.{name}"[:200], depth + 1):
                return found
        return ""
    if isinstance(value, (list, tuple)):
        if value and type(value[0]) is float and _all_finite(value):
            return ""
        for index, member in enumerate(value):
            if found := _wrong(member, f"{at}[{index}]", depth + 1):
                return found
        return ""
    return f"{at} is of the type {type(value).__name__}, which JSON has not"


def _all_finite(values: Any) -> bool:
    """Tell at a glance that a vector is one; a sum is NaN or infinite if one of its parts is."""
    try:
        return math.isfinite(math.fsum(values)) and set(map(type, values)) == {float}
    except (TypeError, ValueError, OverflowError):
        return False


def _is_utf8(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

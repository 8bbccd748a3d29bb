"""Text of one direction inside text of the other: isolates and base direction (UAX #9).

HTML has `dir` and `<bdi>` for this; a mail's subject, a log line or a terminal has only these characters.
"""

from __future__ import annotations

import unicodedata

import regex  # type: ignore[import-untyped]  # the package ships no types

from haat.language.tags import Direction

LRI, RLI, FSI, PDI = "\u2066", "\u2067", "\u2068", "\u2069"
_INITIATORS = frozenset((LRI, RLI, FSI))
_OPENING = {"ltr": LRI, "rtl": RLI, None: FSI}
_STRONG: dict[str, Direction] = {"L": "ltr", "R": "rtl", "AL": "rtl"}
# A paragraph ends at a character of bidirectional class B, and every isolate with it (X8).
_PARAGRAPH = regex.compile(r"([^\p{Bidi_Class=B}]*)(\p{Bidi_Class=B}*)")


def base_direction(text: str) -> Direction | None:
    """Return the direction of the first strong character, None if there is none (UAX #9, P2 and P3).

    What stands inside isolates doesn't count. The first paragraph with a strong character decides.
    """
    depth = 0
    for character in text:
        kind = unicodedata.bidirectional(character)
        if kind == "B":
            depth = 0
        elif character in _INITIATORS:
            depth += 1
        elif character == PDI:
            depth = max(0, depth - 1)
        elif depth == 0 and kind in _STRONG:
            return _STRONG[kind]
    return None


def isolate(text: str, direction: Direction | None = None) -> str:
    """Return a text wrapped so that neither it nor what stands around it changes the other's order.

    ``direction`` is the text's own, as `Tag.direction` has it; without it the first strong character decides
    (FSI). Each paragraph is wrapped by itself, and isolates left open or closed too often inside are put right
    first: they would end the wrapping early.
    """
    opening = _OPENING[direction]
    return "".join(
        (opening + balance(paragraph) + PDI if paragraph else "") + ends for paragraph, ends in _PARAGRAPH.findall(text)
    )


def balance(text: str) -> str:
    """Return a text whose isolates are closed in their paragraph: stray PDIs dropped, missing ones added."""
    balanced: list[str] = []
    depth = 0
    for character in text:
        if character == PDI:
            if depth == 0:
                continue
            depth -= 1
        elif character in _INITIATORS:
            depth += 1
        elif depth and unicodedata.bidirectional(character) == "B":
            balanced.append(PDI * depth)
            depth = 0
        balanced.append(character)
    return "".join(balanced) + PDI * depth


def is_balanced(text: str) -> bool:
    """Tell whether every isolate of a text is closed within its paragraph, and no PDI closes nothing."""
    return balance(text) == text

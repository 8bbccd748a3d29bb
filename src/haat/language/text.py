"""What can be said about a text without knowing its language: script, graphemes, words to search by."""

from __future__ import annotations

import unicodedata
from collections import Counter

import regex  # type: ignore[import-untyped]  # the package ships no types

from haat.language.tags import SCRIPTS

_SCRIPTS = {code: regex.compile(rf"\p{{Script={code}}}") for code in SCRIPTS}
_SHARED = regex.compile(r"[\p{Script=Inherited}\p{Script=Common}]")
_LETTER = regex.compile(r"[\p{L}\p{M}]")
_GRAPHEME = regex.compile(r"\X")
# A word keeps its matras, viramas and joiners: `\w` alone would end at a zero-width joiner.
_WORD = regex.compile(r"[\w\p{M}]+(?:[\u200c\u200d][\w\p{M}]+)*")
_JOINERS = regex.compile(r"[\u200c\u200d]")


def normalise(text: str) -> str:
    """Return NFC: one spelling for what looks the same (Unicode UAX #15)."""
    return unicodedata.normalize("NFC", text)


def graphemes(text: str) -> list[str]:
    """Split into what a reader sees as characters (extended grapheme clusters, UAX #29)."""
    return list(_GRAPHEME.findall(text))


def count_graphemes(text: str) -> int:
    """Return the number of extended grapheme clusters."""
    return len(graphemes(text))


def script_counts(text: str) -> Counter[str]:
    """Return letters and marks by ISO 15924 code; those of scripts outside the table count as ``Zzzz``.

    Marks that many scripts share (Unicode script *Inherited*) are not counted.
    """
    counts: Counter[str] = Counter()
    for character, times in Counter(_LETTER.findall(text)).items():
        code = _script_of(character)
        if code is not None:
            counts[code] += times
    return counts


def detect_script(text: str) -> str | None:
    """Return the ISO 15924 code most letters belong to, ``Zzzz`` for one outside the table, None without letters."""
    counts = script_counts(text)
    return counts.most_common(1)[0][0] if counts else None


def search_words(text: str) -> list[str]:
    """Return the words of a text or a query, in order, as they are indexed and looked up.

    NFC, case folded, joiners dropped; marks stay with their letters, so that हिन्दी is one word.
    """
    return [_JOINERS.sub("", normalise(word)) for word in _WORD.findall(normalise(text).casefold())]


def _script_of(character: str) -> str | None:
    for code, pattern in _SCRIPTS.items():
        if pattern.match(character):
            return code
    return None if _SHARED.match(character) else "Zzzz"

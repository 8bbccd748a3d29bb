"""What a text is made of: graphemes, which a reader sees as characters, and words."""

from __future__ import annotations

from itertools import islice

import regex  # type: ignore[import-untyped]  # the package ships no types

from haat.language.normalisation import fold, normalise

_GRAPHEME = regex.compile(r"\X")
# A word keeps its matras, viramas and joiners. `\w` would do, were a joiner alone not a word to it (UTS #18, annex C),
# nor the variation selector that an emoji leaves behind.
_NEXT = r"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}]"
_FIRST = rf"(?!\p{{Variation_Selector}}){_NEXT}"
_WORD = regex.compile(rf"{_FIRST}{_NEXT}*(?:[\u200c\u200d]{_NEXT}+)*")
# Apostrophes within a word, points and commas within a number (UAX #29, WB6 to WB12): don't, କ'ଣ, 12,34,567.50.
_TOKEN = regex.compile(
    rf"\p{{Nd}}+(?:[.,٫٬]\p{{Nd}}+)+(?!{_NEXT})"
    rf"|{_FIRST}{_NEXT}*(?:[\u200c\u200d]?['\u2019\u02bc][\u200c\u200d]?(?=\p{{L}}){_NEXT}+|[\u200c\u200d]+{_NEXT}+)*"
)
_CLOSING = r"[\"'”’»)]"
# A sentence ends at a danda and its kin in other scripts, or at . ? ! before a space; not after a single capital or a
# short title.
_SENTENCE_END = regex.compile(
    rf"(?<=[।॥۔؟᱾᱿꯫]{_CLOSING}?)(?!{_CLOSING})\s*"
    rf"|(?<=[.?!…]{_CLOSING}?)(?<!\b(?:[A-Z]|Mr|Mrs|Ms|Dr|St|Shri|Smt|No|Rs|vs|e\.g|i\.e)\.)\s+"
)
_JOINERS = regex.compile(r"[\u200c\u200d]")


def graphemes(text: str) -> list[str]:
    """Split into what a reader sees as characters (extended grapheme clusters, UAX #29).

    Conjuncts of Devanagari, Bengali, Gujarati, Odia, Telugu and Malayalam are one cluster (rule GB9c).
    """
    return list(_GRAPHEME.findall(text))


def count_graphemes(text: str) -> int:
    """Return the number of extended grapheme clusters."""
    return sum(1 for _ in _GRAPHEME.finditer(text))


def slice_graphemes(text: str, start: int, stop: int | None = None) -> str:
    """Return the clusters from ``start`` up to but not including ``stop``, counted from 0; the end if it is None.

    Raises ValueError for a negative position: that would need the whole text to be split first.
    """
    return "".join(cluster[0] for cluster in islice(_GRAPHEME.finditer(text), start, stop))


def truncate(text: str, limit: int, ending: str = "…") -> str:
    """Return the text if it has at most ``limit`` clusters, else its beginning and ``ending``, ``limit`` in all.

    No cluster is split, and no space is left before the ending. Raises ValueError if the ending alone is longer
    than the limit.
    """
    room = limit - count_graphemes(ending)
    if room < 0:
        raise ValueError(f"{ending!r} is longer than {limit} graphemes")
    clusters = [cluster[0] for cluster in islice(_GRAPHEME.finditer(text), limit + 1)]
    if len(clusters) <= limit:
        return text
    kept = clusters[:room]
    while kept and kept[-1].isspace():
        kept.pop()
    return "".join(kept) + ending


def sentences(text: str) -> list[str]:
    """Split a text into its sentences, without the space around them; each paragraph ends one.

    No letter is lost and none is moved: by abbreviations alone it may be fooled.
    """
    found = (part.strip() for line in text.splitlines() for part in _SENTENCE_END.split(line))
    return [sentence for sentence in found if sentence]


def words(text: str) -> list[str]:
    """Return the words and numbers of a text as they are written, in order.

    A word is a run of letters, marks and digits with the joiners and apostrophes inside it; a number keeps its
    points and commas. Languages written without spaces are not divided.
    """
    return list(_TOKEN.findall(text))


def search_words(text: str) -> list[str]:
    """Return the words of a text or a query, in order, as they are indexed and looked up.

    Normalised, without case, joiners dropped; marks stay with their letters, so that हिन्दी is one word.
    """
    return [normalise(_JOINERS.sub("", word)) for word in _WORD.findall(fold(text))]

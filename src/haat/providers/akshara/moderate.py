"""Whether a text holds abusive words: word lists in English and six Indian languages, and nothing beyond them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from importlib import resources
from typing import Any

import regex  # type: ignore[import-untyped]  # the package ships no types

from haat.language import words
from haat.models.hosted import HostedService, Item, Output, Units
from haat.plugins.builtin.lexicon import LANGUAGES, Hit, Lexicon, own_words, read_words
from haat.providers.companies import AKSHARA

_WORD = regex.compile(r"[A-Za-z0-9@$*!+'-]*[A-Za-z][A-Za-z0-9@$*!+'-]*")
_EDGES = "!+'-*"


@dataclass(frozen=True, slots=True)
class _Lists:
    english: Mapping[str, tuple[Any, ...]]
    """Words as better-profanity knows them, disguises included, by the characters that they may begin with."""
    lexicon: Lexicon


@lru_cache(maxsize=1)
def _lists() -> _Lists:
    from better_profanity import Profanity  # type: ignore[import-untyped]  # at the first use; it ships no types

    profanity = Profanity()
    file = resources.files("haat.providers.akshara").joinpath("texts", "ordinary-en.txt")
    ordinary = frozenset(read_words(file.read_text("utf-8")))
    entries = [entry for entry in profanity.CENSOR_WORDSET if str(entry) not in ordinary and len(str(entry)) > 2]
    divided: dict[str, list[Any]] = {}
    for entry in entries:
        first = str(entry)[0]
        for disguise in profanity.CHARS_MAPPING.get(first, first):
            divided.setdefault(disguise, []).append(entry)
    phrases = [text for entry in entries if " " in (text := str(entry)) and text.isascii()]
    lists = [(language, own_words(language)) for language in LANGUAGES]
    english = {first: tuple(found) for first, found in divided.items()}
    return _Lists(english, Lexicon([*lists, ("en", phrases)]))


@lru_cache(maxsize=20_000)
def _is_listed(word: str) -> bool:
    return any(entry == word for entry in _lists().english.get(word[0], ()))


def find(text: str) -> list[Hit]:
    """Return the listed words and phrases of a text in order, none within another."""
    hits = sorted([*_lists().lexicon.find(text), *_english(text)], key=lambda hit: (hit.start, -hit.end))
    apart: list[Hit] = []
    for hit in hits:
        if not apart or hit.start >= apart[-1].end:
            apart.append(hit)
    return apart


def _english(text: str) -> Iterator[Hit]:
    for match in _WORD.finditer(text):
        start, end = match.span()
        for begin, stop in {(start, end), _stripped(text, start, end)}:
            if begin < stop and _is_listed(text[begin:stop].lower()):
                yield Hit(begin, stop, "en")


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start] in _EDGES:
        start += 1
    while start < end and text[end - 1] in _EDGES:
        end -= 1
    return start, end


def moderate(text: str) -> Output:
    """Return ``{"flagged", "categories", "scores", "found"}``; the score is the share of words that are listed."""
    hits = find(text)
    listed = sum(max(1, len(words(text[hit.start : hit.end]))) for hit in hits)
    score = round(min(1.0, listed / max(1, len(words(text)), listed)), 4)
    return {
        "flagged": bool(hits),
        "categories": {"profanity": bool(hits)},
        "scores": {"profanity": score},
        "found": [{"start": hit.start, "end": hit.end, "language": hit.language} for hit in hits],
    }


def invoke(items: Sequence[Item], config: Mapping[str, Any]) -> tuple[list[Output], Units]:
    """Return one `moderate` answer an item; units are the characters of the input."""
    return [moderate(item.text) for item in items], {"characters": Decimal(sum(len(item.text) for item in items))}


def service() -> HostedService:
    return HostedService(
        company=AKSHARA,
        slug="moderate",
        name="Moderation",
        summary="Finds abusive words of seven languages by lists; it judges nothing else.",
        description="Looks for swear words and insults of English, Hindi, Bengali, Marathi, Tamil, Telugu and Urdu in "
        "word lists, English ones also where letters were replaced by digits and signs. The only category is "
        "`profanity`; its score is the share of words that are listed, not a probability. It understands nothing: "
        "threats, hatred and harassment in polite words pass, a quoted insult is found, and a word that is not on a "
        "list is not found. The lists of the Indian languages are short.",
        category="nlp",
        unit="characters",
        kind="text",
        languages=("en-Latn", "hi-Deva", "bn-Beng", "mr-Deva", "ta-Taml", "te-Telu", "ur-Arab"),
        takes_language=False,
        capability="moderation",
        sample={
            "input": [{"text": "What a lovely day."}, {"text": "You bloody idiot, this is bullshit!"}],
            "config": {},
        },
        unit_price=Decimal("0.0001"),
        free_units=500,
        typical_latency_ms=5,
        runtime="inline",
        license_note="English list: better-profanity (MIT), without its ordinary words; the others are the platform's.",
        invoke=invoke,
    )

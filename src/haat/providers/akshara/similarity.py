"""How alike two texts are written, in any script: compared by graphemes or words, not by meaning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from haat.language import graphemes, normalise, search_words
from haat.models.hosted import HostedService, Item, Option, Output, Units
from haat.providers.companies import AKSHARA

METHODS = ("edit", "jaccard", "ngram", "weighted")


def edit(first: str, second: str) -> float:
    """Return 1 less the edits (graphemes inserted, deleted, replaced) over the longer length."""
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.normalized_similarity(graphemes(first), graphemes(second))


def jaccard(first: str, second: str) -> float:
    """Return the words that both have over the words that either has."""
    return _overlap(Counter(set(search_words(first))), Counter(set(search_words(second))))


def ngram(first: str, second: str, size: int = 2) -> float:
    """Return the runs of ``size`` graphemes that both have over those that either has, counting repeats."""
    return _overlap(_runs(graphemes(first), size), _runs(graphemes(second), size))


def weighted(first: str, second: str) -> float:
    """Return half the edit similarity, and a quarter each of n-grams and shared words."""
    return 0.5 * edit(first, second) + 0.25 * ngram(first, second) + 0.25 * jaccard(first, second)


def _runs(units: list[str], size: int) -> Counter[tuple[str, ...]]:
    if len(units) < size:
        return Counter([tuple(units)] if units else [])
    return Counter(zip(*(units[start:] for start in range(size)), strict=False))


def _overlap(first: Counter[Any], second: Counter[Any]) -> float:
    either = (first | second).total()
    return (first & second).total() / either if either else 1.0


def similarity(first: str, second: str, method: str) -> float:
    """Return 0 (nothing alike) to 1 (the same after NFC and case folding) by one of `METHODS`."""
    compare = {"edit": edit, "jaccard": jaccard, "ngram": ngram, "weighted": weighted}[method]
    return compare(normalise(first).casefold(), normalise(second).casefold())


def invoke(items: Sequence[Item], config: Mapping[str, Any]) -> tuple[list[Output], Units]:
    """Return ``{"score", "method"}`` a pair; units are the characters of both texts."""
    method = config["method"]
    outputs: list[Output] = [
        {"score": round(similarity(item.text, item.other, method), 4), "method": method} for item in items
    ]
    return outputs, {"characters": Decimal(sum(len(item.text) + len(item.other) for item in items))}


def service() -> HostedService:
    return HostedService(
        company=AKSHARA,
        slug="text-similarity",
        name="Text similarity",
        summary="Scores how alike two texts are written, in any script.",
        description="Compares `text` with `other` by what a reader sees as characters, so that a matra counts with its "
        "letter. Methods: edit (edit distance), jaccard (shared words), ngram (shared pairs of characters), weighted "
        "(all three). Lexical: two ways to say one thing in different words score low.",
        category="nlp",
        unit="characters",
        kind="text_pair",
        options=(Option("method", "choice", "How the texts are compared.", "weighted", choices=METHODS),),
        sample={
            "input": [{"text": "मेरा नाम राजेश है", "other": "मेरा नाम राकेश है"}],
            "config": {"method": "weighted"},
        },
        unit_price=Decimal("0.0002"),
        free_units=1_000,
        max_characters=2_000,
        typical_latency_ms=2,
        runtime="inline",
        license_note="Engine: RapidFuzz (MIT).",
        invoke=invoke,
    )

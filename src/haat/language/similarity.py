"""How alike two texts are written, in any script: by graphemes and words, not by meaning.

Both texts are folded first (`normalisation.fold`): spelling that only looks different, and case, don't count. Every
measure is symmetric, 0 for nothing alike to 1, and 1 for texts that are equal when folded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

from haat.language.normalisation import fold
from haat.language.text import graphemes, search_words


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each measure counts in `weighted_similarity`; raises ValueError for a negative one or none at all."""

    edit: float = 0.5
    ngram: float = 0.25
    words: float = 0.25

    def __post_init__(self) -> None:
        if min(self.edit, self.ngram, self.words) < 0 or not self.total > 0:
            raise ValueError("weights are not negative, and one at least is more than 0")

    @property
    def total(self) -> float:
        return self.edit + self.ngram + self.words


USUAL_WEIGHTS = Weights()


def edit_similarity(first: str, second: str) -> float:
    """Return 1 less the graphemes inserted, deleted or replaced (Levenshtein) over those of the longer text."""
    return _edit(fold(first), fold(second))


def word_similarity(first: str, second: str) -> float:
    """Return the words that both texts have over the words that either has (Jaccard); order and repeats don't count."""
    return _words(fold(first), fold(second))


def ngram_similarity(first: str, second: str, size: int = 2) -> float:
    """Return twice the runs of ``size`` graphemes in both over all runs of the two (Dice), counting repeats.

    A text shorter than ``size`` is one run. Raises ValueError for a size below 1.
    """
    if size < 1:
        raise ValueError("an n-gram has at least one grapheme")
    return _ngram(fold(first), fold(second), size)


def weighted_similarity(first: str, second: str, weights: Weights = USUAL_WEIGHTS) -> float:
    """Return the weighted mean of the edit, n-gram (pairs) and word similarities."""
    first, second = fold(first), fold(second)
    if first == second:
        return 1.0
    parts = (
        weights.edit * _edit(first, second),
        weights.ngram * _ngram(first, second, 2),
        weights.words * _words(first, second),
    )
    return min(1.0, sum(parts) / weights.total)


SIMILARITIES: MappingProxyType[str, Callable[[str, str], float]] = MappingProxyType(
    {
        "edit": edit_similarity,
        "jaccard": word_similarity,
        "ngram": ngram_similarity,
        "weighted": weighted_similarity,
    }
)


def _edit(first: str, second: str) -> float:
    from rapidfuzz.distance import (
        Levenshtein,
    )  # at the first use: the gateway imports this package and compares nothing

    return Levenshtein.normalized_similarity(graphemes(first), graphemes(second))


def _words(first: str, second: str) -> float:
    mine, others = set(search_words(first)), set(search_words(second))
    if not mine and not others:
        return float(first == second)  # punctuation only: no word to share
    return len(mine & others) / len(mine | others)


def _ngram(first: str, second: str, size: int) -> float:
    mine, others = _runs(graphemes(first), size), _runs(graphemes(second), size)
    if not mine and not others:
        return 1.0
    return 2 * (mine & others).total() / (mine.total() + others.total())


def _runs(units: list[str], size: int) -> Counter[tuple[str, ...]]:
    if len(units) < size:
        return Counter([tuple(units)] if units else [])
    return Counter(zip(*(units[start:] for start in range(size)), strict=False))

"""The words that listings are found by, in the process: to complete, to correct, and to read across scripts."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rapidfuzz.distance import OSA
from rapidfuzz.process import extract

from haat.catalog.model import Suggestion
from haat.language.scripts import detect_script
from haat.language.sound import sound

_LAST = "\U0010ffff"
MOST_COMPLETIONS = 20
_MOST_ALIKE = 4
_LEAST_ALIKE = 4
"""Shorter words sound like too many others."""
_KEPT_COMPLETIONS = 5_000


_Rank = tuple[int, int, int, str]
"""By what words are suggested: use, then listings, then the shorter, least first."""


class Entry(NamedTuple):
    """What is known of a word: how popular its listings are, how many they are, and one of them."""

    popularity: int
    listings: int
    path: str


class Candidate(NamedTuple):
    """A word that may have been meant; the least is the best."""

    distance: int
    other_script: bool
    fewer: tuple[int, int]
    word: str


class Vocabulary:
    """Words in order, found by bisection, and by what they sound like. Not to be shared between threads."""

    def __init__(self, entries: Iterable[tuple[str, Entry]] = ()) -> None:
        self._entries: dict[str, Entry] = {}
        self._ranks: dict[str, _Rank] = {}
        self._sorted: list[str] = []
        self._sounding: defaultdict[str, list[str]] = defaultdict(list)
        self._by_length: defaultdict[int, dict[str, None]] = defaultdict(dict)
        self._completions: dict[str, list[tuple[str, Entry]]] = {}
        self.put(entries)

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, entries: Iterable[tuple[str, Entry]]) -> None:
        """Add words or replace what is known of them; a word of no listing is forgotten."""
        added, forgotten = [], set()
        for word, entry in entries:
            if entry.listings > 0:
                if word not in self._entries:
                    added.append(word)
                    self._hear(word)
                self._entries[word] = entry
                self._ranks[word] = _rank(word, entry)
            elif self._entries.pop(word, None):
                del self._ranks[word]
                forgotten.add(word)
                self._unhear(word)
        if forgotten:
            self._sorted = [word for word in self._sorted if word not in forgotten]
        self._sorted += added
        self._sorted.sort()  # two runs at most, nearly: it takes a look at each word
        self._completions.clear()

    def _hear(self, word: str) -> None:
        heard = sound(word)
        self._sounding[heard].append(word)
        self._by_length[len(heard)][heard] = None

    def _unhear(self, word: str) -> None:
        heard = sound(word)
        self._sounding[heard].remove(word)
        if not self._sounding[heard]:
            del self._sounding[heard], self._by_length[len(heard)][heard]

    def begins(self, prefix: str) -> bool:
        """Tell whether a word begins so; a single letter has to be one."""
        if len(prefix) < 2:
            return prefix in self._entries
        place = bisect_left(self._sorted, prefix)
        return place < len(self._sorted) and self._sorted[place].startswith(prefix)

    def completions(self, prefix: str) -> list[tuple[str, Entry]]:
        """Return the words that begin so and lead to most use, at most twenty."""
        found = self._completions.get(prefix)
        if found is None:
            if len(self._completions) >= _KEPT_COMPLETIONS:
                self._completions.clear()
            first = bisect_left(self._sorted, prefix)
            words = self._sorted[first : bisect_left(self._sorted, prefix + _LAST, first)]
            best = heapq.nsmallest(MOST_COMPLETIONS, map(self._ranks.__getitem__, words))
            found = self._completions[prefix] = [(word, self._entries[word]) for *_, word in best]
        return found

    def alike(self, word: str) -> list[str]:
        """Return the words of other scripts that sound the same, those of most listings first."""
        heard = sound(word)
        if len(heard) < _LEAST_ALIKE:
            return []
        script = detect_script(word)
        found = [other for other in self._sounding.get(heard, ()) if detect_script(other) != script]
        return sorted(found, key=lambda other: (-self._entries[other].listings, other))[:_MOST_ALIKE]

    def candidates(self, word: str) -> Iterator[Candidate]:
        """Yield the words that may have been meant: they sound the same, or a letter or two are wrong.

        None may be wrong of two letters, one of up to five, two of more.
        """
        heard, script = sound(word), detect_script(word)
        near = [(heard, 0)] if heard in self._sounding else []
        most = 0 if near or len(heard) < 3 else 1 if len(heard) < 6 else 2
        for length in range(len(heard) - most, len(heard) + most + 1):
            if most and length in self._by_length:
                found = extract(heard, self._by_length[length].keys(), scorer=OSA.distance, score_cutoff=most, limit=20)
                near += [(key, int(distance)) for key, distance, _ in found]
        for key, distance in near:
            for other in self._sounding[key]:
                entry = self._entries[other]
                fewer = (-entry.listings, -entry.popularity)
                yield Candidate(distance, detect_script(other) != script, fewer, other)


def suggestions(vocabularies: Iterable[Vocabulary], prefix: str, limit: int) -> list[Suggestion]:
    """Return the best completions of several vocabularies together."""
    found: dict[str, Entry] = {}
    for vocabulary in vocabularies:
        for word, entry in vocabulary.completions(prefix):
            known = found.get(word, Entry(0, 0, entry.path))
            found[word] = Entry(max(known.popularity, entry.popularity), known.listings + entry.listings, known.path)
    best = heapq.nsmallest(limit, (_rank(word, entry) for word, entry in found.items()))
    return [Suggestion(word, found[word].path) for *_, word in best]


def nearest(vocabularies: Iterable[Vocabulary], word: str) -> str | None:
    """Return the word that was most likely meant, or None when nothing is near."""
    best = min((one for vocabulary in vocabularies for one in vocabulary.candidates(word)), default=None)
    return best.word if best else None


def _rank(word: str, entry: Entry) -> _Rank:
    return -entry.popularity, -entry.listings, len(word), word

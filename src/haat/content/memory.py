"""The translation memory: sentences of published translations, and what they suggest for new ones.

It is the market's own texts only, which everybody may read; what callers send to services never comes here.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from haat.content import memory_store
from haat.content.markup import pairs
from haat.content.memory_store import Candidate, Learned
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database
from haat.language import Tag, fold, search_words, weighted_similarity

LEAST_ALIKE = 0.5
"""Below this likeness (`haat.language.weighted_similarity`) a sentence suggests nothing."""
MOST_SUGGESTIONS = 3
_CANDIDATES = 20
_WORDS = 40
_LONGEST_WORD = 64  # PostgreSQL refuses lexemes above 2 KiB


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A known sentence like the one asked for. ``score`` is how alike the sources are, 1 for the same."""

    source: str
    target: str
    score: float
    key: str
    version: int


class Memory:
    """What is known of how sentences were translated before."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def suggest(self, source: Tag, target: Tag, wanted: Sequence[str]) -> dict[str, list[Suggestion]]:
        """Return up to three known sentences like each of these, the likest first, where there are any."""
        found: dict[str, list[Candidate]] = {}
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            for sentence in dict.fromkeys(wanted):
                if words := _words(sentence)[:_WORDS]:
                    found[sentence] = await memory_store.candidates(connection, source, target, words, _CANDIDATES)
        return await asyncio.to_thread(_likest, found)  # a long page is compared for some tenths of a second

    async def exact(self, source: Tag, target: Tag, wanted: Sequence[str]) -> dict[str, str]:
        """Return the translations of those sentences that are known word for word, whatever their case."""
        hashes = {sentence: _hash(sentence) for sentence in wanted}
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            known = await memory_store.exact(connection, source, target, list(hashes.values()))
        return {sentence: known[digest] for sentence, digest in hashes.items() if digest in known}


async def learn(
    connection: Connection,
    source: tuple[Tag, str, str],
    target: tuple[Tag, str, str],
    key: str,
    version: int,
    at: datetime,
) -> int:
    """Learn from a translation as it is published; return how many pairs. Both are language, title and body."""
    (from_tag, from_title, from_body), (to_tag, to_title, to_body) = source, target
    learned = {
        _hash(one): Learned(_hash(one), one, other, _words(one))
        for one, other in [(from_title, to_title), *pairs(from_body, to_body)]
        if _words(one)
    }
    await memory_store.learn(connection, from_tag, to_tag, learned.values(), key, version, at)
    return len(learned)


def _likest(found: Mapping[str, Sequence[Candidate]]) -> dict[str, list[Suggestion]]:
    suggested = {}
    for sentence, candidates in found.items():
        scored = [
            Suggestion(one.source, one.target, weighted_similarity(sentence, one.source), one.key, one.version)
            for one in candidates
        ]
        likely = sorted((one for one in scored if one.score >= LEAST_ALIKE), key=lambda one: -one.score)
        if likely:
            suggested[sentence] = likely[:MOST_SUGGESTIONS]
    return suggested


def _hash(sentence: str) -> bytes:
    return hashlib.sha256(fold(" ".join(sentence.split())).encode()).digest()


def _words(sentence: str) -> list[str]:
    return [word[:_LONGEST_WORD] for word in search_words(sentence)]

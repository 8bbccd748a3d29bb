"""What discovery keeps in a process: the vocabulary and the counts of the public catalog, and what some see besides.

They are read again when the catalog has changed, and no more often than a reading is worth: it may take two percent of
the time. So a small catalog is exact at once, and one of 100,000 listings within seconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

from haat.catalog import search_store
from haat.catalog.search_store import Counts
from haat.catalog.vocabulary import Entry, Vocabulary
from haat.infra.postgres import PUBLIC, Database, Scope

_WORTH = 50
_LOOK_SECONDS = 1.0
"""How seldom at most the vocabulary asks whether the catalog has changed."""
_COUNTS_SECONDS = 30.0
"""The counts are made anew after so long even if no word has changed."""
_AT_A_TIME = 500
_MOST_CLOSED = 2_000
"""Of either part that is not public the most popular listings are completed and counted."""
_MOST_SEEN = 256
_QUICK_SECONDS = 0.02
"""Whoever comes when a part is due waits for a reading that takes no longer. A longer one goes on behind him."""
_PATIENCE_SECONDS = 30.0
"""A part that is overdue by so much is waited for all the same."""

log = logging.getLogger(__name__)


class Shelf:
    """The public part of the catalog as this process knows it."""

    def __init__(self, db: Database, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._db = db
        self._monotonic = monotonic
        self._words = Vocabulary()
        self._since = "0"
        self._looking = asyncio.Lock()
        self._look_at = float("-inf")
        self._counts: Counts | None = None
        self._counting = asyncio.Lock()
        self._counted_at = self._changed_at = float("-inf")
        self._count_took = 0.0

    async def words(self) -> Vocabulary:
        """Return the vocabulary; while one visitor looks for changes the others get it as it was."""
        read = self._since != "0"
        if self._monotonic() >= self._look_at and not (read and self._looking.locked()):
            async with self._looking:
                if self._monotonic() >= self._look_at:
                    await self._look()
        return self._words

    async def _look(self) -> None:
        began = self._monotonic()
        async with self._db.transaction(PUBLIC) as connection:
            position = await search_store.vocabulary_position(connection)
            rows = await search_store.vocabulary(connection, self._since)
        await _put(self._words, [(row.word, Entry(row.popularity, row.listings, row.path)) for row in rows])
        self._since = position
        if rows:
            self._changed_at = began
        now = self._monotonic()
        self._look_at = now + min(_LOOK_SECONDS, _WORTH * (now - began))

    async def counts(self) -> Counts:
        """Return the counts; while they are made anew for one visitor the others get the former ones."""
        await self.words()
        if self._counts is None or (self._is_due() and not self._counting.locked()):
            async with self._counting:
                if self._counts is None or self._is_due():
                    began = self._monotonic()
                    async with self._db.transaction(PUBLIC) as connection:
                        self._counts = await search_store.counts(connection)
                    self._counted_at, self._count_took = began, self._monotonic() - began
        return self._counts

    def _is_due(self) -> bool:
        age = self._monotonic() - self._counted_at
        return age >= (_WORTH * self._count_took if self._changed_at > self._counted_at else _COUNTS_SECONDS)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the catalog that not everybody sees."""

    words: Vocabulary
    counts: Counts
    took: float
    """Seconds that it took to read it."""
    again_at: float


class ClosedShelves:
    """The parts of the catalog besides the public: one that all members see, and what each organisation alone may.

    The latter is never shown to another scope than its own. Each is read for one visitor at a time, a large one behind
    him; meanwhile the others get it as it was.
    """

    def __init__(self, db: Database, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._db = db
        self._monotonic = monotonic
        self._kept: OrderedDict[Scope | None, Part] = OrderedDict()
        self._reading: WeakValueDictionary[Scope | None, asyncio.Lock] = WeakValueDictionary()
        self._behind: set[asyncio.Task[None]] = set()

    async def of(self, scope: Scope) -> tuple[Part, Part]:
        """Return what a scope sees besides, each part fifty times as old as the reading of it took, or little more."""
        return await self._part(None, scope), await self._part(scope, scope)

    async def _part(self, key: Scope | None, scope: Scope) -> Part:
        """Return the part of all members, whose key is None, or one scope's own."""
        lock = self._reading.setdefault(key, asyncio.Lock())
        if self._is_due(key) and not (key in self._kept and lock.locked()):
            known = self._kept.get(key)
            if known is None or known.took <= _QUICK_SECONDS or self._overdue(known) >= _PATIENCE_SECONDS:
                await self._renew(key, scope, lock)
            else:
                task = asyncio.create_task(self._renew_behind(key, scope, lock))
                self._behind.add(task)
                task.add_done_callback(self._behind.discard)
        self._kept.move_to_end(key)
        part = self._kept[key]
        if len(self._kept) > _MOST_SEEN:
            self._kept.popitem(last=False)
        return part

    async def _renew(self, key: Scope | None, scope: Scope, lock: asyncio.Lock) -> None:
        async with lock:
            if self._is_due(key):
                self._kept[key] = await self._read(scope, for_members=key is None)

    async def _renew_behind(self, key: Scope | None, scope: Scope, lock: asyncio.Lock) -> None:
        try:
            await self._renew(key, scope, lock)
        except Exception as error:  # the next visitor asks again, and is told if he has to wait for it
            log.warning("a part of the catalog could not be read behind a visitor: %s", error)

    def _is_due(self, key: Scope | None) -> bool:
        return key not in self._kept or self._overdue(self._kept[key]) >= 0

    def _overdue(self, part: Part) -> float:
        return self._monotonic() - part.again_at

    async def _read(self, scope: Scope, *, for_members: bool) -> Part:
        began = self._monotonic()
        async with self._db.transaction(scope) as connection:
            rows = await search_store.closed_listings(connection, _MOST_CLOSED, for_members=for_members)
        counts, listings, paths = Counts(), Counter[str](), dict[str, str]()
        for row in rows:
            listings.update(row["words"])
            paths.update((word, row["path"]) for word in row["words"] if word not in paths)
            counts.add(row["category"], row["languages"], row["provider"], row["provider_name"])
        words = Vocabulary()
        await _put(words, [(word, Entry(0, number, paths[word])) for word, number in listings.items()])
        now = self._monotonic()
        return Part(words, counts, now - began, now + _WORTH * (now - began))


async def _put(words: Vocabulary, entries: Sequence[tuple[str, Entry]]) -> None:
    """Put entries into a vocabulary, a few at a time: others are to be answered meanwhile."""
    for start in range(0, len(entries), _AT_A_TIME):
        words.put(entries[start : start + _AT_A_TIME])
        await asyncio.sleep(0)

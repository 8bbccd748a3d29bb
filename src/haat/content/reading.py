"""What readers get: published texts in their language or the nearest one, search, and the words of mails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from haat.content import store
from haat.content.markup import plain
from haat.content.model import Kind, Published
from haat.infra.letters import Letter, MailTemplate, fill
from haat.infra.postgres import PUBLIC, Database
from haat.kernel.clock import Clock
from haat.kernel.errors import NotFound
from haat.language import ENGLISH, Tag, fallback_chain, search_words, sentences, truncate
from haat.language.messages import _

_LONGEST_WORD = 64  # PostgreSQL refuses lexemes above 2 KiB
_MOST_WORDS = 12
_MOST_FOUND = 50
_EXCERPT = 200
FOUND_BY_READERS: tuple[Kind, ...] = ("help", "page", "announcement")


@dataclass(frozen=True, slots=True)
class Found:
    """A page that search found; ``excerpt`` is its first sentence with one of the words, 200 graphemes at most."""

    page: Published
    excerpt: str


@dataclass(frozen=True, slots=True)
class Announced:
    """An announcement in all its languages."""

    source: Tag
    texts: Mapping[Tag, Published]

    def for_reader(self, tag: Tag) -> Published | None:
        """Return it in the reader's language or the nearest one, at last in its own."""
        return next((self.texts[one] for one in (*fallback_chain(tag), self.source) if one in self.texts), None)


class Library:
    """Reads what is published. Nobody needs leave for that."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db, self._clock = db, clock

    async def published(self, key: str, tag: Tag, kinds: Sequence[Kind] = FOUND_BY_READERS) -> Published:
        """Return a page in the first language of the reader's `fallback_chain` that it is published in.

        Where it is in none of them it comes in its own language; ``tag`` of the answer says in which. Raise NotFound.
        """
        async with self._db.transaction(PUBLIC) as connection:
            found = await store.nearest(connection, key, fallback_chain(tag))
        if found is None or found.kind not in kinds:
            raise NotFound(_("There is no such page, or it is not published yet."))
        return found

    async def languages(self, key: str) -> list[Tag]:
        """Return the languages that a page can be read in."""
        async with self._db.transaction(PUBLIC) as connection:
            return await store.languages_of(connection, key)

    async def shelf(self, tag: Tag, kinds: Sequence[Kind] = ("help",)) -> list[Published]:
        """Return the published pages of some kinds, each in the reader's language or the nearest one, by title."""
        async with self._db.transaction(PUBLIC) as connection:
            return await store.shelf(connection, kinds, fallback_chain(tag))

    async def search(self, tag: Tag, text: str, kinds: Sequence[Kind] = FOUND_BY_READERS) -> list[Found]:
        """Return pages that hold every word of ``text``, as the reader would get them, best first; 50 at most."""
        words = words_of(text)[:_MOST_WORDS]
        if not words:
            return []
        async with self._db.transaction(PUBLIC) as connection:
            pages = await store.search(connection, words, kinds, fallback_chain(tag), _MOST_FOUND)
        return [Found(page, _excerpt(page.body, words)) for page in pages]

    async def announced(self) -> list[Announced]:
        """Return what is announced now, the newest first."""
        async with self._db.transaction(PUBLIC) as connection:
            rows = await store.announced(connection, self._clock.now())
        found: dict[str, tuple[Tag, dict[Tag, Published]]] = {}
        for source, text in rows:
            found.setdefault(text.key, (source, {}))[1][text.tag] = text
        return [Announced(source, texts) for source, texts in found.values()]

    async def letter(
        self, mail: MailTemplate, tag: Tag, *, default: tuple[str, str] | None = None, **values: Any
    ) -> Letter:
        """Return a mail in the reader's language, with its values filled in.

        The operator's published words come first, in the nearest language. Where those are English alone, and the
        interface's catalogs have the mail in the reader's language, they say it: a reader who has no English gets none.
        ``default`` are the sender's own words in that language, in place of what the catalogs have.
        """
        async with self._db.transaction(PUBLIC) as connection:
            own = await store.nearest(connection, mail.name, fallback_chain(tag))
        if own is not None and (own.kind != "mail" or own.tag not in fallback_chain(tag)):
            own = None  # in a language that the reader may not have, the default is better
        subject, text = (own.title, own.body) if own else (mail.subject, mail.text)
        if own is None or (own.tag == ENGLISH and tag != ENGLISH):
            subject, text = default or mail.in_catalog(tag) or (subject, text)
        return fill(subject, text, {name: str(value) for name, value in values.items()})


def words_of(text: str) -> list[str]:
    """Return the words to index or to look up, cut alike."""
    return [word[:_LONGEST_WORD] for word in search_words(text)]


def _excerpt(body: str, words: Sequence[str]) -> str:
    said = sentences(plain(body))

    def holds(sentence: str) -> bool:
        return any(one.startswith(word) for one in words_of(sentence) for word in words)

    return truncate(next(filter(holds, said), said[0] if said else ""), _EXCERPT)

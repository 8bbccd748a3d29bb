"""How listings are found, and what a visitor may see of them."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from uuid import UUID

from haat.catalog import search_store, store
from haat.catalog.model import Listing, Order, Price, Suggestion, Version
from haat.catalog.search_store import Counts, Place, Wanted, Word
from haat.catalog.shelves import ClosedShelves, Shelf
from haat.catalog.vocabulary import MOST_COMPLETIONS, Vocabulary, nearest, suggestions
from haat.infra.postgres import PLATFORM_SCOPE, PUBLIC, Connection, Database, Scope, tenant
from haat.kernel.clock import Clock
from haat.kernel.errors import InvalidRequest
from haat.kernel.pages import MAX_PAGE, Page, decode_cursor, encode_cursor
from haat.kernel.permissions import Actor, Permission
from haat.kernel.prices import Meter
from haat.language.messages import _
from haat.language.tags import LANGUAGES, parse_tag
from haat.language.text import search_words

_LONGEST_WORD = 64
_MOST_WORDS = 12
_CATEGORY_WORDS = {
    "translation": "translation translate अनुवाद ترجمہ மொழிபெயர்ப்பு অনুবাদ",
    "transliteration": "transliteration script लिप्यंतरण",
    "speech_to_text": "speech to text recognition asr वाणी",
    "text_to_speech": "text to speech voice tts वाणी आवाज़",
    "ocr": "ocr text in images पाठ पहचान",
    "nlp": "text analysis nlp",
    "llm": "language model llm chat",
    "embedding": "embedding vector",
    "custom": "custom",
}


@dataclass(frozen=True, slots=True)
class Found(Page[Listing]):
    """A page of listings. ``instead`` are the words they hold if some that were typed stand nowhere."""

    instead: str | None = None


class Discovery:
    """Search, and the pages of a listing. An actor of None is somebody who isn't signed in."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._shelf = Shelf(db)
        self._closed = ClosedShelves(db)

    async def warm_up(self) -> None:
        """Read what is kept in the process before the first visitor waits for it."""
        await self._shelf.counts()

    async def search(
        self,
        actor: Actor | None = None,
        *,
        text: str = "",
        exact: bool = False,
        category: str | None = None,
        language: str | None = None,
        provider: str | None = None,
        max_price: Decimal | None = None,
        order: Order = "best",
        cursor: str | None = None,
        limit: int = 24,
    ) -> Found:
        """Return open listings that hold every word of ``text``, in any script and as a beginning.

        The best come first: those with all the words in the name, then by use, then by name. A word that no listing
        holds is replaced by the nearest one unless ``exact``. ``language`` is a BCP-47 tag with or without script;
        ``max_price`` is of each listing's own unit. Raise InvalidRequest for a foreign cursor.
        """
        limit = max(1, min(limit, MAX_PAGE))
        after = _place(cursor, order) if cursor else None
        scope, typed = _scope(actor), _words(text)[:_MOST_WORDS]
        vocabularies = await self._vocabularies(scope) if typed else []
        async with self._db.transaction(scope) as connection:
            words = typed if exact else await self._corrected(connection, scope, vocabularies, typed)
            wanted = Wanted(
                [Word(word, _others(vocabularies, word)) for word in words],
                category=category,
                language=language,
                provider=provider,
                max_price=max_price,
                order=order,
                after=after,
            )
            found = await search_store.find(connection, wanted, limit + 1, closed=scope != PUBLIC)
            shown = await store.listings_by_id(connection, [key for _, key in found[:limit]], self._clock.now())
        following = _cursor(found[limit - 1][0], order) if len(found) > limit else None
        return Found(shown, following, " ".join(words) if words != typed else None)

    async def _corrected(
        self, connection: Connection, scope: Scope, vocabularies: list[Vocabulary], words: list[str]
    ) -> list[str]:
        """Return the words with those replaced that stand nowhere and are near to one that does."""
        unknown = [word for word in words if not any(vocabulary.begins(word) for vocabulary in vocabularies)]
        if not unknown:
            return words
        described = await search_store.stand_somewhere(connection, unknown, closed=scope != PUBLIC)
        meant = {word: nearest(vocabularies, word) or word for word in unknown if word not in described}
        return [meant.get(word, word) for word in words]

    async def _vocabularies(self, scope: Scope) -> list[Vocabulary]:
        public = await self._shelf.words()
        return [public] if scope == PUBLIC else [public, *(part.words for part in await self._closed.of(scope))]

    async def autocomplete(self, actor: Actor | None, prefix: str, limit: int = 8) -> list[Suggestion]:
        """Return words of open listings that continue the last word of ``prefix``, those of most use first."""
        words = _words(prefix)
        if not words:
            return []
        return suggestions(await self._vocabularies(_scope(actor)), words[-1], max(1, min(limit, MOST_COMPLETIONS)))

    async def facets(self, actor: Actor | None = None) -> Counts:
        """Return what open listings can be filtered by, with counts.

        Of large catalogs they are some seconds old.
        """
        scope, counts = _scope(actor), await self._shelf.counts()
        for part in await self._closed.of(scope) if scope != PUBLIC else ():
            counts = counts.plus(part.counts)
        return counts

    async def listing(self, actor: Actor | None, provider_slug: str, slug: str) -> Listing:
        """Return one listing that the actor may see; raise NotFound."""
        async with self._db.transaction(_scope(actor)) as connection:
            return await store.listing(connection, provider_slug, slug, self._clock.now())

    async def listing_by_id(self, actor: Actor | None, identifier: UUID) -> Listing:
        """Return one listing that the actor may see; raise NotFound."""
        async with self._db.transaction(_scope(actor)) as connection:
            return await store.listing_by_id(connection, identifier, self._clock.now())

    async def versions(self, actor: Actor | None, service_id: UUID) -> list[Version]:
        """Return a listing's versions, newest first; those not accepted only to its provider."""
        async with self._db.transaction(_scope(actor)) as connection:
            listing = await store.listing_by_id(connection, service_id, self._clock.now())
            found = await store.versions(connection, service_id)
        mine = actor is not None and (actor.org_id == listing.org_id or actor.may(Permission.SERVICES_SUSPEND))
        return found if mine else [version for version in found if version.accepted_at is not None]

    async def prices(self, actor: Actor | None, service_id: UUID) -> list[Price]:
        """Return the prices in force: the common one first, then those of single plans."""
        async with self._db.transaction(_scope(actor)) as connection:
            await store.listing_by_id(connection, service_id, self._clock.now())
            return await store.prices(connection, service_id, self._clock.now())

    async def price_history(self, actor: Actor | None, service_id: UUID) -> list[Price]:
        """Return every price a listing has had or will have, the latest first."""
        async with self._db.transaction(_scope(actor)) as connection:
            await store.listing_by_id(connection, service_id, self._clock.now())
            return await store.price_history(connection, service_id)

    async def meters(self, actor: Actor | None, service_id: UUID) -> list[Meter]:
        """Return a listing's own meters; the sums of the units are there besides."""
        async with self._db.transaction(_scope(actor)) as connection:
            await store.listing_by_id(connection, service_id, self._clock.now())
            return list((await store.meters(connection, service_id)).values())


async def index(connection: Connection, listing: Listing) -> None:
    """Make an open listing findable by all that leads to it, in the caller's transaction."""
    tags = spoken(listing.languages, listing.language_pairs)
    await search_store.index(connection, listing, tags, terms_of(listing, tags))


def terms_of(listing: Listing, tags: list[str]) -> dict[str, str]:
    """Return the words that lead to a listing, each with the weight of the best place where it stands, from A to D."""
    texts = [
        ("A", listing.name),
        ("B", listing.slug.replace("-", " ")),
        ("B", listing.provider_name),
        ("B", _CATEGORY_WORDS[listing.category]),
        ("C", listing.summary),
    ]
    for tag in tags:
        try:
            language = LANGUAGES[parse_tag(tag).language]
        except ValueError:
            texts.append(("C", tag))  # a language outside the 23 is found by its tag's own letters
            continue
        texts.append(("C", f"{language.name} {language.own_name}"))
    texts.append(("D", listing.description))
    terms: dict[str, str] = {}
    for weight, text in texts:
        for word in _words(text):
            terms.setdefault(word, weight)
    return terms


def spoken(languages: tuple[str, ...] | list[str], pairs: tuple[str, ...] | list[str]) -> list[str]:
    """Return every language tag of a listing once, in order."""
    return list(dict.fromkeys([*languages, *(tag for pair in pairs for tag in pair.split(">"))]))


def _words(text: str) -> list[str]:
    """Return the words to index or to look up, cut alike: PostgreSQL refuses lexemes above 2 KiB."""
    return [word[:_LONGEST_WORD] for word in search_words(text)]


def _others(vocabularies: list[Vocabulary], word: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(other for vocabulary in vocabularies for other in vocabulary.alike(word)))


def _cursor(place: Place, order: Order) -> str:
    number = str(place.number) if order == "cheapest" else -int(place.number)
    return encode_cursor(number, place.name, place.path)


def _place(cursor: str, order: Order) -> Place:
    """Return where a page begins; raise InvalidRequest for a cursor that isn't ours or is of another order."""
    if order != "cheapest":
        number, name, path = decode_cursor(cursor, 3, int, str, str)
        return Place(-number, name, path)
    price, name, path = decode_cursor(cursor, 3, str, str, str)
    try:
        return Place(Decimal(price), name, path)
    except InvalidOperation as error:
        raise InvalidRequest(_("The cursor is not one of ours: take it from the previous page's `next`.")) from error


def _scope(actor: Actor | None) -> Scope:
    if actor is None:
        return PUBLIC
    return tenant(actor.org_id) if actor.org_id else PLATFORM_SCOPE

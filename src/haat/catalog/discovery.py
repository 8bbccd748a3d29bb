"""How listings are found, and what a visitor may see of them."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from haat.catalog import store
from haat.catalog.model import Listing, Price, Suggestion, Version
from haat.infra.postgres import PLATFORM_SCOPE, PUBLIC, Database, Scope, tenant
from haat.kernel.clock import Clock
from haat.kernel.pages import MAX_PAGE, Page, decode_cursor, encode_cursor
from haat.kernel.permissions import Actor, Permission
from haat.kernel.prices import Meter
from haat.language.tags import LANGUAGES, parse_tag
from haat.language.text import search_words

_LONGEST_WORD = 64
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
class Facets:
    """What the catalog can be narrowed by, each with the number of listings behind it."""

    categories: dict[str, int]
    languages: dict[str, int]
    providers: dict[str, tuple[str, int]]


class Discovery:
    """Search, and the pages of a listing. An actor of None is somebody who isn't signed in."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def search(
        self,
        actor: Actor | None = None,
        *,
        text: str = "",
        category: str | None = None,
        language: str | None = None,
        provider: str | None = None,
        max_price: Decimal | None = None,
        cursor: str | None = None,
        limit: int = 24,
    ) -> Page[Listing]:
        """Return open listings that hold every word of ``text`` (in any script), best first.

        ``language`` is a BCP-47 tag with or without script. Raise InvalidRequest for a foreign cursor.
        """
        limit = max(1, min(limit, MAX_PAGE))
        after: tuple[int, str, str] | None = None
        if cursor:
            score, name, identifier = decode_cursor(cursor, 3, int, str, str)
            after = score, name, identifier
        async with self._db.transaction(_scope(actor)) as connection:
            found = await store.search(
                connection,
                words=_words(text)[:12],
                category=category,
                language=language,
                provider=provider,
                max_price=max_price,
                after=after,
                limit=limit + 1,
                at=self._clock.now(),
            )
        listings = [listing for _, listing in found[:limit]]
        if len(found) <= limit:
            return Page(listings, None)
        score, last = found[limit - 1]
        return Page(listings, encode_cursor(score, last.name, str(last.id)))

    async def autocomplete(self, actor: Actor | None, prefix: str, limit: int = 8) -> list[Suggestion]:
        """Return words of open listings that continue the last word of ``prefix``."""
        words = _words(prefix)
        if not words:
            return []
        async with self._db.transaction(_scope(actor)) as connection:
            return await store.autocomplete(connection, words[-1], max(1, min(limit, 20)))

    async def facets(self, actor: Actor | None = None) -> Facets:
        """Return what open listings can be filtered by, with counts."""
        async with self._db.transaction(_scope(actor)) as connection:
            rows = await store.facets(connection)
        facets = Facets({}, {}, {})
        for row in rows:
            facets.categories[row["category"]] = facets.categories.get(row["category"], 0) + 1
            name, count = facets.providers.get(row["provider_slug"], (row["provider_name"], 0))
            facets.providers[row["provider_slug"]] = (name, count + 1)
            for language in spoken(row["languages"], row["language_pairs"]):
                facets.languages[language] = facets.languages.get(language, 0) + 1
        return facets

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


def index_words(listing: Listing) -> list[tuple[str, str, str]]:
    """Return the words that lead to a listing, as `store.index` takes them: letters, weight, form to suggest."""
    texts = [
        ("A", listing.name),
        ("B", listing.slug.replace("-", " ")),
        ("B", listing.provider_name),
        ("B", _CATEGORY_WORDS[listing.category]),
        ("C", listing.summary),
        ("D", listing.description),
    ]
    for tag in spoken(listing.languages, listing.language_pairs):
        try:
            language = LANGUAGES[parse_tag(tag).language]
        except ValueError:
            texts.append(("C", tag))  # a language outside the 23 is found by its tag's own letters
            continue
        texts.append(("C", f"{language.name} {language.own_name}"))
    return [(word, weight, word) for weight, text in texts for word in _words(text)]


def spoken(languages: tuple[str, ...] | list[str], pairs: tuple[str, ...] | list[str]) -> list[str]:
    """Return every language tag of a listing once, in order."""
    return list(dict.fromkeys([*languages, *(tag for pair in pairs for tag in pair.split(">"))]))


def _words(text: str) -> list[str]:
    """Return the words to index or to look up, cut alike: PostgreSQL refuses lexemes above 2 KiB."""
    return [word[:_LONGEST_WORD] for word in search_words(text)]


def _scope(actor: Actor | None) -> Scope:
    if actor is None:
        return PUBLIC
    return tenant(actor.org_id) if actor.org_id else PLATFORM_SCOPE

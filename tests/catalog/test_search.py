"""A search that pages in four orders, corrects what is misspelt, reads across scripts, and shows nobody too much."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from itertools import product
from typing import Any

import psycopg
import pytest

from haat.catalog import search_store
from haat.catalog.drafts import PriceDraft
from haat.catalog.model import ORDERS, Order
from haat.infra.postgres import PLATFORM_SCOPE, PUBLIC, tenant
from haat.kernel.errors import InvalidRequest
from haat.kernel.permissions import PLATFORM, Actor
from market import Market

NAMES = ["Mandi", "Mandi prices", "Rates of a mandi", "भाव", "Mandi", "Zameen", "Anaaj"]
PRICES = ["0.10", "0.05", "0.10", "2", "0.000001", "0", "0.05"]
LATENCIES = [200, 100, 200, 50, 300, 100, 1]


async def _mandi(market: Market) -> Actor:
    """Fill the catalog with listings that differ in what they are ordered by, some in pairs alike."""
    provider = await market.provider("bhasha")
    for number, (name, price, latency) in enumerate(zip(NAMES, PRICES, LATENCIES, strict=True)):
        await market.listing(
            provider,
            f"stall-{number}",
            name=name,
            summary="What mandi grain costs" if number != 6 else "",
            price={"unit_price": price},
            typical_latency_ms=latency,
            visibility="members" if number == 2 else "public",
        )
        market.clock.advance(seconds=number % 2)
    return provider


async def _pages(market: Market, actor: Actor | None = None, **query: Any) -> list[str]:
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = await market.discovery.search(actor, cursor=cursor, limit=2, **query)
        seen += [listing.slug for listing in page.items]
        cursor = page.next
        if cursor is None:
            return seen


def _expected(order: Order, slugs: list[int], used: dict[int, int], text: str) -> list[str]:
    def key(number: int) -> tuple[Any, ...]:
        rank = {
            "best": (not (text and "mandi" in NAMES[number].lower()), -used.get(number, 0)),
            "cheapest": (Decimal(PRICES[number]),),
            "fastest": (LATENCIES[number],),
            "newest": (-sum(one % 2 for one in range(number)),),
        }[order]
        return (*rank, NAMES[number], f"bhasha/stall-{number}")

    return [f"stall-{number}" for number in sorted(slugs, key=key)]


@pytest.mark.parametrize("few", [1500, 2, 0])
async def test_pages_show_each_match_once_and_in_the_wanted_order(
    market: Market, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """With few matches they are read and sorted; with many the order is walked along: both show the same."""
    monkeypatch.setattr(search_store, "_FEW", few)
    provider = await _mandi(market)
    listings = {listing.slug: listing.id for listing in await market.catalog.own(provider)}
    used = {4: 7, 0: 7, 5: 1000}
    await market.catalog.rank(PLATFORM, [(listings[f"stall-{one}"], calls, None) for one, calls in used.items()])
    for order, text, actor in product(ORDERS, ("", "mandi"), (None, provider)):
        slugs = [one for one in range(7) if (text == "" or one != 6) and (actor or one != 2)]
        assert await _pages(market, actor, order=order, text=text) == _expected(order, slugs, used, text), (order, text)
    cheap = await _pages(market, order="fastest", max_price=Decimal("0.05"))
    assert cheap == ["stall-6", "stall-1", "stall-5", "stall-4"]


async def test_a_cursor_of_another_order_is_refused(market: Market) -> None:
    await _mandi(market)
    best = (await market.discovery.search(limit=1)).next
    cheapest = (await market.discovery.search(limit=1, order="cheapest")).next
    for cursor, order in ((best, "cheapest"), (cheapest, "best"), (cheapest, "newest")):
        with pytest.raises(InvalidRequest):
            await market.discovery.search(cursor=cursor, order=order)  # type: ignore[arg-type]  # a name of the two


async def test_what_was_measured_comes_before_what_was_only_promised(market: Market) -> None:
    provider = await _mandi(market)
    listings = {listing.slug: listing.id for listing in await market.catalog.own(provider)}
    await market.catalog.rank(PLATFORM, [(listings["stall-4"], 10, 900.0), (listings["stall-3"], 10, 950.4)])
    assert (await _pages(market, order="fastest"))[:3] == ["stall-4", "stall-3", "stall-6"]
    await market.catalog.rank(PLATFORM, [])
    assert (await _pages(market, order="fastest"))[:2] == ["stall-6", "stall-3"]


async def test_a_price_moves_a_listing_at_once_and_an_announced_one_when_it_begins(market: Market) -> None:
    provider = await _mandi(market)
    dear = {listing.slug: listing.id for listing in await market.catalog.own(provider)}["stall-3"]
    await market.catalog.set_price(provider, dear, PriceDraft(unit_price=Decimal("0.07")))
    begins = market.clock.now() + timedelta(days=1)
    await market.catalog.set_price(provider, dear, PriceDraft(unit_price=Decimal(9), effective_from=begins))
    assert (await _pages(market, order="cheapest")).index("stall-3") == 4
    market.clock.advance(days=1, minutes=1)
    assert await market.catalog.renew_prices(PLATFORM) == 1
    assert (await _pages(market, order="cheapest"))[-1] == "stall-3"


# --- words ------------------------------------------------------------------------------------------


async def _street(market: Market) -> None:
    provider = await market.provider("bhasha", organisation="Bhasha Labs")
    for slug, name, category, description in [
        ("khabar", "नई दिल्ली समाचार", "nlp", ""),
        ("translation", "Translation of laws", "translation", "Vocables of notaries"),
        ("anuvadak", "अनुवादक", "custom", ""),
        ("ocr", "Page reader", "ocr", ""),
    ]:
        await market.listing(provider, slug, name=name, category=category, description=description)


FOUND: list[tuple[str, str | None, set[str]]] = [
    ("translaton", "translation", {"translation"}),
    ("Translatoin laws", "translation laws", {"translation"}),
    ("नई दिली", "नई दिल्ली", {"khabar"}),
    ("नई दिल्ली", None, {"khabar"}),
    ("nai dilli", "नई दिल्ली", {"khabar"}),
    ("anuvad", None, {"translation", "anuvadak"}),  # the category's word sounds so, and the name begins so
    ("अनुवाद", None, {"translation", "anuvadak"}),
    ("vocables", None, {"translation"}),  # in a description, which is no word to correct
    ("qqqqqqq", None, set()),
    ("page qqqqqqq", None, set()),
]


async def test_a_word_that_stands_nowhere_is_replaced_by_the_nearest_and_the_answer_says_so(market: Market) -> None:
    await _street(market)
    for text, instead, slugs in FOUND:
        page = await market.discovery.search(text=text)
        assert (page.instead, {one.slug for one in page.items}) == (instead, slugs), text


async def test_an_exact_search_replaces_nothing(market: Market) -> None:
    await _street(market)
    page = await market.discovery.search(text="translaton", exact=True)
    assert page.instead is None and page.items == []


async def test_a_filter_that_leaves_nothing_is_no_reason_to_replace_a_word(market: Market) -> None:
    await _street(market)
    page = await market.discovery.search(text="translation", category="ocr")
    assert page.instead is None and page.items == []


# --- visibility -------------------------------------------------------------------------------------


async def test_the_public_table_holds_nothing_that_is_not_public(market: Market, database: Any) -> None:
    provider = await market.provider("bhasha")
    await market.listing(provider, "open", name="Khula")
    for visibility in ("members", "invited"):
        await market.listing(provider, visibility, name="Secretword", visibility=visibility)
    suspended = await market.listing(provider, "suspended", name="Gonebad")
    await market.catalog.suspend(PLATFORM, suspended.id, "")
    with psycopg.connect(database.owner_dsn) as connection:
        public = connection.execute("SELECT path FROM listing_search").fetchall()
        closed = connection.execute("SELECT path FROM listing_search_closed ORDER BY path").fetchall()
        words = {word for (word,) in connection.execute("SELECT word FROM search_words WHERE listings > 0")}
    assert (public, closed) == ([("bhasha/open",)], [("bhasha/invited",), ("bhasha/members",)])
    assert "khula" in words and not {"secretword", "gonebad", "members"} & words


async def test_the_database_refuses_rows_of_others_and_rows_that_are_not_what_they_say(market: Market) -> None:
    provider, rival = await market.provider("bhasha"), await market.provider("rival")
    listing = await market.listing(provider, "mandi", name="Mandi", visibility="invited")
    copied = """INSERT INTO listing_search (service_id, org_id, path, name, category, visibility, languages, unit_price,
                    slowness, opened, terms)
                VALUES (%s, %s, 'bhasha/mandi', 'Mandi', 'nlp', 'public', '{}', 0, 0, 0, '')"""
    assert provider.org_id and rival.org_id
    for scope, org in ((tenant(provider.org_id), provider.org_id), (tenant(rival.org_id), rival.org_id)):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with market.db.transaction(scope) as connection:
                await connection.execute(copied, (listing.id, org))
    for scope, seen in ((tenant(provider.org_id), 1), (tenant(rival.org_id), 0), (PUBLIC, 0), (PLATFORM_SCOPE, 1)):
        async with market.db.transaction(scope) as connection:
            rows = await connection.execute("SELECT FROM listing_search_closed")
            assert len(await rows.fetchall()) == seen
    await market.listing(provider, "open", name="Khula")
    async with market.db.transaction(tenant(rival.org_id)) as connection:
        assert (await connection.execute("DELETE FROM listing_search")).rowcount == 0
        assert (await connection.execute("UPDATE listing_search SET popularity = 100")).rowcount == 0


async def test_the_words_of_an_invited_listing_complete_and_correct_for_its_guests_only(market: Market) -> None:
    provider, guest, stranger = await market.provider(), await market.consumer(), await market.consumer()
    listing = await market.listing(provider, "mandi", name="Anaajmandi", visibility="invited")
    assert guest.org_id
    await market.catalog.invite(provider, listing.id, guest.org_id)
    for actor, sees in ((guest, True), (provider, True), (PLATFORM, True), (stranger, False), (None, False)):
        completed = [one.text for one in await market.discovery.autocomplete(actor, "anaa")]
        corrected = (await market.discovery.search(actor, text="anaajmandee")).instead
        near = (await market.discovery.search(actor, text="anaajmadni")).instead
        assert (completed, corrected, near) == (
            (["anaajmandi"], "anaajmandi", "anaajmandi") if sees else ([], None, None)
        )


async def test_the_index_of_public_words_is_used_under_the_policy(market: Market) -> None:
    """A policy that is no constant would keep the GIN index out of use: `@@` is not leakproof."""
    for scope in (PUBLIC, tenant((await market.consumer()).org_id)):
        async with market.db.transaction(scope) as connection:
            await connection.execute("SET LOCAL enable_seqscan = off")
            rows = await connection.execute("EXPLAIN SELECT FROM listing_search WHERE terms @@ 'mandi'::tsquery")
            plan = [row["QUERY PLAN"] for row in await rows.fetchall()]
        assert any("listing_search_terms" in line for line in plan), plan


# --- counts and the vocabulary ----------------------------------------------------------------------


async def test_counts_add_what_an_organisation_sees_besides(market: Market) -> None:
    provider = await market.provider("bhasha", organisation="Bhasha Labs")
    await market.listing(provider, "open")
    await market.listing(provider, "closed", visibility="invited")
    await market.listing(provider, "members", visibility="members", category="ocr")
    stranger = await market.consumer()
    seen = {name: await market.discovery.facets(actor) for name, actor in (("provider", provider), ("visitor", None))}
    assert seen["provider"].categories == {"translation": 2, "ocr": 1}
    assert seen["provider"].providers == {"bhasha": ("Bhasha Labs", 3)}
    assert seen["provider"].languages == {"hi-Deva": 3}
    assert seen["visitor"].categories == {"translation": 1}
    assert (await market.discovery.facets(stranger)).categories == {"translation": 1, "ocr": 1}
    assert (await market.discovery.facets()).categories == {"translation": 1}, "what others see is not kept for all"


async def test_the_vocabulary_keeps_step_with_what_opens_and_closes(market: Market, database: Any) -> None:
    provider = await market.provider("bhasha")
    first = await market.listing(provider, "first", name="Mandi")
    await market.listing(provider, "second", name="Mandi mandap")
    assert await _known(database, "mandi", "mandap") == {"mandi": (2, "bhasha/first"), "mandap": (1, "bhasha/second")}
    await market.catalog.retire(provider, first.id)
    assert await _known(database, "mandi", "first") == {"mandi": (1, "bhasha/second"), "first": (0, None)}
    await market.catalog.suspend_provider(PLATFORM, first.org_id, "")
    assert await _known(database, "mandi", "mandap") == {"mandi": (0, None), "mandap": (0, None)}
    await market.catalog.restore_provider(PLATFORM, first.org_id)
    assert await _known(database, "mandi", "mandap") == {"mandi": (1, "bhasha/second"), "mandap": (1, "bhasha/second")}


async def _known(database: Any, *words: str) -> dict[str, tuple[int, str | None]]:
    with psycopg.connect(database.owner_dsn) as connection:
        rows = connection.execute("SELECT word, listings, path FROM search_words WHERE word = ANY(%s)", (list(words),))
        return {word: (listings, path) for word, listings, path in rows}


async def test_words_of_much_used_listings_are_suggested_first(market: Market) -> None:
    provider = await market.provider()
    listings = [await market.listing(provider, slug, name=name) for slug, name in (("a", "Mandi"), ("b", "Mandap"))]
    await market.listing(provider, "c", name="Mandi")
    await market.catalog.rank(PLATFORM, [(listings[1].id, 500, None)])
    found = await market.discovery.autocomplete(None, "mand")
    assert [one.text for one in found] == ["mandap", "mandi"]


async def test_what_an_earlier_index_left_is_indexed_in_batches(market: Market, database: Any) -> None:
    provider = await market.provider("bhasha")
    for slug in ("a", "b"):
        await market.listing(provider, slug, name="Mandi")
    with psycopg.connect(database.owner_dsn) as connection:
        connection.execute("UPDATE listing_search SET former = true, terms = '' WHERE path = 'bhasha/a'")
        connection.execute("DELETE FROM listing_search WHERE path = 'bhasha/b'")
    assert await market.catalog.index_some(PLATFORM) == 2
    assert await market.catalog.index_some(PLATFORM) == 0
    assert await _pages(market, text="mandi") == ["a", "b"]

"""How listings are found: in any script, by prefix, by filters, page by page, and by whom."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haat.catalog.discovery import spoken
from haat.kernel.errors import InvalidRequest, NotFound
from haat.kernel.pages import encode_cursor
from haat.kernel.permissions import PLATFORM, Actor
from market import Market


async def _found(market: Market, actor: Actor | None = None, **query: Any) -> set[str]:
    return {listing.slug for listing in (await market.discovery.search(actor, **query)).items}


async def _shelves(market: Market) -> Actor:
    """Fill the catalog with listings in several scripts."""
    provider = await market.provider("bhasha", organisation="Bhasha Labs")
    for slug, name, summary, category, version, price in [
        (
            "khabar",
            "नई दुनिया अनुवाद",
            "समाचारों का अनुवाद",
            "translation",
            {"language_pairs": ["hi-Deva>ur-Arab"]},
            "0.10",
        ),
        ("tamizh", "தமிழ் மொழிபெயர்ப்பு", "தமிழ் உரை", "translation", {"language_pairs": ["ta-Taml>hi-Deva"]}, "0.20"),
        ("awaz", "اردو آواز", "متن سے آواز", "text_to_speech", {"languages": ["ur-Arab"]}, "0.50"),
        ("chhavi", "Page reader", "Reads scanned pages", "ocr", {"languages": ["hi-Deva", "en-Latn"]}, "1"),
    ]:
        await market.listing(
            provider,
            slug,
            name=name,
            summary=summary,
            category=category,
            version={"endpoint": "http://8.8.8.8", "sample": {}, **version},
            price={"unit_price": price},
        )
    return provider


WORDS: list[tuple[str, set[str]]] = [
    ("नई", {"khabar"}),
    ("नई दुनिया", {"khabar"}),
    ("अनुवा", {"khabar", "tamizh"}),  # a prefix; the category carries the word in Hindi too
    ("தமிழ்", {"tamizh"}),
    ("தமி", {"tamizh"}),
    ("اردو", {"awaz", "khabar"}),
    ("آواز", {"awaz"}),
    ("PAGE", {"chhavi"}),
    ("scan read", {"chhavi"}),
    ("ocr", {"chhavi"}),
    ("urdu", {"awaz", "khabar"}),
    ("bhasha", {"khabar", "tamizh", "awaz", "chhavi"}),
    ("page nobody", set()),
    ("नहीं", set()),
]


async def test_every_word_is_found_by_its_beginning_in_any_script(market: Market) -> None:
    await _shelves(market)
    assert [(text, await _found(market, text=text)) for text, _ in WORDS] == WORDS


async def test_a_word_is_found_in_either_unicode_form(market: Market) -> None:
    await market.listing(await market.provider(), "kalam", name="क\u093cलम")
    assert await _found(market, text="\u0958लम") == {"kalam"}


FILTERS: list[tuple[dict[str, Any], set[str]]] = [
    ({"category": "translation"}, {"khabar", "tamizh"}),
    ({"category": "llm"}, set()),
    ({"language": "ur-Arab"}, {"khabar", "awaz"}),
    ({"language": "ur"}, {"khabar", "awaz"}),
    ({"language": "u"}, set()),
    ({"language": "%"}, set()),
    ({"language": "__-____"}, set()),
    ({"provider": "bhasha"}, {"khabar", "tamizh", "awaz", "chhavi"}),
    ({"provider": "nobody"}, set()),
    ({"max_price": Decimal("0.20")}, {"khabar", "tamizh"}),
    ({"max_price": Decimal(0)}, set()),
    ({"category": "translation", "language": "ta", "max_price": Decimal(1), "text": "தமிழ்"}, {"tamizh"}),
]


async def test_filters_narrow_the_catalog_together(market: Market) -> None:
    await _shelves(market)
    assert [(filters, await _found(market, **filters)) for filters, _ in FILTERS] == FILTERS


async def test_a_language_outside_the_23_is_found_by_its_tag(market: Market) -> None:
    version = {"endpoint": "http://8.8.8.8", "sample": {}, "languages": ["fr-Latn"]}
    await market.listing(await market.provider(), "parler", version=version)
    assert await _found(market, text="fr") == {"parler"}


async def test_a_name_counts_more_than_a_description(market: Market) -> None:
    provider = await market.provider()
    await market.listing(provider, "aside", name="Other", description="It also knows mandi prices")
    await market.listing(provider, "named", name="Mandi")
    page = await market.discovery.search(text="mandi")
    assert [listing.slug for listing in page.items] == ["named", "aside"]


@pytest.mark.parametrize("query", [{}, {"text": "anuvad"}])
async def test_pages_show_every_listing_once_and_in_order(market: Market, query: dict[str, Any]) -> None:
    provider = await market.provider()
    for number in range(11):
        await market.listing(provider, f"anuvad-{number}", name=["Anuvad", "अनुवाद anuvad"][number % 2])
    whole = [listing.slug for listing in (await market.discovery.search(**query)).items]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = await market.discovery.search(cursor=cursor, limit=3, **query)
        seen += [listing.slug for listing in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert seen == whole and len(set(seen)) == 11


async def test_a_forged_cursor_is_refused(market: Market) -> None:
    forged = [("1", "a", "b"), (None, "a", "b"), (10**30, "a", "b"), (1, 2, 3), (True, "a", "b"), (1, "a\0", "b"), (1,)]
    for cursor in ["garbage", "%00", "x" * 5000, *(encode_cursor(*key) for key in forged)]:
        with pytest.raises(InvalidRequest):
            await market.discovery.search(cursor=cursor)


async def test_a_cursor_at_the_edge_of_numbers_is_just_an_end(market: Market) -> None:
    await _shelves(market)
    page = await market.discovery.search(cursor=encode_cursor(-(2**62), "z", "z"))
    assert page.items == [] and page.next is None


HOSTILE = [
    "'",
    "''''",
    "\\",
    "\\'",
    "\\\\'; DROP TABLE services; --",
    "a & | ! ( ) :* <->",
    "'a':*",
    "!a",
    ":",
    ":*",
    "a:b",
    "\0",
    "a\0b",
    "%s %(x)s",
    "x" * 10_000,
    "क" * 10_000,
    "word " * 5_000,
    "\u200d\u200c",
    "\u0301",
    "🎉",
    "\ud800",
    "\U0010ffff",
    "ﷺ" * 3000,
]


async def test_a_hostile_query_is_only_a_query(market: Market) -> None:
    await _shelves(market)
    for text in HOSTILE:
        await market.discovery.search(text=text)
        await market.discovery.autocomplete(None, text)
    assert len((await market.discovery.search()).items) == 4


@given(text=st.text(max_size=100))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_text_breaks_the_search(market: Market, text: str) -> None:
    await market.discovery.search(text=text)
    await market.discovery.autocomplete(None, text)


async def test_a_listing_with_lone_joiners_can_be_published(market: Market) -> None:
    await market.listing(await market.provider(), "joiner", description="a \u200d \u200c b", name="मंडी")
    assert await _found(market, text="मंडी \u200d") == {"joiner"}


async def test_a_listing_of_one_endless_word_can_be_published_and_found(market: Market) -> None:
    await market.listing(await market.provider(), "endless", description="क" * 8000, summary="x" * 160)
    assert await _found(market, text="क" * 100) == {"endless"}


COMPLETIONS = [
    ("नई दु", ["दुनिया"]),
    ("தமி", ["தமிழ்"]),
    ("آوا", ["آواز"]),
    ("Sca", ["scanned"]),
    ("", []),
    ("...", []),
    ("zzz", []),
]


async def test_the_last_word_is_completed_in_any_script(market: Market) -> None:
    await _shelves(market)
    for prefix, texts in COMPLETIONS:
        found = await market.discovery.autocomplete(None, prefix)
        assert [suggestion.text for suggestion in found] == texts, prefix


async def test_words_of_more_listings_are_suggested_first_and_at_most_as_many_as_asked(market: Market) -> None:
    provider = await market.provider()
    for slug, name in [("a", "Mandi"), ("b", "Mandi"), ("c", "Mandap"), ("d", "Mango")]:
        await market.listing(provider, slug, name=name)
    found = await market.discovery.autocomplete(None, "man", 2)
    assert [suggestion.text for suggestion in found] == ["mandi", "mango"]


# --- visibility ---------------------------------------------------------------------------------


async def _audience(market: Market) -> dict[str, Actor | None]:
    return {
        "visitor": None,
        "stranger": await market.consumer(),
        "guest": await market.consumer(),
        "provider": await market.provider(),
        "rival": await market.provider(),
        "platform": PLATFORM,
    }


@pytest.mark.parametrize(
    ("visibility", "who"),
    [
        ("public", {"visitor", "stranger", "guest", "provider", "rival", "platform"}),
        ("members", {"stranger", "guest", "provider", "rival", "platform"}),
        ("invited", {"guest", "provider", "platform"}),
    ],
)
async def test_a_listing_shows_to_those_it_is_meant_for(market: Market, visibility: str, who: set[str]) -> None:
    audience = await _audience(market)
    provider, guest = audience["provider"], audience["guest"]
    assert provider and guest and guest.org_id
    listing = await market.listing(provider, "mandi", name="Mandi", visibility=visibility)
    await market.catalog.invite(provider, listing.id, guest.org_id)
    for name, actor in audience.items():
        visible = name in who
        assert (await _found(market, actor, text="mandi") == {"mandi"}) is visible, name
        assert bool(await market.discovery.autocomplete(actor, "mand")) is visible, name
        assert bool((await market.discovery.facets(actor)).categories) is visible, name
        for call in (
            market.discovery.listing(actor, listing.provider_slug, "mandi"),
            market.discovery.listing_by_id(actor, listing.id),
            market.discovery.versions(actor, listing.id),
            market.discovery.prices(actor, listing.id),
        ):
            if visible:
                await call
            else:
                with pytest.raises(NotFound):
                    await call


async def test_a_draft_shows_to_its_provider_by_name_and_to_nobody_by_search(market: Market) -> None:
    audience = await _audience(market)
    provider = audience["provider"]
    assert provider
    service = await market.shelf(provider, "mandi", name="Mandi")
    for name, actor in audience.items():
        assert await _found(market, actor, text="mandi") == set()
        if name in ("provider", "platform"):
            await market.discovery.listing_by_id(actor, service)
        else:
            with pytest.raises(NotFound):
                await market.discovery.listing_by_id(actor, service)


@pytest.mark.parametrize("end", ["suspended", "retired"])
async def test_what_leaves_the_market_leaves_the_search(market: Market, end: str) -> None:
    provider = await market.provider()
    listing = await market.listing(provider, "mandi", name="Mandi")
    if end == "suspended":
        await market.catalog.suspend(PLATFORM, listing.id, "Too slow")
    else:
        await market.catalog.retire(provider, listing.id)
    for query in ({"text": "mandi"}, {}):
        assert await _found(market, provider, **query) == set()
    assert await market.discovery.autocomplete(None, "mand") == []
    assert (await market.discovery.facets()).categories == {}
    assert (await market.discovery.listing(None, listing.provider_slug, "mandi")).status == end


async def test_a_deprecated_listing_is_still_found(market: Market) -> None:
    provider = await market.provider()
    listing = await market.listing(provider, "mandi", name="Mandi")
    await market.catalog.deprecate(provider, listing.id, market.clock.now() + timedelta(days=90), "")
    assert await _found(market, text="mandi") == {"mandi"}


async def test_facets_count_open_listings(market: Market) -> None:
    await _shelves(market)
    facets = await market.discovery.facets()
    assert facets.categories == {"translation": 2, "text_to_speech": 1, "ocr": 1}
    assert facets.providers == {"bhasha": ("Bhasha Labs", 4)}
    assert facets.languages == {"hi-Deva": 3, "ur-Arab": 2, "ta-Taml": 1, "en-Latn": 1}


def test_every_language_of_a_listing_is_named_once() -> None:
    assert spoken(["hi-Deva"], ["hi-Deva>ur-Arab", "ur-Arab>hi-Deva"]) == ["hi-Deva", "ur-Arab"]

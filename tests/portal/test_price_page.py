"""A provider tries a price on last month, sees what it would have changed, and sets it from the same page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from haat.app import Platform
from haat.kernel.clock import SetClock
from haat.portal.formats import price_words

from .conftest import Browser, faults_of
from .street import PROVIDER, STRANGER, Street

BrowserFor = Callable[[str | None], Awaitable[Browser]]
NO_BREAK = "\N{NO-BREAK SPACE}"


async def test_a_price_is_tried_and_then_set(
    street: Street, browser_for: BrowserFor, platform: Platform, clock: SetClock
) -> None:
    browser, listing = await browser_for(PROVIDER), street.listings[0]
    page = f"/partner/services/{listing.id}/prices"
    empty = await browser.get(page)
    assert not faults_of(empty.text)
    assert 'value="0.0002"' in empty.text, "it begins with the present price"
    typed = {
        "month": "2026-11",
        "model": "graduated",
        "tiers": "1000: 0.5\nrest: 0.25",
        "fee": "99",
        "minimum": "150",
        "free_units": "10",
    }
    tried = await browser.send(page, page=page, **typed)
    assert not faults_of(tried.text)
    assert tried.status_code == 200 and "would have cost" in tried.text and "customer-" in tried.text
    assert "Sabzi" not in tried.text
    assert [one.version for one in await platform.discovery.prices(None, listing.id)] == [1], "nothing is changed"
    clock.advance(hours=1)
    done = await browser.send(f"{page}/set", page=page, **typed)
    assert "The new price counts from now on" in done.text
    assert not faults_of(done.text)
    [card] = await platform.discovery.prices(None, listing.id)
    assert [one["model"] for one in card.components] == ["flat", "graduated"] and card.minimum == 150
    shown = await browser.get(f"/services/{listing.path}")
    assert not faults_of(shown.text)
    assert "₹99.00 a month" in shown.text and "₹150.00 a month at least" in shown.text


async def test_what_is_wrong_stands_beside_its_field(street: Street, browser_for: BrowserFor) -> None:
    browser, listing = await browser_for(PROVIDER), street.listings[0]
    page = f"/partner/services/{listing.id}/prices"
    for typed, field in (
        ({"model": "volume", "tiers": "cheap"}, "tiers"),
        ({"model": "volume", "tiers": "100: 1"}, "tiers"),
        ({"model": "package", "unit_price": "1", "package_size": "-5"}, "package_size"),
        ({"unit_price": "-1"}, "unit_price"),
        ({"unit_price": "1", "fee": "many"}, "fee"),
    ):
        answer = await browser.send(page, page=page, **typed)
        assert not faults_of(answer.text)
        assert answer.status_code == 422 and f'id="{field}-error"' in answer.text, typed


async def test_what_belongs_to_no_field_is_said_above_them(street: Street, browser_for: BrowserFor) -> None:
    browser, listing = await browser_for(PROVIDER), street.listings[0]
    page = f"/partner/services/{listing.id}/prices"
    answer = await browser.send(page, page=page, model="package", unit_price="1", package_size="0")
    assert answer.status_code == 422 and "holds something" in answer.text
    assert not faults_of(answer.text)


async def test_the_page_is_its_providers_alone(street: Street, browser_for: BrowserFor) -> None:
    page = f"/partner/services/{street.listings[0].id}/prices"
    browser = await browser_for(STRANGER)
    assert (await browser.get(page)).status_code in (403, 404)


def test_components_in_words() -> None:
    tiers = [
        {"up_to": "1000", "unit_price": "0.5", "flat": "0"},
        {"up_to": None, "unit_price": "0.25", "flat": "5"},
    ]
    wording = {
        "₹499.00 a month": {"model": "flat", "name": "fee", "amount": "499", "prorated": True},
        f"5{NO_BREAK}pages free, then ₹2.00 per page": {
            "model": "unit", "meter": "pages", "unit_price": "2", "free_units": "5",
        },
        f"5{NO_BREAK}pages included, then ₹2.00 per page": {
            "model": "overage", "meter": "pages", "unit_price": "2", "included": "5",
        },
        f"₹9.00 per package of 20{NO_BREAK}pages": {
            "model": "package", "meter": "pages", "package_price": "9", "package_size": "20", "free_units": "0",
        },
        "₹0.50 per page up to 1,000; ₹0.25 per page and ₹5.00 once beyond": {
            "model": "graduated", "meter": "pages", "tiers": tiers, "free_units": "0",
        },
        "all at ₹0.50 per page up to 1,000; ₹0.25 per page and ₹5.00 once beyond": {
            "model": "volume", "meter": "pages", "tiers": tiers, "free_units": "0",
        },
        "₹2.00 per urdu": {"model": "unit", "meter": "urdu", "unit_price": "2", "free_units": "0"},
    }  # fmt: skip
    for words, component in wording.items():
        assert price_words(component) == words

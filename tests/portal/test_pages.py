"""Every page of every role renders on real services, is well made, and shows what it promises."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import pytest

from haat.app import Platform

from .conftest import Browser, faults_of
from .street import DEVELOPER, OPERATOR, PROVIDER, STRANGER, Street

BrowserFor = Callable[[str | None], Awaitable[Browser]]

PAGES: list[tuple[str | None, str, list[str]]] = [
    (None, "/", ["A market street", "हिन्दी", "தமிழ்", "₹0.20", "per 1,000\xa0characters", "Not measured yet"]),
    (None, "/catalog", ["Hindi and Urdu", "Text analysis", "Akshara Text Lab", "answered, 24 h"]),
    (None, "/catalog?q=zzzzzz", ["Nothing on the street fits that"]),
    (None, "/services/vani/hindi-urdu", ["اردو", "Sign in", "curl", "not kept", "Free", "Professional"]),
    (None, "/services/vani/hindi-urdu", ["The provider says", "chrF 41.3 on <bdi>FLORES-200</bdi>,", "1 May 2026"]),
    (None, "/services/vani/hindi-urdu", ["What a month costs", "Nobody has reviewed it yet"]),
    (None, "/services/vani/hindi-urdu/api", ["POST /invoke", "Download as OpenAPI"]),
    (None, "/sign-in", ["Password"]),
    (None, "/sign-up", ["Karnataka", "GSTIN"]),
    (DEVELOPER, "/", ["Your applications"]),
    (DEVELOPER, "/services/vani/hindi-urdu", ["Call it", "Storefront", "आप कैसे हैं?"]),
    (DEVELOPER, "/services/vani/read-image", ["Subscribe"]),
    (DEVELOPER, "/account", ["Storefront", "production server", "haat_live_"]),
    (DEVELOPER, "/account/subscriptions", ["Hindi and Urdu", "Change plan"]),
    (DEVELOPER, "/account/usage", ["Calls per day", "<svg", "The same as a table", "p95"]),
    (DEVELOPER, "/account/usage?month=2020-01", ["No call in this month"]),
    (
        DEVELOPER,
        "/account/analytics?window=30d",
        ["How your calls went", "Answered with success", "vani/hindi-urdu", "<svg"],
    ),
    (DEVELOPER, "/account/analytics?window=2026-10", ["Invoiced", "₹", "Compared with as much of September 2026"]),
    (DEVELOPER, "/account/analytics?window=2020-01", ["No call in this time"]),
    (DEVELOPER, "/account/live", ["Live calls", "Load again"]),
    (DEVELOPER, "/account/calls", ["Newest first", "completed"]),
    (DEVELOPER, "/account/calls?outcome=interrupted", ["No call like that"]),
    (DEVELOPER, "/account/calls/{call}", ["Where the time went", "Admission", "customer-17", "team=shop"]),
    (DEVELOPER, "/account/invoices", ["This month so far", "HT/2627/", "IGST 18"]),
    (DEVELOPER, "/account/invoices/{invoice}", ["Tax invoice", "Place of supply", "Karnataka", "998439", "07AAACH"]),
    (
        DEVELOPER,
        "/account/wallet",
        [
            "Calls are paid from here",
            "NEFT 42",
            "₹5,000.00",
            "Welcome",
            "Set the budget",
            "Hindi and Urdu by Storefront",
        ],
    ),
    (STRANGER, "/account", ["No application yet"]),
    (STRANGER, "/account/usage", ["No call in this month"]),
    (STRANGER, "/account/invoices", ["No invoice yet"]),
    (STRANGER, "/account/wallet", ["You pay by invoice", "Nothing came in yet"]),
    (PROVIDER, "/partner", ["Vani Speech and Translation", "customer-", "per image"]),
    (PROVIDER, "/partner/new", ["Sample call", "Price of one unit"]),
    (PROVIDER, "/partner/services/{service}", ["serves calls", "Prices in force", "70", "Your share so far"]),
    (PROVIDER, "/partner/services/{service}/rollout", ["No version to move to", "None registered"]),
    (PROVIDER, "/partner/analytics?window=30d", ["How your services are called", "Fewer than five customers"]),
    (PROVIDER, "/partner/statements", ["October 2026", "₹"]),
    (PROVIDER, "/partner/reviews", ["No review yet"]),
    (OPERATOR, "/operator/reviews", ["No review"]),
    (OPERATOR, "/operator", ["Bhasha Lab", "Approve", "Reject"]),
    (OPERATOR, "/operator/partners", ["Suspend", "pending"]),
    (OPERATOR, "/operator/analytics?window=30d", ["The market", "Akshara Text Lab"]),
    (OPERATOR, "/operator/dead-letters", ["the mail server does not answer", "Replay"]),
    (OPERATOR, "/operator/flags", ["portal-trial", "as usual: on", "new-search", "12.5\xa0% get", "switched off"]),
    (OPERATOR, "/operator/flags/new-search", ["plan is one of pro", "Sabzi Mandi Software", "flag.percentage_set"]),
    (OPERATOR, "/operator/invoices", ["Issued for October 2026", "Sabzi Mandi Software"]),
]


def address(template: str, street: Street) -> str:
    return template.format(call=street.call, invoice=street.invoice.id, service=street.listings[0].id)


async def test_every_page_renders_and_is_well_made(street: Street, browser_for: BrowserFor) -> None:
    browsers: dict[str | None, Browser] = {}
    for who, path, promised in PAGES:
        if who not in browsers:
            browsers[who] = await browser_for(who)
        answer = await browsers[who].get(address(path, street))
        assert answer.status_code == 200, (who, path)
        assert [text for text in promised if text not in answer.text] == [], (who, path)
        assert faults_of(answer.text) == [], (who, path)


async def test_an_invoice_line_leads_to_its_calls_and_a_call_to_its_line(
    street: Street, platform: Platform, browser_for: BrowserFor
) -> None:
    browser = await browser_for(DEVELOPER)
    line = (await platform.invoices.lines(street.developer, street.invoice.id))[0]
    calls = await browser.get(f"/account/invoices/{street.invoice.id}/lines/{line['id']}")
    billed = await platform.invoices.calls(street.developer, line["id"])
    assert str(billed.items[0].id) in calls.text
    story = await browser.get(f"/account/calls/{billed.items[0].id}")
    assert f"/account/invoices/{street.invoice.id}#line-{line['position']}" in story.text
    assert "Its part of the line" in story.text


async def test_an_invoice_is_downloaded_in_any_language_and_mailed_in_the_chosen_one(
    street: Street, platform: Platform, browser_for: BrowserFor
) -> None:
    browser = await browser_for(DEVELOPER)
    path = f"/account/invoices/{street.invoice.id}"
    assert '<option value="en-Latn" selected>' in (await browser.get(path)).text
    page = await browser.get(f"{path}/pdf", language="ta-Taml")
    assert page.headers["content-type"] == "application/pdf" and page.content.startswith(b"%PDF-")
    assert (await browser.get(f"{path}/json")).text == await platform.invoices.document_text(
        street.developer, street.invoice.id
    )
    assert (await browser.get(f"{path}/csv")).content.startswith(b"\xef\xbb\xbfserial,")
    chosen = await browser.send("/account/invoices/language", page="/account/invoices", language="ta-Taml")
    assert chosen.status_code == 200 and "in this language from now on" in chosen.text
    assert '<option value="ta-Taml" selected>' in (await browser.get(path)).text
    assert (await browser.get(f"{path}/pdf", language="xx")).status_code == 422


async def test_a_statement_leads_to_its_calls_and_hides_who_the_customer_is(
    street: Street, platform: Platform, browser_for: BrowserFor
) -> None:
    browser = await browser_for(PROVIDER)
    settlement = (await platform.settlements.page(street.provider)).items[0]
    statement = await platform.settlements.statement(street.provider, settlement.id)
    page = await browser.get(f"/partner/statements/{settlement.id}")
    assert page.status_code == 200 and "customer-" in page.text and "Sabzi" not in page.text
    opened = [f"/partner/statements/{settlement.id}/lines/{line.id}" for line in statement.lines]
    assert opened and re.findall(r'href="(/partner/statements/[^"]+/lines/[^"]+)"', page.text) == opened
    for line, link in zip(statement.lines, opened, strict=True):
        calls = await browser.get(link)
        assert calls.status_code == 200 and "Sabzi" not in calls.text
        behind = (await platform.settlements.calls(street.provider, line.id, limit=50)).items
        assert re.findall(r'href="/account/calls/([^"]+)"', calls.text) == [str(call.id) for call in behind]
        story = await browser.get(f"/account/calls/{behind[0].id}")
        assert f"/partner/statements/{settlement.id}" in story.text and "Sabzi" not in story.text
        assert faults_of(page.text) == faults_of(calls.text) == faults_of(story.text) == []


async def test_completions_come_as_options_and_keep_the_words_before_them(street: Street, browser: Browser) -> None:
    answer = await browser.get("/catalog/suggest", q="text trans")
    assert '<option value="text translation"></option>' in answer.text


async def test_a_facet_narrows_and_the_chosen_one_is_marked_and_can_be_taken_away(
    street: Street, browser: Browser
) -> None:
    answer = await browser.get("/catalog", language="ur", q="translation")
    assert "Hindi and Urdu" in answer.text and "Sentiment" not in answer.text
    assert 'href="/catalog?q=translation" aria-current="true"' in answer.text


async def test_a_page_not_there_says_so_in_the_portals_own_style(browser: Browser) -> None:
    answer = await browser.get("/nowhere")
    assert answer.status_code == 404
    assert "There is nothing here" in answer.text and "NOT_FOUND" in answer.text and "awning" in answer.text
    assert answer.headers["x-request-id"] in answer.text


async def test_a_fault_of_ours_shows_a_page_without_a_trace(
    street: Street, platform: Platform, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the secret inside")

    monkeypatch.setattr(platform.discovery, "facets", fail)
    answer = await browser.get("/catalog")
    assert answer.status_code == 500
    assert "Something failed on our side" in answer.text and "secret inside" not in answer.text


async def test_the_colours_chosen_stay_without_any_script(browser: Browser) -> None:
    answer = await browser.send("/theme", theme="dark", back="/sign-in")
    assert answer.url.path == "/sign-in" and 'data-theme="dark"' in answer.text


async def test_static_files_are_kept_for_good_and_pages_are_not(street: Street, browser_for: BrowserFor) -> None:
    browser = await browser_for(DEVELOPER)
    page = await browser.get("/account")
    sheet = await browser.get("/static/portal.css")
    assert page.headers["cache-control"] == "no-store"
    assert "immutable" in sheet.headers["cache-control"]


async def test_every_page_is_light(street: Street, browser: Browser) -> None:
    import gzip

    page = len(gzip.compress((await browser.get("/")).content))
    files = [(await browser.get(f"/static/{name}")).content for name in ("portal.css", "portal.js", "htmx.min.js")]
    assert page + sum(len(gzip.compress(file)) for file in files) < 60_000


async def test_a_misspelt_word_is_corrected_on_the_page_with_a_way_back_to_what_was_typed(
    street: Street, browser: Browser
) -> None:
    answer = await browser.get("/catalog", q="translaton")
    assert 'Showing results for <strong dir="auto">translation</strong>' in answer.text
    assert 'href="/catalog?q=translaton&amp;exact=1"' in answer.text and "Hindi and Urdu" in answer.text
    exact = await browser.get("/catalog", q="translaton", exact="1")
    assert "Showing results" not in exact.text and "Nothing on the street fits that" in exact.text


async def test_the_catalog_is_ordered_and_narrowed_by_price_and_links_keep_both(
    street: Street, browser: Browser
) -> None:
    answer = await browser.get("/catalog", sort="cheapest", max_price="0.05", q="translation")
    assert '<option value="cheapest" selected>' in answer.text and 'value="0.05"' in answer.text
    assert "q=translation&amp;category=" in answer.text and "&amp;sort=cheapest&amp;max_price=0.05" in answer.text
    for wrong in ("much", "NaN", "-1", "Infinity"):
        answer = await browser.get("/catalog", max_price=wrong)
        assert answer.status_code == 422 and "Type a price in rupees, such as 0.05." in answer.text
        assert f'value="{wrong}"' in answer.text
    assert (await browser.get("/catalog", sort="tallest")).status_code == 200

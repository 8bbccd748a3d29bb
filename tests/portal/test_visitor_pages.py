"""What a visitor of a listing finds: what a month costs, what its API takes, what buyers say, what is deprecated."""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from bazaar import call_id
from haat.app import Platform
from haat.catalog.drafts import PriceDraft
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.clock import SetClock
from haat.usage import intake
from haat.usage.event import VERSION, Outcome, Timings, UsageEvent
from haat.usage.intake import Record

from .conftest import Browser, faults_of
from .street import DEVELOPER, OPERATOR, PROVIDER, STRANGER, Street

BrowserFor = Callable[[str | None], Awaitable[Browser]]
LISTING = "/services/vani/hindi-urdu"


async def lot_of_use(platform: Platform, street: Street, service: UUID, calls: int = 30) -> None:
    """Have the developer's organisation use a service enough to review it."""
    listing = next(one for one in street.listings if one.id == service)
    at = round((platform.clock.now() - timedelta(days=1)).timestamp() * 1000)
    chance = random.Random(5)
    events = [
        UsageEvent(
            id=str(call_id(at, chance)), at=at, outcome=Outcome.COMPLETED, v=VERSION, org=str(street.developer.org_id),
            application=str(street.application.id), credential=str(street.application.id),
            subscription=str(street.subscription.id), plan="basic", provider=listing.provider_slug,
            provider_org=str(listing.org_id), service=str(service), service_slug=listing.slug, version="1",
            method="POST", path_template="/invoke", status=200, units={"requests": "1", "characters": "10"},
            units_source="counted",
            timings_us=Timings(total=900), bytes_in=1, bytes_out=1, gateway="g1",
        )
        for _ in range(calls)
    ]  # fmt: skip
    async with platform.service_db.transaction(PLATFORM_SCOPE) as connection:
        records = [Record(event, "more", 1, place + 1) for place, event in enumerate(events)]
        await intake.take(connection, records, platform.clock.now())


# --- reviews ---------------------------------------------------------------------------------------


async def test_a_buyer_reviews_a_provider_answers_and_the_operator_hides(
    street: Street, platform: Platform, browser_for: BrowserFor
) -> None:
    await lot_of_use(platform, street, street.listings[0].id)
    buyer, visitor = await browser_for(DEVELOPER), await browser_for(None)
    assert "Write a review" in (await buyer.get(LISTING)).text
    refused = await buyer.send(f"{LISTING}/review", page=LISTING, stars="4", text=" ")
    assert refused.status_code == 422 and "Write a sentence or two." in refused.text
    assert faults_of(refused.text) == []
    kept = await buyer.send(f"{LISTING}/review", page=LISTING, stars="4", text="<b>Good</b> & quick.")
    assert kept.status_code == 200 and "Change your review" in kept.text
    seen = (await visitor.get(LISTING)).text
    assert "&lt;b&gt;Good&lt;/b&gt; &amp; quick." in seen and "Sabzi" not in seen
    assert ">1 review</p>" in (await visitor.get("/catalog")).text.replace("\n", "")
    assert "4 of 5 stars" in seen and "An average is shown from three reviews on" in seen

    provider = await browser_for(PROVIDER)
    page = (await provider.get("/partner/reviews")).text
    assert "quick." in page and "Sabzi" not in page and faults_of(page) == []
    [review] = re.findall(r'action="/partner/reviews/([^/]+)/reply"', page)
    empty = await provider.send(f"/partner/reviews/{review}/reply", page="/partner/reviews", reply="")
    assert empty.status_code == 422 and "Write a sentence or two." in empty.text and faults_of(empty.text) == []
    await provider.send(f"/partner/reviews/{review}/reply", page="/partner/reviews", reply="Thank you.")
    assert "Thank you." in (await visitor.get(LISTING)).text

    operator = await browser_for(OPERATOR)
    desk = (await operator.get("/operator/reviews")).text
    assert "quick." in desk and faults_of(desk) == []
    await operator.send(f"/operator/reviews/{review}/hide", page="/operator/reviews", reason="It is markup.")
    assert "quick." not in (await visitor.get(LISTING)).text
    assert "It is markup." in (await buyer.get(LISTING)).text
    assert "It is markup." in (await operator.get("/operator/reviews", hidden="yes")).text
    changed = await buyer.send(f"{LISTING}/review", page=LISTING, stars="3", text="Good and quick.")
    assert "What it said before" in changed.text and faults_of(changed.text) == []
    await operator.send(f"/operator/reviews/{review}/show", page="/operator/reviews")
    assert "Good and quick." in (await visitor.get(LISTING)).text
    gone = await buyer.send(f"{LISTING}/review/withdraw", page=LISTING)
    assert "Good and quick." not in gone.text and "Write a review" in gone.text


async def test_who_has_not_called_enough_is_told_how_much_is_missing(street: Street, browser_for: BrowserFor) -> None:
    stranger = await browser_for(STRANGER)
    page = (await stranger.get(LISTING)).text
    assert "Organisations with 20 completed calls in 90 days may review it. Yours has 0." in page
    assert "/review" not in re.findall(r'action="([^"]+)"', page)
    refused = await stranger.send(f"{LISTING}/review", page=LISTING, stars="5", text="Splendid.")
    assert refused.status_code == 403
    owner = await browser_for(PROVIDER)
    assert "related to this provider" in (await owner.get(LISTING)).text
    for path in ("/partner/reviews", "/operator/reviews"):
        assert (await stranger.get(path)).status_code == 403


# --- what a month costs ----------------------------------------------------------------------------


async def test_a_month_is_worked_out_on_every_plan_with_gst(street: Street, browser: Browser) -> None:
    page = (await browser.get(LISTING, calls="500", characters="1,010,000")).text
    section = page[page.index('id="cost"') : page.index("</section>", page.index('id="cost"'))]
    # a million characters beyond ten thousand free ones at ₹0.0002, and 18 % on it
    assert section.count(">₹200.00<") == section.count(">₹36.00<") == section.count(">₹236.00<") == 7
    assert "10,10,000\xa0characters, of which 10,000\xa0characters are free" in section
    assert 'value="1010000"' in section and "its quota is smaller" not in section
    more = (await browser.get(LISTING, calls="4000")).text
    assert more.count("its quota is smaller") == 2, "one has 1,000 a month, one 100 a day"
    assert faults_of(page) == []


@pytest.mark.parametrize("typed", ["-1", "many", "1e400", "NaN", "0.5", "9" * 40, "<script>"])
async def test_what_is_no_quantity_is_said_at_its_field(street: Street, browser: Browser, typed: str) -> None:
    answer = await browser.get(LISTING, calls=typed)
    assert answer.status_code == 200
    assert re.search(r'id="calls-error">(Enter a number|A call is a whole one)', answer.text)
    assert "<script>" not in answer.text.replace("<script src", "") and faults_of(answer.text) == []


async def test_fees_tiers_and_minimums_are_those_of_the_rating(
    street: Street, platform: Platform, browser: Browser, clock: SetClock
) -> None:
    draft = PriceDraft.parse({
        "minimum": "150",
        "components": [
            {"model": "flat", "amount": "99"},
            {"model": "graduated", "meter": "characters",
             "tiers": [{"up_to": "1000", "unit_price": "0.01"}, {"up_to": None, "unit_price": "0.005"}]},
        ],
    })  # fmt: skip
    clock.advance(minutes=1)
    await platform.catalog.set_price(street.provider, street.listings[0].id, draft)
    page = (await browser.get(LISTING, calls="10", characters="3000")).text
    assert "Monthly fee: ₹99" in page and "Up to the monthly minimum: ₹31" in page
    assert "₹150.00" in page and "₹27.00" in page and "₹177.00" in page
    cards = await platform.estimator.cards(street.listings[0].id)
    [found] = platform.estimator.estimates(cards, ["basic"], 10, {"characters": Decimal(100_000)})
    assert (found.net, found.tax, found.gross) == (Decimal("604.00"), Decimal("108.72"), Decimal("712.72"))


# --- the API ---------------------------------------------------------------------------------------


async def set_document(platform: Platform, street: Street, document: dict[str, Any] | None) -> None:
    async with platform.service_db.transaction(PLATFORM_SCOPE) as connection:
        await connection.execute(
            "UPDATE service_versions SET openapi = %s WHERE service_id = %s",
            (Jsonb(document) if document is not None else None, street.listings[0].id),
        )


async def test_a_task_service_is_described_from_its_sample(street: Street, browser: Browser) -> None:
    answer = await browser.get(f"{LISTING}/api")
    assert answer.status_code == 200 and faults_of(answer.text) == []
    for text in ("POST /invoke", "/v1/services/vani/hindi-urdu", "&#34;hi-Deva&#34;", "required", "request_id"):
        assert text in answer.text
    assert (await browser.get(f"{LISTING}/api", version="9")).status_code == 404


async def test_a_hostile_document_is_shown_as_text_alone(street: Street, platform: Platform, browser: Browser) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    await set_document(platform, street, {
        "info": {"title": evil, "description": evil},
        "servers": [{"url": "https://10.1.1.1/"}],
        "paths": {evil: {"post": {
            "summary": evil, "description": f"[x](javascript:alert(3)) {evil}", "operationId": evil,
            "parameters": [
                {"name": evil, "in": "query", "description": evil, "schema": {"enum": [evil], "pattern": evil}}
            ],
            "requestBody": {"content": {
                evil: {"schema": {"$ref": "https://evil.example/x.json"}, "example": {evil: evil}}
            }},
            "responses": {
                evil: {"description": evil, "content": {"text/html": {"schema": {"properties": {evil: {}}}}}}
            },
        }}},
    })  # fmt: skip
    answer = await browser.get(f"{LISTING}/api")
    assert answer.status_code == 200 and faults_of(answer.text) == []
    assert "<img" not in answer.text and "<script>" not in answer.text
    assert 'href="javascript' not in answer.text and 'href="https://evil' not in answer.text
    assert "which is not followed" in answer.text and "10.1.1.1" not in answer.text


async def test_the_document_is_a_file_to_keep(street: Street, platform: Platform, browser: Browser) -> None:
    await set_document(platform, street, {"servers": [{"url": "https://10.1.1.1/"}], "paths": {"/x": {"get": {}}}})
    answer = await browser.get(f"{LISTING}/api.json")
    assert answer.headers["content-disposition"] == 'attachment; filename="vani-hindi-urdu-1.openapi.json"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.json()["servers"] == [{"url": "http://127.0.0.1:1/v1/services/vani/hindi-urdu"}]
    assert "10.1.1.1" not in answer.text


# --- versions and snippets ---------------------------------------------------------------------------


async def test_what_is_deprecated_says_since_when_until_when_and_what_follows(
    street: Street, platform: Platform, browser: Browser
) -> None:
    listing = street.listings[0]
    [version] = await platform.discovery.versions(street.provider, listing.id)
    async with platform.service_db.transaction(PLATFORM_SCOPE) as connection:
        await connection.execute(
            """INSERT INTO service_versions (id, service_id, version, endpoint, dialect, sample, accepted_at,
                   created_at)
               SELECT gen_random_uuid(), service_id, '2', endpoint, dialect, sample, accepted_at, created_at
               FROM service_versions WHERE id = %s""",
            (version.id,),
        )
    sunset = platform.clock.now() + timedelta(days=90)
    await platform.catalog.versions.deprecate(street.provider, listing.id, version.id, sunset_at=sunset, successor="2")
    page = (await browser.get(LISTING)).text
    assert "deprecated since" in page and f'datetime="{sunset.isoformat(timespec="seconds")}"' in page
    assert "move to <code>2</code>" in page and faults_of(page) == []


async def test_snippets_name_the_chosen_applications_key_and_never_hold_it(
    street: Street, browser_for: BrowserFor
) -> None:
    browser = await browser_for(DEVELOPER)
    page = (await browser.get(LISTING, application=str(street.application.id))).text
    assert f"# HAAT_KEY: {street.key.credential.prefix}…{street.key.credential.last_four}, Storefront" in page
    assert street.key.key not in page
    stranger = await browser_for(STRANGER)
    other = (await stranger.get(LISTING, application=str(street.application.id))).text
    assert "Storefront" not in other and "HAAT_KEY:" not in other

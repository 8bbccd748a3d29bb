"""Why a call failed, within a glance, for the operator and for any organisation's call."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest

from haat.app import Platform
from haat.infra.postgres import PLATFORM_SCOPE
from haat.portal.pages_lookup import REASONS
from haat.usage.event import Outcome

from .conftest import Browser, faults_of
from .street import DEVELOPER, OPERATOR, PROVIDER, Street

BrowserFor = Callable[[str | None], Awaitable[Browser]]
PAGE = "/operator/calls"


async def newest(platform: Platform, outcome: str) -> UUID:
    async with platform.service_db.transaction(PLATFORM_SCOPE) as connection:
        rows = await connection.execute("SELECT id FROM usage WHERE outcome = %s ORDER BY id DESC LIMIT 1", (outcome,))
        row = await rows.fetchone()
    assert row is not None, f"the street has no call that was {outcome}"
    found: UUID = row["id"]
    return found


async def test_a_refused_call_tells_whose_it_was_why_and_what_to_do(
    street: Street, platform: Platform, browser_for: BrowserFor
) -> None:
    browser = await browser_for(OPERATOR)
    call = await newest(platform, "refused")
    page = await browser.get(PAGE, id=f" {call} ")
    assert page.status_code == 200 and page.url.path == f"{PAGE}/{call}" and faults_of(page.text) == []
    for promised in (
        "Sabzi Mandi Software", "Storefront", "refused", "status 429", "RATE_LIMITED", "Too many requests.",
        "Wait for the seconds in Retry-After", "the provider was not asked", "nothing: it is not billed", "g0",
        "0.12\u00a0ms", "customer-17", "team=shop",
    ):  # fmt: skip
        assert promised in page.text, promised


async def test_a_billed_call_names_its_provider_and_its_invoice(
    street: Street, platform: Platform, browser_for: BrowserFor
) -> None:
    browser = await browser_for(OPERATOR)
    async with platform.service_db.transaction(PLATFORM_SCOPE) as connection:
        rows = await connection.execute(
            "SELECT id FROM usage WHERE outcome = 'completed' AND at < '2026-10-31' ORDER BY id DESC LIMIT 1"
        )
        row = await rows.fetchone()
    assert row is not None
    page = await browser.get(f"{PAGE}/{row['id']}")
    assert page.status_code == 200 and faults_of(page.text) == []
    assert "HT/2627/" in page.text and "before GST, as invoiced" in page.text and "Where the time went" in page.text
    assert ">Attempts</dt><dd>1</dd>" in page.text
    later = await browser.get(f"{PAGE}/{street.call}")
    assert "not invoiced yet" in later.text and "as invoiced" not in later.text


async def test_a_code_that_is_not_ours_is_the_providers(
    street: Street, platform: Platform, browser_for: BrowserFor, database: Any
) -> None:
    call = await newest(platform, "refused")
    with psycopg.connect(database.owner_dsn) as owner:
        owner.execute("UPDATE usage SET error_code = 'GPU_ON_FIRE' WHERE id = %s", (call,))
    page = await (await browser_for(OPERATOR)).get(f"{PAGE}/{call}")
    assert "GPU_ON_FIRE" in page.text and "ask the provider" in page.text


async def test_an_id_that_leads_nowhere_is_said_at_the_field(street: Street, browser_for: BrowserFor) -> None:
    browser = await browser_for(OPERATOR)
    empty = await browser.get(PAGE)
    assert empty.status_code == 200 and "X-Request-ID" in empty.text and "id-error" not in empty.text
    wrong = await browser.get(PAGE, id="<order 4711>")
    assert wrong.status_code == 422 and 'id="id-error"' in wrong.text and "&lt;order 4711&gt;" in wrong.text
    unknown = await browser.get(PAGE, id="0199f0c2-0000-7000-8000-000000000000")
    assert unknown.status_code == 404 and "There is no call with this id" in unknown.text
    for page in (empty, wrong, unknown):
        assert faults_of(page.text) == []


async def test_another_role_is_refused_even_its_own_call(street: Street, browser_for: BrowserFor) -> None:
    for who in (DEVELOPER, PROVIDER):
        browser = await browser_for(who)
        for path in (PAGE, f"{PAGE}/{street.call}"):
            assert (await browser.get(path)).status_code == 403


async def test_the_desk_leads_to_all_of_its_pages_and_says_where_one_is(
    street: Street, browser_for: BrowserFor
) -> None:
    browser = await browser_for(OPERATOR)
    ways = re.findall(r'<a href="(/operator[^"]*)"', (await browser.get("/operator")).text)
    pages = {
        way for first in ways for way in re.findall(r'<a href="(/operator[^"]*)"', (await browser.get(first)).text)
    }
    for path in (PAGE, "/operator/audit", "/operator/gateways", "/operator/levels", "/operator/payouts"):
        assert path in pages, "it is two steps away at most"
        assert f'<a href="{path}" aria-current="page">' in (await browser.get(path)).text


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_has_a_reason(outcome: Outcome) -> None:
    assert REASONS[outcome]

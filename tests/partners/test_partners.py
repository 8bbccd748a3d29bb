"""Registration of providers and the operator's decisions."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.infra.postgres import PUBLIC, tenant
from haat.kernel.errors import AlreadyExists, Conflict, NotFound, PermissionDenied, ValidationFailed
from haat.kernel.permissions import PLATFORM, Actor, Role
from haat.partners.model import Partner, check_networks, check_slug
from market import Market

REGISTRATION: dict[str, Any] = {
    "slug": "bhasha",
    "company_name": "Bhasha Labs",
    "email": "office@bhasha.example.in",
    "contact_person": "Asha Rao",
    "business_type": "company",
}


@pytest.mark.parametrize("slug", ["a", "a1", "bhasha-labs", "0-9", "a" * 40])
def test_a_name_for_addresses_is_small_letters_digits_and_single_hyphens(slug: str) -> None:
    assert check_slug(slug) == slug


@pytest.mark.parametrize(
    "slug", ["", "-a", "a-", "a--b", "A", "a_b", "a/b", "a.b", "..", "भाषा", "a" * 41, "a\0", "a\n b", "१"]
)
def test_other_names_for_addresses_are_refused(slug: str) -> None:
    with pytest.raises(ValidationFailed):
        check_slug(slug)


@given(st.text(max_size=60))
def test_no_text_breaks_the_reader_of_slugs(text: str) -> None:
    try:
        assert check_slug(text).isascii()
    except ValidationFailed:
        return


def test_networks_are_kept_in_one_spelling() -> None:
    assert check_networks([" 10.0.0.0/8 ", "fd00::/8", "127.0.0.1"]) == ("10.0.0.0/8", "fd00::/8", "127.0.0.1/32")


@pytest.mark.parametrize("network", ["10.0.0.1/8", "10.0.0.0/33", "example.in", "", "\0"])
def test_what_is_no_network_is_refused(network: str) -> None:
    with pytest.raises(ValidationFailed):
        check_networks([network])


async def test_a_company_registers_and_waits(market: Market) -> None:
    actor = await market.consumer(kind="provider")
    assert await market.partners.of(actor) is None
    partner = await market.partners.register(actor, **{**REGISTRATION, "gstin": "27AAPFU0939F1ZV"})
    assert (partner.status, partner.gstin) == ("pending", "27AAPFU0939F1ZV")
    assert await market.partners.of(actor) == partner
    assert await market.partners.directory(PLATFORM, "pending") == [partner]


@pytest.mark.parametrize(
    "changes",
    [
        {"slug": "Bhasha"},
        {"company_name": ""},
        {"company_name": "a\0"},
        {"email": "nobody"},
        {"contact_person": "\u202e"},
        {"business_type": "circus"},
        {"gstin": "27AAPFU0939F1ZA"},
    ],
)
async def test_a_registration_with_wrong_details_is_refused(market: Market, changes: dict[str, str]) -> None:
    actor = await market.consumer(kind="provider")
    with pytest.raises(ValidationFailed):
        await market.partners.register(actor, **{**REGISTRATION, **changes})
    assert await market.partners.of(actor) is None


async def test_a_consumer_does_not_register_as_a_provider(market: Market) -> None:
    with pytest.raises(PermissionDenied):
        await market.partners.register(await market.consumer(), **REGISTRATION)


async def test_the_platform_itself_is_no_provider(market: Market) -> None:
    with pytest.raises(PermissionDenied):
        await market.partners.register(PLATFORM, **REGISTRATION)
    assert await market.partners.of(PLATFORM) is None


async def test_a_name_is_given_once_even_to_several_at_the_same_moment(market: Market) -> None:
    actors = [await market.consumer(kind="provider") for _ in range(4)]
    results = await asyncio.gather(
        *(market.partners.register(actor, **REGISTRATION) for actor in actors), return_exceptions=True
    )
    assert sum(isinstance(result, Partner) for result in results) == 1
    assert sum(isinstance(result, AlreadyExists) for result in results) == 3


async def test_an_organisation_registers_once(market: Market) -> None:
    actor = await market.applicant("bhasha")
    with pytest.raises(AlreadyExists):
        await market.partners.register(actor, **{**REGISTRATION, "slug": "other"})


async def test_the_operator_approves_and_the_decision_is_recorded(market: Market) -> None:
    operator, actor = await market.operator(), await market.applicant("bhasha")
    assert actor.org_id
    market.clock.advance(hours=1)
    partner = await market.partners.approve(operator, actor.org_id)
    assert (partner.status, partner.decided_at) == ("approved", market.clock.now())
    assert await market.partners.get(operator, actor.org_id) == partner
    events = await market.events(f"partner/{actor.org_id}")
    assert [(event.type, event.actor) for event in events] == [
        ("partner.registered", actor.label),
        ("partner.approved", operator.label),
    ]


async def test_a_rejection_and_a_suspension_keep_their_reason(market: Market) -> None:
    rejected, suspended = await market.applicant(), await market.provider()
    assert rejected.org_id and suspended.org_id
    assert (await market.partners.reject(PLATFORM, rejected.org_id, " No  GSTIN ")).reason == "No GSTIN"
    assert (await market.partners.suspend(PLATFORM, suspended.org_id, "Spam")).reason == "Spam"
    assert (await market.partners.approve(PLATFORM, suspended.org_id)).reason == ""


@pytest.mark.parametrize("reason", ["", "  ", "a\0b", "x" * 501])
async def test_a_refusal_needs_a_readable_reason(market: Market, reason: str) -> None:
    actor = await market.applicant()
    assert actor.org_id
    with pytest.raises(ValidationFailed):
        await market.partners.reject(PLATFORM, actor.org_id, reason)


async def test_a_partner_goes_only_from_a_state_to_the_next(market: Market) -> None:
    approved, rejected = await market.provider(), await market.applicant()
    assert approved.org_id and rejected.org_id
    await market.partners.reject(PLATFORM, rejected.org_id, "No")
    for call in (
        market.partners.approve(PLATFORM, approved.org_id),
        market.partners.reject(PLATFORM, approved.org_id, "No"),
        market.partners.approve(PLATFORM, rejected.org_id),
        market.partners.suspend(PLATFORM, rejected.org_id, "No"),
    ):
        with pytest.raises(Conflict):
            await call


async def test_two_decisions_at_once_leave_one(market: Market) -> None:
    actor = await market.applicant()
    assert actor.org_id
    results = await asyncio.gather(
        market.partners.approve(PLATFORM, actor.org_id),
        market.partners.reject(PLATFORM, actor.org_id, "No"),
        return_exceptions=True,
    )
    assert sum(isinstance(result, Partner) for result in results) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 1


@pytest.mark.parametrize("role", [Role.PARTNER_ADMIN, Role.PARTNER_DEVELOPER, Role.API_CONSUMER])
async def test_nobody_but_the_operator_decides_or_looks_at_others(market: Market, role: Role) -> None:
    waiting = await market.applicant()
    assert waiting.org_id
    actor = Actor(uuid4(), waiting.org_id, role)
    for call in (
        market.partners.approve(actor, waiting.org_id),
        market.partners.reject(actor, waiting.org_id, "No"),
        market.partners.suspend(actor, waiting.org_id, "No"),
        market.partners.allow_networks(actor, waiting.org_id, []),
        market.partners.get(actor, waiting.org_id),
        market.partners.directory(actor),
    ):
        with pytest.raises(PermissionDenied):
            await call


async def test_the_operator_opens_a_network_for_one_partner(market: Market) -> None:
    actor = await market.provider("bhasha")
    assert actor.org_id
    partner = await market.partners.allow_networks(PLATFORM, actor.org_id, ["10.0.0.0/8"])
    assert partner.allowed_networks == ("10.0.0.0/8",)
    assert await market.partners.by_slug("bhasha") == partner


async def test_an_unknown_partner_is_not_found(market: Market) -> None:
    for call in (
        market.partners.get(PLATFORM, uuid4()),
        market.partners.approve(PLATFORM, uuid4()),
        market.partners.allow_networks(PLATFORM, uuid4(), []),
    ):
        with pytest.raises(NotFound):
            await call
    assert await market.partners.by_slug("nobody") is None


async def test_a_forgotten_filter_shows_no_other_partner(market: Market) -> None:
    mine = await market.provider()
    await market.provider()
    async with market.db.transaction(PUBLIC) as connection:
        assert await (await connection.execute("SELECT FROM partners")).fetchall() == []
    async with market.db.transaction(tenant(mine.org_id)) as connection:
        rows = await (await connection.execute("SELECT org_id FROM partners")).fetchall()
    assert [row["org_id"] for row in rows] == [mine.org_id]


async def test_who_was_turned_down_may_ask_again_under_another_name(market: Market) -> None:
    actor = await market.applicant("first-try")
    assert actor.org_id
    await market.partners.reject(PLATFORM, actor.org_id, "The name misleads")
    again = {
        "company_name": "Bhasha Labs",
        "email": "office@bhasha.example.in",
        "contact_person": "Asha Rao",
        "business_type": "company",
    }
    await market.partners.register(actor, slug="second-try", **again)
    waiting = await market.partners.directory(PLATFORM, "pending")
    assert [(partner.slug, partner.reason, partner.decided_at) for partner in waiting] == [("second-try", "", None)]
    with pytest.raises(AlreadyExists, match="registered already"):
        await market.partners.register(actor, slug="third-try", **again)

"""Plans and subscriptions: one active per application and service, whatever happens at once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from haat.infra.postgres import PUBLIC, tenant
from haat.kernel.errors import AlreadyExists, Conflict, NotFound, PermissionDenied, ValidationFailed
from haat.kernel.permissions import PLATFORM, Actor, Role
from haat.subscriptions.model import MAX_LIMIT, MAX_QUOTA, Subscription, Terms, check_limits, check_terms
from market import Market


async def _stage(market: Market) -> tuple[Actor, UUID, UUID]:
    """Return a consumer, its application and a published service."""
    listing = await market.listing(await market.provider())
    consumer = await market.consumer()
    application = await market.identity.create_application(consumer, "app")
    return consumer, application.id, listing.id


# --- plans --------------------------------------------------------------------------------------


def test_a_plan_that_names_no_limit_gets_the_usual_ones() -> None:
    assert check_limits({"per_minute": None, "per_hour": None, "per_day": None}) == {
        "per_minute": 60,
        "per_hour": 1000,
        "per_day": None,
    }


def test_a_plan_that_names_one_limit_keeps_it_alone() -> None:
    assert check_limits({"per_minute": None, "per_day": 5}) == {"per_minute": None, "per_day": 5}


@pytest.mark.parametrize("limit", [0, -1, MAX_LIMIT + 1])
def test_a_limit_that_can_not_be_kept_is_refused(limit: int) -> None:
    with pytest.raises(ValidationFailed) as refusal:
        check_limits({"per_day": limit})
    assert refusal.value.extensions["errors"][0]["field"] == "per_day"


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        (Terms(per_minute=60, burst=61), "burst"),
        (Terms(per_day=60, burst=5), "burst"),
        (Terms(quota_per_month=MAX_QUOTA + 1), "quota_per_month"),
        (Terms(quota_per_day=5, quota_unit="teaspoons"), "quota_unit"),
        (Terms(per_minute=5, quota_unit="tokens"), "quota_unit"),
        (Terms(quota_per_day=5, quota_reset="weekly"), "quota_reset"),
        (Terms(per_minute=5, overage=True), "overage"),
        (Terms(per_minute=5, cached_share=Decimal("1.1")), "cached_share"),
        (Terms(per_minute=5, cached_share=Decimal("0.0001")), "cached_share"),
    ],
)
def test_terms_that_contradict_each_other_are_refused(terms: Terms, field: str) -> None:
    with pytest.raises(ValidationFailed) as refusal:
        check_terms(terms)
    assert [error["field"] for error in refusal.value.extensions["errors"]] == [field]


def test_a_burst_within_the_minute_and_a_quota_by_unit_are_kept() -> None:
    terms = Terms(per_minute=60, burst=60, quota_per_month=MAX_QUOTA, quota_unit="tokens", overage=True)
    assert check_terms(terms) == terms


async def test_a_provider_changes_its_own_plan_and_the_event_says_so(market: Market) -> None:
    provider = await market.provider()
    listing = await market.listing(provider)
    terms: dict[str, Any] = {
        "per_minute": 30, "burst": 5, "quota_per_month": 900, "quota_per_day": 50, "quota_unit": "characters",
        "quota_reset": "anniversary", "overage": True, "fallback": True, "cached_share": Decimal("0.25"),
    }  # fmt: skip
    made = await market.subscriptions.define_plan(provider, listing.id, code="school", name="School", **terms)
    assert {name: getattr(made, name) for name in terms} == terms
    assert made in await market.subscriptions.plans(listing.id)
    changed = await market.subscriptions.redefine_plan(provider, listing.id, "school", quota_per_month=1000)
    assert changed == replace(made, quota_per_month=1000)
    assert changed in await market.subscriptions.plans(listing.id)
    [event] = [event for event in await market.events(f"plan/{made.id}") if event.type == "plan.redefined"]
    assert (event.data["quota_per_month"], event.data["cached_share"]) == (1000, "0.25")
    assert await market.subscriptions.redefine_plan(provider, listing.id, "school", quota_per_month=1000) == changed
    with pytest.raises(ValidationFailed):
        await market.subscriptions.redefine_plan(provider, listing.id, "school", burst=31)
    with pytest.raises(NotFound):
        await market.subscriptions.redefine_plan(provider, listing.id, "free", per_minute=31)
    with pytest.raises(NotFound):
        await market.subscriptions.redefine_plan(await market.provider(), listing.id, "school", per_minute=31)


async def test_the_daily_family_has_its_quotas_by_the_day(market: Market) -> None:
    found = {plan.code: (plan.quota_per_day, plan.quota_per_month) for plan in await market.subscriptions.plans()}
    assert found["free-daily"] == (100, None)
    assert found["pro-daily"] == (10_000, None)
    assert found["enterprise-daily"] == (None, None)


async def test_the_platforms_plans_have_the_limits_of_the_tiers(market: Market) -> None:
    plans = await market.subscriptions.plans()
    assert [(plan.code, plan.per_minute, plan.quota_per_month) for plan in plans] == [
        ("free", 10, 1000),
        ("basic", 60, 10_000),
        ("professional", 300, 100_000),
        ("enterprise", 1000, None),
        ("free-daily", 10, None),
        ("pro-daily", 100, None),
        ("enterprise-daily", 1000, None),
    ]


async def test_a_providers_own_plan_is_offered_for_its_service_only(market: Market) -> None:
    provider = await market.provider()
    one, other = await market.listing(provider, "one"), await market.listing(provider, "other")
    plan = await market.subscriptions.define_plan(provider, one.id, code="school", name="School", per_day=50)
    assert plan in await market.subscriptions.plans(one.id)
    assert plan not in await market.subscriptions.plans(other.id) + await market.subscriptions.plans()
    consumer = await market.consumer()
    application = await market.identity.create_application(consumer, "app")
    made = await market.subscriptions.subscribe(consumer, application.id, one.id, "school")
    assert made.plan_id == plan.id
    with pytest.raises(NotFound):
        await market.subscriptions.subscribe(consumer, application.id, other.id, "school")


async def test_a_providers_plan_wins_over_the_platforms_of_the_same_code(market: Market) -> None:
    provider = await market.provider()
    listing = await market.listing(provider)
    own = await market.subscriptions.define_plan(provider, listing.id, code="free", name="Free here", per_minute=1)
    consumer = await market.consumer()
    application = await market.identity.create_application(consumer, "app")
    made = await market.subscriptions.subscribe(consumer, application.id, listing.id, "free")
    assert made.plan_id == own.id


async def test_a_plan_code_is_used_once_for_a_service(market: Market) -> None:
    provider = await market.provider()
    listing = await market.listing(provider)
    await market.subscriptions.define_plan(provider, listing.id, code="school", name="School")
    with pytest.raises(AlreadyExists):
        await market.subscriptions.define_plan(provider, listing.id, code="school", name="School")


async def test_nobody_defines_plans_for_somebody_elses_service(market: Market) -> None:
    listing = await market.listing(await market.provider())
    with pytest.raises(NotFound):
        await market.subscriptions.define_plan(await market.provider(), listing.id, code="mine", name="Mine")
    with pytest.raises(PermissionDenied):
        await market.subscriptions.define_plan(await market.consumer(), listing.id, code="mine", name="Mine")


# --- subscribing --------------------------------------------------------------------------------


async def test_subscribing_names_everything_a_page_shows(market: Market) -> None:
    consumer, application, service = await _stage(market)
    made = await market.subscriptions.subscribe(consumer, application, service, "basic")
    assert (made.application_name, made.service_slug, made.plan_code, made.status, made.version) == (
        "app",
        "anuvad",
        "basic",
        "active",
        1,
    )
    assert await market.subscriptions.of(consumer) == [made]
    assert await market.subscriptions.get(consumer, made.id) == made
    assert [event.type for event in await market.events(f"subscription/{made.id}")] == ["subscription.created"]


async def test_of_twenty_subscribes_at_once_one_succeeds(market: Market) -> None:
    consumer, application, service = await _stage(market)
    results = await asyncio.gather(
        *(market.subscriptions.subscribe(consumer, application, service, "free") for _ in range(20)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, Subscription) for result in results) == 1
    assert sum(isinstance(result, AlreadyExists) for result in results) == 19
    assert len(await market.subscriptions.of(consumer, active_only=False)) == 1


async def test_a_cancelled_subscription_makes_room_for_another(market: Market) -> None:
    consumer, application, service = await _stage(market)
    first = await market.subscriptions.subscribe(consumer, application, service, "free")
    market.clock.advance(hours=1)
    ended = await market.subscriptions.cancel(consumer, first.id)
    assert (ended.status, ended.ended_at, ended.version) == ("cancelled", market.clock.now(), 2)
    second = await market.subscriptions.subscribe(consumer, application, service, "free")
    assert await market.subscriptions.of(consumer) == [second]
    assert len(await market.subscriptions.of(consumer, active_only=False)) == 2


async def test_what_is_cancelled_is_neither_cancelled_again_nor_changed(market: Market) -> None:
    consumer, application, service = await _stage(market)
    made = await market.subscriptions.subscribe(consumer, application, service, "free")
    await market.subscriptions.cancel(consumer, made.id)
    with pytest.raises(Conflict):
        await market.subscriptions.cancel(consumer, made.id)
    with pytest.raises(Conflict):
        await market.subscriptions.change_plan(consumer, made.id, "basic")


async def test_of_several_cancels_at_once_one_is_recorded(market: Market) -> None:
    consumer, application, service = await _stage(market)
    made = await market.subscriptions.subscribe(consumer, application, service, "free")
    results = await asyncio.gather(
        *(market.subscriptions.cancel(consumer, made.id) for _ in range(6)), return_exceptions=True
    )
    assert sum(isinstance(result, Conflict) for result in results) == 5
    assert len(await market.events(f"subscription/{made.id}")) == 2


async def test_a_plan_is_changed_and_the_change_recorded(market: Market) -> None:
    consumer, application, service = await _stage(market)
    made = await market.subscriptions.subscribe(consumer, application, service, "free")
    changed = await market.subscriptions.change_plan(consumer, made.id, "professional")
    assert (changed.plan_code, changed.version) == ("professional", 2)
    event = (await market.events(f"subscription/{made.id}"))[-1]
    assert event.data == {"from": str(made.plan_id), "to": str(changed.plan_id)}


async def test_a_change_to_the_present_plan_changes_nothing(market: Market) -> None:
    consumer, application, service = await _stage(market)
    made = await market.subscriptions.subscribe(consumer, application, service, "free")
    assert await market.subscriptions.change_plan(consumer, made.id, "free") == made
    assert len(await market.events(f"subscription/{made.id}")) == 1


async def test_an_unknown_plan_is_not_found(market: Market) -> None:
    consumer, application, service = await _stage(market)
    with pytest.raises(NotFound):
        await market.subscriptions.subscribe(consumer, application, service, "gold")


async def test_a_plan_that_is_not_listed_is_the_operators_to_give(market: Market) -> None:
    consumer, application, service = await _stage(market)
    with pytest.raises(NotFound):
        await market.subscriptions.subscribe(consumer, application, service, "sandbox")
    made = await market.subscriptions.subscribe(consumer, application, service, "free")
    with pytest.raises(NotFound):
        await market.subscriptions.change_plan(consumer, made.id, "sandbox")
    platform = Actor(None, consumer.org_id, Role.PLATFORM_ADMIN)
    assert (await market.subscriptions.change_plan(platform, made.id, "sandbox")).plan_code == "sandbox"


@pytest.mark.parametrize("state", ["suspended", "deprecated", "retired"])
async def test_a_listing_that_is_not_open_takes_no_new_subscribers(market: Market, state: str) -> None:
    provider = await market.provider()
    listing = await market.listing(provider)
    consumer = await market.consumer()
    application = await market.identity.create_application(consumer, "app")
    match state:
        case "suspended":
            await market.catalog.suspend(PLATFORM, listing.id, "Too slow")
        case "deprecated":
            sunset = market.clock.now().replace(year=2027)
            await market.catalog.deprecate(provider, listing.id, sunset, "")
        case _:
            await market.catalog.retire(provider, listing.id)
    with pytest.raises(Conflict, match=state):
        await market.subscriptions.subscribe(consumer, application.id, listing.id, "free")


async def test_a_hidden_listing_can_not_be_subscribed_to(market: Market) -> None:
    provider, consumer = await market.provider(), await market.consumer()
    application = await market.identity.create_application(consumer, "app")
    hidden = await market.listing(provider, "hidden", visibility="invited")
    draft = await market.shelf(provider, "draft")
    for service in (hidden.id, draft, uuid4()):
        with pytest.raises(NotFound):
            await market.subscriptions.subscribe(consumer, application.id, service, "free")
    assert consumer.org_id
    await market.catalog.invite(provider, hidden.id, consumer.org_id)
    await market.subscriptions.subscribe(consumer, application.id, hidden.id, "free")


async def test_another_tenants_subscription_and_application_are_not_there(market: Market) -> None:
    consumer, application, service = await _stage(market)
    made = await market.subscriptions.subscribe(consumer, application, service, "free")
    stranger = await market.consumer()
    for call in (
        market.subscriptions.subscribe(stranger, application, service, "free"),
        market.subscriptions.change_plan(stranger, made.id, "basic"),
        market.subscriptions.cancel(stranger, made.id),
        market.subscriptions.get(stranger, made.id),
    ):
        with pytest.raises(NotFound):
            await call
    assert await market.subscriptions.of(stranger) == []
    assert await market.subscriptions.of(consumer) == [made]


async def test_the_platform_itself_subscribes_to_nothing(market: Market) -> None:
    with pytest.raises(PermissionDenied):
        await market.subscriptions.subscribe(PLATFORM, uuid4(), uuid4(), "free")
    assert await market.subscriptions.of(PLATFORM) == []


async def test_a_forgotten_filter_shows_no_other_subscription(market: Market) -> None:
    consumer, application, service = await _stage(market)
    await market.subscriptions.subscribe(consumer, application, service, "free")
    stranger = await market.consumer()
    for scope in (PUBLIC, tenant(stranger.org_id)):
        async with market.db.transaction(scope) as connection:
            assert await (await connection.execute("SELECT FROM subscriptions")).fetchall() == []

"""Rollouts in the control plane: who may, what is refused, how they go on, and how they come back."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from haat.gateway.market import store as gateway_store
from haat.gateway.market.policy import Share
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.clock import SetClock
from haat.kernel.errors import Conflict, HaatError, NotFound, PermissionDenied, ValidationFailed
from haat.kernel.permissions import Actor, Role
from haat.rollouts.model import RolloutDraft
from market import Market

from .rig import Shop, draft, open_shop

STEPS = [{"percent": percent, "minutes": 10} for percent in (1, 5, 25, 50, 100)]


@pytest.fixture
async def shop(market: Market, database: Any) -> Shop:
    return await open_shop(market, database)


async def test_a_rollout_is_told_to_gateways_and_written_into_the_log(shop: Shop) -> None:
    rollout = await shop.rollouts.start(shop.provider, shop.service, draft(percent="12.34"))
    async with shop.market.db.transaction(PLATFORM_SCOPE) as connection:
        service = await gateway_store.service(connection, shop.service)
    assert service is not None and service.division is not None
    assert (service.division.id, service.division.control) == (str(rollout.id), "1")
    assert service.division.shares == (Share("candidate", "2", 1234),)
    assert await shop.told() == [
        ("rollout.started", {"rollout": str(rollout.id), "control": "1", "candidate": "2", "percent": "12.34"})
    ]


async def test_the_share_is_set_paused_gone_on_with_and_promoted(shop: Shop) -> None:
    rollout = await shop.rollouts.start(shop.provider, shop.service, draft(steps=STEPS))
    assert rollout.percent == 1
    assert (await shop.rollouts.pause(shop.provider, rollout.id)).status == "paused"
    with pytest.raises(Conflict):
        await shop.rollouts.pause(shop.provider, rollout.id)
    assert (await shop.rollouts.resume(shop.provider, rollout.id)).status == "running"
    moved = await shop.rollouts.set_percent(shop.provider, rollout.id, Decimal("33.3"))
    assert (moved.percent, moved.next_step_at) == (Decimal("33.3"), None)
    assert (await shop.policy())["shares"][0]["buckets"] == 3330
    assert await shop.default() == "1"
    ended = await shop.rollouts.promote(shop.provider, rollout.id)
    assert (ended.status, await shop.default(), await shop.policy()) == ("promoted", "2", None)
    with pytest.raises(Conflict, match="promoted"):
        await shop.rollouts.roll_back(shop.provider, rollout.id)
    assert [kind.removeprefix("rollout.") for kind, _ in await shop.told()] == [
        *("started", "paused", "resumed", "percent_set", "promoted"),
    ]


async def test_steps_go_on_when_their_time_is_over_and_the_candidate_was_tried(shop: Shop, clock: SetClock) -> None:
    rollout = await shop.rollouts.start(shop.provider, shop.service, draft(steps=STEPS, promote=True))
    seen = [rollout.percent]
    for _ in STEPS:
        clock.advance(minutes=9)
        await shop.use(rollout.id, "control", 60)
        await shop.use(rollout.id, "candidate", 60)
        assert await shop.rollouts.review() == 0  # not yet
        clock.advance(minutes=1, seconds=1)
        assert await shop.rollouts.review() == 1
        assert await shop.rollouts.review() == 0  # once
        rollout = (await shop.rollouts.report(shop.provider, rollout.id)).rollout
        seen.append(rollout.percent)
    assert seen == [1, 5, 25, 50, 100, 100]
    assert (rollout.status, await shop.default()) == ("promoted", "2")


async def test_silence_is_not_health(shop: Shop, clock: SetClock) -> None:
    rollout = await shop.rollouts.start(shop.provider, shop.service, draft(steps=STEPS))
    clock.advance(minutes=11)
    await shop.use(rollout.id, "candidate", 49)
    assert await shop.rollouts.review() == 0
    await shop.use(rollout.id, "candidate", 1)
    assert await shop.rollouts.review() == 1


async def test_a_paused_rollout_does_not_go_on_but_comes_back_when_it_is_worse(shop: Shop, clock: SetClock) -> None:
    rollout = await shop.rollouts.start(shop.provider, shop.service, draft(steps=STEPS))
    await shop.rollouts.pause(shop.provider, rollout.id)
    clock.advance(minutes=11)
    await shop.use(rollout.id, "control", 200)
    await shop.use(rollout.id, "candidate", 100)
    assert await shop.rollouts.review() == 0
    await shop.use(rollout.id, "candidate", 100, errors=60)
    assert await shop.rollouts.review() == 1
    report = await shop.rollouts.report(shop.provider, rollout.id)
    assert (report.rollout.status, report.rollout.percent, await shop.policy()) == ("rolled_back", 0, None)
    assert report.rollout.reason == "The candidate failed 30.0% of 200 calls, the control 0.0% of 200."
    assert (await shop.told())[-1] == (
        "rollout.rolled_back",
        {
            "rollout": str(rollout.id),
            "control": "1",
            "candidate": "2",
            "percent": "0",
            "reason": report.rollout.reason,
            "figures": {
                "control_calls": 200,
                "control_errors": 0,
                "candidate_calls": 200,
                "candidate_errors": 60,
                "percent": "1.00",
            },
        },
    )


async def test_a_slow_candidate_comes_back_and_one_as_quick_stays(shop: Shop, clock: SetClock) -> None:
    rollout = await shop.rollouts.start(shop.provider, shop.service, draft(percent=10))
    clock.advance(minutes=1)
    await shop.use(rollout.id, "control", 300, ms=50)
    await shop.use(rollout.id, "candidate", 300, ms=55)
    assert await shop.rollouts.review() == 0
    clock.advance(minutes=6)
    await shop.use(rollout.id, "control", 300, ms=50)
    await shop.use(rollout.id, "candidate", 300, ms=150)
    assert await shop.rollouts.review() == 1
    assert "p95" in (await shop.rollouts.report(shop.provider, rollout.id)).rollout.reason


async def test_a_candidate_whose_time_is_over_comes_back(shop: Shop, clock: SetClock) -> None:
    version = await shop.add_version("3")
    rollout = await shop.rollouts.start(shop.provider, shop.service, draft(candidate="3", steps=STEPS))
    await shop.market.catalog.versions.deprecate(
        shop.provider, shop.service, version, sunset_at=clock.now() + timedelta(minutes=5), successor="2"
    )
    clock.advance(minutes=11)
    await shop.use(rollout.id, "candidate", 60)
    assert await shop.rollouts.review() == 1
    assert "version 3 is over" in (await shop.rollouts.report(shop.provider, rollout.id)).rollout.reason
    with pytest.raises(ValidationFailed):
        await shop.rollouts.start(shop.provider, shop.service, draft(candidate="3"))


async def test_what_a_gateway_has_left_stays_left_and_is_ended_once(shop: Shop) -> None:
    rollout = await shop.rollouts.start(shop.provider, shop.service, draft(percent=50))
    for _ in range(2):  # the handler may run again
        assert await shop.rollouts.tripped(rollout.id, "It failed.", {"candidate_errors": 20})
    assert [kind for kind, _ in await shop.told()] == ["rollout.started", "rollout.rolled_back"]
    assert not await shop.rollouts.tripped(UUID(int=1), "Nobody's.", {})


async def test_two_at_once_are_refused_and_so_are_two_at_the_same_moment(shop: Shop) -> None:
    results = await asyncio.gather(
        *(shop.rollouts.start(shop.provider, shop.service, draft(percent=5)) for _ in range(6)), return_exceptions=True
    )
    assert sum(isinstance(one, Conflict) for one in results) == 5
    assert len(await shop.rollouts.of_service(shop.provider, shop.service)) == 1


@pytest.mark.parametrize(
    ("version", "changes", "says"),
    [
        ("9", None, "no such version"),
        ("1", None, "is the control"),
        ("4", {"accepted": False}, "acceptance call"),
        ("5", {"dialect": "openai", "sample": {"path": "/v1/chat/completions", "body": {}}}, "speaks openai"),
        ("6", {"languages": ["ur-Arab"]}, "lacks hi-Deva"),
        ("7", {"policy": {"serves": "1"}, "endpoint": ""}, "only adapts another one"),
    ],
)
async def test_candidates_that_cannot_stand_in_are_refused(
    shop: Shop, version: str, changes: dict[str, Any] | None, says: str
) -> None:
    if changes is not None:
        await shop.add_version(version, **changes)
    with pytest.raises(ValidationFailed) as refused:
        await shop.rollouts.start(shop.provider, shop.service, draft(candidate=version))
    [error] = refused.value.extensions["errors"]
    assert error["field"] == "candidate" and says in error["message"]
    assert await shop.policy() is None


async def test_copies_go_only_where_the_same_can_be_asked(shop: Shop) -> None:
    other = await shop.market.shelf(shop.provider, "other", unit="characters")
    await shop.market.catalog.publish(shop.provider, other)
    same = await shop.market.shelf(shop.provider, "same")
    await shop.market.catalog.publish(shop.provider, same)
    for shadow, field, says in (
        ({"service": "nowhere", "version": "1"}, "shadow.service", "no such service"),
        ({"service": "other", "version": "1"}, "shadow.service", "sold by characters"),
        ({"service": "same"}, "shadow.version", "name a version"),
        ({"version": "9"}, "shadow.version", "no such version"),
    ):
        with pytest.raises(ValidationFailed) as refused:
            await shop.rollouts.start(shop.provider, shop.service, draft(shadow={"percent": 5, **shadow}))
        [error] = refused.value.extensions["errors"]
        assert error["field"] == field and says in error["message"]
    await shop.rollouts.start(
        shop.provider, shop.service, draft(shadow={"percent": 5, "service": "same", "version": "1"})
    )
    path = f"{(await shop.market.partners.of(shop.provider)).slug}/same"  # type: ignore[union-attr]
    assert (await shop.policy())["shadow"] == {"version": "1", "buckets": 500, "service": path}


@pytest.mark.parametrize(
    "wrong",
    [
        {"percent": "0.001"},
        {"percent": -1},
        {"percent": "100.01"},
        {"percent": "NaN"},
        {"percent": 5, "steps": STEPS},
        {"steps": [{"percent": 5, "minutes": 1}, {"percent": 5, "minutes": 1}]},
        {"steps": [{"percent": 5, "minutes": 0}]},
        {"steps": STEPS[:2], "promote": True},
        {"allow": {"users": ["a"]}, "block": {"users": ["a"]}},
        {"allow": {"applications": ["not an id"]}},
        {"rule": {"min_calls": 1}},
        {"rule": {"latency_ratio": 0.5}},
        {"rule": {"error_margin": float("inf")}},
        {"candidate": "two words"},
        {"colour": "blue"},
        {"allow": {"users": ["\0"]}},
    ],
)
def test_drafts_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RolloutDraft.model_validate({"candidate": "2", **wrong})


async def test_nobody_else_sees_or_moves_a_rollout_and_the_operator_does(shop: Shop) -> None:
    rollout = await shop.rollouts.start(shop.provider, shop.service, draft(percent=5))
    other, consumer = await shop.market.provider(), await shop.market.consumer()
    for stranger, refusal in ((other, NotFound), (consumer, PermissionDenied)):
        for attempt in (
            shop.rollouts.report(stranger, rollout.id),
            shop.rollouts.set_percent(stranger, rollout.id, Decimal(100)),
            shop.rollouts.promote(stranger, rollout.id),
            shop.rollouts.roll_back(stranger, rollout.id),
            shop.rollouts.of_service(stranger, shop.service),
            shop.rollouts.start(stranger, shop.service, draft()),
        ):
            with pytest.raises(refusal):
                await attempt
    developer = Actor(shop.provider.user_id, shop.provider.org_id, Role.PARTNER_DEVELOPER)
    assert (await shop.rollouts.set_percent(developer, rollout.id, Decimal(6))).percent == 6
    operator = await shop.market.operator()
    assert (await shop.rollouts.roll_back(operator, rollout.id, "Complaints.")).reason == "Complaints."


async def test_a_listing_that_is_not_open_has_no_calls_to_divide(shop: Shop) -> None:
    await shop.market.catalog.retire(shop.provider, shop.service)
    with pytest.raises(Conflict):
        await shop.rollouts.start(shop.provider, shop.service, draft())


async def test_figures_leave_out_answers_given_again_refusals_and_429s_and_show_agreement(
    shop: Shop, clock: SetClock
) -> None:
    rollout = await shop.rollouts.start(shop.provider, shop.service, draft(percent=5))
    clock.advance(minutes=1)
    await shop.use(rollout.id, "candidate", 10, errors=2)
    await shop.use(rollout.id, "candidate", 7, cache="hit")
    await shop.use(rollout.id, "shadow", 4, mode="shadow", agreed=True)
    await shop.use(rollout.id, "shadow", 1, mode="shadow", agreed=False)
    await shop.use(rollout.id, "shadow", 1, mode="shadow")
    await shop.use(rollout.id, "control", 3, mode="test")
    report = await shop.rollouts.report(shop.provider, rollout.id)
    figures = {one.variant: (one.calls, one.errors, one.agreed, one.compared) for one in report.variants}
    assert figures == {"control": (0, 0, 0, 0), "candidate": (10, 2, 0, 0), "shadow": (6, 0, 4, 5)}


async def test_shadow_calls_are_in_no_rollup_and_can_be_on_no_bill(shop: Shop, clock: SetClock) -> None:
    rollout = await shop.rollouts.start(shop.provider, shop.service, draft(percent=5))
    await shop.use(rollout.id, "shadow", 3, mode="shadow", units={"requests": "1"})
    async with shop.market.db.transaction(PLATFORM_SCOPE) as connection:
        rows = await connection.execute("SELECT count(*) AS rows FROM usage_hourly")
        row = await rows.fetchone()
        modes = [one["mode"] async for one in await connection.execute("SELECT mode FROM usage")]
    assert row is not None and (row["rows"], modes) == (0, ["shadow"] * 3)


async def test_a_refusal_leaves_nothing_behind(shop: Shop) -> None:
    before = await shop.told()
    with pytest.raises(HaatError):
        await shop.rollouts.start(shop.provider, shop.service, draft(candidate="9"))
    assert await shop.told() == before
    assert await shop.rollouts.of_service(shop.provider, shop.service) == []

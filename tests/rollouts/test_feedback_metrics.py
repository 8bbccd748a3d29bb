"""What callers say as an experiment's metric: one value a subject, which nothing changes once it is settled."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from haat.feedback.model import GRACE, LANDING, Opinion
from haat.identity.model import KeyHolder
from haat.kernel.clock import SetClock
from haat.kernel.errors import NotFound, ValidationFailed
from haat.kernel.permissions import Actor, Role
from haat.rollouts.experiments import VariantResult
from haat.rollouts.model import Experiment, ExperimentDraft
from market import Market

from .rig import ORG, Shop, open_shop

OTHER = UUID(int=78)
SETTLE = timedelta(minutes=10)


@pytest.fixture
async def shop(market: Market, database: Any, clock: SetClock) -> Shop:
    return await open_shop(market, database)


async def begun(shop: Shop, metric: str = "thumbs", **members: Any) -> Experiment:
    plan = {"name": "Do they like it?", "metric": metric, "minimum_effect": 0.1, "settle_minutes": 10,
            "variants": [{"name": "new", "version": "2", "percent": 50}],
            "ends_at": shop.market.clock.now() + timedelta(days=7), **members}  # fmt: skip
    experiment = await shop.experiments.register(shop.provider, shop.service, ExperimentDraft.model_validate(plan))
    assert await shop.experiments.review() == 1
    shop.market.clock.advance(minutes=1)
    return experiment


async def say(shop: Shop, calls: Sequence[UUID], org: UUID = ORG, **said: Any) -> None:
    for start in range(0, len(calls), 100):
        opinions = [Opinion(call, **said) for call in calls[start : start + 100]]
        await shop.feedback.give(KeyHolder(org, org, {}), opinions)


async def new(shop: Shop, experiment: Experiment) -> VariantResult:
    return (await shop.experiments.results(shop.provider, experiment.id)).variants[1]


def counted(one: VariantResult) -> tuple[int, int, float | None]:
    return one.seen, one.subjects, None if one.estimate is None else round(one.estimate, 6)


def settle(clock: SetClock) -> None:
    clock.advance(seconds=(SETTLE + GRACE + LANDING).total_seconds())


async def test_a_difference_in_thumbs_is_found(shop: Shop, clock: SetClock) -> None:
    experiment = await begun(shop)
    for arm, ups in (("control", 60), ("new", 110)):
        calls = await shop.use(experiment.id, arm, 130)
        await say(shop, calls[:ups], thumbs="up")
        await say(shop, calls[ups:120], thumbs="down")
    settle(clock)
    control, variant = (await shop.experiments.results(shop.provider, experiment.id)).variants
    assert (counted(control), counted(variant)) == ((130, 120, 0.5), (130, 120, round(110 / 120, 6)))
    assert variant.decided and variant.low is not None and variant.low > 0
    assert variant.p_value is not None and variant.p_value < 0.05


async def test_a_subject_counts_once_with_the_mean_of_its_first_minutes(shop: Shop, clock: SetClock) -> None:
    experiment = await begun(shop, "rating", minimum_effect=1)
    first = await shop.use(experiment.id, "new", 6, users=2)  # three calls of each
    await say(shop, first[:2], rating=5)
    await say(shop, first[2:4], rating=2)
    clock.advance(minutes=11)
    await say(shop, await shop.use(experiment.id, "new", 2, users=2), rating=1)
    settle(clock)
    assert counted(await new(shop, experiment)) == (2, 2, 3.5)


async def test_closeness_is_that_of_the_corrected_text(shop: Shop, clock: SetClock) -> None:
    experiment = await begun(shop, "closeness")
    calls = await shop.use(experiment.id, "new", 3)
    await say(shop, calls[:1], corrected="abXX", answered="abcd")
    await say(shop, calls[1:2], corrected="abcd", answered="abcd")
    await say(shop, calls[2:], thumbs="up")  # nothing of this metric
    settle(clock)
    assert counted(await new(shop, experiment)) == (3, 2, 0.75)


async def test_what_is_said_counts_as_it_stands_when_the_grace_is_over(shop: Shop, clock: SetClock) -> None:
    experiment = await begun(shop)
    changed, extended, taken_back = await shop.use(experiment.id, "new", 3, at=clock.now() + timedelta(seconds=20))
    await say(shop, [changed, taken_back], thumbs="up")
    await say(shop, [extended], rating=5)
    clock.advance(minutes=50)
    await say(shop, [changed], thumbs="down")
    await say(shop, [extended], thumbs="up", rating=5)
    await shop.feedback.withdraw(Actor(UUID(int=1), ORG, Role.API_CONSUMER), taken_back)
    settle(clock)
    assert counted(await new(shop, experiment)) == (3, 2, 0.5)


async def test_a_settled_value_is_the_same_at_every_later_look(shop: Shop, clock: SetClock) -> None:
    experiment = await begun(shop)
    calls = await shop.use(experiment.id, "new", 5)
    await say(shop, calls[:3], thumbs="up")
    assert counted(await new(shop, experiment)) == (5, 0, None)
    clock.advance(seconds=(SETTLE + GRACE).total_seconds())
    assert counted(await new(shop, experiment)) == (5, 0, None), "it waits for what is on its way"
    clock.advance(seconds=LANDING.total_seconds())
    looks = [counted(await new(shop, experiment))]
    await say(shop, calls, thumbs="down")  # changed, and said for the first time
    looks.append(counted(await new(shop, experiment)))
    await shop.feedback.withdraw(Actor(UUID(int=1), ORG, Role.API_CONSUMER), calls[0])
    looks.append(counted(await new(shop, experiment)))
    await say(shop, await shop.use(experiment.id, "new", 5, user="new-1"), thumbs="down")
    looks.append((5, *counted(await new(shop, experiment))[1:]))
    clock.advance(days=400)
    assert await shop.experiments.review() == 1
    await shop.feedback.forget_old()
    assert (await shop.feedback.given(Actor(UUID(int=1), ORG, Role.API_CONSUMER))).items == []
    looks.append((5, *counted(await new(shop, experiment))[1:]))
    assert looks == [(5, 3, 1.0)] * 5


async def test_the_same_name_in_two_organisations_is_two_subjects(shop: Shop, clock: SetClock) -> None:
    experiment = await begun(shop)
    mine = await shop.use(experiment.id, "new", 3, user="asha")
    theirs = await shop.use(experiment.id, "new", 2, user="asha", org=OTHER)
    nameless = await shop.use(experiment.id, "new", 2, user="")
    namesake = await shop.use(experiment.id, "new", 1, user=str(ORG))  # a user, not the application
    await say(shop, mine + nameless + namesake, thumbs="up")
    await say(shop, theirs, OTHER, thumbs="down")
    with pytest.raises(NotFound):
        await say(shop, mine, OTHER, thumbs="down")
    settle(clock)
    assert counted(await new(shop, experiment)) == (4, 4, 0.75)


async def test_what_says_nothing_of_the_variant_is_left_out(shop: Shop, clock: SetClock) -> None:
    experiment = await begun(shop)
    elsewhere = await shop.use(UUID(int=5), "new", 2)
    kept = await shop.use(experiment.id, "new", 2, cache="hit")
    test = await shop.use(experiment.id, "new", 2, mode="test")
    rescued = await shop.use(experiment.id, "new", 2, executed_by=str(UUID(int=9)))
    failed = await shop.use(experiment.id, "new", 1, errors=1)
    await say(shop, elsewhere + kept + test + rescued, thumbs="up")
    await say(shop, failed, thumbs="down")
    settle(clock)
    assert counted(await new(shop, experiment)) == (3, 1, 0.0)


async def test_after_the_end_feedback_counts_for_its_grace_and_calls_cut_short_never(
    shop: Shop, clock: SetClock
) -> None:
    experiment = await begun(shop)
    whole = await shop.use(experiment.id, "new", 1)
    clock.advance(minutes=11)
    short = await shop.use(experiment.id, "new", 1)
    await shop.experiments.stop(shop.provider, experiment.id, "Enough.")
    clock.advance(minutes=30)
    await say(shop, whole + short, thumbs="up")
    assert counted(await new(shop, experiment)) == (2, 0, None)
    settle(clock)
    assert counted(await new(shop, experiment)) == (2, 1, 1.0)


async def test_a_metric_that_nobody_measures_is_refused(shop: Shop) -> None:
    with pytest.raises(ValidationFailed) as refused:
        await begun(shop, "corrected")
    assert refused.value.extensions["errors"][0]["field"] == "metric"
    assert (await shop.experiments.of_service(shop.provider, shop.service)) == []

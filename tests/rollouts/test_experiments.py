"""Experiments: registered before, never changed, looked at whenever one likes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from pydantic import ValidationError

from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.clock import SetClock
from haat.kernel.errors import Conflict, NotFound, PermissionDenied, ValidationFailed
from haat.rollouts.experiments import Experiments, Results
from haat.rollouts.model import Experiment, ExperimentDraft
from haat.rollouts.outcomes import Outcome
from haat.rollouts.sequential import Sample
from haat.usage.variants import Variants
from market import Market

from .rig import Shop, draft, open_shop


@pytest.fixture
async def shop(market: Market, database: Any) -> Shop:
    return await open_shop(market, database)


def plan(shop: Shop, **members: Any) -> ExperimentDraft:
    now = shop.market.clock.now()
    return ExperimentDraft.model_validate(
        {
            "name": "Is the new model as reliable?",
            "metric": "success_rate",
            "minimum_effect": 0.02,
            "variants": [{"name": "new", "version": "2", "percent": 50}],
            "settle_minutes": 10,
            "ends_at": now + timedelta(days=7),
            **members,
        }
    )


async def begun(shop: Shop, **members: Any) -> Experiment:
    experiment = await shop.experiments.register(shop.provider, shop.service, plan(shop, **members))
    assert await shop.experiments.review() == 1
    return experiment


async def results(shop: Shop, experiment: Experiment) -> Results:
    return await shop.experiments.results(shop.provider, experiment.id)


async def test_an_experiment_runs_as_registered_and_ends_by_itself(shop: Shop, clock: SetClock) -> None:
    start = clock.now() + timedelta(hours=1)
    experiment = await shop.experiments.register(shop.provider, shop.service, plan(shop, starts_at=start))
    assert (experiment.status, await shop.experiments.review(), await shop.policy()) == ("registered", 0, None)
    clock.advance(hours=1)
    assert (await shop.experiments.review(), await shop.experiments.review()) == (1, 0)
    policy = await shop.policy()
    assert (policy["id"], policy["shares"]) == (str(experiment.id), [{"name": "new", "version": "2", "buckets": 5000}])
    clock.advance(days=7)
    assert await shop.experiments.review() == 1
    assert (await results(shop, experiment)).experiment.status == "ended"
    assert await shop.policy() is None
    kinds = [kind for kind, _ in await shop.told()]
    assert kinds == ["experiment.registered", "experiment.started", "experiment.ended"]


async def test_a_difference_is_found_with_its_interval(shop: Shop, clock: SetClock) -> None:
    experiment = await begun(shop)
    clock.advance(minutes=20)
    await shop.use(experiment.id, "control", 1500, errors=300)
    await shop.use(experiment.id, "new", 1500, errors=75)
    clock.advance(minutes=11)
    found = await results(shop, experiment)
    control, new = found.variants
    assert (control.subjects, new.subjects, found.ratio_is_wrong) == (1500, 1500, False)
    assert (control.estimate, new.estimate, control.p_value) == (pytest.approx(0.8), pytest.approx(0.95), None)
    assert new.low is not None and new.high is not None and new.p_value is not None
    assert 0 < new.low < 0.15 < new.high and new.p_value < 0.001 and new.decided


async def test_subjects_that_have_not_settled_are_seen_and_not_counted(shop: Shop, clock: SetClock) -> None:
    experiment = await begun(shop)
    clock.advance(minutes=5)
    await shop.use(experiment.id, "new", 30)
    clock.advance(minutes=1)
    [_, new] = (await results(shop, experiment)).variants
    assert (new.seen, new.subjects, new.estimate, new.p_value) == (30, 0, None, 1.0)


async def test_a_subject_counts_once_with_the_mean_of_its_first_minutes(shop: Shop, clock: SetClock) -> None:
    experiment = await begun(shop)
    clock.advance(minutes=5)
    await shop.use(experiment.id, "new", 40, errors=4, users=4)  # ten calls of each user, one of them failed
    clock.advance(hours=1)
    await shop.use(experiment.id, "new", 40, errors=40, users=4)  # what comes later doesn't change a value
    [_, new] = (await results(shop, experiment)).variants
    assert (new.subjects, new.estimate) == (4, pytest.approx(0.9))


async def test_a_latency_is_that_of_calls_that_succeeded(shop: Shop, clock: SetClock) -> None:
    experiment = await begun(shop, metric="latency_ms", minimum_effect=20)
    clock.advance(minutes=5)
    await shop.use(experiment.id, "control", 200, ms=100)
    await shop.use(experiment.id, "new", 200, ms=160)
    await shop.use(experiment.id, "new", 50, errors=50, ms=9000)
    clock.advance(minutes=20)
    [_, new] = (await results(shop, experiment)).variants
    assert new.subjects == 200 and new.difference == pytest.approx(60, abs=5) and new.decided


async def test_a_wrong_ratio_is_said(shop: Shop, clock: SetClock) -> None:
    experiment = await begun(shop)
    clock.advance(minutes=5)
    await shop.use(experiment.id, "control", 600)
    await shop.use(experiment.id, "new", 350)
    clock.advance(minutes=20)
    assert (await results(shop, experiment)).ratio_is_wrong


async def test_several_variants_share_alpha(shop: Shop) -> None:
    await shop.add_version("3")
    variants = [{"name": "a", "version": "2", "percent": 30}, {"name": "b", "version": "3", "percent": 30}]
    experiment = await begun(shop, variants=variants)
    found = await results(shop, experiment)
    assert (found.alpha, [one.name for one in found.variants]) == (0.025, ["control", "a", "b"])
    assert [one.share for one in found.variants] == [pytest.approx(0.4), 0.3, 0.3]


async def test_what_was_registered_is_never_changed_not_even_by_the_owner_of_the_tables(
    shop: Shop, database: Any
) -> None:
    experiment = await begun(shop)
    async with await psycopg.AsyncConnection.connect(database.owner_dsn) as connection:
        for change in ("plan = '{}'", "ends_at = ends_at + interval '1 day'", "control = '2'"):
            with pytest.raises(psycopg.errors.RaiseException):
                async with connection.transaction():
                    await connection.execute(f"UPDATE experiments SET {change} WHERE id = %s", (experiment.id,))


async def test_one_thing_at_a_time(shop: Shop) -> None:
    rollout = await shop.rollouts.start(shop.provider, shop.service, draft(percent=5))
    experiment = await shop.experiments.register(shop.provider, shop.service, plan(shop))
    assert await shop.experiments.review() == 0  # it waits
    await shop.rollouts.roll_back(shop.provider, rollout.id)
    assert await shop.experiments.review() == 1
    with pytest.raises(Conflict):
        await shop.rollouts.start(shop.provider, shop.service, draft(percent=5))
    await shop.experiments.stop(shop.provider, experiment.id, "Enough seen.")
    await shop.rollouts.start(shop.provider, shop.service, draft(percent=5))


async def test_one_whose_control_is_no_longer_the_default_does_not_begin(shop: Shop) -> None:
    await shop.experiments.register(shop.provider, shop.service, plan(shop))
    rollout = await shop.rollouts.start(shop.provider, shop.service, draft(percent=5))
    await shop.rollouts.promote(shop.provider, rollout.id)
    assert await shop.experiments.review() == 1
    [experiment] = await shop.experiments.of_service(shop.provider, shop.service)
    assert (experiment.status, experiment.reason) == (
        "withdrawn",
        "Another version is the default one since it was registered.",
    )


async def test_a_variant_that_a_gateway_has_left_stops_the_experiment(shop: Shop) -> None:
    experiment = await begun(shop)
    for _ in range(2):
        assert await shop.experiments.tripped(experiment.id, "It failed.", {"candidate_errors": 20})
    assert not await shop.experiments.tripped(UUID(int=1), "Nobody's.", {})
    stopped = (await results(shop, experiment)).experiment
    assert (stopped.status, stopped.reason, await shop.policy()) == ("stopped", "It failed.", None)
    with pytest.raises(Conflict):
        await shop.experiments.withdraw(shop.provider, experiment.id)


async def test_nobody_else_sees_or_stops_it(shop: Shop) -> None:
    experiment = await begun(shop)
    other, consumer = await shop.market.provider(), await shop.market.consumer()
    for stranger, refusal in ((other, NotFound), (consumer, PermissionDenied)):
        for attempt in (
            shop.experiments.results(stranger, experiment.id),
            shop.experiments.stop(stranger, experiment.id, "Because."),
            shop.experiments.register(stranger, shop.service, plan(shop)),
            shop.experiments.of_service(stranger, shop.service),
        ):
            with pytest.raises(refusal):
                await attempt
    async with shop.market.db.transaction(PLATFORM_SCOPE) as connection:
        rows = await connection.execute("SELECT count(*) AS count FROM experiments")
        row = await rows.fetchone()
    assert row is not None and row["count"] == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"variants": []},
        {"variants": [{"name": "control", "version": "2", "percent": 5}]},
        {"variants": [{"name": "a", "version": "2", "percent": 100}]},
        {"variants": [{"name": "a", "version": "2", "percent": 0}]},
        {"variants": [{"name": "a", "version": "2", "percent": 5}, {"name": "a", "version": "2", "percent": 5}]},
        {"minimum_effect": 0},
        {"minimum_effect": float("nan")},
        {"alpha": 0.5},
        {"ends_at": "tomorrow"},
    ],
)
async def test_plans_that_make_no_sense_are_refused(shop: Shop, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        plan(shop, **wrong)


async def test_plans_that_the_market_cannot_run_are_refused_by_their_field(shop: Shop, clock: SetClock) -> None:
    past, soon = clock.now() - timedelta(days=1), clock.now() + timedelta(days=1)
    for wrong, field in (
        ({"metric": "beauty"}, "metric"),
        ({"variants": [{"name": "a", "version": "9", "percent": 5}]}, "variants.0.version"),
        ({"ends_at": past}, "ends_at"),
        ({"starts_at": past}, "starts_at"),
        ({"starts_at": soon, "ends_at": soon}, "ends_at"),
    ):
        with pytest.raises(ValidationFailed) as refused:
            await shop.experiments.register(shop.provider, shop.service, plan(shop, **wrong))
        assert [error["field"] for error in refused.value.extensions["errors"]] == [field]


class Thumbs:
    """A metric that another part of the platform measures."""

    def knows(self, metric: str) -> bool:
        return metric == "feedback:thumbs"

    def most(self, metric: str) -> float | None:
        return 1.0

    async def of(self, experiment: Experiment, now: datetime) -> Mapping[str, Outcome]:
        return {"control": Outcome(400, Sample(400, 200, 200)), "new": Outcome(400, Sample(400, 320, 320))}


async def test_other_parts_of_the_platform_plug_their_metrics_in(shop: Shop, database: Any) -> None:
    market = shop.market
    parts = (database.app, market.clock, market.catalog, market.partners, Variants(database.app))
    shop.experiments = Experiments(*parts, sources=[Thumbs()])
    experiment = await begun(shop, metric="feedback:thumbs", minimum_effect=0.1)
    [_, new] = (await results(shop, experiment)).variants
    assert new.decided and new.difference == pytest.approx(0.3)

"""What callers say of answers: of their own calls alone, kept once, shown to both sides, summed up by version."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bazaar import Bazaar, Subscription, call_id, consumer, partner
from haat.feedback.model import Figures, Opinion, closeness, may_keep_texts
from haat.feedback.service import Feedback
from haat.identity.model import KeyHolder
from haat.infra import events
from haat.infra.jobs import RunningJob
from haat.infra.postgres import PLATFORM_SCOPE, PUBLIC, tenant
from haat.kernel.errors import InvalidRequest, NotFound, PermissionDenied, ValidationFailed
from haat.kernel.ids import new_id
from haat.usage.event import Outcome
from office import Control

DAY = timedelta(days=1)


@pytest.fixture
def feedback(control: Control) -> Feedback:
    return control.platform.feedback


@pytest.fixture
async def subscription(bazaar: Bazaar) -> Subscription:
    return await bazaar.subscribe(await bazaar.organisation(), await bazaar.service())


def holder(subscription: Subscription, **policy: object) -> KeyHolder:
    return KeyHolder(subscription.org, subscription.application, policy)


async def called(bazaar: Bazaar, subscription: Subscription, *, hours: float = 2, **members: object) -> UUID:
    """Return the id of a call of some hours ago."""
    at = bazaar.clock.now() - timedelta(hours=hours)
    event = bazaar.event(subscription, at=at)
    for name, value in members.items():
        setattr(event, name, value)
    await bazaar.take([event])
    return UUID(event.id)


async def test_an_opinion_is_kept_with_who_executed_the_call(
    feedback: Feedback, bazaar: Bazaar, subscription: Subscription
) -> None:
    other = await bazaar.service("spare", provider="akshara")
    request = await called(
        bazaar, subscription, variant="b", executed_by=str(other.id), provider="akshara", provider_org=str(other.org)
    )
    [accepted] = await feedback.give(
        holder(subscription), [Opinion(request, "down", 2, "मेरी बहन डॉक्टर है।", "मेरी बहन डाक्टर है।", "Spelling")]
    )
    assert (accepted.kept, accepted.replaced) == (("thumbs", "rating", "corrected", "comment", "closeness"), False)
    [mine] = (await feedback.given(consumer(subscription.org))).items
    assert (mine.service, mine.service_id, mine.version, mine.variant) == ("akshara/spare", other.id, "1", "b")
    assert mine.closeness is not None and 0.9 < mine.closeness < 1
    [theirs] = (await feedback.received(partner(other.org))).items
    assert theirs == replace(mine, application_id=None)
    assert (await feedback.received(partner(subscription.service.org))).items == []


async def test_what_is_said_again_replaces_what_was_said(
    feedback: Feedback, bazaar: Bazaar, subscription: Subscription
) -> None:
    request = await called(bazaar, subscription)
    await feedback.give(holder(subscription), [Opinion(request, "up", 5, "a", "b", "c")])
    [again] = await feedback.give(holder(subscription), [Opinion(request, "down")])
    assert again.replaced
    [kept] = (await feedback.given(consumer(subscription.org))).items
    assert (kept.thumbs, kept.rating, kept.corrected, kept.comment, kept.closeness) == ("down", None, None, None, None)


async def test_each_opinion_is_an_event_without_its_texts(
    feedback: Feedback, bazaar: Bazaar, subscription: Subscription, control: Control
) -> None:
    request = await called(bazaar, subscription)
    await feedback.give(holder(subscription), [Opinion(request, "up", None, "secret", "secrets", "private")])
    async with control.platform.db.transaction(PLATFORM_SCOPE) as connection:
        [event] = await events.read_stream(connection, f"feedback/{request}")
    assert (event.type, event.org, event.data["texts"]) == (
        "feedback.given",
        subscription.org,
        ["corrected", "comment"],
    )
    assert "secret" not in str(event.data) and "private" not in str(event.data)


async def test_a_request_of_nobody_of_another_or_refused_is_not_found(
    feedback: Feedback, bazaar: Bazaar, subscription: Subscription
) -> None:
    stranger = await bazaar.subscribe(await bazaar.organisation("Stranger"), subscription.service)
    sibling = await bazaar.subscribe(subscription.org, await bazaar.service("listen"))
    mine = await called(bazaar, subscription)
    refused = await called(bazaar, subscription, outcome=Outcome.REFUSED)
    others = [await called(bazaar, one) for one in (stranger, sibling)]
    old = call_id(1_700_000_000_000, bazaar.chance)
    opinions = [Opinion(one, "up") for one in (mine, refused, *others, old, uuid4())]
    with pytest.raises(NotFound) as unknown:
        await feedback.give(holder(subscription), opinions)
    fields = [one["field"] for one in unknown.value.extensions["errors"]]
    assert fields == [f"items.{number}.request_id" for number in range(1, 6)]
    assert (await feedback.given(consumer(subscription.org))).items == [], "all of it, or nothing"


async def test_a_fresh_call_is_waited_for(feedback: Feedback, bazaar: Bazaar, subscription: Subscription) -> None:
    event = bazaar.event(subscription)
    asking = asyncio.create_task(feedback.give(holder(subscription), [Opinion(UUID(event.id), "up")]))
    await asyncio.sleep(0.3)
    assert not asking.done()
    await bazaar.take([event])
    [accepted] = await asking
    assert accepted.request_id == UUID(event.id)


async def test_a_fresh_call_that_never_comes_is_not_found(control: Control, subscription: Subscription) -> None:
    impatient = Feedback(control.platform.db, control.market.clock, keep_days=1, patience=0.1)
    fresh = call_id(
        int(control.market.clock.now().timestamp() * 1000), Bazaar(control.platform.db, control.market.clock).chance
    )
    with pytest.raises(NotFound):
        await impatient.give(holder(subscription), [Opinion(fresh, "up")])


async def test_texts_are_kept_only_where_the_data_policy_lets_them(
    feedback: Feedback, bazaar: Bazaar, subscription: Subscription
) -> None:
    request = await called(bazaar, subscription)
    strict = holder(subscription, data={"regions": [], "retains_inputs": False})
    [accepted] = await feedback.give(strict, [Opinion(request, "down", None, "one two", "one too", "why")])
    assert accepted.kept == ("thumbs", "closeness")
    [kept] = (await feedback.received(partner(subscription.service.org))).items
    assert (kept.corrected, kept.comment, kept.thumbs) == (None, None, "down")
    assert kept.closeness is not None


@pytest.mark.parametrize(
    ("policy", "may"),
    [
        ({}, True),
        ({"data": None}, True),
        ({"data": {"regions": ["IN"]}}, True),
        ({"data": {"retains_inputs": False}}, False),
    ],
)
def test_the_data_policy_is_read_as_the_gateway_reads_it(policy: dict[str, object], may: bool) -> None:
    assert may_keep_texts(policy) is may


async def test_calls_of_test_keys_can_be_tried_with_and_count_for_nothing(
    feedback: Feedback, bazaar: Bazaar, subscription: Subscription
) -> None:
    request = await called(bazaar, subscription, mode="test")
    await feedback.give(holder(subscription), [Opinion(request, "up")])
    assert len((await feedback.given(consumer(subscription.org))).items) == 1
    assert (await feedback.received(partner(subscription.service.org))).items == []
    now = bazaar.clock.now()
    assert await feedback.outcomes_of(partner(subscription.service.org), subscription.service.id, now - DAY, now) == []


async def test_outcomes_are_counted_summed_and_squared_by_version_and_variant(
    feedback: Feedback, bazaar: Bazaar, subscription: Subscription
) -> None:
    said = [("1", "", "up", 5, None), ("1", "", "down", 2, None), ("1", "", None, 3, "abcd"),
            ("2", "a", "up", None, "abXX"), ("2", "b", "down", None, None)]  # fmt: skip
    for version, variant, thumbs, rating, corrected in said:
        request = await called(bazaar, subscription, version=version, variant=variant)
        opinion = Opinion(request, thumbs, rating, corrected, corrected and "abcd")  # type: ignore[arg-type]
        await feedback.give(holder(subscription), [opinion])
    await feedback.give(holder(subscription), [Opinion(await called(bazaar, subscription, hours=50), "up")])
    now = bazaar.clock.now()
    first, second, third = await feedback.outcomes_of(
        partner(subscription.service.org), subscription.service.id, now - DAY, now
    )
    assert [(one.version, one.variant) for one in (first, second, third)] == [("1", ""), ("2", "a"), ("2", "b")]
    assert first.thumbs == Figures(2, 1, 1) and first.thumbs.mean == 0.5 and first.thumbs.variance == 0.5
    assert first.rating == Figures(3, 10, 38) and first.rating.variance == pytest.approx(7 / 3)
    assert first.closeness == Figures(1, 1.0, 1.0) and first.closeness.variance is None
    assert second.closeness == Figures(1, 0.5, 0.25)
    assert third.rating == Figures() and third.rating.mean is None
    stranger = await bazaar.service("other", provider="akshara")
    assert await feedback.outcomes_of(partner(stranger.org), subscription.service.id, now - DAY, now) == []


async def test_the_same_hundred_said_eight_times_at_once_are_there_once(
    feedback: Feedback, bazaar: Bazaar, subscription: Subscription
) -> None:
    made = [bazaar.event(subscription, at=bazaar.clock.now() - timedelta(hours=1)) for _ in range(100)]
    await bazaar.take(made)
    opinions = [Opinion(UUID(event.id), "up") for event in made]
    orders = [sorted(opinions, key=lambda one, salt=salt: hash((salt, one.request_id))) for salt in range(8)]  # type: ignore[misc]
    done = await asyncio.gather(*(feedback.give(holder(subscription), order) for order in orders))
    assert [one.request_id for one in done[3]] == [one.request_id for one in orders[3]]
    assert sum(not one.replaced for accepted in done for one in accepted) == 100
    now = bazaar.clock.now()
    [outcome] = await feedback.outcomes_of(partner(subscription.service.org), subscription.service.id, now - DAY, now)
    assert outcome.thumbs == Figures(100, 100, 100)


async def test_pages_go_from_the_newest_call_on(feedback: Feedback, bazaar: Bazaar, subscription: Subscription) -> None:
    requests = sorted([await called(bazaar, subscription, hours=hours) for hours in (5, 4, 3)], reverse=True)
    await feedback.give(holder(subscription), [Opinion(one, "up") for one in requests])
    actor = consumer(subscription.org)
    first = await feedback.given(actor, limit=2)
    rest = await feedback.given(actor, limit=2, cursor=first.next)
    assert [one.request_id for one in (*first.items, *rest.items)] == requests
    assert rest.next is None
    assert (await feedback.given(actor, service_id=uuid4())).items == []
    with pytest.raises(InvalidRequest):
        await feedback.given(actor, cursor="nonsense")


async def test_tenants_see_nothing_of_each_other_below_the_application(
    feedback: Feedback, bazaar: Bazaar, subscription: Subscription, control: Control
) -> None:
    request = await called(bazaar, subscription)
    await feedback.give(holder(subscription), [Opinion(request, "up")])
    stranger = await bazaar.organisation("Stranger")
    seen = []
    for scope in (PUBLIC, tenant(stranger), tenant(subscription.service.org), tenant(subscription.org)):
        async with control.platform.db.transaction(scope) as connection:
            seen.append(len(await (await connection.execute("SELECT FROM feedback")).fetchall()))
            changed = await connection.execute("UPDATE feedback SET thumbs = 'up'")
            assert changed.rowcount == (1 if scope == tenant(subscription.org) else 0), "a provider only reads"
    assert seen == [0, 0, 1, 1]


async def test_what_was_said_can_be_taken_back_by_who_said_it(
    feedback: Feedback, bazaar: Bazaar, subscription: Subscription
) -> None:
    request = await called(bazaar, subscription)
    await feedback.give(holder(subscription), [Opinion(request, "up")])
    for actor in (consumer(new_id()), partner(subscription.service.org)):
        with pytest.raises(NotFound):
            await feedback.withdraw(actor, request)
    await feedback.withdraw(consumer(subscription.org), request)
    with pytest.raises(NotFound):
        await feedback.withdraw(consumer(subscription.org), request)
    assert (await feedback.received(partner(subscription.service.org))).items == []


async def test_a_consumer_is_no_provider(feedback: Feedback, subscription: Subscription) -> None:
    with pytest.raises(PermissionDenied):
        await feedback.received(consumer(subscription.org))


async def test_what_is_old_is_forgotten_every_night(
    control: Control, bazaar: Bazaar, subscription: Subscription
) -> None:
    platform = control.platform
    request = await called(bazaar, subscription)
    await platform.feedback.give(holder(subscription), [Opinion(request, "up")])
    control.market.clock.advance(days=platform.settings.feedback_keep_days - 1)
    await platform.jobs.tasks["feedback.forget"].run(platform, RunningJob(1, "feedback.forget", {}, 1, platform.db))
    assert len((await platform.feedback.given(consumer(subscription.org))).items) == 1
    control.market.clock.advance(days=2)
    await platform.jobs.tasks["feedback.forget"].run(platform, RunningJob(1, "feedback.forget", {}, 1, platform.db))
    assert (await platform.feedback.given(consumer(subscription.org))).items == []
    assert "feedback.forget" in [schedule.task for schedule in platform.jobs.schedules]


@pytest.mark.parametrize(
    ("opinions", "field"),
    [
        ([], "items"),
        ([Opinion(uuid4(), "up") for _ in range(101)], "items"),
        ([Opinion(uuid4())], "items.0.thumbs"),
        ([Opinion(UUID(int=1), "up"), Opinion(UUID(int=1), "down")], "items.1.request_id"),
        ([Opinion(uuid4(), rating=0)], "items.0.rating"),
        ([Opinion(uuid4(), rating=6)], "items.0.rating"),
        ([Opinion(uuid4(), "up", answered="x")], "items.0.answered"),
        ([Opinion(uuid4(), corrected="x" * 10_001)], "items.0.corrected"),
        ([Opinion(uuid4(), corrected="x", answered="x" * 10_001)], "items.0.answered"),
        ([Opinion(uuid4(), comment="x" * 2_001)], "items.0.comment"),
    ],
)
async def test_what_is_no_opinion_is_refused(
    feedback: Feedback, subscription: Subscription, opinions: list[Opinion], field: str
) -> None:
    with pytest.raises(ValidationFailed) as refused:
        await feedback.give(holder(subscription), opinions)
    assert refused.value.extensions["errors"][0]["field"] == field


@given(st.text(max_size=60), st.text(max_size=60))
def test_closeness_is_between_0_and_1_whatever_the_texts(one: str, other: str) -> None:
    like = closeness(Opinion(uuid4(), corrected=one, answered=other))
    assert like is not None and 0 <= like <= 1
    assert closeness(Opinion(uuid4(), corrected=one, answered=one)) == 1


@given(st.lists(st.floats(0, 5), max_size=30))
def test_figures_give_the_mean_and_the_variance_of_what_they_sum(values: list[float]) -> None:
    import statistics

    figures = Figures.of(values)
    assert figures.mean == (pytest.approx(statistics.fmean(values)) if values else None)
    expected = statistics.variance(values) if len(values) > 1 else None
    assert figures.variance == (pytest.approx(expected, abs=1e-6) if expected is not None else None)

"""Reviews: by those who use a listing, one each, answered once, hidden with a reason, and seen without their author."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bazaar import Bazaar, Service, consumer, partner
from haat.infra import events
from haat.infra.postgres import PLATFORM_SCOPE, PUBLIC, tenant
from haat.kernel.errors import (
    NotEnoughUse,
    NotFound,
    PermissionDenied,
    ReviewerRelated,
    ValidationFailed,
)
from haat.kernel.ids import new_id
from haat.kernel.permissions import Actor, Role
from haat.reviews.jobs import HANDLERS
from haat.reviews.model import Buyer, Standing, Use, buyer_of, checked_text, rounded, shrunk
from haat.reviews.service import Reviews
from haat.usage.event import Outcome
from office import Control

OPERATOR = Actor(new_id(), new_id(), Role.PLATFORM_ADMIN)


@pytest.fixture
def reviews(control: Control) -> Reviews:
    return control.platform.reviews


@pytest.fixture
async def service(bazaar: Bazaar) -> Service:
    return await bazaar.service()


async def buyer(bazaar: Bazaar, service: Service, calls: int = 20, **members: str) -> UUID:
    """Return an organisation that called a service so often two days ago."""
    org = await bazaar.organisation(f"Buyer {bazaar.counted}")
    await called(bazaar, org, service, calls, **members)
    return org


async def called(
    bazaar: Bazaar,
    org: UUID,
    service: Service,
    calls: int,
    *,
    days: float = 2,
    outcome: Outcome = Outcome.COMPLETED,
    **members: str,
) -> None:
    subscription = await bazaar.subscribe(org, service)
    at = bazaar.clock.now() - timedelta(days=days)
    made = [bazaar.event(subscription, at=at, outcome=outcome) for _ in range(calls)]
    for event in made:
        for name, value in members.items():
            setattr(event, name, value)
    await bazaar.take(made)


async def test_who_uses_a_service_reviews_it_once_and_may_change_that(
    reviews: Reviews, bazaar: Bazaar, service: Service
) -> None:
    actor = consumer(await buyer(bazaar, service))
    first = await reviews.write(actor, service.id, 4, "  Good  speech.\n\n\n\nA little slow. ")
    assert (first.stars, first.text, first.version) == (4, "Good speech.\n\nA little slow.", 1)
    again = await reviews.write(actor, service.id, 2, "Slower now.")
    assert (again.id, again.version, again.stars) == (first.id, 2, 2)
    assert [one.text for one in (await reviews.page(None, service.id)).items] == ["Slower now."]
    assert [(one.version, one.stars) for one in await reviews.history(actor, first.id)] == [(2, 2), (1, 4)]


@pytest.mark.parametrize(
    "members", [{"mode": "test"}, {"outcome": Outcome.REFUSED}, {"outcome": Outcome.PROVIDER_FAILED}]
)
async def test_what_was_not_billed_is_no_use(
    reviews: Reviews, bazaar: Bazaar, service: Service, members: dict[str, Any]
) -> None:
    actor = consumer(await buyer(bazaar, service, 19))
    assert actor.org_id is not None
    await called(bazaar, actor.org_id, service, 5, **members)
    leave = await reviews.leave(actor, service.id)
    assert (leave.calls, leave.least_calls, leave.days, leave.obstacle) == (19, 20, 90, "use")
    with pytest.raises(NotEnoughUse, match="19 completed calls") as refused:
        await reviews.write(actor, service.id, 5, "Splendid.")
    assert refused.value.extensions == {"calls": 19, "least_calls": 20}
    await called(bazaar, actor.org_id, service, 1)
    assert (await reviews.leave(actor, service.id)).obstacle == ""
    await reviews.write(actor, service.id, 5, "Splendid.")


async def test_what_is_long_ago_is_no_use(reviews: Reviews, bazaar: Bazaar, service: Service) -> None:
    actor = consumer(await buyer(bazaar, service))
    assert actor.org_id is not None and (await reviews.leave(actor, service.id)).calls == 20
    bazaar.clock.advance(days=89)
    assert (await reviews.leave(actor, service.id)).calls == 0
    with pytest.raises(NotEnoughUse):
        await reviews.write(actor, service.id, 5, "It was good once.")


async def test_calls_that_another_provider_executed_are_no_use(
    reviews: Reviews, bazaar: Bazaar, service: Service
) -> None:
    spare = await bazaar.service("spare", provider="akshara")
    org = await buyer(bazaar, service, executed_by=str(spare.id), provider=spare.provider, provider_org=str(spare.org))
    with pytest.raises(NotEnoughUse):
        await reviews.write(consumer(org), service.id, 1, "Never answered.")


async def test_a_review_stays_its_authors_to_change_when_the_use_is_over(
    reviews: Reviews, bazaar: Bazaar, service: Service
) -> None:
    actor = consumer(await buyer(bazaar, service))
    await reviews.write(actor, service.id, 5, "Splendid.")
    bazaar.clock.advance(days=120)
    assert (await reviews.write(actor, service.id, 3, "It was splendid.")).version == 2
    await reviews.withdraw(actor, service.id)
    with pytest.raises(NotEnoughUse):
        await reviews.write(actor, service.id, 5, "Splendid after all.")


async def test_who_is_related_to_the_provider_does_not_review(
    reviews: Reviews, bazaar: Bazaar, service: Service, control: Control
) -> None:
    await bazaar.run("UPDATE partners SET gstin = '29ABCDE1234F1Z5' WHERE org_id = %s", service.org)
    own, operators = service.org, await bazaar.organisation("Operator", kind="operator")
    sister = await bazaar.organisation("Sister", gstin="27ABCDE1234F2Z8")
    other = await bazaar.organisation("Other", gstin="27ABCDE1235F2Z8")
    friend = await bazaar.organisation("Friend")
    person = await control.market.consumer()
    for org, role in ((service.org, "partner_admin"), (friend, "api_consumer")):
        await bazaar.run("INSERT INTO memberships VALUES (%s, %s, %s, now())", person.user_id, org, role)
    for org in (own, operators, sister, friend, other):
        await called(bazaar, org, service, 20)
    for org in (own, operators, sister, friend):
        assert (await reviews.leave(consumer(org), service.id)).obstacle == "related"
        with pytest.raises(ReviewerRelated):
            await reviews.write(consumer(org), service.id, 5, "The best there is.")
    await reviews.write(consumer(other), service.id, 5, "The best there is.")
    await bazaar.run("INSERT INTO memberships VALUES (%s, %s, 'api_consumer', now())", person.user_id, other)
    assert (await reviews.page(None, service.id)).items == [], "whoever becomes related is shown no more"


async def test_a_review_is_withdrawn_by_its_author_alone(reviews: Reviews, bazaar: Bazaar, service: Service) -> None:
    actor = consumer(await buyer(bazaar, service))
    written = await reviews.write(actor, service.id, 1, "Bad.")
    for stranger in (consumer(new_id()), partner(service.org)):
        with pytest.raises(NotFound):
            await reviews.withdraw(stranger, service.id)
        with pytest.raises(NotFound):
            await reviews.history(stranger, written.id)
    await reviews.withdraw(actor, service.id)
    with pytest.raises(NotFound):
        await reviews.withdraw(actor, service.id)
    assert await reviews.own(actor, service.id) is None
    assert (await reviews.page(None, service.id)).items == []
    assert (await reviews.received(partner(service.org))).items == []
    assert (await reviews.standings([service.id]))[service.id] == Standing()
    again = await reviews.write(actor, service.id, 2, "Bad, but better.")
    assert (again.id, again.version, again.withdrawn_at) == (written.id, 2, None)


async def test_the_provider_answers_once_and_the_answer_says_to_which_version(
    reviews: Reviews, bazaar: Bazaar, service: Service
) -> None:
    actor, owner = consumer(await buyer(bazaar, service)), partner(service.org)
    written = await reviews.write(actor, service.id, 2, "Slow.")
    await reviews.reply(owner, written.id, "We added machines.")
    replied = await reviews.reply(owner, written.id, "We have added machines.")
    assert (replied.reply, replied.reply_to) == ("We have added machines.", 1)
    assert (await reviews.write(actor, service.id, 4, "Fast now.")).reply_to == 1
    stranger = await bazaar.service("other", provider="akshara")
    with pytest.raises(NotFound):
        await reviews.reply(partner(stranger.org), written.id, "Use ours.")
    with pytest.raises(PermissionDenied):
        await reviews.reply(actor, written.id, "Indeed.")
    with pytest.raises(ValidationFailed):
        await reviews.reply(owner, written.id, "  ")
    await reviews.take_back_reply(owner, written.id)
    assert (await reviews.page(None, service.id)).items[0].reply is None
    with pytest.raises(NotFound):
        await reviews.take_back_reply(owner, written.id)


async def test_the_operator_hides_a_review_and_its_author_is_told_why(
    reviews: Reviews, bazaar: Bazaar, service: Service, control: Control
) -> None:
    person = await control.market.consumer()
    assert person.org_id is not None
    await called(bazaar, person.org_id, service, 20)
    written = await reviews.write(person, service.id, 1, "Ask Mr A, 98100 00000.")
    with pytest.raises(PermissionDenied):
        await reviews.hide(partner(service.org), written.id, "We don't like it")
    with pytest.raises(ValidationFailed):
        await reviews.hide(OPERATOR, written.id, "")
    hidden = await reviews.hide(OPERATOR, written.id, "It names a person.")
    assert (await reviews.page(None, service.id)).items == []
    assert [one.hidden_reason for one in (await reviews.received(partner(service.org))).items] == ["It names a person."]
    changed = await reviews.write(person, service.id, 1, "Ask them.")
    assert (changed.hidden_reason, changed.hidden_at) == ("It names a person.", hidden.hidden_at), "until it is shown"
    assert [one.id for one in (await reviews.directory(OPERATOR, hidden=True)).items] == [written.id]
    found = await control.market.events(f"review/{written.id}")
    assert [one.type for one in found] == ["review.written", "review.hidden", "review.changed"]
    [mail_author] = [one for one in HANDLERS if "review.hidden" in one.types]
    await mail_author.run(control.platform, found[1])
    [mail] = control.platform.mail.sent  # type: ignore[attr-defined]  # the tests' own post box
    assert "It names a person." in mail["text"] and mail["subject"] == "Your review of Speak is hidden"
    await reviews.show(OPERATOR, written.id)
    assert len((await reviews.page(None, service.id)).items) == 1
    await reviews.show(OPERATOR, written.id)
    assert len(await control.market.events(f"review/{written.id}")) == 4, "twice changes nothing"


async def test_events_hold_no_texts(reviews: Reviews, bazaar: Bazaar, service: Service, control: Control) -> None:
    actor = consumer(await buyer(bazaar, service))
    written = await reviews.write(actor, service.id, 3, "A private word.")
    await reviews.reply(partner(service.org), written.id, "A private answer.")
    async with control.platform.db.transaction(PLATFORM_SCOPE) as connection:
        found = await events.read_stream(connection, f"review/{written.id}")
    assert [one.type for one in found] == ["review.written", "review.replied"]
    assert "private" not in str([one.data for one in found])
    assert {one.org for one in found} == {actor.org_id}


async def test_an_average_is_told_from_three_reviews_on_and_leans_to_the_middle(
    reviews: Reviews, bazaar: Bazaar, service: Service
) -> None:
    authors = [await buyer(bazaar, service, version=version) for version in ("2", "2", "1")]
    for count, author in enumerate(authors):
        assert (await reviews.standings([service.id]))[service.id].mean is None
        await reviews.write(consumer(author), service.id, 5, f"Review {count}.")
    assert (await reviews.standings([service.id]))[service.id] == Standing(3, Decimal("4.1"), "2")
    page = await reviews.page(None, service.id, limit=2)
    rest = await reviews.page(None, service.id, limit=2, cursor=page.next)
    assert [one.text for one in (*page.items, *rest.items)] == ["Review 2.", "Review 1.", "Review 0."]


async def test_an_author_is_described_only_among_enough_buyers(
    reviews: Reviews, bazaar: Bazaar, service: Service
) -> None:
    first = await buyer(bazaar, service, 120)
    assert (await reviews.write(consumer(first), service.id, 4, "Good.")).buyer == Buyer(None, None)
    for _ in range(4):
        await buyer(bazaar, service, 1)
    told = (await reviews.write(consumer(first), service.id, 4, "Good.")).buyer
    assert told == Buyer(bazaar.clock.now().date().replace(day=1), 100)


async def test_tenants_see_nothing_of_each_other_below_the_application(
    reviews: Reviews, bazaar: Bazaar, service: Service, control: Control
) -> None:
    author, stranger = await buyer(bazaar, service), await bazaar.organisation("Stranger")
    await reviews.write(consumer(author), service.id, 4, "Good.")
    for table in ("reviews", "review_history"):
        seen = []
        for scope in (PUBLIC, tenant(stranger), tenant(service.org), tenant(author)):
            async with control.platform.db.transaction(scope) as connection:
                seen.append(len(await (await connection.execute(f"SELECT FROM {table}")).fetchall()))
        assert seen == [0, 0, 0, 1], table
    async with control.platform.db.transaction(tenant(stranger)) as connection:
        assert (await connection.execute("UPDATE reviews SET stars = 1")).rowcount == 0


async def test_a_listing_that_one_may_not_see_has_no_reviews(
    reviews: Reviews, bazaar: Bazaar, service: Service
) -> None:
    author = await buyer(bazaar, service)
    await reviews.write(consumer(author), service.id, 4, "Good.")
    await bazaar.run("UPDATE services SET visibility = 'invited' WHERE id = %s", service.id)
    with pytest.raises(NotFound):
        await reviews.page(None, service.id)
    await reviews.withdraw(consumer(author), service.id)  # it stays its author's


async def test_twenty_at_once_make_one_review_with_all_its_history(
    reviews: Reviews, bazaar: Bazaar, service: Service
) -> None:
    actor = consumer(await buyer(bazaar, service))
    made = await asyncio.gather(*(reviews.write(actor, service.id, 3, f"Word {n}.") for n in range(20)))
    assert len({one.id for one in made}) == 1
    assert sorted(one.version for one in made) == list(range(1, 21))
    assert len(await reviews.history(actor, made[0].id)) == 20
    assert len((await reviews.page(None, service.id)).items) == 1


async def test_answer_change_and_hiding_at_once_lose_nothing(
    reviews: Reviews, bazaar: Bazaar, service: Service, control: Control
) -> None:
    actor, owner = consumer(await buyer(bazaar, service)), partner(service.org)
    written = await reviews.write(actor, service.id, 3, "First.")
    await asyncio.gather(
        *(reviews.write(actor, service.id, 3, f"Word {n}.") for n in range(5)),
        *(reviews.reply(owner, written.id, f"Answer {n}.") for n in range(5)),
        reviews.hide(OPERATOR, written.id, "A reason."),
    )
    [found] = (await reviews.received(owner)).items
    assert (found.version, found.hidden_reason) == (6, "A reason.") and found.reply is not None
    assert len(await control.market.events(f"review/{written.id}")) == 12


@pytest.mark.parametrize(("stars", "text", "field"), [(0, "x", "stars"), (6, "x", "stars"), (3, " \n ", "text"),
                                                       (3, "x" * 1001, "text"), (3, "a\u202eb", "text")])  # fmt: skip
async def test_what_is_no_review_is_refused_by_its_field(
    reviews: Reviews, bazaar: Bazaar, service: Service, stars: int, text: str, field: str
) -> None:
    actor = consumer(await buyer(bazaar, service))
    with pytest.raises(ValidationFailed) as refused:
        await reviews.write(actor, service.id, stars, text)
    assert refused.value.extensions["errors"][0]["field"] == field


@given(st.lists(st.integers(1, 5), max_size=200))
def test_a_mean_lies_between_the_reviews_and_the_middle(stars: list[int]) -> None:
    mean = shrunk(len(stars), sum(stars))
    if len(stars) < 3:
        assert mean is None
    else:
        plain = sum(stars) / len(stars)
        assert mean is not None and min(plain, 3.5) - 0.05 <= float(mean) <= max(plain, 3.5) + 0.05


@given(st.integers(0, 10**12))
def test_calls_are_rounded_down_to_one_two_or_five_and_zeros(calls: int) -> None:
    told = rounded(calls)
    assert told <= calls and (told == 0) == (calls < 100)
    assert not told or (str(told)[0] in "125" and set(str(told)[1:]) == {"0"} and calls < told * 2.5)


def test_a_buyer_among_few_is_not_described() -> None:
    use = Use(50, 1234, None, 9, "1")
    assert buyer_of(use) == Buyer(None, None)


def test_marks_that_scripts_need_are_kept() -> None:
    assert checked_text("क्\u200dष अच्छा है") == "क्\u200dष अच्छा है"

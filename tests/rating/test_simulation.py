"""What a month would have cost on another card: to whom it may be told, and that nothing is kept of it."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from bazaar import Bazaar, Subscription, consumer, partner
from haat.catalog.drafts import PriceDraft
from haat.kernel.clock import SetClock, month_period
from haat.kernel.errors import NotFound, ValidationFailed
from haat.kernel.permissions import PLATFORM
from haat.rating.simulation import Simulator
from haat.usage.model import Pseudonyms
from rating.stalls import meter, price

D = Decimal
LAST = month_period(2026, 10, "Asia/Kolkata")


@pytest.fixture
def bazaar(database: Any, clock: SetClock) -> Bazaar:
    return Bazaar(database.service, clock)


@pytest.fixture
def simulator(database: Any, clock: SetClock) -> Simulator:
    return Simulator(database.app, clock, Pseudonyms(bytes(32)))


def card(**members: Any) -> PriceDraft:
    draft: PriceDraft = PriceDraft.parse(members)
    return draft


async def sold(bazaar: Bazaar, *quantities: str) -> list[Subscription]:
    """Sell to one organisation after the other last month."""
    service = await bazaar.service(price="0.05")
    found = []
    for number, quantity in enumerate(quantities):
        subscription = await bazaar.subscribe(await bazaar.organisation(f"O{number}"), service)
        await bazaar.take([bazaar.event(subscription, quantity, at=LAST.end - timedelta(days=2))])
        found.append(subscription)
    return found


async def test_a_provider_sees_what_all_its_customers_would_have_paid_without_learning_who_they_are(
    bazaar: Bazaar, simulator: Simulator
) -> None:
    first, second = await sold(bazaar, "100", "1000")
    tiers = [{"up_to": "500", "unit_price": "0.05"}, {"unit_price": "0.01"}]
    draft = card(components=[{"model": "graduated", "meter": "characters", "tiers": tiers}])
    found = await simulator.simulate(partner(first.service.org), first.service.id, draft=draft)
    assert (found.period, found.present, found.simulated, found.difference) == ("2026-10", 55, 35, -20)
    assert [(one.calls, one.present, one.simulated) for one in found.customers] == [(1, 50, 30), (1, 5, 5)]
    assert all(one.customer.startswith("customer-") for one in found.customers)
    assert str(second.org) not in str(found)


async def test_a_customer_sees_its_own_and_no_other(bazaar: Bazaar, simulator: Simulator) -> None:
    first, second = await sold(bazaar, "100", "1000")
    draft = card(unit_price="0.10")
    found = await simulator.simulate(consumer(first.org), first.service.id, draft=draft)
    assert [(one.customer, one.simulated) for one in found.customers] == [(str(first.org), 10)]
    for whose in (second.org, first.service.org):
        with pytest.raises(NotFound):
            await simulator.simulate(consumer(first.org), first.service.id, draft=draft, org=whose)
    stranger = await bazaar.organisation("Stranger")
    with pytest.raises(NotFound):
        await simulator.simulate(consumer(stranger), first.service.id, draft=draft)
    other = await bazaar.service("read", "akshara")
    with pytest.raises(NotFound):
        await simulator.simulate(partner(other.org), first.service.id, draft=draft)


async def test_a_card_for_a_plan_changes_nothing_for_the_others_and_a_plan_moves_everybody(
    bazaar: Bazaar, simulator: Simulator
) -> None:
    [one] = await sold(bazaar, "100")
    pro = card(unit_price="1", plan_code="professional")
    same = await simulator.simulate(PLATFORM, one.service.id, draft=pro)
    assert same.present == same.simulated == 5
    moved = await simulator.simulate(PLATFORM, one.service.id, draft=pro, plan="professional")
    assert (moved.present, moved.simulated) == (5, 100)
    await price(bazaar, one.service, {"model": "flat", "amount": "700"}, plan_code="enterprise")
    await bazaar.run("UPDATE subscriptions SET started_at = %s", LAST.start - timedelta(days=1))
    on_plan = await simulator.simulate(PLATFORM, one.service.id, plan="enterprise", org=one.org)
    assert [(charge.kind, charge.amount) for charge in on_plan.customers[0].charges] == [("fee", 700)]


async def test_the_present_month_so_far_and_meters_of_the_listings_own_can_be_tried(
    bazaar: Bazaar, simulator: Simulator
) -> None:
    [one] = await sold(bazaar, "100")
    await meter(bazaar, one.service, name="urdu", measure="characters", filter={"language_pairs": ["hi>ur"]})
    await bazaar.take([bazaar.event(one, "30", language_pair="hi>ur"), bazaar.event(one, "7")])
    draft = card(components=[{"model": "package", "meter": "urdu", "package_size": "20", "package_price": "9"}])
    found = await simulator.simulate(PLATFORM, one.service.id, period="2026-11", draft=draft)
    assert (found.present, found.simulated, found.unpriced) == (D("1.85"), 18, 1)


async def test_what_can_not_be_charged_is_refused(bazaar: Bazaar, simulator: Simulator) -> None:
    [one] = await sold(bazaar, "100")
    for draft in (
        None,
        card(components=[{"model": "unit", "meter": "words", "unit_price": "1"}]),
        card(unit_price="1", effective_from="2026-12-31T00:00:00+05:30"),
    ):
        with pytest.raises(ValidationFailed):
            await simulator.simulate(PLATFORM, one.service.id, draft=draft)


async def test_nothing_is_stored(bazaar: Bazaar, simulator: Simulator) -> None:
    [one] = await sold(bazaar, "100")
    before = await bazaar.rows("SELECT count(*) AS cards FROM rate_cards")
    await simulator.simulate(PLATFORM, one.service.id, draft=card(unit_price="9"))
    assert await bazaar.rows("SELECT count(*) AS cards FROM rate_cards") == before


@pytest.mark.parametrize(
    ("asked", "field", "reason"),
    [
        ({"plan": "nothing-like-it"}, "plan", "there are"),
        ({"draft": card(unit_price="1", plan_code="gone")}, "card.plan_code", "no plan gone"),
        ({"plan": "basic", "period": "2027-05"}, "period", "has not begun"),
        ({}, "card", "Name a card"),
    ],
)
async def test_what_can_not_be_answered_is_refused_with_its_field(
    bazaar: Bazaar, simulator: Simulator, asked: dict[str, Any], field: str, reason: str
) -> None:
    (subscription,) = await sold(bazaar, "100")
    with pytest.raises(ValidationFailed) as refused:
        await simulator.simulate(consumer(subscription.org), subscription.service.id, **asked)
    (error,) = refused.value.extensions["errors"]
    assert error["field"] == field and reason in error["message"]

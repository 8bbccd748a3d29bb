"""Rating is exact, blind to order, and equal to a reference written from the definitions."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haat.kernel.clock import month_period
from haat.rating.model import Charge, Measured, RateCard, rate, windows

PERIOD = month_period(2026, 11, "Asia/Kolkata")
SERVICES = [UUID(int=1), UUID(int=2)]
SUBSCRIPTIONS = [UUID(int=11), UUID(int=12)]
PROVIDERS = [UUID(int=21), UUID(int=22)]
PLANS = [None, "basic", "free"]
UNITS = ["requests", "characters"]


def moment(minutes: int) -> datetime:
    return PERIOD.start + timedelta(minutes=minutes)


def card(
    number: int,
    *,
    price: str,
    free: str = "0",
    plan: str | None = None,
    start: datetime = datetime(2026, 1, 1, tzinfo=UTC),
    service: UUID = SERVICES[0],
    unit: str = "characters",
) -> RateCard:
    return RateCard(
        UUID(int=100 + number), service, number, plan, unit, Decimal(price), Decimal(free), Decimal("0.7"), start
    )


def used(quantity: str, minutes: int = 0, plan: str | None = None) -> Measured:
    return Measured(
        SUBSCRIPTIONS[0], SERVICES[0], plan, PROVIDERS[0], moment(minutes), {"characters": Decimal(quantity)}
    )


prices = st.decimals(min_value=0, max_value=1000, places=12)
quantities = st.decimals(min_value=0, max_value=10**9, places=6)


@st.composite
def card_sets(draw: st.DrawFn) -> list[RateCard]:
    places = draw(
        st.lists(
            st.tuples(st.sampled_from(SERVICES), st.sampled_from(PLANS), st.integers(-5000, 43199)),
            unique=True,
            max_size=8,
        )
    )
    return [
        RateCard(
            UUID(int=100 + number),
            service,
            number,
            plan,
            draw(st.sampled_from(UNITS)),
            draw(prices),
            draw(quantities),
            Decimal("0.7"),
            moment(minutes),
        )
        for number, (service, plan, minutes) in enumerate(places, 1)
    ]


usage = st.builds(
    Measured,
    st.sampled_from(SUBSCRIPTIONS),
    st.sampled_from(SERVICES),
    st.sampled_from(PLANS),
    st.sampled_from(PROVIDERS),
    st.integers(0, 43199).map(moment),
    st.dictionaries(st.sampled_from(UNITS), quantities, max_size=2),
    cached_share=st.sampled_from([None, None, Decimal("0.25"), Decimal("0"), Decimal("1.000")]),
)


def reference(calls: list[Measured], cards: list[RateCard]) -> dict[tuple[object, ...], Fraction]:
    """Charge every call by the definitions, in fractions; return what each (subscription, card, …) owes."""
    grouped: dict[tuple[object, ...], Fraction] = defaultdict(Fraction)
    begun: dict[tuple[object, ...], tuple[datetime, RateCard]] = {}
    for call in calls:
        holding = [
            one
            for one in cards
            if one.service == call.service and one.plan in (None, call.plan) and one.effective_from <= call.at
        ]
        if not holding:
            continue
        price = max(holding, key=lambda one: (one.plan is not None, one.effective_from))
        key = (call.subscription, price.id, call.plan, call.provider_org, call.cached_share)
        grouped[key] += Fraction(call.units.get(price.unit, Decimal(0)))
        begun[key] = (max(price.effective_from, PERIOD.start), price)
    owed: dict[tuple[object, ...], Fraction] = {}
    given_away: dict[tuple[object, str], Fraction] = defaultdict(Fraction)
    order = sorted(
        grouped,
        key=lambda key: (
            str(key[0]),
            begun[key][0],
            -Fraction(begun[key][1].unit_price) * Fraction(str(1 if key[4] is None else key[4])),
            key[4] is not None,
            str(begun[key][1].service),
            key[2] or "",
            begun[key][1].version,
            str(key[3]),
        ),
    )
    for place in order:
        price = begun[place][1]
        account = (place[0], price.unit)
        free = min(grouped[place], max(Fraction(0), Fraction(price.free_units) - given_away[account]))
        given_away[account] += free
        owed[place] = (grouped[place] - free) * Fraction(price.unit_price)
        if place[4] is not None:
            owed[place] *= Fraction(str(place[4]))
    return owed


def amounts(charges: list[Charge]) -> dict[tuple[object, ...], Fraction]:
    return {
        (
            charge.subscription,
            charge.card.id,
            charge.plan,
            charge.provider_org,
            charge.cached_share,
        ): Fraction(charge.amount)
        for charge in charges
    }


@settings(max_examples=300, deadline=None)
@given(st.lists(usage, max_size=25), card_sets())
def test_rating_differs_from_the_reference_by_exactly_nothing(calls: list[Measured], cards: list[RateCard]) -> None:
    assert amounts(list(rate(calls, cards, PERIOD).charges)) == reference(calls, cards)


@settings(max_examples=100, deadline=None)
@given(st.lists(usage, max_size=25), card_sets(), st.randoms(use_true_random=False))
def test_the_order_of_calls_and_cards_does_not_matter(calls: list[Measured], cards: list[RateCard], chance) -> None:  # type: ignore[no-untyped-def]
    shuffled_calls, shuffled_cards = chance.sample(calls, len(calls)), chance.sample(cards, len(cards))
    assert rate(shuffled_calls, shuffled_cards, PERIOD).charges == rate(calls, cards, PERIOD).charges


@settings(max_examples=100, deadline=None)
@given(st.lists(usage, min_size=1, max_size=15), card_sets(), quantities)
def test_one_call_split_in_two_costs_what_it_cost_whole(
    calls: list[Measured], cards: list[RateCard], extra: Decimal
) -> None:
    one = calls[0]
    units = dict.fromkeys(UNITS, extra)
    part = Measured(
        one.subscription, one.service, one.plan, one.provider_org, one.at, units, cached_share=one.cached_share
    )
    whole = Measured(
        one.subscription,
        one.service,
        one.plan,
        one.provider_org,
        one.at,
        {unit: one.units.get(unit, Decimal(0)) + extra for unit in UNITS},
        cached_share=one.cached_share,
    )
    split = rate([*calls, part], cards, PERIOD).charges
    assert amounts(list(split)) == amounts(list(rate([whole, *calls[1:]], cards, PERIOD).charges))


@settings(max_examples=100, deadline=None)
@given(st.lists(usage, max_size=25), card_sets())
def test_a_subscription_gets_no_more_free_units_than_its_best_card_gives(
    calls: list[Measured], cards: list[RateCard]
) -> None:
    given_away: dict[tuple[UUID, str], Decimal] = defaultdict(Decimal)
    for charge in rate(calls, cards, PERIOD).charges:
        assert 0 <= charge.free_units <= charge.quantity
        given_away[charge.subscription, charge.card.unit] += charge.free_units
    for (_, unit), free in given_away.items():
        assert free <= max(one.free_units for one in cards if one.unit == unit)


@settings(max_examples=100, deadline=None)
@given(st.lists(usage, max_size=25), st.integers(0, 25), prices, quantities)
def test_a_month_billed_in_two_parts_costs_what_it_costs_at_once(
    calls: list[Measured], cut: int, price: Decimal, free: Decimal
) -> None:
    asked = [replace(call, cached_share=None) for call in calls]
    parts, at_once = billed_in_two_parts(asked, cut, price, free)
    assert owed_in_all(parts) == owed_in_all(at_once)


@settings(max_examples=100, deadline=None)
@given(st.lists(usage, max_size=25), st.integers(0, 25), prices, quantities)
def test_free_units_that_an_issued_bill_gave_to_cached_answers_are_not_moved(
    calls: list[Measured], cut: int, price: Decimal, free: Decimal
) -> None:
    parts, at_once = billed_in_two_parts(calls, cut, price, free)
    assert free_in_all(parts) == free_in_all(at_once)
    to_cached = sum(charge.free_units for charge in parts if charge.cached_share is not None)
    assert owed_in_all(at_once) <= owed_in_all(parts) <= owed_in_all(at_once) + Fraction(to_cached) * Fraction(price)


def billed_in_two_parts(
    calls: list[Measured], cut: int, price: Decimal, free: Decimal
) -> tuple[list[Charge], list[Charge]]:
    """Return the charges of two bills, one after the other, and those of one bill."""
    cards = [card(number, price=str(price), free=str(free), service=service) for number, service in enumerate(SERVICES)]
    first = rate(calls[:cut], cards, PERIOD).charges
    free_used: dict[tuple[UUID, str], Decimal] = defaultdict(Decimal)
    for charge in first:
        free_used[charge.subscription, charge.card.unit] += charge.free_units
    second = rate(calls[cut:], cards, PERIOD, free_used).charges
    return [*first, *second], list(rate(calls, cards, PERIOD).charges)


def free_in_all(charges: list[Charge]) -> Fraction:
    return sum((Fraction(charge.free_units) for charge in charges), Fraction(0))


def owed_in_all(charges: list[Charge]) -> Fraction:
    return sum((Fraction(charge.amount) for charge in charges), Fraction(0))


@settings(max_examples=100, deadline=None)
@given(card_sets(), st.sampled_from(PLANS))
def test_windows_follow_each_other_without_gap_or_overlap(cards: list[RateCard], plan: str | None) -> None:
    found = windows(cards, SERVICES[0], plan, PERIOD)
    for earlier, later in pairwise(found):
        assert earlier.end == later.start
    if found:
        assert found[0].start >= PERIOD.start and found[-1].end == PERIOD.end


def test_a_price_change_in_the_middle_of_the_month_makes_two_charges() -> None:
    cards = [card(1, price="0.01"), card(2, price="0.02", start=moment(1000))]
    charges = rate([used("100", 999), used("10", 1000)], cards, PERIOD).charges
    assert [(charge.card.version, charge.amount) for charge in charges] == [(1, Decimal("1")), (2, Decimal("0.2"))]
    assert charges[0].end == charges[1].start == moment(1000)


def test_a_card_of_the_plan_wins_over_the_general_one_even_over_a_newer_one() -> None:
    cards = [card(1, price="5", start=moment(50)), card(2, price="1", plan="basic", start=moment(10))]
    charges = rate([used("1", 60, "basic"), used("1", 60)], cards, PERIOD).charges
    assert {(charge.plan, charge.amount) for charge in charges} == {("basic", Decimal(1)), (None, Decimal(5))}


def test_free_units_are_given_once_although_the_price_changed() -> None:
    cards = [card(1, price="1", free="10"), card(2, price="1", free="12", start=moment(1000))]
    charges = rate([used("10"), used("10", 1000)], cards, PERIOD).charges
    assert [charge.free_units for charge in charges] == [10, 2]


def test_usage_before_the_first_price_is_shown_and_not_charged() -> None:
    rated = rate([used("7", 5)], [card(1, price="1", start=moment(10))], PERIOD)
    assert not rated.charges and rated.unpriced[0].units["characters"] == 7


def test_usage_outside_of_the_period_is_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        rate([used("1", -1)], [card(1, price="1")], PERIOD)


def test_a_negative_quantity_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        rate([used("-1")], [card(1, price="1")], PERIOD)


def test_a_float_price_is_refused() -> None:
    with pytest.raises(TypeError):
        RateCard(UUID(int=1), UUID(int=2), 1, None, "requests", 0.1, Decimal(0), Decimal(0), PERIOD.start)  # type: ignore[arg-type]


def test_twelve_decimals_and_large_quantities_stay_exact() -> None:
    charge = rate([used("999999999999.999999")], [card(1, price="0.000000000001")], PERIOD).charges[0]
    assert charge.amount == Decimal("0.999999999999999999")


def test_an_answer_out_of_the_cache_costs_the_plans_share_and_takes_free_units_last() -> None:
    asked = used("10", plan="basic")
    quarter = Decimal("0.25")
    cached = Measured(*asked_place(asked), {"characters": Decimal(8)}, calls=4, cached_share=quarter)
    [full, part] = rate([cached, asked], [card(1, price="0.3", free="12")], PERIOD).charges
    assert (full.cached_share, full.free_units, full.amount) == (None, 10, 0)
    assert (part.cached_share, part.free_units, part.billable) == (Decimal("0.25"), 2, 6)
    assert part.amount == Decimal("0.45")  # 6 × 0.3 × 0.25


def asked_place(one: Measured) -> tuple[UUID, UUID, str | None, UUID, datetime]:
    return one.subscription, one.service, one.plan, one.provider_org, one.at

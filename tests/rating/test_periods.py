"""A period costs what it costs: whatever the order, in however many parts it is billed, and late usage included."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haat.kernel.prices import UNIT_METERS, Component, Filter, Meter, Tier
from haat.rating.model import Charge, Held, Issued, Measured, RateCard, rate
from rating.cases import PERIOD, PROVIDERS, SERVICES, SUBSCRIPTIONS, Case, call, card, case

D = Decimal
WHOLE = Held(SUBSCRIPTIONS[0], SERVICES[0], None, PROVIDERS[0], PERIOD.start, PERIOD.end)
CHARACTERS = UNIT_METERS["characters"]


def on_card(*parts: Component, minimum: str = "0", number: int = 1) -> RateCard:
    return RateCard(
        UUID(int=100 + number), SERVICES[0], number, None, "characters", D(0), D(0), D("0.7"), PERIOD.start, parts,
        D(minimum),
    )  # fmt: skip


def used(quantity: str, minutes: int = 0, **more: object) -> Measured:
    at = PERIOD.start + timedelta(minutes=minutes)
    units = {"characters": D(quantity), "requests": D(1)}
    return Measured(SUBSCRIPTIONS[0], SERVICES[0], None, PROVIDERS[0], at, units, **more)  # type: ignore[arg-type]


def issued_of(charges: list[Charge]) -> list[Issued]:
    return [
        Issued(
            one.subscription,
            one.meter or one.card.unit,
            one.card.id,
            one.plan,
            one.provider_org,
            one.quantity,
            one.free_units,
            one.amount,
            one.kind,
            one.cached_share,
        )
        for one in charges
    ]


def billed_in_parts(one: Case, cuts: list[int]) -> list[Charge]:
    """Bill usage part by part; the last part but one closes the period, the last one comes late."""
    charges: list[Charge] = []
    edges = [0, *sorted(min(cut, len(one.usage)) for cut in cuts), len(one.usage)]
    for number, (start, end) in enumerate(pairwise(edges)):
        seen = [replace(usage, before=place < start) for place, usage in enumerate(one.usage[:end])]
        final = number >= len(edges) - 3
        charges += rate(seen, one.cards, PERIOD, issued_of(charges), one.held, final=final).charges
    return charges


def owed(charges: list[Charge]) -> Fraction:
    return sum((Fraction(one.amount) for one in charges), Fraction(0))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9), st.lists(st.integers(0, 12), min_size=1, max_size=3))
def test_a_period_billed_in_parts_costs_what_it_costs_at_once(seed: int, cuts: list[int]) -> None:
    chance = random.Random(seed)
    asking = replace(card(chance, 1, None, PERIOD.start), service=SERVICES[0])
    usage = [replace(call(chance), cached_share=None, counted=None, before=False) for _ in range(chance.randint(0, 12))]
    held = [WHOLE] if chance.random() < 0.5 else []
    one = Case([asking], usage, held, [])
    assert owed(billed_in_parts(one, cuts)) == owed(list(rate(usage, [asking], PERIOD, None, held).charges))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9))
def test_the_order_of_usage_cards_and_subscriptions_does_not_matter(seed: int) -> None:
    chance = random.Random(seed)
    one = case(chance)
    told = rate(one.usage, one.cards, PERIOD, one.issued, one.held)
    again = rate(
        chance.sample(one.usage, len(one.usage)),
        chance.sample(one.cards, len(one.cards)),
        PERIOD,
        one.issued,
        chance.sample(one.held, len(one.held)),
    )
    assert told.charges == again.charges


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**9))
def test_running_twice_owes_nothing_the_second_time(seed: int) -> None:
    one = case(random.Random(seed))
    first = list(rate(one.usage, one.cards, PERIOD, None, one.held).charges)
    again = rate([replace(usage, before=True) for usage in one.usage], one.cards, PERIOD, issued_of(first), one.held)
    assert not any(charge.amount or charge.calls for charge in again.charges)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**9))
def test_steps_say_how_each_amount_comes_together(seed: int) -> None:
    one = case(random.Random(seed))
    for charge in rate(one.usage, one.cards, PERIOD, one.issued, one.held).charges:
        assert charge.steps is not None
        assert sum((Fraction(step.amount) for step in charge.steps), Fraction(0)) == Fraction(charge.amount)
        assert 0 <= charge.free_units <= charge.quantity


# --- free units, tiers and packages go on where an issued bill stopped ------------------------------


def test_a_price_by_volume_that_reaches_a_cheaper_tier_later_gives_the_difference_back() -> None:
    part = Component("volume", "characters", CHARACTERS, tiers=(Tier(D(100), D(1)), Tier(None, D("0.5"))))
    cards = [on_card(part)]
    first = list(rate([used("90")], cards, PERIOD).charges)
    [second] = rate([used("20")], cards, PERIOD, issued_of(first)).charges
    assert first[0].amount == 90
    assert [(step.label, step.amount) for step in second.steps or ()] == [
        ("tier 2", 10),
        ("tier 2, again", 45),
        ("charged before", -90),
    ]
    assert second.amount == -35 and (second.quantity, second.calls) == (20, 1)


def test_a_correction_without_new_usage_of_that_line_is_a_charge_without_calls() -> None:
    part = Component("volume", "characters", CHARACTERS, tiers=(Tier(D(100), D(1)), Tier(None, D("0.5"))))
    cards = [on_card(part)]
    first = list(rate([used("90")], cards, PERIOD).charges)
    other = replace(used("20"), provider_org=PROVIDERS[1])
    charges = rate([other], cards, PERIOD, issued_of(first)).charges
    assert {(one.provider_org, one.calls, one.quantity, one.amount) for one in charges} == {
        (PROVIDERS[1], 1, D(20), D(10)),
        (PROVIDERS[0], 0, D(0), D(-45)),
    }


# --- fees and minimums ------------------------------------------------------------------------------


def test_a_fee_is_due_for_the_part_of_the_month_in_which_it_stood_and_only_when_the_month_is_over() -> None:
    cards = [on_card(Component("flat", "line", None, D(3000)))]
    half = replace(WHOLE, start=PERIOD.start + (PERIOD.end - PERIOD.start) / 2)
    assert not rate([], cards, PERIOD, None, [half], final=False).charges
    [charge] = rate([], cards, PERIOD, None, [half]).charges
    assert (charge.kind, charge.meter, charge.calls, charge.amount) == ("fee", "line", 0, 1500)


def test_a_fee_that_is_not_prorated_is_due_once_in_full_although_the_card_changed() -> None:
    once = Component("flat", "setup", None, D(700), prorated=False)
    later = replace(on_card(once, number=2), effective_from=PERIOD.start + timedelta(days=20))
    charges = rate([], [on_card(once), later], PERIOD, None, [WHOLE]).charges
    assert [(charge.card.version, charge.amount) for charge in charges] == [(1, 700)]


def test_a_minimum_is_filled_up_by_usage_and_fees_together() -> None:
    parts = (Component("unit", "characters", CHARACTERS, D(1)), Component("flat", "line", None, D(100)))
    cards = [on_card(*parts, minimum="500")]
    charges = rate([used("250")], cards, PERIOD, None, [WHOLE]).charges
    assert [(one.kind, one.amount) for one in charges] == [("usage", 250), ("fee", 100), ("minimum", 150)]
    assert not [one for one in rate([used("900")], cards, PERIOD, None, [WHOLE]).charges if one.kind == "minimum"]


def test_usage_that_comes_late_is_taken_off_the_minimum_that_was_charged() -> None:
    cards = [on_card(Component("unit", "characters", CHARACTERS, D(1)), minimum="500")]
    first = list(rate([used("250")], cards, PERIOD, None, [WHOLE]).charges)
    late = rate([used("300")], cards, PERIOD, issued_of(first), [WHOLE]).charges
    assert [(one.kind, one.amount) for one in late] == [("usage", 300), ("minimum", -250)]


def test_a_card_with_nothing_but_a_fee_leaves_no_call_without_a_price() -> None:
    rated = rate([used("5")], [on_card(Component("flat", "line", None, D(9)))], PERIOD, None, [WHOLE])
    assert not rated.unpriced and [one.kind for one in rated.charges] == ["fee"]


# --- meters -----------------------------------------------------------------------------------------


def test_a_meter_sees_the_calls_that_its_filter_takes_and_the_others_are_shown_without_a_price() -> None:
    urdu = Meter("urdu", "sum", "characters", (), Filter(language_pairs=("hi>ur",)))
    cards = [on_card(Component("unit", "urdu", urdu, D(2)))]
    rated = rate([used("5", language_pair="hi>ur"), used("7", language_pair="hi>ta")], cards, PERIOD)
    assert [(one.meter, one.quantity, one.amount) for one in rated.charges] == [("urdu", 5, 10)]
    assert [one.language_pair for one in rated.unpriced] == ["hi>ta"]


def test_a_hybrid_card_charges_each_meter_and_the_fee_by_itself() -> None:
    calls = Meter("calls", "count")
    parts = (
        Component("flat", "line", None, D(99)),
        Component("overage", "characters", CHARACTERS, D("0.5"), D(100)),
        Component("package", "calls", calls, D(3), size=D(10)),
    )
    charges = rate([used("80"), used("40", 1)], [on_card(*parts)], PERIOD, None, [WHOLE]).charges
    assert {(one.kind, one.meter, one.card.unit, one.quantity, one.free_units, one.amount) for one in charges} == {
        ("fee", "line", "months", D(1), D(0), D(99)),
        ("usage", "characters", "characters", D(120), D(100), D(10)),
        ("usage", "calls", "requests", D(2), D(0), D(3)),
    }


def test_a_price_by_the_unit_with_tokens_out_of_a_cache_taken_off() -> None:
    fresh = Meter("fresh", "sum", "input_tokens", ("cached_tokens",))
    usage = replace(used("0"), units={"input_tokens-cached_tokens": D(70)})
    [charge] = rate([usage], [on_card(Component("unit", "fresh", fresh, D("0.01")))], PERIOD).charges
    assert (charge.card.unit, charge.amount) == ("input_tokens", D("0.7"))


def test_what_does_not_add_up_is_charged_by_its_one_value_and_only_for_what_it_grew_since() -> None:
    people = Meter("people", "unique", "end_user")
    cards = [on_card(Component("unit", "people", people, D(10), D(1)))]
    asha = used("1", distinct={"end_user": frozenset({"asha", "bina"})})
    chand = used("1", 1, distinct={"end_user": frozenset({"bina", "chand"})})
    first = list(rate([asha], cards, PERIOD).charges)
    [second] = rate([replace(asha, before=True), chand], cards, PERIOD, issued_of(first)).charges
    assert [first[0].amount, second.amount] == [10, 10]
    assert (second.quantity, second.calls) == (1, 1)


# --- what is refused --------------------------------------------------------------------------------


def test_cards_in_two_currencies_are_refused() -> None:
    part = Component("unit", "characters", CHARACTERS, D(1))
    with pytest.raises(ValueError, match="INR and USD"):
        rate([], [on_card(part), replace(on_card(part, number=2), plan="basic", currency="USD")], PERIOD)


def test_two_cards_that_begin_at_the_same_moment_are_refused() -> None:
    part = Component("unit", "characters", CHARACTERS, D(1))
    with pytest.raises(ValueError, match="two cards"):
        rate([], [on_card(part), on_card(part, number=2)], PERIOD)


def test_a_charge_that_no_bill_can_hold_is_refused() -> None:
    cards = [on_card(Component("unit", "characters", CHARACTERS, D(999_999)))]
    with pytest.raises(ValueError, match="too large"):
        rate([used("999999999999999999")], cards, PERIOD)


def test_a_unit_that_nothing_is_counted_in_is_refused() -> None:
    with pytest.raises(ValueError, match="'words' is no unit"):
        replace(on_card(), unit="words")

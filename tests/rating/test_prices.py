"""Meters and components say what they are, or are refused with a reason."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.kernel.money import holders, proportion, total
from haat.kernel.prices import (
    COUNTED_UNITS,
    MEASURED_UNITS,
    UNIT_METERS,
    Component,
    Filter,
    Meter,
    Tier,
    check_components,
    component,
    meter_of,
)
from haat.usage.model import UNITS
from rating.reference import cost_up_to

D = Decimal
CHARACTERS = UNIT_METERS["characters"]
prices = st.decimals(min_value=0, max_value=1000, places=12)
quantities = st.decimals(min_value=0, max_value=10**9, places=6)


def graduated(*tiers: Tier, **more: Any) -> Component:
    return Component("graduated", "characters", CHARACTERS, tiers=tiers, **more)


@st.composite
def tier_lists(draw: st.DrawFn) -> tuple[Tier, ...]:
    ends = sorted(draw(st.sets(quantities.filter(bool), max_size=4)))
    return tuple(Tier(end, draw(prices), draw(prices)) for end in [*ends, None])


def amount(one: Component, before: Decimal, quantity: Decimal, whole: Decimal | None = None) -> Decimal:
    end = total((before, quantity)) if whole is None else whole
    return total(step.amount for step in one.steps(before, quantity, end))


def test_the_units_of_meters_are_those_of_usage_rows_and_those_that_providers_report() -> None:
    assert COUNTED_UNITS == UNITS
    assert set(UNIT_METERS) == set(MEASURED_UNITS)


@given(tier_lists(), st.lists(quantities, max_size=6))
def test_graduated_tiers_cost_what_a_naive_reading_of_them_does_in_any_parts(
    tiers: tuple[Tier, ...], parts: list[Decimal]
) -> None:
    one = graduated(*tiers)
    before, cost = D(0), Fraction(0)
    for part in parts:
        cost += Fraction(amount(one, before, part))
        before = total((before, part))
    assert cost == cost_up_to(one.data(), Fraction(before))


@given(quantities.filter(bool), prices, st.lists(quantities, max_size=6))
def test_packages_that_were_begun_are_not_paid_again(size: Decimal, price: Decimal, parts: list[Decimal]) -> None:
    one = Component("package", "characters", CHARACTERS, price, size=size)
    before, cost = D(0), Fraction(0)
    for part in parts:
        cost += Fraction(amount(one, before, part))
        before = total((before, part))
    assert cost == Fraction(price) * -(-Fraction(before) // Fraction(size))


def test_each_unit_has_the_price_of_its_tier_and_a_tiers_fixed_price_is_due_when_it_begins() -> None:
    one = graduated(Tier(D(100), D("1")), Tier(D(200), D("0.5"), D(10)), Tier(None, D("0.1")))
    assert [(step.label, step.amount) for step in one.steps(D(0), D(250), D(250))] == [
        ("tier 1", 100),
        ("tier 2", 50),
        ("tier 2 begins", 10),
        ("tier 3", 5),
    ]
    assert amount(one, D(0), D(100)) == 100, "the second tier begins beyond 100, not at it"


def test_by_volume_all_units_have_the_price_of_the_tier_that_the_last_one_reaches() -> None:
    one = Component("volume", "characters", CHARACTERS, tiers=(Tier(D(100), D(1)), Tier(None, D("0.5"), D(3))))
    assert amount(one, D(0), D(100)) == 100
    assert amount(one, D(0), D(101)) == D("53.5")


def test_a_stair_is_a_volume_price_with_fixed_prices_alone() -> None:
    one = Component("volume", "characters", CHARACTERS, tiers=(Tier(D(100), D(0), D(9)), Tier(None, D(0), D(15))))
    assert [amount(one, D(0), D(units)) for units in (1, 100, 101, 10**6)] == [9, 9, 15, 15]


@pytest.mark.parametrize(
    ("tiers", "reason"),
    [
        ((), "no end"),
        ((Tier(D(10), D(1)),), "no end"),
        ((Tier(None, D(1)), Tier(None, D(1))), "overlap"),
        ((Tier(D(10), D(1)), Tier(D(10), D(1)), Tier(None, D(1))), "overlap"),
        ((Tier(D(10), D(1)), Tier(D(5), D(1)), Tier(None, D(1))), "overlap"),
        ((Tier(D(0), D(1)), Tier(None, D(1))), "overlap"),
        ((Tier(D(-1), D(1)), Tier(None, D(1))), "at least 0"),
        ((Tier(D(10) ** 18, D(1)), Tier(None, D(1))), "below"),
        ((Tier(None, D(-1)),), "at least 0"),
        ((Tier(None, D(1), D(-1)),), "at least 0"),
        ((Tier(None, D("1e-13")),), "twelve"),
        ((Tier(None, D(10) ** 12),), "below"),
    ],
)
def test_tiers_with_gaps_overlaps_or_numbers_that_no_bill_can_hold_are_refused(
    tiers: tuple[Tier, ...], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        graduated(*tiers)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"name": "words", "measure": "words"}, "no unit"),
        ({"name": "net", "measure": "tokens", "less": ("words",)}, "no unit"),
        ({"name": "net", "measure": "tokens", "less": ("tokens",)}, "other units"),
        ({"name": "people", "aggregation": "unique", "measure": "tokens"}, "unique counts"),
        ({"name": "calls", "aggregation": "count", "less": ("tokens",)}, "nothing"),
        ({"name": "characters", "measure": "tokens"}, "already"),
        ({"name": "characters", "measure": "characters", "filter": Filter(cached=True)}, "already"),
        ({"name": "minimum"}, "named"),
        ({"name": "Big Words"}, "named"),
    ],
)
def test_a_meter_that_nothing_could_be_read_by_is_refused(members: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Meter(**members)


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "unit", "name": "fee"},
        {"model": "flat", "name": "characters", "meter": CHARACTERS},
        {"model": "package", "name": "characters", "meter": CHARACTERS},
        {"model": "unit", "name": "other", "meter": CHARACTERS},
        {"model": "unit", "name": "characters", "meter": CHARACTERS, "tiers": (Tier(None, D(1)),)},
        {"model": "unit", "name": "characters", "meter": CHARACTERS, "unit_price": D(-1)},
        {"model": "unit", "name": "characters", "meter": CHARACTERS, "unit_price": D("NaN")},
        {"model": "unit", "name": "characters", "meter": CHARACTERS, "free_units": D("0.0000001")},
    ],
)
def test_a_component_that_says_too_much_or_too_little_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Component(**wrong)


def test_two_prices_on_one_meter_are_refused() -> None:
    one = Component("unit", "characters", CHARACTERS, D(1))
    with pytest.raises(ValueError, match="two prices on characters"):
        check_components([one, one], D(0))


@pytest.mark.parametrize(
    "one",
    [
        Component("flat", "line", None, D("499.50"), prorated=False),
        Component("unit", "characters", CHARACTERS, D("0.000000000001"), D(5)),
        Component("overage", "characters", CHARACTERS, D("0.1"), D(1000)),
        Component("package", "characters", CHARACTERS, D(9), D(5), D("0.5")),
        graduated(Tier(D(5), D(1), D(2)), Tier(None, D("0.5")), free_units=D(3)),
    ],
)
def test_a_component_is_what_its_data_says(one: Component) -> None:
    assert component(one.data(), {}) == one


def test_a_meter_is_what_its_data_says() -> None:
    one = Meter("net", "sum", "input_tokens", ("cached_tokens",), Filter(("hi>ur",), ("2",), (), False))
    assert meter_of(one.data()) == one
    assert component({"model": "unit", "meter": "net", "unit_price": "1", "free_units": "0"}, {"net": one}).meter == one


def test_a_price_on_a_meter_that_the_listing_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="no meter called 'net'"):
        component({"model": "unit", "meter": "net", "unit_price": "1"}, {})


@given(st.decimals(min_value=0, max_value=10**9, places=12), st.lists(st.integers(1, 10**12), min_size=1, max_size=9))
def test_the_parts_of_a_month_that_follow_each_other_make_the_whole_fee(fee: Decimal, lengths: list[int]) -> None:
    edges = [0]
    for length in lengths:
        edges.append(edges[-1] + length)
    parts = [
        total((proportion(fee, end, edges[-1]), -proportion(fee, start, edges[-1]))) for start, end in pairwise(edges)
    ]
    assert total(parts) == fee
    assert all(part >= 0 for part in parts)


def test_a_package_that_was_begun_counts() -> None:
    assert [holders(D(units), D("0.5")) for units in ("0", "0.5", "0.500001", "1")] == [0, 1, 2, 2]

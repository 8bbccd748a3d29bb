"""Every charge is what the definitions say, to the last decimal, by a reference that shares no code with rating."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from haat.rating.model import MAX_AMOUNT, Charge, rate
from rating.cases import PERIOD, Case, case
from rating.reference import Line, Place, charged


def as_lines(charges: list[Charge]) -> dict[Place, Line]:
    """Return what charges say as the reference does; one that is nothing is left out there, too."""
    found = {
        (
            one.kind,
            one.subscription,
            one.card.id,
            one.plan,
            one.provider_org,
            one.cached_share,
            one.meter or one.card.unit,
        ): Line(Fraction(one.amount), Fraction(one.quantity), one.calls)
        for one in charges
    }
    assert len(found) == len(charges), "two charges are about the same"
    return {place: line for place, line in found.items() if line.amount or line.calls}


def difference(one: Case) -> str:
    """Return where rating and the reference differ; empty when they don't.

    What is too large for an invoice line is refused: then the reference must have found something as large.
    """
    expected = charged(one.usage, one.cards, PERIOD, one.issued, one.held)
    try:
        rated = as_lines(list(rate(one.usage, one.cards, PERIOD, one.issued, one.held).charges))
    except ValueError as error:
        largest = max((abs(line.amount) for line in expected.values()), default=Fraction(0))
        return "" if "too large" in str(error) and largest >= MAX_AMOUNT else f"{error}, and the largest is {largest}"
    if rated == expected:
        return ""
    return "\n".join(
        f"{place}: {rated.get(place)} is not {expected.get(place)}"
        for place in {**rated, **expected}
        if rated.get(place) != expected.get(place)
    )


def test_a_thousand_random_periods_differ_from_the_reference_by_exactly_nothing() -> None:
    chance = random.Random(11)
    for _ in range(1000):
        one = case(chance)
        assert not (said := difference(one)), f"{said}\n{one}"


@pytest.mark.prove
@pytest.mark.parametrize("seed", [*(pytest.param(seed, marks=pytest.mark.verify) for seed in range(5)), *range(5, 100)])
def test_a_million_random_periods_differ_from_the_reference_by_exactly_nothing(seed: int) -> None:
    chance = random.Random(f"million {seed}")
    for _ in range(10_000):
        one = case(chance)
        assert not (said := difference(one)), f"{said}\n{one}"

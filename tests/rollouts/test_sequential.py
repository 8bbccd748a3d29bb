"""The sequential test: it may be looked at all the time, and still errs as seldom as it says."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.rollouts.sequential import LEAST, UNKNOWN, Sample, compare, ratio_p_value

SUBJECTS = 10_000
LOOKS = np.unique(np.geomspace(LEAST, SUBJECTS, 120).astype(int))
Draw = Callable[[np.random.Generator, int], np.ndarray]


def coin(rate: float) -> Draw:
    return lambda draw, count: (draw.random(count) < rate).astype(float)


def latency(middle: float) -> Draw:
    return lambda draw, count: np.minimum(draw.lognormal(math.log(middle), 0.8, count), 60_000)


def runs(
    control: Draw, variant: Draw, count: int, *, effect: float, most: float | None, truth: float
) -> tuple[float, float, float]:
    """Return the shares of runs that decided at some look, had a small p-value, or an interval without the truth."""
    draw = np.random.default_rng(11)
    decided = small = missed = 0
    for _ in range(count):
        one, other = control(draw, SUBJECTS), variant(draw, SUBJECTS)
        sums = [(values.cumsum(), (values * values).cumsum()) for values in (one, other)]
        hit = low = miss = False
        for look in LOOKS:
            samples = [Sample(int(look), float(total[look - 1]), float(squares[look - 1])) for total, squares in sums]
            found = compare(*samples, alpha=0.05, effect=effect, most=most)
            hit, low = hit or found.decided, low or found.p_value <= 0.05
            if found.low is not None and found.high is not None:
                miss = miss or not found.low <= truth <= found.high
        decided, small, missed = decided + hit, small + low, missed + miss
    return decided / count, small / count, missed / count


@pytest.mark.parametrize("rate", [0.5, 0.99])
def test_two_equal_success_rates_looked_at_all_the_time_are_told_apart_at_most_as_often_as_alpha(rate: float) -> None:
    decided, small, missed = runs(coin(rate), coin(rate), 2000, effect=0.02, most=1.0, truth=0)
    assert decided == missed <= 0.05 and small <= 0.05


def test_two_equal_latencies_are_not_told_apart_either() -> None:
    decided, small, _ = runs(latency(200), latency(200), 2000, effect=20, most=None, truth=0)
    assert decided <= 0.05 and small <= 0.05


def test_a_test_for_a_fixed_number_would_lie_under_the_same_looks() -> None:
    """What this is for: the usual z-test, looked at as often, finds a difference in far more than one run in twenty."""
    draw, lies = np.random.default_rng(3), 0
    for _ in range(400):
        one, other = (coin(0.5)(draw, SUBJECTS).cumsum() for _ in range(2))
        rates = [(one[look - 1] / look, other[look - 1] / look, look) for look in LOOKS]
        lies += any(abs(a - b) > 1.96 * math.sqrt((a * (1 - a) + b * (1 - b)) / look) for a, b, look in rates)
    assert lies / 400 > 0.2


def test_a_real_difference_is_found_and_lies_in_the_interval() -> None:
    decided, small, missed = runs(coin(0.90), coin(0.93), 300, effect=0.02, most=1.0, truth=0.03)
    assert decided >= 0.95 and small >= 0.95 and missed <= 0.05
    slower, _, missed = runs(latency(200), latency(240), 300, effect=20, most=None, truth=0.0)
    assert slower >= 0.95


def test_nothing_is_said_of_few_subjects_or_of_values_without_any_spread() -> None:
    enough = Sample(LEAST, LEAST / 2, LEAST / 2)
    assert compare(Sample(LEAST - 1, 0, 0), enough, alpha=0.05, effect=0.1, most=1) == UNKNOWN
    same = Sample(1000, 1000 * 5.0, 1000 * 25.0)
    assert compare(same, same, alpha=0.05, effect=0.1) == UNKNOWN
    assert not compare(Sample(500, 500, 500), Sample(500, 500, 500), alpha=0.05, effect=0.1, most=1).decided


@given(st.integers(LEAST, 5000), st.integers(LEAST, 5000), st.floats(0, 1), st.floats(0, 1), st.floats(0.001, 0.2))
def test_the_interval_and_the_p_value_say_the_same(one: int, other: int, a: float, b: float, alpha: float) -> None:
    samples = [Sample(count, round(count * rate), round(count * rate)) for count, rate in ((one, a), (other, b))]
    found = compare(*samples, alpha=alpha, effect=0.02, most=1.0)
    assert found.low is not None and found.high is not None and found.difference is not None
    assert found.low <= found.difference <= found.high
    assert 0 <= found.p_value <= 1
    if abs(found.p_value - alpha) > 1e-9:
        assert found.decided == (found.p_value < alpha)


def test_the_planned_ratio_is_doubted_when_it_should_be_and_not_otherwise() -> None:
    draw, wrong = np.random.default_rng(5), 0
    for _ in range(2000):
        first = (draw.random(5000) < 0.5).cumsum()
        wrong += any(
            ratio_p_value([int(n - first[n - 1]), int(first[n - 1])], [0.5, 0.5]) <= 0.05 for n in range(50, 5000, 50)
        )
    assert wrong / 2000 <= 0.05
    assert ratio_p_value([4500, 5500], [0.5, 0.5]) < 0.001
    assert ratio_p_value([0, 0], [0.5, 0.5]) == 1

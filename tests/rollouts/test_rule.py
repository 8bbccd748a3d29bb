"""When a candidate goes back: the rule over recorded and drawn series."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.rollouts.rule import Figures, Rule, Verdict, bounds, bucket, judge

RULE = Rule()


def drawn(draw: random.Random, calls: int, error_rate: float, middle_ms: float) -> Figures:
    latency = Counter(bucket(int(draw.lognormvariate(0, 0.4) * middle_ms * 1000)) for _ in range(calls))
    return Figures(calls, sum(draw.random() < error_rate for _ in range(calls)), latency)


def watched(seed: int, *, control: tuple[float, float], candidate: tuple[float, float], minutes: int = 60) -> int:
    """Return the minute in which a candidate with a tenth of 1,000 calls a minute goes back, 0 for never."""
    draw = random.Random(seed)
    for minute in range(1, minutes + 1):
        if judge(drawn(draw, 900, *control), drawn(draw, 100, *candidate), RULE) is not None:
            return minute
    return 0


def test_a_version_that_fails_every_call_goes_back_as_soon_as_it_is_judged() -> None:
    assert judge(Figures(10_000, 10), Figures(49, 49), RULE) is None
    verdict = judge(Figures(10_000, 10), Figures(50, 50), RULE)
    assert isinstance(verdict, Verdict)
    assert verdict.reason == "The candidate failed 100.0% of 50 calls, the control 0.1% of 10000."
    assert verdict.figures == {
        "control_calls": 10_000,
        "control_errors": 10,
        "candidate_calls": 50,
        "candidate_errors": 50,
    }


def test_a_few_unlucky_calls_send_nobody_back() -> None:
    assert judge(Figures(1000, 10), Figures(50, 4), RULE) is None
    assert judge(Figures(1000, 10), Figures(50, 12), RULE) is not None


def test_without_a_control_the_errors_alone_count() -> None:
    assert judge(Figures(), Figures(100, 1), RULE) is None
    assert judge(Figures(), Figures(100, 30), RULE) is not None
    slow = Figures(1000, 0, {bucket(10_000_000): 1000})
    assert judge(Figures(), slow, RULE) is None


def test_of_a_control_with_few_calls_little_is_known() -> None:
    assert judge(Figures(19, 18), Figures(50, 50), RULE) is None
    assert judge(Figures(5, 0), Figures(50, 50), RULE) is not None


def test_a_candidate_that_is_slower_goes_back_and_says_by_how_much() -> None:
    draw = random.Random(7)
    verdict = judge(drawn(draw, 5000, 0, 100), drawn(draw, 500, 0, 300), RULE)
    assert verdict is not None and verdict.figures["candidate_ms"] > 1.5 * verdict.figures["control_ms"]
    assert "p95" in verdict.reason
    assert judge(drawn(draw, 5000, 0, 100), drawn(draw, 500, 0, 300), Rule(latency_ratio=0)) is None
    assert judge(drawn(draw, 5000, 0, 0.5), drawn(draw, 500, 0, 1.5), RULE) is None  # a millisecond is no matter


@pytest.mark.parametrize("seed", range(20))
def test_a_version_as_good_as_the_control_stays_for_an_hour_of_looks(seed: int) -> None:
    assert watched(seed, control=(0.01, 100), candidate=(0.01, 100)) == 0


@pytest.mark.parametrize("seed", range(5))
def test_a_worse_version_goes_back_within_minutes(seed: int) -> None:
    assert 1 <= watched(seed, control=(0.01, 100), candidate=(0.25, 100)) <= 2
    assert 1 <= watched(seed, control=(0.01, 100), candidate=(0.01, 400)) <= 2


@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 2000))
def test_fewer_errors_never_send_back_what_more_would_not(
    calls: int, errors: int, control_calls: int, control_errors: int
) -> None:
    control = Figures(control_calls, min(control_errors, control_calls))
    candidate = Figures(calls, min(errors, calls))
    better = Figures(calls, max(0, candidate.errors - 1))
    if judge(control, candidate, RULE) is None:
        assert judge(control, better, RULE) is None
    if candidate.error_rate <= control.error_rate:
        assert judge(control, candidate, RULE) is None


@given(st.integers(1, 10_000), st.data())
def test_the_bounds_hold_the_rate(calls: int, data: st.DataObject) -> None:
    errors = data.draw(st.integers(0, calls))
    low, high = bounds(errors, calls)
    assert 0 <= low <= errors / calls + 1e-9 and errors / calls - 1e-9 <= high <= 1


@pytest.mark.parametrize(("calls", "rate"), [(20, 0.02), (50, 0.02), (50, 0.2), (1000, 0.01)])
def test_the_bounds_err_at_most_once_in_a_thousand(calls: int, rate: float) -> None:
    def chance(errors: int) -> float:
        return math.comb(calls, errors) * rate**errors * (1 - rate) ** (calls - errors)

    found = {errors: bounds(errors, calls) for errors in range(min(calls, 300) + 1)}
    assert sum(chance(errors) for errors, (low, _) in found.items() if low > rate) <= 0.001
    assert sum(chance(errors) for errors, (_, high) in found.items() if high < rate) <= 0.001


@pytest.mark.parametrize(("calls", "least"), [(20, 5), (50, 7), (200, 14), (1000, 39)])
def test_how_many_failures_it_takes_is_written_down(calls: int, least: int) -> None:
    """As docs/rollouts.md has it: against a control of 100,000 calls without a failure, with the usual margin."""
    rule, control = Rule(min_calls=20), Figures(100_000)
    assert judge(control, Figures(calls, least - 1), rule) is None
    assert judge(control, Figures(calls, least), rule) is not None

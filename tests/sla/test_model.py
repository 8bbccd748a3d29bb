"""Objectives, budgets and what a month comes to: exact arithmetic, whatever the counts."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from haat.kernel.clock import month_period
from haat.sla.model import (
    Counts,
    Objective,
    ObjectiveDraft,
    Tier,
    budget_of,
    credited,
    in_force,
    judge,
    of_month,
    percent_of,
    slow_from,
    slow_of,
)
from haat.usage.model import GROWTH

NOVEMBER = month_period(2026, 11, "Asia/Kolkata")
TIERS = [Tier(below=Decimal(below), credit=Decimal(credit)) for below, credit in (("99.5", 10), ("99", 25), ("95", 50))]
counts = st.builds(
    lambda answered, failed, down, good, bad: Counts(answered, failed, min(down, failed), good, bad),
    *[st.integers(0, 10**9)] * 5,
)
objectives = st.decimals(Decimal(90), Decimal("99.999"), places=3)


def objective(version: int = 1, start: datetime = NOVEMBER.start, **changes: Any) -> Objective:
    given_ = {
        "availability": Decimal("99.5"),
        "p50_ms": None,
        "p95_ms": None,
        "p99_ms": None,
        "window_days": 30,
        "tiers": TIERS,
        "latency_credit": Decimal(0),
        "probe": "health",
        **changes,
    }
    return Objective(UUID(int=version), UUID(int=8), UUID(int=9), version, start, **given_)


# --- budgets ------------------------------------------------------------------------------------------


@given(st.integers(0, 10**12), st.integers(0, 10**12), objectives)
def test_a_budget_is_used_up_exactly_when_the_objective_is_missed(good: int, bad: int, promised: Decimal) -> None:
    budget = budget_of(bad, good + bad, promised)
    if good + bad:
        missed = Fraction(good, good + bad) * 100 < Fraction(promised)
        assert (budget.left < 0) is missed is (budget.spent > 1)
    assert budget.allowed - budget.left == bad


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), max_size=20), objectives)
def test_the_budgets_of_parts_add_up_to_the_budget_of_the_whole(
    parts: list[tuple[int, int]], promised: Decimal
) -> None:
    budgets = [budget_of(bad, good + bad, promised) for good, bad in parts]
    whole = budget_of(sum(bad for _, bad in parts), sum(good + bad for good, bad in parts), promised)
    assert sum((one.left for one in budgets), Fraction(0)) == whole.left
    assert sum((one.allowed for one in budgets), Fraction(0)) == whole.allowed


@given(counts, counts, counts)
def test_counts_add_up_in_any_order(one: Counts, two: Counts, three: Counts) -> None:
    assert (one + two) + three == three + (two + one)
    assert (one + two).calls == one.calls + two.calls


@given(st.integers(0, 10**9), st.integers(0, 10**9), objectives)
def test_one_more_failure_costs_and_one_more_answer_gives(good: int, bad: int, promised: Decimal) -> None:
    before = budget_of(bad, good + bad, promised).left
    assert budget_of(bad + 1, good + bad + 1, promised).left < before
    assert budget_of(bad, good + bad + 1, promised).left > before


def test_more_failures_than_calls_are_no_counts() -> None:
    with pytest.raises(ValueError):
        budget_of(3, 2, Decimal(99))


# --- samples ------------------------------------------------------------------------------------------


@given(counts)
def test_nothing_is_said_of_too_small_a_sample(found: Counts) -> None:
    assert (found.availability is None) is (found.calls < 100 and found.probes < 20)
    if found.calls >= 100:
        assert found.source == "traffic"
    elif found.probes >= 20:
        assert found.availability == Fraction(found.probes_good, found.probes)


@given(counts, objectives)
def test_a_month_is_broken_only_by_a_sample(found: Counts, promised: Decimal) -> None:
    verdict = judge(objective(availability=promised, tiers=[]), found, {}).verdict
    if found.calls < 100 and found.probes < 20:
        assert verdict == "unmeasured"
    else:
        assert found.availability is not None
        assert verdict == ("breached" if found.availability * 100 < Fraction(promised) else "kept")


@pytest.mark.parametrize(
    ("good", "bad", "credit"),
    [
        (995, 5, "0"),
        (9949, 51, "10"),
        (990, 10, "10"),
        (9899, 101, "25"),
        (950, 50, "25"),
        (949, 51, "50"),
        (0, 100, "50"),
    ],
)
def test_the_lowest_tier_reached_decides_and_its_edge_is_not_below_it(good: int, bad: int, credit: str) -> None:
    judged = judge(objective(), Counts(good, bad), {})
    assert (judged.credit, judged.verdict) == (Decimal(credit), "kept" if credit == "0" else "breached")


# --- latency ------------------------------------------------------------------------------------------


@given(st.integers(1, 600_000))
def test_a_call_is_too_slow_only_when_its_whole_bucket_is(limit: int) -> None:
    first = slow_from(limit)
    assert GROWTH ** (first - 1) >= limit * 1000 > GROWTH ** (first - 2)


def test_a_latency_is_missed_when_more_calls_than_its_part_are_slow() -> None:
    fast, slow = 10, slow_from(200) + 3
    promised = objective(p95_ms=200, latency_credit=Decimal(5))
    assert judge(promised, Counts(1000, 0), {fast: 950, slow: 50}).missed == []
    broken = judge(promised, Counts(1000, 0), {fast: 949, slow: 51})
    assert (broken.missed, broken.credit, broken.verdict) == (["p95"], Decimal(5), "breached")
    assert judge(promised, Counts(99, 0), {fast: 9, slow: 90}).verdict == "unmeasured", "99 answers prove nothing"


def test_of_two_broken_promises_the_dearer_one_pays() -> None:
    both = objective(p95_ms=200, latency_credit=Decimal(30))
    judged = judge(both, Counts(992, 8), {slow_from(200): 992})
    assert (judged.missed, judged.credit) == (["availability", "p95"], Decimal(30))


@given(st.dictionaries(st.integers(0, 500), st.integers(1, 10**6), max_size=30), st.integers(1, 600_000))
def test_slow_calls_of_merged_histograms_are_the_sum_of_theirs(histogram: dict[int, int], limit: int) -> None:
    double = {bucket: 2 * calls for bucket, calls in histogram.items()}
    slow, of = slow_of(histogram, limit)
    assert slow_of(double, limit) == (2 * slow, 2 * of)


# --- money --------------------------------------------------------------------------------------------


@given(st.decimals(0, 10**9, places=2), st.decimals(Decimal("0.001"), 100, places=3))
def test_a_credit_is_never_more_than_the_line_and_whole_paise(taxable: Decimal, percent: Decimal) -> None:
    amount = credited(taxable, percent)
    assert 0 <= amount <= taxable and amount == amount.quantize(Decimal("0.01"))
    assert abs(amount - taxable * percent / 100) <= Decimal("0.005")


@given(st.fractions(0, 1))
def test_a_percentage_is_never_rounded_up(share: Fraction) -> None:
    shown = Fraction(percent_of(share))
    assert 0 <= share * 100 - shown < Fraction(1, 1000)


# --- versions -----------------------------------------------------------------------------------------


def test_a_month_is_judged_by_what_was_promised_as_it_began() -> None:
    old, new = objective(1, datetime(2026, 10, 5, tzinfo=UTC)), objective(2, NOVEMBER.end)
    assert of_month([old, new], NOVEMBER) == (old, NOVEMBER)
    later = objective(1, datetime(2026, 11, 12, tzinfo=UTC))
    found = of_month([later, new], NOVEMBER)
    assert found is not None and (found[0], found[1].start, found[1].end) == (later, later.effective_from, NOVEMBER.end)
    assert of_month([new], NOVEMBER) is None
    assert in_force([old, new], NOVEMBER.start) == old and in_force([old, new], NOVEMBER.end) == new
    assert in_force([new], NOVEMBER.start) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"availability": "100"},
        {"availability": "89.9"},
        {"availability": "99.9999"},
        {"availability": "NaN"},
        {"availability": "99", "tiers": [{"below": "99.5", "credit": "10"}]},
        {"tiers": [{"below": "99", "credit": "10"}, {"below": "99", "credit": "20"}]},
        {"tiers": [{"below": "99", "credit": "20"}, {"below": "95", "credit": "10"}]},
        {"tiers": [{"below": "99", "credit": "101"}]},
        {"tiers": [{"below": "99", "credit": "0"}]},
        {"p50_ms": 500, "p95_ms": 400},
        {"p95_ms": 0},
        {"latency_credit": "5"},
        {"window_days": 6},
        {"probe": "loudly"},
        {"uptime": "99"},
        {"effective_from": "2026-12-01T00:00:00"},
    ],
)
def test_what_can_not_be_promised_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ObjectiveDraft.model_validate(wrong)

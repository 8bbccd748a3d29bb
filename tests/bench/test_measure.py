"""The benchmark's arithmetic: medians, ratios of pairs, percentiles."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bench.measure import Cpu, Sample, Spread, in_pairs, percentile, ratios


def sample(cost: float) -> Sample:
    return Sample(cost, cost / 2, rps=1000, p50_ms=1, p95_ms=2, p99_ms=3, rss_mb=50, errors=0)


def test_a_spread_is_the_median_with_least_and_most() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)


def test_a_spread_of_one_value_is_written_alone() -> None:
    assert f"{Spread.of([2.0]):.1f}" == "2.0"
    assert f"{Spread.of([1.0, 2.0, 4.0]):.1f}" == "2.0 (1.0–4.0)"


def test_a_ratio_is_taken_within_a_round_before_the_median() -> None:
    bases, rows = [sample(10), sample(20), sample(40)], [sample(20), sample(40), sample(120)]
    assert ratios(bases, rows) == Spread(2.0, 2.0, 3.0)


def test_who_goes_first_alternates_from_round_to_round() -> None:
    order: list[str] = []
    in_pairs(lambda: order.append("base"), lambda: order.append("row"), 3, lambda number, base, row: None)
    assert order == ["base", "row", "row", "base", "base", "row"]


def test_nothing_measured_has_no_percentile_but_zero() -> None:
    assert percentile([], 0.99) == 0.0


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(values: list[float], share: float) -> None:
    ordered = sorted(values)
    found = percentile(ordered, share)
    assert sum(value <= found for value in ordered) >= share * len(ordered)
    assert sum(value < found for value in ordered) <= share * len(ordered)


def test_cpu_time_is_charged_to_the_requests_since_the_last_look() -> None:
    assert Cpu(3.0, 2.0).since(Cpu(2.0, 1.5), 1_000_000) == (1.5, 0.5)

"""Suspension and return: a day, a half hour that still fails, several witnesses, and no flapping."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.sla.model import Counts
from haat.sla.uptime import hold, is_back, is_down, uptime

NOW = datetime(2026, 11, 21, tzinfo=UTC)
BAD_DAY, BAD_HALF_HOUR, LATEST = Counts(800, 200, 200), Counts(10, 90, 90), Counts(0, 5, 5)


def test_a_listing_that_is_down_and_stays_so_is_suspended() -> None:
    assert is_down(BAD_DAY, BAD_HALF_HOUR, LATEST, 30, 2)


@pytest.mark.parametrize(
    ("day", "recent", "minutes", "callers"),
    [
        (Counts(900, 100, 100), BAD_HALF_HOUR, 30, 2),  # nine tenths are enough
        (Counts(9, 90, 90), BAD_HALF_HOUR, 30, 2),  # 99 calls prove nothing
        (Counts(0, 0, 0, 0, 19), Counts(probes_bad=19), 30, 2),  # nor do 19 probes
        (BAD_DAY, Counts(100, 5, 5), 30, 2),  # it is well again
        (BAD_DAY, Counts(), 30, 2),  # nobody has called since
        (BAD_DAY, BAD_HALF_HOUR, 14, 2),  # a burst
        (BAD_DAY, BAD_HALF_HOUR, 30, 1),  # one caller alone says so
        (Counts(100, 900, 0), Counts(10, 90, 0), 30, 2),  # its 500s may come of inputs
    ],
)
def test_it_is_not_suspended_for_less(day: Counts, recent: Counts, minutes: int, callers: int) -> None:
    assert not is_down(day, recent, recent, minutes, callers)


def test_what_is_well_again_since_five_minutes_is_not_suspended_for_what_was() -> None:
    assert not is_down(BAD_DAY, BAD_HALF_HOUR, Counts(20, 1, 1), 30, 2)
    assert is_down(BAD_DAY, BAD_HALF_HOUR, Counts(), 30, 2), "nobody has called since"
    probes = Counts(probes_good=70, probes_bad=30)
    assert not is_down(probes, Counts(probes_bad=30), Counts(probes_good=5), 30, 0)


def test_probes_are_a_second_witness_and_the_only_one_where_nobody_calls() -> None:
    assert is_down(BAD_DAY, Counts(10, 90, 90, 0, 30), LATEST, 30, 1)
    assert is_down(Counts(probes_good=70, probes_bad=30), Counts(probes_bad=30), LATEST, 30, 0)
    assert not is_down(Counts(probes_good=70, probes_bad=30), Counts(probes_good=30), LATEST, 30, 0)


@given(*[st.integers(0, 200)] * 5)
def test_nobody_is_suspended_by_less_than_a_sample(
    good: int, down: int, probes_good: int, bad: int, callers: int
) -> None:
    day = Counts(good, down, down, probes_good, bad)
    if is_down(day, day, day, 30, callers):
        share = uptime(day)
        assert share is not None and share < 0.9
        assert day.calls >= 100 or day.probes >= 20


def test_it_comes_back_after_its_hold_with_twenty_good_probes() -> None:
    good = [True] * 20
    assert is_back(good, NOW - timedelta(minutes=30), NOW, 0)
    assert not is_back(good, NOW - timedelta(minutes=29), NOW, 0)
    assert not is_back(good[:19], NOW - timedelta(hours=5), NOW, 0)
    assert not is_back([True] * 19 + [False], NOW - timedelta(hours=5), NOW, 0)
    assert is_back([*good, False, False], NOW - timedelta(hours=5), NOW, 0), "only the newest count"


def test_it_stays_away_twice_as_long_each_time_and_a_day_at_most() -> None:
    assert [hold(times) / timedelta(minutes=30) for times in range(7)] == [1, 2, 4, 8, 16, 32, 48]
    assert hold(10**6) == timedelta(hours=24)

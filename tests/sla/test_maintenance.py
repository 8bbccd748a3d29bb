"""Windows of maintenance: notice, length, overlaps, months, and nights in which clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haat.kernel.clock import Period, day_of, month_period
from haat.kernel.errors import Conflict, ValidationFailed
from haat.sla.maintenance import (
    Span,
    Window,
    check,
    length,
    local_moment,
    merged,
    quarter_after,
    quarter_before,
    within,
)

NOW = datetime(2026, 11, 21, 6, 30, tzinfo=UTC)
QUARTER, HOUR = timedelta(minutes=15), timedelta(hours=1)
moments = st.integers(0, 300).map(lambda minutes: NOW + timedelta(minutes=minutes))
spans = st.tuples(moments, moments).map(lambda pair: Span(min(pair), max(pair)))


def window(start: datetime, hours: float, *, cancelled: bool = False) -> Window:
    return Window(
        UUID(int=1), UUID(int=2), UUID(int=3), start, start + hours * HOUR, "", NOW, NOW if cancelled else None
    )


def announce(start: datetime, hours: float, *others: Window, now: datetime = NOW, **changes: Any) -> None:
    rules = {"notice": 48 * HOUR, "monthly": 8 * HOUR, "zone": "Asia/Kolkata", **changes}
    check(Span(start, start + hours * HOUR), others, now, **rules)


SOON = NOW + 48 * HOUR


def test_a_window_that_is_announced_in_time_is_fine() -> None:
    announce(SOON, 2)
    announce(SOON, 8)


@pytest.mark.parametrize(
    ("start", "hours", "field"),
    [
        (SOON - QUARTER, 1, "starts_at"),  # too late
        (SOON, 0, "ends_at"),
        (SOON, -1, "ends_at"),
        (SOON + timedelta(minutes=5), 1, "starts_at"),  # not on a quarter hour
        (SOON, 1.1, "ends_at"),
        (SOON, 24.25, "ends_at"),  # too long
    ],
)
def test_what_may_not_be_announced_names_its_field(start: datetime, hours: float, field: str) -> None:
    with pytest.raises(ValidationFailed) as refused:
        announce(start, hours)
    assert refused.value.extensions["errors"][0]["field"] == field


def test_windows_of_a_listing_touch_but_never_overlap() -> None:
    there = window(SOON + HOUR, 2)
    announce(SOON, 1, there)
    announce(SOON + 3 * HOUR, 1, there)
    for start, hours in ((SOON, 1.25), (SOON + 2 * HOUR, 1), (SOON, 5), (SOON + 2.75 * HOUR, 1)):
        with pytest.raises(Conflict):
            announce(start, hours, there)
        announce(start, hours, window(SOON + HOUR, 2, cancelled=True))


def test_a_month_has_its_limit_and_a_cancelled_window_gives_it_back() -> None:
    there = [window(SOON + 24 * HOUR, 3), window(SOON + 48 * HOUR, 3)]
    announce(SOON, 2, *there)
    with pytest.raises(Conflict, match="2026-11"):
        announce(SOON, 2.25, *there)
    announce(SOON, 2.25, there[0], window(SOON + 48 * HOUR, 3, cancelled=True))


def test_a_window_over_the_end_of_a_month_counts_in_both_with_its_part() -> None:
    december = month_period(2026, 12, "Asia/Kolkata").start
    announce(december - 8 * HOUR, 16)
    with pytest.raises(Conflict, match="2026-11"):
        announce(december - 8.25 * HOUR, 10)
    with pytest.raises(Conflict, match="2026-12"):
        announce(december - 2 * HOUR, 10.25)


# --- clocks that change -------------------------------------------------------------------------------


def test_a_wall_clock_is_read_in_its_zone() -> None:
    assert local_moment("2026-12-05T02:30", "Asia/Kolkata") == datetime(2026, 12, 4, 21, 0, tzinfo=UTC)
    assert local_moment("2026-12-05T02:30+09:00", "Asia/Kolkata") == datetime(2026, 12, 4, 17, 30, tzinfo=UTC)


def test_a_time_that_clocks_skip_is_no_time() -> None:
    with pytest.raises(ValueError, match="skip"):
        local_moment("2027-03-28T02:30", "Europe/Berlin")
    assert local_moment("2027-03-28T03:00", "Europe/Berlin") == datetime(2027, 3, 28, 1, 0, tzinfo=UTC)


def test_a_time_that_clocks_show_twice_needs_its_offset() -> None:
    with pytest.raises(ValueError, match="twice"):
        local_moment("2026-10-25T02:30", "Europe/Berlin")
    summer, winter = (local_moment(f"2026-10-25T02:30{offset}", "Europe/Berlin") for offset in ("+02:00", "+01:00"))
    assert winter - summer == HOUR
    with pytest.raises(ValueError):
        local_moment("tonight", "Europe/Berlin")


def test_a_night_in_which_clocks_change_is_as_long_as_it_lasts() -> None:
    spring = [local_moment(f"2027-03-28T{at}", "Europe/Berlin") for at in ("01:00", "04:00")]
    autumn = [local_moment(f"2026-10-25T{at}", "Europe/Berlin") for at in ("01:00", "04:00")]
    assert (spring[1] - spring[0], autumn[1] - autumn[0]) == (2 * HOUR, 4 * HOUR)
    earlier = datetime(2026, 10, 1, tzinfo=UTC)
    check(Span(*autumn), [], earlier, notice=HOUR, monthly=4 * HOUR, zone="Europe/Berlin")
    with pytest.raises(Conflict):
        check(Span(*autumn), [], earlier, notice=HOUR, monthly=3.75 * HOUR, zone="Europe/Berlin")


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "Asia/Kathmandu", "Europe/Berlin", "Australia/Lord_Howe", "UTC"])
def test_every_zones_days_and_months_begin_on_a_quarter_hour(zone: str) -> None:
    for month in range(1, 13):
        start = month_period(2026, month, zone).start
        assert quarter_before(start) == start == quarter_after(start)
        assert quarter_before(day_of(start + 12 * HOUR, zone).start) == day_of(start + 12 * HOUR, zone).start


# --- what is left out ---------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(spans, max_size=8))
def test_merged_spans_hold_the_same_minutes_once(given_: list[Span]) -> None:
    def minutes(some: list[Span]) -> set[datetime]:
        return {
            span.start + timedelta(minutes=minute)
            for span in some
            for minute in range(int((span.end - span.start) / timedelta(minutes=1)))
        }

    found = merged(given_)
    assert minutes(found) == minutes(given_)
    assert all(one.end < other.start for one, other in pairwise(found))
    assert length(given_) == timedelta(minutes=len(minutes(given_)))


@settings(deadline=None)
@given(st.lists(spans, max_size=8), moments)
def test_cutting_a_period_in_two_loses_nothing(given_: list[Span], cut: datetime) -> None:
    whole = Period(NOW, NOW + timedelta(minutes=300), "")
    parts = [Period(whole.start, cut, ""), Period(cut, whole.end, "")]
    assert sum((length(within(given_, part)) for part in parts), timedelta()) == length(within(given_, whole))


@given(moments)
def test_quarter_hours_enclose_a_moment(at: datetime) -> None:
    before, after = quarter_before(at), quarter_after(at)
    assert before <= at <= after and after - before in (timedelta(), QUARTER)

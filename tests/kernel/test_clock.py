"""Periods in the customer's zone, and clocks."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.kernel.clock import (
    FARTHEST,
    Period,
    SetClock,
    SystemClock,
    anniversary_of,
    check_ahead,
    day_of,
    financial_year,
    month_of,
    month_period,
)
from haat.kernel.errors import ValidationFailed

ZONES = st.sampled_from(
    [
        "Asia/Kolkata",
        "America/New_York",
        "Europe/London",
        "UTC",
        "Australia/Lord_Howe",  # clocks change by half an hour
        "America/Sao_Paulo",  # they changed at midnight, so some days began at 01:00
        "Asia/Kathmandu",
        "Pacific/Apia",  # left out 30 December 2011
        "Pacific/Kiritimati",
    ]
)
MOMENTS = st.integers(0, 100 * 366 * 86_400).map(
    lambda seconds: datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)
YEARS, MONTHS = st.integers(2000, 2099), st.integers(1, 12)


def test_the_system_clock_tells_utc() -> None:
    assert SystemClock().now().utcoffset() == timedelta(0)


def test_a_set_clock_stands_still_until_it_is_moved() -> None:
    clock = SetClock(datetime(2026, 11, 21, 12, tzinfo=ZoneInfo("Asia/Kolkata")))
    assert clock.now() == clock.now() == datetime(2026, 11, 21, 6, 30, tzinfo=UTC)
    clock.advance(minutes=1, seconds=1)
    assert clock.now() == datetime(2026, 11, 21, 6, 31, 1, tzinfo=UTC)


def test_a_clock_is_not_set_to_a_moment_without_zone() -> None:
    with pytest.raises(ValueError, match="aware"):
        SetClock(datetime(2026, 1, 1))  # noqa: DTZ001 - what must be refused


@given(MOMENTS, ZONES)
def test_every_moment_lies_in_its_month_and_in_its_day(at: datetime, zone: str) -> None:
    assert at in month_of(at, zone)
    assert at in day_of(at, zone)


@given(YEARS, MONTHS, ZONES)
def test_months_tile_the_year_without_gap(year: int, month: int, zone: str) -> None:
    this = month_period(year, month, zone)
    following = month_of(this.end, zone)
    assert following.start == this.end
    assert following.label == (f"{year + 1}-01" if month == 12 else f"{year}-{month + 1:02d}")


@given(MOMENTS, ZONES)
def test_days_tile_without_gap_or_overlap(at: datetime, zone: str) -> None:
    day = day_of(at, zone)
    assert day_of(day.end, zone).start == day.end
    assert day_of(day.start, zone) == day
    assert day_of(day.end - timedelta(microseconds=1), zone) == day


@given(MOMENTS, ZONES)
def test_a_day_has_23_to_25_hours(at: datetime, zone: str) -> None:
    day = day_of(at, zone)
    assert timedelta(hours=23) <= day.end - day.start <= timedelta(hours=25)


@given(YEARS, MONTHS)
def test_a_month_in_a_zone_of_one_offset_has_its_calendar_days(year: int, month: int) -> None:
    period = month_period(year, month, "Asia/Kolkata")
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    days = [31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1]
    assert period.end - period.start == timedelta(days=days)


@pytest.mark.parametrize(
    ("zone", "at", "hours"),
    [
        ("America/New_York", datetime(2026, 3, 8, 12, tzinfo=UTC), 23),
        ("America/New_York", datetime(2026, 11, 1, 12, tzinfo=UTC), 25),
        ("Asia/Kolkata", datetime(2026, 3, 8, 12, tzinfo=UTC), 24),
        ("America/Sao_Paulo", datetime(2018, 11, 4, 12, tzinfo=UTC), 23),
        ("America/Sao_Paulo", datetime(2018, 2, 17, 12, tzinfo=UTC), 25),
        ("Australia/Lord_Howe", datetime(2026, 4, 4, 18, tzinfo=UTC), 24.5),
    ],
)
def test_a_day_on_which_clocks_change_is_shorter_or_longer(zone: str, at: datetime, hours: float) -> None:
    day = day_of(at, zone)
    assert day.end - day.start == timedelta(hours=hours)


def test_a_month_in_new_york_that_ends_daylight_saving_is_an_hour_longer() -> None:
    month = month_period(2026, 11, "America/New_York")
    assert month == Period(datetime(2026, 11, 1, 4, tzinfo=UTC), datetime(2026, 12, 1, 5, tzinfo=UTC), "2026-11")


def test_a_month_begins_at_midnight_in_kolkata_not_in_greenwich() -> None:
    assert month_of(datetime(2026, 10, 31, 18, 30, tzinfo=UTC), "Asia/Kolkata").label == "2026-11"
    assert month_of(datetime(2026, 10, 31, 18, 29, 59, tzinfo=UTC), "Asia/Kolkata").label == "2026-10"


def test_a_period_holds_its_start_and_not_its_end() -> None:
    month = month_period(2024, 2, "UTC")
    assert month.start in month and month.end not in month


@pytest.mark.parametrize(
    ("at", "year"),
    [
        (datetime(2027, 3, 31, 18, 29, tzinfo=UTC), "2627"),
        (datetime(2027, 3, 31, 18, 30, tzinfo=UTC), "2728"),
        (datetime(2100, 1, 1, tzinfo=UTC), "9900"),
    ],
)
def test_the_financial_year_turns_on_the_first_of_april_in_india(at: datetime, year: str) -> None:
    assert financial_year(at) == year


NOW = datetime(2026, 11, 21, tzinfo=UTC)


def test_a_chosen_moment_ahead_is_kept_in_utc() -> None:
    chosen = datetime(2026, 11, 22, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert check_ahead(chosen, NOW, "expires_at") == datetime(2026, 11, 21, 18, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "chosen",
    [
        NOW,
        NOW - timedelta(seconds=1),
        NOW + FARTHEST + timedelta(seconds=1),
        datetime(2027, 1, 1),  # noqa: DTZ001 - what must be refused
        datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(-timedelta(hours=14))),  # year 10000 in UTC
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
    ],
)
def test_a_moment_that_is_past_or_too_far_or_without_zone_is_refused(chosen: datetime) -> None:
    with pytest.raises(ValidationFailed) as refusal:
        check_ahead(chosen, NOW, "expires_at")
    assert refusal.value.extensions["errors"][0]["field"] == "expires_at"


# --- anniversaries -------------------------------------------------------------------------------


@given(MOMENTS, MOMENTS, ZONES)
def test_anniversaries_tile_without_gap_and_keep_their_day(at: datetime, anchor: datetime, zone: str) -> None:
    period, day = anniversary_of(at, anchor, zone), anchor.astimezone(ZoneInfo(zone)).day
    assert period.start <= at < period.end
    assert anniversary_of(period.end, anchor, zone).start == period.end
    assert anniversary_of(period.start - timedelta(microseconds=1), anchor, zone).end == period.start
    begins = date.fromisoformat(period.label)
    assert begins.day == day or (begins.day < day and (begins + timedelta(days=1)).day == 1)
    # Midnight, or the first moment after it where clocks skip it.
    assert period.start.astimezone(ZoneInfo(zone)).date() in (begins, begins - timedelta(days=1))


@pytest.mark.parametrize(
    ("at", "label", "days"),
    [
        ((2027, 2, 27), "2027-01-31", 28),
        ((2027, 2, 28), "2027-02-28", 31),
        ((2028, 2, 28), "2028-01-31", 29),
        ((2028, 2, 29), "2028-02-29", 31),
        ((2028, 3, 31), "2028-03-31", 30),
        ((2028, 4, 30), "2028-04-30", 31),
        ((2027, 1, 30), "2026-12-31", 31),
    ],
)
def test_an_anniversary_of_the_31st_takes_a_shorter_months_last_day(
    at: tuple[int, int, int], label: str, days: int
) -> None:
    kolkata = ZoneInfo("Asia/Kolkata")
    period = anniversary_of(datetime(*at, 12, tzinfo=kolkata), datetime(2026, 10, 31, 15, tzinfo=kolkata), str(kolkata))
    assert (period.label, period.end - period.start) == (label, timedelta(days=days))


def test_an_anniversary_counts_from_the_customers_day_not_greenwichs() -> None:
    anchor = datetime(2026, 11, 14, 20, 0, tzinfo=UTC)  # the 15th in Kolkata
    assert anniversary_of(datetime(2026, 12, 20, tzinfo=UTC), anchor, "Asia/Kolkata").label == "2026-12-15"

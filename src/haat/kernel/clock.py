"""Time: UTC inside, periods in the customer's zone, and a clock that tests can set."""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from haat.kernel.errors import ValidationFailed


class Clock(Protocol):
    """Something that tells the time."""

    def now(self) -> datetime:
        """Return the present instant, aware, in UTC."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class SetClock:
    """A clock that stands still until it is moved: for tests and rehearsals."""

    def __init__(self, at: datetime) -> None:
        if at.tzinfo is None:
            raise ValueError("a clock is set to an aware datetime")
        self._at = at.astimezone(UTC)

    def now(self) -> datetime:
        return self._at

    def advance(self, **step: float) -> None:
        """Move by a ``timedelta`` given in its own keywords, e.g. ``advance(seconds=61)``."""
        self._at += timedelta(**step)


FARTHEST = timedelta(days=3653)


def check_ahead(at: datetime, now: datetime, field: str) -> datetime:
    """Return a moment that somebody chose in UTC; raise ValidationFailed unless it lies ahead.

    Ten years are the most: PostgreSQL keeps years that Python can't read, and one such row would
    stop every reader of its table.
    """
    if at.tzinfo is None:
        message = "Say in which zone: write the moment as 2026-12-31T18:30:00+05:30."
    elif not timedelta(0) < at - now <= FARTHEST:
        message = "Choose a moment that is still to come, at most ten years ahead."
    else:
        return at.astimezone(UTC)
    raise ValidationFailed(errors=[{"field": field, "message": message}])


@dataclass(frozen=True, slots=True)
class Period:
    """A half-open span of time ``[start, end)`` in UTC with a name such as ``2026-11``."""

    start: datetime
    end: datetime
    label: str

    def __contains__(self, at: datetime) -> bool:
        return self.start <= at < self.end


def month_of(at: datetime, zone: str) -> Period:
    """Return the calendar month that contains ``at`` as seen in ``zone`` (an IANA name)."""
    local = at.astimezone(ZoneInfo(zone))
    return month_period(local.year, local.month, zone)


def month_period(year: int, month: int, zone: str) -> Period:
    """Return one calendar month of ``zone``; days have 23 to 25 hours where clocks change."""
    tz = ZoneInfo(zone)
    following = (year + 1, 1) if month == 12 else (year, month + 1)
    return Period(
        datetime(year, month, 1, tzinfo=tz).astimezone(UTC),
        datetime(*following, 1, tzinfo=tz).astimezone(UTC),
        f"{year:04d}-{month:02d}",
    )


def anniversary_of(at: datetime, anchor: datetime, zone: str) -> Period:
    """Return the month that contains ``at``, counted from the anchor's day of the month in ``zone``.

    It begins at midnight of that day, or of a shorter month's last day: an anchor of the 31st gives
    31 January, 28 February, 31 March.
    """
    tz = ZoneInfo(zone)
    local, day = at.astimezone(tz), anchor.astimezone(tz).day
    year, month = local.year, local.month
    if local.day < min(day, monthrange(year, month)[1]):
        year, month = (year - 1, 12) if month == 1 else (year, month - 1)
    following = (year + 1, 1) if month == 12 else (year, month + 1)
    start = datetime(year, month, min(day, monthrange(year, month)[1]), tzinfo=tz)
    end = datetime(*following, min(day, monthrange(*following)[1]), tzinfo=tz)
    return Period(start.astimezone(UTC), end.astimezone(UTC), start.date().isoformat())


def day_of(at: datetime, zone: str) -> Period:
    """Return the calendar day that contains ``at`` as seen in ``zone``."""
    tz = ZoneInfo(zone)
    local = at.astimezone(tz)
    start = datetime(local.year, local.month, local.day, tzinfo=tz)
    next_noon = start.replace(hour=12) + timedelta(days=1)  # noon exists on every day
    end = datetime(next_noon.year, next_noon.month, next_noon.day, tzinfo=tz)
    return Period(start.astimezone(UTC), end.astimezone(UTC), start.date().isoformat())


def financial_year(at: datetime, zone: str = "Asia/Kolkata") -> str:
    """Return India's financial year (April to March) as four digits: ``2627`` for 2026-27."""
    local = at.astimezone(ZoneInfo(zone))
    first = local.year if local.month >= 4 else local.year - 1
    return f"{first % 100:02d}{(first + 1) % 100:02d}"

"""When the day and the month of a quota are over, and how long they are."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from haat.gateway.limits.windows import SECOND
from haat.kernel.clock import Period, anniversary_of, day_of, month_of


class Span(NamedTuple):
    """``end`` in microseconds since the epoch, ``seconds`` from beginning to end."""

    end: int
    seconds: int


def day_and_month(now: int, zone: str, anniversary: int | None = None) -> tuple[Span, Span]:
    """Return the day and the month that contain ``now`` in an IANA zone.

    The month is the calendar's, or counted from the day of ``anniversary``. Both are microseconds since the epoch.
    """
    month, day = _calendar(zone, now)
    if anniversary is not None:
        month = anniversary_of(_instant(now), _instant(anniversary), zone)
    return _span(day), _span(month)


_CALENDARS: dict[str, tuple[Period, Period]] = {}
"""The month and the day that were asked for last, by zone: the same for nearly everybody."""


def _calendar(zone: str, now: int) -> tuple[Period, Period]:
    at, known = _instant(now), _CALENDARS.get(zone)
    if known is None or at not in known[0] or at not in known[1]:
        known = _CALENDARS[zone] = month_of(at, zone), day_of(at, zone)
    return known


def _instant(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds / SECOND, UTC)


def _span(period: Period) -> Span:
    return Span(int(period.end.timestamp()) * SECOND, int((period.end - period.start).total_seconds()))

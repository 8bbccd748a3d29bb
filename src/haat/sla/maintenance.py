"""Announced maintenance: which windows may be announced, and what they take out of a measurement. Pure.

Windows are UTC inside and begin and end on quarter hours, as counts do. Their length is time that passes: a night in
which clocks change has an hour more or less than its wall shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from haat.kernel.clock import Period, month_of
from haat.kernel.errors import Conflict, ValidationFailed
from haat.language.messages import _
from haat.sla.model import QUARTER

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LONGEST = timedelta(hours=24)


class Span(NamedTuple):
    """A half-open time ``[start, end)`` in UTC."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Window:
    """A maintenance window of a listing. ``cancelled_at`` says that it never was."""

    id: UUID
    org_id: UUID
    service_id: UUID
    starts_at: datetime
    ends_at: datetime
    note: str
    announced_at: datetime
    cancelled_at: datetime | None

    @property
    def span(self) -> Span:
        return Span(self.starts_at, self.ends_at)


def quarter_before(at: datetime) -> datetime:
    """Return the quarter hour that a moment lies in."""
    return at - (at - _EPOCH) % QUARTER


def quarter_after(at: datetime) -> datetime:
    """Return the first quarter hour that isn't before a moment."""
    return -(-(at - _EPOCH) // QUARTER) * QUARTER + _EPOCH


def local_moment(text: str, zone: str) -> datetime:
    """Return the moment that a wall clock in a zone shows, such as ``2026-12-05T02:30``; raise ValueError.

    A time with an offset is that moment, whatever the zone. One that the zone's clocks skip or show twice is none.
    """
    at = datetime.fromisoformat(text)
    if at.tzinfo is not None:
        return at.astimezone(UTC)
    tz = ZoneInfo(zone)
    moments = {at.replace(tzinfo=tz, fold=fold).astimezone(UTC) for fold in (0, 1)}
    shown = {one for one in moments if one.astimezone(tz).replace(tzinfo=None, fold=0) == at}
    if not shown:
        raise ValueError(_("the clocks of %(zone)s skip that time: choose another one", zone=zone))
    if len(shown) > 1:
        raise ValueError(
            _("the clocks of %(zone)s show that time twice: write it with its offset, such as +05:30", zone=zone)
        )
    return shown.pop()


def merged(spans: Iterable[Span]) -> list[Span]:
    """Return spans in order, those that overlap or touch made one."""
    found: list[Span] = []
    for span in sorted(spans):
        if found and span.start <= found[-1].end:
            found[-1] = Span(found[-1].start, max(found[-1].end, span.end))
        elif span.start < span.end:
            found.append(span)
    return found


def within(spans: Iterable[Span], period: Period) -> list[Span]:
    """Return what lies in a period of spans, merged."""
    cut = (Span(max(span.start, period.start), min(span.end, period.end)) for span in spans)
    return merged(span for span in cut if span.start < span.end)


def length(spans: Iterable[Span]) -> timedelta:
    """Return how long spans last together; what overlaps counts once."""
    return sum((span.end - span.start for span in merged(spans)), timedelta())


def check(
    span: Span, others: Sequence[Window], now: datetime, *, notice: timedelta, monthly: timedelta, zone: str
) -> None:
    """Raise ValidationFailed or Conflict for a window that may not be announced.

    ``notice`` is the least time ahead, ``monthly`` the most that a calendar month of ``zone`` may have of windows; each
    month counts the part that lies in it. ``others`` are the listing's windows that stand.
    """
    if span.end <= span.start:
        raise _wrong("ends_at", "A window ends after it begins.")
    for name, at in (("starts_at", span.start), ("ends_at", span.end)):
        if quarter_before(at) != at:
            raise _wrong(name, "Windows begin and end on a quarter of an hour.")
    if span.end - span.start > LONGEST:
        raise _wrong("ends_at", "A window lasts 24 hours at most.")
    if span.start - now < notice:
        raise _wrong("starts_at", f"Announce it at least {_hours(notice)} ahead.")
    standing = [one.span for one in others if one.cancelled_at is None]
    if any(one.start < span.end and span.start < one.end for one in standing):
        raise Conflict(_("Another window of this listing overlaps with it: cancel that one first."))
    month = month_of(span.start, zone)
    while month.start < span.end:
        if length(within([*standing, span], month)) > monthly:
            raise Conflict(
                _(
                    "%(label)s would have more than %(monthly)s of maintenance.",
                    label=month.label,
                    monthly=_hours(monthly),
                )
            )
        month = month_of(month.end, zone)


def _hours(time: timedelta) -> str:
    return f"{time / timedelta(hours=1):g} hours"


def _wrong(field: str, message: str) -> ValidationFailed:
    return ValidationFailed(errors=[{"field": field, "message": message}])

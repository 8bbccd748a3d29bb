"""What was used: per service and day, call by call, and one call's whole story."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from fastapi import APIRouter
from starlette.responses import Response

from haat.invoices.evidence import portions
from haat.kernel.clock import Period, month_of, month_period
from haat.kernel.permissions import Permission
from haat.language.messages import _
from haat.portal import formats
from haat.portal.charts import Chart, Point, bar_chart, time_line
from haat.portal.visit import Visit, VisitOf, parse_id
from haat.usage.model import CallFilter
from haat.usage.service import Hour

router = APIRouter(prefix="/account")

_MONTHS = 12


@dataclass(frozen=True, slots=True)
class Month:
    """A month of the page's menu, as seen in the organisation's zone."""

    label: str
    name: str
    chosen: bool


def chosen_month(visit: Visit, wanted: str) -> Period:
    """Return the month ``2026-11`` names, or the present one for anything else."""
    year, __, month = wanted.partition("-")
    numbers = len(wanted) <= 7 and year.isdecimal() and month.isdecimal()
    if numbers and 2000 <= int(year) <= 2100 and 1 <= int(month) <= 12:
        return month_period(int(year), int(month), visit.zone)
    return month_of(visit.platform.clock.now(), visit.zone)


def months(visit: Visit, chosen: Period) -> list[Month]:
    """Return the last twelve months, newest first."""
    found, period = [], month_of(visit.platform.clock.now(), visit.zone)
    for __ in range(_MONTHS):
        found.append(Month(period.label, formats.month(period.label), period.label == chosen.label))
        period = month_of(period.start - timedelta(days=1), visit.zone)
    return found


def days(hours: list[Hour], period: Period, zone: str, today: date) -> list[Point]:
    """Return the calls of each day of a period up to today, as seen in a zone; days without calls too."""
    tz = ZoneInfo(zone)
    calls: dict[date, int] = defaultdict(int)
    for hour in hours:
        calls[hour.hour.astimezone(tz).date()] += hour.counts.calls
    first = period.start.astimezone(tz).date()
    last = min((period.end - timedelta(microseconds=1)).astimezone(tz).date(), today)
    span = [first + timedelta(days=count) for count in range((last - first).days + 1)]
    return [Point(formats.short_day(day), Decimal(calls[day])) for day in span]


def daily_chart(visit: Visit, period: Period, hours: list[Hour]) -> Chart:
    today = visit.platform.clock.now().astimezone(ZoneInfo(visit.zone)).date()
    return bar_chart(_("Calls per day"), "calls", days(hours, period, visit.zone, today))


@router.get("/usage")
async def usage(visit: VisitOf, month: str = "") -> Response:
    actor = visit.require_actor()
    period = chosen_month(visit, month)
    services = await visit.platform.usage.summary(actor, period, org=actor.org_id)
    hours = await visit.platform.usage.hourly(actor, period, org=actor.org_id)
    return visit.render(
        "usage.html",
        period=period,
        months=months(visit, period),
        services=services,
        chart=daily_chart(visit, period, hours) if services else None,
    )


@router.get("/calls")
async def calls(visit: VisitOf, outcome: str = "", service: str = "", cursor: str = "", id: str = "") -> Response:
    actor = visit.require_actor()
    if id.strip():
        return visit.redirect(f"/account/calls/{parse_id(id.strip())}")
    chosen = CallFilter(org=actor.org_id, outcome=outcome or None, service_id=parse_id(service) if service else None)
    page = await visit.platform.usage.calls(actor, chosen, cursor=cursor or None)
    query = {"outcome": outcome, "service": service, "cursor": page.next or ""}
    return visit.render(
        "calls.html",
        calls=page.items,
        outcome=outcome,
        service=service,
        next_href=f"/account/calls?{urlencode({k: v for k, v in query.items() if v})}" if page.next else None,
    )


@router.get("/calls/{identifier}")
async def call(visit: VisitOf, identifier: str) -> Response:
    """Tell a call's story to whoever may hear it: its customer, its provider, the operator."""
    actor = visit.require_actor()
    story = await visit.platform.usage.call(actor, parse_id(identifier))
    row = story.call
    borne = await portions(visit.platform.db, actor, row["id"]) if story.lines else []
    return visit.render(
        "call.html",
        story=story,
        call=row,
        borne=borne,
        stages=time_line(
            admission=row["admission_us"],
            queue=row["queue_us"],
            connect=row["connect_us"],
            first_byte=row["first_byte_us"],
            total=row["total_us"],
        ),
        watching=actor.may(Permission.PLATFORM_WATCH),
    )

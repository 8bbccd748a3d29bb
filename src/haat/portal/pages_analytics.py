"""Dashboards: how calls went, for who made them, who executed them, and the operator; and calls as they come in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from fastapi import APIRouter, Header
from starlette.responses import Response

from haat.language.messages import N_, _, gettext
from haat.portal import formats
from haat.portal.charts import Chart, Point, bar_chart
from haat.portal.pages_usage import Month, months
from haat.portal.visit import Visit, VisitOf
from haat.usage.analytics import Dashboard, Window
from haat.usage.live import AT_ONCE, BACK, STEPS
from haat.usage.streams import EVENT_STREAM, streamed

router = APIRouter()

_SPANS = {"24h": N_("Last 24 hours"), "7d": N_("Last 7 days"), "30d": N_("Last 30 days")}
_COMPARED = {
    "24h": N_("Compared with the 24 hours before."),
    "7d": N_("Compared with the 7 days before."),
    "30d": N_("Compared with the 30 days before."),
}


@dataclass(frozen=True, slots=True)
class View:
    """Whose dashboard it is: how its page is called, and what it says of whose calls these are.

    ``title`` and ``about`` are English, marked for translation.
    """

    action: str
    title: str
    about: str
    tabs: str


_CONSUMER = View(
    "/account/analytics",
    N_("How your calls went"),
    N_("Calls of your applications, whoever executed them."),
    "account",
)
_PROVIDER = View(
    "/partner/analytics",
    N_("How your services are called"),
    N_(
        "What your services executed. Customers are pseudonyms, "
        "and where few stand behind a figure it is added to others."
    ),
    "partner",
)
_OPERATOR = View("/operator/analytics", N_("The market"), N_("All calls, of all customers and providers."), "operator")


@router.get("/account/analytics")
async def consumer(visit: VisitOf, window: str = "") -> Response:
    actor = visit.require_actor()
    chosen = await _window(visit, window)
    return _page(visit, _CONSUMER, await visit.platform.analytics.consumer(actor, chosen))


@router.get("/partner/analytics")
async def provider(visit: VisitOf, window: str = "") -> Response:
    actor = visit.require_actor()
    chosen = await _window(visit, window)
    return _page(visit, _PROVIDER, await visit.platform.analytics.provider(actor, chosen))


@router.get("/operator/analytics")
async def operator(visit: VisitOf, window: str = "") -> Response:
    actor = visit.require_actor()
    chosen = await _window(visit, window)
    return _page(visit, _OPERATOR, await visit.platform.analytics.operator(actor, chosen))


@router.get("/account/live")
async def live(visit: VisitOf) -> Response:
    """Show the newest calls. A browser that runs scripts is sent further ones; others load the page again."""
    calls, seen = await visit.platform.live.latest(visit.require_actor())
    return visit.render(
        "live.html", calls=calls, seen=seen, most=AT_ONCE, back=int(BACK / timedelta(seconds=1)), steps=STEPS
    )


@router.get("/account/live/feed")
async def feed(visit: VisitOf, after: str = "", last_event_id: str = Header("", max_length=18)) -> Response:
    """Send rows of that page's table as they come."""
    seen = next(
        (int(batch) for batch in (last_event_id, after) if batch.isascii() and batch.isdigit() and len(batch) <= 18),
        None,
    )
    row = visit.environment.get_template("live_row.html")

    def rendered(call: Mapping[str, Any]) -> bytes:
        return " ".join(row.render(call=call, zone=visit.zone).split()).encode()

    return await streamed(visit.platform.live.feed(visit.require_actor(), seen, render=rendered), EVENT_STREAM)


async def _window(visit: Visit, wanted: str) -> Window:
    return await visit.platform.analytics.window(visit.require_actor(), wanted or "7d")


def _page(visit: Visit, view: View, dashboard: Dashboard) -> Response:
    window = dashboard.window
    return visit.render(
        "analytics.html",
        view=view,
        dashboard=dashboard,
        chart=_chart(dashboard, visit.platform.clock.now()) if dashboard.totals.calls else None,
        spans=[(name, gettext(text), name == window.period.label) for name, text in _SPANS.items()],
        months=_months(visit, window),
        compared=_compared(window),
    )


def _months(visit: Visit, window: Window) -> list[Month]:
    return months(visit, window.period)


def _compared(window: Window) -> str:
    if window.period.label in _COMPARED:
        return gettext(_COMPARED[window.period.label])
    return _("Compared with as much of %(month)s.", month=formats.month(window.before.label))


def _chart(dashboard: Dashboard, now: datetime) -> Chart:
    """Draw the calls of each step, those without calls too, up to now."""
    window = dashboard.window
    calls = {point.at: point.figures.calls for point in dashboard.series}
    step = timedelta(hours=1) if window.step == "hour" else timedelta(days=1)
    at, end = window.local(window.period.start), window.local(min(window.period.end, now))
    points = []
    while at < end:
        label = f"{at:%H}:00" if window.step == "hour" else formats.short_day(at)
        points.append(Point(label, Decimal(calls.get(at, 0))))
        at += step
    title = _("Calls per hour") if window.step == "hour" else _("Calls per day")
    return bar_chart(title, "calls", points)

"""A listing's service level: objectives, budget and incidents for everybody; its provider and the operator set them."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import urlencode

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.responses import Response

from haat.catalog.model import Listing
from haat.kernel.errors import HaatError, NotFound, ValidationFailed
from haat.kernel.permissions import Permission
from haat.language.messages import N_, _, gettext
from haat.portal.visit import Fields, Visit, VisitOf, messages, parse_id
from haat.sla.maintenance import local_moment
from haat.sla.model import ObjectiveDraft
from haat.sla.views import Incident

router = APIRouter(prefix="/services/{provider}/{service}/level")

INCIDENTS = {
    "suspension": N_("suspended for its uptime"),
    "availability_fast": N_("too many calls failed, fast"),
    "availability_slow": N_("too many calls failed, slowly"),
    "p50_fast": N_("half of the answers were too slow"),
    "p50_slow": N_("half of the answers were too slow"),
    "p95_fast": N_("answers were too slow (p95), fast"),
    "p95_slow": N_("answers were too slow (p95), slowly"),
    "p99_fast": N_("answers were too slow (p99), fast"),
    "p99_slow": N_("answers were too slow (p99), slowly"),
}
_PROBES = (
    ("health", N_("its health path, or a connection")),
    ("sample", N_("its sample call")),
    ("none", N_("not at all")),
)


def _may_edit(visit: Visit, listing: Listing) -> bool:
    actor = visit.actor
    if actor is None:
        return False
    return actor.may(Permission.SERVICES_SUSPEND) or (
        actor.may(Permission.SERVICES_EDIT) and actor.org_id == listing.org_id
    )


async def _page(visit: Visit, provider: str, service: str, status: int = 200, errors: Fields | None = None) -> Response:
    listing = await visit.platform.discovery.listing(visit.actor, provider, service)
    report = await visit.platform.sla.report(visit.actor, listing.id)
    own = await visit.platform.sla.breaches(visit.actor, service_id=listing.id, limit=12) if visit.actor else None
    now = report.at
    return visit.render(
        "level.html",
        status,
        listing=listing,
        report=report,
        spent=min(max(float(report.budget.spent), 0), 100) if report.budget else 0,
        incidents=[(one, gettext(INCIDENTS[one.kind]), _figures(one)) for one in report.incidents],
        coming=[one for one in report.windows if one.ends_at > now],
        past=[one for one in report.windows if one.ends_at <= now],
        open_months={month.id for month in own.items} if own else set(),
        may_edit=_may_edit(visit, listing),
        probe_kinds=[(kind, gettext(name)) for kind, name in _PROBES],
        notice_hours=visit.platform.settings.maintenance_notice_hours,
        month_hours=visit.platform.settings.maintenance_month_hours,
        errors=errors or Fields(),
        typed=visit.typed if errors else Fields(),
    )


def _figures(incident: Incident) -> str:
    """Write an incident's figures with their windows."""
    said = incident.figures
    if incident.kind != "suspension":
        return _(
            "%(long_rate)s times the budget's pace in %(long_minutes)s minutes, "
            "%(short_rate)s times in %(short_minutes)s",
            **said,
        )
    if said["source"] == "probes":
        return _("there for %(share)s %% of 24 hours, by probes", share=said["uptime"])
    return _("there for %(share)s %% of 24 hours, by traffic", share=said["uptime"])


@router.get("")
async def level(visit: VisitOf, provider: str, service: str) -> Response:
    return await _page(visit, provider, service)


@router.post("/objective")
async def promise(visit: VisitOf, provider: str, service: str) -> Response:
    actor = visit.require_actor()
    listing = await visit.platform.discovery.listing(actor, provider, service)
    try:
        await visit.platform.sla.promise(actor, listing.id, _draft(visit))
    except NotFound:
        raise
    except HaatError as error:
        return await _page(visit, provider, service, error.status, messages(error))
    return visit.redirect(_address(listing), done="promised")


def _draft(visit: Visit) -> ObjectiveDraft:
    """Read the form; raise ValidationFailed with what its fields lack."""
    given: dict[str, object] = {
        name: visit.text(name)
        for name in ("availability", "p50_ms", "p95_ms", "p99_ms", "latency_credit", "probe")
        if visit.text(name)
    }
    parts = [part.partition(":") for part in visit.text("tiers").replace("%", "").split(",") if part.strip()]
    given["tiers"] = [{"below": below.strip(), "credit": credit.strip()} for below, _, credit in parts]
    try:
        return ObjectiveDraft.model_validate(given)
    except ValidationError as error:
        wrong = [
            {"field": str(one["loc"][0]) if one["loc"] else "tiers", "message": f"{one['msg']}."}
            for one in error.errors()
        ]
        raise ValidationFailed(errors=wrong) from error


@router.post("/maintenance")
async def announce(visit: VisitOf, provider: str, service: str) -> Response:
    actor = visit.require_actor()
    listing = await visit.platform.discovery.listing(actor, provider, service)
    try:
        start, end = _moment(visit, "starts_at"), _moment(visit, "ends_at")
        await visit.platform.sla.announce(actor, listing.id, start, end, visit.text("note"))
    except NotFound:
        raise
    except HaatError as error:
        return await _page(visit, provider, service, error.status, messages(error))
    return visit.redirect(_address(listing), done="maintenance")


def _moment(visit: Visit, field: str) -> datetime:
    text = visit.text(field)
    try:
        datetime.fromisoformat(text)
    except ValueError as error:
        raise ValidationFailed(errors=[{"field": field, "message": _("Choose a day and a time.")}]) from error
    try:
        return local_moment(text, visit.zone)
    except ValueError as error:  # the clocks skip that time or show it twice
        told = str(error)
        raise ValidationFailed(errors=[{"field": field, "message": f"{told[:1].upper()}{told[1:]}."}]) from error


@router.post("/maintenance/{window}/cancel")
async def cancel(visit: VisitOf, provider: str, service: str, window: str) -> Response:
    actor = visit.require_actor()
    listing = await visit.platform.discovery.listing(actor, provider, service)
    try:
        await visit.platform.sla.cancel(actor, parse_id(window))
    except NotFound:
        raise
    except HaatError as error:
        return await _page(visit, provider, service, error.status, messages(error))
    return visit.redirect(_address(listing), done="maintenance-cancelled")


@router.get("/months/{month}")
async def month(visit: VisitOf, provider: str, service: str, month: str, cursor: str = "") -> Response:
    """Show the evidence of a judged month: what was counted, whom it concerned, what it paid, which calls."""
    actor = visit.require_actor()
    listing = await visit.platform.discovery.listing(actor, provider, service)
    identifier = parse_id(month)
    story = await visit.platform.sla.month(actor, identifier)
    if story.month.service_id != listing.id:
        raise NotFound
    page = await visit.platform.sla.calls(actor, identifier, cursor=cursor or None, limit=50)
    mine = actor.org_id != listing.org_id and not actor.may(Permission.PLATFORM_WATCH)
    return visit.render(
        "level_month.html",
        listing=listing,
        story=story,
        month=story.month,
        mine=mine,
        calls=page.items,
        next_href=f"{visit.request.url.path}?{urlencode({'cursor': page.next})}" if page.next else None,
    )


def _address(listing: Listing) -> str:
    return f"/services/{listing.path}/level"

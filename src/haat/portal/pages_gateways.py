"""Gateways, journals and job queues as the operator watches them, and the one switch there is: to forget answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from haat.infra import events
from haat.infra.gateway_report import GatewayReport, Health, ask
from haat.infra.postgres import PLATFORM_SCOPE, Connection
from haat.kernel.errors import HaatError, NotFound
from haat.kernel.permissions import Actor, Permission
from haat.language.messages import N_, _, _n, gettext
from haat.portal import formats
from haat.portal.visit import Fields, Visit, VisitOf, messages
from haat.usage.frames import Position
from haat.usage.reader import backlogs

router = APIRouter(prefix="/operator/gateways")

LATE = timedelta(seconds=5)
"""A change that a gateway does not know after that long is worth a word: within a second is usual."""
SILENT = timedelta(seconds=30)
"""A job worker without a sign of life for so long counts as dead (see `haat.infra.job_worker.Pace`)."""
SHOWN = 100
"""Of the records that were set aside."""

COMPONENTS = {
    "snapshot": N_("What it knows"),
    "journal": N_("Journal"),
    "upstreams": N_("Endpoints"),
    "clients": N_("Callers"),
    "wallets": N_("Wallets"),
    "certificate": N_("Certificate"),
    "workers": N_("Workers"),
}
BREAKERS = {"closed": N_("closed"), "half_open": N_("half open"), "open": N_("open")}


@dataclass(frozen=True, slots=True)
class Journal:
    """One worker's journal: how far it is shipped, and how many bytes of it are not; None on another machine."""

    worker: str
    segment: int | None
    moved_at: datetime | None
    problem: str
    behind: int | None


def _operator(visit: Visit) -> Actor:
    actor = visit.require_actor()
    actor.require(Permission.PLATFORM_WATCH)
    return actor


async def _page(visit: Visit, status: int = 200, errors: Fields | None = None) -> Response:
    actor, platform = _operator(visit), visit.platform
    report = await ask(platform.settings.gateway_address)
    async with platform.db.transaction(PLATFORM_SCOPE) as connection:
        queues = await platform.jobs.queues(connection)
        seen = await platform.jobs.last_seen(connection)
        oldest = await _oldest_unknown(connection, report)
    now = platform.clock.now()
    set_aside = await platform.usage.quarantined(actor, SHOWN)
    return visit.render(
        "gateways.html",
        status,
        report=report,
        components=_components(report.health) if report.health else [],
        behind_since=oldest if oldest is not None and now - oldest > LATE else None,
        knows_place=report.health is not None and report.health.reached is not None,
        breakers=BREAKERS,
        journals=await _journals(visit, actor),
        set_aside=set_aside,
        shown=SHOWN,
        queues=queues,
        seen=seen,
        silent=[at for at in seen if now - at > SILENT],
        purged="purged" in visit.request.query_params,
        typed=visit.typed if errors else Fields(),
        errors=errors or Fields(),
    )


@router.get("")
async def watch(visit: VisitOf) -> Response:
    return await _page(visit)


@router.post("/purge")
async def purge(visit: VisitOf) -> Response:
    """Have every gateway forget what it keeps of a service's answers: the catalog records who did it."""
    actor = visit.require_actor()
    actor.require(Permission.SERVICES_SUSPEND)
    provider, _slash, slug = visit.text("service").partition("/")
    try:
        listing = await visit.platform.discovery.listing(actor, provider, slug)
    except NotFound:
        return await _page(visit, 422, Fields(service=_("There is no such service: write it as provider/name.")))
    try:
        await visit.platform.catalog.purge_cache(actor, listing.id)
    except HaatError as error:
        return await _page(visit, error.status, messages(error))
    return visit.redirect("/operator/gateways", purged="1")


async def _oldest_unknown(connection: Connection, report: GatewayReport) -> datetime | None:
    """Return when the first change happened that the gateway does not know yet."""
    reached = report.health.reached if report.health else None
    return await events.oldest_after(connection, reached) if reached is not None else None


async def _journals(visit: Visit, actor: Actor) -> list[Journal]:
    shipped = {row["worker"]: row for row in await visit.platform.usage.shipping(actor)}
    positions = {worker: Position(row["segment"], row["byte_offset"]) for worker, row in shipped.items()}
    here = await asyncio.to_thread(backlogs, visit.platform.settings.data_dir / "journal", positions)
    found = []
    for worker in sorted({*shipped, *here}):
        row: Mapping[str, Any] = shipped.get(worker, {})
        found.append(
            Journal(worker, row.get("segment"), row.get("moved_at"), row.get("problem") or "", here.get(worker))
        )
    return found


def _components(health: Health) -> list[tuple[str, str, str]]:
    """Return each component's name, its status, and a sentence about it."""
    return [
        (gettext(COMPONENTS[name]) if name in COMPONENTS else name, str(part.get("status")), _told(name, part))
        for name, part in health.components.items()
    ]


def _told(name: str, part: Mapping[str, Any]) -> str:
    well = part.get("status") == "healthy"
    match name, part:
        case "snapshot", {"credentials": int(keys), "services": int(services)}:
            known = _(
                "Keys: %(keys)s. Services: %(services)s.", keys=formats.number(keys), services=formats.number(services)
            )
            if well:
                return known
            cut = _("The change feed is cut off: it serves on, and hears of no new key or subscription.")
            return f"{known} {cut}"
        case "journal", {"disk": {"used": float(used) | int(used)}}:
            share = formats.percent(used, 0)
            if part.get("status") == "unhealthy":
                return _(
                    "It can't be written: calls are refused until it can. Its disk is %(share)s full.", share=share
                )
            return _("Its disk is %(share)s full.", share=share)
        case "upstreams", {"broken": int(broken)}:
            return _n(
                "%(amount)s endpoint has an open breaker.",
                "%(amount)s endpoints have an open breaker.",
                broken,
                amount=formats.number(broken),
            )
        case "clients", {"connections": int(connections)}:
            return _n(
                "%(amount)s connection.", "%(amount)s connections.", connections, amount=formats.number(connections)
            )
        case "wallets", _ if not well:
            return _("The platform has not answered it lately: prepaid calls go on from what it was lent.")
        case "certificate", {"expires": str(expires)}:
            return _("It ends on %(day)s.", day=expires[:10])
        case "workers", {"away": int(away), "expected": int(expected)}:
            return _("%(away)s of %(expected)s are away.", away=formats.number(away), expected=formats.number(expected))
    return ""

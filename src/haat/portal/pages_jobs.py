"""An organisation's jobs with their items, and the endpoints that are told of their end."""

from __future__ import annotations

from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.responses import Response

from haat.jobs.service import require_change
from haat.jobs.webhooks import Shown
from haat.kernel.errors import AddressForbidden, HaatError
from haat.portal.visit import Fields, Visit, VisitOf, messages, parse_id

router = APIRouter(prefix="/account")

STATUSES = ("waiting", "running", "cancelling", "completed", "cancelled", "expired", "failed")
ITEM_STATUSES = ("waiting", "succeeded", "failed", "cancelled", "expired")
ITEMS = 50


@router.get("/jobs")
async def jobs(visit: VisitOf, status: str = "", cursor: str = "") -> Response:
    actor = visit.require_actor()
    chosen = status if status in STATUSES else ""
    page = await visit.platform.caller_jobs.seen_all(actor, status=chosen or None, cursor=cursor or None)
    names = {one.id: one.name for one in await visit.platform.identity.applications(actor)}
    query = {"status": chosen, "cursor": page.next or ""}
    return visit.render(
        "jobs.html",
        jobs=page.items,
        names=names,
        chosen=chosen,
        statuses=STATUSES,
        next_href=f"/account/jobs?{urlencode({k: v for k, v in query.items() if v})}" if page.next else None,
    )


@router.get("/jobs/{identifier}")
async def job(visit: VisitOf, identifier: str, items: str = "", after: str = "") -> Response:
    actor, job_id = visit.require_actor(), parse_id(identifier)
    found = await visit.platform.caller_jobs.seen(actor, job_id)
    chosen = items if items in ITEM_STATUSES else ""
    place = int(after) if after.isdecimal() and len(after) < 7 else -1
    listed = await visit.platform.caller_jobs.outline(actor, job_id, after=place, status=chosen or None, limit=ITEMS)
    more = len(listed) > ITEMS
    query = {"items": chosen, "after": str(listed[ITEMS - 1].place) if more else ""}
    return visit.render(
        "job.html",
        job=found,
        items=listed[:ITEMS],
        item_statuses=ITEM_STATUSES,
        chosen=chosen,
        next_href=f"{visit.request.url.path}?{urlencode({k: v for k, v in query.items() if v})}" if more else None,
        deliveries=(await visit.platform.webhooks.deliveries(actor, job=job_id)).items,
    )


@router.post("/jobs/{identifier}/cancel")
async def cancel(visit: VisitOf, identifier: str) -> Response:
    org, by = require_change(visit.require_actor())
    found = await visit.platform.caller_jobs.cancel(org, None, parse_id(identifier), by)
    return visit.redirect(f"/account/jobs/{found.id}", done="job-cancelled")


@router.post("/jobs/{identifier}/retry")
async def retry(visit: VisitOf, identifier: str) -> Response:
    org, by = require_change(visit.require_actor())
    found = await visit.platform.caller_jobs.retry(org, None, parse_id(identifier), by)
    return visit.redirect(f"/account/jobs/{found.id}", done="job-retried")


@router.post("/deliveries/{identifier}/resend")
async def resend(visit: VisitOf, identifier: str) -> Response:
    found = await visit.platform.webhooks.resend(visit.require_actor(), parse_id(identifier))
    return visit.redirect(f"/account/jobs/{found.job_id}" if found.job_id else "/account/webhooks", done="resent")


# --- endpoints ------------------------------------------------------------------------------------


async def _webhooks_page(
    visit: Visit, status: int = 200, *, errors: Fields | None = None, shown: Shown | None = None
) -> Response:
    actor = visit.require_actor()
    applications = await visit.platform.identity.applications(actor)
    return visit.render(
        "webhooks.html",
        status,
        endpoints=await visit.platform.webhooks.endpoints(actor),
        names={one.id: one.name for one in applications},
        choices=[(str(one.id), one.name) for one in applications],
        shown=shown,
        typed=visit.typed if errors else Fields(),
        errors=errors or Fields(),
    )


@router.get("/webhooks")
async def webhooks(visit: VisitOf) -> Response:
    return await _webhooks_page(visit)


@router.post("/webhooks")
async def add_webhook(visit: VisitOf) -> Response:
    actor = visit.require_actor()
    try:
        shown = await visit.platform.webhooks.add(actor, visit.identifier("application"), visit.text("url"))
    except HaatError as error:
        said = Fields(url=error.detail) if isinstance(error, AddressForbidden) else messages(error)
        return await _webhooks_page(visit, error.status, errors=said)
    return await _webhooks_page(visit, 201, shown=shown)


@router.post("/webhooks/{identifier}/rotate")
async def rotate_webhook(visit: VisitOf, identifier: str) -> Response:
    shown = await visit.platform.webhooks.rotate(visit.require_actor(), parse_id(identifier))
    return await _webhooks_page(visit, shown=shown)


@router.post("/webhooks/{identifier}/enable")
async def enable_webhook(visit: VisitOf, identifier: str) -> Response:
    await visit.platform.webhooks.enable(visit.require_actor(), parse_id(identifier))
    return visit.redirect("/account/webhooks", done="endpoint-enabled")


@router.post("/webhooks/{identifier}/delete")
async def delete_webhook(visit: VisitOf, identifier: str) -> Response:
    await visit.platform.webhooks.delete(visit.require_actor(), parse_id(identifier))
    return visit.redirect("/account/webhooks", done="endpoint-deleted")

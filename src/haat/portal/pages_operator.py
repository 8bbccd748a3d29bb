"""The operator's desk: who may sell, what failed for good, and the month's invoices."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from uuid import UUID

from fastapi import APIRouter
from starlette.responses import Response

from haat.infra import dead_letters
from haat.infra.postgres import PLATFORM_SCOPE
from haat.invoices.runs import Run
from haat.kernel.clock import month_of
from haat.kernel.errors import HaatError, NotFound
from haat.kernel.permissions import Actor, Permission
from haat.portal.pages_usage import chosen_month, months
from haat.portal.visit import Fields, Visit, VisitOf, messages, parse_id
from haat.portal.words import BUSINESSES

router = APIRouter(prefix="/operator")

SHOWN = 50
"""Of those whom a run could not bill."""


def _operator(visit: Visit, permission: Permission) -> Actor:
    actor = visit.require_actor()
    actor.require(permission)
    return actor


# --- approvals ------------------------------------------------------------------------------------


async def _queue_page(visit: Visit, status: int = 200, errors: Fields | None = None) -> Response:
    actor = _operator(visit, Permission.PARTNERS_DECIDE)
    waiting = await visit.platform.partners.directory(actor, "pending")
    return visit.render("queue.html", status, waiting=waiting, businesses=BUSINESSES, errors=errors or Fields())


@router.get("")
async def queue(visit: VisitOf) -> Response:
    return await _queue_page(visit)


async def _directory_page(visit: Visit, status: int = 200, errors: Fields | None = None) -> Response:
    actor = _operator(visit, Permission.PARTNERS_DECIDE)
    partners = await visit.platform.partners.directory(actor)
    return visit.render("partners.html", status, partners=partners, errors=errors or Fields())


@router.get("/partners")
async def directory(visit: VisitOf) -> Response:
    return await _directory_page(visit)


@router.post("/partners/{org}/{decision}")
async def decide(visit: VisitOf, org: str, decision: str) -> Response:
    """Approve, reject, suspend, or set the networks of a partner: the service records who did it."""
    actor, partner = _operator(visit, Permission.PARTNERS_DECIDE), parse_id(org)
    page, home = (
        (_queue_page, "/operator") if decision in ("approve", "reject") else (_directory_page, "/operator/partners")
    )
    try:
        if decision in ("approve", "restore"):
            await visit.platform.partners.approve(actor, partner)
        elif decision == "reject":
            await visit.platform.partners.reject(actor, partner, visit.text("reason"))
        elif decision == "suspend":
            await visit.platform.partners.suspend(actor, partner, visit.text("reason"))
        elif decision == "networks":
            networks = visit.text("networks").replace(",", " ").split()
            await visit.platform.partners.allow_networks(actor, partner, networks)
        else:
            raise NotFound
    except NotFound:
        raise
    except HaatError as error:
        return await page(visit, error.status, messages(error))
    done = {"approve": "approved", "reject": "rejected", "suspend": "suspended", "restore": "restored"}
    return visit.redirect(home, done=done.get(decision, decision))


# --- dead letters ---------------------------------------------------------------------------------


@router.get("/dead-letters")
async def letters(visit: VisitOf) -> Response:
    _operator(visit, Permission.PLATFORM_WATCH)
    async with visit.platform.db.transaction(PLATFORM_SCOPE) as connection:
        found = await dead_letters.find(connection)
    return visit.render("dead_letters.html", letters=found)


@router.post("/dead-letters/{letter}/replay")
async def replay(visit: VisitOf, letter: str) -> Response:
    actor, now = _operator(visit, Permission.DEAD_LETTERS_REPLAY), visit.platform.clock.now()
    async with visit.platform.db.transaction(PLATFORM_SCOPE) as connection:
        await dead_letters.replay(connection, visit.platform.jobs, parse_id(letter), actor=actor.label, at=now)
    return visit.redirect("/operator/dead-letters", done="replayed")


# --- the invoice run ------------------------------------------------------------------------------


async def _run_page(visit: Visit, status: int = 200, *, month: str = "", errors: Fields | None = None) -> Response:
    actor = _operator(visit, Permission.INVOICES_RUN)
    last = month_of(month_of(visit.platform.clock.now(), visit.zone).start - timedelta(days=1), visit.zone)
    period = chosen_month(visit, month or last.label)
    issued = await visit.platform.invoices.page(actor, period=period.label, limit=100)
    run = await _run_of(visit, actor, period.label)
    return visit.render(
        "invoice_run.html",
        status,
        period=period,
        months=months(visit, period),
        running=visit.platform.clock.now() < period.end,
        issued=issued.items,
        names=await _names(visit, [str(one.org_id) for one in issued.items], run),
        run=run,
        shown=SHOWN,
        registering=[one for one in await visit.platform.invoices.registering(actor) if one.period == period.label],
        errors=errors or Fields(),
    )


async def _run_of(visit: Visit, actor: Actor, period: str) -> Run | None:
    try:
        return await visit.platform.billing.status(actor, period)
    except NotFound:
        return None


async def _names(visit: Visit, orgs: Iterable[str], run: Run | None) -> dict[str, str]:
    """Return the names of organisations and of the first that a run could not bill, by id."""
    wanted = {*orgs, *(one["org_id"] for one in (run.failed if run else ())[:SHOWN])}
    names = await visit.platform.identity.names(map(UUID, wanted))
    return {str(org): name for org, name in names.items()}


@router.get("/invoices")
async def invoice_run(visit: VisitOf, month: str = "") -> Response:
    return await _run_page(visit, month=month)


@router.get("/invoices/{month}/progress")
async def run_progress(visit: VisitOf, month: str) -> Response:
    """Return the piece of the page that says how far a run is; it asks again until the run is done."""
    actor = _operator(visit, Permission.INVOICES_RUN)
    period = chosen_month(visit, month)
    run = await _run_of(visit, actor, period.label)
    answer = visit.render("run_progress.html", run=run, period=period, names=await _names(visit, (), run), shown=SHOWN)
    if run is None or run.state == "done":
        answer.headers["HX-Refresh"] = "true"  # the whole page has what came of it
    return answer


@router.post("/invoices")
async def run_invoices(visit: VisitOf) -> Response:
    """Begin to close a month, or bill what is counted up to now of one that runs; twice changes nothing."""
    actor, month = _operator(visit, Permission.INVOICES_RUN), visit.text("month")
    try:
        if visit.text("up_to_now") == "yes":
            until = await visit.platform.usage.watermark()
            await visit.platform.invoices.issue_all(actor, month, until=until)
            await visit.platform.settlements.close_all(actor, month)
        else:
            await visit.platform.billing.start(actor, month, again=visit.text("again") == "yes")
    except HaatError as error:
        return await _run_page(visit, error.status, month=month, errors=messages(error))
    return visit.redirect("/operator/invoices", month=month)

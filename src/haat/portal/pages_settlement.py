"""Payouts and disputes: the provider's and the customer's side, and the operator's desk."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.responses import Response, StreamingResponse

from haat.kernel.clock import month_of
from haat.kernel.errors import HaatError, NotFound, PermissionDenied, ValidationFailed
from haat.kernel.money import rupees
from haat.kernel.permissions import Actor, Permission
from haat.language.messages import N_, _
from haat.portal import formats
from haat.portal.pages_usage import chosen_month, months
from haat.portal.visit import Fields, Visit, VisitOf, messages, parse_id
from haat.settlement.bank_answers import Answered
from haat.settlement.disputes import Verdict
from haat.settlement.evidence import MEDIA_TYPES
from haat.settlement.payout_model import Status
from haat.settlement.payouts import PayoutRun

router = APIRouter()

STATUSES = tuple(Status)
SHOWN_ROWS = 20
"""Of those rows of a bank's file that were refused."""
EVENTS = {
    "payout.drafted": N_("drafted"),
    "payout.held": N_("held"),
    "payout.released": N_("released"),
    "payout.approved": N_("approved"),
    "payout.sent": N_("sent to the bank"),
    "payout.paid": N_("paid"),
    "payout.failed": N_("refused by the bank"),
    "payout.reversed": N_("reversed"),
}


def _next(path: str, **query: str | None) -> str | None:
    return f"{path}?{urlencode({name: value for name, value in query.items() if value})}" if query["cursor"] else None


# --- the provider's side --------------------------------------------------------------------------


def _provider(visit: Visit) -> Actor:
    actor = visit.require_actor()
    if visit.visitor is None or visit.visitor.organisation.kind != "provider":
        raise PermissionDenied(_("This is for providers: sign up as one to open a stall."))
    return actor


async def _payouts_page(visit: Visit, status: int = 200, *, cursor: str = "", errors: Fields | None = None) -> Response:
    actor = _provider(visit)
    page = await visit.platform.payouts.page(actor, cursor=cursor or None, limit=25)
    return visit.render(
        "payouts.html",
        status,
        balance=await visit.platform.payouts.balance(actor),
        payouts=page.items,
        holds=await visit.platform.payouts.holds(actor),
        typed=visit.typed if errors else Fields(),
        errors=errors or Fields(),
        next_href=_next("/partner/payouts", cursor=page.next),
    )


@router.get("/partner/payouts")
async def payouts(visit: VisitOf, cursor: str = "") -> Response:
    return await _payouts_page(visit, cursor=cursor)


@router.post("/partner/payouts/account")
async def set_account(visit: VisitOf) -> Response:
    actor = _provider(visit)
    try:
        await visit.platform.payouts.set_account(actor, visit.text("holder"), visit.text("number"), visit.text("ifsc"))
    except ValidationFailed as error:
        return await _payouts_page(visit, error.status, errors=messages(error))
    return visit.redirect("/partner/payouts", done="bank-account")


@router.get("/partner/payouts/{payout}")
async def payout(visit: VisitOf, payout: str) -> Response:
    found = await visit.platform.payouts.story(_provider(visit), parse_id(payout))
    return visit.render("payout.html", story=found, events=EVENTS, home="/partner/payouts", operator=False)


@router.get("/partner/statements/{settlement}/evidence")
async def evidence(visit: VisitOf, settlement: str, form: str = "csv") -> Response:
    """Stream every call behind a statement; the first piece is there before the answer begins."""
    if form not in ("csv", "parquet"):
        raise NotFound
    pieces = visit.platform.evidence.stream(
        visit.require_actor(), parse_id(settlement), "parquet" if form == "parquet" else "csv"
    )
    first = await anext(pieces)

    async def body() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    name = f"statement-{parse_id(settlement)}.{form}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return StreamingResponse(body(), media_type=MEDIA_TYPES[form], headers=headers)


# --- disputes, of whoever opens them --------------------------------------------------------------


async def _disputes_page(visit: Visit, status: int = 200, errors: Fields | None = None, cursor: str = "") -> Response:
    actor = visit.require_actor()
    page = await visit.platform.disputes.page(actor, cursor=cursor or None, limit=25)
    invoices = await visit.platform.invoices.page(actor, limit=24)
    choices = [(f"invoice/{one.id}", _("Invoice %(serial)s", serial=one.serial)) for one in invoices.items]
    if actor.may(Permission.SETTLEMENTS_READ):
        statements = await visit.platform.settlements.page(actor, limit=24)
        choices += [
            (f"settlement/{one.id}", _("Statement of %(month)s", month=formats.month_part(one.period, one.part)))
            for one in statements.items
        ]
    return visit.render(
        "disputes.html",
        status,
        disputes=page.items,
        choices=choices,
        typed=visit.typed if errors else Fields(subject=visit.request.query_params.get("subject", "")),
        errors=errors or Fields(),
        next_href=_next("/account/disputes", cursor=page.next),
    )


@router.get("/account/disputes")
async def disputes(visit: VisitOf, cursor: str = "") -> Response:
    return await _disputes_page(visit, cursor=cursor)


@router.post("/account/disputes")
async def open_dispute(visit: VisitOf) -> Response:
    """Hold an uploaded log against ours. Longer ones than a form takes go to the API."""
    actor = visit.require_actor()
    log, name = await visit.upload("log")
    if not log:
        return await _disputes_page(visit, 422, Fields(log=_("Choose the file with your own log.")))

    async def pieces() -> AsyncIterator[bytes]:
        yield log

    try:
        made = await visit.platform.disputes.open(
            actor,
            visit.text("subject"),
            pieces(),
            "jsonl" if name.endswith((".jsonl", ".ndjson", ".json")) else "csv",
            visit.text("reason"),
        )
    except HaatError as error:
        return await _disputes_page(visit, error.status, messages(error))
    return visit.redirect(f"/account/disputes/{made.id}", done="agreed" if made.status == "agreed" else "contested")


async def _dispute_page(
    visit: Visit, identifier: str, template: str, status: int = 200, errors: Fields | None = None, cursor: str = ""
) -> Response:
    actor, dispute = visit.require_actor(), parse_id(identifier)
    story = await visit.platform.disputes.story(actor, dispute)
    page = await visit.platform.disputes.differences(actor, dispute, cursor=cursor or None, limit=50)
    return visit.render(
        template,
        status,
        story=story,
        calls=page.items,
        typed=visit.typed if errors else Fields(),
        errors=errors or Fields(),
        next_href=_next(visit.request.url.path, cursor=page.next),
    )


@router.get("/account/disputes/{dispute}")
async def dispute(visit: VisitOf, dispute: str, cursor: str = "") -> Response:
    return await _dispute_page(visit, dispute, "dispute.html", cursor=cursor)


@router.post("/account/disputes/{dispute}/withdraw")
async def withdraw(visit: VisitOf, dispute: str) -> Response:
    found = await visit.platform.disputes.withdraw(visit.require_actor(), parse_id(dispute))
    return visit.redirect(f"/account/disputes/{found.id}", done="withdrawn")


# --- the operator's desk --------------------------------------------------------------------------


def _operator(visit: Visit) -> Actor:
    actor = visit.require_actor()
    actor.require(Permission.SETTLEMENTS_RUN)
    return actor


async def _desk_page(
    visit: Visit,
    code: int = 200,
    *,
    status: str = "",
    cursor: str = "",
    errors: Fields | None = None,
    run: PayoutRun | None = None,
    answered: Answered | None = None,
    refused_rows: Sequence[Mapping[str, str]] = (),
) -> Response:
    actor = _operator(visit)
    chosen = status if status in STATUSES else ""
    page = await visit.platform.payouts.page(actor, status=chosen or None, cursor=cursor or None, limit=50)
    holds = await visit.platform.payouts.holds(actor)
    orgs = {one.org_id for one in page.items} | {one.org_id for one in holds}
    if run is not None:
        orgs |= {org for org, _why in (*run.carried[:SHOWN_ROWS], *run.refused[:SHOWN_ROWS])}
    return visit.render(
        "payout_desk.html",
        code,
        payouts=page.items,
        holds=holds,
        files=await visit.platform.payouts.files(actor),
        names=await visit.platform.identity.names(orgs),
        chosen=chosen,
        statuses=STATUSES,
        run=run,
        shown_rows=SHOWN_ROWS,
        answered=answered,
        refused_rows=refused_rows[:SHOWN_ROWS],
        more_rows=max(0, len(refused_rows) - SHOWN_ROWS),
        errors=errors or Fields(),
        next_href=_next("/operator/payouts", status=chosen, cursor=page.next),
    )


async def _run_page(
    visit: Visit, status: int = 200, *, month: str = "", cursor: str = "", errors: Any = None
) -> Response:
    actor = _operator(visit)
    last = month_of(month_of(visit.platform.clock.now(), visit.zone).start - timedelta(days=1), visit.zone)
    period = chosen_month(visit, month or last.label)
    page = await visit.platform.settlements.page(actor, period=period.label, cursor=cursor or None, limit=50)
    return visit.render(
        "settlement_run.html",
        status,
        period=period,
        months=months(visit, period),
        settlements=page.items,
        waiting=await visit.platform.settlements.waiting(actor, period.label),
        names=await visit.platform.identity.names(one.org_id for one in page.items),
        errors=errors or Fields(),
        next_href=_next("/operator/settlements", month=period.label, cursor=page.next),
    )


@router.get("/operator/settlements")
async def settlements(visit: VisitOf, month: str = "", cursor: str = "") -> Response:
    return await _run_page(visit, month=month, cursor=cursor)


@router.post("/operator/settlements")
async def settle(visit: VisitOf) -> Response:
    """Settle what a month's invoices say and no statement has yet; doing it twice changes nothing."""
    actor, month = _operator(visit), visit.text("month")
    try:
        await visit.platform.settlements.close_all(actor, month)
    except HaatError as error:
        return await _run_page(visit, error.status, month=month, errors=messages(error))
    return visit.redirect("/operator/settlements", month=month, done="settled")


@router.post("/operator/payouts/answers")
async def take_answers(visit: VisitOf) -> Response:
    """Take the bank's answers from its file: all of them or none, unless refused rows are to be left out."""
    actor = _operator(visit)
    text, _name = await visit.upload("file")
    if not text:
        return await _desk_page(visit, 422, errors=Fields(file=_("Choose the file that the bank has given you.")))
    try:
        answered = await visit.platform.bank_answers.take(actor, text, skip_refused=visit.text("skip_refused") == "yes")
    except ValidationFailed as error:
        rows = [item for item in error.extensions.get("errors", []) if item["field"] != "file"]
        told = messages(error) if not rows else Fields({"": error.detail})
        return await _desk_page(visit, error.status, errors=told, refused_rows=rows)
    return await _desk_page(visit, answered=answered)


@router.get("/operator/payouts")
async def desk(visit: VisitOf, status: str = "", cursor: str = "") -> Response:
    return await _desk_page(visit, status=status, cursor=cursor)


@router.post("/operator/payouts")
async def draft(visit: VisitOf) -> Response:
    """Draft payouts for all that providers are owed by now; doing it twice drafts nothing more."""
    return await _desk_page(visit, run=await visit.platform.payouts.draft_all(_operator(visit)))


@router.post("/operator/payouts/send")
async def send(visit: VisitOf) -> Response:
    if await visit.platform.payouts.send(_operator(visit)) is None:
        return await _desk_page(visit, 409, errors=Fields({"": _("No payout is approved: there is nothing to send.")}))
    return visit.redirect("/operator/payouts", done="payouts-sent")


@router.get("/operator/payouts/files/{file}")
async def payout_file(visit: VisitOf, file: str) -> Response:
    text = await visit.platform.payouts.file(_operator(visit), parse_id(file))
    headers = {
        "Content-Disposition": f'attachment; filename="payouts-{parse_id(file)}.csv"',
        "Cache-Control": "no-store",
    }
    return Response(text, media_type="text/csv; charset=utf-8", headers=headers)


@router.get("/operator/payouts/{payout}")
async def payout_at_desk(visit: VisitOf, payout: str) -> Response:
    return await _payout_page(visit, payout)


async def _payout_page(visit: Visit, payout: str, status: int = 200, errors: Fields | None = None) -> Response:
    found = await visit.platform.payouts.story(_operator(visit), parse_id(payout))
    return visit.render(
        "payout.html",
        status,
        story=found,
        events=EVENTS,
        home="/operator/payouts",
        operator=True,
        name=(await visit.platform.identity.organisation(found.payout.org_id)).name,
        errors=errors or Fields(),
    )


@router.post("/operator/payouts/{payout}/{step}")
async def move(visit: VisitOf, payout: str, step: str) -> Response:
    """Take a step with a payout; the service records who did it."""
    actor, identifier, use = _operator(visit), parse_id(payout), visit.platform.payouts
    steps: dict[str, Any] = {
        "approve": lambda: use.approve(actor, identifier),
        "hold": lambda: use.hold_payout(actor, identifier, visit.text("reason")),
        "release": lambda: use.release_payout(actor, identifier),
        "paid": lambda: use.pay(actor, identifier, visit.text("bank_reference")),
        "failed": lambda: use.fail(actor, identifier, visit.text("reason")),
        "reverse": lambda: use.reverse(actor, identifier, visit.text("reason")),
    }
    if step not in steps:
        raise NotFound
    try:
        taken: Awaitable[Any] = steps[step]()
        await taken
    except NotFound:
        raise
    except HaatError as error:
        return await _payout_page(visit, payout, error.status, messages(error))
    return visit.redirect(f"/operator/payouts/{identifier}", done=f"payout-{step}")


@router.post("/operator/holds/{hold}/release")
async def release_hold(visit: VisitOf, hold: str) -> Response:
    try:
        await visit.platform.payouts.release_hold(_operator(visit), parse_id(hold))
    except NotFound:
        raise
    except HaatError as error:
        return await _desk_page(visit, error.status, errors=messages(error))
    return visit.redirect("/operator/payouts", done="hold-released")


@router.get("/operator/disputes")
async def dispute_desk(visit: VisitOf, status: str = "open", cursor: str = "") -> Response:
    actor = _operator(visit)
    chosen = status if status in ("open", "agreed", "decided", "withdrawn") else ""
    page = await visit.platform.disputes.page(actor, status=chosen or None, cursor=cursor or None)
    orgs = {one.org_id for one in page.items}
    return visit.render(
        "dispute_desk.html",
        disputes=page.items,
        names=await visit.platform.identity.names(orgs),
        chosen=chosen,
        next_href=_next("/operator/disputes", status=status, cursor=page.next),
    )


@router.get("/operator/disputes/{dispute}")
async def dispute_at_desk(visit: VisitOf, dispute: str, cursor: str = "") -> Response:
    _operator(visit)
    return await _dispute_page(visit, dispute, "dispute_decide.html", cursor=cursor)


@router.post("/operator/disputes/{dispute}")
async def decide(visit: VisitOf, dispute: str) -> Response:
    """Decide line by line: an amount goes back to the customer, an empty field goes for the provider."""
    actor = _operator(visit)
    try:
        verdicts = {}
        for line in (await visit.platform.disputes.story(actor, parse_id(dispute))).lines:
            typed = visit.text(f"credit-{line.invoice_line_id}")
            if typed:
                platform = visit.text(f"fault-{line.invoice_line_id}") == "platform"
                verdicts[line.invoice_line_id] = Verdict(_rupees(typed), "platform" if platform else "provider")
        await visit.platform.disputes.decide(actor, parse_id(dispute), verdicts, visit.text("note"))
    except NotFound:
        raise
    except HaatError as error:
        return await _dispute_page(visit, dispute, "dispute_decide.html", error.status, messages(error))
    return visit.redirect(f"/operator/disputes/{parse_id(dispute)}", done="dispute-decided")


def _rupees(text: str) -> Decimal:
    try:
        return rupees(text)
    except ValueError as error:
        message = _("%(text)s is no amount: enter rupees.", text=text)
        raise ValidationFailed(errors=[{"field": "", "message": message}]) from error

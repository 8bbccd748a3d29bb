"""Money that came in, at the operator's desk: transfers, refunds, and providers' messages that could not be booked."""

from __future__ import annotations

from decimal import Decimal
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.responses import Response

from haat.kernel.errors import HaatError, NotFound, ValidationFailed
from haat.kernel.money import rupees
from haat.kernel.permissions import Actor, Permission
from haat.language.messages import N_, _
from haat.portal.visit import Fields, Visit, VisitOf, messages, parse_id

router = APIRouter(prefix="/operator/payments")

RETURNS = {
    "refund": N_("refund"),
    "chargeback": N_("chargeback"),
}
RETURN_STATES = {
    "pending": N_("on its way"),
    "gone": N_("went back"),
    "back": N_("came back to us"),
}


def _operator(visit: Visit) -> Actor:
    actor = visit.require_actor()
    actor.require(Permission.INVOICES_RUN)
    return actor


def _amount(visit: Visit) -> Decimal:
    text = visit.text("amount")
    try:
        return rupees(text)
    except ValueError as error:
        message = _("%(text)s is no amount: enter rupees.", text=text[:40] or "–")
        raise ValidationFailed(errors=[{"field": "amount", "message": message}]) from error


async def _page(visit: Visit, status: int = 200, *, cursor: str = "", errors: Fields | None = None) -> Response:
    actor = _operator(visit)
    page = await visit.platform.payments.page(actor, cursor=cursor or None)
    return visit.render(
        "payments.html",
        status,
        payments=page.items,
        names=await visit.platform.identity.names(one.org_id for one in page.items),
        refused=await visit.platform.payments.refused(actor),
        next_href=f"{visit.request.url.path}?{urlencode({'cursor': page.next})}" if page.next else None,
        typed=visit.typed if errors else Fields(),
        errors=errors or Fields(),
    )


@router.get("")
async def payments(visit: VisitOf, cursor: str = "") -> Response:
    return await _page(visit, cursor=cursor)


@router.post("")
async def record(visit: VisitOf) -> Response:
    """Record a bank transfer; the same reference again changes nothing."""
    actor = _operator(visit)
    try:
        payment = await visit.platform.payments.record_for(
            actor, visit.text("serial"), _amount(visit), visit.text("reference")
        )
    except HaatError as error:
        return await _page(visit, error.status, errors=messages(error))
    return visit.redirect(f"/operator/payments/{payment.id}", done="payment")


@router.post("/messages")
async def deal_with(visit: VisitOf) -> Response:
    """Take a refused message off the list, with a note of what was done."""
    actor = _operator(visit)
    try:
        await visit.platform.payments.deal_with(
            actor, visit.text("provider"), visit.text("message"), visit.text("note")
        )
    except NotFound:
        raise
    except HaatError as error:
        return await _page(visit, error.status, errors=messages(error))
    return visit.redirect("/operator/payments", done="dealt-with")


async def _payment_page(visit: Visit, payment: str, status: int = 200, errors: Fields | None = None) -> Response:
    actor, identifier = _operator(visit), parse_id(payment)
    found = await visit.platform.payments.get(actor, identifier)
    return visit.render(
        "payment.html",
        status,
        payment=found,
        name=(await visit.platform.identity.organisation(found.org_id)).name,
        paid=await visit.platform.payments.paid_with(actor, identifier),
        returns=await visit.platform.payments.returns(actor, identifier),
        kinds=RETURNS,
        states=RETURN_STATES,
        typed=visit.typed if errors else Fields(),
        errors=errors or Fields(),
    )


@router.get("/{payment}")
async def payment(visit: VisitOf, payment: str) -> Response:
    return await _payment_page(visit, payment)


@router.post("/{payment}/refund")
async def refund(visit: VisitOf, payment: str) -> Response:
    """Record that some of a payment was sent back."""
    actor = _operator(visit)
    try:
        await visit.platform.payments.refund(actor, parse_id(payment), _amount(visit), visit.text("reference"))
    except NotFound:
        raise
    except HaatError as error:
        return await _payment_page(visit, payment, error.status, messages(error))
    return visit.redirect(f"/operator/payments/{parse_id(payment)}", done="refund")

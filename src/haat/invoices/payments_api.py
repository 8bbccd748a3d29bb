"""Control API of payments: what paid an invoice, transfers, payment providers' pages and messages, refunds."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request
from pydantic import AwareDatetime, BaseModel, Field

from haat.control.context import ActorOf, Body, PlatformOf
from haat.invoices.booking import Payment, Returned
from haat.invoices.payments import PaymentOrder, Refused
from haat.kernel.errors import BodyTooLarge

router = APIRouter(tags=["invoices"])

Cursor = Annotated[str | None, Query(max_length=500)]
Limit = Annotated[int, Query(ge=1, le=100)]
Identifier = Annotated[UUID, Path()]
Amount = Annotated[Decimal, Field(max_digits=20, decimal_places=2)]
MOST_MESSAGE_BYTES = 256 * 1024


class PaymentRequest(Body):
    org_id: UUID
    amount: Amount
    reference: str = Field(min_length=1, max_length=100, description="The transfer's own, such as its UTR.")
    received_at: AwareDatetime | None = None
    invoice_id: UUID | None = Field(None, description="What it is for; otherwise what is due first.")


class RefundRequest(Body):
    amount: Amount
    reference: str = Field(min_length=1, max_length=100, description="The transfer's own, such as its UTR.")


class DealtWith(Body):
    provider: str = Field(max_length=40)
    message_id: str = Field(max_length=200)
    note: str = Field(min_length=1, max_length=500, description="What was done about it.")


class CheckoutRequest(Body):
    provider: str = Field(max_length=40)


class PaymentPage(BaseModel):
    items: list[Payment]
    next: str | None


class AllocationView(BaseModel):
    source: str = Field(description="`payment/{id}`, `credit-note/{id}` or `wallet/{organisation}`.")
    amount: Decimal = Field(description="Below zero when it went back and was taken off again.")
    at: datetime


class Heard(BaseModel):
    changed: bool = Field(description="False for a message that was known, late, or about something else.")


@router.get("/invoices/{invoice_id}/payments")
async def paid_by(invoice_id: Identifier, actor: ActorOf, platform: PlatformOf) -> list[AllocationView]:
    """List what paid an invoice: payments, credit notes, the wallet."""
    rows = await platform.invoices.allocations(actor, invoice_id)
    return [AllocationView.model_validate(dict(row)) for row in rows]


@router.post("/invoices/{invoice_id}/checkout", status_code=201)
async def checkout(invoice_id: Identifier, body: CheckoutRequest, actor: ActorOf, platform: PlatformOf) -> PaymentOrder:
    """Have a payment provider ask for what an invoice owes; `url` is where to pay."""
    return await platform.payments.begin(actor, invoice_id, body.provider)


@router.get("/payments")
async def payments(
    actor: ActorOf, platform: PlatformOf, org_id: UUID | None = None, cursor: Cursor = None, limit: Limit = 50
) -> PaymentPage:
    """List payments, newest first, with what of each went back and what has paid no invoice yet."""
    found = await platform.payments.page(actor, org=org_id, cursor=cursor, limit=limit)
    return PaymentPage(items=list(found.items), next=found.next)


@router.post("/payments", status_code=201)
async def record_payment(body: PaymentRequest, actor: ActorOf, platform: PlatformOf) -> Payment:
    """Record a bank transfer (operator); the same reference again returns the same payment."""
    return await platform.payments.record(
        actor, body.org_id, body.amount, body.reference, received_at=body.received_at, invoice=body.invoice_id
    )


@router.get("/payments/refused")
async def refused_messages(actor: ActorOf, platform: PlatformOf) -> list[Refused]:
    """List messages of payment providers that could not be booked, and why, oldest first (operator)."""
    return await platform.payments.refused(actor)


@router.post("/payments/refused", status_code=204)
async def deal_with_refused(body: DealtWith, actor: ActorOf, platform: PlatformOf) -> None:
    """Note how a message that could not be booked was dealt with (operator); it is not listed any more."""
    await platform.payments.deal_with(actor, body.provider, body.message_id, body.note)


@router.get("/payments/{payment_id}/returns")
async def returns(payment_id: Identifier, actor: ActorOf, platform: PlatformOf) -> list[Returned]:
    """List the refunds and chargebacks of a payment, and where their money is: `pending` (here), `gone` or `back`."""
    return await platform.payments.returns(actor, payment_id)


@router.post("/payments/{payment_id}/refunds", status_code=201)
async def refund(payment_id: Identifier, body: RefundRequest, actor: ActorOf, platform: PlatformOf) -> Returned:
    """Record that some of a payment was sent back (operator); the same reference again returns the same refund."""
    return await platform.payments.refund(actor, payment_id, body.amount, body.reference)


@router.post("/payments/{provider}/messages")
async def hear(provider: Annotated[str, Path(max_length=40)], request: Request, platform: PlatformOf) -> Heard:
    """Take a payment provider's message, signed as Standard Webhooks has it; no other credential is needed."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_MESSAGE_BYTES:
            raise BodyTooLarge(limit_bytes=MOST_MESSAGE_BYTES)
    return Heard(changed=await platform.payments.hear(provider, request.headers, body))

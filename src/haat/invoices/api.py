"""Control API of invoices."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from haat.control.context import ActorOf, Body, PlatformOf
from haat.invoices.credits import CreditItem, CreditNote, DebitItem
from haat.invoices.evidence import Portion, portions
from haat.invoices.model import step_data
from haat.invoices.runs import Run
from haat.invoices.service import BilledCall, Invoice
from haat.rating.model import Charge

router = APIRouter(tags=["invoices"])

PERIOD = r"^[0-9]{4}-[0-9]{2}$"
Period = Annotated[str, Query(pattern=PERIOD, description="A month such as 2026-11.")]
Cursor = Annotated[str | None, Query(max_length=500)]
Limit = Annotated[int, Query(ge=1, le=100)]
Identifier = Annotated[UUID, Path()]
Amount = Annotated[Decimal, Field(max_digits=20, decimal_places=2)]
StateName = Literal["issued", "paid", "overdue", "void", "shown"]


class InvoiceView(BaseModel):
    id: UUID
    org_id: UUID
    kind: str = Field(description="`invoice`, `debit_note`, or `statement` where nobody pays.")
    against: UUID | None = Field(description="The invoice that a debit note adds to.")
    period: str
    part: int
    closes: bool
    serial: str
    issued_at: datetime
    place_of_supply: str
    net: Decimal
    tax: Decimal
    total: Decimal
    content_hash: str = Field(description="SHA-256 of the document, hexadecimal.")
    due_on: date | None
    state: str = Field(description="`issued`, `paid`, `overdue`, `void`, or `shown`.")
    paid: Decimal
    credited: Decimal
    owed: Decimal = Field(description="What is still to be paid.")


class InvoicePage(BaseModel):
    items: list[InvoiceView]
    next: str | None


class LineView(BaseModel):
    """A line and the predicate of its calls: ids in [id_from, id_to), batches in (batch_from, batch_to]."""

    id: UUID
    position: int
    identity: str
    kind: str = Field(description="`usage`, `fee`, `minimum`, or `adjustment` of an earlier month.")
    period: str
    subscription_id: UUID
    service_id: UUID
    plan: str | None
    description: str
    calls: int
    unit: str
    quantity: Decimal
    free_units: Decimal
    unit_price: Decimal
    cached_share: Decimal | None = Field(description="Part of the price charged for these answers out of the cache.")
    taxable: Decimal
    id_from: UUID
    id_to: UUID
    batch_from: int
    batch_to: int


class BilledCallPage(BaseModel):
    items: list[BilledCall]
    next: str | None


class ChargeView(BaseModel):
    service: str
    plan: str | None
    unit: str
    quantity: Decimal
    free_units: Decimal
    unit_price: Decimal
    cached_share: Decimal | None = Field(description="Part of the price charged for these answers out of the cache.")
    calls: int
    amount: Decimal = Field(description="Exact, before tax, not rounded.")
    kind: str = Field(description="`usage`, `fee` or `minimum`.")
    meter: str = Field(description="The meter or fee of a card with components.")
    steps: list[dict[str, str]] = Field(description="How the amount comes together: quantity × price each.")


class LiveCostView(BaseModel):
    period: str
    total: Decimal
    charges: list[ChargeView]


class BillingRequest(Body):
    period: str = Field(pattern=PERIOD)
    again: bool = Field(False, description="Pass once more over a closed month, for those who could not be billed.")


class BillingRunView(BaseModel):
    period: str
    state: str = Field(description="`billing`, `settling` or `done`.")
    progress: float = Field(ge=0, le=1)
    passes: int
    until: int = Field(description="The newest batch that is billed.")
    organisations: int
    batches: int
    done: int
    issued: int
    unchanged: int
    failed: list[dict[str, str]] = Field(description="Organisations that could not be billed, and why.")
    started_at: datetime
    started_by: str
    ended_at: datetime | None


class VoidRequest(Body):
    reason: str = Field(min_length=1, max_length=500)


class CreditItemView(Body):
    invoice_line: UUID
    taxable: Amount
    fault: Literal["provider", "platform"]


class CreditRequest(Body):
    key: str = Field(pattern=r"^[\x21-\x7e]{1,200}$", description="The same key gives the same note.")
    reason: str = Field(pattern=r"^[a-z][a-z_-]{0,39}$")
    reference: str = Field("", max_length=200)
    items: list[CreditItemView] = Field(min_length=1, max_length=1000)


class DebitItemView(Body):
    invoice_line: UUID
    taxable: Amount
    description: str = Field("", max_length=200)


class DebitRequest(Body):
    key: str = Field(pattern=r"^[\x21-\x7e]{1,200}$", description="The same key gives the same note.")
    reason: str = Field(pattern=r"^[a-z][a-z_-]{0,39}$")
    items: list[DebitItemView] = Field(min_length=1, max_length=1000)


class CreditNoteView(BaseModel):
    id: UUID
    org_id: UUID
    key: str
    serial: str
    reason: str
    reference: str
    issued_at: datetime
    net: Decimal
    tax: Decimal
    total: Decimal
    content_hash: str = Field(description="SHA-256 of the document, hexadecimal.")


class CreditNotePage(BaseModel):
    items: list[CreditNoteView]
    next: str | None


class CreditLineView(BaseModel):
    invoice_line_id: UUID
    taxable: Decimal
    fault: str


class CorrectionRequest(Body):
    units: dict[str, Decimal] | None = Field(None, max_length=20, description="The right quantities; none voids it.")
    reason: str = Field(min_length=1, max_length=500)


class CorrectionView(BaseModel):
    call_id: UUID
    replaced_by: UUID | None = Field(description="The call that is counted in its place.")
    batch: int
    reason: str
    at: datetime


class RunRequest(Body):
    period: str = Field(pattern=PERIOD)
    until: int | None = Field(None, ge=0, lt=2**62, description="Newest batch to bill; for a month that still runs.")


class Failure(BaseModel):
    org_id: UUID
    reason: str


class RunView(BaseModel):
    issued: list[InvoiceView]
    unchanged: int
    failed: list[Failure]


@router.get("/invoices")
async def page(
    actor: ActorOf,
    platform: PlatformOf,
    period: Annotated[str | None, Query(pattern=PERIOD)] = None,
    org_id: UUID | None = None,
    state: StateName | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> InvoicePage:
    """List invoices, newest first; the operator sees everybody's."""
    found = await platform.invoices.page(actor, org=org_id, period=period, state=state, cursor=cursor, limit=limit)
    return InvoicePage(items=[_view(invoice) for invoice in found.items], next=found.next)


@router.get("/invoices/preview")
async def preview(actor: ActorOf, platform: PlatformOf, period: Period) -> dict[str, Any]:
    """Show the draft of a month, as far as it is not invoiced yet."""
    return (await platform.invoices.preview(actor, period)).data()


@router.get("/cost")
async def cost(actor: ActorOf, platform: PlatformOf) -> LiveCostView:
    """Tell what the running month has cost so far, before tax."""
    live = await platform.rating.live(actor)
    charges = [_charge(charge, live.names) for charge in live.charges]
    return LiveCostView(period=live.period, total=live.total, charges=charges)


@router.post("/invoices/runs")
async def run(body: RunRequest, actor: ActorOf, platform: PlatformOf) -> RunView:
    """Issue a month's invoices here and now (operator); doing it again changes nothing. See `POST /billing/runs`."""
    done = await platform.invoices.issue_all(actor, body.period, until=body.until)
    return RunView(
        issued=[_view(invoice) for invoice in done.issued],
        unchanged=done.unchanged,
        failed=[Failure(org_id=org, reason=reason) for org, reason in done.failed],
    )


@router.get("/invoices/{invoice_id}")
async def get(invoice_id: Identifier, actor: ActorOf, platform: PlatformOf) -> InvoiceView:
    """Return one invoice's head."""
    return _view(await platform.invoices.get(actor, invoice_id))


@router.get("/invoices/{invoice_id}/document")
async def document(invoice_id: Identifier, actor: ActorOf, platform: PlatformOf) -> dict[str, Any]:
    """Return the invoice as it was issued; amounts are decimal texts."""
    return await platform.invoices.document(actor, invoice_id)


@router.get("/invoices/{invoice_id}/lines")
async def lines(invoice_id: Identifier, actor: ActorOf, platform: PlatformOf) -> list[LineView]:
    """Return an invoice's lines."""
    return [LineView.model_validate(dict(row)) for row in await platform.invoices.lines(actor, invoice_id)]


@router.get("/invoice-lines/{line_id}/calls")
async def calls(
    line_id: Identifier, actor: ActorOf, platform: PlatformOf, cursor: Cursor = None, limit: Limit = 100
) -> BilledCallPage:
    """List the calls behind a line, by request id."""
    found = await platform.invoices.calls(actor, line_id, cursor=cursor, limit=limit)
    return BilledCallPage(items=list(found.items), next=found.next)


# --- after it is issued ---------------------------------------------------------------------------


@router.post("/invoices/{invoice_id}/void")
async def void(invoice_id: Identifier, body: VoidRequest, actor: ActorOf, platform: PlatformOf) -> InvoiceView:
    """Withdraw an invoice of which nothing was paid (operator); its usage is billed again."""
    return _view(await platform.invoices.void(actor, invoice_id, body.reason))


@router.get("/credit-notes")
async def credit_notes(
    actor: ActorOf, platform: PlatformOf, org_id: UUID | None = None, cursor: Cursor = None, limit: Limit = 50
) -> CreditNotePage:
    """List credit notes, newest first; the operator sees everybody's."""
    found = await platform.invoices.credit_notes(actor, org=org_id, cursor=cursor, limit=limit)
    return CreditNotePage(items=[_note(one) for one in found.items], next=found.next)


@router.post("/credit-notes", status_code=201)
async def credit(body: CreditRequest, actor: ActorOf, platform: PlatformOf) -> CreditNoteView:
    """Take back value of invoice lines with its GST (operator)."""
    items = [CreditItem(one.invoice_line, one.taxable, one.fault) for one in body.items]
    note = await platform.invoices.credit(actor, items, key=body.key, reason=body.reason, reference=body.reference)
    return _note(note)


@router.get("/credit-notes/{note_id}")
async def credit_note(note_id: Identifier, actor: ActorOf, platform: PlatformOf) -> CreditNoteView:
    """Return one credit note's head."""
    return _note(await platform.invoices.credit_note(actor, note_id))


@router.get("/credit-notes/{note_id}/document")
async def credit_note_document(note_id: Identifier, actor: ActorOf, platform: PlatformOf) -> dict[str, Any]:
    """Return the credit note as it was issued; amounts are decimal texts."""
    return await platform.invoices.credit_note_document(actor, note_id)


@router.get("/credit-notes/{note_id}/lines")
async def credit_note_lines(note_id: Identifier, actor: ActorOf, platform: PlatformOf) -> list[CreditLineView]:
    """Return what a credit note takes back of which invoice lines."""
    rows = await platform.invoices.credit_note_lines(actor, note_id)
    return [CreditLineView.model_validate(dict(row)) for row in rows]


@router.post("/debit-notes", status_code=201)
async def debit(body: DebitRequest, actor: ActorOf, platform: PlatformOf) -> InvoiceView:
    """Add to lines of an invoice with GST (operator); the note is paid like an invoice."""
    items = [DebitItem(one.invoice_line, one.taxable, one.description) for one in body.items]
    return _view(await platform.invoices.debit(actor, items, key=body.key, reason=body.reason))


@router.get("/usage/calls/{call_id}/portions")
async def call_portions(call_id: Identifier, actor: ActorOf, platform: PlatformOf) -> list[Portion]:
    """Tell what a call bears of each invoice line that it lies on: portions of all calls of a line sum to it."""
    return await portions(platform.db, actor, call_id)


@router.post("/usage/calls/{call_id}/corrections", status_code=201)
async def correct(call_id: Identifier, body: CorrectionRequest, actor: ActorOf, platform: PlatformOf) -> CorrectionView:
    """Void a call, or count other quantities in its place (operator); the next invoice has the difference."""
    made = await platform.invoices.correct_call(actor, call_id, units=body.units, reason=body.reason)
    return CorrectionView(
        call_id=made.call_id, replaced_by=made.replaced_by, batch=made.batch, reason=made.reason, at=made.at
    )


# --- the run --------------------------------------------------------------------------------------


@router.post("/billing/runs", status_code=202)
async def start_billing(body: BillingRequest, actor: ActorOf, platform: PlatformOf) -> BillingRunView:
    """Begin to close a month (operator); one that is on, or done, is returned as it stands."""
    return _billing(await platform.billing.start(actor, body.period, again=body.again))


@router.get("/billing/runs")
async def billing_runs(actor: ActorOf, platform: PlatformOf) -> list[BillingRunView]:
    """List the months that were closed, or are being, newest first (operator)."""
    return [_billing(one) for one in await platform.billing.recent(actor)]


@router.get("/billing/runs/{period}")
async def billing_run(period: str, actor: ActorOf, platform: PlatformOf) -> BillingRunView:
    """Tell how far the closing of a month is (operator)."""
    return _billing(await platform.billing.status(actor, period))


def _view(invoice: Invoice) -> InvoiceView:
    members = {name: getattr(invoice, name) for name in InvoiceView.model_fields}
    return InvoiceView.model_validate(members | {"content_hash": invoice.content_hash.hex()})


def _note(note: CreditNote) -> CreditNoteView:
    members = {name: getattr(note, name) for name in CreditNoteView.model_fields}
    return CreditNoteView.model_validate(members | {"content_hash": note.content_hash.hex()})


def _billing(run: Run) -> BillingRunView:
    return BillingRunView.model_validate({name: getattr(run, name) for name in BillingRunView.model_fields})


def _charge(charge: Charge, names: dict[UUID, str]) -> ChargeView:
    return ChargeView(
        service=names.get(charge.service, str(charge.service)),
        plan=charge.plan,
        unit=charge.card.unit,
        quantity=charge.quantity,
        free_units=charge.free_units,
        unit_price=charge.card.unit_price,
        cached_share=charge.cached_share,
        calls=charge.calls,
        amount=charge.amount,
        kind=charge.kind,
        meter=charge.meter,
        steps=[step_data(step) for step in charge.steps or ()],
    )

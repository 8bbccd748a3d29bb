"""Control API of invoices."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field
from starlette.responses import Response

from haat.control.context import ActorOf, Body, PlatformOf
from haat.invoices.papers import sent
from haat.invoices.service import BilledCall, Invoice
from haat.rating.model import Charge

router = APIRouter(tags=["invoices"])

PERIOD = r"^[0-9]{4}-[0-9]{2}$"
Period = Annotated[str, Query(pattern=PERIOD, description="A month such as 2026-11.")]
Cursor = Annotated[str | None, Query(max_length=500)]
Limit = Annotated[int, Query(ge=1, le=100)]
Identifier = Annotated[UUID, Path()]
LanguageOf = Annotated[
    str | None, Query(max_length=20, description="Language of the labels, such as ta; else the organisation's.")
]


class InvoiceView(BaseModel):
    id: UUID
    org_id: UUID
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


class InvoicePage(BaseModel):
    items: list[InvoiceView]
    next: str | None


class LineView(BaseModel):
    """A line and the predicate of its calls: ids in [id_from, id_to), batches in (batch_from, batch_to]."""

    id: UUID
    position: int
    identity: str
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


class LiveCostView(BaseModel):
    period: str
    total: Decimal
    charges: list[ChargeView]


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


class LanguageView(BaseModel):
    language: str = Field(description="BCP-47 with script, such as ta-Taml.")


class LanguageChoice(Body):
    language: str = Field(max_length=20)


@router.get("/invoices")
async def page(
    actor: ActorOf,
    platform: PlatformOf,
    period: Annotated[str | None, Query(pattern=PERIOD)] = None,
    org_id: UUID | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> InvoicePage:
    """List invoices, newest first; the operator sees everybody's."""
    found = await platform.invoices.page(actor, org=org_id, period=period, cursor=cursor, limit=limit)
    return InvoicePage(items=[_view(invoice) for invoice in found.items], next=found.next)


@router.get("/invoices/preview")
async def preview(actor: ActorOf, platform: PlatformOf, period: Period) -> dict[str, Any]:
    """Show the draft of a month, as far as it is not invoiced yet."""
    return (await platform.invoices.preview(actor, period)).data()


@router.get("/invoices/language")
async def language(actor: ActorOf, platform: PlatformOf) -> LanguageView:
    """Return the language of one's organisation's invoices on paper and in mails."""
    return LanguageView(language=str(await platform.papers.language(actor)))


@router.put("/invoices/language")
async def choose_language(body: LanguageChoice, actor: ActorOf, platform: PlatformOf) -> LanguageView:
    """Choose that language: a tag such as `ta`, `ur` or `sd-Deva`."""
    return LanguageView(language=str(await platform.papers.choose_language(actor, body.language)))


@router.get("/invoices/{invoice_id}.pdf", response_class=Response)
async def as_pdf(invoice_id: Identifier, actor: ActorOf, platform: PlatformOf, language: LanguageOf = None) -> Response:
    """Return an invoice on paper: PDF/A-3 with the document as it was issued inside."""
    return sent(await platform.papers.pdf(actor, invoice_id, language))


@router.get("/invoices/{invoice_id}.csv", response_class=Response)
async def as_csv(invoice_id: Identifier, actor: ActorOf, platform: PlatformOf, bom: bool = False) -> Response:
    """Return an invoice's lines for a spreadsheet; `bom` marks it as UTF-8 for Excel."""
    return sent(await platform.papers.csv(actor, invoice_id, mark=bom))


@router.get("/invoices/{invoice_id}.json", response_class=Response)
async def as_json(invoice_id: Identifier, actor: ActorOf, platform: PlatformOf) -> Response:
    """Return the document byte for byte as it was issued: its SHA-256 is the invoice's `content_hash`."""
    return sent(await platform.papers.json(actor, invoice_id))


@router.get("/cost")
async def cost(actor: ActorOf, platform: PlatformOf) -> LiveCostView:
    """Tell what the running month has cost so far, before tax."""
    live = await platform.rating.live(actor)
    charges = [_charge(charge, live.names) for charge in live.charges]
    return LiveCostView(period=live.period, total=live.total, charges=charges)


@router.post("/invoices/runs")
async def run(body: RunRequest, actor: ActorOf, platform: PlatformOf) -> RunView:
    """Issue a month's invoices for every organisation (operator); doing it again changes nothing."""
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


def _view(invoice: Invoice) -> InvoiceView:
    return InvoiceView(
        id=invoice.id,
        org_id=invoice.org_id,
        period=invoice.period,
        part=invoice.part,
        closes=invoice.closes,
        serial=invoice.serial,
        issued_at=invoice.issued_at,
        place_of_supply=invoice.place_of_supply,
        net=invoice.net,
        tax=invoice.tax,
        total=invoice.total,
        content_hash=invoice.content_hash.hex(),
    )


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
    )

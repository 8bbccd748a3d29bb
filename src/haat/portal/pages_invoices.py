"""Invoices: the list, the running month, one invoice as its buyer keeps it, and the calls behind a line."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.responses import Response

from haat.kernel.clock import month_of
from haat.kernel.errors import HaatError
from haat.portal.visit import VisitOf, parse_id

router = APIRouter(prefix="/account/invoices")


@router.get("")
async def invoices(visit: VisitOf, cursor: str = "") -> Response:
    actor = visit.require_actor()
    page = await visit.platform.invoices.page(actor, org=actor.org_id, cursor=cursor or None)
    period = month_of(visit.platform.clock.now(), visit.zone).label
    try:
        preview = await visit.platform.invoices.preview(actor, period, actor.org_id)
        hindrance = ""
    except HaatError as error:  # a State that GST does not know, say: the issued invoices are still shown
        preview, hindrance = None, error.detail
    return visit.render(
        "invoices.html",
        invoices=page.items,
        preview=preview,
        hindrance=hindrance,
        period=period,
        next_href=f"/account/invoices?{urlencode({'cursor': page.next})}" if page.next else None,
    )


@router.get("/{invoice}")
async def invoice(visit: VisitOf, invoice: str) -> Response:
    actor = visit.require_actor()
    identifier = parse_id(invoice)
    document = await visit.platform.invoices.document(actor, identifier)
    standing = await visit.platform.invoices.get(actor, identifier)
    rows = await visit.platform.invoices.lines(actor, identifier)
    lines = [
        {
            **line,
            "id": row["id"],
            "position": row["position"],
            "amount": Decimal(line["taxable_value"]),
            "price": Decimal(line["unit_price"]),
            "used": Decimal(line["quantity"]),
            "free": Decimal(line["free_units"]),
            "share": Decimal(line["cached_share"]) if "cached_share" in line else None,
        }
        for line, row in zip(document["lines"], rows, strict=True)
    ]
    return visit.render(
        "invoice.html",
        document=document,
        standing=standing,
        dated=date.fromisoformat(document["date"]),
        lines=lines,
        taxes=[(tax["name"], Decimal(tax["rate"]), Decimal(tax["amount"])) for tax in document["taxes"]],
        net=Decimal(document["taxable_value"]),
        total=Decimal(document["total"]),
        issued_at=datetime.fromisoformat(document["issued_at"]),
    )


@router.get("/{invoice}/lines/{line}")
async def line_calls(visit: VisitOf, invoice: str, line: str, cursor: str = "") -> Response:
    """Show the calls that a line bills: the evidence."""
    actor = visit.require_actor()
    found = await visit.platform.invoices.get(actor, parse_id(invoice))
    rows = await visit.platform.invoices.lines(actor, found.id)
    page = await visit.platform.invoices.calls(actor, parse_id(line), cursor=cursor or None, limit=50)
    chosen = next((row for row in rows if str(row["id"]) == line.lower()), None)
    return visit.render(
        "line.html",
        invoice=found,
        line=chosen,
        calls=page.items,
        next_href=f"{visit.request.url.path}?{urlencode({'cursor': page.next})}" if page.next else None,
    )

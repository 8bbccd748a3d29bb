"""Invoices: the list, the running month, one invoice as its buyer keeps it, and the calls behind a line."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.responses import Response

from haat.invoices.papers import sent
from haat.kernel.clock import month_of
from haat.kernel.errors import HaatError
from haat.language import LANGUAGES, Tag
from haat.portal.visit import VisitOf, parse_id

router = APIRouter(prefix="/account")


@router.get("/invoices")
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
        languages=_languages(),
        language=str(await visit.platform.papers.language(actor)),
        next_href=f"/account/invoices?{urlencode({'cursor': page.next})}" if page.next else None,
        credit_notes=(await visit.platform.invoices.credit_notes(actor, org=actor.org_id)).items,
    )


@router.post("/invoices/language")
async def choose_language(visit: VisitOf) -> Response:
    await visit.platform.papers.choose_language(visit.require_actor(), visit.text("language"))
    return visit.redirect("/account/invoices", done="invoice-language")


@router.get("/invoices/{invoice}/pdf")
async def as_pdf(visit: VisitOf, invoice: str, language: str = "") -> Response:
    return sent(await visit.platform.papers.pdf(visit.require_actor(), parse_id(invoice), language or None))


@router.get("/invoices/{invoice}/csv")
async def as_csv(visit: VisitOf, invoice: str) -> Response:
    return sent(await visit.platform.papers.csv(visit.require_actor(), parse_id(invoice), mark=True))


@router.get("/invoices/{invoice}/json")
async def as_json(visit: VisitOf, invoice: str) -> Response:
    return sent(await visit.platform.papers.json(visit.require_actor(), parse_id(invoice)))


@router.get("/credit-notes/{note}/pdf")
async def note_as_pdf(visit: VisitOf, note: str, language: str = "") -> Response:
    actor = visit.require_actor()
    return sent(await visit.platform.papers.pdf(actor, parse_id(note), language or None, of="credit_note"))


@router.get("/credit-notes/{note}/csv")
async def note_as_csv(visit: VisitOf, note: str) -> Response:
    return sent(await visit.platform.papers.csv(visit.require_actor(), parse_id(note), mark=True, of="credit_note"))


@router.get("/credit-notes/{note}/json")
async def note_as_json(visit: VisitOf, note: str) -> Response:
    return sent(await visit.platform.papers.json(visit.require_actor(), parse_id(note), of="credit_note"))


@router.get("/invoices/{invoice}")
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
            "steps": line.get("steps", ()),
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
        languages=_languages(),
        language=str(await visit.platform.papers.language(actor)),
    )


@router.get("/invoices/{invoice}/lines/{line}")
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


def _languages() -> list[tuple[str, str]]:
    """Return what a page can be printed in: tags with their names, in their own script and in English."""
    tags = [Tag(code, script) for code, language in LANGUAGES.items() for script in language.scripts]
    named = [(str(tag), tag.own_name if tag.language == "en" else f"{tag.own_name} ({tag.name})") for tag in tags]
    return sorted(named, key=lambda pair: pair[0])

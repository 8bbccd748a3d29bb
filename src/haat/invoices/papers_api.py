"""Control API of invoices on paper: files of invoices and notes, and the language an organisation wants them in.

These routes come before those of `haat.invoices.api`, whose `/invoices/{invoice_id}` would take them for an id.
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field
from starlette.responses import Response

from haat.control.context import ActorOf, Body, PlatformOf
from haat.invoices.papers import sent

router = APIRouter(tags=["invoices"])

Identifier = Annotated[UUID, Path()]
LanguageOf = Annotated[
    str | None, Query(max_length=20, description="Language of the labels, such as ta; else the organisation's.")
]


class LanguageView(BaseModel):
    language: str = Field(description="BCP-47 with script, such as ta-Taml.")


class LanguageChoice(Body):
    language: str = Field(max_length=20)


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


@router.get("/credit-notes/{note_id}.pdf", response_class=Response)
async def note_as_pdf(
    note_id: Identifier, actor: ActorOf, platform: PlatformOf, language: LanguageOf = None
) -> Response:
    """Return a credit note on paper: PDF/A-3 with the document as it was issued inside."""
    return sent(await platform.papers.pdf(actor, note_id, language, of="credit_note"))


@router.get("/credit-notes/{note_id}.csv", response_class=Response)
async def note_as_csv(note_id: Identifier, actor: ActorOf, platform: PlatformOf, bom: bool = False) -> Response:
    """Return a credit note's lines for a spreadsheet; `bom` marks it as UTF-8 for Excel."""
    return sent(await platform.papers.csv(actor, note_id, mark=bom, of="credit_note"))


@router.get("/credit-notes/{note_id}.json", response_class=Response)
async def note_as_json(note_id: Identifier, actor: ActorOf, platform: PlatformOf) -> Response:
    """Return the document byte for byte as it was issued: its SHA-256 is the note's `content_hash`."""
    return sent(await platform.papers.json(actor, note_id, of="credit_note"))

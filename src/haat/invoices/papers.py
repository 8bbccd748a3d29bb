"""Use cases of invoices on paper: the language an organisation wants them in, and the files."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from starlette.responses import Response

from haat.infra import events
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database
from haat.invoices import store
from haat.invoices.pdf import render
from haat.invoices.service import Invoices
from haat.invoices.sheet import lines_as_csv
from haat.kernel.clock import Clock
from haat.kernel.errors import NotFound, ValidationFailed
from haat.kernel.permissions import Actor, Permission
from haat.language import Tag, parse_tag
from haat.language.messages import _
from haat.settings import Settings

Kind = Literal["invoice", "credit_note"]
"""What a paper is of; debit notes and statements of usage are invoices of another kind."""


@dataclass(frozen=True, slots=True)
class File:
    """A file to be sent; its name has only letters, digits and hyphens before the dot."""

    name: str
    media_type: str
    content: bytes


class Papers:
    """Gives issued invoices and notes as files. Nothing is stored: each is made from its document when asked for."""

    def __init__(self, db: Database, clock: Clock, settings: Settings, invoices: Invoices) -> None:
        self._db, self._clock, self._invoices = db, clock, invoices
        self._language, self._fonts = parse_tag(settings.invoice_language), settings.fonts_dir
        self._portal = settings.portal_address

    async def language(self, actor: Actor, org: UUID | None = None) -> Tag:
        """Return the language of an organisation's papers: the one it chose, else the operator's setting."""
        actor.require(Permission.INVOICES_READ)
        whose = org or actor.org_id
        if whose != actor.org_id and not actor.may(Permission.INVOICES_RUN):
            raise NotFound
        if whose is None:
            return self._language
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return await self._chosen(connection, whose)

    async def choose_language(self, actor: Actor, language: str) -> Tag:
        """Choose the language of one's organisation's papers; choosing the present one again changes nothing."""
        actor.require(Permission.MEMBERS_EDIT)
        tag = _tag(language)
        org = actor.org_id
        if org is None:
            raise NotFound(_("Only an organisation has papers."))
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            if tag != await self._chosen(connection, org):
                await events.append(
                    connection,
                    stream=_stream(org),
                    type="papers.language_chosen",
                    data={"language": str(tag)},
                    actor=actor.label,
                    org=org,
                    at=self._clock.now(),
                )
        return tag

    async def pdf(self, actor: Actor, identifier: UUID, language: str | None = None, *, of: Kind = "invoice") -> File:
        """Return an invoice or a credit note as PDF, in its organisation's language unless another is asked for.

        Raise NotFound for another organisation's, ValidationFailed for a language that is none of ours,
        FontMissing where a font is not installed.
        """
        text, org = await self._issued(actor, identifier, of)
        document = json.loads(text)
        tag = await self.language(actor, org) if language is None else _tag(language)
        links = await self._links(actor, document)
        content = await asyncio.to_thread(render, document, str(tag), folder=self._fonts, links=links)
        return File(file_name(document["serial"], "pdf"), "application/pdf", content)

    async def csv(self, actor: Actor, identifier: UUID, *, mark: bool = False, of: Kind = "invoice") -> File:
        """Return its lines as CSV; ``mark`` puts a byte order mark in front, for Excel."""
        text, _ = await self._issued(actor, identifier, of)
        document = json.loads(text)
        content = lines_as_csv(document, mark=mark).encode()
        return File(file_name(document["serial"], "csv"), "text/csv; charset=utf-8", content)

    async def json(self, actor: Actor, identifier: UUID, *, of: Kind = "invoice") -> File:
        """Return the document as it was issued, byte for byte."""
        text, _ = await self._issued(actor, identifier, of)
        return File(file_name(json.loads(text)["serial"], "json"), "application/json", text.encode())

    async def _issued(self, actor: Actor, identifier: UUID, of: Kind) -> tuple[str, UUID]:
        """Return a document byte for byte, and whose it is."""
        if of == "credit_note":
            note = await self._invoices.credit_note(actor, identifier)
            return await self._invoices.credit_note_text(actor, identifier), note.org_id
        invoice = await self._invoices.get(actor, identifier)
        return await self._invoices.document_text(actor, identifier), invoice.org_id

    async def _links(self, actor: Actor, document: Mapping[str, Any]) -> list[str]:
        """Return where the calls behind each line are listed: those of a note's line are its invoice's."""
        against = {one["serial"]: one["id"] for one in document.get("against") or ()}
        if against:
            lines = [(against[line["invoice"]], line["invoice_line"]) for line in document["lines"]]
        else:
            rows = await self._invoices.lines(actor, UUID(document["id"]))
            lines = [(document["id"], row["id"]) for row in rows]
        return [f"{self._portal}/account/invoices/{invoice}/lines/{line}" for invoice, line in lines]

    async def _chosen(self, connection: Connection, org: UUID) -> Tag:
        chosen = await store.language_chosen(connection, _stream(org))
        return self._language if chosen is None else parse_tag(chosen)


def file_name(serial: str, ending: str) -> str:
    """Return what a file of an invoice is called: its serial, without the slashes."""
    return f"{re.sub(r'[^A-Za-z0-9-]+', '-', serial)}.{ending}"


def sent(file: File) -> Response:
    """Return a file as an answer that a browser saves under its name."""
    headers = {"Content-Disposition": f'attachment; filename="{file.name}"', "Cache-Control": "private, no-store"}
    return Response(file.content, media_type=file.media_type, headers=headers)


def _stream(org: UUID) -> str:
    return f"papers/{org}"


def _tag(language: str) -> Tag:
    try:
        return parse_tag(language)
    except ValueError as error:
        raise ValidationFailed(errors=[{"field": "language", "message": f"{error}."}]) from error

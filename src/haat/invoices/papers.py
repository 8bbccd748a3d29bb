"""Use cases of invoices on paper: the language an organisation wants them in, and the files."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
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
from haat.settings import Settings


@dataclass(frozen=True, slots=True)
class File:
    """A file to be sent; its name has only letters, digits and hyphens before the dot."""

    name: str
    media_type: str
    content: bytes


class Papers:
    """Gives issued invoices as files. Nothing is stored: each is made from the document when it is asked for."""

    def __init__(self, db: Database, clock: Clock, settings: Settings, invoices: Invoices) -> None:
        self._db, self._clock, self._invoices = db, clock, invoices
        self._language, self._fonts = parse_tag(settings.invoice_language), settings.fonts_dir

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
            raise NotFound("Only an organisation has papers.")
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

    async def pdf(self, actor: Actor, invoice: UUID, language: str | None = None) -> File:
        """Return an invoice as PDF, in its organisation's language unless another is asked for.

        Raise NotFound for another organisation's, ValidationFailed for a language that is none of ours,
        FontMissing where a font is not installed.
        """
        found = await self._invoices.get(actor, invoice)
        document = await self._invoices.document(actor, invoice)
        tag = await self.language(actor, found.org_id) if language is None else _tag(language)
        content = await asyncio.to_thread(render, document, str(tag), folder=self._fonts)
        return File(file_name(found.serial, "pdf"), "application/pdf", content)

    async def csv(self, actor: Actor, invoice: UUID, *, mark: bool = False) -> File:
        """Return an invoice's lines as CSV; ``mark`` puts a byte order mark in front, for Excel."""
        document = await self._invoices.document(actor, invoice)
        return File(
            file_name(document["serial"], "csv"), "text/csv; charset=utf-8", lines_as_csv(document, mark=mark).encode()
        )

    async def json(self, actor: Actor, invoice: UUID) -> File:
        """Return the document as it was issued, byte for byte."""
        text = await self._invoices.document_text(actor, invoice)
        return File(file_name(json.loads(text)["serial"], "json"), "application/json", text.encode())

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

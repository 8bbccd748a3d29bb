"""Use cases of invoices: see the running month, issue, read back, and find the calls behind a line."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from haat.infra import events
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database, Scope, tenant
from haat.invoices import store
from haat.invoices.model import (
    Draft,
    Line,
    Supplier,
    canonical,
    content_hash,
    describe,
    document,
    line_data,
    line_identity,
    place_of_supply,
    plain,
    serial_text,
    taxes,
)
from haat.kernel.clock import Clock, Period, financial_year
from haat.kernel.errors import Conflict, HaatError, NotFound, ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.money import total
from haat.kernel.pages import MAX_PAGE, Page, decode_id_cursor, page_of
from haat.kernel.permissions import Actor, Permission
from haat.rating import service as rating
from haat.rating.model import Measured
from haat.settings import Settings
from haat.usage import intake
from haat.usage.model import month_named

log = logging.getLogger(__name__)

GRACE = timedelta(hours=1)
"""How long after its end a period waits for usage that is still on its way."""


@dataclass(frozen=True, slots=True)
class Invoice:
    """An issued invoice; amounts in rupees and whole paise."""

    id: UUID
    org_id: UUID
    period: str
    part: int
    closes: bool
    serial: str
    issued_at: datetime
    batch_to: int
    place_of_supply: str
    net: Decimal
    tax: Decimal
    total: Decimal
    content_hash: bytes


@dataclass(frozen=True, slots=True)
class Preview:
    """What an invoice issued now would say, and the usage that has no price."""

    period: str
    until: int
    draft: Draft
    sac_code: str
    unpriced: Sequence[Measured]

    def data(self) -> dict[str, Any]:
        """Return the draft as plain data, its lines as an issued document has them."""
        return {
            "period": self.period,
            "until": self.until,
            "lines": [line_data(line, self.sac_code) for line in self.draft.lines],
            "taxable_value": str(self.draft.net),
            "taxes": [
                {"name": tax.name, "rate": plain(tax.rate), "amount": str(tax.amount)} for tax in self.draft.taxes
            ],
            "tax": str(self.draft.tax),
            "total": str(self.draft.total),
            "unpriced": [{"service": str(one.service), "calls": one.calls} for one in self.unpriced],
        }


@dataclass(frozen=True, slots=True)
class IssueRun:
    """What issuing for everybody came to. ``failed`` names organisations and reasons; the others are done."""

    issued: Sequence[Invoice]
    unchanged: int
    failed: Sequence[tuple[UUID, str]]


@dataclass(frozen=True, slots=True)
class BilledCall:
    id: UUID
    at: datetime
    status: int
    outcome: str
    quantity: Decimal


class Invoices:
    """Bills organisations for their usage, month by month in their own zone."""

    def __init__(self, db: Database, clock: Clock, settings: Settings) -> None:
        self._db, self._clock = db, clock
        self._supplier = Supplier(
            settings.operator_name,
            settings.operator_address,
            settings.operator_gstin,
            settings.operator_state,
            settings.gst_rate,
            settings.sac_code,
            settings.invoice_prefix,
        )

    async def preview(self, actor: Actor, period: str, org: UUID | None = None) -> Preview:
        """Return the draft of a month, as far as it is not on an issued invoice yet. Nothing is stored."""
        actor.require(Permission.INVOICES_READ)
        whose = org or actor.org_id
        if whose is None or (whose != actor.org_id and not actor.may(Permission.INVOICES_RUN)):
            raise NotFound
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            buyer = await self._buyer(connection, whose)
            until = await intake.watermark(connection)
            month = month_named(period, buyer["zone"])
            issued = await store.invoices_of(connection, whose)
            draft, unpriced = await self._draft(connection, buyer, month, until, issued, True)
        return Preview(period, until, draft, self._supplier.sac_code, unpriced)

    async def issue(self, actor: Actor, period: str, org: UUID, *, until: int | None = None) -> Invoice | None:
        """Issue the invoice of a month that is over, or with ``until`` (a batch) of a part of any month.

        Doing it again returns the same invoice: a closed month stays closed, and usage that comes late
        goes on the organisation's next one. Return None when there is nothing to bill. Raise Conflict
        for a month that still runs, ValidationFailed for a batch that does not exist yet.
        """
        actor.require(Permission.INVOICES_RUN)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await store.lock(connection, org)
            buyer = await self._buyer(connection, org)
            month = month_named(period, buyer["zone"])
            newest = await intake.watermark(connection)
            now = self._clock.now()
            over = now >= month.end + GRACE
            if until is None and not over:
                raise Conflict(f"{period} is not over (an hour of grace included): give `until` to bill a part of it.")
            if until is not None and until > newest:
                raise ValidationFailed(
                    "Only usage that is stored can be billed.",
                    errors=[{"field": "until", "message": f"the newest batch is {newest}"}],
                )
            until = newest if until is None else until
            issued = await store.invoices_of(connection, org)
            same = [row for row in issued if row["period"] == period]
            closes = over and until == newest
            if same and (same[-1]["closes"] or (same[-1]["batch_to"] >= until and not closes)):
                return Invoice(**same[-1])
            draft, unpriced = await self._draft(connection, buyer, month, until, issued, closes)
            for usage in unpriced:
                log.warning("%s has %d calls of %s without a price: not billed", org, usage.calls, usage.service)
            if not draft.lines:
                return Invoice(**same[-1]) if same else None
            if draft.net < 0:
                raise Conflict(
                    f"{period} comes to ₹{draft.net}: less than earlier invoices took. A credit note is due."
                )
            return await self._write(connection, actor, draft, buyer, period, len(same) + 1, closes, until, now)

    async def issue_all(self, actor: Actor, period: str, *, until: int | None = None) -> IssueRun:
        """Issue for every organisation with usage; one that can't be billed stops nobody else."""
        actor.require(Permission.INVOICES_RUN)
        month = month_named(period, "UTC")
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            # Two months back and a day on either side: late usage, and other zones.
            organisations = await store.organisations_to_bill(
                connection, month.start - timedelta(days=63), month.end + timedelta(days=1)
            )
            if until is None:
                asked = await rating.organisations_with_fees(
                    connection, month.start - timedelta(days=1), month.end + timedelta(days=1)
                )
                organisations = sorted({*organisations, *asked})
            before = {row["id"] for row in await store.page(connection, None, period, None, 1_000_000)}
        issued, unchanged = [], 0
        failed: list[tuple[UUID, str]] = []
        for org in organisations:
            try:
                invoice = await self.issue(actor, period, org, until=until)
            except HaatError as error:
                log.error("%s was not billed for %s: %s", org, period, error.detail)
                failed.append((org, error.detail))
                continue
            if invoice is not None and invoice.id not in before:
                issued.append(invoice)
            else:
                unchanged += 1
        return IssueRun(issued, unchanged, failed)

    async def page(
        self,
        actor: Actor,
        *,
        org: UUID | None = None,
        period: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[Invoice]:
        """Return invoices, newest first: one's own, or for the operator anybody's."""
        scope, whose = self._whose(actor, org)
        limit = max(1, min(limit, MAX_PAGE))
        async with self._db.transaction(scope) as connection:
            rows = await store.page(connection, whose, period, decode_id_cursor(cursor), limit + 1)
        return page_of([Invoice(**row) for row in rows], limit, lambda invoice: (invoice.id,))

    async def get(self, actor: Actor, identifier: UUID) -> Invoice:
        """Return one invoice; raise NotFound for another organisation's."""
        row = await self._row(actor, identifier)
        return Invoice(**{name: value for name, value in row.items() if name != "document"})

    async def document(self, actor: Actor, identifier: UUID) -> dict[str, Any]:
        """Return an issued invoice as data, exactly as it was issued (see `haat.invoices.model.document`)."""
        data: dict[str, Any] = json.loads(await self.document_text(actor, identifier))
        return data

    async def document_text(self, actor: Actor, identifier: UUID) -> str:
        """Return the document byte for byte; its SHA-256 is the invoice's ``content_hash``."""
        row = await self._row(actor, identifier)
        text = str(row["document"])
        if content_hash(text) != bytes(row["content_hash"]):
            raise Conflict("The stored invoice does not have the content it was issued with: tell the operator.")
        return text

    async def lines(self, actor: Actor, identifier: UUID) -> list[Mapping[str, Any]]:
        """Return an invoice's lines with their ids and predicates."""
        scope, _ = self._whose(actor, None)
        await self._row(actor, identifier)
        async with self._db.transaction(scope) as connection:
            return await store.lines(connection, identifier)

    async def calls(
        self, actor: Actor, line_id: UUID, *, cursor: str | None = None, limit: int = 100
    ) -> Page[BilledCall]:
        """Return the calls behind an invoice line, in order of time."""
        scope, whose = self._whose(actor, None)
        limit = max(1, min(limit, MAX_PAGE))
        async with self._db.transaction(scope) as connection:
            line = await store.line(connection, line_id)
            if line is None or (whose is not None and line["org_id"] != whose):
                raise NotFound("There is no such line on an invoice of yours.")
            rows = await store.calls_of_line(connection, line, decode_id_cursor(cursor), limit + 1)
        return page_of([BilledCall(**row) for row in rows], limit, lambda call: (call.id,))

    async def _draft(
        self,
        connection: Connection,
        buyer: Mapping[str, Any],
        month: Period,
        until: int,
        issued: Sequence[store.Row],
        final: bool,
    ) -> tuple[Draft, list[Measured]]:
        """Rate what no invoice has yet: the month's usage, and what came late for months already invoiced.

        ``final``: the month is over, and its fees and minimums are due.
        """
        org = buyer["id"]
        months = [month_named(label, buyer["zone"]) for label in sorted({row["period"] for row in issued})]
        lines: list[Line] = []
        unpriced: list[Measured] = []
        for one in [*[earlier for earlier in months if earlier.label < month.label], month]:
            billed = await store.billed_up_to(connection, org, one.label)
            closed = final if one is month else any(row["closes"] for row in issued if row["period"] == one.label)
            used = billed < until and await store.has_later_usage(connection, org, one, (billed, until))
            if not used and not (one is month and final and await rating.owes_fees(connection, org, one)):
                continue
            lines_before = await store.issued(connection, org, one.label)
            rated = await rating.charges(connection, org, one, (billed, until), lines_before, final=closed)
            unpriced.extend(rated.unpriced)
            names = await rating.service_names(connection, [charge.service for charge in rated.charges])
            lines.extend(
                Line(
                    charge,
                    line_identity(charge, one.label, billed, until),
                    one.label,
                    billed,
                    until,
                    describe(names.get(charge.service, str(charge.service)), charge),
                )
                for charge in rated.charges
            )
        supplier = self._supplier
        place = place_of_supply(buyer["state_code"], buyer["gstin"], supplier.state_code)
        net = total(line.taxable for line in lines)
        return Draft(lines, taxes(net, supplier.gst_rate, supplier.state_code, place), place), unpriced

    async def _write(
        self,
        connection: Connection,
        actor: Actor,
        draft: Draft,
        buyer: Mapping[str, Any],
        period: str,
        part: int,
        closes: bool,
        until: int,
        now: datetime,
    ) -> Invoice:
        identifier, year = new_id(), financial_year(now)
        number = await store.next_serial(connection, self._supplier.serial_prefix, year)
        serial = serial_text(self._supplier.serial_prefix, year, number)
        body = document(
            draft,
            id=identifier,
            serial=serial,
            period=period,
            part=part,
            issued_at=now,
            local_date=now.astimezone(ZoneInfo("Asia/Kolkata")).date().isoformat(),
            supplier=self._supplier,
            buyer=buyer,
        )
        text = canonical(body)
        digest = content_hash(text)
        await store.add_lines(connection, identifier, buyer["id"], draft.lines)
        row = await store.add_invoice(
            connection,
            draft,
            id=identifier,
            org=buyer["id"],
            period=period,
            part=part,
            closes=closes,
            serial=serial,
            issued_at=now,
            batch_to=until,
            document=text,
            content_hash=digest,
        )
        await events.append(
            connection,
            stream=f"invoice/{identifier}",
            type="invoice.issued",
            data={
                "serial": serial,
                "period": period,
                "part": part,
                "net": str(draft.net),
                "tax": str(draft.tax),
                "total": str(draft.total),
                "content_hash": digest.hex(),
            },
            actor=actor.label,
            org=buyer["id"],
            at=now,
        )
        return Invoice(**row)

    async def _buyer(self, connection: Connection, org: UUID) -> Mapping[str, Any]:
        buyer = await store.buyer(connection, org)
        if buyer is None:
            raise NotFound("There is no such organisation.")
        return buyer

    async def _row(self, actor: Actor, identifier: UUID) -> Mapping[str, Any]:
        scope, whose = self._whose(actor, None)
        async with self._db.transaction(scope) as connection:
            row = await store.invoice(connection, identifier)
        if row is None or (whose is not None and row["org_id"] != whose):
            raise NotFound("There is no such invoice, or it is not yours.")
        return row

    @staticmethod
    def _whose(actor: Actor, org: UUID | None) -> tuple[Scope, UUID | None]:
        actor.require(Permission.INVOICES_READ)
        if actor.may(Permission.INVOICES_RUN):
            return PLATFORM_SCOPE, org
        if org not in (None, actor.org_id):
            raise NotFound
        return tenant(actor.org_id), actor.org_id

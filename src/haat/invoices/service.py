"""Use cases of invoices: see the running month, issue, correct, read back, and find the calls behind a line."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from haat.infra.events import NewEvent
from haat.infra.postgres import PLATFORM_SCOPE, Database, Scope, tenant
from haat.invoices import call_store, credits, note_store, registration, store
from haat.invoices.credits import CreditItem, CreditNote, DebitItem
from haat.invoices.issuing import Issuer, Outcome
from haat.invoices.model import Draft, content_hash, line_data, plain
from haat.invoices.portions import Weight
from haat.invoices.ports import NoWallets, Registrar, RegistrarRefused, Wallets
from haat.invoices.projection import record_all
from haat.invoices.states import OPEN, Standing, State, overdue, reminded
from haat.invoices.terms import GRACE, INDIA, Terms
from haat.kernel.clock import Clock
from haat.kernel.errors import Conflict, HaatError, NotFound
from haat.kernel.money import total
from haat.kernel.pages import MAX_PAGE, Page, decode_id_cursor, page_of
from haat.kernel.permissions import Actor, Permission
from haat.language.messages import _
from haat.rating import service as rating
from haat.rating.model import Measured
from haat.settings import Settings
from haat.usage import intake
from haat.usage.corrections import Correction, correct
from haat.usage.model import month_named

log = logging.getLogger(__name__)

BATCH = 1000
"""Organisations billed in one transaction: enough for their calls, which lie scattered over the month's rows, to be
found by reading those once, and few enough that others don't wait long for the serials and the books.
"""


@dataclass(frozen=True, slots=True)
class Invoice:
    """An issued invoice, debit note or statement and how it stands; amounts in rupees and whole paise."""

    id: UUID
    org_id: UUID
    kind: str
    against: UUID | None
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
    due_on: date | None
    state: str
    paid: Decimal
    credited: Decimal

    @property
    def owed(self) -> Decimal:
        """What is still to be paid."""
        return total((self.total, -self.paid, -self.credited)) if self.state in OPEN else Decimal("0.00")


@dataclass(frozen=True, slots=True)
class Preview:
    """What an invoice issued now would say, and the usage that has no price.

    ``state``: a ``draft`` while the month runs, in ``grace`` in the hour after it, then ``ready`` to be issued, and
    ``closed`` when it has been.
    """

    period: str
    state: str
    until: int
    draft: Draft
    sac_code: str
    unpriced: Sequence[Measured]

    def data(self) -> dict[str, Any]:
        """Return the draft as plain data, its lines as an issued document has them."""
        return {
            "period": self.period,
            "state": self.state,
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
    """A call behind a line; ``voided``: an earlier line has it, and this one takes its quantity off.

    ``amount`` is what it bears of the line, in rupees before tax (`haat.invoices.portions`).
    """

    id: UUID
    at: datetime
    status: int
    outcome: str
    voided: bool
    quantity: Decimal
    amount: Decimal


class Invoices:
    """Bills organisations for their usage, month by month in their own zone."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        settings: Settings,
        *,
        wallets: Wallets | None = None,
        registrar: Callable[[], Registrar | None] = lambda: None,
    ) -> None:
        self._db, self._clock = db, clock
        self.terms = Terms.of(settings)
        self._wallets, self._registrar = wallets or NoWallets(), registrar
        self._reminder_days = sorted(settings.reminder_days)

    def issuer(self) -> Issuer:
        """Return what issues within a transaction."""
        registers = self._registrar() is not None and not self.terms.shows_only
        return Issuer(self.terms, registers, self._wallets)

    async def preview(self, actor: Actor, period: str, org: UUID | None = None) -> Preview:
        """Return the draft of a month, as far as it is not on an issued invoice yet. Nothing is stored."""
        actor.require(Permission.INVOICES_READ)
        self.terms.require_billing()
        whose = org or actor.org_id
        if whose is None or (whose != actor.org_id and not actor.may(Permission.INVOICES_RUN)):
            raise NotFound
        now = self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            buyer = (await store.buyers(connection, [whose])).get(whose)
            if buyer is None:
                raise NotFound(_("There is no such organisation."))
            until = await intake.watermark(connection)
            month = month_named(period, buyer["zone"])
            present = await store.invoices_of(connection, [whose])
            failed: dict[UUID, Exception] = {}
            made = await self.issuer().drafts(connection, [(buyer, month, False)], until, {whose: present}, failed)
        if failed:
            raise failed[whose]
        closed = any(row["closes"] and row["period"] == period and row["state"] != State.VOID for row in present)
        state = "closed" if closed else "draft" if now < month.end else "grace" if now < month.end + GRACE else "ready"
        return Preview(period, state, until, made[0].draft, self.terms.supplier.sac_code, made[0].unpriced)

    async def issue(self, actor: Actor, period: str, org: UUID, *, until: int | None = None) -> Invoice | None:
        """Issue the invoice of a month that is over, or with ``until`` (a batch) of a part of any month.

        Doing it again returns the same invoice: a closed month stays closed, and usage that comes late
        goes on the organisation's next one. Return None when there is nothing to bill, or when the invoice waits for
        its registration. Raise Conflict for a month that still runs, ValidationFailed for a batch that does not exist
        yet.
        """
        actor.require(Permission.INVOICES_RUN)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            done = await self.issuer().issue(connection, actor, period, [org], self._clock.now(), until=until)
            if org in done.failed:
                raise done.failed[org]
            identifier = done.issued.get(org) or done.standing.get(org)
            found = await store.invoices_named(connection, [identifier]) if identifier else []
        return Invoice(**found[0]) if found else None

    async def issue_all(self, actor: Actor, period: str, *, until: int | None = None) -> IssueRun:
        """Issue for every organisation here and now; one that can't be billed stops nobody else.

        `haat.invoices.runs` closes a month as a durable job instead.
        """
        actor.require(Permission.INVOICES_RUN)
        self.terms.require_billing()
        orgs = await self.organisations_to_bill(period)
        issued: list[Invoice] = []
        failed: list[tuple[UUID, str]] = []
        unchanged = 0
        for at in range(0, len(orgs), BATCH):
            async with self._db.transaction(PLATFORM_SCOPE) as connection:
                done = await self.issuer().issue(
                    connection, actor, period, orgs[at : at + BATCH], self._clock.now(), until=until
                )
                rows = await store.invoices_named(connection, sorted(done.issued.values()))
            issued += [Invoice(**row) for row in rows]
            unchanged += len(done.standing) + len(done.registering)
            failed += reasons(period, done)
        return IssueRun(issued, unchanged, failed)

    async def organisations_to_bill(self, period: str) -> list[UUID]:
        """Return who may have something to pay for a month: two months back for what is late, and other zones."""
        month = month_named(period, "UTC")
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            first, last = month.start - timedelta(days=1), month.end + timedelta(days=1)
            called = await store.organisations_to_bill(connection, month.start - timedelta(days=63), last)
            return sorted({*called, *await rating.organisations_with_fees(connection, first, last)})

    # --- after it is issued ----------------------------------------------------------------------

    async def void(self, actor: Actor, invoice: UUID, reason: str) -> Invoice:
        """Withdraw an invoice of which nothing was paid (operator); its usage is billed again by the next one."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await credits.void(connection, actor, invoice, reason, self._clock.now())
            (row,) = await store.invoices_named(connection, [invoice])
        return Invoice(**row)

    async def credit(
        self, actor: Actor, items: Sequence[CreditItem], *, key: str, reason: str, reference: str = ""
    ) -> CreditNote:
        """Issue a credit note (operator); see `haat.invoices.credits.credit`."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return await credits.credit(
                connection, actor, items, key=key, reason=reason, reference=reference, at=self._clock.now()
            )

    async def debit(self, actor: Actor, items: Sequence[DebitItem], *, key: str, reason: str) -> Invoice:
        """Issue a debit note (operator); see `haat.invoices.credits.debit`."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            days = self.terms.payment_days
            note = await credits.debit(
                connection, actor, items, key=key, reason=reason, payment_days=days, at=self._clock.now()
            )
            (row,) = await store.invoices_named(connection, [note])
        return Invoice(**row)

    async def correct_call(
        self, actor: Actor, call: UUID, *, units: Mapping[str, Decimal] | None, reason: str
    ) -> Correction:
        """Void a call, or count other quantities in its place (operator); the next invoice has the difference."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return await correct(connection, actor, call, units=units, reason=reason, at=self._clock.now())

    async def credit_notes(
        self, actor: Actor, *, org: UUID | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[CreditNote]:
        """Return credit notes, newest first: one's own, or for the operator anybody's."""
        scope, whose = self._whose(actor, org)
        limit = max(1, min(limit, MAX_PAGE))
        async with self._db.transaction(scope) as connection:
            rows = await note_store.page(connection, whose, decode_id_cursor(cursor), limit + 1)
        return page_of([CreditNote(**row) for row in rows], limit, lambda note: (note.id,))

    async def credit_note(self, actor: Actor, identifier: UUID) -> CreditNote:
        """Return one credit note; raise NotFound for another organisation's."""
        return CreditNote(
            **{name: value for name, value in (await self._note(actor, identifier)).items() if name != "document"}
        )

    async def credit_note_document(self, actor: Actor, identifier: UUID) -> dict[str, Any]:
        """Return a credit note as data, exactly as it was issued."""
        data: dict[str, Any] = json.loads(await self.credit_note_text(actor, identifier))
        return data

    async def credit_note_text(self, actor: Actor, identifier: UUID) -> str:
        """Return that document byte for byte; its SHA-256 is the note's ``content_hash``."""
        return _whole(await self._note(actor, identifier))

    async def credit_note_lines(self, actor: Actor, identifier: UUID) -> list[Mapping[str, Any]]:
        """Return what a credit note takes back of which invoice lines."""
        scope, _ = self._whose(actor, None)
        await self._note(actor, identifier)
        async with self._db.transaction(scope) as connection:
            return await note_store.lines(connection, identifier)

    async def allocations(self, actor: Actor, identifier: UUID) -> list[Mapping[str, Any]]:
        """Return what paid an invoice: payments, credit notes, the wallet."""
        scope, _ = self._whose(actor, None)
        await self._row(actor, identifier)
        async with self._db.transaction(scope) as connection:
            return await store.allocations_of(connection, identifier)

    async def watch_due(self) -> int:
        """Mark what is overdue and remind of what is due, once for each of the days set; return how many changed.

        The events are what mails are made of.
        """
        now = self._clock.now()
        today = now.astimezone(INDIA).date()
        changed, after = 0, None
        while True:
            async with self._db.transaction(PLATFORM_SCOPE) as connection:
                rows = await store.due_before(
                    connection, today - timedelta(days=min([0, *self._reminder_days]) - 1), after, BATCH
                )
                if not rows:
                    return changed
                after = rows[-1]["invoice_id"]
                await store.lock(connection, *{row["org_id"] for row in rows})
                fresh = await store.standings(connection, [row["invoice_id"] for row in rows])
                new = [event for row in fresh for event in due_events(Standing(**row), today, self._reminder_days, now)]
                await record_all(connection, new, actor="platform", at=now)
                changed += len(new)

    # --- registration ----------------------------------------------------------------------------

    async def register(self, identifier: UUID) -> Invoice | None:
        """Have an invoice registered and issue it with its number; return None when that was done before.

        The buyer's details are read again, so that one the registrar refused can be corrected meanwhile. Raise
        Conflict with the registrar's words when it refuses, and whatever it fails with.
        """
        registrar = self._registrar()
        if registrar is None:
            raise Conflict(_("There is no registrar: install the plugin that brings it."))
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            waiting = await registration.waiting(connection, self.terms, identifier)
        if waiting is None:
            return None
        try:
            given = await registrar.register(waiting.body)
        except RegistrarRefused as refusal:
            raise Conflict(
                _(
                    "%(name)s refuses %(serial)s: %(refusal)s",
                    name=registrar.name,
                    serial=waiting.serial,
                    refusal=refusal,
                )
            ) from refusal
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await registration.finish(connection, self.issuer(), waiting, given, self._clock.now())
            rows = await store.invoices_named(connection, [identifier])
        return Invoice(**rows[0])

    async def registering(self, actor: Actor) -> list[Standing]:
        """Return the invoices that wait for their registration (operator)."""
        actor.require(Permission.INVOICES_RUN)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return [Standing(**row) for row in await store.waiting(connection)]

    # --- reading ---------------------------------------------------------------------------------

    async def page(
        self,
        actor: Actor,
        *,
        org: UUID | None = None,
        period: str | None = None,
        state: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[Invoice]:
        """Return invoices, newest first: one's own, or for the operator anybody's."""
        scope, whose = self._whose(actor, org)
        limit = max(1, min(limit, MAX_PAGE))
        async with self._db.transaction(scope) as connection:
            rows = await store.page(connection, whose, period, decode_id_cursor(cursor), limit + 1, state)
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
        return _whole(await self._row(actor, identifier))

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
                raise NotFound(_("There is no such line on an invoice of yours."))
            after = decode_id_cursor(cursor)
            rows = await call_store.calls_of_line(connection, line, after, limit + 1)
            spread = await call_store.spread(connection, line)
            before = await call_store.weight(connection, line, rows[0]["id"]) if after and rows else Weight()
        amounts = spread.portions(before, [row["quantity"] for row in rows])
        calls = [BilledCall(**row, amount=amount) for row, amount in zip(rows, amounts, strict=True)]
        return page_of(calls, limit, lambda call: (call.id,))

    async def _row(self, actor: Actor, identifier: UUID) -> Mapping[str, Any]:
        scope, whose = self._whose(actor, None)
        async with self._db.transaction(scope) as connection:
            row = await store.invoice(connection, identifier)
        if row is None or (whose is not None and row["org_id"] != whose):
            raise NotFound(_("There is no such invoice, or it is not yours."))
        return row

    @staticmethod
    def _whose(actor: Actor, org: UUID | None) -> tuple[Scope, UUID | None]:
        actor.require(Permission.INVOICES_READ)
        if actor.may(Permission.INVOICES_RUN):
            return PLATFORM_SCOPE, org
        if org not in (None, actor.org_id):
            raise NotFound
        return tenant(actor.org_id), actor.org_id

    async def _note(self, actor: Actor, identifier: UUID) -> Mapping[str, Any]:
        scope, whose = self._whose(actor, None)
        async with self._db.transaction(scope) as connection:
            row = await note_store.note(connection, identifier)
        if row is None or (whose is not None and row["org_id"] != whose):
            raise NotFound(_("There is no such credit note, or it is not yours."))
        return row


def due_events(standing: Standing, today: date, days: Sequence[int], now: datetime) -> list[NewEvent]:
    """Return what is to be said of an open invoice today: that it is overdue, and the reminder whose day has come.

    Days that passed while nobody looked make one reminder, not several.
    """
    if not standing.owed or standing.due_on is None:
        return []
    new: list[NewEvent] = []
    after, stream = standing, f"invoice/{standing.invoice_id}"
    if standing.state == State.ISSUED and standing.due_on < today:
        after = overdue(after, now)
        new.append(NewEvent(stream, "invoice.overdue", {"state": after.data()}, standing.org_id))
    passed = sum(standing.due_on + timedelta(days=day) <= today for day in days)
    if passed > standing.reminders:
        after = reminded(after, passed, now)
        data = {"state": after.data(), "owed": str(after.owed), "days": (today - standing.due_on).days}
        new.append(NewEvent(stream, "invoice.reminded", data, standing.org_id))
    return new


def reasons(period: str, done: Outcome) -> list[tuple[UUID, str]]:
    """Return why organisations were not billed, as a run tells it."""
    said = []
    for org, error in done.failed.items():
        reason = error.reason if isinstance(error, HaatError) else str(error)
        log.error("%s was not billed for %s: %s", org, period, reason)
        said.append((org, reason))
    return said


def _whole(row: Mapping[str, Any]) -> str:
    """Return a document; raise Conflict when it isn't what was issued."""
    text = str(row["document"])
    if content_hash(text) != bytes(row["content_hash"]):
        raise Conflict(_("The stored document does not have the content it was issued with: tell the operator."))
    return text

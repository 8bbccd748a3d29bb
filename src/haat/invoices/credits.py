"""Credit notes and debit notes: what was issued is never changed, it is corrected by a document of its own.

A credit note takes back value of invoice lines and the GST on it; a debit note (`haat.invoices.debits`) adds to a line.
Each kind has serials of its own, gapless in a financial year. Everything here happens within the caller's transaction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from haat.infra.events import NewEvent
from haat.infra.postgres import Connection
from haat.invoices import note_store, receivables, store
from haat.invoices.debits import DebitItem, debit
from haat.invoices.model import Tax, canonical, content_hash, head, serial_text, sums
from haat.invoices.notes import against, check, check_amount, check_state, lines_of, note_line, serial_letters
from haat.invoices.projection import record_all
from haat.invoices.states import Standing, voided
from haat.invoices.terms import INDIA
from haat.kernel.clock import financial_year
from haat.kernel.errors import Conflict, NotFound, ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.money import multiply, to_paisa, total
from haat.kernel.permissions import Actor, Permission
from haat.ledger import service as ledger
from haat.ledger.model import Operation, account, joined, moved

__all__ = ["CreditItem", "CreditNote", "DebitItem", "Fault", "credit", "debit", "void"]

Fault = Literal["provider", "platform"]
SLA = "sla"
VOID = "void"


@dataclass(frozen=True, slots=True)
class CreditItem:
    """What is taken back of an invoice line: taxable value in rupees and whole paise.

    ``fault`` says whether the line's provider loses its part of it, or the platform bears it alone.
    """

    invoice_line: UUID
    taxable: Decimal
    fault: Fault


@dataclass(frozen=True, slots=True)
class CreditNote:
    """An issued credit note; amounts in rupees and whole paise."""

    id: UUID
    org_id: UUID
    key: str
    serial: str
    reason: str
    reference: str
    issued_at: datetime
    place_of_supply: str
    net: Decimal
    tax: Decimal
    total: Decimal
    content_hash: bytes


async def lock(connection: Connection, org: UUID) -> None:
    """Let nobody else bill or credit an organisation until the transaction ends: what is left of its lines stays so."""
    await store.lock(connection, org)


async def credit(
    connection: Connection,
    actor: Actor,
    items: Sequence[CreditItem],
    *,
    key: str,
    reason: str,
    reference: str,
    at: datetime,
) -> CreditNote:
    """Issue a credit note on lines of one organisation's invoices, and post it, within the caller's transaction.

    The same key gives the same note. Raise ValidationFailed for more than a line has left, for lines of several
    organisations or none; GST is taken back by the rates of each invoice, so that an invoice credited in any parts
    gives back exactly its tax. What the note is worth pays its invoices, then others that are open; the rest stays as
    credit. ``reason`` ``sla`` is a cost, any other takes back revenue.
    """
    if reason == VOID:
        raise ValidationFailed(errors=[{"field": "reason", "message": "A whole invoice is voided, not credited."}])
    return await _credit(connection, actor, items, key, reason, reference, at)


async def void(connection: Connection, actor: Actor, invoice: UUID, reason: str, at: datetime) -> CreditNote | None:
    """Withdraw an invoice of which nothing was paid or credited: a credit note takes back all of it.

    Its usage is billed again by the next invoice of its month. Return None for an invoice of nothing. Raise Conflict
    when a later invoice goes on from its lines: what is billed again would leave a gap in whose calls they are.
    """
    actor.require(Permission.INVOICES_RUN)
    if not reason.strip():
        raise ValidationFailed(errors=[{"field": "reason", "message": "Say why the invoice is withdrawn."}])
    row = await store.standing(connection, invoice)
    if row is None:
        raise NotFound("There is no such invoice.")
    await store.lock(connection, row["org_id"])
    row = await store.standing(connection, invoice)
    assert row is not None
    after = voided(Standing(**row), reason.strip(), at)
    if later := await store.goes_on_from(connection, invoice):
        raise Conflict(
            f"Invoice {later} goes on from {row['serial']}: withdraw that one first, or credit what remains."
        )
    event = NewEvent(f"invoice/{invoice}", "invoice.voided", {"state": after.data()}, row["org_id"])
    await record_all(connection, [event], actor=actor.label, at=at)
    items = [
        CreditItem(line["id"], line["taxable"], "provider")
        for line in await store.lines(connection, invoice)
        if line["taxable"]
    ]
    if not items:
        return None
    return await _credit(connection, actor, items, f"void/{invoice}", VOID, f"invoice/{invoice}", at)


async def _credit(
    connection: Connection,
    actor: Actor,
    items: Sequence[CreditItem],
    key: str,
    reason: str,
    reference: str,
    at: datetime,
) -> CreditNote:
    actor.require(Permission.INVOICES_RUN)
    check(key, reason)
    await store.lock_key(connection, f"credit-note/{key}")
    if present := await note_store.by_key(connection, key):
        return CreditNote(**present)
    await _lock_lines(connection, [item.invoice_line for item in items])
    rows = await lines_of(connection, [item.invoice_line for item in items])
    orgs = {row["org_id"] for row in rows.values()}
    if len(orgs) != 1:
        raise ValidationFailed(errors=[{"field": "items", "message": "A credit note is for one organisation's lines."}])
    _check_left(rows, items, whole=reason == VOID)
    (org,) = orgs
    invoices = {
        row["id"]: row
        for row in await store.invoices_with_documents(connection, sorted({row["invoice_id"] for row in rows.values()}))
    }
    for invoice in invoices.values():
        check_state(invoice, voiding=reason == VOID)
    places = {invoice["place_of_supply"] for invoice in invoices.values()}
    if len(places) != 1:
        raise ValidationFailed(
            errors=[{"field": "items", "message": "These invoices have different places of supply: a note for each."}]
        )
    documents = {identifier: json.loads(invoice["document"]) for identifier, invoice in invoices.items()}
    net = total(item.taxable for item in items)
    taxes = await _taxes_back(connection, rows, items, documents)
    latest = max(documents)
    newest = documents[latest]
    identifier, today, year = new_id(), at.astimezone(INDIA).date(), financial_year(at)
    prefix = serial_letters(invoices[latest]) + "C"
    (number,) = await store.next_serials(connection, prefix, year, 1)
    serial = serial_text(prefix, year, number)
    supply = newest.get("supply", "principal")
    tax = total(one.amount for one in taxes)
    body = {
        **head("credit_note", id=identifier, serial=serial, issued_at=at, local_date=today.isoformat(), supply=supply),
        "reason": reason,
        "reference": reference,
        "against": [against(one) for one in documents.values()],
        "supplier": newest["supplier"],
        "recipient": newest["recipient"],
        "reverse_charge": False,
        "lines": [
            note_line(documents[rows[item.invoice_line]["invoice_id"]], rows[item.invoice_line], item.taxable)
            for item in items
        ],
        **sums(next(iter(places)), net, taxes),
        "irn": None,
        "irn_qr": None,
    }
    text = canonical(body)
    digest = content_hash(text)
    data: dict[str, Any] = {
        "id": str(identifier),
        "org_id": str(org),
        "key": key,
        "serial": serial,
        "reason": reason,
        "reference": reference,
        "issued_at": at.isoformat(),
        "place_of_supply": next(iter(places)),
        "net": str(net),
        "tax": str(tax),
        "total": str(total((net, tax))),
        "content_hash": f"\\x{digest.hex()}",
        "lines": [_credit_row(identifier, rows[item.invoice_line], item) for item in items],
    }
    await store.keep_documents(connection, [(digest, org, text)])
    event = NewEvent(f"credit-note/{identifier}", "credit_note.issued", data, org)
    await record_all(connection, [event], actor=actor.label, at=at)
    await _put_to_invoices(connection, actor, identifier, org, invoices, total((net, tax)), reason, at)
    await ledger.post(connection, _posted(identifier, org, net, taxes, reason, supply, at))
    made = await note_store.by_key(connection, key)
    assert made is not None
    return CreditNote(**made)


async def _put_to_invoices(
    connection: Connection,
    actor: Actor,
    note: UUID,
    org: UUID,
    invoices: Mapping[UUID, store.Row],
    amount: Decimal,
    reason: str,
    at: datetime,
) -> None:
    """Let the note pay its invoices, then others; a voided one, which owes nothing any more, takes it whole."""
    if reason != VOID:
        await receivables.spend_on_open(connection, actor, org, at, list(invoices))
        return
    (invoice,) = invoices
    if not amount:
        return
    allocation = {
        "id": str(new_id()),
        "org_id": str(org),
        "source": f"credit-note/{note}",
        "invoice_id": str(invoice),
        "amount": str(amount),
        "at": at.isoformat(),
    }
    event = NewEvent(f"invoice/{invoice}", "invoice.credited", {"allocation": allocation}, org)
    await record_all(connection, [event], actor=actor.label, at=at)


async def _taxes_back(
    connection: Connection,
    rows: Mapping[UUID, store.Row],
    items: Sequence[CreditItem],
    documents: Mapping[UUID, Mapping[str, Any]],
) -> list[Tax]:
    """Return the taxes of a note: of each invoice the tax on all that is credited now, less that on what was before."""
    before = await note_store.credited_of(connection, sorted(documents))
    sums_: dict[tuple[str, Decimal], list[Decimal]] = {}
    for identifier, invoice in documents.items():
        own = total(item.taxable for item in items if rows[item.invoice_line]["invoice_id"] == identifier)
        gone = before.get(identifier, Decimal(0))
        for tax in invoice["taxes"]:
            rate = Decimal(tax["rate"])
            whole = to_paisa(multiply(total((gone, own)), rate))
            sums_.setdefault((tax["name"], rate), []).append(total((whole, -to_paisa(multiply(gone, rate)))))
    return [Tax(name, rate, total(amounts)) for (name, rate), amounts in sums_.items()]


def _posted(
    note: UUID, org: UUID, net: Decimal, taxes: Sequence[Tax], reason: str, supply: str, at: datetime
) -> list[Operation]:
    taken = account("credits" if reason == SLA else "supplies" if supply == "agent" else "revenue")
    owed = account("receivable", org)
    entries = joined(
        entry
        for name, amount in ((taken, net), *((account("tax", one.name), one.amount) for one in taxes))
        for entry in moved(name, owed, amount)
    )
    if not entries:
        return []
    return [Operation(f"credit-note/{note}", "credit_note", at, entries, f"credit-note/{note}")]


def _check_left(rows: Mapping[UUID, store.Row], items: Sequence[CreditItem], *, whole: bool) -> None:
    wanted: dict[UUID, Decimal] = {}
    for item in items:
        check_amount(item.taxable)
        wanted[item.invoice_line] = total((wanted.get(item.invoice_line, Decimal(0)), item.taxable))
    for line, amount in wanted.items():
        left = total((rows[line]["taxable"], -rows[line]["credited"]))
        if whole and amount == left:
            continue
        if not 0 < amount <= left:
            message = f"{amount} can't be credited of the line {line}: {left} of its value is left."
            raise ValidationFailed(errors=[{"field": "taxable", "message": message}])


async def _lock_lines(connection: Connection, lines: Sequence[UUID]) -> None:
    """Lock the organisations whose lines these are: what is left of a line is decided by one at a time."""
    rows = await lines_of(connection, lines)
    await store.lock(connection, *{row["org_id"] for row in rows.values()})


def _credit_row(note: UUID, row: store.Row, item: CreditItem) -> dict[str, str]:
    return {
        "id": str(new_id()),
        "credit_note_id": str(note),
        "invoice_line_id": str(row["id"]),
        "org_id": str(row["org_id"]),
        "provider_org": str(row["provider_org"]),
        "taxable": str(item.taxable),
        "provider_share": str(row["provider_share"]),
        "fault": item.fault,
    }

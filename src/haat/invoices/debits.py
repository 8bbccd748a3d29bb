"""Debit notes: invoices of their own kind that add to lines of one that was issued, paid and settled like one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from haat.infra.events import NewEvent
from haat.infra.postgres import Connection
from haat.invoices import receivables, store
from haat.invoices.issuing import posted_for
from haat.invoices.model import Tax, canonical, content_hash, head, serial_text, sums
from haat.invoices.notes import against, check, check_amount, check_state, lines_of, note_line, serial_letters
from haat.invoices.projection import record_all
from haat.invoices.states import State, begun
from haat.invoices.terms import INDIA
from haat.kernel.clock import financial_year
from haat.kernel.errors import ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.money import multiply, to_paisa, total
from haat.kernel.permissions import Actor, Permission
from haat.ledger import service as ledger


@dataclass(frozen=True, slots=True)
class DebitItem:
    """What is added to an invoice line."""

    invoice_line: UUID
    taxable: Decimal
    description: str = ""


async def debit(
    connection: Connection,
    actor: Actor,
    items: Sequence[DebitItem],
    *,
    key: str,
    reason: str,
    payment_days: int,
    at: datetime,
) -> UUID:
    """Issue a debit note that adds to lines of one invoice, post it, and return its id.

    It is an invoice of its own kind, paid and settled like one. The same key gives the same note.
    """
    actor.require(Permission.INVOICES_RUN)
    check(key, reason)
    await store.lock_key(connection, f"debit-note/{key}")
    if present := await store.debit_note_by_key(connection, key):
        return present
    rows = await lines_of(connection, [item.invoice_line for item in items])
    if len({row["invoice_id"] for row in rows.values()}) != 1:
        raise ValidationFailed(errors=[{"field": "items", "message": "A debit note adds to lines of one invoice."}])
    for item in items:
        check_amount(item.taxable)
        if item.taxable <= 0:
            raise ValidationFailed(errors=[{"field": "taxable", "message": "A debit note adds: give more than 0."}])
    (invoice,) = await store.invoices_with_documents(connection, [next(iter(rows.values()))["invoice_id"]])
    await store.lock(connection, invoice["org_id"])
    check_state(invoice)
    original = json.loads(invoice["document"])
    net = total(item.taxable for item in items)
    taxes = [
        Tax(one["name"], Decimal(one["rate"]), to_paisa(multiply(net, Decimal(one["rate"]))))
        for one in original["taxes"]
    ]
    identifier, org, today = new_id(), invoice["org_id"], at.astimezone(INDIA).date()
    due_on = today + timedelta(days=payment_days)
    year = financial_year(at)
    prefix = serial_letters(invoice) + "D"
    (number,) = await store.next_serials(connection, prefix, year, 1)
    serial = serial_text(prefix, year, number)
    part = 1 + await store.parts_of(connection, org, invoice["period"], "debit_note")
    supply = original.get("supply", "principal")
    body = {
        **head("debit_note", id=identifier, serial=serial, issued_at=at, local_date=today.isoformat(), supply=supply),
        "period": invoice["period"],
        "part": part,
        "due_on": due_on.isoformat(),
        "reason": reason,
        "against": [against(original)],
        "supplier": original["supplier"],
        "recipient": original["recipient"],
        "reverse_charge": False,
        "lines": [note_line(original, rows[item.invoice_line], item.taxable, item.description) for item in items],
        **sums(invoice["place_of_supply"], net, taxes),
        "irn": None,
        "irn_qr": None,
    }
    text = canonical(body)
    digest = content_hash(text)
    tax = total(one.amount for one in taxes)
    standing = begun(
        identifier, org, "debit_note", invoice["period"], serial, total((net, tax)), due_on, at, State.ISSUED
    )
    row = {
        "id": str(identifier),
        "org_id": str(org),
        "kind": "debit_note",
        "against": str(invoice["id"]),
        "period": invoice["period"],
        "part": part,
        "attempt": 0,
        "closes": False,
        "serial": serial,
        "issued_at": at.isoformat(),
        "batch_to": invoice["batch_to"],
        "place_of_supply": invoice["place_of_supply"],
        "net": str(net),
        "tax": str(tax),
        "total": str(total((net, tax))),
        "content_hash": f"\\x{digest.hex()}",
        "due_on": due_on.isoformat(),
        "key": key,
        "reason": reason,
        "lines": [
            _debit_row(identifier, position, rows[item.invoice_line], item) for position, item in enumerate(items, 1)
        ],
        "state": standing.data(),
    }
    await store.keep_documents(connection, [(digest, org, text)])
    await record_all(
        connection, [NewEvent(f"invoice/{identifier}", "invoice.issued", row, org)], actor=actor.label, at=at
    )
    await receivables.spend(connection, actor, [standing], at)
    posted = posted_for(standing, net, [(one.name, one.amount) for one in taxes], supply, at)
    await ledger.post(connection, posted)
    return identifier


def _debit_row(note: UUID, position: int, row: store.Row, item: DebitItem) -> dict[str, Any]:
    same = ("org_id", "period", "subscription_id", "service_id", "provider_org", "plan", "rate_card_id", "id_from")
    kept = {name: None if row[name] is None else str(row[name]) for name in (*same, "id_to", "unit")}
    return kept | {
        "id": str(new_id()),
        "invoice_id": str(note),
        "position": position,
        "identity": f"debit-note/{note}/{position}",
        "charge_key": f"debit-note/{row['id']}",
        "kind": "adjustment",
        "batch_from": row["batch_to"],
        "batch_to": row["batch_to"],
        "calls": 0,
        "quantity": "0",
        "free_units": "0",
        "unit_price": str(row["unit_price"]),
        "taxable": str(item.taxable),
        "provider_share": str(row["provider_share"]),
        "meter": "",
        "members": {},
        "description": item.description or row["description"],
        "cached_share": None if row["cached_share"] is None else str(row["cached_share"]),
    }

"""What credit notes and debit notes have in common: what is refused, and what is said of an invoice's line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

from haat.infra.postgres import Connection
from haat.invoices import note_store, store
from haat.invoices.model import plain
from haat.invoices.states import State
from haat.kernel.errors import Conflict, NotFound, ValidationFailed
from haat.kernel.money import exact, to_paisa

MOST = Decimal(10) ** 15
_REASON = re.compile(r"[a-z][a-z_-]{0,39}")
_KEY = re.compile(r"[\x21-\x7e]{1,200}")


def check(key: str, reason: str) -> None:
    if not _KEY.fullmatch(key):
        message = "A key has 1 to 200 printable ASCII characters and no spaces."
        raise ValidationFailed(errors=[{"field": "key", "message": message}])
    if not _REASON.fullmatch(reason):
        message = "A reason is one word in small letters, such as `sla` or `goodwill`."
        raise ValidationFailed(errors=[{"field": "reason", "message": message}])


def check_amount(amount: Decimal) -> None:
    if abs(exact(amount)) >= MOST or amount != to_paisa(amount):
        raise ValidationFailed(errors=[{"field": "taxable", "message": "Give rupees with whole paise."}])


def check_state(invoice: store.Row, *, voiding: bool = False) -> None:
    if invoice["state"] == State.SHOWN or (invoice["state"] == State.VOID and not voiding):
        raise Conflict(f"{invoice['serial']} is {invoice['state']}: nothing is owed on it.")


async def lines_of(connection: Connection, lines: Sequence[UUID]) -> dict[UUID, store.Row]:
    rows = {row["id"]: row for row in await note_store.lines_to_credit(connection, lines)}
    if not lines or set(lines) != set(rows):
        raise NotFound("There is no such line on an invoice.")
    return rows


def serial_letters(invoice: store.Row) -> str:
    """Return the first letters of the operator's serials, which a debit note's has with a D behind them."""
    letters: str = invoice["serial"].partition("/")[0]
    return letters[:-1] if invoice["kind"] == "debit_note" else letters


def against(document: Mapping[str, Any]) -> dict[str, str]:
    return {"id": document["id"], "serial": document["serial"], "date": document["date"]}


def note_line(document: Mapping[str, Any], row: store.Row, taxable: Decimal, description: str = "") -> dict[str, Any]:
    return {
        "invoice": document["serial"],
        "invoice_line": str(row["id"]),
        "position": row["position"],
        "description": description or row["description"],
        "sac": document["lines"][0]["sac"],
        "period": row["period"],
        "plan": row["plan"],
        "calls": 0,
        "unit": row["unit"],
        "quantity": "0",
        "free_units": "0",
        "billable": "0",
        "unit_price": plain(row["unit_price"]),
        "taxable_value": str(taxable),
    }

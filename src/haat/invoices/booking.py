"""How money is booked that came in and that went back, within the caller's transaction.

A payment is posted whole to its payer's receivable account, and what goes back of it is posted the other way; which
invoice a payment pays follows from what of it is here. So refunds, chargebacks and the payment itself may be told of in
any order: what went back of a payment that isn't known yet is kept, and booked with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from haat.infra.events import NewEvent
from haat.infra.postgres import Connection
from haat.invoices import payment_store, receivables, store
from haat.invoices.issuing import INDIA
from haat.invoices.projection import record_all
from haat.kernel.errors import IdempotencyMismatch, NotFound, ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.money import to_paisa
from haat.kernel.permissions import Actor
from haat.ledger import service as ledger
from haat.ledger.model import Operation, account, moved

MOST = Decimal(10) ** 15

RETURN_RANK = {"pending": 0, "gone": 1, "back": 2}
"""Messages come in any order: one that says less than is known already changes nothing."""


@dataclass(frozen=True, slots=True)
class Payment:
    """Money that came in, in rupees. ``key`` is ``{method}/{reference}``: the same one is never booked twice.

    ``returned`` is what of it went back, ``unspent`` what of the rest pays no invoice. It is below zero when more went
    back than came in, as when a chargeback follows a refund: the payer owes that beside its invoices.
    """

    id: UUID
    org_id: UUID
    key: str
    method: str
    reference: str
    amount: Decimal
    received_at: datetime
    returned: Decimal
    unspent: Decimal


@dataclass(frozen=True, slots=True)
class Returned:
    """A refund or a chargeback of the payment ``payment_key``, in rupees; for ``state`` see `ports.Return`."""

    id: UUID
    org_id: UUID
    payment_key: str
    kind: str
    method: str
    reference: str
    amount: Decimal
    state: str
    at: datetime
    version: int


async def take(
    connection: Connection,
    actor: Actor,
    org: UUID,
    amount: Decimal,
    method: str,
    reference: str,
    received_at: datetime,
    invoice: UUID | None,
    now: datetime,
) -> Payment:
    """Book money that came in, once; what had gone back of it before it was known is booked with it.

    It pays ``invoice`` first if that is open, then what is due first. Raise IdempotencyMismatch for a known reference
    with another amount or organisation, NotFound for an invoice that isn't the organisation's.
    """
    key = f"{method}/{reference}"
    await store.lock_key(connection, f"payment/{key}")
    if present := await payment_store.payment_by_key(connection, key):
        if (present["org_id"], present["amount"]) != (org, amount):
            raise IdempotencyMismatch(f"{key} was recorded before with another amount or organisation.")
        return Payment(**present)
    if not await payment_store.organisation_exists(connection, org):
        raise NotFound("There is no such organisation.")
    await store.lock(connection, org)
    if invoice is not None:
        standing = await store.standing(connection, invoice)
        if standing is None or standing["org_id"] != org:
            raise NotFound("The organisation has no such invoice.")
    identifier = new_id()
    data = {
        "id": str(identifier),
        "org_id": str(org),
        "key": key,
        "method": method,
        "reference": reference,
        "amount": str(amount),
        "received_at": received_at.isoformat(),
    }
    event = NewEvent(f"payment/{identifier}", "payment.recorded", data, org)
    await record_all(connection, [event], actor=actor.label, at=now)
    await receivables.spend_on_open(connection, actor, org, now, [invoice] if invoice else [])
    entries = moved("bank", account("receivable", org), amount)
    known = [Returned(**row) for row in await payment_store.returns_of(connection, key)]
    gone = [_posted(one, identifier, now) for one in known if one.state == "gone"]
    payment = Operation(f"payment/{identifier}", "payment", now, entries, f"payment/{identifier}")
    await ledger.post(connection, [payment, *gone])
    booked = await payment_store.payment(connection, identifier)
    assert booked is not None
    return Payment(**booked)


async def begin_return(
    connection: Connection,
    actor: Actor,
    org: UUID,
    payment_key: str,
    kind: str,
    method: str,
    reference: str,
    amount: Decimal,
    state: str,
    invoice: UUID | None,
    now: datetime,
) -> Returned:
    """Note a refund or a chargeback that was not known, and book what it says."""
    data = {
        "id": str(new_id()),
        "org_id": str(org),
        "payment_key": payment_key,
        "kind": kind,
        "method": method,
        "reference": reference,
        "amount": str(amount),
    }
    return await _move(connection, actor, data, None, state, invoice, now)


async def move_return(
    connection: Connection, actor: Actor, known: Returned, state: str, invoice: UUID | None, now: datetime
) -> Returned:
    """Book that money which goes back, or went, is somewhere else than before."""
    data = {name: str(getattr(known, name)) for name in _LASTING}
    return await _move(connection, actor, data, known.state, state, invoice, now)


_LASTING = ("id", "org_id", "payment_key", "kind", "method", "reference", "amount")


async def _move(
    connection: Connection,
    actor: Actor,
    data: Mapping[str, Any],
    before: str | None,
    state: str,
    invoice: UUID | None,
    now: datetime,
) -> Returned:
    """Record where the money is; once its payment is booked, invoices and books follow."""
    org = UUID(data["org_id"])
    await store.lock(connection, org)
    event = NewEvent(
        f"payment-return/{data['id']}", f"payment_return.{state}", {**data, "state": state, "at": now.isoformat()}, org
    )
    await record_all(connection, [event], actor=actor.label, at=now)
    row = await payment_store.return_of(connection, data["method"], data["kind"], data["reference"])
    assert row is not None
    after = Returned(**row)
    booked = await payment_store.payment_by_key(connection, after.payment_key)
    if booked is not None and "gone" in (before, state):
        if booked["unspent"] < 0:
            today = now.astimezone(INDIA).date()
            await receivables.take_off(connection, actor, booked["id"], -booked["unspent"], now, today)
        await receivables.spend_on_open(connection, actor, org, now, [invoice] if invoice else [])
        await ledger.post(connection, [_posted(after, booked["id"], now)])
    return after


def _posted(one: Returned, payment: UUID, now: datetime) -> Operation:
    owed, key, about = account("receivable", one.org_id), f"{one.kind}/{one.id}", f"payment/{payment}"
    if one.state == "back":
        return Operation(f"{key}/back", f"{one.kind}_back", now, moved("bank", owed, one.amount), about)
    return Operation(key, one.kind, now, moved(owed, "bank", one.amount), about)


def check_amount(amount: Decimal) -> Decimal:
    """Return an amount in whole paise; raise ValidationFailed for what is none, or more money than there is."""
    if not amount.is_finite() or not 0 < amount < MOST or amount != to_paisa(amount):
        message = "Give rupees above 0, with whole paise, and not more money than there is."
        raise ValidationFailed(errors=[{"field": "amount", "message": message}])
    return to_paisa(amount)

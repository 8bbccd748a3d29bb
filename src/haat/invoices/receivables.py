"""What pays what: payments and notes are put to invoices, what is left stays as credit, what went back comes off.

Nothing is posted here. A payment or a note is posted whole to the receivable account; which invoice it pays is a
matter of invoices.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

from haat.infra.events import NewEvent
from haat.infra.postgres import Connection
from haat.invoices import payment_store, store
from haat.invoices.projection import record_all
from haat.invoices.states import OPEN, Standing, State, reopened, settled
from haat.kernel.ids import new_id
from haat.kernel.money import total
from haat.kernel.permissions import Actor


def allocated(standing: Standing, source: str, amount: Decimal, at: datetime) -> tuple[NewEvent, Standing]:
    """Return the event that a source pays some of an invoice, and how the invoice stands then."""
    credit = source.startswith("credit-note/")
    after = settled(standing, amount, at, credit=credit)
    return _event("invoice.paid" if after.state == State.PAID else "invoice.paid_in_part", after, source, amount), after


async def spend(connection: Connection, actor: Actor, standings: Sequence[Standing], at: datetime) -> list[Standing]:
    """Pay invoices, in their order, from what is left of their organisations' payments and notes.

    Return how they stand then. The caller holds the organisations' locks.
    """
    owing = [standing.org_id for standing in standings if standing.state in OPEN and standing.owed]
    if not owing:
        return list(standings)
    left: dict[UUID, list[tuple[str, Decimal]]] = {}
    for row in await store.unspent(connection, owing):
        left.setdefault(row["org_id"], []).append((row["source"], row["rest"]))
    if not left:
        return list(standings)
    new: list[NewEvent] = []
    found: list[Standing] = []
    for standing in standings:
        after = standing
        sources = left.get(standing.org_id, [])
        while sources and after.state in OPEN and after.owed:
            source, rest = sources.pop(0)
            amount = min(rest, after.owed)
            event, after = allocated(after, source, amount, at)
            new.append(event)
            if rest > amount:
                sources.insert(0, (source, total((rest, -amount))))
        found.append(after)
    await record_all(connection, new, actor=actor.label, at=at)
    return found


async def spend_on_open(
    connection: Connection, actor: Actor, org: UUID, at: datetime, first: Sequence[UUID] = ()
) -> list[Standing]:
    """Pay an organisation's open invoices from what is left: those named ``first``, then what is due first."""
    rows = await store.owing(connection, [org])
    rows.sort(key=lambda row: list(first).index(row["invoice_id"]) if row["invoice_id"] in first else len(first))
    return await spend(connection, actor, [Standing(**row) for row in rows], at)


async def take_off(
    connection: Connection, actor: Actor, payment: UUID, amount: Decimal, at: datetime, today: date
) -> None:
    """Take off invoices what a payment paid of them and is not here any more, the one it paid last coming first.

    They are due again. What goes beyond all that it paid, such as the second time that a payment goes back, is owed
    beside invoices. The caller holds the organisation's lock.
    """
    rest = amount
    new: list[NewEvent] = []
    for invoice, paid in await payment_store.paid_with(connection, payment):
        if not rest:
            break
        row = await store.standing(connection, invoice)
        assert row is not None
        part = min(paid, rest)
        after = reopened(Standing(**row), part, at, today)
        new.append(_event("invoice.reopened", after, f"payment/{payment}", -part))
        rest = total((rest, -part))
    await record_all(connection, new, actor=actor.label, at=at)


def _event(type_: str, after: Standing, source: str, amount: Decimal) -> NewEvent:
    """Return the event that an amount of a source was put to an invoice, or below zero taken off it."""
    allocation = {
        "id": str(new_id()),
        "org_id": str(after.org_id),
        "source": source,
        "invoice_id": str(after.invoice_id),
        "amount": str(amount),
        "at": after.changed_at.isoformat(),
    }
    data = {"allocation": allocation, "state": after.data()}
    return NewEvent(f"invoice/{after.invoice_id}", type_, data, after.org_id)

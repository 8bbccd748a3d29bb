"""What pays what: payments and credit notes are put to invoices, and what is left stays as credit.

Nothing is posted here. A payment or a note is posted whole to the receivable account; which invoice it pays is a
matter of invoices.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from haat.infra.events import NewEvent
from haat.infra.postgres import Connection
from haat.invoices import store
from haat.invoices.projection import record_all
from haat.invoices.states import OPEN, Standing, State, settled
from haat.kernel.ids import new_id
from haat.kernel.money import total
from haat.kernel.permissions import Actor


def allocated(standing: Standing, source: str, amount: Decimal, at: datetime) -> tuple[NewEvent, Standing]:
    """Return the event that a source pays some of an invoice, and how the invoice stands then."""
    credit = source.startswith("credit-note/")
    after = settled(standing, amount, at, credit=credit)
    type_ = "invoice.paid" if after.state == State.PAID else "invoice.paid_in_part"
    data = {
        "allocation": {
            "id": str(new_id()),
            "org_id": str(standing.org_id),
            "source": source,
            "invoice_id": str(standing.invoice_id),
            "amount": str(amount),
            "at": at.isoformat(),
        },
        "state": after.data(),
    }
    return NewEvent(f"invoice/{standing.invoice_id}", type_, data, standing.org_id), after


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

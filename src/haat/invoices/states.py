"""The life of an invoice after its month: registering, issued, paid, overdue, void. Pure.

Before that it is a draft, which is made anew from usage whenever somebody looks, and in the hour of grace after its
month a draft that waits for usage on its way. Nothing of a draft is stored.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from haat.kernel.errors import Conflict
from haat.kernel.money import total

NOTHING = Decimal("0.00")


class State(StrEnum):
    """Where an invoice is. ``shown`` is the only state of a statement of usage that nobody pays."""

    REGISTERING = "registering"
    ISSUED = "issued"
    PAID = "paid"
    OVERDUE = "overdue"
    VOID = "void"
    SHOWN = "shown"


OPEN = (State.ISSUED, State.OVERDUE)
OWED_BY_NOBODY = (State.REGISTERING, State.SHOWN)
"""Not issued yet, or never to be paid: nothing of these is in the books, and no provider earns by them."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How an invoice stands: rupees and whole paise. ``version`` is that of its stream's last event."""

    invoice_id: UUID
    org_id: UUID
    kind: str
    period: str
    serial: str
    state: str
    total: Decimal
    paid: Decimal
    credited: Decimal
    due_on: date | None
    reminders: int
    reason: str
    changed_at: datetime
    version: int = 0

    @property
    def owed(self) -> Decimal:
        """What is still to be paid."""
        if self.state not in OPEN:
            return NOTHING
        return total((self.total, -self.paid, -self.credited))

    def data(self) -> dict[str, Any]:
        """Return it as an event carries it."""
        told = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "version"}
        return {name: _told(value) for name, value in told.items()}


def begun(
    invoice_id: UUID,
    org: UUID,
    kind: str,
    period: str,
    serial: str,
    amount: Decimal,
    due_on: date | None,
    at: datetime,
    state: State,
) -> Standing:
    """Return the standing of a new invoice; one of nothing is paid when it is issued."""
    if state is State.ISSUED and not amount:
        state = State.PAID
    return Standing(invoice_id, org, kind, period, serial, state, amount, NOTHING, NOTHING, due_on, 0, "", at)


def settled(standing: Standing, amount: Decimal, at: datetime, *, credit: bool = False) -> Standing:
    """Return the standing after a payment, or a credit, of at most what is owed."""
    if not 0 < amount <= standing.owed:
        raise ValueError(f"{standing.serial} owes {standing.owed}, not {amount}")
    state = State.PAID if amount == standing.owed else State(standing.state)
    if credit:
        return replace(standing, state=state, credited=total((standing.credited, amount)), changed_at=at)
    return replace(standing, state=state, paid=total((standing.paid, amount)), changed_at=at)


def reopened(standing: Standing, amount: Decimal, at: datetime, today: date) -> Standing:
    """Return the standing after some of what was paid went back: it is due again, or overdue if its day has passed."""
    if not 0 < amount <= standing.paid:
        raise ValueError(f"{standing.serial} was paid {standing.paid}: {amount} of it can't go back")
    state = State.OVERDUE if standing.due_on is not None and standing.due_on < today else State.ISSUED
    return replace(standing, state=state, paid=total((standing.paid, -amount)), changed_at=at)


def voided(standing: Standing, reason: str, at: datetime) -> Standing:
    """Return the standing of an invoice that is withdrawn whole.

    Raise Conflict once something was paid or credited: then its rest can be credited.
    """
    if standing.state not in OPEN and not (standing.state == State.PAID and not standing.total):
        raise Conflict(f"Invoice {standing.serial} is {standing.state}: only one that is to be paid can be voided.")
    if standing.paid or standing.credited:
        raise Conflict(f"Something was paid or credited on {standing.serial}: credit what remains instead.")
    return replace(standing, state=State.VOID, credited=standing.total, reason=reason, changed_at=at)


def overdue(standing: Standing, at: datetime) -> Standing:
    return replace(standing, state=State.OVERDUE, changed_at=at)


def reminded(standing: Standing, reminders: int, at: datetime) -> Standing:
    return replace(standing, reminders=reminders, changed_at=at)


def _told(value: Any) -> Any:
    if value is None or isinstance(value, int):
        return value
    return value.isoformat() if isinstance(value, date) else str(value)

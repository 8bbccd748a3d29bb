"""Wallets: grants that are never edited, and the order in which they burn. Pure.

Amounts are rupees. What a wallet has is the sum of what remains of its grants; a part of that is *held* for calls that
were admitted and are on no invoice yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_DOWN, Decimal
from enum import StrEnum
from uuid import UUID

from haat.kernel.money import PAISA, total

NANO = 1_000_000_000
"""Leases and holds are whole billionths of a rupee."""
THRESHOLDS = (50, 80, 100)
"""The percentages of a budget at which its organisation is told."""
_NEVER = datetime.max.replace(tzinfo=UTC)


class Mode(StrEnum):
    """When usage is paid for: by an invoice afterwards, or from the wallet, which must cover it before."""

    POSTPAID = "postpaid"
    PREPAID = "prepaid"


class GrantKind(StrEnum):
    """Where a grant came from: money that arrived, or credits given free."""

    PAID = "paid"
    FREE = "free"


@dataclass(frozen=True, slots=True)
class Grant:
    """Money in a wallet. A lower ``priority`` burns first; ``expires_at`` None is never."""

    id: UUID
    org_id: UUID
    kind: GrantKind
    amount: Decimal
    remaining: Decimal
    priority: int
    granted_at: datetime
    expires_at: datetime | None
    key: str
    note: str = ""

    def is_open(self, at: datetime) -> bool:
        """Tell whether new calls may be made of it."""
        return self.expires_at is None or at < self.expires_at


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent a month, before tax; of the whole organisation when it names neither of the two."""

    id: UUID
    org_id: UUID
    application_id: UUID | None
    subscription_id: UUID | None
    amount: Decimal
    hard_stop: bool
    set_at: datetime

    def covers(self, application: UUID | None, subscription: UUID | None) -> bool:
        """Tell whether what an application spends under a subscription counts."""
        return self.application_id in (None, application) and self.subscription_id in (None, subscription)


Part = tuple[Grant, Decimal]


def burn_order(grants: Iterable[Grant]) -> list[Grant]:
    """Return grants in the order in which they burn: by priority, earliest expiry, earliest creation."""
    return sorted(
        grants, key=lambda grant: (grant.priority, grant.expires_at or _NEVER, grant.granted_at, str(grant.id))
    )


def burn(grants: Iterable[Grant], amount: Decimal) -> list[Part]:
    """Return from which grants an amount comes, and how much of each; raise ValueError when it is not there."""
    if amount < 0:
        raise ValueError("nobody burns less than nothing")
    parts: list[Part] = []
    for grant in burn_order(grants):
        part = min(amount, grant.remaining)
        if part > 0:
            parts.append((grant, part))
            amount = total((amount, -part))
    if amount:
        raise ValueError(f"the wallet lacks {amount}")
    return parts


def _rests(grants: Iterable[Grant], held: Decimal) -> list[Part]:
    """Return what of each grant nothing is held of: what is held lies on the grants in the order in which they burn."""
    rests: list[Part] = []
    for grant in burn_order(grants):
        part = min(max(held, Decimal(0)), grant.remaining)
        held = total((held, -part))
        rests.append((grant, total((grant.remaining, -part))))
    return rests


def spendable(grants: Iterable[Grant], held: Decimal, at: datetime) -> Decimal:
    """Return what new calls may cost, which is below zero when more is held than there is."""
    grants = list(grants)
    short = total((total(grant.remaining for grant in grants), -held))
    if short < 0:
        return short
    return total(rest for grant, rest in _rests(grants, held) if grant.is_open(at))


def lapsed(grants: Iterable[Grant], held: Decimal, at: datetime) -> list[Part]:
    """Return what expires at a time, in whole paise: of grants whose time is over, what no call has used."""
    found = [
        (grant, rest.quantize(PAISA, rounding=ROUND_DOWN))
        for grant, rest in _rests(grants, held)
        if not grant.is_open(at)
    ]
    return [(grant, rest) for grant, rest in found if rest]


def reached(budget: Budget, spent: Decimal, known: Sequence[int]) -> list[int]:
    """Return which thresholds an amount has reached that nobody was told of."""
    return [one for one in THRESHOLDS if one not in known and spent * 100 >= budget.amount * one]


def to_nano(amount: Decimal) -> int:
    """Return rupees as whole billionths, rounded down."""
    return int((amount * NANO).to_integral_value(rounding=ROUND_DOWN))


def from_nano(nano: int) -> Decimal:
    return Decimal(nano).scaleb(-9)

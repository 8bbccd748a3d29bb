"""The most that usage can cost: the one place where wallets and budgets ask about prices.

Before a call, what a unit costs at most is asked for; free units don't count, because nobody knows yet who uses them.
Of usage that was measured, what it comes to at most: the dearest price of the period on all of it, less the free units
where one card holds for the whole period.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol
from uuid import UUID

from haat.kernel.clock import Period
from haat.kernel.money import multiply, total
from haat.rating.model import RateCard, windows


class Priced(Protocol):
    """As much of a rate card as is needed before a call. ``plan`` None: for plans without a card of their own."""

    @property
    def plan(self) -> str | None: ...
    @property
    def unit(self) -> str: ...
    @property
    def unit_price(self) -> Decimal: ...
    @property
    def effective_from(self) -> datetime: ...


@dataclass(frozen=True, slots=True)
class UnitPrice:
    """Rupees for one unit, before tax, at most."""

    unit: str
    price: Decimal


def unit_price(cards: Iterable[Priced], plan: str, at: datetime) -> UnitPrice | None:
    """Return what a unit of a service costs under a plan at a time, at most; None when it has no price."""
    begun = sorted(
        (card for card in cards if card.plan in (plan, None) and card.effective_from <= at),
        key=lambda card: card.effective_from,
    )
    if not begun:
        return None
    card = ([card for card in begun if card.plan is not None] or begun)[-1]
    return UnitPrice(card.unit, card.unit_price)


def cost(
    units: Mapping[str, Decimal], cards: Sequence[RateCard], service: UUID, plan: str | None, period: Period
) -> Decimal:
    """Return what usage of a service in a period costs at most, before tax."""
    found = [window.card for window in windows(cards, service, plan, period)]
    if not found:
        return Decimal(0)
    free = found[0].free_units if len(found) == 1 else Decimal(0)
    return max(
        multiply(max(Decimal(0), total((units.get(card.unit, Decimal(0)), -free))), card.unit_price) for card in found
    )

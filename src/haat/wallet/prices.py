"""The most that usage can cost: the one place where wallets and budgets ask about prices.

Nobody knows before a call which tier it will end in, whether it begins a package, or who uses the free units. So each
component of a card is taken at its dearest (`Most`): every unit at the dearest tier's price, what a tier asks for when
it begins on top, a whole package for one unit, filters and shares of the price for cached answers left aside. What is
held so before a call, and what is held of usage that was measured, is never less than what `haat.rating` charges.
Only a card that names a unit's price and no more gives its free units to usage that was measured, where no other card
holds in the period. Fees and minimums are those of the whole period.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Protocol, TypeVar
from uuid import UUID

from haat.kernel.clock import Period
from haat.kernel.money import holders, multiply, spread, total
from haat.kernel.prices import REPORTED_UNITS, Component
from haat.rating.model import Charge, Held, RateCard, rate, windows

CALLS = "calls"
"""What counts and numbers of users are measured by: no call adds more than one to them."""

_NONE = Decimal(0)


class Priced(Protocol):
    """As much of a rate card as is needed before a call. ``plan`` None: for plans without a card of their own."""

    @property
    def plan(self) -> str | None: ...
    @property
    def effective_from(self) -> datetime: ...


@dataclass(frozen=True, slots=True)
class Most:
    """What units cost at most, in rupees before tax: ``price`` for each, or with ``size`` for each package begun.

    ``begun`` is due besides where there are any. ``unit`` is one of a usage row, or `CALLS`.
    """

    unit: str
    price: Decimal
    size: Decimal = _NONE
    begun: Decimal = _NONE

    def cost(self, quantity: Decimal) -> Decimal:
        if quantity <= 0:
            return _NONE
        return total((multiply(holders(quantity, self.size) if self.size else quantity, self.price), self.begun))


def most_of(component: Component) -> Most | None:
    """Return what a component's units cost at most; None for a fee, which no call costs."""
    meter = component.meter
    if meter is None:
        return None
    unit = CALLS if meter.aggregation in ("count", "unique") else meter.measure
    if not component.tiers:
        return Most(unit, component.unit_price, component.size)
    flats = [tier.flat for tier in component.tiers]
    begun = max(flats) if component.model == "volume" else total(flats)
    return Most(unit, max(tier.unit_price for tier in component.tiers), begun=begun)


def asked(components: Iterable[Component]) -> list[Most]:
    """Return what a card asks for each call at most."""
    return [most for most in map(most_of, components) if most is not None]


Card = TypeVar("Card", bound=Priced)


def in_force(cards: Iterable[Card], plan: str, at: datetime) -> Card | None:
    """Return the card by which a plan's calls are charged at a time; None when they have no price."""
    begun = sorted(
        (card for card in cards if card.plan in (plan, None) and card.effective_from <= at),
        key=lambda card: card.effective_from,
    )
    if not begun:
        return None
    return ([card for card in begun if card.plan is not None] or begun)[-1]


# --- usage that was measured ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Used:
    """What a subscription has used on a plan in a period, by unit; ``billed`` is the part that is on invoices."""

    subscription: UUID
    service: UUID
    plan: str | None
    units: Mapping[str, Decimal]
    billed: Mapping[str, Decimal] = field(default_factory=dict)


def reported_units(cards: Iterable[RateCard]) -> list[str]:
    """Return the units that cards ask for and rollups don't have."""
    wanted = {most.unit for card in cards for most in asked(card.components)}
    return sorted(wanted.intersection(REPORTED_UNITS))


def cost(
    used: Iterable[Used],
    cards: Sequence[RateCard],
    period: Period,
    held: Sequence[Held] = (),
    billed: Mapping[UUID, Decimal] | None = None,
) -> dict[UUID, Decimal]:
    """Return what each subscription's usage of a period, as far as it isn't billed, costs at most, before tax.

    ``held``: the subscriptions whose fees and minimums of the period are on no invoice yet; ``billed``: what their
    usage came to that is on one, which minimums are reached with.
    """
    rows: dict[UUID, list[Used]] = {}
    for one in used:
        rows.setdefault(one.subscription, []).append(one)
    found = {subscription: _usage(mine, cards, period) for subscription, mine in rows.items()}
    if not held:
        return found
    services = {one.service for one in held}
    fixed = rate([], [card for card in cards if card.service in services], period, None, held).charges
    fees, least = _fixed(fixed, "fee"), _fixed(fixed, "minimum")
    for subscription in {**fees, **least}:
        usage, fee = found.get(subscription, _NONE), fees.get(subscription, _NONE)
        paid = (billed or {}).get(subscription, _NONE)
        found[subscription] = total((fee, max(usage, total((least.get(subscription, _NONE), -paid)))))
    return found


def _fixed(charges: Iterable[Charge], kind: str) -> dict[UUID, Decimal]:
    """Return what a subscription owes of a kind whatever it uses: of a minimum, what its fees leave of it."""
    found: dict[UUID, Decimal] = {}
    for charge in charges:
        if charge.kind == kind:
            found[charge.subscription] = total((found.get(charge.subscription, _NONE), charge.amount))
    return found


def _usage(used: Sequence[Used], cards: Sequence[RateCard], period: Period) -> Decimal:
    """Return what one subscription's usage costs at most: all of it may lie on the dearest of its cards."""
    service, plans = used[0].service, {one.plan for one in used}
    held = {window.card.id: window.card for plan in plans for window in windows(cards, service, plan, period)}
    if not held:
        return _NONE
    if len(held) == 1 and not (card := next(iter(held.values()))).components:
        free, price = card.free_units, card.unit_price
        after, before = (max(_NONE, total((_sum(used, card.unit, billed), -free))) for billed in (False, True))
        return multiply(max(_NONE, total((after, -before))), price)
    parts: dict[str, list[Component]] = {}
    for card in held.values():
        for component in card.parts:
            if component.meter is not None:
                parts.setdefault(component.name, []).append(component)
    return total(_component(components, used) for components in parts.values())


def _component(components: Sequence[Component], used: Sequence[Used]) -> Decimal:
    """Return what a meter costs at most by prices that follow each other, or are those of several plans."""
    asks = asked(components)
    unit = asks[0].unit
    quantity, billed = _sum(used, unit, False), _sum(used, unit, True)
    later = max(_NONE, total((quantity, -billed)))
    if len(asks) == 1:
        found = asks[0].cost(later)
    else:  # each card may begin a package of its own for each part that the others divide the usage into
        each = max(spread(one.price, one.size) if one.size else one.price for one in asks)
        begun = total(one.begun + (one.price * len(asks) if one.size else _NONE) for one in asks)
        found = total((multiply(later, each), begun)) if later else _NONE
    return total((found, *(_lifted(one, billed, alone=len(asks) == 1) for one in components)))


def _lifted(component: Component, billed: Decimal, *, alone: bool) -> Decimal:
    """Return what is due once more for billed units at most, where a price by volume rises with the volume."""
    prices = [tier.unit_price for tier in component.tiers]
    if not billed or component.model != "volume" or prices == sorted(prices, reverse=True):
        return _NONE
    paid = multiply(max(_NONE, total((billed, -component.free_units))), min(prices)) if alone else _NONE
    return total((multiply(billed, max(prices)), max(tier.flat for tier in component.tiers), paid.copy_negate()))


def _sum(used: Iterable[Used], unit: str, billed: bool) -> Decimal:
    return total((one.billed if billed else one.units).get(unit, _NONE) for one in used)

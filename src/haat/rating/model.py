"""Rating: quantities and rate cards in, charges out. Pure, exact, and blind to order.

A card applies from its ``effective_from`` until the next one of the same kind; a card made for a
plan wins over the general one. Free units belong to a subscription and a period, not to a card: they
are used up in the order of the cards' windows, within one by what costs most a unit, and what one card
gave is not given again by the next. What came out of the response cache is charged apart, at the plan's
share of the price. Nothing is rounded here; an invoice line rounds once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from uuid import UUID

from haat.kernel.clock import Period
from haat.kernel.money import exact, multiply, total

FreeUsed = Mapping[tuple[UUID, str], Decimal]
"""Free units a (subscription, unit) has used in the period on lines already issued."""


@dataclass(frozen=True, slots=True)
class RateCard:
    """A version of a price. ``plan`` None: for every plan without a card of its own."""

    id: UUID
    service: UUID
    version: int
    plan: str | None
    unit: str
    unit_price: Decimal
    free_units: Decimal
    provider_share: Decimal
    effective_from: datetime

    def __post_init__(self) -> None:
        if exact(self.unit_price) < 0 or exact(self.free_units) < 0:
            raise ValueError("a rate card has neither a negative price nor negative free units")


@dataclass(frozen=True, slots=True)
class Measured:
    """Some billed usage at one time, or of a span that no change of price divides.

    ``cached_share``: all of it came out of the cache, and costs this part of the price. A call of which only a
    part did makes two of these.
    """

    subscription: UUID
    service: UUID
    plan: str | None
    provider_org: UUID
    at: datetime
    units: Mapping[str, Decimal]
    calls: int = 1
    cached_share: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """A card and the part ``[start, end)`` of a period in which it applies."""

    card: RateCard
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Charge:
    """What a subscription owes for one window of a card: ``amount`` is exact, in rupees, before tax.

    ``cached_share``: these are answers out of the cache, and they cost this part of the price.
    """

    subscription: UUID
    service: UUID
    plan: str | None
    provider_org: UUID
    card: RateCard
    start: datetime
    end: datetime
    quantity: Decimal
    free_units: Decimal
    calls: int
    cached_share: Decimal | None = None

    @property
    def billable(self) -> Decimal:
        return total((self.quantity, -self.free_units))

    @property
    def amount(self) -> Decimal:
        full = multiply(self.billable, self.card.unit_price)
        return full if self.cached_share is None else multiply(full, self.cached_share)


@dataclass(frozen=True, slots=True)
class Rated:
    """Charges in a fixed order, and the usage that no card covered: it isn't billed, and it is shown."""

    charges: Sequence[Charge]
    unpriced: Sequence[Measured]


def windows(cards: Iterable[RateCard], service: UUID, plan: str | None, period: Period) -> list[Window]:
    """Return which card of a service applies when, for a plan, in time order and without overlap."""
    own = sorted(
        (card for card in cards if card.service == service and card.plan in (plan, None)),
        key=lambda card: card.effective_from,
    )
    starts = sorted({max(card.effective_from, period.start) for card in own if card.effective_from < period.end})
    found: list[Window] = []
    for start, end in pairwise([*starts, period.end]):
        begun = [card for card in own if card.effective_from <= start]
        special = [card for card in begun if card.plan is not None]
        card = (special or begun)[-1]
        if found and found[-1].card is card:
            found[-1] = Window(card, found[-1].start, end)
        else:
            found.append(Window(card, start, end))
    return found


def rate(
    measured: Iterable[Measured], cards: Sequence[RateCard], period: Period, free_used: FreeUsed | None = None
) -> Rated:
    """Rate one period's usage. Raise ValueError for usage outside of it or a negative quantity."""
    known: dict[tuple[UUID, str | None], list[Window]] = {}
    gathered: dict[tuple[UUID, UUID, str, UUID, UUID, Decimal | None], list[Measured]] = {}
    unpriced = []
    for usage in measured:
        if usage.at not in period:
            raise ValueError(f"usage at {usage.at.isoformat()} lies outside of {period.label}")
        place = (usage.service, usage.plan)
        if place not in known:
            known[place] = windows(cards, usage.service, usage.plan, period)
        window = next((one for one in known[place] if one.start <= usage.at < one.end), None)
        if window is None:
            unpriced.append(usage)
            continue
        plan, share = usage.plan or "", usage.cached_share
        key = (usage.subscription, usage.service, plan, usage.provider_org, window.card.id, share)
        gathered.setdefault(key, []).append(usage)
    drafts = []
    for members in gathered.values():
        first = members[0]
        window = next(one for one in known[first.service, first.plan] if one.start <= first.at < one.end)
        quantities = [exact(usage.units.get(window.card.unit, Decimal(0))) for usage in members]
        if any(quantity < 0 for quantity in quantities):
            raise ValueError("a quantity is never negative")
        drafts.append((first, window, total(quantities), sum(usage.calls for usage in members)))
    drafts.sort(key=lambda draft: _order(draft[0], draft[1]))
    used = dict(free_used or {})
    charges = []
    for first, window, quantity, calls in drafts:
        account = (first.subscription, window.card.unit)
        allowance = max(Decimal(0), total((window.card.free_units, -used.get(account, Decimal(0)))))
        free = min(quantity, allowance)
        used[account] = total((used.get(account, Decimal(0)), free))
        charges.append(
            Charge(
                first.subscription,
                first.service,
                first.plan,
                first.provider_org,
                window.card,
                window.start,
                window.end,
                quantity,
                free,
                calls,
                first.cached_share,
            )
        )
    return Rated(charges, sorted(unpriced, key=lambda usage: (usage.at, str(usage.service), str(usage.subscription))))


def _order(usage: Measured, window: Window) -> tuple[str, datetime, Decimal, bool, str, str, int, str]:
    """Free units go first to what came first, by window, and within one to what costs most a unit."""
    share = Decimal(1) if usage.cached_share is None else usage.cached_share
    return (
        str(usage.subscription),
        window.start,
        -multiply(window.card.unit_price, share),
        usage.cached_share is not None,
        str(usage.service),
        usage.plan or "",
        window.card.version,
        str(usage.provider_org),
    )

"""What rating is about: rate cards and usage that go in, charges that come out, and which card holds when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any, Literal
from uuid import UUID

from haat.kernel.clock import Period
from haat.kernel.money import exact, multiply, total
from haat.kernel.prices import MONTHS, UNIT_METERS, Component, Meter, Step, check_components, unit_component

Kind = Literal["usage", "fee", "minimum"]
FreeUsed = Mapping[tuple[UUID, str], Decimal]
"""Free units a (subscription, meter) has used in the period on lines already issued: all there is to know of lines
of cards with a price by the unit. `Issued` says the rest."""

_NONE = Decimal(0)


@dataclass(frozen=True, slots=True)
class RateCard:
    """A version of a price. ``plan`` None: for every plan without a card of its own.

    A card without ``components`` asks ``unit_price`` for each ``unit`` beyond ``free_units``. With components these
    three say what it is known by: ``unit_price`` is then the most that a unit costs. ``minimum`` is what a month comes
    to at least, fees and usage together, in full when the subscription stood on the card all month.
    """

    id: UUID
    service: UUID
    version: int
    plan: str | None
    unit: str
    unit_price: Decimal
    free_units: Decimal
    provider_share: Decimal
    effective_from: datetime
    components: tuple[Component, ...] = ()
    minimum: Decimal = _NONE
    currency: str = "INR"

    def __post_init__(self) -> None:
        if exact(self.unit_price) < 0 or exact(self.free_units) < 0:
            raise ValueError("a rate card has neither a negative price nor negative free units")
        if self.unit not in UNIT_METERS and self.unit != MONTHS and not self.components:
            raise ValueError(f"{self.unit[:40]!r} is no unit that usage is counted in")
        check_components(self.components, self.minimum)

    @property
    def parts(self) -> tuple[Component, ...]:
        """Everything it asks for but the minimum."""
        return self.components or (unit_component(self.unit, self.unit_price, self.free_units),)

    def on(self, component: Component, unit_price: Decimal | None = None) -> RateCard:
        """Return the card as one of its components has it: in that one's unit, price and free units."""
        if not self.components:
            return self
        price, free = component.headline if unit_price is None else unit_price, component.free_units
        return replace(self, components=(component,), unit=component.unit, unit_price=price, free_units=free)


@dataclass(frozen=True, slots=True)
class Measured:
    """Some billed usage at one time, or of a span that no change of price divides.

    ``units`` are sums, by `haat.kernel.prices.Meter.key`. ``cached_share``: all of it came out of the cache, and costs
    this part of the price. A call of which only a part did makes two of these; ``counted`` are the calls that a
    count counts here and nowhere else (None: all). ``peaks``, ``lasts`` (with what orders them) and ``distinct`` are
    for meters that don't add up; without them it is one call. ``before``: it lies on issued lines already, and only
    meters that don't add up look at it again.
    """

    subscription: UUID
    service: UUID
    plan: str | None
    provider_org: UUID
    at: datetime
    units: Mapping[str, Decimal]
    calls: int = 1
    cached_share: Decimal | None = None
    counted: int | None = None
    language_pair: str = ""
    version: str = ""
    variant: str = ""
    before: bool = False
    peaks: Mapping[str, Decimal] | None = None
    lasts: Mapping[str, tuple[str, Decimal]] | None = None
    distinct: Mapping[str, frozenset[str]] | None = None

    def value(self, meter: Meter) -> Decimal:
        """Return what an additive meter reads of it."""
        if meter.aggregation == "count":
            return Decimal(self.calls if self.counted is None else self.counted)
        return exact(self.units.get(meter.key, _NONE))

    def peak(self, key: str) -> Decimal:
        return exact((self.units if self.peaks is None else self.peaks).get(key, _NONE))

    def last(self, key: str) -> tuple[str, Decimal]:
        if self.lasts is None:
            return self.at.isoformat(), exact(self.units.get(key, _NONE))
        return self.lasts.get(key, ("", _NONE))


@dataclass(frozen=True, slots=True)
class Held:
    """A subscription that stood on a plan for a time, used or not: fees and minimums are due for it."""

    subscription: UUID
    service: UUID
    plan: str | None
    provider_org: UUID
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Issued:
    """A line of the period that is on an issued invoice. In a sequence they stand in the order of their issue.

    ``amount`` is exact, not rounded.
    """

    subscription: UUID
    meter: str
    card: UUID
    plan: str | None
    provider_org: UUID
    quantity: Decimal
    free_units: Decimal
    amount: Decimal
    kind: Kind = "usage"
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

    ``card`` is in the unit, price and free units of the component that is charged. ``meter`` names the meter, or the
    fee; it is empty where the card names a unit's price and no more, and ``counted_by`` is None. ``steps`` say how the
    amount comes together: they sum to it; None stands for billable × price. An amount is negative where lines issued
    before took more than the whole period comes to. ``cached_share``: these are answers out of the cache, and they
    cost this part of the price. What has no calls behind it has ``calls`` 0.
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
    kind: Kind = "usage"
    meter: str = ""
    steps: tuple[Step, ...] | None = None
    counted_by: Meter | None = None
    sold: bool = True
    """Whether its unit is the one that the listing is sold by, in which the cache counts what it answers."""

    @property
    def plain(self) -> bool:
        """Whether billable × price is all there is to say of it: a card that names a unit's price, and no more."""
        return self.kind == "usage" and self.counted_by is None

    @property
    def billable(self) -> Decimal:
        return total((self.quantity, -self.free_units))

    def members(self) -> dict[str, Any]:
        """Return what its calls have in common besides what it says, and how they are counted, as plain data.

        ``sold``: the cache counts its answers in this unit. Empty for a plain charge; `haat.usage.model.MEMBER` looks
        for such calls.
        """
        meter = self.counted_by
        if meter is None:
            return {}
        return {"aggregation": meter.aggregation, "key": meter.key, "sold": self.sold, **meter.filter.data()}

    @property
    def amount(self) -> Decimal:
        if self.steps is not None:
            return total(step.amount for step in self.steps)
        full = multiply(self.billable, self.card.unit_price)
        return full if self.cached_share is None else multiply(full, self.cached_share)


@dataclass(frozen=True, slots=True)
class Rated:
    """Charges in a fixed order, and the usage that no card covered: it isn't billed, and it is shown."""

    charges: Sequence[Charge]
    unpriced: Sequence[Measured]


def check_cards(cards: Iterable[RateCard]) -> None:
    """Raise ValueError for cards that can't stand side by side: in two currencies, or beginning at the same moment."""
    begun: set[tuple[UUID, str | None, datetime]] = set()
    currencies: set[str] = set()
    for card in cards:
        place = (card.service, card.plan, card.effective_from)
        if place in begun:
            raise ValueError(f"two cards of {card.plan or 'every plan'} begin at {card.effective_from.isoformat()}")
        begun.add(place)
        currencies.add(card.currency)
    if len(currencies) > 1:
        raise ValueError(f"prices in {' and '.join(sorted(currencies))} can't be added up")


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

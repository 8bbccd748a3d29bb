"""What a month would cost somebody who has not bought yet: typed quantities on every plan's card, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from haat.infra.postgres import PLATFORM_SCOPE, Database
from haat.kernel.clock import Clock, Period, month_of
from haat.kernel.money import multiply, to_paisa, total
from haat.kernel.prices import Meter
from haat.rating import store
from haat.rating.model import Charge, Held, Measured, RateCard, rate

_NOBODY = UUID(int=0)
_NONE = Decimal(0)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A month on one plan: rupees and whole paise, each line rounded as an invoice's is.

    ``net`` is None where the listing has no price for this plan, or none that can be reckoned.
    """

    plan: str
    charges: Sequence[Charge]
    net: Decimal | None
    tax: Decimal
    left_out: Sequence[str]
    """Meters that quantities of a month don't settle: peaks, different users, some calls only."""

    @property
    def gross(self) -> Decimal | None:
        return None if self.net is None else total((self.net, self.tax))


def units_asked(cards: Sequence[RateCard], unit: str) -> list[str]:
    """Return the units of which a month's quantities are wanted: the listing's own first, calls are known besides."""
    wanted = [unit] + [
        name
        for card in cards
        for one in card.components
        if one.meter is not None and _is_settled(one.meter) and one.meter.aggregation == "sum"
        for name in one.meter.key.split("-")
    ]
    return [name for name in dict.fromkeys(wanted) if name != "requests"]


def present(cards: Sequence[RateCard], at: datetime) -> list[RateCard]:
    """Return the cards in force at an instant: the common one and each plan's own."""
    newest: dict[str | None, RateCard] = {}
    for card in sorted(cards, key=lambda one: (one.effective_from, one.version)):
        if card.effective_from <= at:
            newest[card.plan] = card
    return list(newest.values())


def estimate(
    cards: Sequence[RateCard],
    plan: str,
    period: Period,
    calls: int,
    quantities: Mapping[str, Decimal],
    gst_rate: Decimal,
) -> Estimate:
    """Rate a month of ``calls`` with ``quantities`` by unit on the card that holds for a plan.

    The subscription stands all month, so that fees and minimums are due in full. Raise ValueError for quantities that
    no bill can hold.
    """
    card = next((one for one in cards if one.plan == plan), next((one for one in cards if one.plan is None), None))
    if card is None:
        return Estimate(plan, (), None, _NONE, ())
    left_out = [one.name for one in card.components if one.meter is not None and not _is_settled(one.meter)]
    kept = tuple(one for one in card.components if one.name not in left_out)
    if card.components and not kept and not card.minimum:
        return Estimate(plan, (), None, _NONE, left_out)
    # Without a component left it asks for its minimum alone: a price of nothing for what it is known by.
    plain = replace(card, unit_price=_NONE, free_units=_NONE, unit="requests") if left_out and not kept else card
    card = replace(plain, components=kept, effective_from=period.start)
    units = {one.meter.key: _quantity(one.meter, quantities) for one in card.parts if one.meter is not None}
    usage = Measured(_NOBODY, card.service, plan, _NOBODY, period.start, {**units, "requests": Decimal(calls)}, calls)
    held = Held(_NOBODY, card.service, plan, _NOBODY, period.start, period.end)
    charges = rate([usage], [card], period, None, [held]).charges
    net = total(to_paisa(charge.amount) for charge in charges)
    return Estimate(plan, charges, net, to_paisa(multiply(net, gst_rate)), left_out)


def _is_settled(meter: Meter) -> bool:
    """Whether sums over a month say what a meter reads."""
    chosen = meter.filter
    return meter.additive and not (chosen.language_pairs or chosen.versions or chosen.variants or chosen.cached)


def _quantity(meter: Meter, quantities: Mapping[str, Decimal]) -> Decimal:
    measure, *less = meter.key.split("-")
    taken = total(quantities.get(one, _NONE) for one in less)
    return max(_NONE, total((quantities.get(measure, _NONE), -taken)))


class Estimator:
    """Reads the cards that estimates are made on. Prices are public: whoever sees the listing may ask."""

    def __init__(self, db: Database, clock: Clock, *, gst_rate: Decimal, zone: str) -> None:
        self._db, self._clock, self._gst_rate, self._zone = db, clock, gst_rate, zone

    async def cards(self, service_id: UUID) -> list[RateCard]:
        """Return a listing's cards in force."""
        now = self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            cards = await store.cards_of_service(connection, service_id, now + timedelta(microseconds=1))
        return present(cards, now)

    def estimates(
        self, cards: Sequence[RateCard], plans: Sequence[str], calls: int, quantities: Mapping[str, Decimal]
    ) -> list[Estimate]:
        """Return what a month costs on each plan; raise ValueError like `estimate`."""
        period = month_of(self._clock.now(), self._zone)
        return [estimate(cards, plan, period, calls, quantities, self._gst_rate) for plan in plans]

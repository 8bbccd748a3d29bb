"""Rating: quantities and rate cards in, charges out. Pure, exact, and blind to order.

A card applies from its ``effective_from`` until the next one of the same kind; a card made for a
plan wins over the general one. It prices meters, and may ask for fees and a minimum (`haat.kernel.prices`).

Units of a meter lie on one axis in a subscription's period: in the order of the cards' windows, within one by what
costs most a unit. Free units belong to a subscription, a meter and a period, not to a card: they come off first,
and what one card gave is not given again by the next. What is left has its place in tiers and packages by what lies
before it on the axis, lines that are issued already included. What came out of the response cache is charged apart,
at the plan's share of the price. Nothing is rounded here but the part of a month that a fee stood; an invoice line
rounds once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from haat.kernel.clock import Period
from haat.kernel.money import multiply, proportion, total
from haat.kernel.prices import MONTHS, Component, Meter, Step
from haat.rating.charge import (
    Charge,
    FreeUsed,
    Held,
    Issued,
    Kind,
    Measured,
    RateCard,
    Rated,
    Window,
    check_cards,
    windows,
)

__all__ = [
    "Charge",
    "FreeUsed",
    "Held",
    "Issued",
    "Kind",
    "Measured",
    "RateCard",
    "Rated",
    "Step",
    "Window",
    "rate",
    "windows",
]

MINIMUM = "minimum"
MAX_QUANTITY = Decimal(10) ** 24
MAX_AMOUNT = Decimal(10) ** 18
"""What an invoice line can hold."""

_NONE, _ONE = Decimal(0), Decimal(1)
_TICK = timedelta(microseconds=1)


def rate(
    measured: Iterable[Measured],
    cards: Sequence[RateCard],
    period: Period,
    issued: Sequence[Issued] | FreeUsed | None = None,
    held: Sequence[Held] = (),
    *,
    final: bool = True,
) -> Rated:
    """Rate one period's usage, and what ``held`` subscriptions cost besides; ``issued`` is taken off.

    ``final``: the period is over, as far as is known; fees and minimums are due only then. Raise ValueError for usage
    outside of the period, for quantities and amounts that are negative or too large for a bill, and for cards that
    can't stand side by side.
    """
    check_cards(cards)
    return _Rating(cards, period, _lines(issued)).rated(measured, held if final else ())


def _lines(issued: Sequence[Issued] | FreeUsed | None) -> Sequence[Issued]:
    if not isinstance(issued, Mapping):
        return issued or ()
    nobody = UUID(int=0)
    return [Issued(owner, meter, nobody, None, nobody, free, free, _NONE) for (owner, meter), free in issued.items()]


_Account = tuple[UUID, str]
_Place = tuple[UUID, UUID, str, UUID, UUID, Decimal | None, str]
"""Subscription, service, plan, provider, card, share of the price, and the component: what one line is about."""


@dataclass(slots=True)
class _Draft:
    """A line in the making: units of one meter that cost alike, and where they lie on the axis."""

    usage: Measured
    window: Window
    component: Component
    quantity: Decimal = _NONE
    calls: int = 0
    free: Decimal = _NONE
    before: Decimal = _NONE

    @property
    def billable(self) -> Decimal:
        return total((self.quantity, -self.free))


class _Rating:
    """One run: what it has seen of which account."""

    def __init__(self, cards: Sequence[RateCard], period: Period, issued: Sequence[Issued]) -> None:
        self._cards, self._period, self._issued = cards, period, issued
        self._known: dict[tuple[UUID, str | None], list[Window]] = {}
        self._parts = {card.id: card.parts for card in cards}
        self._free: dict[_Account, Decimal] = {}
        self._axis: dict[_Account, Decimal] = {}
        self._drafts: dict[_Place, _Draft] = {}
        self._gauges: dict[_Account, list[tuple[Measured, Window, Component]]] = {}

    def rated(self, measured: Iterable[Measured], held: Sequence[Held]) -> Rated:
        unpriced = [usage for usage in measured if not self._sort(usage)]
        charges = [*self._additive(), *self._of_gauges(), *self._fees(held)]
        charges += self._minimums(held, charges)
        for charge in charges:
            if not -MAX_AMOUNT < charge.amount < MAX_AMOUNT or charge.quantity >= MAX_QUANTITY:
                raise ValueError(f"a charge for {charge.meter or charge.card.unit} is too large to be billed")
        charges.sort(key=lambda charge: str(charge.subscription))
        return Rated(
            charges, sorted(unpriced, key=lambda usage: (usage.at, str(usage.service), str(usage.subscription)))
        )

    def _windows(self, service: UUID, plan: str | None) -> list[Window]:
        place = (service, plan)
        if place not in self._known:
            self._known[place] = windows(self._cards, service, plan, self._period)
        return self._known[place]

    def _sort(self, usage: Measured) -> bool:
        """Bring usage to the lines it lies on; tell whether anything has a price on it."""
        if usage.at not in self._period:
            raise ValueError(f"usage at {usage.at.isoformat()} lies outside of {self._period.label}")
        window = next(
            (one for one in self._windows(usage.service, usage.plan) if one.start <= usage.at < one.end), None
        )
        if window is None:
            return usage.before
        cached = usage.cached_share is not None
        priced = usage.before
        for component in self._parts[window.card.id]:
            meter = component.meter
            if meter is None:
                priced = True
            elif meter.filter.takes(usage.language_pair, usage.version, usage.variant, cached):
                priced = True
                if not meter.additive:
                    self._gauges.setdefault((usage.subscription, meter.name), []).append((usage, window, component))
                elif not usage.before:
                    self._add(usage, window, component, usage.value(meter))
        return priced

    def _add(self, usage: Measured, window: Window, component: Component, quantity: Decimal) -> None:
        if quantity < 0:
            raise ValueError("a quantity is never negative")
        place = (
            usage.subscription,
            usage.service,
            usage.plan or "",
            usage.provider_org,
            window.card.id,
            usage.cached_share,
            component.name,
        )
        draft = self._drafts.get(place)
        if draft is None:
            draft = self._drafts[place] = _Draft(usage, window, component)
        draft.quantity = total((draft.quantity, quantity))
        draft.calls += usage.calls

    def _additive(self) -> list[Charge]:
        """Give free units, place the rest on the axis, and price it."""
        for line in self._issued:
            if line.kind == "usage":
                account = (line.subscription, line.meter)
                self._free[account] = total((self._free.get(account, _NONE), line.free_units))
                self._axis[account] = total((self._axis.get(account, _NONE), line.quantity, -line.free_units))
        ordered = sorted(self._drafts.values(), key=self._order)
        for draft in ordered:
            account = (draft.usage.subscription, draft.component.name)
            given, before = self._free.get(account, _NONE), self._axis.get(account, _NONE)
            draft.free = min(draft.quantity, max(_NONE, total((draft.component.free_units, -given))))
            draft.before = before
            self._free[account] = total((given, draft.free))
            self._axis[account] = total((before, draft.billable))
        corrections = self._corrections()
        charges = []
        for place, draft in sorted(self._drafts.items(), key=lambda item: self._order(item[1])):
            whole = self._axis[draft.usage.subscription, draft.component.name]
            steps = self._shared(draft.component.steps(draft.before, draft.billable, whole), draft.usage.cached_share)
            charges.append(self._charge(draft, whole, (*steps, *corrections.pop(place, ()))))
        for place, steps in corrections.items():
            again = self._again(place)
            charges.append(self._charge(again, self._axis[again.usage.subscription, again.component.name], steps))
        return charges

    def _charge(self, draft: _Draft, whole: Decimal, steps: tuple[Step, ...]) -> Charge:
        usage, component = draft.usage, draft.component
        price = component.tier_of(whole)[1].unit_price if component.model == "volume" else None
        return Charge(
            usage.subscription,
            usage.service,
            usage.plan,
            usage.provider_org,
            draft.window.card.on(component, price),
            draft.window.start,
            draft.window.end,
            draft.quantity,
            draft.free,
            draft.calls,
            usage.cached_share,
            "usage",
            component.name if draft.window.card.components else "",
            steps,
            component.meter if draft.window.card.components else None,
            component.meter is not None and component.meter.key == draft.window.card.unit,
        )

    @staticmethod
    def _shared(steps: Iterable[Step], share: Decimal | None) -> tuple[Step, ...]:
        return tuple(steps) if share is None else tuple(replace(step, share=share) for step in steps)

    def _corrections(self) -> dict[_Place, tuple[Step, ...]]:
        """Return what issued lines of a price by volume cost more or less now that the period holds more."""
        cards = {card.id: card for card in self._cards}
        axis: dict[_Account, Decimal] = {}
        due: dict[_Place, list[Step]] = {}
        paid: dict[_Place, Decimal] = {}
        for line in self._issued:
            if line.kind != "usage":
                continue
            account = (line.subscription, line.meter)
            before, billable = axis.get(account, _NONE), total((line.quantity, -line.free_units))
            axis[account] = total((before, billable))
            component = next((one for one in self._parts.get(line.card, ()) if one.name == line.meter), None)
            if component is None or component.model != "volume" or not (component.meter and component.meter.additive):
                continue
            steps = self._shared(component.steps(before, billable, self._axis[account]), line.cached_share)
            service = cards[line.card].service
            place = (
                line.subscription,
                service,
                line.plan or "",
                line.provider_org,
                line.card,
                line.cached_share,
                line.meter,
            )
            due.setdefault(place, []).extend(replace(step, label=f"{step.label}, again") for step in steps)
            paid[place] = total((paid.get(place, _NONE), line.amount))
        return {
            place: (*steps, Step("charged before", -_ONE, paid[place]))
            for place, steps in sorted(due.items(), key=lambda item: str(item[0]))
            if total(step.amount for step in steps) != paid[place]
        }

    def _again(self, place: _Place) -> _Draft:
        """Return the draft of a line that has no new usage."""
        subscription, service, plan, provider, card, share, name = place
        window = next(one for one in self._windows(service, plan or None) if one.card.id == card)
        component = next(one for one in self._parts[card] if one.name == name)
        usage = Measured(subscription, service, plan or None, provider, window.start, {}, 0, share)
        return _Draft(usage, window, component)

    def _of_gauges(self) -> list[Charge]:
        """Charge meters that don't add up: one value a period, on the last window it was seen in."""
        charges = []
        for (subscription, name), seen in sorted(self._gauges.items(), key=lambda item: str(item[0])):
            usage, window, component = max(
                seen, key=lambda one: (one[1].start, str(one[0].service), one[0].plan or "", str(one[0].provider_org))
            )
            assert component.meter is not None
            value = _gauge(component.meter, [one[0] for one in seen])
            free = min(value, component.free_units)
            billable = total((value, -free))
            steps = component.steps(_NONE, billable, billable)
            lines = [
                line
                for line in self._issued
                if line.kind == "usage" and line.subscription == subscription and line.meter == name
            ]
            before = total(line.quantity for line in lines)
            paid = total(line.amount for line in lines)
            if paid:
                steps.append(Step("charged before", -_ONE, paid))
            draft = _Draft(replace(usage, cached_share=None), window, component)
            draft.quantity = max(_NONE, total((value, -before)))
            draft.free = min(draft.quantity, max(_NONE, total((free, *(-line.free_units for line in lines)))))
            draft.calls = sum(one.calls for one, _, _ in seen if not one.before)
            charge = self._charge(draft, billable, tuple(steps))
            if charge.calls or charge.quantity or charge.amount:
                charges.append(charge)
        return charges

    def _stood(self, held: Sequence[Held]) -> list[tuple[Held, Window]]:
        """Return the spans of subscriptions cut by the cards that held in them, in a fixed order."""
        found = []
        for span in held:
            for window in self._windows(span.service, span.plan):
                start, end = max(span.start, window.start), min(span.end, window.end)
                if start < end:
                    found.append((replace(span, start=start, end=end), window))
        return sorted(found, key=lambda one: (str(one[0].subscription), one[0].start, one[0].plan or ""))

    def _part(self, amount: Decimal, span: Held) -> Decimal:
        """Return what of a month's amount is due for a span: parts that follow each other make the whole."""
        begin, length = self._period.start, (self._period.end - self._period.start) // _TICK
        upto = [proportion(amount, (at - begin) // _TICK, length) for at in (span.start, span.end)]
        return total((upto[1], -upto[0]))

    def _fees(self, held: Sequence[Held]) -> list[Charge]:
        due: dict[tuple[UUID, str, UUID, str], list[Step]] = {}
        first: dict[tuple[UUID, str, UUID, str], tuple[Held, Window, Component]] = {}
        last: dict[tuple[UUID, str, UUID, str], datetime] = {}
        once: set[_Account] = set()
        for span, window in self._stood(held):
            for component in self._parts[window.card.id]:
                if component.meter is not None:
                    continue
                account = (span.subscription, component.name)
                if component.prorated:
                    whole = span.start <= self._period.start and span.end >= self._period.end
                    step = Step("month" if whole else "part of a month", _ONE, self._part(component.unit_price, span))
                elif account in once:
                    continue
                else:
                    step = Step("month", _ONE, component.unit_price)
                once.add(account)
                key = (span.subscription, span.plan or "", window.card.id, component.name)
                first.setdefault(key, (span, window, component))
                last[key] = span.end
                due.setdefault(key, []).append(step)
        charges = []
        for key, steps in due.items():
            span, window, component = first[key]
            paid = total(
                line.amount
                for line in self._issued
                if line.kind == "fee" and (line.subscription, line.plan or "", line.card, line.meter) == key
            )
            steps = [*steps, Step("charged before", -_ONE, paid)] if paid else steps
            charge = self._fixed("fee", span, last[key], window.card.on(component), component.name, steps)
            if charge.amount:
                charges.append(charge)
        return charges

    def _minimums(self, held: Sequence[Held], charges: Sequence[Charge]) -> list[Charge]:
        """Fill up what a subscription comes to, on the last card with a minimum that it stood on."""
        agreed: dict[UUID, list[tuple[Held, Window, Decimal]]] = {}
        for span, window in self._stood(held):
            if window.card.minimum:
                part = self._part(window.card.minimum, span)
                agreed.setdefault(span.subscription, []).append((span, window, part))
        reached: dict[UUID, list[Decimal]] = {}
        for charge in charges:
            reached.setdefault(charge.subscription, []).append(charge.amount)
        paid: dict[UUID, list[Decimal]] = {}
        for line in self._issued:
            (paid if line.kind == "minimum" else reached).setdefault(line.subscription, []).append(line.amount)
        found = []
        for subscription, parts in agreed.items():
            minimum, come_to = total(part for *_, part in parts), total(reached.get(subscription, ()))
            before = total(paid.get(subscription, ()))
            missing = max(_NONE, total((minimum, -come_to)))
            if missing == before:
                continue
            steps = [Step("minimum", _ONE, minimum), Step("come to", -_ONE, min(come_to, minimum))]
            if before:
                steps.append(Step("charged before", -_ONE, before))
            span, window, _ = parts[-1]
            card = replace(window.card, components=(), unit=MONTHS, unit_price=window.card.minimum, free_units=_NONE)
            found.append(self._fixed("minimum", replace(span, start=parts[0][0].start), span.end, card, MINIMUM, steps))
        return found

    @staticmethod
    def _fixed(kind: Kind, span: Held, end: datetime, card: RateCard, name: str, steps: Sequence[Step]) -> Charge:
        return Charge(
            span.subscription,
            span.service,
            span.plan,
            span.provider_org,
            card,
            span.start,
            end,
            _ONE,
            _NONE,
            0,
            None,
            kind,
            name,
            tuple(steps),
        )

    @staticmethod
    def _order(draft: _Draft) -> tuple[str, datetime, Decimal, bool, str, str, int, str, str, Decimal]:
        """Free units and lower tiers go first to what came first, by window, and within one to what costs most."""
        usage, card = draft.usage, draft.window.card
        share = _ONE if usage.cached_share is None else usage.cached_share
        return (
            str(usage.subscription),
            draft.window.start,
            -multiply(draft.component.headline, share),
            usage.cached_share is not None,
            str(usage.service),
            usage.plan or "",
            card.version,
            str(usage.provider_org),
            draft.component.name,
            share,
        )


def _gauge(meter: Meter, seen: Sequence[Measured]) -> Decimal:
    """Return the one value that a meter which doesn't add up has in a period."""
    if meter.aggregation == "unique":
        return Decimal(len(frozenset().union(*((one.distinct or {}).get(meter.measure, frozenset()) for one in seen))))
    if meter.aggregation == "max":
        value = max(one.peak(meter.key) for one in seen)
    else:
        value = max((one.last(meter.key) for one in seen), key=lambda last: last[0])[1]
    if value < 0:
        raise ValueError("a quantity is never negative")
    return value

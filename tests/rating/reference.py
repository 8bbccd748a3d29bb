"""What a period costs, written once more from the definitions in docs/pricing.md: in fractions, as slowly as it likes.

Nothing here comes from `haat.rating` but the shapes of what goes in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from math import floor
from typing import Any, NamedTuple

from haat.kernel.clock import Period
from haat.kernel.prices import Component
from haat.rating.charge import Held, Issued, Measured, RateCard

Place = tuple[Any, ...]
"""Kind, subscription, card, plan, provider, share of the price, component."""


class Line(NamedTuple):
    amount: Fraction
    quantity: Fraction = Fraction(1)
    calls: int = 0


def parts_of(card: RateCard) -> list[dict[str, Any]]:
    """Return what a card asks for, as its plain data; a card without components is a price by the unit."""
    plain = {"model": "unit", "meter": card.unit, "unit_price": card.unit_price, "free_units": card.free_units}
    return [one.data() | {"it": one} for one in card.components] or [plain | {"it": None}]


def name_of(part: dict[str, Any]) -> str:
    return str(part["name"] if part["model"] == "flat" else part["meter"])


def card_at(cards: Iterable[RateCard], service: Any, plan: str | None, at: datetime) -> RateCard | None:
    """Return the card that holds: of the plan before the common one, and of those the newest that has begun."""
    begun = [one for one in cards if one.service == service and one.effective_from <= at]
    own = [one for one in begun if one.plan is not None and one.plan == plan]
    return max(own or [one for one in begun if one.plan is None], key=lambda one: one.effective_from, default=None)


def seen_by(part: dict[str, Any], usage: Measured) -> bool:
    if part["it"] is None:
        return True
    chosen = part["it"].meter.filter
    if chosen.language_pairs and usage.language_pair not in chosen.language_pairs:
        return False
    if chosen.versions and usage.version not in chosen.versions:
        return False
    if chosen.variants and usage.variant not in chosen.variants:
        return False
    return chosen.cached is None or chosen.cached is (usage.cached_share is not None)


def aggregation(part: dict[str, Any]) -> tuple[str, str]:
    it: Component | None = part["it"]
    return ("sum", part["meter"]) if it is None or it.meter is None else (it.meter.aggregation, it.meter.key)


def first_price(part: dict[str, Any]) -> Fraction:
    if "tiers" in part:
        return Fraction(part["tiers"][0]["unit_price"])
    return Fraction(part.get("package_price", part.get("unit_price", 0)))


def free_of(part: dict[str, Any]) -> Fraction:
    return Fraction(part.get("included", part.get("free_units", 0)))


def tiers_of(part: dict[str, Any]) -> list[tuple[Fraction, Fraction | None, Fraction, Fraction]]:
    found, low = [], Fraction(0)
    for one in part["tiers"]:
        high = None if one["up_to"] is None else Fraction(one["up_to"])
        found.append((low, high, Fraction(one["unit_price"]), Fraction(one["flat"])))
        low = high if high is not None else low
    return found


def cost_up_to(part: dict[str, Any], units: Fraction) -> Fraction:
    """Return what the first ``units`` of a period cost by anything but volume."""
    if part["model"] == "package":
        size = Fraction(part["package_size"])
        return Fraction(-floor(-units / size)) * Fraction(part["package_price"])
    if part["model"] == "graduated":
        cost = Fraction(0)
        for low, high, price, flat in tiers_of(part):
            if units > low:
                cost += ((units if high is None else min(units, high)) - low) * price + flat
        return cost
    return units * Fraction(part["unit_price"])


def tier_reached(part: dict[str, Any], units: Fraction) -> tuple[Fraction, Fraction]:
    return next((price, flat) for _, high, price, flat in tiers_of(part) if high is None or units <= high)


def cost_between(part: dict[str, Any], start: Fraction, end: Fraction, whole: Fraction) -> Fraction:
    if part["model"] == "volume":
        price, flat = tier_reached(part, whole)
        return (end - start) * price + (flat if start == 0 and end > 0 else 0)
    return cost_up_to(part, end) - cost_up_to(part, start)


def twelve(value: Fraction) -> Fraction:
    """Round half-up to twelve decimals."""
    return Fraction(floor(value * 10**12 + Fraction(1, 2)), 10**12)


def charged(
    usage: Sequence[Measured],
    cards: Sequence[RateCard],
    period: Period,
    issued: Sequence[Issued],
    held: Sequence[Held],
) -> dict[Place, Line]:
    """Return every line of a period that isn't nothing, by what it is about."""
    lines: dict[Place, Line] = {}
    by_id = {card.id: card for card in cards}
    named = {card.id: {name_of(part): part for part in parts_of(card)} for card in cards}

    # What lies on issued lines: free units that were given, and how far the axis of each meter is used.
    given: dict[Place, Fraction] = defaultdict(Fraction)
    axis: dict[Place, Fraction] = defaultdict(Fraction)
    for line in issued:
        if line.kind == "usage":
            given[line.subscription, line.meter] += Fraction(line.free_units)
            axis[line.subscription, line.meter] += Fraction(line.quantity) - Fraction(line.free_units)

    # Units that cost alike lie side by side.
    heaps: dict[Place, list[Measured]] = defaultdict(list)
    gauges: dict[Place, list[tuple[Measured, RateCard]]] = defaultdict(list)
    for one in usage:
        card = card_at(cards, one.service, one.plan, one.at)
        for name, part in named[card.id].items() if card else ():
            if part["model"] == "flat" or not seen_by(part, one):
                continue
            if aggregation(part)[0] in ("sum", "count"):
                if not one.before:
                    place = ("usage", one.subscription, card.id, one.plan, one.provider_org, one.cached_share, name)
                    heaps[place].append(one)
            else:
                gauges[one.subscription, name].append((one, card))

    def began(card: RateCard) -> datetime:
        return max(card.effective_from, period.start)

    def order(place: Place) -> tuple[Any, ...]:
        _, subscription, card_id, plan, provider, cached, name = place
        card = by_id[card_id]
        share = Fraction(1) if cached is None else Fraction(cached)
        price = first_price(named[card_id][name]) * share
        return (
            str(subscription),
            window_start(place),
            -price,
            cached is not None,
            str(card.service),
            plan or "",
            card.version,
            str(provider),
            name,
            share,
        )

    def window_start(place: Place) -> datetime:
        """Return since when the card of a line has held for its plan, without a break, in this period."""
        card = by_id[place[2]]
        other = [one.effective_from for one in cards if one.service == card.service and one.plan in (None, place[3])]
        moments = sorted({max(moment, period.start) for moment in other if moment < period.end})
        held_at = [moment for moment in moments if card_at(cards, card.service, place[3], moment) is card]
        return held_at[0]

    spans: dict[Place, tuple[Fraction, Fraction]] = {}
    for place in sorted(heaps, key=order):
        subscription, name = place[1], place[6]
        part = named[place[2]][name]
        quantity = sum((value_of(part, one) for one in heaps[place]), Fraction(0))
        free = min(quantity, max(Fraction(0), free_of(part) - given[subscription, name]))
        given[subscription, name] += free
        start = axis[subscription, name]
        axis[subscription, name] += quantity - free
        spans[place] = (start, axis[subscription, name])
        lines[place] = Line(Fraction(0), quantity, sum(one.calls for one in heaps[place]))
    for place, (start, end) in spans.items():
        share = Fraction(1) if place[5] is None else Fraction(place[5])
        amount = cost_between(named[place[2]][place[6]], start, end, axis[place[1], place[6]]) * share
        lines[place] = lines[place]._replace(amount=amount)

    # By volume the tier is that of the whole period: what was issued costs the new tier's price, too.
    walked: dict[Place, Fraction] = defaultdict(Fraction)
    for line in issued:
        if line.kind != "usage":
            continue
        account = (line.subscription, line.meter)
        start = walked[account]
        walked[account] += Fraction(line.quantity) - Fraction(line.free_units)
        part = named.get(line.card, {}).get(line.meter)
        if part is None or part["model"] != "volume" or aggregation(part)[0] not in ("sum", "count"):
            continue
        share = Fraction(1) if line.cached_share is None else Fraction(line.cached_share)
        due = cost_between(part, start, walked[account], axis[account]) * share
        place = (
            "usage", line.subscription, line.card, line.plan, line.provider_org, line.cached_share, line.meter,
        )  # fmt: skip
        present = lines.get(place, Line(Fraction(0), Fraction(0)))
        lines[place] = present._replace(amount=present.amount + due - Fraction(line.amount))

    for (subscription, name), members in gauges.items():
        one, card = max(
            members,
            key=lambda member: (
                window_start(("usage", subscription, member[1].id, member[0].plan)),
                str(member[0].service),
                member[0].plan or "",
                str(member[0].provider_org),
            ),
        )
        part = named[card.id][name]
        value = gauge_of(part, [member for member, _ in members])
        billable = value - min(value, free_of(part))
        paid = [line for line in issued if (line.kind, line.subscription, line.meter) == ("usage", subscription, name)]
        amount = cost_between(part, Fraction(0), billable, billable) - sum(Fraction(line.amount) for line in paid)
        quantity = max(Fraction(0), value - sum(Fraction(line.quantity) for line in paid))
        place = ("usage", subscription, card.id, one.plan, one.provider_org, None, name)
        lines[place] = Line(amount, quantity, sum(member.calls for member, _ in members if not member.before))

    lines |= fixed(cards, period, issued, held, lines, named)
    return {place: line for place, line in lines.items() if line.amount or line.calls}


def value_of(part: dict[str, Any], usage: Measured) -> Fraction:
    kind, key = aggregation(part)
    if kind == "count":
        return Fraction(usage.calls if usage.counted is None else usage.counted)
    return Fraction(usage.units.get(key, 0))


def gauge_of(part: dict[str, Any], members: Sequence[Measured]) -> Fraction:
    kind, key = aggregation(part)
    if kind == "max":
        return max(Fraction(one.units.get(key, 0)) for one in members)
    if kind == "last":
        newest = max(one.at for one in members)
        return next(Fraction(one.units.get(key, 0)) for one in members if one.at == newest)
    return Fraction(len({name for one in members for name in (one.distinct or {}).get(key, ())}))


def fixed(
    cards: Sequence[RateCard],
    period: Period,
    issued: Sequence[Issued],
    held: Sequence[Held],
    lines: dict[Place, Line],
    named: dict[Any, dict[str, dict[str, Any]]],
) -> dict[Place, Line]:
    """Return fees and minimums: for the part of the period in which a subscription stood on a card."""
    pieces = []
    for span in held:
        moments = {span.start, span.end} | {
            one.effective_from for one in cards if span.start < one.effective_from < span.end
        }
        edges = sorted(moments)
        for start, end in pairwise(edges):
            card = card_at(cards, span.service, span.plan, start)
            if card is not None:
                pieces.append((span, card, start, end))
    pieces.sort(key=lambda piece: (str(piece[0].subscription), piece[2], piece[0].plan or ""))
    length = period.end - period.start

    def accrued(amount: Any, start: datetime, end: datetime) -> Fraction:
        upto = [Fraction((at - period.start) / MICRO) / Fraction(length / MICRO) for at in (start, end)]
        return twelve(Fraction(amount) * upto[1]) - twelve(Fraction(amount) * upto[0])

    found: dict[Place, Line] = {}
    once = set()
    for span, card, start, end in pieces:
        for name, part in named[card.id].items():
            if part["model"] != "flat":
                continue
            if part["prorated"]:
                amount = accrued(part["amount"], start, end)
            elif (span.subscription, name) in once:
                continue
            else:
                amount = Fraction(part["amount"])
            once.add((span.subscription, name))
            place = ("fee", span.subscription, card.id, span.plan, span.provider_org, None, name)
            found[place] = Line(found.get(place, Line(Fraction(0))).amount + amount)
    for place in found:
        before = [one for one in issued if one.kind == "fee" and (one.subscription, one.card, one.plan, one.meter)
                  == (place[1], place[2], place[3], place[6])]  # fmt: skip
        found[place] = Line(found[place].amount - sum(Fraction(one.amount) for one in before))
    for subscription in {piece[0].subscription for piece in pieces}:
        own = [piece for piece in pieces if piece[0].subscription == subscription and piece[1].minimum]
        if not own:
            continue
        agreed = sum(accrued(card.minimum, start, end) for _, card, start, end in own)
        reached = sum(line.amount for place, line in (lines | found).items() if place[1] == subscription)
        others = [one for one in issued if one.subscription == subscription]
        reached += sum(Fraction(one.amount) for one in others if one.kind != "minimum")
        paid = sum(Fraction(one.amount) for one in others if one.kind == "minimum")
        span, card, _, _ = own[-1]
        place = ("minimum", subscription, card.id, span.plan, span.provider_org, None, "minimum")
        found[place] = Line(max(Fraction(0), Fraction(agreed) - Fraction(reached)) - Fraction(paid))
    return found


MICRO = timedelta(microseconds=1)

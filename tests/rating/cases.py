"""Random periods to be rated: cards of every model on meters of every kind, usage, subscriptions, issued lines."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from uuid import UUID

from haat.kernel.clock import month_period
from haat.kernel.prices import UNIT_METERS, Component, Filter, Meter, Tier
from haat.rating.charge import Held, Issued, Measured, RateCard, windows

PERIOD = month_period(2026, 11, "Asia/Kolkata")
SERVICES = [UUID(int=1), UUID(int=2)]
SUBSCRIPTIONS = [UUID(int=11), UUID(int=12)]
PROVIDERS = [UUID(int=21), UUID(int=22)]
PLANS = [None, "basic", "free"]
PAIRS = ["hi>ur", "hi>ta", ""]
SHARES = [None, None, None, Decimal("0.25"), Decimal(0), Decimal("1.000")]
METERS = [
    UNIT_METERS["characters"],
    UNIT_METERS["characters"],
    UNIT_METERS["requests"],
    Meter("fresh-tokens", "sum", "input_tokens", ("cached_tokens",)),
    Meter("to-urdu", "sum", "characters", (), Filter(language_pairs=("hi>ur",))),
    Meter("asked", "sum", "characters", (), Filter(cached=False)),
    Meter("second", "sum", "characters", (), Filter(versions=("2",), variants=("a", ""))),
    Meter("calls", "count"),
    Meter("longest", "max", "audio_seconds"),
    Meter("people", "unique", "end_user"),
    Meter("stored", "last", "bytes"),
]


@dataclass(frozen=True, slots=True)
class Case:
    cards: list[RateCard]
    usage: list[Measured]
    held: list[Held]
    issued: list[Issued]


def mostly_first(chance: random.Random, options: list[UUID]) -> UUID:
    """Return the first of two in most cases, so that usage meets cards and other usage."""
    return options[chance.random() < 0.15]


def moment(chance: random.Random) -> datetime:
    return PERIOD.start + timedelta(milliseconds=chance.randrange(30 * 86_400_000))


def price(chance: random.Random) -> Decimal:
    return Decimal(chance.randrange(10 ** chance.randint(1, 14))).scaleb(-12)


def quantity(chance: random.Random) -> Decimal:
    return Decimal(chance.randrange(10 ** chance.randint(1, 11))).scaleb(-chance.choice((0, 0, 3, 6)))


def tiers(chance: random.Random) -> tuple[Tier, ...]:
    ends = sorted({quantity(chance) for _ in range(chance.randint(0, 3))} - {Decimal(0)})
    flats = [price(chance) if chance.random() < 0.4 else Decimal(0) for _ in range(len(ends) + 1)]
    return tuple(Tier(end, price(chance), flat) for end, flat in zip([*ends, None], flats, strict=True))


def component(chance: random.Random, meter: Meter) -> Component:
    model = chance.choice(("unit", "package", "graduated", "volume", "overage"))
    free = quantity(chance) if chance.random() < 0.4 else Decimal(0)
    if model in ("graduated", "volume"):
        return Component(model, meter.name, meter, free_units=free, tiers=tiers(chance))  # type: ignore[arg-type]
    size = max(quantity(chance), Decimal("0.000001")) if model == "package" else Decimal(0)
    return Component(model, meter.name, meter, price(chance), free, size)  # type: ignore[arg-type]


def card(chance: random.Random, number: int, plan: str | None, start: datetime) -> RateCard:
    service, share = mostly_first(chance, SERVICES), Decimal("0.7")
    if chance.random() < 0.25:
        return RateCard(UUID(int=100 + number), service, number, plan, "characters", price(chance), quantity(chance),
                        share, start)  # fmt: skip
    meters = {meter.name: meter for meter in chance.sample(METERS, chance.randint(0, 3))}
    parts = [component(chance, meter) for meter in meters.values()]
    for name in chance.sample(["fee", "line"], chance.choice((0, 0, 1, 2))):
        parts.append(Component("flat", name, None, price(chance), prorated=chance.random() < 0.7))
    minimum = price(chance) * 1000 if chance.random() < 0.3 else Decimal(0)
    return RateCard(UUID(int=100 + number), service, number, plan, "characters", Decimal(0), Decimal(0), share, start,
                    tuple(parts), minimum)  # fmt: skip


def call(chance: random.Random) -> Measured:
    units = {
        unit: quantity(chance)
        for unit in ("characters", "input_tokens-cached_tokens", "audio_seconds", "bytes")
        if chance.random() < 0.8
    }
    return Measured(
        mostly_first(chance, SUBSCRIPTIONS),
        mostly_first(chance, SERVICES),
        chance.choice(PLANS),
        mostly_first(chance, PROVIDERS),
        moment(chance),
        units | {"requests": Decimal(1)},
        1,
        share := chance.choice(SHARES),
        None if share is None else chance.randint(0, 1),
        chance.choice(PAIRS),
        chance.choice(("1", "2")),
        chance.choice(("", "a", "b")),
        chance.random() < 0.1,
        distinct={"end_user": frozenset(chance.sample(["asha", "bina", "chand"], chance.randint(0, 2)))},
    )


def case(chance: random.Random) -> Case:
    cards = []
    places = {
        (chance.choice(PLANS), PERIOD.start + timedelta(minutes=chance.randint(-5000, 43199)))
        for _ in range(chance.randint(1, 3))
    }
    for number, (plan, start) in enumerate(sorted(places, key=str), 1):
        cards.append(card(chance, number, plan, start))
    usage = [call(chance) for _ in range(chance.randint(0, 5))]
    held = []
    if chance.random() < 0.5:
        for subscription in SUBSCRIPTIONS[: chance.randint(1, 2)]:
            service, first, second = mostly_first(chance, SERVICES), moment(chance), moment(chance)
            first = PERIOD.start if chance.random() < 0.5 else first
            edges = sorted({first, second, PERIOD.end} if chance.random() < 0.5 else {first, second})
            for start, end in pairwise(edges):
                held.append(Held(subscription, service, chance.choice(PLANS), PROVIDERS[0], start, end))
    count = chance.choice((0, 0, 0, 1, 3))
    held_by = [
        (one, plan) for one in cards for plan in PLANS
        if count and any(window.card is one for window in windows(cards, one.service, plan, PERIOD))
    ]  # fmt: skip
    issued = [line(chance, *chance.choice(held_by)) for _ in range(count) if held_by]
    return Case(cards, usage, held, issued)


def line(chance: random.Random, one: RateCard, plan: str | None) -> Issued:
    kind = chance.choice(("usage", "usage", "usage", "fee", "minimum"))
    names = {"fee": ["fee", "line"], "minimum": ["minimum"]}.get(kind) or [
        part.name for part in one.parts if part.meter
    ]
    free, more = quantity(chance) * chance.randint(0, 1), quantity(chance)
    return Issued(
        mostly_first(chance, SUBSCRIPTIONS),
        chance.choice(names or ["characters"]),
        one.id,
        plan,
        mostly_first(chance, PROVIDERS),
        free + more,
        free,
        price(chance),
        kind,  # type: ignore[arg-type]
        chance.choice(SHARES) if kind == "usage" else None,
    )

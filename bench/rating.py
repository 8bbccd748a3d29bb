"""How many calls a second the rating function takes, handed to it one by one: no database, no summing up before."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

from haat.kernel.clock import month_period
from haat.kernel.prices import UNIT_METERS, Component, Filter, Meter, Tier
from haat.rating.model import Measured, RateCard, rate

SUBSCRIPTIONS, DRAWN = 100, 10_000
PERIOD = month_period(2026, 11, "Asia/Kolkata")
PAIRS = ("hi-Deva>en-Latn", "hi-Deva>ur-Arab", "ta-Taml>en-Latn")
_SERVICE, _PROVIDER = UUID(int=1), UUID(int=2)


@dataclass(frozen=True, slots=True)
class Rating:
    """Calls and how long one card took to rate them."""

    card: str
    events: int
    seconds: float
    charges: int

    @property
    def per_second(self) -> float:
        return self.events / self.seconds


def ratings(events: int) -> list[Rating]:
    """Measure each kind of card; raise RuntimeError for charges that don't hold all that was called."""
    drawn = _drawn()
    return [_rated(name, card, drawn, events) for name, card in CARDS.items()]


def _rated(name: str, card: RateCard, drawn: Sequence[Measured], events: int) -> Rating:
    began = time.perf_counter()
    charges = rate(_stream(drawn, events), [card], PERIOD).charges
    seconds = time.perf_counter() - began
    counted = sum(one.quantity for one in charges if one.card.unit == "characters" and not one.cached_share)
    called = sum(one.units["characters"] for one in _stream(drawn, events))
    if counted != called:
        raise RuntimeError(f"{called} characters were used, {counted} are on charges of a card of {name}")
    return Rating(name, events, seconds, len(charges))


def _stream(drawn: Sequence[Measured], events: int) -> Iterator[Measured]:
    """Yield so many calls: those that were drawn, over and over."""
    for number in range(events):
        yield drawn[number % len(drawn)]


def _drawn() -> list[Measured]:
    chance = random.Random(7)  # noqa: S311 - it makes up calls, no secrets
    return [
        Measured(
            UUID(int=100 + int(SUBSCRIPTIONS * chance.random() ** 3)),
            _SERVICE,
            "basic",
            _PROVIDER,
            PERIOD.start + timedelta(milliseconds=chance.randrange(30 * 86_400_000)),
            {"requests": Decimal(1), "characters": Decimal(chance.randint(20, 2000))},
            language_pair=chance.choice(PAIRS),
            version="1",
        )
        for _ in range(DRAWN)
    ]


def _card(components: tuple[Component, ...] = (), minimum: Decimal = Decimal(0)) -> RateCard:
    price, free, share = Decimal("0.0002"), Decimal(1000), Decimal("0.7")
    start = PERIOD.start - timedelta(days=100)
    return RateCard(UUID(int=3), _SERVICE, 1, None, "characters", price, free, share, start, components, minimum)


_TIERS = (Tier(Decimal(10_000), Decimal("0.0002")), Tier(None, Decimal("0.0001")))
_TO_URDU = Meter("to-urdu", "sum", "requests", (), Filter(language_pairs=(PAIRS[1],)))
CARDS = {
    "a price by the unit": _card(),
    "a fee, tiers, packages and a filter": _card(
        (
            Component("flat", "line", None, Decimal(500)),
            Component("graduated", "characters", UNIT_METERS["characters"], tiers=_TIERS),
            Component("package", "calls", Meter("calls", "count"), Decimal(1), size=Decimal(1000)),
            Component("unit", "to-urdu", _TO_URDU, Decimal("0.05")),
        ),
        minimum=Decimal(1000),
    ),
}

"""Calls of a market at random, and how their records come: late, early, twice, out of order, or not at all."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from bazaar import Bazaar
from haat.usage.event import Outcome, UsageEvent, decode, encode

from .market import MONTHS, Market, Stay, after, moment

PAIRS = ("hi>en", "en>hi", "ta>en", "")
PEOPLE = ("asha", "bala", "chitra", "devi", "")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SLA_CALLS = 130
"""So many calls make a month of a listing one that can be judged."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A record and when its gateway's journal is there to be read."""

    at: datetime
    id: str
    payload: bytes

    @property
    def called_at(self) -> datetime:
        """When the call was: the millisecond in its id."""
        return EPOCH + timedelta(milliseconds=UUID(self.id).int >> 80)

    def like(self, chance: random.Random) -> bytes:
        """Return the record of another call of the same millisecond."""
        event = decode(self.payload)
        event.id = str(UUID(int=UUID(self.id).int >> 62 << 62 | chance.getrandbits(62)))
        return encode(event)


def stays_at(market: Market, at: datetime) -> list[Stay]:
    return [one for one in market.stays if one.start <= at and (one.end is None or at < one.end)]


def of_month(market: Market, bazaar: Bazaar, label: str, calls: int) -> list[Arrival]:
    """Return the calls of a month as subscriptions stand now, in order of their arrival."""
    chance = bazaar.chance
    found: list[Arrival] = []
    while len(found) < calls:
        stay = chance.choice(market.stays)
        at = _time(chance, market, stay, label)
        if stay in stays_at(market, at):
            found.append(_arrival(chance, _call(bazaar, stay, at, chance), at, label))
    if label == MONTHS[0]:
        found += _troubled(market, bazaar, label)
    if label == MONTHS[-1]:
        found += _fair(market, bazaar, label)
    return sorted(found, key=lambda one: one.at)


def _time(chance: random.Random, market: Market, stay: Stay, label: str) -> datetime:
    """Return a moment of a month, often one of those where something changes: its ends, and another price."""
    zone = market.zone_of(stay.subscription.org)
    start, end = moment(label, zone), moment(after(label), zone)
    changes = [card.effective_from for card in market.cards if start < card.effective_from < end]
    edge = chance.random()
    if edge < 0.05:
        at = start
    elif edge < 0.1:
        at = end - timedelta(milliseconds=1)
    elif edge < 0.15 and changes:
        at = chance.choice(changes) - timedelta(milliseconds=chance.choice([0, 1]))
    else:
        at = start + (end - start) * chance.random()
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def _call(bazaar: Bazaar, stay: Stay, at: datetime, chance: random.Random) -> UsageEvent:
    unit = stay.subscription.service.unit
    quantity = {
        "characters": lambda: str(Decimal(chance.randint(0, 4_000_000)).scaleb(-chance.choice([0, 3, 3, 3]))),
        "audio_seconds": lambda: str(Decimal(chance.randint(1, 900_000_000)).scaleb(-6)),
        "tokens": lambda: "0",
        "requests": lambda: "1",
    }.get(unit, lambda: str(chance.randint(1, 40)))()
    outcome, status = chance.choice([(Outcome.COMPLETED, 200)] * 12 + [(Outcome.CLIENT_LEFT, 200)] * 2 + _NOT_BILLED)
    event = bazaar.event(stay.subscription, quantity, at=at, outcome=outcome, status=status)
    event.user, event.language_pair = chance.choice(PEOPLE), chance.choice(PAIRS)
    event.mode = chance.choice(["live"] * 20 + ["test", "shadow"])
    if unit == "tokens":
        said = [chance.randint(0, 5000), chance.randint(0, 800), chance.randint(0, 3000)]
        event.units |= dict(zip(("input_tokens", "output_tokens", "cached_tokens"), map(str, said), strict=True))
        event.units["tokens"] = str(said[0] + said[1])
    if stay.subscription.service.slug == "speak" and outcome in (Outcome.COMPLETED, Outcome.CLIENT_LEFT):
        event.cache = chance.choice(["miss", "bypass", "hit", "partial"])
        if event.cache in ("hit", "partial"):
            whole = Decimal(event.units["characters"])
            part = whole if event.cache == "hit" else (whole * Decimal(chance.random())).quantize(Decimal("0.000001"))
            event.cached_units = {"characters": f"{part:f}"}
            event.cached_share = chance.choice(["0.25", "0.1", "1", "0"])
    return event


_NOT_BILLED = [(Outcome.PROVIDER_FAILED, 503), (Outcome.REFUSED, 429), (Outcome.INTERRUPTED, 0)]


def _arrival(chance: random.Random, event: UsageEvent, at: datetime, label: str) -> Arrival:
    """Return when a record comes: soon, days later, weeks later, too late; by a clock that may be wrong."""
    delay = chance.choice(
        [timedelta(seconds=chance.uniform(0, 60))] * 6
        + [timedelta(days=chance.uniform(0, 5))] * 2
        + [timedelta(days=chance.uniform(5, 34.9)), timedelta(days=35, seconds=chance.uniform(1, 9000))]
    )
    if label == MONTHS[-1]:
        delay = timedelta(seconds=chance.uniform(0, 60))
    skew = chance.choice([0] * 5 + [chance.uniform(-299, 299)] * 3 + [chance.choice([-301, 301])])
    event.at += round(skew * 1000)
    return Arrival(at + delay, event.id, encode(event))


def _troubled(market: Market, bazaar: Bazaar, label: str) -> list[Arrival]:
    """Return a day on which the listing that promised something did not keep it."""
    stays = [one for one in market.stays if one.subscription.service.slug == "speak"]
    day = moment(label, "Asia/Kolkata", 20)
    found = []
    for number in range(SLA_CALLS):
        at = day + timedelta(minutes=number)
        stay = bazaar.chance.choice([one for one in stays_at(market, at) if one in stays])
        failed = number % 9 == 0
        outcome, status = (Outcome.PROVIDER_FAILED, 503) if failed else (Outcome.COMPLETED, 200)
        event = bazaar.event(stay.subscription, str(number), at=at, outcome=outcome, status=status)
        found.append(Arrival(at, event.id, encode(event)))
    return found


def _fair(market: Market, bazaar: Bazaar, label: str) -> list[Arrival]:
    """Return calls so large that whatever waits has room on everybody's invoice, in the middle of the month."""
    found = []
    for customer in market.customers:
        at = moment(label, customer.zone, 16)
        stay = next(
            one for one in stays_at(market, at)
            if one.subscription.org == customer.org and one.subscription.service.slug == "speak"
        )  # fmt: skip
        event = bazaar.event(stay.subscription, "90000000", at=at)
        found.append(Arrival(at, event.id, encode(event)))
    return found


def moved(market: Market, stay: Stay, plan: str, at: datetime) -> None:
    """Take note that a subscription stands on another plan from a time on."""
    stay.end = at
    market.stays.append(Stay(replace(stay.subscription, plan=plan), at))

"""A market for the proof: every way of pricing, every situation of tax, drawn at random from one seed.

What is written into the tables is kept beside, as the shapes that the reckoning reads.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from psycopg.types.json import Jsonb

from bazaar import Bazaar, Service, Subscription
from haat.kernel.gstin import gstin_check_letter
from haat.kernel.ids import new_id
from haat.kernel.prices import component, meter_of
from haat.rating.charge import RateCard

OPENS = datetime(2027, 1, 20, tzinfo=UTC)
MONTHS = ("2027-02", "2027-03", "2027-04", "2027-05")
"""A financial year ends among them. The last one is for what waits: late usage, and what would be below zero."""


@dataclass(frozen=True, slots=True)
class Customer:
    """``place`` is where the supply is, as the law has it: of the registration, else of the address, else ours."""

    org: UUID
    place: str
    zone: str


@dataclass(slots=True)
class Stay:
    """A subscription on one plan for a time."""

    subscription: Subscription
    start: datetime
    end: datetime | None = None


@dataclass(slots=True)
class Market:
    customers: list[Customer] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)
    cards: list[RateCard] = field(default_factory=list)
    stays: list[Stay] = field(default_factory=list)

    def zone_of(self, org: UUID) -> str:
        return next(one.zone for one in self.customers if one.org == org)


Price = Mapping[str, Any]


def _between(chance: random.Random, low: str, high: str, places: int) -> str:
    scale = 10**places
    return str(Decimal(chance.randint(int(Decimal(low) * scale), int(Decimal(high) * scale))).scaleb(-places))


def _plain(chance: random.Random) -> Price:
    return {
        "unit": "characters",
        "unit_price": _between(chance, "0.001", "0.01", 12),
        "free_units": str(chance.choice([0, 700, 3000])),
    }


def _graduated(chance: random.Random) -> Price:
    first, second = chance.randint(500, 4000), chance.randint(5000, 20_000)
    prices = sorted((_between(chance, "0.002", "0.02", 8) for _ in range(3)), key=Decimal, reverse=True)
    tiers = [
        {"up_to": up_to, "unit_price": price, "flat": flat}
        for up_to, price, flat in zip(
            (str(first), str(second), None), prices, ("0", chance.choice(["0", "2.5"]), "0"), strict=True
        )
    ]
    return {
        "unit": "characters",
        "components": [{"model": "graduated", "meter": "characters", "tiers": tiers, "free_units": "100"}],
    }


def _package(chance: random.Random) -> Price:
    part = {
        "model": "package",
        "meter": "audio_seconds",
        "package_size": str(chance.choice([60, 90, 600])),
        "package_price": _between(chance, "0.1", "1", 4),
        "free_units": "0",
    }
    return {"unit": "audio_seconds", "components": [part]}


def _volume(chance: random.Random) -> Price:
    tiers = [
        {"up_to": str(chance.randint(20, 60)), "unit_price": "1.75", "flat": "0"},
        {"up_to": str(chance.randint(100, 300)), "unit_price": "1.1", "flat": "3"},
        {"up_to": None, "unit_price": "0.333333333333", "flat": "0"},
    ]
    return {"unit": "pages", "components": [{"model": "volume", "meter": "pages", "tiers": tiers, "free_units": "5"}]}


def _tokens(chance: random.Random) -> Price:
    return {
        "unit": "tokens",
        "meters": [
            {"name": "fresh", "aggregation": "sum", "measure": "input_tokens", "less": ["cached_tokens"], "filter": {}},
            {"name": "hindi", "aggregation": "count", "measure": "requests", "less": [],
             "filter": {"language_pairs": ["hi>en"]}},
        ],
        "components": [
            {"model": "unit", "meter": "fresh", "unit_price": _between(chance, "0.0001", "0.001", 12),
             "free_units": "1000"},
            {"model": "unit", "meter": "output_tokens", "unit_price": "0.000833333333", "free_units": "0"},
            {"model": "unit", "meter": "hindi", "unit_price": "0.07", "free_units": "1"},
            {"model": "flat", "name": "seat", "amount": _between(chance, "10", "99", 2), "prorated": True},
        ],
        "minimum": _between(chance, "50", "200", 2),
    }  # fmt: skip


def _overage(chance: random.Random) -> Price:
    return {
        "unit": "requests",
        "components": [
            {"model": "overage", "meter": "requests", "unit_price": "0.45", "included": str(chance.randint(2, 12))},
            {"model": "flat", "name": "desk", "amount": "49.99", "prorated": False},
        ],
        "minimum": "60",
    }


def _gauges(chance: random.Random) -> Price:
    return {
        "unit": "images",
        "meters": [
            {"name": "people", "aggregation": "unique", "measure": "end_user", "less": [], "filter": {}},
            {"name": "largest", "aggregation": "max", "measure": "images", "less": [], "filter": {}},
        ],
        "components": [
            {"model": "unit", "meter": "people", "unit_price": "2.55", "free_units": "1"},
            {"model": "unit", "meter": "largest", "unit_price": _between(chance, "0.1", "1", 6), "free_units": "0"},
        ],
    }


LISTINGS: Sequence[tuple[str, str, Callable[[random.Random], Price]]] = (
    ("speak", "vani", _plain),
    ("translate", "akshara", _graduated),
    ("listen", "vani", _package),
    ("read", "lipi", _volume),
    ("chat", "akshara", _tokens),
    ("desk", "lipi", _overage),
    ("crowd", "vani", _gauges),
)
"""Listings, their providers, and how each is priced."""

BUYERS: Sequence[tuple[str, str | None, str | None, str]] = (
    ("Karol Bagh Readers", "07", None, "Asia/Kolkata"),
    ("Pune Katha", "27", "27", "Asia/Kolkata"),
    ("Nameless", None, None, "Asia/Kolkata"),
    ("Chennai Vaani, registered in Karnataka", "33", "29", "Asia/Kolkata"),
    ("Delhi Press", "07", "07", "Asia/Kolkata"),
    ("Ladakh Radio", "38", None, "Europe/Berlin"),
    ("Jackson Heights Desk", "36", None, "America/New_York"),
)
"""Name, State of the address, State of the registration, zone. The operator sells from State 07."""


def share_of(chance: random.Random) -> Decimal:
    return Decimal(chance.randint(0, 100_000)).scaleb(-5)


def moment(label: str, zone: str, day: float = 0) -> datetime:
    """Return an instant of a month: its beginning in a zone, and so many days later."""
    begin = datetime(int(label[:4]), int(label[5:]), 1, tzinfo=ZoneInfo(zone)).astimezone(UTC)
    return begin + timedelta(days=day)


def after(label: str) -> str:
    """Return the month that follows."""
    year, month = int(label[:4]), int(label[5:])
    return f"{year + month // 12:04d}-{month % 12 + 1:02d}"


async def furnish(bazaar: Bazaar, chance: random.Random, customers: int) -> Market:
    """Open a market of so many customers, each subscribed to some listings."""
    market = Market()
    for slug, provider, price in LISTINGS:
        first = price(chance)
        service = await bazaar.service(slug, provider, unit=first["unit"], price=None)
        market.services.append(service)
        for one in first.get("meters", ()):
            await bazaar.run(
                """INSERT INTO meters (id, service_id, name, aggregation, measure, less, filter, created_at)
                   VALUES (%s, %s, %s, %s, %s, %s, %s, %s)""",
                *(new_id(), service.id, one["name"], one["aggregation"], one["measure"], one["less"]),
                *(Jsonb(one["filter"]), OPENS),
            )
        opened = await add_card(bazaar, market, service, first, None, share_of(chance), OPENS)
        change = moment(chance.choice(MONTHS[:3]), "Asia/Kolkata", chance.uniform(1, 27))
        change = change.replace(microsecond=change.microsecond // 1000 * 1000)
        if slug == "speak":  # another price from the middle of a month on, and one of a plan's own
            await add_card(bazaar, market, service, price(chance), None, share_of(chance), change)
            await add_card(bazaar, market, service, price(chance), "professional", share_of(chance), OPENS)
        elif slug in ("translate", "desk"):  # another split, at the same price
            await add_card(bazaar, market, service, first, None, share_of(chance), change, like=opened)
    for name, state, registered, zone in BUYERS[:customers]:
        first_fourteen = f"{registered}AAACH0001H1Z" if registered else ""
        gstin = first_fourteen + gstin_check_letter(first_fourteen) if registered else None
        org = await bazaar.organisation(name, state=state, gstin=gstin, zone=zone)
        market.customers.append(Customer(org, registered or state or "07", zone))
        for service in market.services:
            if service.slug == "speak" or chance.random() < 0.7:
                plan = chance.choice(["basic", "professional"])
                subscription = await bazaar.subscribe(org, service, plan)
                start = chance.choice([OPENS, moment("2027-02", zone, chance.uniform(0, 12))])
                start = max(OPENS, start.replace(microsecond=0))
                await bazaar.run("UPDATE subscriptions SET started_at = %s WHERE id = %s", start, subscription.id)
                market.stays.append(Stay(subscription, start))
    return market


async def add_card(
    bazaar: Bazaar,
    market: Market,
    service: Service,
    price: Price,
    plan: str | None,
    share: Decimal,
    at: datetime,
    *,
    like: RateCard | None = None,
) -> RateCard:
    """Write a version of a price, as a listing's provider makes one."""
    version = 1 + sum(card.service == service.id and card.plan == plan for card in market.cards)
    meters = {one["name"]: meter_of(one) for one in price.get("meters", ())}
    parts = tuple(component(one, meters) for one in price.get("components", ()))
    card = RateCard(
        new_id(),
        service.id,
        version,
        plan,
        price["unit"],
        Decimal(price.get("unit_price", "1")),
        Decimal(price.get("free_units", "0")),
        share,
        at,
        parts,
        Decimal(price.get("minimum", "0")),
    )
    if like is not None:
        card = replace(like, id=card.id, version=version, provider_share=share, effective_from=at)
    await bazaar.run(
        """INSERT INTO rate_cards (id, service_id, version, plan_code, unit, unit_price, free_units, provider_share,
               effective_from, created_at, components, minimum)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        *(card.id, service.id, version, plan, card.unit, card.unit_price, card.free_units, share, at, OPENS),
        *(Jsonb([one.data() for one in parts]), card.minimum),
    )
    market.cards.append(card)
    return card

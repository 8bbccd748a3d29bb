"""What must come out, in fractions and from nothing but what was metered, priced and asked for.

No figure here comes from Haat: what a month costs is the reference implementation's (`rating.reference`, written from
the definitions), and rounding, taxes and shares are written once more. Haat gives the shapes of cards and usage.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from math import floor
from typing import Any, NamedTuple
from uuid import UUID

from haat.kernel.clock import Period
from haat.rating.charge import Held, Measured, RateCard
from rating.reference import Line, charged

from .market import Market, after, moment

BILLED = ("completed", "client_left")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST, LATEST, APART = timedelta(days=35), timedelta(minutes=5), timedelta(minutes=5)
HALF = Fraction(1, 2)
UNION_TERRITORIES = ("04", "26", "31", "35", "38", "97")
"""Those without a legislature, which levy UTGST."""


def paise(amount: Fraction) -> Fraction:
    """Round to the paisa, halves away from zero."""
    cents = floor(abs(amount) * 100 + HALF)
    return Fraction(cents if amount >= 0 else -cents, 100)


def taxes_on(net: Fraction, rate: Fraction, seller: str, place: str) -> dict[str, Fraction]:
    """Return GST by name: two equal halves within a State, one tax across its border."""
    if seller != place:
        return {"IGST": paise(net * rate)}
    half = paise(net * rate / 2)
    return {"CGST": half, "UTGST" if place in UNION_TERRITORIES else "SGST": half}


def provider_part(taxable: Fraction, share: Fraction) -> Fraction:
    return paise(taxable * share)


def time_of(call: Mapping[str, Any]) -> datetime:
    """Return when a call was: the millisecond in its id."""
    return EPOCH + timedelta(milliseconds=UUID(call["id"]).int >> 80)


def is_acceptable(call: Mapping[str, Any], now: datetime) -> bool:
    """Tell whether a record that arrives now may be counted: neither too old nor from the future."""
    at = time_of(call)
    skew = abs(EPOCH + timedelta(milliseconds=call["at"]) - at)
    return now - EARLIEST <= at <= now + LATEST and skew <= APART


def is_billed(call: Mapping[str, Any]) -> bool:
    return call["outcome"] in BILLED and call.get("mode", "live") == "live" and bool(call.get("subscription"))


def quantity_of(call: Mapping[str, Any], unit: str) -> Fraction:
    """Return a quantity as it is stored: six decimals, half-up."""
    return Fraction(floor(Fraction(call.get("units", {}).get(unit, "0")) * 10**6 + HALF), 10**6)


def reading(call: Mapping[str, Any], key: str) -> Fraction:
    """Return what a meter reads of a call: a unit, less others, never below zero."""
    unit, *less = key.split("-")
    return max(Fraction(0), quantity_of(call, unit) - sum(quantity_of(call, one) for one in less))


def cached_of(call: Mapping[str, Any]) -> Fraction | None:
    """Return how much of a call came out of the cache; None where it was not asked."""
    if call.get("cache") not in ("hit", "partial"):
        return None
    return sum((Fraction(one) for one in call.get("cached_units", {}).values()), Fraction(0))


def as_measured(call: Mapping[str, Any], keys: Iterable[str], unit: str) -> Iterator[Measured]:
    """Yield what rating sees of a call: what the provider was asked for, and what the cache gave."""
    about: dict[str, Any] = {
        "subscription": UUID(call["subscription"]),
        "service": UUID(call["service"]),
        "plan": call["plan"],
        "provider_org": UUID(call["provider_org"]),
        "at": time_of(call),
        "language_pair": call.get("language_pair", ""),
        "version": call.get("version", ""),
        "variant": call.get("variant", ""),
    }
    units = {key: reading(call, key) for key in keys}
    people = frozenset({call["user"]} if call.get("user") else ())
    cached = cached_of(call)
    if call.get("cache") != "hit":
        yield Measured(
            **about,
            units=units | {unit: units[unit] - (cached or 0)},
            distinct={"end_user": people},  # type: ignore[arg-type]
        )
    if cached is not None:
        yield Measured(
            **about,
            units={unit: cached},  # type: ignore[dict-item]
            cached_share=Decimal(call.get("cached_share", "1")),
            counted=int(call["cache"] == "hit"),
        )


class Key(NamedTuple):
    """What a charge is for."""

    kind: str
    subscription: UUID
    card: UUID
    plan: str | None
    provider_org: UUID
    cached_share: Fraction | None
    component: str


@dataclass(slots=True)
class Counted:
    """A call in the store: ``batch`` is where it came in, ``void`` the batch from which it counts no more."""

    call: dict[str, Any]
    at: datetime
    batch: int
    void: int | None = None

    def stands(self, upto: int) -> bool:
        return self.batch <= upto and (self.void is None or self.void > upto)


@dataclass
class Reckoning:
    """What months cost, by what is known of a market and of the calls that count."""

    market: Market
    calls: Mapping[UUID, list[Counted]]
    """Billed calls by organisation."""
    _known: dict[Any, dict[Key, Line]] = field(default_factory=dict)

    def period(self, org: UUID, label: str) -> Period:
        zone = self.market.zone_of(org)
        return Period(moment(label, zone), moment(after(label), zone), label)

    def members(self, org: UUID, label: str, upto: int) -> list[Counted]:
        period = self.period(org, label)
        return [one for one in self.calls.get(org, ()) if period.start <= one.at < period.end and one.stands(upto)]

    def charges(self, org: UUID, label: str, upto: int, *, final: bool = True) -> dict[Key, Line]:
        """Return what a month costs up to a batch; its fees and minimums where it is ``final``."""
        place = (org, label, upto, final)
        if place not in self._known:
            self._known[place] = self._charges(org, label, upto, final)
        return self._known[place]

    def _charges(self, org: UUID, label: str, upto: int, final: bool) -> dict[Key, Line]:
        period = self.period(org, label)
        usage = [
            one
            for counted in self.members(org, label, upto)
            for one in as_measured(counted.call, *self._keys(UUID(counted.call["service"])))
        ]
        held = self._held(org, period) if final else []
        services = {one.service for one in usage} | {one.service for one in held}
        cards = [card for card in self.market.cards if card.service in services and card.effective_from < period.end]
        return {
            Key(*place[:5], None if place[5] is None else Fraction(place[5]), place[6]): line
            for place, line in charged(usage, cards, period, [], held).items()
        }

    def _keys(self, service: UUID) -> tuple[set[str], str]:
        cards = [card for card in self.market.cards if card.service == service]
        meters = [part.meter for card in cards for part in card.components if part.meter is not None]
        return {meter.key for meter in meters} | {card.unit for card in cards}, cards[0].unit

    def _held(self, org: UUID, period: Period) -> list[Held]:
        found = []
        for stay in self.market.stays:
            begin, end = max(stay.start, period.start), min(stay.end or period.end, period.end)
            if stay.subscription.org == org and begin < end:
                one = stay.subscription
                found.append(Held(one.id, one.service.id, one.plan, one.service.org, begin, end))
        return found

    def card(self, identifier: UUID) -> RateCard:
        return next(card for card in self.market.cards if card.id == identifier)

"""What usage costs: for an invoice's lines, live while the month runs, and on a card that doesn't exist yet."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database
from haat.kernel.clock import Clock, Period, month_of
from haat.kernel.errors import NotFound
from haat.kernel.money import to_paisa, total
from haat.kernel.permissions import Actor, Permission
from haat.rating import store
from haat.rating.model import Charge, FreeUsed, Held, Issued, Measured, RateCard, Rated, rate
from haat.rating.store import Batches, quantity_sql
from haat.usage import intake

__all__ = [
    "Held",
    "LiveCost",
    "Rating",
    "cards",
    "charges",
    "charges_of_many",
    "measured_many",
    "quantity_sql",
    "service_names",
    "stood",
]

_REMEMBERED = 1000
"""Running months whose usage up to a batch a process keeps: of those that were asked for last."""


@dataclass(frozen=True, slots=True)
class LiveCost:
    """The running month so far, before tax. ``total`` sums what the lines would round to."""

    period: str
    charges: Sequence[Charge]
    names: dict[UUID, str]
    total: Decimal
    unpriced: Sequence[Measured]


async def charges(
    connection: Connection,
    org: UUID,
    period: Period,
    batches: tuple[int, int],
    issued: Sequence[Issued] | FreeUsed | None = None,
    *,
    final: bool = True,
) -> Rated:
    """Rate an organisation's usage of a period from batches ``(from, to]``, within the caller's transaction.

    ``issued`` is what invoices of the period say already; ``final`` is false for a part of a period that still runs.
    """
    lines = {} if issued is None else {org: issued}
    return (await charges_of_many(connection, [org], period, batches, lines, final=final))[org]


async def charges_of_many(
    connection: Connection,
    orgs: Sequence[UUID],
    period: Period,
    batches: Batches,
    issued: Mapping[UUID, Sequence[Issued] | FreeUsed],
    *,
    final: bool = True,
) -> dict[UUID, Rated]:
    """Rate the usage of many organisations at once: their months begin and end at the same instants."""
    prices = await store.cards_of_many(connection, orgs, period.end)
    found = await store.measured_many(connection, orgs, period, batches, prices)
    spans = await _held(connection, orgs, period, prices) if final else {}
    by_service, services = _by_service(prices), {card.id: card.service for card in prices}
    rated: dict[UUID, Rated] = {}
    for org, usage in found.items():
        lines, stood = issued.get(org), spans.get(org, ())
        own = _cards_of(usage, stood, lines, by_service, services)
        rated[org] = rate(usage, own, period, lines, stood, final=final)
    return rated


async def measured_many(
    connection: Connection, orgs: Sequence[UUID], period: Period, batches: Batches
) -> dict[UUID, list[Measured]]:
    """Return the billed usage of many organisations from batches ``(from, to]``, in one scan."""
    prices = await store.cards_of_many(connection, orgs, period.end)
    return await store.measured_many(connection, orgs, period, batches, prices)


async def organisations_with_fees(connection: Connection, start: datetime, end: datetime) -> list[UUID]:
    """Return organisations that may owe something between two instants although they called nothing."""
    return await store.organisations_with_fees(connection, start, end)


async def cards(connection: Connection, org: UUID, before: datetime) -> list[RateCard]:
    """Return all versions of the prices of services an organisation has ever subscribed to."""
    return await store.cards(connection, org, before)


async def stood(connection: Connection, org: UUID, period: Period, prices: Iterable[RateCard]) -> list[Held]:
    """Return the subscriptions of a period that may owe a fee or a minimum by these prices, and how long they stood."""
    return (await _held(connection, [org], period, prices)).get(org, [])


async def owes_fees(connection: Connection, org: UUID, period: Period) -> bool:
    """Tell whether an organisation's subscriptions may cost something in a period without a call."""
    prices = await store.cards_of_many(connection, [org], period.end)
    return bool(await _held(connection, [org], period, prices))


async def service_names(connection: Connection, services: Sequence[UUID]) -> dict[UUID, str]:
    """Return what a service is called on a bill."""
    return await store.service_names(connection, services)


async def _held(
    connection: Connection, orgs: Sequence[UUID], period: Period, prices: Iterable[RateCard]
) -> dict[UUID, list[Held]]:
    asking = {card.service for card in prices if card.minimum or any(one.meter is None for one in card.components)}
    return await store.held(connection, orgs, period, sorted(asking)) if asking else {}


def _by_service(prices: Iterable[RateCard]) -> dict[UUID, list[RateCard]]:
    found: dict[UUID, list[RateCard]] = {}
    for card in prices:
        found.setdefault(card.service, []).append(card)
    return found


def _cards_of(
    usage: Iterable[Measured],
    held: Iterable[Held],
    issued: Sequence[Issued] | FreeUsed | None,
    prices: Mapping[UUID, Sequence[RateCard]],
    services_of: Mapping[UUID, UUID],
) -> list[RateCard]:
    """Return the cards that one organisation's month is about: many organisations' are thousands."""
    services = {one.service for one in usage} | {one.service for one in held}
    if issued and not isinstance(issued, Mapping):
        services |= {services_of[line.card] for line in issued if line.card in services_of}
    return [card for service in sorted(services) for card in prices.get(service, ())]


class Rating:
    """Costs that are not on an invoice yet.

    A running month is read once and then goes on from the newest batch that was looked at: batches become visible in
    order and never change, so what was read stays right until a call of it is voided or corrected.
    """

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db, self._clock = db, clock
        self._read: OrderedDict[tuple[UUID, Period], _Read] = OrderedDict()

    async def live(self, actor: Actor, org: UUID | None = None) -> LiveCost:
        """Return the cost of the current month of the actor's organisation, or of any for the operator."""
        actor.require(Permission.USAGE_READ)
        whose = org or actor.org_id
        if whose is None or (whose != actor.org_id and not actor.may(Permission.PLATFORM_WATCH)):
            raise NotFound
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            zone = await store.zone_of(connection, whose)
            if zone is None:
                raise NotFound
            period = month_of(self._clock.now(), zone)
            rated = await self._so_far(connection, whose, period)
            names = await store.service_names(connection, [charge.service for charge in rated.charges])
        return LiveCost(
            period.label,
            rated.charges,
            names,
            total(to_paisa(charge.amount) for charge in rated.charges),
            rated.unpriced,
        )

    async def _so_far(self, connection: Connection, org: UUID, period: Period) -> Rated:
        """Rate the month up to the newest batch: exactly what rating it from the beginning gives."""
        newest = await intake.watermark(connection)
        prices = await store.cards(connection, org, period.end)
        read = self._read.get((org, period))
        if (
            read is None
            or read.prices != prices
            or read.batch > newest
            or await store.corrected_since(connection, org, period, read.batch)
        ):
            read = _Read(prices, 0, [])
        if any(not one.meter.additive for card in prices for one in card.components if one.meter is not None):
            usage = await store.measured(connection, org, period, (0, newest), prices)  # it does not go on from a part
        else:
            added = await store.measured(connection, org, period, (read.batch, newest), prices)
            usage = merged([*read.usage, *added])
            self._remember((org, period), _Read(prices, newest, usage))
        spans = await _held(connection, [org], period, prices)
        return rate(usage, prices, period, None, spans.get(org, ()))

    def _remember(self, key: tuple[UUID, Period], read: _Read) -> None:
        self._read[key] = read
        self._read.move_to_end(key)
        while len(self._read) > _REMEMBERED:
            self._read.popitem(last=False)


@dataclass(frozen=True, slots=True)
class _Read:
    """The usage of a running month up to a batch, cut by these prices."""

    prices: Sequence[RateCard]
    batch: int
    usage: Sequence[Measured]


def merged(usage: Iterable[Measured]) -> list[Measured]:
    """Add up usage that differs in nothing but quantities; none of it is of a meter that doesn't add up."""
    found: dict[tuple[object, ...], Measured] = {}
    for one in usage:
        key = (
            one.subscription,
            one.service,
            one.plan,
            one.provider_org,
            one.at,
            one.cached_share,
            one.counted is None,
            one.language_pair,
            one.version,
            one.variant,
        )
        before = found.get(key)
        if before is None:
            found[key] = one
            continue
        units = {
            unit: total((before.units.get(unit, Decimal(0)), one.units.get(unit, Decimal(0))))
            for unit in {**before.units, **one.units}
        }
        counted = None if one.counted is None else (before.counted or 0) + one.counted
        found[key] = Measured(
            one.subscription,
            one.service,
            one.plan,
            one.provider_org,
            one.at,
            units,
            before.calls + one.calls,
            one.cached_share,
            counted,
            one.language_pair,
            one.version,
            one.variant,
        )
    return list(found.values())

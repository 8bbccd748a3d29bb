"""What usage costs: for an invoice's lines, and live while the month runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database
from haat.kernel.clock import Clock, Period, month_of
from haat.kernel.errors import NotFound
from haat.kernel.money import to_paisa, total
from haat.kernel.permissions import Actor, Permission
from haat.rating import store
from haat.rating.model import Charge, FreeUsed, Measured, Rated, rate
from haat.usage import intake


@dataclass(frozen=True, slots=True)
class LiveCost:
    """The running month so far, before tax. ``total`` sums what the lines would round to."""

    period: str
    charges: Sequence[Charge]
    names: dict[UUID, str]
    total: Decimal
    unpriced: Sequence[Measured]


async def charges(
    connection: Connection, org: UUID, period: Period, batches: tuple[int, int], free_used: FreeUsed | None = None
) -> Rated:
    """Rate an organisation's usage of a period from batches ``(from, to]``, within the caller's transaction."""
    prices = await store.cards(connection, org, period.end)
    return rate(await store.measured(connection, org, period, batches, prices), prices, period, free_used)


async def service_names(connection: Connection, services: Sequence[UUID]) -> dict[UUID, str]:
    """Return what a service is called on a bill."""
    return await store.service_names(connection, services)


class Rating:
    """Costs that are not on an invoice yet."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db, self._clock = db, clock

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
            rated = await charges(connection, whose, period, (0, await intake.watermark(connection)))
            names = await store.service_names(connection, [charge.service for charge in rated.charges])
        return LiveCost(
            period.label,
            rated.charges,
            names,
            total(to_paisa(charge.amount) for charge in rated.charges),
            rated.unpriced,
        )

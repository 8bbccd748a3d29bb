"""What calls come to: what each record says, and what the bill takes for it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from gateway.rig import Market
from haat.gateway.charge import amount_text
from haat.gateway.market.snapshot import Price, Service
from haat.kernel.clock import Period
from haat.kernel.money import total
from haat.rating.model import Measured, RateCard, rate
from haat.usage.event import Outcome, UsageEvent
from haat.usage.model import BILLED

PRICE = "0.125"
"""What a unit costs in these tests, in rupees."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NIL = UUID(int=0)
_EVER = Period(EPOCH, datetime(9999, 1, 1, tzinfo=UTC), "ever")


def rate_cards(prices: Iterable[Price], service: UUID = _NIL) -> list[RateCard]:
    """Return what the gateway knows of a listing's prices as the bill has it."""
    return [
        RateCard(
            UUID(int=number), service, number, price.plan or None, price.unit, Decimal(price.unit_price),
            Decimal(price.free_units), Decimal("0.7"), EPOCH + timedelta(microseconds=price.effective_from),
        )
        for number, price in enumerate(prices, 1)
    ]  # fmt: skip


class Billed(NamedTuple):
    """A call of a service (its slug): its units but for the one request, and its exact charge in rupees before tax."""

    service: str
    outcome: Outcome
    units: dict[str, str]
    charge: str


async def billed(market: Market) -> list[Billed]:
    """Return what all calls so far came to, in order, once each is confirmed."""
    await market.until(lambda: market.confirmed() == {event.id for event in market.events()} != set())
    services = {service.id: service for service in market.gateway.directory.services.values()}
    return [bill(event, services.get(event.service)) for event in market.events()]


def bill(event: UsageEvent, service: Service | None) -> Billed:
    """Return what a call comes to by its listing's prices; one that is billed must have one."""
    units, charge = dict(event.units), Decimal(0)
    if event.outcome in BILLED and not event.is_test:
        assert service is not None
        assert not event.cached_units  # what the cache answers is charged apart
        quantities = {name: Decimal(quantity) for name, quantity in units.items()}
        usage = Measured(_NIL, _NIL, event.plan, _NIL, EPOCH + timedelta(milliseconds=event.at), quantities)
        rated = rate([usage], rate_cards(service.prices), _EVER)
        assert not rated.unpriced, f"{service.path} has no price"
        charge = total(one.amount for one in rated.charges)
        if units or event.outcome is not Outcome.CLIENT_LEFT:  # who leaves before anything came has got nothing
            assert units.pop("requests") == "1"
    return Billed(event.service_slug, event.outcome, units, amount_text(charge))

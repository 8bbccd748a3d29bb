"""Meters and cards of a bazaar's services, put there as their providers would."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from bazaar import Bazaar, Service
from haat.catalog import store
from haat.catalog.drafts import PriceDraft
from haat.catalog.pricing import MeterDraft
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.ids import new_id


async def meter(bazaar: Bazaar, service: Service, **members: Any) -> None:
    async with bazaar.service_db.transaction(PLATFORM_SCOPE) as connection:
        made = MeterDraft.model_validate(members).meter()
        await store.add_meter(connection, new_id(), service.id, made, bazaar.clock.now())


async def price(
    bazaar: Bazaar, service: Service, *components: dict[str, Any], at: datetime | None = None, **members: Any
) -> None:
    """Set a card that began long ago, or ``at`` a moment."""
    draft = PriceDraft.parse({"components": list(components), **members})
    begins = at or bazaar.clock.now() - timedelta(days=300)
    async with bazaar.service_db.transaction(PLATFORM_SCOPE) as connection:
        await store.add_price(connection, new_id(), service.id, service.unit, draft, Decimal("0.70"), begins)

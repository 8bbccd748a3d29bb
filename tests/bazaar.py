"""What the money path reads, written straight into the tables: organisations, prices, subscriptions, calls."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from haat.infra.postgres import PLATFORM_SCOPE, Database
from haat.kernel.clock import SetClock
from haat.kernel.ids import new_id
from haat.kernel.permissions import Actor, Role
from haat.usage import intake
from haat.usage.event import VERSION, Outcome, Timings, UsageEvent
from haat.usage.intake import Record, Taken


@dataclass(frozen=True, slots=True)
class Service:
    id: UUID
    org: UUID
    provider: str
    slug: str
    unit: str


@dataclass(frozen=True, slots=True)
class Subscription:
    id: UUID
    org: UUID
    application: UUID
    service: Service
    plan: str


@dataclass
class Bazaar:
    """``service_db`` is the connection of `haat_service`."""

    service_db: Database
    clock: SetClock
    chance: random.Random = field(default_factory=lambda: random.Random(7))
    counted: int = 0

    async def run(self, statement: str, *values: Any) -> None:
        async with self.service_db.transaction(PLATFORM_SCOPE) as connection:
            await connection.execute(statement, values)

    async def rows(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        async with self.service_db.transaction(PLATFORM_SCOPE) as connection:
            return await (await connection.execute(statement, values)).fetchall()

    async def organisation(
        self,
        name: str = "Sabzi Mandi",
        *,
        state: str | None = "29",
        gstin: str | None = None,
        kind: str = "consumer",
        zone: str = "Asia/Kolkata",
    ) -> UUID:
        org = new_id()
        await self.run(
            """INSERT INTO organisations (id, name, kind, address, state_code, gstin, zone, created_at)
               VALUES (%s, %s, %s, '4 Bazaar Road', %s, %s, %s, now())""",
            *(org, name, kind, state, gstin, zone),
        )
        return org

    async def service(
        self,
        slug: str = "speak",
        provider: str = "vani",
        *,
        unit: str = "characters",
        price: str | None = "0.05",
        free: str = "0",
        share: str = "0.70",
    ) -> Service:
        found = await self.rows("SELECT org_id FROM partners WHERE slug = %s", provider)
        org = found[0]["org_id"] if found else await self.organisation(provider.title(), kind="provider")
        if not found:
            await self.run(
                """INSERT INTO partners (org_id, slug, company_name, email, contact_person, business_type, status,
                       created_at)
                   VALUES (%s, %s, %s, 'a@b.example', 'A B', 'company', 'approved', now())""",
                *(org, provider, provider.title()),
            )
        service = Service(new_id(), org, provider, slug, unit)
        await self.run(
            """INSERT INTO services (id, org_id, provider_slug, slug, name, category, status, status_at, unit,
                   created_at)
               VALUES (%s, %s, %s, %s, %s, 'nlp', 'published', now(), %s, now())""",
            *(service.id, org, provider, slug, slug.title(), unit),
        )
        if price is not None:
            await self.card(service, price=price, free=free, share=share)
        return service

    async def card(
        self,
        service: Service,
        *,
        price: str,
        free: str = "0",
        share: str = "0.70",
        plan: str | None = None,
        start: datetime | None = None,
    ) -> UUID:
        card = new_id()
        start = start or self.clock.now() - timedelta(days=300)
        await self.run(
            """INSERT INTO rate_cards (id, service_id, version, plan_code, unit, unit_price, free_units, provider_share,
                   effective_from, created_at)
               SELECT %s, %s, coalesce(max(version), 0) + 1, %s, %s, %s, %s, %s, %s, now() FROM rate_cards
               WHERE service_id = %s AND plan_code IS NOT DISTINCT FROM %s""",
            *(card, service.id, plan, service.unit, Decimal(price), Decimal(free), Decimal(share), start),
            *(service.id, plan),
        )
        return card

    async def subscribe(self, org: UUID, service: Service, plan: str = "basic") -> Subscription:
        application, subscription = new_id(), new_id()
        await self.run(
            "INSERT INTO applications (id, org_id, name, created_at) VALUES (%s, %s, %s, now())",
            *(application, org, f"app {application}"),
        )
        await self.run(
            """INSERT INTO subscriptions (id, org_id, application_id, service_id, plan_id, status, started_at)
               SELECT %s, %s, %s, %s, id, 'active', %s FROM plans WHERE code = %s AND service_id IS NULL""",
            *(subscription, org, application, service.id, self.clock.now(), plan),
        )
        return Subscription(subscription, org, application, service, plan)

    def event(
        self,
        subscription: Subscription,
        quantity: str = "10",
        *,
        at: datetime | None = None,
        outcome: Outcome = Outcome.COMPLETED,
        status: int = 200,
        total_us: int | None = None,
        **members: Any,
    ) -> UsageEvent:
        milliseconds = round((at or self.clock.now()).timestamp() * 1000)
        service = subscription.service
        return UsageEvent(
            id=str(call_id(milliseconds, self.chance)),
            at=milliseconds,
            outcome=outcome,
            v=VERSION,
            org=str(subscription.org),
            application=str(subscription.application),
            credential=str(subscription.application),
            subscription=str(subscription.id),
            plan=subscription.plan,
            provider=service.provider,
            provider_org=str(service.org),
            service=str(service.id),
            service_slug=service.slug,
            version="1",
            method="POST",
            path_template="/invoke",
            status=status,
            units={"requests": "1", service.unit: quantity} if outcome is not Outcome.REFUSED else {},
            units_source="counted",
            timings_us=Timings(total=self.chance.randint(200, 200_000) if total_us is None else total_us),
            bytes_in=100,
            bytes_out=200,
            gateway="g0",
            **members,
        )

    async def take(self, events: Sequence[UsageEvent]) -> Taken:
        """Bring events into the store as the shipper does."""
        records = []
        for event in events:
            self.counted += 1
            records.append(Record(event, "test", 1, self.counted))
        async with self.service_db.transaction(PLATFORM_SCOPE) as connection:
            taken = await intake.take(connection, records, self.clock.now())
        assert taken is not None
        return taken


def call_id(milliseconds: int, chance: random.Random) -> UUID:
    """Return a UUIDv7 of a millisecond with a random tail."""
    return UUID(int=milliseconds << 80 | 0x7 << 76 | chance.getrandbits(12) << 64 | 0b10 << 62 | chance.getrandbits(62))


def consumer(org: UUID) -> Actor:
    return Actor(new_id(), org, Role.API_CONSUMER)


def partner(org: UUID) -> Actor:
    return Actor(new_id(), org, Role.PARTNER_ADMIN)

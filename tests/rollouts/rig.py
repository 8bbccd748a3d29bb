"""A published service with two accepted versions, and calls of it in the usage store."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from haat.catalog import store as catalog_store
from haat.catalog.drafts import VersionDraft
from haat.feedback.service import Feedback
from haat.infra.postgres import PLATFORM_SCOPE, Database
from haat.kernel.ids import id_at
from haat.kernel.permissions import Actor
from haat.rollouts.experiments import Experiments
from haat.rollouts.model import RolloutDraft
from haat.rollouts.outcomes import FeedbackOutcomes
from haat.rollouts.service import Rollouts
from haat.usage import intake
from haat.usage.event import VERSION, Outcome, Timings, UsageEvent
from haat.usage.intake import Record
from haat.usage.variants import Variants
from market import Market

ORG = UUID(int=77)


@dataclass
class Shop:
    """One provider's service, whose version 1 is the default one and 2 is accepted beside it."""

    market: Market
    service_db: Database
    provider: Actor
    service: UUID
    rollouts: Rollouts
    experiments: Experiments
    feedback: Feedback
    calls: int = 0

    async def add_version(self, version: str, *, accepted: bool = True, **changes: Any) -> UUID:
        draft = VersionDraft.model_validate(
            {
                "version": version,
                "endpoint": "http://8.8.8.8",
                "sample": {"body": {"text": "नमस्ते"}},
                "languages": ["hi-Deva"],
                **changes,
            }
        )
        identifier = await self.market.catalog.versions.add(self.provider, self.service, draft)
        if accepted:
            async with self.market.db.transaction(PLATFORM_SCOPE) as connection:
                await catalog_store.accept_version(
                    connection, self.service, identifier, self.market.clock.now(), default=False
                )
        return identifier

    async def use(
        self,
        rollout: UUID,
        arm: str,
        count: int,
        *,
        errors: int = 0,
        ms: float = 50,
        at: datetime | None = None,
        users: int = 0,
        org: UUID = ORG,
        **members: Any,
    ) -> list[UUID]:
        """Put calls into the usage store, spread over the 30 seconds before now; return their ids.

        Without ``users`` each call is of a user of its own. The application has the organisation's id.
        """
        draw, records = random.Random(self.calls), []
        for number in range(count):
            self.calls += 1
            moment = (at or self.market.clock.now()) - timedelta(milliseconds=1 + draw.randrange(30_000))
            milliseconds = int(moment.timestamp() * 1000)
            event = UsageEvent(
                id=str(UUID(int=id_at(milliseconds).int | self.calls << 8)),
                at=milliseconds,
                outcome=Outcome.PROVIDER_FAILED if number < errors else Outcome.COMPLETED,
                v=VERSION,
                org=str(org),
                application=str(org),
                provider_org=str(self.provider.org_id),
                service=str(self.service),
                status=500 if number < errors else 200,
                timings_us=Timings(total=int(ms * 1000 * draw.uniform(0.8, 1.2))),
                rollout=str(rollout),
                arm=arm,
                **{"user": f"{arm}-{self.calls if not users else number % users}", **members},
            )
            records.append(Record(event, "test", 1, self.calls))
        async with self.service_db.transaction(PLATFORM_SCOPE) as connection:
            taken = await intake.take(connection, records, self.market.clock.now(), any_time=True)
        assert taken is not None and (taken.rows, taken.quarantined) == (count, 0)
        return [UUID(one.event.id) for one in records]

    async def policy(self) -> Any:
        """Return what gateways are told, None for nothing."""
        async with self.market.db.transaction(PLATFORM_SCOPE) as connection:
            rows = await connection.execute("SELECT policy FROM divisions WHERE service_id = %s", (self.service,))
            row = await rows.fetchone()
        return row["policy"] if row else None

    async def default(self) -> str:
        async with self.market.db.transaction(PLATFORM_SCOPE) as connection:
            versions = await catalog_store.versions(connection, self.service)
        return next(one.version for one in versions if one.is_default)

    async def told(self) -> list[tuple[str, Any]]:
        """Return the service's events that are about rollouts and experiments."""
        found = await self.market.events(f"service/{self.service}")
        return [(one.type, one.data) for one in found if one.type.startswith(("rollout.", "experiment."))]


async def open_shop(market: Market, database: Any, slug: str = "anuvad") -> Shop:
    provider = await market.provider()
    listing = await market.listing(provider, slug)
    variants = Variants(database.app)
    parts = (database.app, market.clock, market.catalog, market.partners, variants)
    feedback = Feedback(database.app, market.clock, keep_days=365, patience=0)
    experiments = Experiments(*parts, sources=[FeedbackOutcomes(feedback)])
    shop = Shop(market, database.service, provider, listing.id, Rollouts(*parts), experiments, feedback)
    await shop.add_version("2")
    return shop


def draft(**members: Any) -> RolloutDraft:
    return RolloutDraft.model_validate({"candidate": "2", **members})

"""A small market for tests: the services of the control plane on a fresh database, and people to use them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from argon2 import PasswordHasher

from haat.catalog import store as catalog_store
from haat.catalog.discovery import Discovery
from haat.catalog.drafts import ServiceDraft
from haat.catalog.model import Listing
from haat.catalog.service import Catalog
from haat.identity.service import Identity
from haat.infra import events
from haat.infra.keyring import Keyring
from haat.infra.postgres import PLATFORM_SCOPE, Database
from haat.kernel.clock import SetClock
from haat.kernel.events import DomainEvent
from haat.kernel.permissions import Actor, Role
from haat.partners.service import Partners
from haat.subscriptions.service import Subscriptions

PASSWORD = "correct horse battery"


def draft(slug: str = "anuvad", **changes: Any) -> ServiceDraft:
    """Return a sound draft of a service; ``changes`` replace its fields."""
    return ServiceDraft.model_validate(
        {
            "slug": slug,
            "name": "Anuvad",
            "category": "translation",
            "version": {"endpoint": "http://8.8.8.8", "sample": {"body": {"text": "नमस्ते"}}, "languages": ["hi-Deva"]},
            "price": {"unit_price": "0.05"},
            **changes,
        }
    )


@dataclass
class Market:
    """The services, and short ways to fill them."""

    db: Database
    clock: SetClock
    keyring: Keyring
    identity: Identity
    partners: Partners
    catalog: Catalog
    discovery: Discovery
    subscriptions: Subscriptions
    _numbers: count[int] = field(default_factory=lambda: count(1))

    async def consumer(self, **changes: Any) -> Actor:
        """Return the administrator of a new consumer organisation."""
        number = next(self._numbers)
        return await self.identity.create_organisation(
            **{
                "email": f"user{number}@example.in",
                "password": PASSWORD,
                "name": f"User {number}",
                "organisation": f"Organisation {number}",
                "kind": "consumer",
                **changes,
            }
        )

    async def operator(self) -> Actor:
        """Return an administrator of the platform."""
        return await self.consumer(kind="operator", organisation="Haat")

    async def applicant(self, slug: str | None = None, **changes: Any) -> Actor:
        """Return the administrator of a company that has asked to become a provider."""
        actor = await self.consumer(kind="provider", **changes)
        await self.partners.register(
            actor,
            slug=slug or f"partner-{next(self._numbers)}",
            company_name="Bhasha Labs",
            email="office@bhasha.example.in",
            contact_person="Asha Rao",
            business_type="company",
        )
        return actor

    async def provider(self, slug: str | None = None, **changes: Any) -> Actor:
        """Return the administrator of an approved provider."""
        actor = await self.applicant(slug, **changes)
        assert actor.org_id is not None
        await self.partners.approve(Actor(None, None, Role.PLATFORM_ADMIN), actor.org_id)
        return actor

    async def shelf(self, actor: Actor, slug: str = "anuvad", **changes: Any) -> UUID:
        """Return a draft listing of a provider whose version counts as accepted."""
        made = await self.catalog.register(actor, draft(slug, **changes))
        async with self.db.transaction(PLATFORM_SCOPE) as connection:
            await catalog_store.accept_version(connection, made.service_id, made.version_id, self.clock.now())
        return made.service_id

    async def listing(self, actor: Actor, slug: str = "anuvad", **changes: Any) -> Listing:
        """Return a published listing of a provider."""
        return await self.catalog.publish(actor, await self.shelf(actor, slug, **changes))

    async def events(self, stream: str) -> list[DomainEvent]:
        async with self.db.transaction(PLATFORM_SCOPE) as connection:
            return await events.read_stream(connection, stream)


@pytest.fixture
async def market(database: Any, clock: SetClock, keyring: Keyring) -> AsyncIterator[Market]:
    """The market on a fresh database. Passwords are hashed quickly here; one test looks at the real cost."""
    identity = Identity(database.app, clock, keyring, session_hours=12, zone="Asia/Kolkata")
    identity._hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    partners = Partners(database.app, clock)
    catalog = Catalog(
        database.app,
        clock,
        keyring,
        partners,
        allowed_networks=["127.0.0.0/8"],
        https_only=False,
        provider_share=Decimal("0.70"),
    )
    discovery = Discovery(database.app, clock)
    yield Market(
        database.app,
        clock,
        keyring,
        identity,
        partners,
        catalog,
        discovery,
        Subscriptions(database.app, clock, identity, discovery),
    )

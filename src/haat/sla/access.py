"""What the use cases of service levels have in common: who may, and the event that each change leaves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from haat.infra import events
from haat.infra.net import hosted_networks
from haat.infra.postgres import PLATFORM_SCOPE, PUBLIC, Connection, Database, Scope, tenant
from haat.kernel.clock import Clock
from haat.kernel.errors import NotFound
from haat.kernel.permissions import PLATFORM, Actor, Permission
from haat.settings import Settings
from haat.sla import store


class Leveled:
    """Listings with a service level: their provider's members decide about it, and the operator; all may read it."""

    def __init__(self, db: Database, clock: Clock, settings: Settings) -> None:
        self._db, self._clock, self._settings = db, clock, settings
        self._zone = settings.zone
        self._notice = timedelta(hours=settings.maintenance_notice_hours)
        self._monthly = timedelta(hours=settings.maintenance_month_hours)

    @staticmethod
    def _edits(actor: Actor) -> None:
        """Raise PermissionDenied for who decides about no listing at all."""
        if not actor.may(Permission.SERVICES_SUSPEND):
            actor.require(Permission.SERVICES_EDIT)

    async def _own(self, connection: Connection, actor: Actor, service_id: UUID) -> store.Row:
        """Return a listing that the actor decides about, and nobody else meanwhile; raise NotFound for another's."""
        self._edits(actor)
        await store.lock(connection, service_id)
        listing = await store.listing(connection, service_id)
        if not actor.may(Permission.SERVICES_SUSPEND) and listing["org_id"] != actor.org_id:
            raise NotFound
        return listing

    async def _see(self, actor: Actor | None, service_id: UUID) -> None:
        """Raise NotFound for a listing that the actor may not see; None is somebody who isn't signed in."""
        async with self._db.transaction(_scope(actor)) as connection:
            if not await store.is_seen(connection, service_id):
                raise NotFound

    async def _record(
        self, connection: Connection, listing: store.Row, type: str, data: dict[str, Any], actor: Actor = PLATFORM
    ) -> None:
        """Write an event of a listing's level. Its stream is not the service's own: gateways need not read it anew."""
        await self._tell(connection, f"sla/{listing['id']}", listing["org_id"], type, data, actor)

    async def _tell(
        self, connection: Connection, stream: str, org: UUID, type: str, data: dict[str, Any], actor: Actor
    ) -> None:
        await events.append(
            connection, stream=stream, type=type, data=data, actor=actor.label, org=org, at=self._clock.now()
        )

    async def _hosted(self, connection: Connection, listing: store.Row) -> bool:
        """Tell whether a listing's model runs with us: then nobody can say from outside whose failure it is."""
        endpoint = await store.endpoint(connection, listing["id"])
        return bool(hosted_networks(endpoint, self._settings.models_address, listing["provider_slug"]))


def _scope(actor: Actor | None) -> Scope:
    if actor is None or (actor.org_id is None and not actor.may(Permission.PLATFORM_WATCH)):
        return PUBLIC
    return PLATFORM_SCOPE if actor.may(Permission.PLATFORM_WATCH) else tenant(actor.org_id)

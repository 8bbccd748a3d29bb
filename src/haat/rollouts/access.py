"""What the use cases of rollouts and experiments have in common: who may, and the event that each change leaves."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from haat.catalog.model import Listing, Version
from haat.catalog.service import Catalog
from haat.infra import events
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database, Scope, tenant
from haat.kernel.clock import Clock
from haat.kernel.errors import Conflict, NotFound, PermissionDenied
from haat.kernel.permissions import Actor, Permission
from haat.language.messages import _
from haat.partners.service import Partners
from haat.usage.variants import Variants


class Divided:
    """Services whose calls are divided. Their provider's members may decide that, and the operator."""

    def __init__(self, db: Database, clock: Clock, catalog: Catalog, partners: Partners, variants: Variants) -> None:
        self._db, self._clock, self._catalog, self._partners, self._variants = db, clock, catalog, partners, variants

    async def _scope(self, actor: Actor) -> Scope:
        """Return whose rows the actor may change; raise PermissionDenied."""
        if actor.may(Permission.SERVICES_SUSPEND):
            return PLATFORM_SCOPE
        actor.require(Permission.SERVICES_EDIT)
        partner = await self._partners.of(actor)
        if partner is None or partner.status != "approved":
            raise PermissionDenied(_("Services are offered by approved partners: register, or wait for the decision."))
        return tenant(partner.org_id)

    def _reading(self, actor: Actor) -> Scope:
        if actor.may(Permission.SERVICES_SUSPEND):
            return PLATFORM_SCOPE
        actor.require(Permission.SERVICES_READ_OWN)
        return tenant(actor.org_id)

    async def _held(self, connection: Connection, scope: Scope, service_id: UUID) -> tuple[Listing, list[Version]]:
        """Return a listing of one's own with its versions, locked; raise NotFound for another's."""
        listing, versions = await self._catalog.versions.held(connection, service_id)
        if not scope.platform and listing.org_id != scope.org:
            raise NotFound  # it may be visible, but it is somebody else's
        return listing, versions

    async def _record(
        self, connection: Connection, actor: Actor, listing: Listing, type: str, data: dict[str, Any]
    ) -> None:
        """Write an event of the service: gateways read a service anew when something happens to it."""
        await events.append(
            connection,
            stream=f"service/{listing.id}",
            type=type,
            data=data,
            actor=actor.label,
            org=listing.org_id,
            at=self._clock.now(),
        )


def default_of(versions: list[Version]) -> Version:
    """Return the version that calls get which name none; raise Conflict when there is none."""
    for version in versions:
        if version.is_default:
            return version
    raise Conflict(_("No version of this service has passed its acceptance call yet."))

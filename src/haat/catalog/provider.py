"""What the use cases of a provider have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

from haat.catalog import store
from haat.catalog.drafts import VersionDraft
from haat.catalog.model import Listing
from haat.infra import events
from haat.infra.keyring import Keyring
from haat.infra.net import IPNetwork, check_url, hosted_networks, parse_networks
from haat.infra.postgres import Connection, Database
from haat.kernel.clock import Clock
from haat.kernel.errors import NotFound, PermissionDenied
from haat.kernel.permissions import Actor, Permission
from haat.language.messages import _
from haat.partners.model import Partner
from haat.partners.service import Partners


class ProviderSide:
    """Who may offer something, which listing is whose, and the event that each change leaves."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        keyring: Keyring,
        partners: Partners,
        allowed_networks: list[str],
        https_only: bool,
        data_dir: Path | None = None,
        models_address: str = "",
    ) -> None:
        self._db = db
        self._clock = clock
        self._keyring = keyring
        self._partners = partners
        self._allowed = parse_networks(allowed_networks)
        self._https_only = https_only
        self._data_dir = data_dir
        self._models_address = models_address

    async def _approved_partner(self, actor: Actor) -> Partner:
        actor.require(Permission.SERVICES_EDIT)
        partner = await self._partners.of(actor)
        if partner is None or partner.status != "approved":
            raise PermissionDenied(_("Services are offered by approved partners: register, or wait for the decision."))
        return partner

    def _check_endpoints(self, partner: Partner, draft: VersionDraft) -> None:
        """Refuse what can't be an endpoint. Plain http is left to networks that the operator has opened."""
        for endpoint in filter(None, (draft.endpoint, *draft.policy.endpoints)):
            opened = self._networks_for(partner, endpoint)
            check_url(endpoint, https_only=self._https_only and not opened, grpc=True)

    def _networks_for(self, partner: Partner, endpoint: str) -> tuple[IPNetwork, ...]:
        """Return the networks that an endpoint may lie in although they are not public."""
        hosted = hosted_networks(endpoint, self._models_address, partner.slug)
        return (*self._allowed, *parse_networks((*partner.allowed_networks, *hosted)))

    async def _own(self, connection: Connection, partner: Partner, service_id: UUID) -> Listing:
        """Return the partner's listing, locked until the transaction ends; raise NotFound for another's."""
        await store.lock_service(connection, service_id)
        listing = await store.listing_by_id(connection, service_id, self._clock.now())
        if listing.org_id != partner.org_id:
            raise NotFound  # it may be visible, but it is somebody else's
        return listing

    async def _record(
        self,
        connection: Connection,
        actor: Actor,
        service_id: UUID,
        org_id: UUID,
        type: str,
        data: dict[str, Any],
    ) -> None:
        await events.append(
            connection,
            stream=f"service/{service_id}",
            type=type,
            data=data,
            actor=actor.label,
            org=org_id,
            at=self._clock.now(),
        )

"""Use cases of providers, and of the operator above them; `haat.catalog.discovery` has the visitors'."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from haat.catalog import acceptance, store, tensors
from haat.catalog.discovery import index_words
from haat.catalog.model import (
    TASK_DIALECTS,
    Listing,
    PriceDraft,
    SampleCall,
    ServiceDraft,
    ServicePolicyDraft,
    Status,
    Version,
    VersionDraft,
    VersionPolicyDraft,
    check_transition,
)
from haat.catalog.quality import check_quality
from haat.identity.model import check_name
from haat.infra import events
from haat.infra.keyring import Keyring
from haat.infra.net import check_url, parse_networks
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database, tenant
from haat.kernel.clock import Clock, check_ahead
from haat.kernel.errors import AcceptanceFailed, Conflict, NotFound, PermissionDenied, ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.permissions import Actor, Permission
from haat.kernel.reshaping import Reshaping
from haat.partners.model import Partner
from haat.partners.service import Partners

_PROVIDER_SUSPENDED = "The provider is suspended."


@dataclass(frozen=True, slots=True)
class Registered:
    """A new service, and the credential that its endpoint is to expect: shown once."""

    service_id: UUID
    version_id: UUID
    credential_header: str
    credential: str


class Catalog:
    """Services, versions, prices, acceptance."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        keyring: Keyring,
        partners: Partners,
        *,
        allowed_networks: list[str],
        https_only: bool,
        provider_share: Decimal,
    ) -> None:
        self._db = db
        self._clock = clock
        self._keyring = keyring
        self._partners = partners
        self._allowed = parse_networks(allowed_networks)
        self._https_only = https_only
        self._share = provider_share

    # --- providers ------------------------------------------------------------------------------

    async def register(self, actor: Actor, draft: ServiceDraft) -> Registered:
        """Put a service on the shelf as a draft, with its first version and price.

        A credential for calling the provider is made unless the draft brings one; either is stored
        encrypted. Raise AlreadyExists, PermissionDenied before approval, AddressForbidden.
        """
        if draft.version.policy.serves:
            message = "There is no other version yet."
            raise ValidationFailed(errors=[{"field": "version.policy.serves", "message": message}])
        partner = await self._approved_partner(actor)
        self._check_endpoints(partner, draft.version)
        service_id, version_id, now = new_id(), new_id(), self._clock.now()
        secret = draft.credential or f"Bearer haat_provider_{secrets.token_urlsafe(24)}"
        ciphertext = self._keyring.encrypt(secret, str(service_id))
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            await store.add_service(connection, service_id, partner.org_id, partner.slug, draft, now)
            await store.add_version(connection, version_id, service_id, draft.version, now)
            await store.set_provider_credential(
                connection, service_id, partner.org_id, draft.credential_header, ciphertext, secret[-4:], now
            )
            await store.add_price(connection, new_id(), service_id, draft.unit, draft.price, self._share, now)
            await self._record(
                connection, actor, service_id, partner.org_id, "service.registered", {"slug": draft.slug}
            )
        return Registered(service_id, version_id, draft.credential_header, secret)

    async def add_version(self, actor: Actor, service_id: UUID, draft: VersionDraft) -> UUID:
        """Add a version beside the others; it serves nobody before it is accepted."""
        partner = await self._approved_partner(actor)
        self._check_endpoints(partner, draft)
        version_id, now = new_id(), self._clock.now()
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            await self._own(connection, partner, service_id)
            if draft.policy.serves:
                executing = _executing(await store.versions(connection, service_id), draft.policy.serves)
                draft = draft.model_copy(update={"endpoint": executing.endpoint})
            await store.add_version(connection, version_id, service_id, draft, now)
            await self._record(
                connection, actor, service_id, partner.org_id, "service.version_added", {"version": draft.version}
            )
        return version_id

    async def accept(self, actor: Actor, service_id: UUID, version_id: UUID) -> acceptance.Report:
        """Make the acceptance call at each endpoint; when all succeed the version becomes the default one.

        An adapter is tried in its own shape, at the endpoints of the version it serves, and serves beside it.
        Raise AcceptanceFailed with the steps when it doesn't.
        """
        partner, version, report = await self._try(actor, service_id, version_id)
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            listing = await self._own(connection, partner, service_id)
            if listing.status == "retired":
                raise Conflict("The listing is retired: it takes no new versions.")
            versions = await store.versions(connection, service_id)
            if version.serves and _executing(versions, version.serves).accepted_at is None:
                raise Conflict(f"Version {version.serves}, which this one adapts, is to be accepted first.")
            await store.accept_version(
                connection, service_id, version_id, self._clock.now(), default=not version.serves
            )
            await self._record(
                connection, actor, service_id, partner.org_id, "service.accepted", {"version": version.version}
            )
            listing = await store.listing_by_id(connection, service_id, self._clock.now())
            if listing.status in ("published", "deprecated"):
                await store.index(connection, listing.id, index_words(listing))
        return report

    async def move_endpoint(self, actor: Actor, service_id: UUID, version_id: UUID, endpoint: str) -> acceptance.Report:
        """Send a version's calls to another address, once that address has passed the acceptance call."""
        partner, version, report = await self._try(actor, service_id, version_id, [endpoint])
        if version.serves:
            raise Conflict(f"The version adapts version {version.serves}: move that one's endpoint.")
        if endpoint.rstrip("/") in version.endpoints[1:]:
            raise Conflict("That endpoint is one of the version's further ones already.")
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            await self._own(connection, partner, service_id)
            await store.set_endpoint(connection, version_id, endpoint)
            await self._record(
                connection, actor, service_id, partner.org_id, "service.endpoint_moved", {"version": version.version}
            )
        return report

    async def set_version_policy(
        self, actor: Actor, service_id: UUID, version_id: UUID, draft: VersionPolicyDraft
    ) -> acceptance.Report:
        """Replace what a version says to the gateway, once each further endpoint has passed the acceptance call.

        With other changes to requests and answers all its endpoints have to pass it. Which version an
        adapter serves stays: add another adapter instead.
        """
        partner, version, report = await self._try(actor, service_id, version_id, policy=draft)
        if version.endpoint in draft.endpoints:
            raise Conflict("That endpoint is the version's first one already.")
        if draft.validation is not None and version.dialect not in TASK_DIALECTS:
            message = "is for versions that speak the task schema"
            raise ValidationFailed(errors=[{"field": "validation", "message": message}])
        try:
            check_quality(draft.quality, version.language_pairs)
        except ValueError as error:
            raise ValidationFailed(errors=[{"field": "quality", "message": str(error)}]) from error
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            await self._own(connection, partner, service_id)
            await store.set_version_policy(connection, version_id, draft)
            await self._record(
                connection,
                actor,
                service_id,
                partner.org_id,
                "service.version_policy_changed",
                {"version": version.version},
            )
        return report

    async def deprecate_version(
        self, actor: Actor, service_id: UUID, version_id: UUID, *, sunset_at: datetime | None, successor: str
    ) -> Version:
        """Announce with every answer that a version should be left, and when it ends; None names no day."""
        partner, now = await self._approved_partner(actor), self._clock.now()
        if sunset_at is not None:
            sunset_at = check_ahead(sunset_at, now, "sunset_at")
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            await self._own(connection, partner, service_id)
            versions = await store.versions(connection, service_id)
            version = next((one for one in versions if one.id == version_id), None)
            if version is None:
                raise NotFound
            if successor and (successor == version.version or successor not in {one.version for one in versions}):
                message = "Name another version of this service."
                raise ValidationFailed(errors=[{"field": "successor", "message": message}])
            since = version.deprecated_at or now
            return await self._announce(connection, actor, partner, service_id, version, since, sunset_at, successor)

    async def restore_version(self, actor: Actor, service_id: UUID, version_id: UUID) -> Version:
        """Take back what was announced of a version's end."""
        partner = await self._approved_partner(actor)
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            await self._own(connection, partner, service_id)
            versions = await store.versions(connection, service_id)
            version = next((one for one in versions if one.id == version_id), None)
            if version is None:
                raise NotFound
            return await self._announce(connection, actor, partner, service_id, version, None, None, "")

    async def _announce(
        self,
        connection: Connection,
        actor: Actor,
        partner: Partner,
        service_id: UUID,
        version: Version,
        deprecated_at: datetime | None,
        sunset_at: datetime | None,
        successor: str,
    ) -> Version:
        await store.announce_end(
            connection, version.id, deprecated_at=deprecated_at, sunset_at=sunset_at, successor=successor
        )
        data = {
            "version": version.version,
            "sunset_at": sunset_at.isoformat() if sunset_at else None,
            "successor": successor,
        }
        kind = "service.version_deprecated" if deprecated_at else "service.version_restored"
        await self._record(connection, actor, service_id, partner.org_id, kind, data)
        return next(one for one in await store.versions(connection, service_id) if one.id == version.id)

    async def set_policy(self, actor: Actor, service_id: UUID, draft: ServicePolicyDraft) -> Listing:
        """Replace what a service says to the gateway: whether its calls may be repeated, what it can stand in for."""
        partner = await self._approved_partner(actor)
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            await self._own(connection, partner, service_id)
            await store.set_policy(connection, service_id, draft)
            data = draft.model_dump(mode="json", exclude_defaults=True)
            await self._record(connection, actor, service_id, partner.org_id, "service.policy_changed", data)
            return await store.listing_by_id(connection, service_id, self._clock.now())

    async def purge_cache(self, actor: Actor, service_id: UUID) -> int:
        """Have every gateway forget what it keeps of a service's answers, and return how often that was done.

        Its provider may, and the operator.
        """
        if actor.may(Permission.SERVICES_SUSPEND):
            async with self._db.transaction(PLATFORM_SCOPE) as connection:
                await store.lock_service(connection, service_id)
                listing = await store.listing_by_id(connection, service_id, self._clock.now())
                return await self._purge(connection, actor, listing)
        partner = await self._approved_partner(actor)
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            return await self._purge(connection, actor, await self._own(connection, partner, service_id))

    async def _purge(self, connection: Connection, actor: Actor, listing: Listing) -> int:
        generation = await store.purge_cache(connection, listing.id)
        data = {"generation": generation}
        await self._record(connection, actor, listing.id, listing.org_id, "service.cache_purged", data)
        return generation

    async def _try(
        self,
        actor: Actor,
        service_id: UUID,
        version_id: UUID,
        endpoints: Sequence[str] | None = None,
        policy: VersionPolicyDraft | None = None,
    ) -> tuple[Partner, Version, acceptance.Report]:
        """Make the acceptance call at these endpoints, or the version's own; raise AcceptanceFailed.

        With a new ``policy`` it is made as that says, at whatever is new in it. No transaction is open meanwhile.
        """
        partner = await self._approved_partner(actor)
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            await self._own(connection, partner, service_id)
            versions = await store.versions(connection, service_id)
            version = next((one for one in versions if one.id == version_id), None)
            stored = await store.provider_credential(connection, service_id)
        if version is None:
            raise NotFound
        present = VersionPolicyDraft.model_validate(
            {key: value for key, value in version.policy.items() if key in VersionPolicyDraft.model_fields}
        )
        if policy is not None and policy.serves != version.serves:
            raise Conflict("Whether a version adapts another one, and which, stays as it was declared.")
        if policy is not None and (policy.tensors is None) != (present.tensors is None):
            raise Conflict("Whether a version is asked in tensors stays as it was declared.")
        executing = _executing(versions, version.serves) if version.serves else version
        if policy is not None and (policy.request, policy.answer, policy.tensors) == (
            present.request,
            present.answer,
            present.tensors,
        ):
            endpoints = policy.endpoints
        elif policy is not None:
            endpoints = [executing.endpoint, *(executing.endpoints[1:] if version.serves else policy.endpoints)]
        changes = policy or present
        asked_in = tensors.stored(executing.policy) if changes.tensors is None else changes.tensors.tensor_map()
        credential = (stored[0], self._keyring.decrypt(stored[1], str(service_id))) if stored else None
        steps: list[acceptance.Step] = []
        for endpoint in executing.endpoints if endpoints is None else endpoints:
            tried = await acceptance.check(
                endpoint,
                dialect=version.dialect,
                sample=SampleCall.model_validate(version.sample),
                health_path=version.health_path,
                warm_up_seconds=version.warm_up_seconds,
                credential=credential,
                allowed=(*self._allowed, *parse_networks(partner.allowed_networks)),
                https_only=self._https_only,
                request=Reshaping([change.model_dump() for change in changes.request]),
                answer=Reshaping([change.model_dump() for change in changes.answer]),
                tensors=asked_in,
            )
            tried.require()
            steps += tried.steps
        return await self._approved_partner(actor), version, acceptance.Report(steps)  # it took time: still approved?

    async def publish(self, actor: Actor, service_id: UUID) -> Listing:
        """Open a listing that has an accepted version; raise AcceptanceFailed when it has none."""
        partner = await self._approved_partner(actor)
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            _not_suspended(await self._own(connection, partner, service_id))
            if not any(version.is_default for version in await store.versions(connection, service_id)):
                raise AcceptanceFailed("No version of this service has passed its acceptance call yet.")
            await store.set_sunset(connection, service_id, None)
            return await self._move(connection, actor, service_id, "published", "")

    async def deprecate(self, actor: Actor, service_id: UUID, sunset_at: datetime, reason: str) -> Listing:
        """Announce the end of a listing; it serves until ``sunset_at``."""
        partner = await self._approved_partner(actor)
        sunset_at = check_ahead(sunset_at, self._clock.now(), "sunset_at")
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            _not_suspended(await self._own(connection, partner, service_id))
            await store.set_sunset(connection, service_id, sunset_at)
            return await self._move(connection, actor, service_id, "deprecated", _reason(reason))

    async def retire(self, actor: Actor, service_id: UUID) -> Listing:
        """Take a listing off the market for good."""
        partner = await self._approved_partner(actor)
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            await self._own(connection, partner, service_id)
            return await self._move(connection, actor, service_id, "retired", "")

    async def set_price(self, actor: Actor, service_id: UUID, draft: PriceDraft) -> int:
        """Add a price that counts from now on and return its version; earlier usage keeps the earlier price."""
        partner = await self._approved_partner(actor)
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            listing = await self._own(connection, partner, service_id)
            version = await store.add_price(
                connection, new_id(), service_id, listing.unit, draft, self._share, self._clock.now()
            )
            await self._record(
                connection,
                actor,
                service_id,
                partner.org_id,
                "service.priced",
                {"version": version, "plan": draft.plan_code, "unit_price": str(draft.unit_price)},
            )
        return version

    async def invite(self, actor: Actor, service_id: UUID, org_id: UUID) -> None:
        """Let an organisation see a listing whose visibility is ``invited``."""
        partner = await self._approved_partner(actor)
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            await self._own(connection, partner, service_id)
            await store.invite(connection, service_id, org_id)
            await self._record(
                connection, actor, service_id, partner.org_id, "service.invited", {"organisation": str(org_id)}
            )

    async def own(self, actor: Actor) -> list[Listing]:
        """Return the listings of the actor's own organisation, drafts included."""
        actor.require(Permission.SERVICES_READ_OWN)
        async with self._db.transaction(tenant(actor.org_id)) as connection:
            assert actor.org_id is not None
            return await store.of_provider(connection, actor.org_id, self._clock.now())

    # --- the operator ---------------------------------------------------------------------------

    async def suspend(self, actor: Actor, service_id: UUID, reason: str) -> Listing:
        """Stop a listing on every gateway within a second; ``reason`` is shown to its users."""
        actor.require(Permission.SERVICES_SUSPEND)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return await self._move(connection, actor, service_id, "suspended", _reason(reason))

    async def suspend_provider(self, actor: Actor, org_id: UUID, reason: str) -> list[Listing]:
        """Suspend every open listing of a provider; doing it again suspends what was opened since."""
        actor.require(Permission.SERVICES_SUSPEND)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return [
                await self._move(connection, actor, listing.id, "suspended", f"{_PROVIDER_SUSPENDED} {reason}".strip())
                for listing in await store.of_provider(connection, org_id, self._clock.now())
                if listing.status in ("published", "deprecated")
            ]

    async def restore_provider(self, actor: Actor, org_id: UUID) -> list[Listing]:
        """Open what `suspend_provider` suspended; what was suspended for its own sake stays so."""
        actor.require(Permission.SERVICES_SUSPEND)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            listings = await store.of_provider(connection, org_id, self._clock.now())
        return [
            await self.restore(actor, listing.id)
            for listing in listings
            if listing.status == "suspended" and listing.status_reason.startswith(_PROVIDER_SUSPENDED)
        ]

    async def restore(self, actor: Actor, service_id: UUID) -> Listing:
        """Open a suspended listing again: a deprecated one goes on towards its sunset."""
        actor.require(Permission.SERVICES_SUSPEND)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await store.lock_service(connection, service_id)
            listing = await store.listing_by_id(connection, service_id, self._clock.now())
            if listing.status != "suspended":
                raise Conflict(f"The listing is {listing.status}: only a suspended one is opened again.")
            return await self._move(
                connection, actor, service_id, "deprecated" if listing.sunset_at else "published", ""
            )

    # --- within ---------------------------------------------------------------------------------

    async def _approved_partner(self, actor: Actor) -> Partner:
        actor.require(Permission.SERVICES_EDIT)
        partner = await self._partners.of(actor)
        if partner is None or partner.status != "approved":
            raise PermissionDenied("Services are offered by approved partners: register, or wait for the decision.")
        return partner

    def _check_endpoints(self, partner: Partner, draft: VersionDraft) -> None:
        """Refuse what can't be an endpoint. Plain http is left to networks that the operator has opened."""
        opened = bool(self._allowed or partner.allowed_networks)
        for endpoint in filter(None, (draft.endpoint, *draft.policy.endpoints)):
            check_url(endpoint, https_only=self._https_only and not opened)

    async def _own(self, connection: Connection, partner: Partner, service_id: UUID) -> Listing:
        """Return the partner's listing, locked until the transaction ends; raise NotFound for another's."""
        await store.lock_service(connection, service_id)
        listing = await store.listing_by_id(connection, service_id, self._clock.now())
        if listing.org_id != partner.org_id:
            raise NotFound  # it may be visible, but it is somebody else's
        return listing

    async def _move(
        self, connection: Connection, actor: Actor, service_id: UUID, status: Status, reason: str
    ) -> Listing:
        now = self._clock.now()
        await store.lock_service(connection, service_id)
        listing = await store.listing_by_id(connection, service_id, now)
        check_transition(listing.status, status)
        await store.set_status(connection, service_id, status, reason, now)
        listing = await store.listing_by_id(connection, service_id, now)
        if status in ("published", "deprecated"):
            await store.index(connection, listing.id, index_words(listing))
        else:
            await store.unindex(connection, service_id)
        await self._record(connection, actor, service_id, listing.org_id, f"service.{status}", {"reason": reason})
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


def _executing(versions: Sequence[Version], name: str) -> Version:
    """Return the version that an adapter serves; raise ValidationFailed for one that can't be adapted."""
    found = next((one for one in versions if one.version == name), None)
    if found is None or found.serves:
        message = "Name a version of this service that is executed itself."
        raise ValidationFailed(errors=[{"field": "policy.serves", "message": message}])
    return found


def _not_suspended(listing: Listing) -> None:
    if listing.status == "suspended":
        raise Conflict("The operator has suspended this listing: only the operator opens it again.")


def _reason(reason: str) -> str:
    return check_name(reason, "reason", 500) if reason.strip() else ""

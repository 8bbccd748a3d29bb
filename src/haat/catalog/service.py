"""Use cases of providers, and of the operator above them; `haat.catalog.discovery` has the visitors'."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

from haat.catalog import search_store, store
from haat.catalog.discovery import index
from haat.catalog.drafts import PriceDraft, ServiceDraft, ServicePolicyDraft
from haat.catalog.model import Listing, Status, check_transition
from haat.catalog.pricing import MeterDraft
from haat.catalog.provider import ProviderSide
from haat.catalog.versions import Versions
from haat.infra.keyring import Keyring
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database, tenant
from haat.kernel.clock import Clock, check_ahead
from haat.kernel.errors import AcceptanceFailed, Conflict, ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.permissions import Actor, Permission
from haat.kernel.prices import Component, Meter
from haat.kernel.text import check_name
from haat.language.messages import _, gettext
from haat.partners.service import Partners

_INDEXED_AT_ONCE = 200
_BEGUN_SINCE = timedelta(days=7)  # the job that looks for them may have stood still
_PROVIDER_SUSPENDED = "The provider is suspended."


@dataclass(frozen=True, slots=True)
class Registered:
    """A new service, and the credential that its endpoint is to expect: shown once."""

    service_id: UUID
    version_id: UUID
    credential_header: str
    credential: str


async def components_of(connection: Connection, service_id: UUID, draft: PriceDraft) -> tuple[Component, ...]:
    """Return what a price would ask for on a listing's meters, stored or not; raise ValidationFailed."""
    return await store.components(connection, service_id, draft)


class Catalog(ProviderSide):
    """Services and prices; ``versions`` are their versions."""

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
        data_dir: Path | None = None,
        models_address: str = "",
    ) -> None:
        super().__init__(db, clock, keyring, partners, allowed_networks, https_only, data_dir, models_address)
        self._share = provider_share
        self.versions = Versions(db, clock, keyring, partners, allowed_networks, https_only, data_dir, models_address)

    # --- providers ------------------------------------------------------------------------------

    async def register(self, actor: Actor, draft: ServiceDraft) -> Registered:
        """Put a service on the shelf as a draft, with its first version and price.

        A credential for calling the provider is made unless the draft brings one; either is stored
        encrypted. Raise AlreadyExists, PermissionDenied before approval, AddressForbidden.
        """
        if draft.version.policy.serves:
            message = _("There is no other version yet.")
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

    async def publish(self, actor: Actor, service_id: UUID) -> Listing:
        """Open a listing that has an accepted version; raise AcceptanceFailed when it has none."""
        partner = await self._approved_partner(actor)
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            _not_suspended(await self._own(connection, partner, service_id))
            if not any(version.is_default for version in await store.versions(connection, service_id)):
                raise AcceptanceFailed(_("No version of this service has passed its acceptance call yet."))
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
        """Add a price that counts from now on, or from a later moment that it names, and return its version.

        Earlier usage keeps the earlier price. Raise ValidationFailed for one that can't be charged, Conflict for one
        that would begin before the newest does.
        """
        partner = await self._approved_partner(actor)
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            listing = await self._own(connection, partner, service_id)
            now = self._clock.now()
            version = await store.add_price(connection, new_id(), service_id, listing.unit, draft, self._share, now)
            await search_store.renew_price(connection, await store.listing_by_id(connection, service_id, now))
            await self._record(
                connection,
                actor,
                service_id,
                partner.org_id,
                "service.priced",
                {"version": version, "plan": draft.plan_code, "unit_price": str(draft.unit_price)}
                | ({"models": [one.model for one in draft.components]} if draft.components else {}),
            )
        return version

    async def define_meter(self, actor: Actor, service_id: UUID, draft: MeterDraft) -> Meter:
        """Add a meter that cards of a service can put a price on. It is never changed; raise AlreadyExists."""
        partner = await self._approved_partner(actor)
        meter = draft.meter()
        async with self._db.transaction(tenant(partner.org_id)) as connection:
            await self._own(connection, partner, service_id)
            await store.add_meter(connection, new_id(), service_id, meter, self._clock.now())
            await self._record(connection, actor, service_id, partner.org_id, "service.meter_defined", meter.data())
        return meter

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
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return await self.suspend_within(connection, actor, service_id, reason)

    async def suspend_within(self, connection: Connection, actor: Actor, service_id: UUID, reason: str) -> Listing:
        """Do as `suspend` within the caller's transaction, which has the platform's scope."""
        actor.require(Permission.SERVICES_SUSPEND)
        return await self._move(connection, actor, service_id, "suspended", _reason(reason))

    async def suspend_provider(self, actor: Actor, org_id: UUID, reason: str) -> list[Listing]:
        """Suspend every open listing of a provider; doing it again suspends what was opened since."""
        actor.require(Permission.SERVICES_SUSPEND)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            said = f"{_PROVIDER_SUSPENDED} {reason}".strip()
            moved = [
                await self._move(connection, actor, listing.id, "suspended", said, unindex=False)
                for listing in await store.of_provider(connection, org_id, self._clock.now())
                if listing.status in ("published", "deprecated")
            ]
            await search_store.unindex(connection, [listing.id for listing in moved])
            return moved

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
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return await self.restore_within(connection, actor, service_id)

    async def restore_within(self, connection: Connection, actor: Actor, service_id: UUID) -> Listing:
        """Do as `restore` within the caller's transaction, which has the platform's scope."""
        actor.require(Permission.SERVICES_SUSPEND)
        await store.lock_service(connection, service_id)
        listing = await store.listing_by_id(connection, service_id, self._clock.now())
        if listing.status != "suspended":
            raise Conflict(
                _("The listing is %(status)s: only a suspended one is opened again.", status=gettext(listing.status))
            )
        return await self._move(connection, actor, service_id, "deprecated" if listing.sunset_at else "published", "")

    # --- the index ------------------------------------------------------------------------------

    async def index_some(self, actor: Actor) -> int:
        """Index up to two hundred open listings that are not yet; return how many there were."""
        actor.require(Permission.SERVICES_SUSPEND)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            waiting = await search_store.unindexed(connection, _INDEXED_AT_ONCE)
        for service_id in waiting:
            async with self._db.transaction(PLATFORM_SCOPE) as connection:
                await store.lock_service(connection, service_id)
                listing = await store.listing_by_id(connection, service_id, self._clock.now())
                if listing.status in ("published", "deprecated"):
                    await index(connection, listing)
        return len(waiting)

    async def renew_prices(self, actor: Actor) -> int:
        """Let listings be found by announced prices that have begun; return how many changed."""
        actor.require(Permission.SERVICES_SUSPEND)
        now = self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return await search_store.renew_announced_prices(connection, now - _BEGUN_SINCE, now)

    async def rank(self, actor: Actor, used: Sequence[tuple[UUID, int, float | None]]) -> tuple[int, int]:
        """Order the catalog by a week's use: calls, and the p95 in ms, of each listing that had any.

        Return how many listings and how many words changed their place.
        """
        actor.require(Permission.SERVICES_SUSPEND)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            listings = await search_store.renew_use(connection, used)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return listings, await search_store.renew_popular_words(connection)

    # --- within ---------------------------------------------------------------------------------

    async def _move(
        self,
        connection: Connection,
        actor: Actor,
        service_id: UUID,
        status: Status,
        reason: str,
        *,
        unindex: bool = True,
    ) -> Listing:
        now = self._clock.now()
        await store.lock_service(connection, service_id)
        listing = await store.listing_by_id(connection, service_id, now)
        check_transition(listing.status, status)
        await store.set_status(connection, service_id, status, reason, now)
        listing = await store.listing_by_id(connection, service_id, now)
        if status in ("published", "deprecated"):
            await index(connection, listing)
        elif unindex:
            await search_store.unindex(connection, [service_id])
        await self._record(connection, actor, service_id, listing.org_id, f"service.{status}", {"reason": reason})
        return listing


def _not_suspended(listing: Listing) -> None:
    if listing.status == "suspended":
        raise Conflict(_("The operator has suspended this listing: only the operator opens it again."))


def _reason(reason: str) -> str:
    return check_name(reason, "reason", 500) if reason.strip() else ""

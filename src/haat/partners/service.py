"""Use cases of partners."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from haat.identity.model import check_email
from haat.infra import events
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database, tenant
from haat.kernel.clock import Clock
from haat.kernel.errors import NotFound, PermissionDenied, ValidationFailed
from haat.kernel.gstin import check_gstin
from haat.kernel.permissions import Actor, Permission
from haat.kernel.text import check_name
from haat.language.messages import _
from haat.partners import store
from haat.partners.model import (
    BUSINESS_TYPES,
    Partner,
    PartnerStatus,
    check_networks,
    check_slug,
    check_transition,
)


class Partners:
    """Registration of providers and what the operator decides about them."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def register(
        self,
        actor: Actor,
        *,
        slug: str,
        company_name: str,
        email: str,
        contact_person: str,
        business_type: str,
        gstin: str | None = None,
    ) -> Partner:
        """Ask to become a provider; the operator decides. Who was turned down may ask again.

        Raise AlreadyExists for a taken name, or for an organisation that has registered.
        """
        actor.require(Permission.PARTNER_EDIT)
        if actor.org_id is None:
            raise PermissionDenied
        if business_type not in BUSINESS_TYPES:
            message = _("Choose one of %(business_types)s.", business_types=", ".join(BUSINESS_TYPES))
            raise ValidationFailed(errors=[{"field": "business_type", "message": message}])
        partner = Partner(
            org_id=actor.org_id,
            slug=check_slug(slug),
            company_name=check_name(company_name, "company_name"),
            email=check_email(email),
            contact_person=check_name(contact_person, "contact_person"),
            business_type=business_type,
            gstin=check_gstin(gstin) if gstin else None,
            status="pending",
            reason="",
            allowed_networks=(),
            created_at=self._clock.now(),
            decided_at=None,
        )
        async with self._db.transaction(tenant(actor.org_id)) as connection:
            await store.add(connection, partner)
            await self._record(connection, actor, partner, "partner.registered", {"slug": partner.slug})
        return partner

    async def of(self, actor: Actor) -> Partner | None:
        """Return the actor's own partner record, or None before registration."""
        if actor.org_id is None:
            return None
        async with self._db.transaction(tenant(actor.org_id)) as connection:
            return await store.partner(connection, actor.org_id)

    async def get(self, actor: Actor, org_id: UUID) -> Partner:
        """Return any partner, for the operator; raise NotFound."""
        actor.require(Permission.PARTNERS_DECIDE)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            found = await store.partner(connection, org_id)
        if found is None:
            raise NotFound
        return found

    async def by_slug(self, slug: str) -> Partner | None:
        """Return a partner by its public name, or None."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return await store.by_slug(connection, slug)

    async def directory(self, actor: Actor, status: PartnerStatus | None = None) -> list[Partner]:
        """Return all partners, or those in one state (``pending`` is the approval queue)."""
        actor.require(Permission.PARTNERS_DECIDE)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return await store.in_status(connection, status)

    async def approve(self, actor: Actor, org_id: UUID) -> Partner:
        """Let a partner offer services; raise Conflict when it isn't waiting for that."""
        return await self._decide(actor, org_id, "approved", "")

    async def reject(self, actor: Actor, org_id: UUID, reason: str) -> Partner:
        """Turn a registration down, with the reason the partner is told."""
        return await self._decide(actor, org_id, "rejected", check_name(reason, "reason", 500))

    async def suspend(self, actor: Actor, org_id: UUID, reason: str) -> Partner:
        """Stop all of a partner's services at once."""
        return await self._decide(actor, org_id, "suspended", check_name(reason, "reason", 500))

    async def allow_networks(self, actor: Actor, org_id: UUID, networks: list[str]) -> Partner:
        """Set the networks (CIDR) that one partner's endpoints may lie in although they aren't public."""
        actor.require(Permission.PARTNERS_DECIDE)
        allowed = check_networks(networks)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            partner = await store.partner_for_change(connection, org_id)
            await store.set_networks(connection, org_id, allowed)
            await self._record(connection, actor, partner, "partner.networks_allowed", {"networks": list(allowed)})
        return replace(partner, allowed_networks=allowed)

    async def _decide(self, actor: Actor, org_id: UUID, status: PartnerStatus, reason: str) -> Partner:
        actor.require(Permission.PARTNERS_DECIDE)
        now = self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            partner = await store.partner_for_change(connection, org_id)
            check_transition(partner.status, status)
            await store.set_status(connection, org_id, status, reason, now)
            await self._record(
                connection, actor, partner, f"partner.{status}", {"slug": partner.slug, "reason": reason}
            )
        return replace(partner, status=status, reason=reason, decided_at=now)

    async def _record(
        self, connection: Connection, actor: Actor, partner: Partner, type: str, data: dict[str, object]
    ) -> None:
        await events.append(
            connection,
            stream=f"partner/{partner.org_id}",
            type=type,
            data=data,
            actor=actor.label,
            org=partner.org_id,
            at=self._clock.now(),
        )

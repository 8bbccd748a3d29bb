"""Control API of partners."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter

from haat.control.context import ActorOf, Body, PlatformOf
from haat.flags.switchboard import PROVIDER_REGISTRATION
from haat.kernel.errors import NotFound
from haat.language.messages import _
from haat.partners.model import Partner, PartnerStatus

router = APIRouter(tags=["partners"])


class Registration(Body):
    slug: str
    company_name: str
    email: str
    contact_person: str
    business_type: str
    gstin: str | None = None


class Reason(Body):
    reason: str


class Networks(Body):
    networks: list[str]


@router.post("/partner", status_code=201)
async def register(body: Registration, actor: ActorOf, platform: PlatformOf) -> Partner:
    """Ask to become a provider."""
    await platform.switchboard.require(PROVIDER_REGISTRATION, actor)
    return await platform.partners.register(actor, **body.model_dump())


@router.get("/partner")
async def own(actor: ActorOf, platform: PlatformOf) -> Partner:
    """Show the own registration and where it stands."""
    partner = await platform.partners.of(actor)
    if partner is None:
        raise NotFound(_("Your organisation has not registered as a provider."))
    return partner


@router.get("/partners")
async def directory(actor: ActorOf, platform: PlatformOf, status: PartnerStatus | None = None) -> list[Partner]:
    """List partners, for the operator."""
    return await platform.partners.directory(actor, status)


@router.post("/partners/{org_id}/approve")
async def approve(org_id: UUID, actor: ActorOf, platform: PlatformOf) -> Partner:
    """Let a partner offer services."""
    return await platform.partners.approve(actor, org_id)


@router.post("/partners/{org_id}/reject")
async def reject(org_id: UUID, body: Reason, actor: ActorOf, platform: PlatformOf) -> Partner:
    """Turn a registration down."""
    return await platform.partners.reject(actor, org_id, body.reason)


@router.post("/partners/{org_id}/suspend")
async def suspend(org_id: UUID, body: Reason, actor: ActorOf, platform: PlatformOf) -> Partner:
    """Stop all services of a partner."""
    return await platform.partners.suspend(actor, org_id, body.reason)


@router.put("/partners/{org_id}/networks")
async def allow_networks(org_id: UUID, body: Networks, actor: ActorOf, platform: PlatformOf) -> Partner:
    """Open networks that are not public for one partner's endpoints."""
    return await platform.partners.allow_networks(actor, org_id, body.networks)

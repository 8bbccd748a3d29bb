"""Control API of plans and subscriptions."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter
from pydantic import Field

from haat.control.context import ActorOf, Body, PlatformOf, VisitorOf
from haat.subscriptions.model import Plan, Subscription

router = APIRouter(tags=["subscriptions"])


class NewSubscription(Body):
    application_id: UUID
    service_id: UUID
    plan: str = "free"


class PlanChange(Body):
    plan: str


class PlanTerms(Body):
    """What a plan allows; a limit that is left out or null is none."""

    per_minute: int | None = None
    per_hour: int | None = None
    per_day: int | None = None
    quota_per_month: int | None = None
    max_concurrent: int | None = None
    burst: int | None = None
    quota_per_day: int | None = None
    quota_unit: str = "requests"
    quota_reset: Literal["calendar", "anniversary"] = "calendar"
    overage: bool = False
    fallback: bool = False
    cached_share: Decimal = Decimal(1)


class NewPlan(PlanTerms):
    code: str
    name: str
    rank: Annotated[int, Field(ge=0, le=1000)] = 5


@router.get("/plans")
async def plans(visitor: VisitorOf, platform: PlatformOf, service_id: UUID | None = None) -> list[Plan]:
    """List the plans of the platform, and of one service."""
    if service_id is not None:
        await platform.discovery.listing_by_id(visitor, service_id)  # plans of a hidden listing are hidden too
    return await platform.subscriptions.plans(service_id)


@router.post("/services/{service_id}/plans", status_code=201)
async def define_plan(service_id: UUID, body: NewPlan, actor: ActorOf, platform: PlatformOf) -> Plan:
    """Add a plan of one's own for one's own service."""
    return await platform.subscriptions.define_plan(actor, service_id, **body.model_dump())


@router.patch("/services/{service_id}/plans/{code}")
async def redefine_plan(service_id: UUID, code: str, body: PlanTerms, actor: ActorOf, platform: PlatformOf) -> Plan:
    """Change what a plan of one's own allows, for its subscribers too; what is left out stays."""
    changes = body.model_dump(exclude_unset=True)
    return await platform.subscriptions.redefine_plan(actor, service_id, code, **changes)


@router.get("/subscriptions")
async def subscriptions(actor: ActorOf, platform: PlatformOf) -> list[Subscription]:
    """List the organisation's active subscriptions."""
    return await platform.subscriptions.of(actor)


@router.post("/subscriptions", status_code=201)
async def subscribe(body: NewSubscription, actor: ActorOf, platform: PlatformOf) -> Subscription:
    """Subscribe an application to a service."""
    return await platform.subscriptions.subscribe(actor, body.application_id, body.service_id, body.plan)


@router.patch("/subscriptions/{subscription_id}")
async def change_plan(subscription_id: UUID, body: PlanChange, actor: ActorOf, platform: PlatformOf) -> Subscription:
    """Move a subscription to another plan."""
    return await platform.subscriptions.change_plan(actor, subscription_id, body.plan)


@router.delete("/subscriptions/{subscription_id}")
async def cancel(subscription_id: UUID, actor: ActorOf, platform: PlatformOf) -> Subscription:
    """End a subscription."""
    return await platform.subscriptions.cancel(actor, subscription_id)

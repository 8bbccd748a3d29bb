"""Control API of wallets and budgets."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, Field

from haat.control.context import ActorOf, Body, PlatformOf
from haat.wallet.budgets import BudgetStanding
from haat.wallet.model import Budget, Grant, Mode
from haat.wallet.service import DEFAULT_PRIORITY, Lease, Movement, Standing

router = APIRouter(tags=["wallet"], prefix="/wallet")

Whose = Annotated[UUID | None, Query(description="An organisation, for the operator; one's own by default.")]


class MovementPage(BaseModel):
    items: list[Movement]
    next: str | None


class NewGrant(Body):
    """Rupees and whole paise; ``key`` makes a repetition harmless. The lowest ``priority`` burns first."""

    org: UUID
    amount: Decimal
    key: str = Field(min_length=1, max_length=200)
    priority: int = DEFAULT_PRIORITY
    expires_at: AwareDatetime | None = None
    note: str = Field("", max_length=500)


class NewMode(Body):
    """How an organisation pays, or one subscription of it unlike the others."""

    org: UUID
    mode: Mode
    subscription: UUID | None = None


class NewBudget(Body):
    """Rupees a month before tax: of the organisation, or of the application or the subscription that is named."""

    amount: Decimal
    hard_stop: bool = False
    application: UUID | None = None
    subscription: UUID | None = None


class Forgotten(BaseModel):
    leases: int


@router.get("")
async def wallet(actor: ActorOf, platform: PlatformOf, org: Whose = None) -> Standing:
    """Return a wallet as it is now."""
    return await platform.wallets.standing(actor, org)


@router.get("/movements")
async def movements(
    actor: ActorOf,
    platform: PlatformOf,
    org: Whose = None,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
) -> MovementPage:
    """Return a wallet's statement, newest first."""
    page = await platform.wallets.movements(actor, org, cursor=cursor, limit=limit)
    return MovementPage(items=list(page.items), next=page.next)


@router.post("/top-ups", status_code=201)
async def top_up(new: NewGrant, actor: ActorOf, platform: PlatformOf) -> Grant:
    """Take note of money that has arrived (operator). The same `key` again returns the first grant."""
    return await platform.wallets.top_up(
        actor,
        new.org,
        new.amount,
        key=new.key,
        priority=new.priority,
        expires_at=new.expires_at,
        note=new.note,
    )


@router.post("/credits", status_code=201)
async def credit(new: NewGrant, actor: ActorOf, platform: PlatformOf) -> Grant:
    """Give credits for nothing (operator). The same `key` again returns the first grant."""
    return await platform.wallets.credit(
        actor,
        new.org,
        new.amount,
        key=new.key,
        priority=new.priority,
        expires_at=new.expires_at,
        note=new.note,
    )


@router.put("/mode", status_code=204)
async def set_mode(new: NewMode, actor: ActorOf, platform: PlatformOf) -> None:
    """Say how an organisation pays, or one subscription of it (operator)."""
    await platform.wallets.set_mode(actor, new.org, new.mode, new.subscription)


@router.get("/leases")
async def leases(actor: ActorOf, platform: PlatformOf) -> list[Lease]:
    """List what of wallets and budgets is with gateways (operator)."""
    return await platform.wallets.leases(actor)


@router.delete("/leases/{gateway}")
async def forget_gateway(gateway: str, actor: ActorOf, platform: PlatformOf) -> Forgotten:
    """Take back the leases of a gateway that is gone for good with its journals (operator)."""
    return Forgotten(leases=await platform.wallets.forget_gateway(actor, gateway))


@router.get("/budgets")
async def budgets(actor: ActorOf, platform: PlatformOf, org: Whose = None) -> list[BudgetStanding]:
    """List the budgets, with what the running month has cost of them."""
    return await platform.budgets.standing(actor, org)


@router.put("/budgets")
async def set_budget(new: NewBudget, actor: ActorOf, platform: PlatformOf, org: Whose = None) -> Budget:
    """Set a budget, or change the one that is there."""
    return await platform.budgets.set(
        actor,
        new.amount,
        hard_stop=new.hard_stop,
        application=new.application,
        subscription=new.subscription,
        org=org,
    )


@router.delete("/budgets/{budget_id}", status_code=204)
async def remove_budget(budget_id: UUID, actor: ActorOf, platform: PlatformOf, org: Whose = None) -> None:
    """Remove a budget."""
    await platform.budgets.remove(actor, budget_id, org)

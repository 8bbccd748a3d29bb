"""Control API of settlements."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from haat.control.context import ActorOf, Body, PlatformOf
from haat.invoices.service import BilledCall
from haat.settlement.service import Settlement, Statement

router = APIRouter(tags=["settlements"])

PERIOD = r"^[0-9]{4}-[0-9]{2}$"


class SettlementPage(BaseModel):
    items: list[Settlement]
    next: str | None


class SettledCallPage(BaseModel):
    items: list[BilledCall]
    next: str | None


class CloseRequest(Body):
    period: str = Field(pattern=PERIOD)


@router.get("/settlements")
async def page(
    actor: ActorOf,
    platform: PlatformOf,
    period: Annotated[str | None, Query(pattern=PERIOD)] = None,
    provider_org: UUID | None = None,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
) -> SettlementPage:
    """List settlements, newest first; the operator sees every provider's."""
    found = await platform.settlements.page(actor, provider_org=provider_org, period=period, cursor=cursor, limit=limit)
    return SettlementPage(items=list(found.items), next=found.next)


@router.post("/settlements/runs")
async def run(body: CloseRequest, actor: ActorOf, platform: PlatformOf) -> list[Settlement]:
    """Settle a period's invoices for every provider (operator); doing it again changes nothing."""
    return await platform.settlements.close_all(actor, body.period)


@router.get("/settlements/{settlement_id}")
async def statement(settlement_id: UUID, actor: ActorOf, platform: PlatformOf) -> Statement:
    """Return a settlement with its lines; customers are pseudonyms."""
    return await platform.settlements.statement(actor, settlement_id)


@router.get("/settlement-lines/{line_id}/calls")
async def calls(
    line_id: UUID,
    actor: ActorOf,
    platform: PlatformOf,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 100,
) -> SettledCallPage:
    """List the calls behind a line, by request id."""
    found = await platform.settlements.calls(actor, line_id, cursor=cursor, limit=limit)
    return SettledCallPage(items=list(found.items), next=found.next)

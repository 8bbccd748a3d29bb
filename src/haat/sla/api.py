"""Control API of service levels."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, Field

from haat.control.context import ActorOf, Body, PlatformOf, VisitorOf
from haat.sla.board import Place
from haat.sla.maintenance import Window
from haat.sla.model import Objective, ObjectiveDraft, Tier
from haat.sla.views import (
    AffectedCustomer,
    BrokenCall,
    BudgetView,
    CreditView,
    Incident,
    Measured,
    MonthStory,
    MonthView,
    Probe,
    Report,
)

router = APIRouter(tags=["sla"])


class ObjectiveView(BaseModel):
    """What a listing promises from ``effective_from`` on: ``availability`` in percent, latencies in milliseconds."""

    id: UUID
    service_id: UUID
    version: int
    effective_from: datetime
    availability: Decimal
    p50_ms: int | None
    p95_ms: int | None
    p99_ms: int | None
    window_days: int
    tiers: list[Tier]
    latency_credit: Decimal
    probe: str

    @classmethod
    def of(cls, objective: Objective) -> ObjectiveView:
        return cls.model_validate(objective, from_attributes=True)


class WindowView(BaseModel):
    id: UUID
    service_id: UUID
    starts_at: datetime
    ends_at: datetime
    note: str
    announced_at: datetime
    cancelled_at: datetime | None

    @classmethod
    def of(cls, window: Window) -> WindowView:
        return cls.model_validate(window, from_attributes=True)


class ReportView(BaseModel):
    """``window`` is the rolling window of the budget, ``month`` the running month, ``latency_ms`` of 24 hours."""

    service_id: UUID
    at: datetime
    objective: ObjectiveView | None
    coming: ObjectiveView | None
    window: Measured
    budget: BudgetView | None
    month: Measured
    latency_ms: dict[str, float | None]
    incidents: list[Incident]
    maintenance: list[WindowView]
    months: list[MonthView]

    @classmethod
    def of(cls, report: Report) -> ReportView:
        return cls(
            service_id=report.service_id,
            at=report.at,
            objective=ObjectiveView.of(report.objective) if report.objective else None,
            coming=ObjectiveView.of(report.coming) if report.coming else None,
            window=report.window,
            budget=report.budget,
            month=report.month,
            latency_ms=dict(report.latency_ms),
            incidents=list(report.incidents),
            maintenance=[WindowView.of(window) for window in report.windows],
            months=list(report.months),
        )


class Announcement(Body):
    """A window in UTC or with any offset, on quarter hours."""

    starts_at: AwareDatetime
    ends_at: AwareDatetime
    note: Annotated[str, Field(max_length=500)] = ""


class MonthPage(BaseModel):
    items: list[MonthView]
    next: str | None


class MonthStoryView(BaseModel):
    """``fault`` says who bears the credits; ``evidence`` what was counted, and the predicate that finds the calls."""

    month: MonthView
    fault: str
    evidence: dict[str, Any]
    affected: list[AffectedCustomer]
    credits: list[CreditView]
    credited: Decimal
    debited: Decimal

    @classmethod
    def of(cls, story: MonthStory) -> MonthStoryView:
        return cls(
            month=story.month,
            fault=story.fault,
            evidence=dict(story.evidence),
            affected=list(story.affected),
            credits=list(story.credits),
            credited=story.credited,
            debited=story.debited,
        )


class BrokenCallPage(BaseModel):
    items: list[BrokenCall]
    next: str | None


class Run(Body):
    period: Annotated[str, Field(max_length=7)]


class RunView(BaseModel):
    """``judged`` months were judged by this run, ``known`` before; ``failed`` is what was not done, and why."""

    period: str
    judged: int
    known: int
    breached: int
    credited_invoices: int
    credited: Decimal
    debited: Decimal
    failed: list[tuple[UUID, str]]


@router.get("/services/{service_id}/sla")
async def report(service_id: UUID, visitor: VisitorOf, platform: PlatformOf) -> ReportView:
    """Show a listing's objective, budget and incidents, to whoever may see the listing."""
    return ReportView.of(await platform.sla.report(visitor, service_id))


@router.get("/services/{service_id}/sla/objectives")
async def objectives(service_id: UUID, visitor: VisitorOf, platform: PlatformOf) -> list[ObjectiveView]:
    """List every version of a listing's objective, the oldest first."""
    return [ObjectiveView.of(one) for one in await platform.sla.objectives(visitor, service_id)]


@router.post("/services/{service_id}/sla/objectives", status_code=201)
async def promise(service_id: UUID, body: ObjectiveDraft, actor: ActorOf, platform: PlatformOf) -> ObjectiveView:
    """Set what a listing promises, from the next month on (provider, operator)."""
    return ObjectiveView.of(await platform.sla.promise(actor, service_id, body))


@router.get("/services/{service_id}/sla/probes")
async def probes(
    service_id: UUID, actor: ActorOf, platform: PlatformOf, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[Probe]:
    """List a service's newest probes (provider, operator)."""
    return await platform.sla.probes(actor, service_id, limit)


@router.get("/services/{service_id}/maintenance")
async def maintenance(service_id: UUID, visitor: VisitorOf, platform: PlatformOf) -> list[WindowView]:
    """List a listing's maintenance of the last 30 days and to come."""
    return [WindowView.of(one) for one in await platform.sla.windows(visitor, service_id)]


@router.post("/services/{service_id}/maintenance", status_code=201)
async def announce(service_id: UUID, body: Announcement, actor: ActorOf, platform: PlatformOf) -> WindowView:
    """Announce maintenance: subscribers are told, calls are refused meanwhile, and nothing is measured."""
    return WindowView.of(await platform.sla.announce(actor, service_id, body.starts_at, body.ends_at, body.note))


@router.post("/maintenance/{window_id}/cancel")
async def cancel(window_id: UUID, actor: ActorOf, platform: PlatformOf) -> WindowView:
    """Take back a window that hasn't begun, or end one at the next quarter hour."""
    return WindowView.of(await platform.sla.cancel(actor, window_id))


class BoardView(BaseModel):
    """``trouble`` has listings with an open alert, suspended or in maintenance; ``items`` all with an objective."""

    trouble: list[Place]
    items: list[Place]
    next: str | None


@router.get("/sla/board")
async def board(
    actor: ActorOf,
    platform: PlatformOf,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 25,
) -> BoardView:
    """Show how all listings stand that promise something, those in trouble first (operator)."""
    trouble = await platform.sla_board.trouble(actor)
    page = await platform.sla_board.page(actor, cursor=cursor, limit=limit)
    return BoardView(trouble=trouble, items=list(page.items), next=page.next)


@router.get("/sla/months")
async def months(
    actor: ActorOf,
    platform: PlatformOf,
    service_id: UUID | None = None,
    every: Annotated[bool, Query(description="Also months that were kept or not measured")] = False,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
) -> MonthPage:
    """List broken months: a provider's own, those that affected a customer, or for the operator all."""
    page = await platform.sla.breaches(actor, service_id=service_id, every_month=every, cursor=cursor, limit=limit)
    return MonthPage(items=list(page.items), next=page.next)


@router.get("/sla/months/{month_id}")
async def month(month_id: UUID, actor: ActorOf, platform: PlatformOf) -> MonthStoryView:
    """Show a judged month with its evidence and its credits; customers are pseudonyms to their provider."""
    return MonthStoryView.of(await platform.sla.month(actor, month_id))


@router.get("/sla/months/{month_id}/calls")
async def calls(
    month_id: UUID,
    actor: ActorOf,
    platform: PlatformOf,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 100,
) -> BrokenCallPage:
    """List the calls that broke a month's promise, by request id: a customer's own, or all."""
    page = await platform.sla.calls(actor, month_id, cursor=cursor, limit=limit)
    return BrokenCallPage(items=list(page.items), next=page.next)


@router.post("/sla/runs")
async def run(body: Run, actor: ActorOf, platform: PlatformOf) -> RunView:
    """Judge a month and credit what it owes (operator); doing it again judges nothing anew."""
    closed = await platform.sla_closing.close(actor, body.period)
    return RunView(
        period=closed.period,
        judged=len(closed.judged),
        known=closed.known,
        breached=sum(1 for row in closed.judged if row["verdict"] == "breached"),
        credited_invoices=len(closed.paid),
        credited=sum((one.taxable for one in closed.paid), Decimal(0)),
        debited=sum((one.debited for one in closed.paid), Decimal(0)),
        failed=list(closed.failed),
    )

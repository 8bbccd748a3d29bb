"""Control API of usage."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Path, Query
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel, Field

from haat.control.context import ActorOf, Body, PlatformOf
from haat.kernel.permissions import Actor
from haat.usage.analytics import Dashboard
from haat.usage.export import MEDIA_TYPES, Format
from haat.usage.live import STEPS
from haat.usage.model import CallFilter
from haat.usage.service import CallStory, Hour, ProviderUsage, ServiceUsage, SetAside
from haat.usage.streams import EVENT_STREAM, streamed

router = APIRouter(tags=["usage"], prefix="/usage")

WindowName = Annotated[
    str | None, Query(description="24h, 7d, 30d, or a month such as 2026-11; the running one if left out.")
]
Month = Annotated[str | None, Query(description="A month such as 2026-11; the running one if left out.")]


OutcomeName = Literal["completed", "client_left", "provider_failed", "refused", "interrupted", "unconfirmed"]
Worker = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class CallView(BaseModel):
    """One call as its customer sees it; times in microseconds."""

    id: UUID
    at: datetime
    application_id: UUID | None
    application: str | None
    subscription_id: UUID | None
    plan: str | None
    provider: str
    """Who executed it."""
    called_provider: str
    """Whose service was called: another's than ``provider`` when ``executed_by`` names who stood in."""
    service_slug: str
    version: str
    method: str
    path_template: str
    status: int
    outcome: str
    error_code: str
    requests: Decimal | None
    characters: Decimal | None
    graphemes: Decimal | None
    tokens: Decimal | None
    audio_seconds: Decimal | None
    pages: Decimal | None
    images: Decimal | None
    bytes: Decimal | None
    compute_seconds: Decimal | None
    units_source: str
    total_us: int
    attempts: int
    executed_by: UUID | None
    bytes_in: int
    bytes_out: int
    language_pair: str
    end_user: str
    tags: dict[str, str]
    caller_request_id: str
    mode: str
    """``live``, or ``test`` for calls of test keys, which are answered by the gateway itself and cost nothing."""
    trace: str
    """The W3C trace id that the caller sent; without one the trace has the digits of the call's own id."""


class CallPage(BaseModel):
    items: list[CallView]
    next: str | None


class TakenView(BaseModel):
    rows: int
    duplicates: int
    quarantined: int


class Release(Body):
    ids: list[UUID] = Field(min_length=1, max_length=1000)


class Skip(Body):
    segment: int = Field(ge=1, lt=2**62)


def call_filter(
    start: AwareDatetime | None = None,
    end: AwareDatetime | None = None,
    service_id: UUID | None = None,
    application_id: UUID | None = None,
    outcome: OutcomeName | None = None,
    status_class: Annotated[int | None, Query(ge=0, le=9)] = None,
    user: Annotated[str | None, Query(max_length=200)] = None,
    mode: Literal["live", "test", "shadow"] | None = None,
    tag: Annotated[str | None, Query(max_length=300, pattern=r"^[^=\x00]+=[^\x00]*$", description="name=value")] = None,
) -> CallFilter:
    name, _, value = (tag or "").partition("=")
    return CallFilter(
        start=start,
        end=end,
        service_id=service_id,
        application_id=application_id,
        outcome=outcome,
        status_class=status_class,
        end_user=user.replace("\0", "\ufffd") if user else None,
        mode=mode,
        tag=(name, value) if tag else None,
    )


ChosenCalls = Annotated[CallFilter, Depends(call_filter)]


def _own(actor: Actor) -> UUID | None:
    """Usage pages are about the asker's organisation, the operator's own included."""
    return actor.org_id


@router.get("")
async def summary(actor: ActorOf, platform: PlatformOf, month: Month = None) -> list[ServiceUsage]:
    """Sum up a month of the organisation by service."""
    period = await platform.usage.month(actor, month)
    return await platform.usage.summary(actor, period, org=_own(actor))


@router.get("/hours")
async def hours(
    actor: ActorOf, platform: PlatformOf, month: Month = None, service_id: UUID | None = None
) -> list[Hour]:
    """List the hours of a month that had calls."""
    period = await platform.usage.month(actor, month)
    return await platform.usage.hourly(actor, period, service_id=service_id, org=_own(actor))


@router.get("/calls")
async def calls(
    actor: ActorOf,
    platform: PlatformOf,
    chosen: ChosenCalls,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
) -> CallPage:
    """List calls, newest first."""
    page = await platform.usage.calls(actor, _mine(chosen, actor), cursor=cursor, limit=limit)
    return CallPage(items=[CallView.model_validate(dict(row)) for row in page.items], next=page.next)


@router.get("/calls.csv", response_class=StreamingResponse)
async def export_csv(actor: ActorOf, platform: PlatformOf, chosen: ChosenCalls) -> StreamingResponse:
    """Stream calls as CSV, oldest first."""
    return await _exported(actor, platform, chosen, Format.CSV)


@router.get("/calls.jsonl", response_class=StreamingResponse)
async def export_jsonl(actor: ActorOf, platform: PlatformOf, chosen: ChosenCalls) -> StreamingResponse:
    """Stream calls as JSON lines, oldest first."""
    return await _exported(actor, platform, chosen, Format.JSONL)


@router.get("/live", response_class=StreamingResponse)
async def live(
    actor: ActorOf,
    platform: PlatformOf,
    seconds: Annotated[int, Query(ge=1, le=STEPS)] = STEPS,
    last_event_id: Annotated[str, Header(max_length=18, pattern=r"^[0-9]*$")] = "",
) -> StreamingResponse:
    """Send the organisation's calls as they are stored, as server-sent events `call`, for ten minutes at most.

    The first are the last calls of the past quarter of an hour; with `Last-Event-ID` what came since.
    """
    feed = platform.live.feed(actor, int(last_event_id) if last_event_id else None, steps=seconds)
    return await streamed(feed, EVENT_STREAM)


@router.get("/dashboard")
async def dashboard(
    actor: ActorOf,
    platform: PlatformOf,
    window: WindowName = None,
    service_id: UUID | None = None,
    application_id: UUID | None = None,
) -> Dashboard:
    """Show how the organisation's calls went: rates, latencies, services, applications, language pairs."""
    chosen = await platform.analytics.window(actor, window)
    return await platform.analytics.consumer(actor, chosen, service_id=service_id, application_id=application_id)


@router.get("/dashboard/provider")
async def provider_dashboard(
    actor: ActorOf, platform: PlatformOf, window: WindowName = None, service_id: UUID | None = None
) -> Dashboard:
    """Show how the organisation's services were called, by whom under pseudonyms, and what they brought."""
    chosen = await platform.analytics.window(actor, window)
    return await platform.analytics.provider(actor, chosen, service_id=service_id)


@router.get("/dashboard/operator")
async def operator_dashboard(
    actor: ActorOf,
    platform: PlatformOf,
    window: WindowName = None,
    service_id: UUID | None = None,
    provider_org: UUID | None = None,
) -> Dashboard:
    """Show the whole market, one provider or one service (operator)."""
    chosen = await platform.analytics.window(actor, window)
    return await platform.analytics.operator(actor, chosen, service_id=service_id, provider_org=provider_org)


@router.get("/calls/{request_id}")
async def call(request_id: UUID, actor: ActorOf, platform: PlatformOf) -> CallStory:
    """Tell one call's story: its units, price, and the lines it lies on."""
    return await platform.usage.call(actor, request_id)


@router.get("/provider")
async def provider(actor: ActorOf, platform: PlatformOf, month: Month = None) -> ProviderUsage:
    """Sum up a month of the provider's own services; customers are pseudonyms."""
    return await platform.usage.provider_summary(actor, await platform.usage.month(actor, month))


@router.get("/shipping")
async def shipping(actor: ActorOf, platform: PlatformOf) -> list[dict[str, Any]]:
    """Show how far each gateway worker's journal is shipped (operator)."""
    return [dict(row) for row in await platform.usage.shipping(actor)]


@router.post("/shipping/{worker}/skip", status_code=204)
async def skip(worker: Worker, body: Skip, actor: ActorOf, platform: PlatformOf) -> None:
    """Go on after a damaged segment; what is left of it is never counted (operator)."""
    await platform.usage.skip_segment(actor, worker, body.segment)


@router.get("/quarantine")
async def quarantine(actor: ActorOf, platform: PlatformOf) -> list[SetAside]:
    """List records that could not be counted (operator)."""
    return await platform.usage.quarantined(actor)


@router.post("/quarantine/release")
async def release(body: Release, actor: ActorOf, platform: PlatformOf) -> TakenView:
    """Count records that were set aside for their time alone (operator)."""
    taken = await platform.usage.release(actor, body.ids)
    if taken is None:
        return TakenView(rows=0, duplicates=0, quarantined=0)
    return TakenView(rows=taken.rows, duplicates=taken.duplicates, quarantined=taken.quarantined)


async def _exported(actor: Actor, platform: PlatformOf, chosen: CallFilter, form: Format) -> StreamingResponse:
    response = await streamed(platform.usage.export(actor, _mine(chosen, actor), form), MEDIA_TYPES[form])
    response.headers["Content-Disposition"] = f'attachment; filename="calls.{form}"'
    return response


def _mine(chosen: CallFilter, actor: Actor) -> CallFilter:
    return replace(chosen, org=_own(actor))

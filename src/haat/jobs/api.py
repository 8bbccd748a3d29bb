"""Control API of jobs and webhooks, for members of the organisation whose applications handed the jobs in."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel

from haat.control.context import ActorOf, Body, PlatformOf
from haat.jobs.service import require_change
from haat.jobs.shapes import JobPage, JobView, job_view
from haat.jobs.webhook_store import Delivery, Endpoint
from haat.jobs.webhooks import Shown

router = APIRouter(tags=["jobs"])

Limit = Annotated[int, Query(ge=1, le=100)]


class NewEndpoint(Body):
    application_id: UUID
    url: str


class EndpointView(BaseModel):
    """Where an application is told. ``secret`` is seen only when it is new."""

    id: UUID
    application_id: UUID
    url: str
    created_at: datetime
    disabled_at: datetime | None
    disabled_reason: str
    old_secret_until: datetime | None
    secret: str | None = None


class EndpointPage(BaseModel):
    items: list[EndpointView]


class DeliveryView(BaseModel):
    """A message to an endpoint. ``attempts`` counts those that were made."""

    id: UUID
    endpoint_id: UUID
    job_id: UUID | None
    type: str
    status: Literal["waiting", "delivered", "failed"]
    created_at: datetime
    delivered_at: datetime | None
    attempts: int
    last_status: int | None
    last_error: str


class DeliveryPage(BaseModel):
    items: list[DeliveryView]
    next: str | None


class AttemptView(BaseModel):
    """``status`` is what the endpoint answered; without an answer ``error`` says why."""

    number: int
    at: datetime
    status: int | None
    error: str
    milliseconds: int


class DeliveryStory(DeliveryView):
    body: str
    log: list[AttemptView]


def _endpoint(endpoint: Endpoint, secret: str | None = None) -> EndpointView:
    return EndpointView(
        id=endpoint.id,
        application_id=endpoint.application_id,
        url=endpoint.url,
        created_at=endpoint.created_at,
        disabled_at=endpoint.disabled_at,
        disabled_reason=endpoint.disabled_reason,
        old_secret_until=endpoint.old_secret_until,
        secret=secret,
    )


def _shown(shown: Shown) -> EndpointView:
    return _endpoint(shown.endpoint, shown.secret)


def _delivery(delivery: Delivery) -> DeliveryView:
    return DeliveryView(**{name: getattr(delivery, name) for name in DeliveryView.model_fields})


@router.get("/jobs")
async def list_jobs(
    actor: ActorOf, platform: PlatformOf, status: str | None = None, cursor: str | None = None, limit: Limit = 50
) -> JobPage:
    """Return the organisation's jobs, newest first."""
    page = await platform.caller_jobs.seen_all(actor, status=status, cursor=cursor, limit=limit)
    return JobPage(items=[job_view(job) for job in page.items], next=page.next)


@router.get("/jobs/{job_id}")
async def get_job(actor: ActorOf, platform: PlatformOf, job_id: UUID) -> JobView:
    return job_view(await platform.caller_jobs.seen(actor, job_id))


@router.post("/jobs/{job_id}/cancel")
async def cancel_job(actor: ActorOf, platform: PlatformOf, job_id: UUID) -> JobView:
    """Stop a job: calls that run are carried to their end."""
    org, by = require_change(actor)
    return job_view(await platform.caller_jobs.cancel(org, None, job_id, by))


@router.post("/jobs/{job_id}/retry")
async def retry_job(actor: ActorOf, platform: PlatformOf, job_id: UUID) -> JobView:
    """Execute the items anew that did not succeed."""
    org, by = require_change(actor)
    return job_view(await platform.caller_jobs.retry(org, None, job_id, by))


@router.get("/webhooks")
async def list_endpoints(actor: ActorOf, platform: PlatformOf) -> EndpointPage:
    return EndpointPage(items=[_endpoint(one) for one in await platform.webhooks.endpoints(actor)])


@router.post("/webhooks", status_code=201)
async def add_endpoint(actor: ActorOf, platform: PlatformOf, body: NewEndpoint) -> EndpointView:
    """Add an endpoint. Its secret is in this answer alone."""
    return _shown(await platform.webhooks.add(actor, body.application_id, body.url))


@router.post("/webhooks/{endpoint_id}/rotate")
async def rotate_secret(actor: ActorOf, platform: PlatformOf, endpoint_id: UUID) -> EndpointView:
    """Give an endpoint a new secret; for 24 hours messages are signed with both."""
    return _shown(await platform.webhooks.rotate(actor, endpoint_id))


@router.post("/webhooks/{endpoint_id}/enable")
async def enable_endpoint(actor: ActorOf, platform: PlatformOf, endpoint_id: UUID) -> EndpointView:
    return _endpoint(await platform.webhooks.enable(actor, endpoint_id))


@router.delete("/webhooks/{endpoint_id}", status_code=204)
async def delete_endpoint(actor: ActorOf, platform: PlatformOf, endpoint_id: UUID) -> None:
    await platform.webhooks.delete(actor, endpoint_id)


@router.get("/webhook-deliveries")
async def list_deliveries(
    actor: ActorOf,
    platform: PlatformOf,
    job_id: UUID | None = None,
    endpoint_id: UUID | None = None,
    cursor: str | None = None,
    limit: Limit = 50,
) -> DeliveryPage:
    """Return what was delivered, or is to be, newest first."""
    page = await platform.webhooks.deliveries(actor, job=job_id, endpoint=endpoint_id, cursor=cursor, limit=limit)
    return DeliveryPage(items=[_delivery(one) for one in page.items], next=page.next)


@router.get("/webhook-deliveries/{delivery_id}")
async def get_delivery(actor: ActorOf, platform: PlatformOf, delivery_id: UUID) -> DeliveryStory:
    found, log = await platform.webhooks.delivery(actor, delivery_id)
    attempts = [AttemptView(**{name: getattr(one, name) for name in AttemptView.model_fields}) for one in log]
    return DeliveryStory(**_delivery(found).model_dump(), body=found.body, log=attempts)


@router.post("/webhook-deliveries/{delivery_id}/resend")
async def resend(actor: ActorOf, platform: PlatformOf, delivery_id: UUID) -> DeliveryView:
    """Deliver a message again, with the same id."""
    return _delivery(await platform.webhooks.resend(actor, delivery_id))

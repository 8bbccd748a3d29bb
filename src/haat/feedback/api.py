"""Control API of feedback: what was said, for both sides. It is given at the gateway (`haat.feedback.front`)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import AwareDatetime, BaseModel, Field

from haat.control.context import ActorOf, PlatformOf
from haat.feedback.model import MOST_TEXT, Figures, Given, Outcome, Thumbs
from haat.kernel.errors import ValidationFailed
from haat.kernel.pages import Page

router = APIRouter(tags=["feedback"], prefix="/feedback")

_USUAL = timedelta(days=30)
_Text = Annotated[str, Field(min_length=1, max_length=MOST_TEXT)]


class GivenView(BaseModel):
    """An opinion as it is kept."""

    request_id: UUID
    application_id: UUID | None
    service_id: UUID
    service: str
    version: str
    variant: str
    mode: str
    called_at: datetime
    given_at: datetime
    thumbs: Thumbs | None
    rating: int | None
    corrected: str | None
    comment: str | None
    closeness: float | None


class GivenPage(BaseModel):
    items: list[GivenView]
    next: str | None


class FiguresView(BaseModel):
    """``mean`` and the sample's ``variance`` are null where there are too few."""

    count: int
    sum: float
    sum_squares: float
    mean: float | None
    variance: float | None


class OutcomeView(BaseModel):
    version: str
    variant: str
    thumbs: FiguresView
    rating: FiguresView
    closeness: FiguresView


Cursor = Annotated[str | None, Query(max_length=500)]
Limit = Annotated[int, Query(ge=1, le=100)]


@router.get("")
async def given(
    actor: ActorOf, platform: PlatformOf, service_id: UUID | None = None, cursor: Cursor = None, limit: Limit = 50
) -> GivenPage:
    """List what the own applications said, of the newest calls first."""
    return _page(await platform.feedback.given(actor, service_id=service_id, cursor=cursor, limit=limit))


@router.get("/received")
async def received(
    actor: ActorOf, platform: PlatformOf, service_id: UUID | None = None, cursor: Cursor = None, limit: Limit = 50
) -> GivenPage:
    """List what was said of the provider's own services, without who said it."""
    return _page(await platform.feedback.received(actor, service_id=service_id, cursor=cursor, limit=limit))


@router.get("/outcomes")
async def outcomes(
    service_id: UUID,
    actor: ActorOf,
    platform: PlatformOf,
    since: AwareDatetime | None = None,
    until: AwareDatetime | None = None,
) -> list[OutcomeView]:
    """Sum up what was said of each version of the provider's own service; of the last 30 days' calls."""
    until = until or platform.clock.now()
    since = since or until - _USUAL
    if since >= until:
        raise ValidationFailed(errors=[{"field": "since", "message": "must be before `until`"}])
    return [_outcome(one) for one in await platform.feedback.outcomes_of(actor, service_id, since, until)]


@router.delete("/{request_id}", status_code=204, response_class=Response)
async def withdraw(request_id: UUID, actor: ActorOf, platform: PlatformOf) -> None:
    """Forget what the own organisation said of a request."""
    await platform.feedback.withdraw(actor, request_id)


def _page(page: Page[Given]) -> GivenPage:
    items = [GivenView.model_validate(one, from_attributes=True) for one in page.items]
    return GivenPage(items=items, next=page.next)


def _figures(figures: Figures) -> FiguresView:
    return FiguresView.model_validate(figures, from_attributes=True)


def _outcome(one: Outcome) -> OutcomeView:
    return OutcomeView(
        version=one.version,
        variant=one.variant,
        thumbs=_figures(one.thumbs),
        rating=_figures(one.rating),
        closeness=_figures(one.closeness),
    )

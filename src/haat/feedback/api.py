"""Control API of feedback. Opinions come with an API key, by way of the gateway; pages of them with a session."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, Field

from haat.control.context import ActorOf, Body, PlatformOf, bearer_token
from haat.feedback.model import MOST_COMMENT, MOST_ITEMS, MOST_TEXT, Accepted, Figures, Given, Opinion, Outcome, Thumbs
from haat.identity.model import KeyHolder
from haat.kernel.errors import Unauthenticated, ValidationFailed
from haat.kernel.pages import Page

router = APIRouter(tags=["feedback"], prefix="/feedback")

_USUAL = timedelta(days=30)
_Text = Annotated[str, Field(min_length=1, max_length=MOST_TEXT)]


class OpinionBody(Body):
    """What is said of one answer; at least one of ``thumbs``, ``rating``, ``corrected``, ``comment``."""

    request_id: UUID
    thumbs: Thumbs | None = None
    rating: Annotated[int | None, Field(ge=1, le=5, strict=True)] = None
    corrected: _Text | None = None
    answered: _Text | None = None
    comment: Annotated[str | None, Field(min_length=1, max_length=MOST_COMMENT)] = None

    def opinion(self) -> Opinion:
        return Opinion(**self.model_dump())


class FeedbackBody(Body):
    """One opinion, or ``items`` of up to 100."""

    request_id: UUID | None = None
    thumbs: Thumbs | None = None
    rating: Annotated[int | None, Field(ge=1, le=5, strict=True)] = None
    corrected: _Text | None = None
    answered: _Text | None = None
    comment: Annotated[str | None, Field(min_length=1, max_length=MOST_COMMENT)] = None
    items: Annotated[list[OpinionBody] | None, Field(min_length=1, max_length=MOST_ITEMS)] = None

    def opinions(self) -> tuple[list[Opinion], str]:
        """Return the opinions, and how the fields of each are named; raise ValidationFailed."""
        alone = self.model_dump(exclude={"items"}, exclude_none=True)
        if self.items is not None:
            if alone:
                message = "stand beside no other member: give one opinion, or `items`"
                raise ValidationFailed(errors=[{"field": "items", "message": message}])
            return [one.opinion() for one in self.items], "items.{}."
        if self.request_id is None:
            raise ValidationFailed(errors=[{"field": "request_id", "message": "must be given, or `items`"}])
        return [Opinion(**alone)], ""


class AcceptedView(BaseModel):
    """``kept`` names what is stored: an application's data policy can keep texts from it."""

    request_id: UUID
    kept: list[str]
    replaced: bool


class AcceptedPage(BaseModel):
    items: list[AcceptedView]


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


async def key_holder(
    request: Request, platform: PlatformOf, x_api_key: Annotated[str | None, Header(max_length=200)] = None
) -> KeyHolder:
    """Return whom the API key stands for; raise Unauthenticated."""
    key = bearer_token(request) or x_api_key
    if key is None:
        raise Unauthenticated
    return await platform.identity.holder_of(key)


Cursor = Annotated[str | None, Query(max_length=500)]
Limit = Annotated[int, Query(ge=1, le=100)]


@router.post("", status_code=201)
async def give(
    body: FeedbackBody, holder: Annotated[KeyHolder, Depends(key_holder)], platform: PlatformOf
) -> AcceptedPage:
    """Say what the answers to an application's own calls were worth; `POST /v1/feedback` of the gateway leads here."""
    opinions, place = body.opinions()
    accepted = await platform.feedback.give(holder, opinions, place)
    return AcceptedPage(items=[_accepted(one) for one in accepted])


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


def _accepted(one: Accepted) -> AcceptedView:
    return AcceptedView(request_id=one.request_id, kept=list(one.kept), replaced=one.replaced)


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

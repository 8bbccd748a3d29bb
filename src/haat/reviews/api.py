"""Control API of reviews: what visitors read, what an author writes, a provider answers and the operator hides."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from haat.control.context import ActorOf, Body, PlatformOf, VisitorOf
from haat.kernel.pages import Page
from haat.reviews.model import MOST_TEXT, Review

router = APIRouter(tags=["reviews"])

_Text = Annotated[str, Field(min_length=1, max_length=4 * MOST_TEXT)]
Cursor = Annotated[str | None, Query(max_length=500)]
Limit = Annotated[int, Query(ge=1, le=100)]


class BuyerView(BaseModel):
    """What is told of an author: rounded, and null where it would name one."""

    since: date | None
    monthly_calls: int | None


class ReplyView(BaseModel):
    """A provider's answer. ``to_version`` is less than the review's own when that was changed since."""

    text: str
    to_version: int
    at: datetime


class ReviewView(BaseModel):
    """A review as everybody sees it."""

    id: UUID
    service_id: UUID
    service: str
    version: int
    stars: int
    text: str
    service_version: str
    buyer: BuyerView
    written_at: datetime
    changed_at: datetime
    reply: ReplyView | None


class MarkedReview(ReviewView):
    """A review with what the operator has done to it, as those see it whom that concerns."""

    hidden_at: datetime | None
    hidden_reason: str | None


class StandingView(BaseModel):
    """``mean`` is null for fewer than three reviews; ``version`` is the one that most authors used most."""

    count: int
    mean: Decimal | None
    version: str


class ReviewsPage(BaseModel):
    standing: StandingView
    items: list[ReviewView]
    next: str | None


class MarkedPage(BaseModel):
    items: list[MarkedReview]
    next: str | None


class OwnView(BaseModel):
    """The organisation's own review, and whether it may write one: ``obstacle`` is ``related``, ``use`` or empty."""

    review: MarkedReview | None
    calls: int
    least_calls: int
    days: int
    obstacle: str


class PastView(BaseModel):
    version: int
    stars: int
    text: str
    at: datetime


class ReviewBody(Body):
    stars: Annotated[int, Field(ge=1, le=5, strict=True)]
    text: _Text


class ReplyBody(Body):
    text: _Text


class Reason(Body):
    reason: _Text


@router.get("/services/{service_id}/reviews")
async def reviews(
    service_id: UUID, visitor: VisitorOf, platform: PlatformOf, cursor: Cursor = None, limit: Limit = 20
) -> ReviewsPage:
    """List what buyers say of a service, the newest first, and what it comes to."""
    page = await platform.reviews.page(visitor, service_id, cursor=cursor, limit=limit)
    standing = (await platform.reviews.standings([service_id]))[service_id]
    return ReviewsPage(
        standing=StandingView.model_validate(standing, from_attributes=True),
        items=[ReviewView(**_members(one)) for one in page.items],
        next=page.next,
    )


@router.get("/services/{service_id}/reviews/own")
async def own(service_id: UUID, actor: ActorOf, platform: PlatformOf) -> OwnView:
    """Show the own organisation's review of a service, and whether it may write one."""
    leave = await platform.reviews.leave(actor, service_id)
    written = await platform.reviews.own(actor, service_id)
    return OwnView(
        review=_marked(written) if written else None,
        calls=leave.calls,
        least_calls=leave.least_calls,
        days=leave.days,
        obstacle=leave.obstacle,
    )


@router.put("/services/{service_id}/reviews/own")
async def write(service_id: UUID, body: ReviewBody, actor: ActorOf, platform: PlatformOf) -> MarkedReview:
    """Review a service that the organisation uses, or change what it said."""
    return _marked(await platform.reviews.write(actor, service_id, body.stars, body.text))


@router.delete("/services/{service_id}/reviews/own", status_code=204, response_class=Response)
async def withdraw(service_id: UUID, actor: ActorOf, platform: PlatformOf) -> None:
    """Take the own organisation's review back."""
    await platform.reviews.withdraw(actor, service_id)


@router.get("/reviews")
async def directory(
    actor: ActorOf, platform: PlatformOf, hidden: bool = False, cursor: Cursor = None, limit: Limit = 20
) -> MarkedPage:
    """List all reviews, or the hidden ones (operator)."""
    return _page(await platform.reviews.directory(actor, hidden=hidden, cursor=cursor, limit=limit))


@router.get("/reviews/received")
async def received(actor: ActorOf, platform: PlatformOf, cursor: Cursor = None, limit: Limit = 20) -> MarkedPage:
    """List the reviews of the provider's own services."""
    return _page(await platform.reviews.received(actor, cursor=cursor, limit=limit))


@router.get("/reviews/{review_id}/history")
async def history(review_id: UUID, actor: ActorOf, platform: PlatformOf) -> list[PastView]:
    """List what a review has said, the latest first (its author and the operator)."""
    found = await platform.reviews.history(actor, review_id)
    return [PastView.model_validate(one, from_attributes=True) for one in found]


@router.put("/reviews/{review_id}/reply")
async def reply(review_id: UUID, body: ReplyBody, actor: ActorOf, platform: PlatformOf) -> MarkedReview:
    """Answer a review of an own service, in place of the answer there was."""
    return _marked(await platform.reviews.reply(actor, review_id, body.text))


@router.delete("/reviews/{review_id}/reply", status_code=204, response_class=Response)
async def take_back_reply(review_id: UUID, actor: ActorOf, platform: PlatformOf) -> None:
    """Take the answer to a review away."""
    await platform.reviews.take_back_reply(actor, review_id)


@router.post("/reviews/{review_id}/hide")
async def hide(review_id: UUID, body: Reason, actor: ActorOf, platform: PlatformOf) -> MarkedReview:
    """Hide a review; its author is told the reason (operator)."""
    return _marked(await platform.reviews.hide(actor, review_id, body.reason))


@router.post("/reviews/{review_id}/show")
async def show(review_id: UUID, actor: ActorOf, platform: PlatformOf) -> MarkedReview:
    """Show a hidden review again (operator)."""
    return _marked(await platform.reviews.show(actor, review_id))


def _members(one: Review) -> dict[str, object]:
    reply = None
    if one.reply is not None:
        assert one.reply_to is not None and one.replied_at is not None
        reply = ReplyView(text=one.reply, to_version=one.reply_to, at=one.replied_at)
    names = ReviewView.model_fields.keys() - {"reply", "buyer"}
    buyer = BuyerView(since=one.buyer.since, monthly_calls=one.buyer.monthly_calls)
    return {**{name: getattr(one, name) for name in names}, "reply": reply, "buyer": buyer}


def _marked(one: Review) -> MarkedReview:
    return MarkedReview(**_members(one), hidden_at=one.hidden_at, hidden_reason=one.hidden_reason)


def _page(page: Page[Review]) -> MarkedPage:
    return MarkedPage(items=[_marked(one) for one in page.items], next=page.next)

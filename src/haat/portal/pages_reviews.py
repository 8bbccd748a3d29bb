"""Reviews: written on a listing's page, answered at the provider's stall, hidden at the operator's desk."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from haat.kernel.errors import HaatError, NotFound
from haat.kernel.permissions import Permission
from haat.portal.pages_market import listing_page
from haat.portal.visit import Fields, Visit, VisitOf, messages, parse_id

router = APIRouter()


@router.post("/services/{provider}/{service}/review")
async def write(visit: VisitOf, provider: str, service: str) -> Response:
    """Write the organisation's review, or change it."""
    actor = visit.require_actor()
    listing = await visit.platform.discovery.listing(actor, provider, service)
    stars = visit.text("stars")
    try:
        given = int(stars) if stars.isascii() and stars.isdigit() and len(stars) < 3 else 0
        await visit.platform.reviews.write(actor, listing.id, given, visit.text("text"))
    except HaatError as error:
        return await listing_page(visit, listing, error.status, review_errors=messages(error))
    return visit.redirect(f"/services/{listing.path}", done="reviewed")


@router.post("/services/{provider}/{service}/review/withdraw")
async def withdraw(visit: VisitOf, provider: str, service: str) -> Response:
    actor = visit.require_actor()
    listing = await visit.platform.discovery.listing(actor, provider, service)
    await visit.platform.reviews.withdraw(actor, listing.id)
    return visit.redirect(f"/services/{listing.path}", done="review-withdrawn")


# --- the provider ----------------------------------------------------------------------------------


async def _received(visit: Visit, status: int = 200, *, review: str = "", errors: Fields | None = None) -> Response:
    cursor = visit.request.query_params.get("cursor") or None
    page = await visit.platform.reviews.received(visit.require_actor(), cursor=cursor)
    return visit.render(
        "reviews_received.html", status, page=page, typed=visit.typed, at_fault=review, errors=errors or Fields()
    )


@router.get("/partner/reviews")
async def received(visit: VisitOf) -> Response:
    return await _received(visit)


@router.post("/partner/reviews/{review}/{change}")
async def answer(visit: VisitOf, review: str, change: str) -> Response:
    """Answer a review, or take the answer back."""
    actor, identifier = visit.require_actor(), parse_id(review)
    try:
        if change == "reply":
            await visit.platform.reviews.reply(actor, identifier, visit.text("reply"))
        elif change == "take-back":
            await visit.platform.reviews.take_back_reply(actor, identifier)
        else:
            raise NotFound
    except NotFound:
        raise
    except HaatError as error:
        return await _received(visit, error.status, review=str(identifier), errors=messages(error))
    return visit.redirect("/partner/reviews", done="replied" if change == "reply" else "reply-taken-back")


# --- the operator ----------------------------------------------------------------------------------


async def _desk(visit: Visit, status: int = 200, *, review: str = "", errors: Fields | None = None) -> Response:
    actor, asked = visit.require_actor(), visit.request.query_params
    hidden = asked.get("hidden") == "yes"
    page = await visit.platform.reviews.directory(actor, hidden=hidden, cursor=asked.get("cursor") or None)
    return visit.render(
        "reviews_desk.html",
        status,
        page=page,
        hidden=hidden,
        histories={
            one.id: await visit.platform.reviews.history(actor, one.id) for one in page.items if one.version > 1
        },
        typed=visit.typed,
        at_fault=review,
        errors=errors or Fields(),
    )


@router.get("/operator/reviews")
async def desk(visit: VisitOf) -> Response:
    return await _desk(visit)


@router.post("/operator/reviews/{review}/{change}")
async def decide(visit: VisitOf, review: str, change: str) -> Response:
    """Hide a review for a reason, or show it again; its author is told."""
    actor, identifier = visit.require_actor(), parse_id(review)
    actor.require(Permission.REVIEWS_MODERATE)
    try:
        if change == "hide":
            await visit.platform.reviews.hide(actor, identifier, visit.text("reason"))
        elif change == "show":
            await visit.platform.reviews.show(actor, identifier)
        else:
            raise NotFound
    except NotFound:
        raise
    except HaatError as error:
        return await _desk(visit, error.status, review=str(identifier), errors=messages(error))
    return visit.redirect("/operator/reviews", done="review-hidden" if change == "hide" else "review-shown")

"""What a listing's page shows of its reviews, and what it lets the visitor do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from haat.catalog.model import Listing
from haat.kernel.pages import Page
from haat.kernel.permissions import Permission
from haat.portal.visit import Fields, Visit
from haat.reviews.model import Leave, Past, Review, Standing

_AT_ONCE = 10


@dataclass(frozen=True, slots=True)
class Said:
    """The reviews section. ``leave`` is None for who isn't signed in; ``own`` and ``history`` are the visitor's."""

    standing: Standing
    page: Page[Review]
    leave: Leave | None
    own: Review | None
    history: Sequence[Past]
    errors: Fields


async def said_of(visit: Visit, listing: Listing, errors: Fields | None = None) -> Said:
    """Return what is said of a listing, from the page that the address names; raise InvalidRequest for no such page."""
    reviews = visit.platform.reviews
    cursor = visit.request.query_params.get("reviews") or None
    page = await reviews.page(visit.actor, listing.id, cursor=cursor, limit=_AT_ONCE)
    standing = (await reviews.standings([listing.id]))[listing.id]
    leave, own, history = None, None, []
    if visit.actor is not None and visit.actor.may(Permission.REVIEWS_WRITE):
        leave = await reviews.leave(visit.actor, listing.id)
        own = await reviews.own(visit.actor, listing.id)
        history = await reviews.history(visit.actor, own.id) if own else []
    return Said(standing, page, leave, own, history, errors or Fields())

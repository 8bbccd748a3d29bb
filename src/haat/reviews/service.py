"""Use cases of reviews."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from haat.catalog.discovery import Discovery
from haat.infra import events
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database, tenant
from haat.kernel.clock import Clock
from haat.kernel.errors import NotEnoughUse, NotFound, PermissionDenied, ReviewerRelated
from haat.kernel.ids import new_id
from haat.kernel.pages import MAX_PAGE, Page, decode_id_cursor, page_of
from haat.kernel.permissions import Actor, Permission
from haat.language.messages import _
from haat.reviews import store
from haat.reviews.model import Leave, Past, Review, Standing, buyer_of, checked_stars, checked_text, shrunk

MONTH = timedelta(days=30)


class Reviews:
    """One review for each organisation and listing: written by who uses it, answered once, seen without its author.

    ``least_calls`` completed calls in the last ``days`` days let an organisation write one.
    """

    def __init__(self, db: Database, clock: Clock, discovery: Discovery, *, least_calls: int, days: int) -> None:
        self._db, self._clock, self._discovery = db, clock, discovery
        self._least, self._days = least_calls, days

    # --- what visitors see --------------------------------------------------------------------------

    async def standings(self, services: Sequence[UUID]) -> dict[UUID, Standing]:
        """Return what the reviews of each service come to; those without any stand at no review."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            rows = {row["service_id"]: row for row in await store.standings(connection, services)}
        return {service: _standing(rows.get(service)) for service in services}

    async def page(
        self, actor: Actor | None, service_id: UUID, *, cursor: str | None = None, limit: int = 20
    ) -> Page[Review]:
        """Return what visitors may read of a listing that the actor may see, the newest first; raise NotFound."""
        await self._discovery.listing_by_id(actor, service_id)
        before, limit = decode_id_cursor(cursor), max(1, min(limit, MAX_PAGE))
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return _page(await store.shown(connection, service_id, before, limit + 1), limit)

    # --- the author ---------------------------------------------------------------------------------

    async def own(self, actor: Actor, service_id: UUID) -> Review | None:
        """Return the organisation's own review of a listing, None when there is none or it was withdrawn."""
        actor.require(Permission.REVIEWS_WRITE)
        await self._discovery.listing_by_id(actor, service_id)
        async with self._db.transaction(tenant(_org(actor))) as connection:
            found = await store.own(connection, service_id, _org(actor))
        return found if _stands(found) else None

    async def leave(self, actor: Actor, service_id: UUID) -> Leave:
        """Tell whether the actor's organisation may review a listing, and if not why."""
        actor.require(Permission.REVIEWS_WRITE)
        listing, org = await self._discovery.listing_by_id(actor, service_id), _org(actor)
        since, _month = self._span()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            related = await store.are_related(connection, org, listing.org_id)
            calls = await store.calls(connection, org, service_id, listing.org_id, since)
            written = await store.own(connection, service_id, org)
        enough = calls >= self._least or _stands(written)
        obstacle = "related" if related else "" if enough else "use"
        return Leave(calls, self._least, self._days, obstacle)

    async def write(self, actor: Actor, service_id: UUID, stars: int, text: str) -> Review:
        """Write the organisation's review of a listing, or change it; what it said before stays in its history.

        One that the operator has hidden stays hidden. Raise ReviewerRelated, NotEnoughUse for who has none that
        stands, and ValidationFailed.
        """
        actor.require(Permission.REVIEWS_WRITE)
        listing, org = await self._discovery.listing_by_id(actor, service_id), _org(actor)
        stars, text = checked_stars(stars), checked_text(text)
        now, (since, month) = self._clock.now(), self._span()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await store.lock(connection, service_id, org)
            if await store.are_related(connection, org, listing.org_id):
                raise ReviewerRelated
            present = await store.own(connection, service_id, org)
            use = await store.use(connection, org, service_id, listing.org_id, since, month)
            keeps = use.calls < self._least
            if keeps and not _stands(present):
                raise NotEnoughUse(
                    _(
                        "Your organisation made %(calls)s completed calls to this service with live keys in the last "
                        "%(days)s days. A review needs %(least)s.",
                        calls=use.calls,
                        days=self._days,
                        least=self._least,
                    ),
                    calls=use.calls,
                    least_calls=self._least,
                )
            identifier = present.id if present else new_id()
            version = await store.put(
                connection,
                identifier,
                org=org,
                service=service_id,
                provider=listing.org_id,
                stars=stars,
                text=text,
                at=now,
                buyer=present.buyer if present and keeps else buyer_of(use),
                service_version=present.service_version if present and keeps else use.version,
            )
            data = {"service": str(service_id), "stars": stars, "version": version}
            type = "review.changed" if _stands(present) else "review.written"
            await self._record(connection, actor, identifier, org, type, data)
            written = await store.own(connection, service_id, org)
        assert written is not None
        return written

    async def withdraw(self, actor: Actor, service_id: UUID) -> None:
        """Take the organisation's review back: nobody sees it any more. Raise NotFound."""
        actor.require(Permission.REVIEWS_WRITE)
        org = _org(actor)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:  # the listing may be out of the author's sight
            await store.lock(connection, service_id, org)
            present = await store.own(connection, service_id, org)
            if present is None or not _stands(present):
                raise NotFound(_("Your organisation has not reviewed this service."))
            await store.withdraw(connection, present.id, self._clock.now())
            await self._record(connection, actor, present.id, org, "review.withdrawn", {"service": str(service_id)})

    async def history(self, actor: Actor, identifier: UUID) -> list[Past]:
        """Return what a review has said, the latest first: to its author and to the operator. Raise NotFound."""
        scope = PLATFORM_SCOPE if actor.may(Permission.REVIEWS_MODERATE) else tenant(_org(actor))
        async with self._db.transaction(scope) as connection:
            found = await store.history(connection, identifier)
        if not found:
            raise NotFound
        return found

    # --- the provider -------------------------------------------------------------------------------

    async def received(self, actor: Actor, *, cursor: str | None = None, limit: int = 20) -> Page[Review]:
        """Return the reviews of the provider's own listings, hidden ones too, without who wrote them."""
        actor.require(Permission.SERVICES_READ_OWN)
        before, limit = decode_id_cursor(cursor), max(1, min(limit, MAX_PAGE))
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return _page(await store.of_provider(connection, _org(actor), before, limit + 1), limit)

    async def reply(self, actor: Actor, identifier: UUID, text: str) -> Review:
        """Answer a review of an own listing, in place of the answer there was; raise NotFound, ValidationFailed."""
        text = checked_text(text, "reply")
        return await self._answer(actor, identifier, text)

    async def take_back_reply(self, actor: Actor, identifier: UUID) -> None:
        """Take the answer to a review away; raise NotFound."""
        await self._answer(actor, identifier, None)

    async def _answer(self, actor: Actor, identifier: UUID, text: str | None) -> Review:
        actor.require(Permission.REVIEWS_REPLY)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            review, author, provider = await store.get(connection, identifier)
            if provider != _org(actor) or review.withdrawn_at is not None or (text is None and review.reply is None):
                raise NotFound
            to = review.version if text is not None else None
            await store.set_reply(connection, identifier, text, to, self._clock.now())
            type = "review.replied" if text is not None else "review.reply_taken_back"
            await self._record(connection, actor, identifier, author, type, {"service": str(review.service_id)})
            return (await store.get(connection, identifier))[0]

    # --- the operator -------------------------------------------------------------------------------

    async def directory(
        self, actor: Actor, *, hidden: bool = False, cursor: str | None = None, limit: int = 20
    ) -> Page[Review]:
        """Return all reviews, or those that are hidden, the newest first."""
        actor.require(Permission.REVIEWS_MODERATE)
        before, limit = decode_id_cursor(cursor), max(1, min(limit, MAX_PAGE))
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return _page(await store.of_everybody(connection, hidden, before, limit + 1), limit)

    async def hide(self, actor: Actor, identifier: UUID, reason: str) -> Review:
        """Hide a review from all but its author, who is told the reason; raise NotFound, ValidationFailed."""
        actor.require(Permission.REVIEWS_MODERATE)
        return await self._set_hidden(actor, identifier, checked_text(reason, "reason"))

    async def show(self, actor: Actor, identifier: UUID) -> Review:
        """Show a hidden review again; raise NotFound."""
        actor.require(Permission.REVIEWS_MODERATE)
        return await self._set_hidden(actor, identifier, None)

    async def _set_hidden(self, actor: Actor, identifier: UUID, reason: str | None) -> Review:
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            review, author, _provider = await store.get(connection, identifier)
            if review.hidden_reason != reason:
                await store.set_hidden(connection, identifier, reason, self._clock.now())
                type = "review.hidden" if reason is not None else "review.shown"
                data = {"service": str(review.service_id), "reason": reason or ""}
                await self._record(connection, actor, identifier, author, type, data)
            return (await store.get(connection, identifier))[0]

    def _span(self) -> tuple[datetime, datetime]:
        now = self._clock.now()
        return now - timedelta(days=self._days), now - MONTH

    async def _record(
        self, connection: Connection, actor: Actor, review: UUID, author: UUID, type: str, data: Mapping[str, Any]
    ) -> None:
        """Write an event of a review, without its texts: those can be erased and an event can't."""
        await events.append(
            connection,
            stream=f"review/{review}",
            type=type,
            data=data,
            actor=actor.label,
            org=author,
            at=self._clock.now(),
        )


def _org(actor: Actor) -> UUID:
    if actor.org_id is None:
        raise PermissionDenied
    return actor.org_id


def _stands(review: Review | None) -> bool:
    return review is not None and review.withdrawn_at is None


def _page(rows: Sequence[Review], limit: int) -> Page[Review]:
    return page_of(rows, limit, lambda one: (one.id,))


def _standing(row: Mapping[str, Any] | None) -> Standing:
    if row is None:
        return Standing()
    return Standing(row["count"], shrunk(row["count"], row["stars"]), row["version"])

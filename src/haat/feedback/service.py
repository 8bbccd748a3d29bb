"""Use cases of feedback."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from haat.feedback import store
from haat.feedback.model import (
    Accepted,
    Execution,
    Figures,
    Given,
    Opinion,
    Outcome,
    check_opinions,
    closeness,
    may_keep_texts,
)
from haat.identity.model import KeyHolder
from haat.infra import events
from haat.infra.postgres import PLATFORM_SCOPE, Database, tenant
from haat.kernel.clock import Clock
from haat.kernel.errors import NotFound, PermissionDenied
from haat.kernel.ids import milliseconds_of
from haat.kernel.pages import Page, decode_id_cursor, page_of
from haat.kernel.permissions import Actor, Permission
from haat.usage.variants import SubjectValues, values_of

FRESH = timedelta(minutes=1)
"""How old a call may be whose record can still be on its way from the gateway's journal."""
PATIENCE_SECONDS = 2.0
"""How long such a record is waited for."""
LOOK_SECONDS = 0.2
_FORGET_AT_ONCE = 5000
_TEXTS = ("corrected", "comment")


class Feedback:
    """Opinions of callers: kept with who executed the call, shown to both sides, summed up for experiments."""

    def __init__(self, db: Database, clock: Clock, *, keep_days: int, patience: float = PATIENCE_SECONDS) -> None:
        self._db, self._clock, self._keep, self._patience = db, clock, timedelta(days=keep_days), patience

    async def give(self, holder: KeyHolder, opinions: Sequence[Opinion], place: str = "items.{}.") -> list[Accepted]:
        """Keep what an application says of its own calls, all of it or nothing.

        What was said of a request before is replaced. Texts are kept only where the application's data policy lets
        them. Raise ValidationFailed, or NotFound with the requests that are none of the application's; a fresh one
        is waited for `PATIENCE_SECONDS`, because its record may be on its way. ``place`` names an item's fields.
        """
        check_opinions(opinions, place)
        found = await self._executions(holder, [one.request_id for one in opinions])
        missing = [
            {"field": place.format(number) + "request_id", "message": "is the id of no answered call of yours"}
            for number, one in enumerate(opinions)
            if one.request_id not in found
        ]
        if missing:
            raise NotFound(
                "Check the request ids: each must be of a call that this application made and a service executed. "
                "A call's record can take some seconds to arrive.",
                errors=missing,
            )
        alike = await asyncio.to_thread(lambda: [closeness(one) for one in opinions])
        if not may_keep_texts(holder.policy):
            opinions = [replace(one, corrected=None, comment=None) for one in opinions]
        accepted = {}
        async with self._db.transaction(tenant(holder.org_id)) as connection:
            # In the order of their ids: two requests about the same calls can't wait for each other.
            for opinion, like in sorted(zip(opinions, alike, strict=True), key=lambda pair: pair[0].request_id):
                execution, now = found[opinion.request_id], self._clock.now()
                arguments = (opinion, execution, like, now)
                replaced = await store.put(connection, holder.org_id, holder.application_id, *arguments)
                kept = _kept(opinion, like)
                accepted[opinion.request_id] = Accepted(opinion.request_id, kept, replaced)
                await events.append(
                    connection,
                    stream=f"feedback/{opinion.request_id}",
                    type="feedback.given",
                    data=_data(opinion, execution, kept, like),
                    actor=f"application/{holder.application_id}",
                    org=holder.org_id,
                    at=now,
                )
        return [accepted[one.request_id] for one in opinions]

    async def withdraw(self, actor: Actor, request_id: UUID) -> None:
        """Forget what the organisation said of a request; raise NotFound."""
        actor.require(Permission.USAGE_READ)
        org = _org(actor)
        async with self._db.transaction(tenant(org)) as connection:
            if not await store.remove(connection, org, request_id):
                raise NotFound("Nothing is kept of what you said of this request.")
            await events.append(
                connection,
                stream=f"feedback/{request_id}",
                type="feedback.withdrawn",
                data={},
                actor=actor.label,
                org=org,
                at=self._clock.now(),
            )

    async def given(
        self, actor: Actor, *, service_id: UUID | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[Given]:
        """Return what the organisation's own applications said, of the newest calls first."""
        actor.require(Permission.USAGE_READ)
        return await self._page(actor, {"org": _org(actor), "service_id": service_id}, cursor, limit)

    async def received(
        self, actor: Actor, *, service_id: UUID | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[Given]:
        """Return what was said of the provider's own services, without who said it."""
        actor.require(Permission.SERVICES_READ_OWN)
        page = await self._page(actor, {"provider_org": _org(actor), "service_id": service_id}, cursor, limit)
        return Page([replace(one, application_id=None) for one in page.items], page.next)

    async def outcomes_of(self, actor: Actor, service_id: UUID, since: datetime, until: datetime) -> list[Outcome]:
        """Return what was said of each version and variant of the provider's own service, of live calls made in
        [since, until); nothing for another's."""
        actor.require(Permission.SERVICES_READ_OWN)
        org = _org(actor)
        async with self._db.transaction(tenant(org)) as connection:
            rows = await store.outcomes(connection, org, service_id, since, until)
        return [_outcome(row) for row in rows]

    async def subjects(
        self, metric: str, rollout: UUID, start: datetime, until: datetime, now: datetime, settle: timedelta
    ) -> dict[str, SubjectValues]:
        """Return one value a subject by variant: the mean of what it said of its calls of its first ``settle``.

        Opinions count as they stand `GRACE` after these; then, and `LANDING`, the value is settled, and what is changed
        or taken back later changes nothing. A subject who said nothing is seen and has no value. Its time must be over
        at ``until``.
        """
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return values_of(await store.by_subject(connection, rollout, start, until, now, settle, metric))

    async def forget_old(self) -> int:
        """Forget what is older than it is kept for; return how much that was."""
        before, forgotten = self._clock.now() - self._keep, 0
        while True:
            async with self._db.transaction(PLATFORM_SCOPE) as connection:
                gone = await store.forget(connection, before, _FORGET_AT_ONCE)
            forgotten += gone
            if gone < _FORGET_AT_ONCE:
                return forgotten

    async def _executions(self, holder: KeyHolder, requests: list[UUID]) -> Mapping[UUID, Execution]:
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._patience
        while True:
            async with self._db.transaction(tenant(holder.org_id)) as connection:
                found = await store.executions(connection, holder.application_id, requests)
            missing = [one for one in requests if one not in found]
            if not any(self._is_fresh(one) for one in missing) or loop.time() >= ends:
                return found
            await asyncio.sleep(LOOK_SECONDS)

    def _is_fresh(self, request: UUID) -> bool:
        if request.version != 7:
            return False
        age_ms = self._clock.now().timestamp() * 1000 - milliseconds_of(request)
        return abs(age_ms) < FRESH.total_seconds() * 1000

    async def _page(self, actor: Actor, whose: dict[str, Any], cursor: str | None, limit: int) -> Page[Given]:
        before = decode_id_cursor(cursor)
        async with self._db.transaction(tenant(_org(actor))) as connection:
            rows = await store.find(connection, **whose, before=before, limit=limit + 1)
        return page_of([_given(row) for row in rows], limit, lambda one: (one.request_id,))


def _org(actor: Actor) -> UUID:
    if actor.org_id is None:
        raise PermissionDenied
    return actor.org_id


def _kept(opinion: Opinion, like: float | None) -> tuple[str, ...]:
    said = {"thumbs": opinion.thumbs, "rating": opinion.rating, "corrected": opinion.corrected,
            "comment": opinion.comment, "closeness": like}  # fmt: skip
    return tuple(name for name, value in said.items() if value is not None)


def _data(opinion: Opinion, execution: Execution, kept: tuple[str, ...], like: float | None) -> dict[str, Any]:
    """Return what the event says: no texts, which can be withdrawn and an event can't."""
    return {
        "service": str(execution.service_id),
        "version": execution.version,
        "variant": execution.variant,
        "thumbs": opinion.thumbs,
        "rating": opinion.rating,
        "closeness": like,
        "texts": [name for name in _TEXTS if name in kept],
    }


def _given(row: Mapping[str, Any]) -> Given:
    return Given(**{name: row[name] for name in Given.__dataclass_fields__})


def _outcome(row: Mapping[str, Any]) -> Outcome:
    def figures(name: str) -> Figures:
        return Figures(row[f"{name}_count"], row[f"{name}_sum"], row[f"{name}_squares"])

    return Outcome(row["version"], row["variant"], figures("thumbs"), figures("rating"), figures("closeness"))

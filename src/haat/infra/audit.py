"""The event log as the operator searches it: by whom, whose, what, where, when, and by a word in its data."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from psycopg.errors import QueryCanceled

from haat.infra import events
from haat.infra.events import Wanted
from haat.infra.postgres import PLATFORM_SCOPE, Database
from haat.kernel.errors import InvalidRequest, NotFound, ValidationFailed
from haat.kernel.events import GENESIS, DomainEvent, chain_hash
from haat.kernel.pages import MAX_PAGE, Page, decode_cursor, page_of
from haat.kernel.permissions import Actor, Permission
from haat.kernel.text import is_storable
from haat.language.messages import _

BATCH = 1000
"""Events that an export reads at once, so that memory doesn't grow with their number."""
LONGEST_SECONDS = 10
"""A search for a word reads every event of its time; one that takes longer is given up."""
MASK = "••••"

_SECRET_NAME = re.compile(
    r"secret|password|passphrase|token(?!s)|authorization|ciphertext|signature|(?:api|private|signing|access|master)_?key",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(
    r"\b(haat_(?:live|test|provider)_)[\w-]{20,}|\b((?:Bearer|Basic) )\S{6,}|(-----BEGIN [^-]*-----).*", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One event with its place in its stream. ``intact``: its hash fits what it says and what came before it."""

    event: DomainEvent
    earlier: UUID | None
    later: UUID | None
    intact: bool


class Audit:
    """Reads the event log for those who may read all of it. Secrets never leave: see `masked`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def page(
        self, actor: Actor, wanted: Wanted, *, cursor: str | None = None, limit: int = 50
    ) -> Page[DomainEvent]:
        """Return a page of events, newest first; raise ValidationFailed when the search takes too long."""
        actor.require(Permission.AUDIT_READ)
        limit = max(1, min(limit, MAX_PAGE))
        found = await self._find(wanted, _before(cursor), limit + 1)
        return page_of(found, limit, lambda event: (event.at.isoformat(), event.position.seq))

    async def batches(self, actor: Actor, wanted: Wanted) -> AsyncIterator[Sequence[DomainEvent]]:
        """Yield all events that fit, newest first, some at once, each batch from a transaction of its own."""
        actor.require(Permission.AUDIT_READ)
        before = None
        while True:
            found = await self._find(wanted, before, BATCH)
            if found:
                yield found
            if len(found) < BATCH:
                return
            before = found[-1].at, found[-1].position.seq

    async def entry(self, actor: Actor, identifier: UUID) -> Entry:
        """Return one event; raise NotFound."""
        actor.require(Permission.AUDIT_READ)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            event = await events.read_event(connection, identifier)
            if event is None:
                raise NotFound(_("There is no event %(id)s.", id=identifier))
            around = await events.neighbours(connection, event.stream, event.version)
        before = around.get(event.version - 1)
        prev_hash = before.hash if before else GENESIS if event.version == 1 else None
        intact = event.prev_hash == prev_hash and event.hash == _hash_of(event)
        after = around.get(event.version + 1)
        return Entry(_masked(event), before.id if before else None, after.id if after else None, intact)

    async def types(self, actor: Actor) -> list[str]:
        """Return every type of event that has happened, by name."""
        actor.require(Permission.AUDIT_READ)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return await events.types(connection)

    async def _find(self, wanted: Wanted, before: tuple[datetime, int] | None, limit: int) -> list[DomainEvent]:
        if not is_storable([wanted.actor, wanted.type, wanted.stream, wanted.text]):
            return []  # nothing that was stored can fit
        try:
            async with self._db.transaction(PLATFORM_SCOPE) as connection:
                await connection.execute(f"SET LOCAL statement_timeout = '{LONGEST_SECONDS}s'")
                return [_masked(event) for event in await events.find(connection, wanted, before, limit)]
        except QueryCanceled as error:
            message = _("This search takes too long. Choose fewer days, a stream, a kind or an actor.")
            raise ValidationFailed(errors=[{"field": "text", "message": message}]) from error


def masked(value: Any) -> Any:
    """Return an event's data without secrets: by the names of members, and by the shapes of texts.

    Nothing secret should ever be written into an event. This stands behind that rule.
    """
    if isinstance(value, Mapping):
        return {
            name: MASK if isinstance(part, str) and part and _SECRET_NAME.search(name) else masked(part)
            for name, part in value.items()
        }
    if isinstance(value, list | tuple):
        return [masked(part) for part in value]
    if isinstance(value, str):
        return _SECRET_VALUE.sub(lambda found: f"{found[1] or found[2] or found[3]}{MASK}", value)
    return value


def _masked(event: DomainEvent) -> DomainEvent:
    return replace(event, data=masked(event.data))


def _hash_of(event: DomainEvent) -> bytes:
    return chain_hash(
        event.prev_hash,
        id=event.id,
        stream=event.stream,
        version=event.version,
        type=event.type,
        data=event.data,
        actor=event.actor,
        org=event.org,
        at=event.at,
    )


def _before(cursor: str | None) -> tuple[datetime, int] | None:
    if cursor is None:
        return None
    at, seq = decode_cursor(cursor, 2, str, int)
    try:
        return datetime.fromisoformat(at).astimezone(UTC), seq
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(_("The cursor is not one of ours: take it from the previous page's `next`.")) from error

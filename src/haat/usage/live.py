"""The live feed: an organisation's calls as they come into the store, and nobody else's.

Calls are stored within a second of their answer. The feed asks for what came in since the batch it has seen: a call
that is stored late is not missed, and none comes twice. It is bounded in every way: so many calls a step, so many feeds
a process and an organisation, so long a feed; a browser's ``EventSource`` begins anew by itself where it ended.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec

from haat.infra.postgres import Database, tenant
from haat.kernel.clock import Clock
from haat.kernel.errors import PermissionDenied, TooManyFeeds
from haat.kernel.permissions import Actor, Permission
from haat.language.messages import _
from haat.usage import analytics_store as store
from haat.usage import intake
from haat.usage.model import id_bound

AT_ONCE = 50
"""The most calls that one step of a feed shows; of more than that the newest."""
STEP_SECONDS = 1.0
STEPS = 600
"""A feed ends after so many; who still listens asks again."""
BACK = timedelta(minutes=15)
"""How old a call may be that comes into a feed."""
MAX_FEEDS, MAX_FEEDS_OF_ONE = 200, 5


@dataclass(slots=True)
class Feeds:
    """The feeds that run in this process."""

    running: Counter[UUID] = field(default_factory=Counter)

    @contextmanager
    def one(self, org: UUID) -> Iterator[None]:
        """Take a feed's place; raise TooManyFeeds when there is none."""
        if self.running[org] >= MAX_FEEDS_OF_ONE or self.running.total() >= MAX_FEEDS:
            raise TooManyFeeds
        self.running[org] += 1
        try:
            yield
        finally:
            self.running[org] -= 1
            if not self.running[org]:
                del self.running[org]


def as_json(row: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode({name: value for name, value in row.items() if name != "batch"})


class Live:
    """Reads the newest calls of an organisation."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db, self._clock, self._feeds = db, clock, Feeds()

    async def latest(self, actor: Actor, after_batch: int | None = None) -> tuple[Sequence[Mapping[str, Any]], int]:
        """Return the newest calls of the actor's organisation and the batch up to which they are."""
        actor.require(Permission.USAGE_READ)
        if actor.org_id is None:
            raise PermissionDenied(_("Choose an organisation first."))
        since = id_bound(self._clock.now() - BACK)
        async with self._db.transaction(tenant(actor.org_id)) as connection:
            newest = await intake.watermark(connection)
            if after_batch is not None and newest <= after_batch:
                return [], after_batch
            rows = await store.latest(connection, actor.org_id, after_batch or 0, since, AT_ONCE)
        # A batch that became visible between the two queries is shown now and not again.
        return rows, max([newest, *(row["batch"] for row in rows)])

    async def feed(
        self,
        actor: Actor,
        after_batch: int | None = None,
        *,
        steps: int = STEPS,
        render: Callable[[Mapping[str, Any]], bytes] = as_json,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> AsyncIterator[bytes]:
        """Yield server-sent events: ``call`` with a call as one line, oldest first, and comments when there is none.

        The id of an event is the batch up to which the feed has shown all calls: with it a reader resumes.
        Raise TooManyFeeds before the first. A reader that says no batch gets the last calls first.
        """
        if actor.org_id is None:
            raise PermissionDenied(_("Choose an organisation first."))
        with self._feeds.one(actor.org_id):
            seen = after_batch
            for step in range(steps):
                if step:
                    await sleep(STEP_SECONDS)
                rows, seen = await self.latest(actor, seen)
                # The batch is complete with its last call only: until then the feed resumes before it.
                events = [_event(render(row), seen if row is rows[0] else None) for row in reversed(rows)]
                yield b"".join(events) or b": \n\n"


def _event(data: bytes, batch: int | None) -> bytes:
    return (b"id: %d\n" % batch if batch is not None else b"") + b"event: call\ndata: " + data + b"\n\n"

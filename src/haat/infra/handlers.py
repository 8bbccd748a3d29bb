"""Events become jobs: one durable job for each handler of an event, keyed by (event, handler).

Each handler has a cursor of its own in ``event_cursors``. The cursor moves and the jobs are deferred
in one transaction that holds the cursor's row, so several dispatchers neither miss an event nor
defer it twice. A handler that appears later begins at the present; `deliver_past` hands it the past.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection, Error

from haat.infra import events
from haat.infra.jobs import Jobs, NewJob, Retry, RunningJob, Task
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database
from haat.kernel.events import DomainEvent, EventHandler, Position

log = logging.getLogger(__name__)

BATCH = 500
BEGINNING = Position()
HANDLER_RETRY = Retry()
"""Eight attempts (or as many as the handler says) within about eight hours."""


def handler_task(handler: EventHandler, retry: Retry = HANDLER_RETRY) -> Task:
    """Return the task that runs one handler."""
    return Task(_task_name(handler), partial(_handle, handler), replace(retry, max_attempts=handler.max_attempts))


async def _handle(handler: EventHandler, platform: Any, job: RunningJob) -> None:
    async with job.db.transaction(PLATFORM_SCOPE) as connection:
        event = await events.read_event(connection, UUID(job.args["event"]))
    if event is None:
        raise LookupError(f"There is no event {job.args['event']}.")
    await handler.run(platform, event)


class Dispatcher:
    """Follows the event log and defers the jobs of every handler."""

    def __init__(self, db: Database, jobs: Jobs, handlers: Iterable[EventHandler], *, poll_seconds: float = 1) -> None:
        self._db, self._jobs, self._poll_seconds = db, jobs, poll_seconds
        self._handlers = {_cursor_name(handler): handler for handler in handlers}

    async def run(self, stop: asyncio.Event) -> None:
        """Dispatch until ``stop``: woken by the log's notifications, and by the clock as a fallback."""
        while not stop.is_set():
            try:
                await self.begin()
                listener = await AsyncConnection.connect(self._db.dsn, autocommit=True, application_name="haat-events")
                async with listener:
                    await listener.execute(f"LISTEN {events.CHANNEL}")
                    while not stop.is_set():
                        while await self.dispatch() and not stop.is_set():
                            pass
                        async for _ in listener.notifies(timeout=self._poll_seconds, stop_after=1):
                            pass
            except Error:
                log.exception("dispatching events failed and is tried again")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), self._poll_seconds)

    async def begin(self) -> None:
        """Give every new handler a cursor: the first ones of a platform see all events, later ones the coming."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            known = await connection.execute("SELECT name FROM event_cursors WHERE starts_with(name, 'handler/')")
            start = await events.present_position(connection) if await known.fetchone() else BEGINNING
            await connection.execute(
                """
                INSERT INTO event_cursors (name, position) SELECT unnest(%s::text[]), %s
                ON CONFLICT (name) DO NOTHING
                """,
                (sorted(self._handlers), str(start)),
            )

    async def dispatch(self) -> bool:
        """Move each cursor by up to `BATCH` events, deferring their jobs; return whether any moved.

        Cursors that another dispatcher is moving are left to it.
        """
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            if not await self._behind(connection):
                return False
            rows = await connection.execute(
                """
                SELECT name, position FROM event_cursors WHERE name = ANY(%s)
                ORDER BY name FOR UPDATE SKIP LOCKED
                """,
                (list(self._handlers),),
            )
            together: dict[Position, list[str]] = {}
            async for row in rows:
                together.setdefault(Position.parse(row["position"]), []).append(row["name"])
            moved = False
            for position, names in together.items():
                batch = await events.read_after(connection, position, BATCH)
                if batch:
                    moved = True
                    handlers = [self._handlers[name] for name in names]
                    await self._jobs.defer_many(connection, _jobs_for(batch, handlers))
                    await connection.execute(
                        "UPDATE event_cursors SET position = %s, moved_at = now() WHERE name = ANY(%s)",
                        (str(batch[-1].position), names),
                    )
            return moved

    async def _behind(self, connection: Connection) -> bool:
        """Look before locking: an idle dispatcher writes nothing."""
        rows = await connection.execute(
            "SELECT DISTINCT position FROM event_cursors WHERE name = ANY(%s)", (list(self._handlers),)
        )
        positions = [Position.parse(row["position"]) async for row in rows]
        return bool(positions and await events.read_after(connection, min(positions), 1))


async def deliver_past(connection: Connection, jobs: Jobs, handler: EventHandler, after: Position = BEGINNING) -> int:
    """Defer a handler's jobs for events before its cursor and return how many are new.

    Events whose job for this handler is still remembered are not handled again.
    """
    row = await (
        await connection.execute("SELECT position FROM event_cursors WHERE name = %s", (_cursor_name(handler),))
    ).fetchone()
    end = Position.parse(row["position"]) if row else await events.present_position(connection)
    new = 0
    while batch := [event for event in await events.read_after(connection, after, BATCH) if event.position <= end]:
        wanted = _jobs_for(batch, [handler])
        known = await connection.execute(
            "SELECT count(*) AS known FROM job_keys WHERE key = ANY(%s)", ([job.key for job in wanted],)
        )
        count = await known.fetchone()
        assert count is not None
        await jobs.defer_many(connection, wanted)
        new += len(wanted) - int(count["known"])
        after = batch[-1].position
    return new


def _jobs_for(batch: Sequence[DomainEvent], handlers: Sequence[EventHandler]) -> list[NewJob]:
    return [
        NewJob(_task_name(handler), {"event": str(event.id)}, key=f"{_task_name(handler)}:{event.id}")
        for event in batch
        for handler in handlers
        if event.type in handler.types
    ]


def _task_name(handler: EventHandler) -> str:
    return f"event:{handler.name}"


def _cursor_name(handler: EventHandler) -> str:
    return f"handler/{handler.name}"

"""Dead letters: jobs that failed at every attempt, kept with their error until somebody replays them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from haat.infra import events
from haat.infra.jobs import Jobs, NewJob
from haat.infra.postgres import Connection
from haat.kernel.errors import Conflict, NotFound
from haat.kernel.ids import new_id


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One job given up. ``event_id`` and ``handler`` are set when it handled an event."""

    id: UUID
    job_id: int
    task: str
    queue: str
    priority: int
    args: Mapping[str, Any]
    event_id: UUID | None
    handler: str | None
    attempts: int
    error: str
    died_at: datetime
    replayed_at: datetime | None
    replay_job_id: int | None


async def bury(
    connection: Connection,
    *,
    job_id: int,
    task: str,
    queue: str,
    priority: int,
    args: Mapping[str, Any],
    attempts: int,
    error: str,
) -> None:
    """Keep a job that is given up. Belongs into the transaction that marks the job failed."""
    handler = task.removeprefix("event:") if task.startswith("event:") else None
    await connection.execute(
        """
        INSERT INTO dead_letters (id, job_id, task, queue, priority, args, event_id, handler, attempts, error)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        """,
        (
            new_id(),
            job_id,
            task,
            queue,
            priority,
            Jsonb(dict(args)),
            args["event"] if handler else None,
            handler,
            attempts,
            error,
        ),
    )


async def find(connection: Connection, *, replayed: bool = False, limit: int = 100) -> list[DeadLetter]:
    """Return the letters that wait, oldest first; with ``replayed`` those that were replayed as well."""
    rows = await connection.execute(
        "SELECT * FROM dead_letters WHERE %s OR replayed_at IS NULL ORDER BY died_at, id LIMIT %s", (replayed, limit)
    )
    return [DeadLetter(**row) async for row in rows]


async def of_job(connection: Connection, job_id: int) -> DeadLetter | None:
    """Return the dead letter that a job left."""
    row = await (await connection.execute("SELECT * FROM dead_letters WHERE job_id = %s", (job_id,))).fetchone()
    return DeadLetter(**row) if row else None


async def replay(connection: Connection, jobs: Jobs, identifier: UUID, *, actor: str, at: datetime) -> int:
    """Defer a dead letter's job anew and return the new job's id; raise NotFound or Conflict.

    The event `dead_letter.replayed` records who did it. If the job was deferred under a key, the key
    now means the new job.
    """
    row = await (
        await connection.execute("SELECT * FROM dead_letters WHERE id = %s FOR UPDATE", (identifier,))
    ).fetchone()
    if row is None:
        raise NotFound(f"There is no dead letter {identifier}.")
    letter = DeadLetter(**row)
    if letter.replayed_at is not None:
        raise Conflict(f"This dead letter was replayed already, as job {letter.replay_job_id}.")
    new = NewJob(letter.task, letter.args, queue=letter.queue, priority=letter.priority)
    job_id = (await jobs.defer_many(connection, [new]))[0]
    await connection.execute("UPDATE job_keys SET job_id = %s WHERE job_id = %s", (job_id, letter.job_id))
    await connection.execute(
        "UPDATE dead_letters SET replayed_at = %s, replay_job_id = %s WHERE id = %s", (at, job_id, identifier)
    )
    await events.append(
        connection,
        stream=f"dead_letter/{identifier}",
        type="dead_letter.replayed",
        data={
            "task": letter.task,
            "job": letter.job_id,
            "replay_job": job_id,
            "event": str(letter.event_id) if letter.event_id else None,
        },
        actor=actor,
        org=None,
        at=at,
    )
    return job_id


async def replay_all(connection: Connection, jobs: Jobs, *, actor: str, at: datetime) -> list[int]:
    """Replay every letter that waits and return the new jobs' ids. One that somebody else replays is left to them."""
    rows = await connection.execute(
        "SELECT id FROM dead_letters WHERE replayed_at IS NULL ORDER BY died_at, id FOR UPDATE SKIP LOCKED"
    )
    waiting = [row["id"] async for row in rows]
    return [await replay(connection, jobs, identifier, actor=actor, at=at) for identifier in waiting]

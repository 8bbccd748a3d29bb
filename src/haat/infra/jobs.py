"""Durable jobs: deferred inside the caller's transaction, run by any worker, at least once.

`Jobs` is the port that domains use. It speaks to the engine's SQL functions, so a job exists exactly
when the change that asked for it was committed, and processes that only defer never load the engine.
`haat.infra.job_worker` runs what is deferred here. A job may run again after its worker died, so each
one must leave the same result however often it runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database
from haat.kernel.errors import Conflict, NotFound

PRIORITIES = range(-1000, 1001)
SUNK = 1_000_000
"""Taken off the priority of a job that sleeps until later.

The engine looks through waiting jobs in the order of priority and skips those whose time has not come,
one by one: 20,000 sleeping jobs on top of the queue cost two thirds of the throughput. Sunk to the
bottom they cost nothing while there is other work. The worker raises them when their time has come.
"""

KEEP_DAYS = 30
"""How long an ended job and its key are remembered."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a job is tried, and how long it waits in between: exponential, with jitter.

    The wait after attempt n is ``first_seconds × factor^(n-1)``, at most ``longest_seconds``, spread
    evenly by ``jitter`` (0.2 = ±20 %) so that jobs which failed together do not come back together.
    """

    max_attempts: int = 8
    first_seconds: float = 5
    factor: float = 4
    longest_seconds: float = 24 * 3600
    jitter: float = 0.2

    def wait_seconds(self, attempt: int, draw: float) -> float:
        """Return the seconds to wait after ``attempt`` (from 1); ``draw`` is random in [0, 1)."""
        wait = self.first_seconds
        for _ in range(attempt - 1):  # not a power: that overflows long before the limit is compared
            wait *= self.factor
            if wait >= self.longest_seconds:
                break
        return min(wait, self.longest_seconds) * (1 + self.jitter * (2 * draw - 1))


@dataclass(frozen=True, slots=True)
class RunningJob:
    """One attempt at a job, as its function sees it. ``attempt`` counts from 1."""

    id: int
    task: str
    args: Mapping[str, Any]
    attempt: int
    db: Database

    async def report(self, progress: float, note: str = "") -> None:
        """Say how far the job is (0 to 1), for everybody who lists it. Commits at once."""
        async with self.db.transaction(PLATFORM_SCOPE) as connection:
            await connection.execute(
                """
                INSERT INTO job_notes (job_id, progress, note) VALUES (%s, %s, %s)
                ON CONFLICT (job_id) DO UPDATE SET progress = excluded.progress, note = excluded.note, at = now()
                """,
                (self.id, progress, note),
            )


@dataclass(frozen=True, slots=True)
class Task:
    """A kind of job. ``run`` gets the platform (see `haat.app.Platform`) and the running job."""

    name: str
    run: Callable[[Any, RunningJob], Awaitable[None]]
    retry: Retry = Retry()
    timeout_seconds: float = 900


@dataclass(frozen=True, slots=True)
class Schedule:
    """A task deferred at every tick of a cron line in UTC, once however many workers there are.

    ``args["timestamp"]`` is the tick in seconds since the epoch. A tick does not add to one that still
    waits, and one missed for less than a day is made up for: write tasks that do whatever is due.
    """

    task: str
    cron: str
    name: str = ""
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be deferred. Of several with one ``key`` only the first is, see `Jobs.defer`."""

    task: str
    args: Mapping[str, Any]
    key: str | None = None
    queue: str = "default"
    priority: int = 0
    run_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as it stands: ``waiting``, ``running``, ``succeeded``, ``failed`` or ``cancelled``."""

    id: int
    task: str
    queue: str
    priority: int
    status: str
    args: Mapping[str, Any]
    attempts: int
    run_at: datetime | None
    deferred_at: datetime | None
    ended_at: datetime | None
    progress: float | None
    note: str
    error: str
    key: str | None


@dataclass(frozen=True, slots=True)
class QueueState:
    """How a queue stands. ``due`` jobs could run now, ``sleeping`` ones wait for their time or their next attempt.

    ``oldest_due`` is since when the first of the due ones could have run; ``given_up`` counts its dead letters.
    """

    queue: str
    due: int
    oldest_due: datetime | None
    sleeping: int
    running: int
    retried: int
    given_up: int


class UnknownTask(LookupError):
    """Somebody defers or schedules a task that nobody has registered: a mistake in the program."""


class Jobs:
    """Defers, lists and cancels jobs; knows every task and schedule of the platform."""

    def __init__(self, db: Database, tasks: Iterable[Task] = (), schedules: Iterable[Schedule] = ()) -> None:
        self.db = db
        self.tasks: dict[str, Task] = {}
        self.schedules: list[Schedule] = []
        for task in (PURGE, *tasks):
            self.register(task)
        for schedule in (Schedule(PURGE.name, "17 * * * *"), *schedules):
            self.schedule(schedule)

    def register(self, task: Task) -> None:
        """Make a task known. Workers run only what is registered; a name is given once."""
        if task.name in self.tasks:
            raise ValueError(f"the task {task.name} is registered twice")
        self.tasks[task.name] = task

    def schedule(self, schedule: Schedule) -> None:
        if schedule.task not in self.tasks:
            raise UnknownTask(schedule.task)
        self.schedules.append(schedule)

    async def defer(
        self,
        connection: Connection,
        task: str,
        args: Mapping[str, Any],
        *,
        key: str | None = None,
        queue: str = "default",
        priority: int = 0,
        run_at: datetime | None = None,
    ) -> int:
        """Defer a job within the caller's transaction and return its id.

        With a ``key`` that was used before, nothing is deferred and the first job's id is returned;
        a key is forgotten `KEEP_DAYS` after its job ended. A higher ``priority`` runs sooner.
        """
        if task not in self.tasks:
            raise UnknownTask(task)
        return (await self.defer_many(connection, [NewJob(task, args, key, queue, priority, run_at)]))[0]

    async def defer_many(self, connection: Connection, new: Sequence[NewJob]) -> list[int]:
        """Defer jobs in one statement, whether or not their tasks are known to this process; return their ids."""
        keys = sorted({job.key for job in new if job.key is not None})  # sorted: two callers can't deadlock
        fresh: set[str | None] = set()
        if keys:
            inserted = await connection.execute(
                "INSERT INTO job_keys (key) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING RETURNING key", (keys,)
            )
            fresh = {row["key"] async for row in inserted}
        wanted: list[NewJob] = []
        for job in new:
            if job.priority not in PRIORITIES:
                raise ValueError(f"a priority is between {PRIORITIES[0]} and {PRIORITIES[-1]}, not {job.priority}")
            if job.key is None or job.key in fresh:
                wanted.append(job)
                fresh.discard(job.key)
        ids = await _insert(connection, wanted)
        ids_by_key = dict.fromkeys(keys, 0)
        if keys:
            made = [(job.key, identifier) for job, identifier in zip(wanted, ids, strict=True) if job.key is not None]
            await connection.execute(
                """
                UPDATE job_keys SET job_id = made.id FROM unnest(%s::text[], %s::bigint[]) AS made (key, id)
                WHERE job_keys.key = made.key
                """,
                ([key for key, _ in made], [identifier for _, identifier in made]),
            )
            known = await connection.execute("SELECT key, job_id FROM job_keys WHERE key = ANY(%s)", (keys,))
            ids_by_key = {row["key"]: row["job_id"] async for row in known}
        unkeyed = iter([identifier for job, identifier in zip(wanted, ids, strict=True) if job.key is None])
        return [next(unkeyed) if job.key is None else ids_by_key[job.key] for job in new]

    async def get(self, connection: Connection, identifier: int) -> JobRecord:
        """Return a job, or raise NotFound."""
        rows = await (await connection.execute(f"{_RECORDS} WHERE job.id = %s", (identifier,))).fetchall()
        if not rows:
            raise NotFound(f"There is no job {identifier}: it never was, or it ended over {KEEP_DAYS} days ago.")
        return _record(rows[0])

    async def recent(
        self,
        connection: Connection,
        *,
        status: str | None = None,
        task: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[JobRecord]:
        """Return jobs from the newest on, older than the id ``before`` when that is given."""
        statuses = [engine for engine, ours in _STATUSES.items() if status in (None, ours)]
        rows = await connection.execute(
            f"""
            {_RECORDS} WHERE job.status = ANY(%s::procrastinate_job_status[])
                AND (%s::text IS NULL OR job.task_name = %s) AND (%s::bigint IS NULL OR job.id < %s)
            ORDER BY job.id DESC LIMIT %s
            """,
            (statuses, task, task, before, before, limit),
        )
        return [_record(row) async for row in rows]

    async def queues(self, connection: Connection) -> list[QueueState]:
        """Return every queue that has open jobs or dead letters, by name."""
        rows = await connection.execute(
            """
            WITH job AS (
                SELECT id, queue_name AS queue, attempts, scheduled_at, status = 'doing' AS running,
                    status = 'todo' AND coalesce(scheduled_at <= now(), true) AS due
                FROM procrastinate_jobs WHERE status IN ('todo', 'doing')
            ), open AS (
                SELECT queue, count(*) FILTER (WHERE due) AS due, count(*) FILTER (WHERE running) AS running,
                    count(*) FILTER (WHERE NOT due AND NOT running) AS sleeping,
                    count(*) FILTER (WHERE NOT running AND attempts > 0) AS retried,
                    min(scheduled_at) FILTER (WHERE due) AS since,
                    min(id) FILTER (WHERE due AND scheduled_at IS NULL) AS first
                FROM job GROUP BY queue
            ), dead AS (
                SELECT queue, count(*) AS given_up FROM dead_letters WHERE replayed_at IS NULL GROUP BY queue
            )
            SELECT queue, coalesce(due, 0) AS due, coalesce(sleeping, 0) AS sleeping, coalesce(running, 0) AS running,
                coalesce(retried, 0) AS retried, coalesce(given_up, 0) AS given_up,
                least(since, (SELECT min(at) FROM procrastinate_events
                              WHERE job_id = open.first AND type = 'deferred')) AS oldest_due
            FROM open FULL JOIN dead USING (queue) ORDER BY queue
            """
        )
        return [QueueState(**row) async for row in rows]

    async def last_seen(self, connection: Connection) -> list[datetime]:
        """Return when each job worker last gave a sign of life, the newest first. One that ended has none."""
        rows = await connection.execute("SELECT last_heartbeat FROM procrastinate_workers ORDER BY 1 DESC")
        return [row["last_heartbeat"] async for row in rows]

    async def cancel(self, connection: Connection, identifier: int) -> None:
        """Cancel a waiting job, or interrupt a running one; raise NotFound or Conflict when it has ended."""
        row = await (
            await connection.execute("SELECT procrastinate_cancel_job_v1(%s, true, false) AS id", (identifier,))
        ).fetchone()
        assert row is not None
        if row["id"] is None:
            job = await self.get(connection, identifier)
            raise Conflict(f"Job {identifier} has ended ({job.status}): only waiting and running jobs are cancelled.")

    async def hurry(self, connection: Connection, identifier: int) -> None:
        """Let a job that waits for its time, or for its next attempt, run now; raise NotFound or Conflict."""
        job = await self.get(connection, identifier)
        if job.status != "waiting":
            raise Conflict(f"Job {identifier} is {job.status}: only a waiting job can be hurried.")
        await connection.execute(
            "UPDATE procrastinate_jobs SET scheduled_at = NULL, priority = %s WHERE id = %s AND status = 'todo'",
            (job.priority, identifier),
        )


def awake(priority: int) -> int:
    """Return the priority that a job has when its time has come."""
    return priority + SUNK if priority < -SUNK // 2 else priority


async def _insert(connection: Connection, jobs: Sequence[NewJob]) -> list[int]:
    if not jobs:
        return []
    rows = await connection.execute(
        """
        WITH job AS (
            SELECT * FROM unnest(%s::text[], %s::text[], %s::integer[], %s::jsonb[], %s::timestamptz[])
                WITH ORDINALITY AS job (task, queue, priority, args, run_at, place)
        )
        SELECT unnest(procrastinate_defer_jobs_v1(array_agg(
            ROW(queue, task, CASE WHEN run_at > now() THEN priority - %s ELSE priority END, NULL, NULL, args, run_at)
                ::procrastinate_job_to_defer_v1
            ORDER BY place))) AS id
        FROM job
        """,
        (
            [job.task for job in jobs],
            [job.queue for job in jobs],
            [job.priority for job in jobs],
            [Jsonb(dict(job.args)) for job in jobs],
            [job.run_at for job in jobs],
            SUNK,
        ),
    )
    return sorted([row["id"] async for row in rows])  # numbered in the order in which they were given


_STATUSES = {
    "todo": "waiting",
    "doing": "running",
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
    "aborting": "cancelled",
    "aborted": "cancelled",
}
STATUSES = tuple(dict.fromkeys(_STATUSES.values()))

_RECORDS = """
SELECT job.id, job.task_name, job.queue_name, job.priority, job.status::text AS status, job.args, job.attempts,
    job.scheduled_at, life.deferred_at, life.ended_at, job_notes.progress, job_notes.note, job_notes.error,
    job_keys.key
FROM procrastinate_jobs AS job
LEFT JOIN job_notes ON job_notes.job_id = job.id
LEFT JOIN job_keys ON job_keys.job_id = job.id
LEFT JOIN LATERAL (
    SELECT min(at) FILTER (WHERE type = 'deferred') AS deferred_at,
        max(at) FILTER (WHERE type IN ('succeeded', 'failed', 'cancelled', 'aborted')) AS ended_at
    FROM procrastinate_events WHERE job_id = job.id
) AS life ON true
"""


def _record(row: Mapping[str, Any]) -> JobRecord:
    return JobRecord(
        id=row["id"],
        task=row["task_name"],
        queue=row["queue_name"],
        priority=awake(row["priority"]),
        status=_STATUSES[row["status"]],
        args=row["args"],
        attempts=row["attempts"],
        run_at=row["scheduled_at"],
        deferred_at=row["deferred_at"],
        ended_at=row["ended_at"],
        progress=row["progress"],
        note=row["note"] or "",
        error=row["error"] or "",
        key=row["key"],
    )


async def _purge(_: Any, job: RunningJob) -> None:
    """Forget jobs that ended long ago; dead letters stay until they are replayed."""
    while True:
        async with job.db.transaction(PLATFORM_SCOPE) as connection:
            deleted = await connection.execute(
                """
                DELETE FROM procrastinate_jobs WHERE id IN (
                    SELECT id FROM procrastinate_jobs AS ended
                    WHERE status NOT IN ('todo', 'doing') AND NOT EXISTS (
                        SELECT FROM procrastinate_events
                        WHERE job_id = ended.id AND at > now() - make_interval(days => %s))
                    ORDER BY id LIMIT 5000)
                """,
                (KEEP_DAYS,),
            )
        if deleted.rowcount < 5000:
            return


PURGE = Task("jobs.purge", _purge)

"""Runs durable jobs with Procrastinate. What it adds to the engine is written in decision 0002.

- Each end of an attempt is fenced: a worker that was taken for dead (paused, cut off) and comes back
  changes nothing about a job that another worker has taken over.
- A job's failure and its dead letter are one transaction.
- Jobs of silent workers are put back by whichever worker looks first; a job that keeps killing its
  worker runs out of attempts like any other.
- A task that this version does not know is put back for a newer worker instead of failing.
- A job interrupted by our own shutdown is put back at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from procrastinate import App, JobContext, PsycopgConnector
from procrastinate.exceptions import JobAborted
from procrastinate.job_context import AbortReason
from procrastinate.jobs import Job, Status
from procrastinate.manager import JobManager
from procrastinate.retry import BaseRetryStrategy, RetryDecision
from procrastinate.utils import utcnow
from psycopg import Error
from psycopg.errors import UniqueViolation

from haat.infra import dead_letters
from haat.infra.jobs import SUNK, Jobs, Retry, RunningJob, Task, awake
from haat.infra.postgres import PLATFORM_SCOPE, Connection

log = logging.getLogger(__name__)

UNKNOWN_TASK = Retry(max_attempts=12, first_seconds=5, factor=3, longest_seconds=3600)
"""How long a job waits for a worker that knows its task, such as the next version's."""

MISSED_TICKS_SECONDS = 24 * 3600
_ERROR_LENGTH = 4000


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: between signs of life, until a silent worker counts as dead, between looks at the queue.

    A job whose worker dies is running again after at most ``dead_after + heartbeat + poll``.
    """

    heartbeat: float = 5
    dead_after: float = 30
    poll: float = 1


class JobWorker:
    """Runs jobs of every queue, ``concurrency`` at a time, until it is told to stop."""

    def __init__(self, jobs: Jobs, platform: Any, *, concurrency: int = 8, pace: Pace | None = None) -> None:
        self._jobs, self._platform, self._concurrency, self._pace = jobs, platform, concurrency, pace or Pace()

    async def run(self, stop: asyncio.Event, shutdown_seconds: float = 30) -> None:
        """Work until ``stop``; then give running jobs ``shutdown_seconds``, interrupt them and put them back."""
        app = self._build_app()
        async with app.open_async():
            sweep = asyncio.create_task(self._keep_house())
            try:
                while not stop.is_set():
                    await self._work(app, stop, shutdown_seconds)
            finally:
                sweep.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await sweep

    async def _work(self, app: App, stop: asyncio.Event, shutdown_seconds: float) -> None:
        """Run one engine worker until ``stop`` or until it fails, as it does when PostgreSQL restarts."""
        stopping = asyncio.create_task(stop.wait())
        worker = asyncio.create_task(
            app.run_worker_async(
                concurrency=self._concurrency,
                fetch_job_polling_interval=self._pace.poll,
                abort_job_polling_interval=self._pace.heartbeat,
                update_heartbeat_interval=self._pace.heartbeat,
                stalled_worker_timeout=self._pace.dead_after,
                shutdown_graceful_timeout=shutdown_seconds,
                install_signal_handlers=False,
            )
        )
        try:
            await asyncio.wait({stopping, worker}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            worker.cancel()  # the engine takes this as the wish to finish what it has begun
            (outcome,) = await asyncio.gather(worker, return_exceptions=True)
        if not stop.is_set():
            log.error("the job worker ended and starts again", exc_info=outcome)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._pace.poll)

    # --- the engine's application ---------------------------------------------------------------

    def _build_app(self) -> App:
        connector = PsycopgConnector(
            conninfo=self._jobs.db.dsn,
            min_size=1,
            max_size=4,
            # A power cut may forget that a job was taken or done: it then runs again, as after any
            # crash. Deferring a job commits with its caller's transaction and is never forgotten.
            kwargs={"application_name": "haat-jobs", "options": "-c synchronous_commit=off"},
        )
        app = App(connector=connector, periodic_defaults={"max_delay": MISSED_TICKS_SECONDS})
        ledger = _Ledger(connector, self._jobs)
        app.job_manager = ledger
        registered = {
            name: app.task(name=name, pass_context=True, retry=_Policy(task.retry))(self._attempt(task, ledger))
            for name, task in self._jobs.tasks.items()
        }
        for schedule in self._jobs.schedules:
            name = schedule.name or schedule.task
            periodic = app.periodic(
                cron=schedule.cron, periodic_id=name, queueing_lock=name, task_kwargs=dict(schedule.args)
            )
            periodic(registered[schedule.task])
        return app

    def _attempt(self, task: Task, ledger: _Ledger) -> Callable[..., Awaitable[None]]:
        async def attempt(context: JobContext, **args: Any) -> None:
            assert context.job.id is not None
            running = RunningJob(context.job.id, task.name, args, context.job.attempts + 1, self._jobs.db)
            try:
                async with asyncio.timeout(task.timeout_seconds):
                    await task.run(self._platform, running)
            except asyncio.CancelledError as cancelled:
                if context.abort_reason() is AbortReason.USER_REQUEST:
                    raise JobAborted from cancelled
                raise _Interrupted from cancelled
            except Exception as error:
                ledger.errors[context.job.id] = _text_of(error)
                raise

        return attempt

    # --- housekeeping ---------------------------------------------------------------------------

    async def _keep_house(self) -> None:
        """Raise jobs whose time has come, and put back the jobs of workers that fell silent."""
        loop = asyncio.get_running_loop()
        recover_at = 0.0
        while True:
            try:
                await self._raise_due()
                if loop.time() >= recover_at:
                    recover_at = loop.time() + self._pace.heartbeat
                    await recover(self._jobs, self._pace.dead_after)
            except Error:
                log.exception("housekeeping of jobs failed and is tried again")
            await asyncio.sleep(self._pace.poll)

    async def _raise_due(self) -> None:
        async with self._jobs.db.transaction(PLATFORM_SCOPE) as connection:
            await connection.execute(
                """
                UPDATE procrastinate_jobs SET priority = priority + %s
                WHERE status = 'todo' AND priority < -500000 AND scheduled_at <= now()
                """,
                (SUNK,),
            )


class _Interrupted(Exception):
    """A job was stopped because its worker stops: nobody's fault, so it goes back at once."""


class _Policy(BaseRetryStrategy):
    def __init__(self, retry: Retry) -> None:
        self._retry = retry

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        if isinstance(exception, _Interrupted):
            return RetryDecision(retry_at=utcnow())
        if job.attempts + 1 >= self._retry.max_attempts:
            return None
        return RetryDecision(retry_at=_next_attempt(self._retry, job.attempts + 1))


class _Ledger(JobManager):
    """The engine's book-keeping with our fence around it: only the worker that holds a job ends its attempt."""

    def __init__(self, connector: PsycopgConnector, jobs: Jobs) -> None:
        super().__init__(connector)
        self._jobs = jobs
        self.errors: dict[int, str] = {}

    async def finish_job(self, job: Job, status: Status, delete_job: bool) -> None:
        assert job.id is not None
        if status is not Status.FAILED:  # the many: one statement
            held = await self.connector.execute_query_all_async(
                f"SELECT procrastinate_finish_job_v1(id, %(status)s, false) FROM ({_HELD}) AS held",
                job=job.id,
                worker=job.worker_id,
                status=status.value,
            )
            if not held:
                _say_taken_over(job.id)
            return
        async with self._held(job) as connection:
            if connection is None:
                return
            if job.task_name not in self._jobs.tasks and job.attempts + 1 < UNKNOWN_TASK.max_attempts:
                log.warning("job %d waits for a worker that knows %s", job.id, job.task_name)
                retry_at = _next_attempt(UNKNOWN_TASK, job.attempts + 1)
                await _put_back(connection, job.id, awake(job.priority), retry_at, _unknown(job.task_name))
            else:
                error = self.errors.pop(job.id, "") or _unknown(job.task_name)
                await _give_up(connection, job, error)

    async def retry_job(
        self,
        job: Job,
        retry_at: datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        lock: str | None = None,
    ) -> None:
        assert job.id is not None
        error = self.errors.pop(job.id, "")
        async with self._held(job) as connection:
            if connection is not None:
                await _put_back(connection, job.id, awake(job.priority), retry_at or utcnow(), error)

    @contextlib.asynccontextmanager
    async def _held(self, job: Job) -> AsyncIterator[Connection | None]:
        """Yield a transaction that holds the job; None when it was taken over, or cancelled meanwhile."""
        async with self._jobs.db.transaction(PLATFORM_SCOPE) as connection:
            row = await (await connection.execute(_HELD, {"job": job.id, "worker": job.worker_id})).fetchone()
            if row is None:
                _say_taken_over(job.id)
                yield None
            elif row["abort_requested"]:
                await connection.execute("SELECT procrastinate_finish_job_v1(%s, 'aborted', false)", (job.id,))
                yield None
            else:
                yield connection


_HELD = """
SELECT id, abort_requested FROM procrastinate_jobs
WHERE id = %(job)s AND status = 'doing' AND (worker_id = %(worker)s OR worker_id IS NULL) FOR UPDATE
"""


async def recover(jobs: Jobs, dead_after: float) -> int:
    """Put back the jobs of workers that were silent for ``dead_after`` seconds; return how many.

    Safe in several workers at once: a row that one has locked is skipped by the others, and once it
    is put back it is no longer running.
    """
    async with jobs.db.transaction(PLATFORM_SCOPE) as connection:
        rows = await connection.execute(
            """
            SELECT job.* FROM procrastinate_jobs AS job
            LEFT JOIN procrastinate_workers AS worker ON worker.id = job.worker_id
            WHERE job.status = 'doing'
                AND (worker.id IS NULL OR worker.last_heartbeat < now() - make_interval(secs => %s))
            FOR UPDATE OF job SKIP LOCKED
            """,
            (dead_after,),
        )
        orphans = [Job.from_row(row) async for row in rows]
        for job in orphans:
            assert job.id is not None
            task = jobs.tasks.get(job.task_name)
            error = f"The worker died during attempt {job.attempts + 1}."
            log.warning("job %d: its worker died; it is put back", job.id)
            if job.abort_requested:
                await connection.execute("SELECT procrastinate_finish_job_v1(%s, 'aborted', false)", (job.id,))
            elif task is not None and job.attempts + 1 >= task.retry.max_attempts:
                await _give_up(connection, job, error)
            else:
                await _put_back(connection, job.id, awake(job.priority), utcnow(), error)
        return len(orphans)


async def _give_up(connection: Connection, job: Job, error: str) -> None:
    assert job.id is not None
    await connection.execute("SELECT procrastinate_finish_job_v1(%s, 'failed', false)", (job.id,))
    await _note_error(connection, job.id, error)
    await dead_letters.bury(
        connection,
        job_id=job.id,
        task=job.task_name,
        queue=job.queue,
        priority=awake(job.priority),
        args=job.task_kwargs,
        attempts=job.attempts + 1,
        error=error,
    )


async def _put_back(connection: Connection, job_id: int, priority: int, at: datetime, error: str) -> None:
    """Let a job wait until ``at``, unless its schedule's next tick is waiting already and does the same."""
    sunk = priority - SUNK if at > utcnow() else priority
    try:
        async with connection.transaction():
            await connection.execute(
                "SELECT procrastinate_retry_job_v2(%s, %s::timestamptz, %s, NULL, NULL)", (job_id, at, sunk)
            )
    except UniqueViolation:
        await connection.execute("SELECT procrastinate_finish_job_v1(%s, 'aborted', false)", (job_id,))
    if error:
        await _note_error(connection, job_id, error)


async def _note_error(connection: Connection, job_id: int, error: str) -> None:
    await connection.execute(
        """
        INSERT INTO job_notes (job_id, error) VALUES (%s, %s)
        ON CONFLICT (job_id) DO UPDATE SET error = excluded.error, at = now()
        """,
        (job_id, error),
    )


def _next_attempt(retry: Retry, attempt: int) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=retry.wait_seconds(attempt, random.random()))  # noqa: S311


def _say_taken_over(job_id: int | None) -> None:
    log.warning("job %s was taken over by another worker while this one was silent; its result is dropped", job_id)


def _unknown(task: str) -> str:
    return f"No worker of this version knows the task {task}."


def _text_of(error: BaseException) -> str:
    """Return the traceback, of which the end says most."""
    return "".join(traceback.format_exception(error))[-_ERROR_LENGTH:]

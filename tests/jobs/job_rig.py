"""A job worker in the test's own loop, at a pace that a test can wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from haat.infra.job_worker import JobWorker, Pace
from haat.infra.jobs import JobRecord, Jobs
from haat.infra.postgres import PLATFORM_SCOPE

FAST = Pace(heartbeat=0.2, dead_after=10, poll=0.05)
DEADLINE_SECONDS = 20.0


async def until(condition: Callable[[], Awaitable[Any]], seconds: float = DEADLINE_SECONDS) -> Any:
    """Ask again and again until the answer is true, and return it; fail at the deadline."""
    async with asyncio.timeout(seconds):
        while not (answer := await condition()):  # noqa: ASYNC110 - what is awaited is in the database
            await asyncio.sleep(0.02)
        return answer


@asynccontextmanager
async def working(jobs: Jobs, platform: Any = None, *, pace: Pace = FAST, grace: float = 5) -> AsyncIterator[None]:
    """Run a worker for the length of a block."""
    stop = asyncio.Event()
    worker = asyncio.create_task(JobWorker(jobs, platform, pace=pace).run(stop, grace))
    try:
        yield
    finally:
        stop.set()
        await worker


async def job_of(jobs: Jobs, identifier: int) -> JobRecord:
    async with jobs.db.transaction(PLATFORM_SCOPE) as connection:
        return await jobs.get(connection, identifier)


async def ended(jobs: Jobs, identifier: int, *statuses: str) -> JobRecord:
    """Return the job once it has one of the statuses (any end when none is given)."""

    async def look() -> JobRecord | None:
        job = await job_of(jobs, identifier)
        return job if job.status in (statuses or ("succeeded", "failed", "cancelled")) else None

    found: JobRecord = await until(look)
    return found


async def defer(jobs: Jobs, task: str, args: dict[str, Any] | None = None, **options: Any) -> int:
    async with jobs.db.transaction(PLATFORM_SCOPE) as connection:
        return await jobs.defer(connection, task, args or {}, **options)

"""The worker process: turns events into jobs and runs every job."""

from __future__ import annotations

import asyncio

from haat.app import Platform, open_platform
from haat.infra.handlers import Dispatcher, handler_task
from haat.infra.job_worker import JobWorker
from haat.settings import Settings

CONCURRENCY = 8


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Work until ``stop``; running jobs then have `Settings.shutdown_seconds` to finish."""
    async with open_platform(settings, name="haat-worker") as platform:
        await work(platform, stop)


async def work(platform: Platform, stop: asyncio.Event) -> None:
    """Dispatch events and run jobs on an open platform until ``stop``."""
    for handler in platform.handlers:
        platform.jobs.register(handler_task(handler))
    dispatcher = Dispatcher(platform.db, platform.jobs, platform.handlers)
    jobs = JobWorker(platform.jobs, platform, concurrency=CONCURRENCY)
    async with asyncio.TaskGroup() as group:
        group.create_task(dispatcher.run(stop))
        group.create_task(jobs.run(stop, platform.settings.shutdown_seconds))

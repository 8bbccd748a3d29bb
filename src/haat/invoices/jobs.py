"""What the worker does for invoices: closes months, has invoices registered, watches what is due."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from haat.infra.jobs import Retry, RunningJob, Schedule, Task
from haat.infra.postgres import PLATFORM_SCOPE
from haat.invoices import payment_store
from haat.invoices.payments import KEEP_MESSAGES
from haat.invoices.runs import WORK
from haat.kernel.events import DomainEvent, EventHandler

if TYPE_CHECKING:
    from haat.app import Platform

DUE = "invoices.watch_due"


async def work(platform: Platform, job: RunningJob) -> None:
    """Work off a month's batches; several of these work side by side."""
    await platform.billing.work(job.args["period"])


async def watch_due(platform: Platform, job: RunningJob) -> None:
    """Mark what is overdue, remind of what is due, and forget messages of payment providers that are old."""
    await platform.invoices.watch_due()
    async with job.db.transaction(PLATFORM_SCOPE) as connection:
        await payment_store.forget_messages(connection, platform.clock.now() - KEEP_MESSAGES)


async def register(platform: Platform, event: DomainEvent) -> None:
    """Have an invoice registered; a registrar that fails is asked again, and then it is a dead letter to replay."""
    await platform.invoices.register(UUID(event.stream.removeprefix("invoice/")))


TASKS = (
    Task(WORK, work, Retry(max_attempts=30, first_seconds=1, factor=2, longest_seconds=60), timeout_seconds=3600),
    Task(DUE, watch_due),
)
SCHEDULES = (Schedule(DUE, "30 3 * * *"),)
"""At nine in the morning in India."""

HANDLERS = [EventHandler("invoices.register", frozenset({"invoice.registering"}), register, max_attempts=12)]

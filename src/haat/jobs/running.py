"""A run of a job: for some seconds its items are called, many at once, and their outcomes kept a hundred at a time.

Runs are short and take turns, so that no job keeps the others away: a run is as long as its job's priority says.
A run takes the job over from the one before. If that is still alive after all, being taken for dead, its outcomes
are not kept, and the same idempotency keys keep the calls from being executed twice.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import httpx

from haat.identity import job_keys
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Scope, tenant
from haat.jobs import file_store, store, webhook_store
from haat.jobs.calling import NOT_NOW, call
from haat.jobs.model import KEEP, Item, Job, Outcome
from haat.jobs.service import RANK, WORK, end
from haat.language.messages import N_

if TYPE_CHECKING:
    from haat.app import Platform
    from haat.infra.jobs import RunningJob

MOST_AT_ONCE, FIRST_AT_ONCE = 32, 8
WINDOW = 200
KEEP_EVERY, KEEP_SECONDS = 100, 0.5
SECONDS_A_PRIORITY = 1.0
"""A run is so long for each step of its job's priority."""
LONG_PAUSE = 2.0
"""Seconds of a pause from which on the run ends and another one is deferred."""
NEWS_TRIES = 20
_HALVE_EVERY = 0.2
OVERDUE = N_("Its time was over before all items had ended.")
KEY_REVOKED = N_("The key that handed it in was revoked.")


async def work(platform: Platform, running: RunningJob) -> None:
    """Work on the job that a durable job names, and defer the next run while there is something left."""
    identifier, lease = UUID(running.args["job"]), uuid4()
    async with platform.db.transaction(PLATFORM_SCOPE) as connection:
        job = await store.take(connection, identifier, lease, platform.clock.now())
    if job is not None:
        await Run(platform, job, lease).go()


class Run:
    """One run; made anew each time."""

    def __init__(self, platform: Platform, job: Job, lease: UUID) -> None:
        self._platform, self._job, self._lease = platform, job, lease
        self._scope: Scope = tenant(job.org_id)
        self._key = job_keys.text_of(platform.keyring, job.id, job.mode)
        self._outcomes: list[Outcome] = []
        self._calls: set[asyncio.Task[Outcome]] = set()
        self._at_once = float(FIRST_AT_ONCE)
        self._ceiling = float(MOST_AT_ONCE)
        self._halved_at = 0.0
        self._resume_at = 0.0
        self._paused_for = ""
        self._cursor = -1
        self._read_all = self._look_again = False
        self._busy: set[int] = set()
        """Places that are read and whose outcome isn't kept yet."""
        self._kept_at = time.monotonic()
        self._status: str | None = job.status

    async def go(self) -> None:
        """Call, keep, and then end the job or defer its next run."""
        if await self._is_stopped():
            return
        until = time.monotonic() + SECONDS_A_PRIORITY * self._job.priority
        try:
            async with self._client() as client:
                await self._loop(client, until)
        finally:
            for task in self._calls:
                task.cancel()
            await asyncio.gather(*self._calls, return_exceptions=True)
        if self._status is not None:
            await self._conclude()

    def _client(self) -> httpx.AsyncClient:
        settings = self._platform.settings
        secured = settings.tls_certificate is not None
        # The certificate is for the host's name, and we call by address on this very machine.
        return httpx.AsyncClient(
            base_url=f"{'https' if secured else 'http'}://127.0.0.1:{settings.gateway_port}",
            verify=not secured,
            trust_env=False,
            limits=httpx.Limits(max_connections=MOST_AT_ONCE, max_keepalive_connections=MOST_AT_ONCE),
        )

    async def _is_stopped(self) -> bool:
        """End the job when it is to be cancelled, is overdue, or the key that handed it in was revoked."""
        job, now = self._job, self._platform.clock.now()
        async with self._platform.db.transaction(self._scope) as connection:
            withdrawn = await job_keys.is_withdrawn(connection, job.credential_id, now)
            if job.status == "cancelling":
                await self._end(connection, job, "cancelled", "")
            elif job.due_until <= now:
                await self._end(connection, job, "expired", OVERDUE)
            elif withdrawn:
                await self._end(connection, job, "failed", KEY_REVOKED)
            else:
                return False
        return True

    async def _loop(self, client: httpx.AsyncClient, until: float) -> None:
        ready: list[Item] = []
        while True:
            now = time.monotonic()
            goes_on = now < until and self._status == "running"
            if not goes_on or self._resume_at - now > LONG_PAUSE:
                ready.clear()
            elif not ready and not self._read_all:
                ready = await self._read()
            while ready and len(self._calls) < int(self._at_once) and now >= self._resume_at:
                self._calls.add(asyncio.create_task(self._call(client, ready.pop(0))))
            if self._calls:
                done, self._calls = await asyncio.wait(
                    self._calls, timeout=KEEP_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    self._take(task.result())
            elif ready:
                await asyncio.sleep(max(0.01, self._resume_at - now))
            over = not self._calls and not ready and (self._read_all or not goes_on or self._resume_at > now)
            late = time.monotonic() - self._kept_at > KEEP_SECONDS
            if len(self._outcomes) >= KEEP_EVERY or late or over:
                await self._keep()
                if self._status is None or over:
                    return

    async def _read(self) -> list[Item]:
        most = WINDOW + len(self._busy)
        async with self._platform.db.transaction(self._scope) as connection:
            found = await store.due_items(connection, self._job.id, self._cursor, self._platform.clock.now(), most)
        self._read_all = len(found) < most
        if found:
            self._cursor = found[-1].place
        fresh = [item for item in found if item.place not in self._busy]
        self._busy.update(item.place for item in fresh)
        return fresh

    async def _call(self, client: httpx.AsyncClient, item: Item) -> Outcome:
        """Make a call; a new job's first ones wait until the gateway has heard of the job's key."""
        outcome = await call(client, self._job, item, self._key)
        for _ in range(NEWS_TRIES):
            if outcome.status != "waiting" or outcome.error_code != "INVALID_CREDENTIAL":
                break
            await asyncio.sleep(outcome.due_in)
            outcome = await call(client, self._job, item, self._key)
        return outcome

    def _take(self, outcome: Outcome) -> None:
        """Go faster with each success, and slower when too much was asked at once."""
        self._outcomes.append(outcome)
        if outcome.status == "succeeded":
            self._at_once = min(self._ceiling, self._at_once + 0.5)
        elif outcome.error_code == "CONCURRENT":
            self._at_once = self._ceiling = max(1.0, self._at_once - 1)
            self._look_again = True
        elif outcome.error_code in NOT_NOW:
            now = time.monotonic()
            if now - self._halved_at > _HALVE_EVERY:
                self._at_once = max(1, self._at_once / 2)
                self._halved_at = now
            self._resume_at = max(self._resume_at, now + outcome.due_in)
            self._paused_for = outcome.error_code
            self._look_again = True

    async def _keep(self) -> None:
        async with self._platform.db.transaction(self._scope) as connection:
            self._status = await store.keep(
                connection, self._job.id, self._lease, self._outcomes, self._platform.clock.now()
            )
        self._busy.difference_update(outcome.place for outcome in self._outcomes)
        self._outcomes, self._kept_at = [], time.monotonic()
        if self._look_again and self._read_all:
            self._cursor, self._read_all, self._look_again = -1, False, False

    async def _conclude(self) -> None:
        """End the job when nothing waits, else defer the run that goes on."""
        platform, now = self._platform, self._platform.clock.now()
        async with platform.db.transaction(self._scope) as connection:
            job = await store.job_for_change(connection, self._job.id)
            if job is None or job.is_over or await store.keep(connection, job.id, self._lease, [], now) is None:
                return
            if job.status == "cancelling":
                await self._end(connection, job, "cancelled", "")
            elif not job.waiting:
                await self._end(connection, job, "completed", "")
            else:
                run_at = await self._next_run(connection, now)
                if run_at is not None and self._paused_for:
                    await store.set_note(connection, job.id, f"{self._paused_for} until {run_at:%Y-%m-%d %H:%M:%S} UTC")
                deferred = await platform.jobs.defer(
                    connection, WORK, {"job": str(job.id)}, priority=RANK, run_at=run_at
                )
                await store.set_engine_job(connection, job.id, deferred)

    async def _next_run(self, connection: Connection, now: datetime) -> datetime | None:
        """Return when there is something to do again; None for at once."""
        if await store.due_items(connection, self._job.id, -1, now, 1):
            pause = self._resume_at - time.monotonic()
            return now + timedelta(seconds=pause) if pause > 0 else None
        return await store.next_due(connection, self._job.id)

    async def _end(self, connection: Connection, job: Job, status: str, reason: str) -> None:
        await end(connection, job, status, reason, self._platform.clock)


async def sweep(platform: Platform, _: RunningJob) -> None:
    """End jobs whose time is over, forget those that ended long ago, and files nobody keeps any longer."""
    now = platform.clock.now()
    async with platform.db.transaction(PLATFORM_SCOPE) as connection:
        late = [identifier async for identifier in store.overdue(connection, now)]
    for identifier in late:
        async with platform.db.transaction(PLATFORM_SCOPE) as connection:
            job = await store.job_for_change(connection, identifier)
            if job is not None and not job.is_over:
                await end(connection, job, "expired", OVERDUE, platform.clock)
    while True:
        async with platform.db.transaction(PLATFORM_SCOPE) as connection:
            old = await store.old_jobs(connection, now - KEEP, 100)
            for identifier, org, key in old:
                await store.forget(connection, identifier)
                if key is not None:
                    await job_keys.forget(connection, key, org, now)
        if len(old) < 100:
            break
    while True:
        async with platform.db.transaction(PLATFORM_SCOPE) as connection:
            files = await file_store.purge(connection, now, 100)
            told = await webhook_store.purge(connection, now - KEEP, 1000)
        if files < 100 and told < 1000:
            return

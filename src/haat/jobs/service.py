"""What callers and their organisations do with jobs: hand in, look, cancel, take up again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Literal
from uuid import UUID

from haat.identity import job_keys
from haat.identity.model import INVOKE
from haat.infra import events
from haat.infra.jobs import Jobs
from haat.infra.keyring import Keyring
from haat.infra.postgres import Connection, Database, tenant
from haat.jobs import batches, quota, store
from haat.jobs.model import (
    DUE,
    MAX_ITEMS,
    MAX_OPEN_JOBS,
    Caller,
    Entry,
    Job,
    Kind,
    Options,
    Result,
    service_in,
)
from haat.jobs.store import Plan
from haat.kernel.clock import Clock
from haat.kernel.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    NotSubscribed,
    OutOfScope,
    ServiceNotFound,
    TooManyJobs,
)
from haat.kernel.ids import new_id
from haat.kernel.pages import Page, decode_id_cursor, page_of
from haat.kernel.permissions import Actor, Permission
from haat.language.messages import _, gettext

WORK = "caller_jobs.work"
"""The durable task that works on a job for a while."""
BATCH = 500
BATCH_BYTES = 4 * 1024 * 1024
RANK = -100
"""Rank of that work among durable jobs: behind events and mails."""


class CallerJobs:
    """The use cases. Whoever is introduced by the gateway is a `Caller`, who is signed in an `Actor`."""

    def __init__(self, db: Database, clock: Clock, keyring: Keyring, jobs: Jobs) -> None:
        self._db, self._clock, self._keyring, self._jobs = db, clock, keyring, jobs

    # --- handing in -----------------------------------------------------------------------------

    async def submit(
        self,
        caller: Caller,
        entries: AsyncIterator[Entry],
        *,
        kind: Kind,
        target: str,
        options: Options,
        input_file: UUID | None = None,
    ) -> Job:
        """Take a job with all its items, or refuse it whole.

        Raise ServiceNotFound, NotSubscribed, QuotaExhausted, TooManyJobs, InvalidRequest for a file without items or
        with too many, and whatever ``entries`` raises.
        """
        options.check()
        now, mode = self._clock.now(), _mode(caller)
        job = _new_job(caller, kind, target, options, input_file, now)
        plans: dict[tuple[str, str], Plan | None] = {}
        async with self._db.transaction(tenant(caller.org_id)) as connection:
            own = service_in(target)
            scopes = await job_keys.scopes_of(connection, caller.credential_id)
            if own is not None:
                if not _opens(scopes, own):
                    raise _out_of(scopes)  # and not each of its calls, one by one
                plans[own] = await self._plan(connection, caller, own)
            key = await job_keys.issue(
                connection,
                self._keyring,
                org=caller.org_id,
                application=caller.application_id,
                job=job.id,
                mode=mode,
                scopes=scopes,
                at=now,
                expires_at=job.due_until,
            )
            job = replace(job, key_id=key)
            await store.add_job(connection, job)
            total, units = await self._add_items(connection, job, entries, own, plans, scopes)
            if not total:
                raise InvalidRequest(_("There is nothing to do: send at least one item."), field="input")
            if await store.open_jobs(connection, caller.org_id) > MAX_OPEN_JOBS:
                raise TooManyJobs
            await self._reserve(connection, job, plans, units)
            engine_job = await self._defer(connection, job.id)
            await store.set_begun(connection, job.id, total, engine_job)
            data = {"kind": kind, "target": target, "items": total, "mode": mode}
            await self._tell(connection, job, "job.submitted", data, f"credential/{caller.credential_id}")
        return replace(job, total=total, engine_job=engine_job)

    async def _add_items(
        self,
        connection: Connection,
        job: Job,
        entries: AsyncIterator[Entry],
        own: tuple[str, str] | None,
        plans: dict[tuple[str, str], Plan | None],
        scopes: Sequence[str],
    ) -> tuple[int, dict[tuple[str, str], int]]:
        total, size = 0, 0
        batch: list[tuple[str | None, bytes, UUID | None, int]] = []
        units: dict[tuple[str, str], int] = defaultdict(int)
        async for entry in entries:
            called = own or entry.service
            plan = None
            if called is not None:
                if called not in plans:
                    found = await store.plan_of(connection, job.application_id, *called)
                    plans[called] = found if _opens(scopes, called) else None
                plan = plans[called]
            hold = quota.units_of(plan, len(entry.body)) if plan is not None else 0
            if plan is not None and called is not None:
                units[called] += hold
            batch.append((entry.custom_id, entry.body, plan.service_id if plan else None, hold))
            size += len(entry.body)
            if total + len(batch) > MAX_ITEMS:
                raise InvalidRequest(
                    _("A job has at most %(max_items)s items: hand it in in parts.", max_items=f"{MAX_ITEMS:,}"),
                    field="input",
                )
            if len(batch) == BATCH or size > BATCH_BYTES:
                await store.add_items(connection, job.id, job.org_id, total, batch)
                total, size, batch = total + len(batch), 0, []
        if batch:
            await store.add_items(connection, job.id, job.org_id, total, batch)
        return total + len(batch), units

    async def _plan(self, connection: Connection, caller: Caller, called: tuple[str, str]) -> Plan:
        plan = await store.plan_of(connection, caller.application_id, *called)
        if plan is not None:
            return plan
        path = "/".join(called)
        if await store.service_exists(connection, *called):
            raise NotSubscribed(
                _("The application is not subscribed to %(path)s: subscribe it in the catalog.", path=path)
            )
        raise ServiceNotFound(
            _("There is no service %(path)s: check it against the catalog.", path=path), field="service"
        )

    async def _reserve(
        self,
        connection: Connection,
        job: Job,
        plans: dict[tuple[str, str], Plan | None],
        units: dict[tuple[str, str], int],
    ) -> None:
        if job.mode == "test":
            return  # test keys use nothing of a quota
        for called, plan in plans.items():
            if plan is not None and units.get(called):
                await quota.reserve(
                    connection,
                    org=job.org_id,
                    application=job.application_id,
                    job=job.id,
                    plan=plan,
                    units=units[called],
                    at=self._clock.now(),
                )

    async def _defer(self, connection: Connection, job: UUID) -> int:
        return await self._jobs.defer(connection, WORK, {"job": str(job)}, priority=RANK)

    # --- looking --------------------------------------------------------------------------------

    async def get(self, caller: Caller, identifier: UUID) -> Job:
        """Return a job of the caller's application; raise NotFound for another's."""
        async with self._db.transaction(tenant(caller.org_id)) as connection:
            return _there(await store.job(connection, identifier, caller.application_id))

    async def find(
        self, caller: Caller, *, kind: Kind | None, status: str | None, cursor: str | None, limit: int
    ) -> Page[Job]:
        """Return the application's jobs, newest first."""
        async with self._db.transaction(tenant(caller.org_id)) as connection:
            found = await store.jobs(
                connection,
                org=caller.org_id,
                application=caller.application_id,
                kind=kind,
                status=status,
                before=decode_id_cursor(cursor),
                limit=limit,
            )
        return page_of(found, limit, lambda job: (job.id,))

    async def batches(self, caller: Caller, after: UUID | None, limit: int) -> tuple[list[Job], bool]:
        """Return the application's batches behind one, newest first, and whether there are more."""
        async with self._db.transaction(tenant(caller.org_id)) as connection:
            found = await store.jobs(
                connection,
                org=caller.org_id,
                application=caller.application_id,
                kind="openai",
                status=None,
                before=after,
                limit=limit,
            )
        return found[:limit], len(found) > limit

    async def results(self, org: UUID, job: UUID, status: str | None = None) -> AsyncIterator[Result]:
        """Yield the items that have ended so far, in their order; few are in memory at a time."""
        after, most = -1, 100
        while True:
            async with self._db.transaction(tenant(org)) as connection:
                found = await store.results(connection, job, after=after, limit=most, status=status)
            for result in found:
                yield result
            if len(found) < most:
                return
            after = found[-1].place

    async def seen(self, actor: Actor, identifier: UUID) -> Job:
        """Return a job of the actor's organisation; raise NotFound for another's."""
        async with self._db.transaction(tenant(_org(actor))) as connection:
            return _there(await store.job(connection, identifier))

    async def seen_all(self, actor: Actor, *, status: str | None, cursor: str | None, limit: int = 50) -> Page[Job]:
        """Return the organisation's jobs, newest first."""
        async with self._db.transaction(tenant(_org(actor))) as connection:
            found = await store.jobs(
                connection,
                org=_org(actor),
                application=None,
                kind=None,
                status=status,
                before=decode_id_cursor(cursor),
                limit=limit,
            )
        return page_of(found, limit, lambda job: (job.id,))

    async def outline(
        self, actor: Actor, identifier: UUID, *, after: int = -1, status: str | None = None, limit: int = 50
    ) -> list[Result]:
        """Return some of a job's items without their answers, one more than ``limit`` if there is one."""
        async with self._db.transaction(tenant(_org(actor))) as connection:
            _there(await store.job(connection, identifier))
            return await store.outline(connection, identifier, after=after, limit=limit, status=status)

    # --- changing -------------------------------------------------------------------------------

    async def cancel(self, org: UUID, application: UUID | None, identifier: UUID, by: str) -> Job:
        """Have a job stopped: nothing is begun any more, calls that run are carried to their end and kept.

        Cancelling twice is no error; raise Conflict for a job that has ended otherwise.
        """
        now = self._clock.now()
        async with self._db.transaction(tenant(org)) as connection:
            job = _there(await store.job_for_change(connection, identifier, application))
            if job.status in ("cancelling", "cancelled"):
                return job
            if job.is_over:
                raise Conflict(
                    _("The job has ended (%(status)s): there is nothing left to cancel.", status=gettext(job.status))
                )
            await store.ask_to_cancel(connection, identifier, now)
            await self._tell(connection, job, "job.cancel_asked", {}, by)
            if job.status == "waiting":
                await end(connection, job, "cancelled", "", self._clock)
            elif job.engine_job is not None:
                await self._hurry(connection, job.engine_job)
            return _there(await store.job(connection, identifier))

    async def retry_by(self, caller: Caller, identifier: UUID) -> Job:
        """Take a job up again for a caller, as `retry` does; raise OutOfScope when its own key opens more than his."""
        async with self._db.transaction(tenant(caller.org_id)) as connection:
            job = _there(await store.job(connection, identifier, caller.application_id))
            scopes = await job_keys.scopes_of(connection, caller.credential_id)
            if job.key_id is not None:
                for scope in await job_keys.scopes_of(connection, job.key_id):
                    if scope != job_keys.JOB and INVOKE not in scopes and scope not in scopes:
                        raise _out_of(scopes)
        return await self.retry(caller.org_id, caller.application_id, identifier, f"credential/{caller.credential_id}")

    async def retry(self, org: UUID, application: UUID | None, identifier: UUID, by: str) -> Job:
        """Take a job up again that has ended: its items that did not succeed are executed anew.

        Raise Conflict while it runs and when nothing failed, QuotaExhausted like `submit`.
        """
        now = self._clock.now()
        async with self._db.transaction(tenant(org)) as connection:
            job = _there(await store.job_for_change(connection, identifier, application))
            if not job.is_over:
                raise Conflict(
                    _("The job is %(status)s: it can be taken up again when it has ended.", status=gettext(job.status))
                )
            if job.succeeded == job.total:
                raise Conflict(_("Every item of the job has succeeded: there is nothing to do again."))
            if job.key_id is None or await job_keys.is_withdrawn(connection, job.credential_id, now):
                raise Conflict(_("The key that handed the job in was revoked: hand it in again with another one."))
            if await store.open_jobs(connection, org) >= MAX_OPEN_JOBS:
                raise TooManyJobs
            await job_keys.renew(connection, job.key_id, org, now, now + DUE)
            units = await store.take_up(connection, identifier, now + DUE)
            if job.mode == "live":
                await self._reserve_again(connection, job, {k: v[1] for k, v in units.items() if k is not None})
            await store.set_engine_job(connection, identifier, await self._defer(connection, identifier))
            items = sum(count for count, _ in units.values())
            await self._tell(connection, job, "job.retried", {"items": items}, by)
            return _there(await store.job(connection, identifier))

    async def _reserve_again(self, connection: Connection, job: Job, units: dict[UUID, int]) -> None:
        own = service_in(job.target)
        plan = await store.plan_of(connection, job.application_id, *own) if own else None
        if plan is not None and units.get(plan.service_id):
            await quota.reserve(
                connection,
                org=job.org_id,
                application=job.application_id,
                job=job.id,
                plan=plan,
                units=units[plan.service_id],
                at=self._clock.now(),
            )

    async def _hurry(self, connection: Connection, engine_job: int) -> None:
        """Wake work that waits for its time; work that runs looks by itself."""
        try:
            async with connection.transaction():
                await self._jobs.hurry(connection, engine_job)
        except (Conflict, NotFound):
            return

    async def _tell(self, connection: Connection, job: Job, type: str, data: dict[str, object], actor: str) -> None:
        await events.append(
            connection,
            stream=f"job/{job.id}",
            type=type,
            data=data,
            actor=actor,
            org=job.org_id,
            at=self._clock.now(),
        )


async def end(connection: Connection, job: Job, status: str, reason: str, clock: Clock) -> None:
    """End a job within the caller's transaction, which has it locked: items, reservation, key, event.

    ``status`` is how it ends; items that wait become ``expired`` with it, else ``cancelled``.
    """
    now = clock.now()
    await store.end_waiting(connection, job.id, "expired" if status == "expired" else "cancelled", now)
    await store.set_status(connection, job.id, status, reason, now)
    if job.key_id is not None:
        await job_keys.end(connection, job.key_id, job.org_id, now)
    if job.kind == "openai":
        await batches.write_files(connection, job.id, now)
    done = _there(await store.job(connection, job.id))
    await events.append(
        connection,
        stream=f"job/{job.id}",
        type=f"job.{status}",
        data={"total": done.total, "succeeded": done.succeeded, "failed": done.failed, "reason": reason},
        actor="platform",
        org=job.org_id,
        at=now,
    )


def require_change(actor: Actor) -> tuple[UUID, str]:
    """Return the organisation whose jobs somebody may change, and his name in the event log; raise PermissionDenied."""
    actor.require(Permission.APPLICATIONS_EDIT)
    return _org(actor), actor.label


def _opens(scopes: Sequence[str], called: tuple[str, str]) -> bool:
    return INVOKE in scopes or f"{INVOKE}:{'/'.join(called)}" in scopes


def _out_of(scopes: Sequence[str]) -> OutOfScope:
    return OutOfScope(opens=[scope.removeprefix(f"{INVOKE}:") for scope in scopes if scope != job_keys.JOB])


def _mode(caller: Caller) -> Literal["live", "test"]:
    return "test" if caller.test else "live"


def _new_job(caller: Caller, kind: Kind, target: str, options: Options, input_file: UUID | None, now: datetime) -> Job:
    return Job(
        id=new_id(),
        org_id=caller.org_id,
        application_id=caller.application_id,
        credential_id=caller.credential_id,
        key_id=None,
        mode=_mode(caller),
        kind=kind,
        target=target,
        name=options.name,
        metadata=options.metadata,
        priority=options.priority,
        timeout_seconds=options.timeout_seconds,
        max_attempts=options.max_attempts,
        mail=options.mail,
        status="waiting",
        reason="",
        note="",
        total=0,
        succeeded=0,
        failed=0,
        cancelled=0,
        created_at=now,
        started_at=None,
        ended_at=None,
        cancel_asked_at=None,
        due_until=now + options.due,
        slices=0,
        engine_job=None,
        input_file=input_file,
        output_file=None,
        error_file=None,
    )


def _there(job: Job | None) -> Job:
    if job is None:
        raise NotFound(_("There is no such job: it never was, it is another's, or its time is over."))
    return job


def _org(actor: Actor) -> UUID:
    if actor.org_id is None:
        raise NotFound
    return actor.org_id

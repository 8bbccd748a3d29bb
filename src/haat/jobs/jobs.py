"""What the worker does for callers' jobs: runs, deliveries, mails, and keeping house."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from haat.infra.jobs import Retry, RunningJob, Schedule, Task
from haat.infra.letters import MailTemplate, in_line, post
from haat.infra.postgres import PLATFORM_SCOPE
from haat.jobs import running, store
from haat.jobs.service import WORK
from haat.jobs.shapes import job_view
from haat.jobs.webhooks import DELIVER
from haat.kernel.events import DomainEvent, EventHandler
from haat.kernel.permissions import PLATFORM
from haat.language import isolate
from haat.language.messages import N_, gettext, speaking, told

if TYPE_CHECKING:
    from haat.app import Platform
    from haat.jobs.model import Job

ENDS = frozenset({"job.completed", "job.cancelled", "job.expired", "job.failed"})
DELIVERY = Retry(max_attempts=11, first_seconds=5, factor=5, longest_seconds=24 * 3600)
"""After 5 s, 25 s, 2 min, 10 min, 52 min, 4 h, 22 h and each day: the last attempt after about four days."""

ENDED = MailTemplate(
    "job.ended",
    N_("Job {job} is {status}"),
    N_(
        "The job {job} has ended: {status}.\n\n"
        "{total} items: {succeeded} succeeded, {failed} failed, {cancelled} were not executed.\n{reason}\n\n"
        "Its results are kept until {kept_until}: {link}\n"
    ),
)
MAILS = (ENDED,)


async def _deliver(platform: Platform, job: RunningJob) -> None:
    await platform.webhooks.attempt(UUID(job.args["delivery"]), last=job.attempt >= DELIVERY.max_attempts)


async def tell_endpoints(platform: Platform, event: DomainEvent) -> None:
    """Have the application's endpoints told that a job has ended."""
    job = await _job_of(platform, event)
    if job is not None:
        data = job_view(job).model_dump(mode="json")
        await platform.webhooks.note(event, data, job.org_id, job.application_id, job.id)


async def mail_members(platform: Platform, event: DomainEvent) -> None:
    """Mail the organisation's members that a job has ended, where that was asked for."""
    job = await _job_of(platform, event)
    if job is None or not job.mail:
        return
    tag = await platform.papers.language(PLATFORM, job.org_id)
    with speaking(tag):
        status, reason = gettext(job.status), told(job.reason)
    await post(
        platform,
        ENDED,
        tag,
        await platform.identity.member_emails(job.org_id),
        event.id,
        job=f"“{isolate(job.name)}”" if job.name else str(job.id),
        status=status,
        total=f"{job.total:,}",
        succeeded=f"{job.succeeded:,}",
        failed=f"{job.failed:,}",
        cancelled=f"{job.cancelled:,}",
        reason=reason,
        kept_until=in_line(f"{job.kept_until:%Y-%m-%d}", tag),
        link=f"{platform.settings.portal_address}/account/jobs/{job.id}",
    )


async def _job_of(platform: Platform, event: DomainEvent) -> Job | None:
    async with platform.db.transaction(PLATFORM_SCOPE) as connection:
        return await store.job(connection, UUID(event.stream.removeprefix("job/")))


TASKS = (
    Task(WORK, running.work, Retry(max_attempts=30, first_seconds=1, factor=2, longest_seconds=60)),
    Task(DELIVER, _deliver, DELIVERY),
    Task("caller_jobs.sweep", running.sweep),
)
SCHEDULES = (Schedule("caller_jobs.sweep", "*/5 * * * *"),)
HANDLERS = [
    EventHandler("jobs.tell_endpoints", ENDS, tell_endpoints),
    EventHandler("jobs.mail_members", ENDS, mail_members),
]

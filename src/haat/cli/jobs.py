"""`haat jobs …` and `haat dead-letters …`: what runs, what waits, what was given up."""

from __future__ import annotations

from uuid import UUID

import click

from haat.app import Platform
from haat.cli.console import as_json_text, json_option, last_line, on_platform, print_table
from haat.cli.main import with_settings
from haat.infra import dead_letters as letters
from haat.infra.jobs import STATUSES, JobRecord
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.errors import Conflict
from haat.kernel.permissions import PLATFORM
from haat.settings import Settings


@click.group()
def jobs() -> None:
    """List jobs, let them run now, cancel them."""


@jobs.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only jobs that are so.")
@click.option("--task", help="Only jobs of this task, such as event:partners.mail_partner.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000), help="Most jobs to list.")
@json_option
@with_settings()
def list_jobs(settings: Settings, status: str | None, task: str | None, limit: int, as_json: bool) -> None:
    """List jobs, the newest first."""

    async def find(platform: Platform) -> list[JobRecord]:
        async with platform.db.transaction(PLATFORM_SCOPE) as connection:
            return await platform.jobs.recent(connection, status=status, task=task, limit=limit)

    found = on_platform(settings, find)
    if as_json:
        click.echo(as_json_text(found))
        return
    print_table(
        ("Job", "Task", "Status", "Attempts", "Deferred", "Runs at", "Arguments", "Last error or note"),
        (
            (
                job.id,
                job.task,
                job.status if job.progress is None else f"{job.status} {job.progress:.0%}",
                job.attempts,
                job.deferred_at,
                job.run_at if job.status == "waiting" else None,
                job.args,
                last_line(job.error) or job.note,
            )
            for job in found
        ),
        nothing="There are no such jobs.",
    )


@jobs.command("retry")
@click.argument("job_id", type=int)
@json_option
@with_settings()
def retry_job(settings: Settings, job_id: int, as_json: bool) -> None:
    """Let a waiting job run now, or replay a failed one."""

    async def retry(platform: Platform) -> int:
        async with platform.db.transaction(PLATFORM_SCOPE) as connection:
            job = await platform.jobs.get(connection, job_id)
            if job.status != "failed":
                await platform.jobs.hurry(connection, job_id)
                return job_id
            letter = await letters.of_job(connection, job_id)
            if letter is None:
                raise Conflict(f"Job {job_id} left no dead letter, so it can't be replayed.")
            return await letters.replay(
                connection, platform.jobs, letter.id, actor=PLATFORM.label, at=platform.clock.now()
            )

    runs = on_platform(settings, retry)
    click.echo(as_json_text({"job": runs}) if as_json else f"Job {runs} runs as soon as a worker is free.")


@jobs.command("cancel")
@click.argument("job_id", type=int)
@json_option
@with_settings()
def cancel_job(settings: Settings, job_id: int, as_json: bool) -> None:
    """Cancel a waiting job, or interrupt a running one."""

    async def cancel(platform: Platform) -> str:
        async with platform.db.transaction(PLATFORM_SCOPE) as connection:
            await platform.jobs.cancel(connection, job_id)
            return (await platform.jobs.get(connection, job_id)).status

    status = on_platform(settings, cancel)
    if as_json:
        click.echo(as_json_text({"job": job_id, "status": status}))
    else:
        done = "is cancelled" if status == "cancelled" else "is being interrupted by its worker"
        click.echo(f"Job {job_id} {done}.")


@click.group("dead-letters")
def dead_letters() -> None:
    """List and replay jobs that failed at every attempt."""


@dead_letters.command("list")
@click.option("--replayed", is_flag=True, help="Those that were replayed as well.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 1000), help="Most letters to list.")
@json_option
@with_settings()
def list_letters(settings: Settings, replayed: bool, limit: int, as_json: bool) -> None:
    """List dead letters, the oldest first."""

    async def find(platform: Platform) -> list[letters.DeadLetter]:
        async with platform.db.transaction(PLATFORM_SCOPE) as connection:
            return await letters.find(connection, replayed=replayed, limit=limit)

    found = on_platform(settings, find)
    if as_json:
        click.echo(as_json_text(found))
        return
    print_table(
        ("Dead letter", "Died", "Handler or task", "Event", "Attempts", "Error", "Replayed"),
        (
            (
                letter.id,
                letter.died_at,
                letter.handler or letter.task,
                letter.event_id,
                letter.attempts,
                last_line(letter.error),
                letter.replayed_at,
            )
            for letter in found
        ),
        nothing="There are no dead letters.",
    )


@dead_letters.command("replay")
@click.argument("letter_id", type=click.UUID, required=False)
@click.option("--all", "everything", is_flag=True, help="Replay every letter that waits.")
@json_option
@with_settings()
def replay_letters(settings: Settings, letter_id: UUID | None, everything: bool, as_json: bool) -> None:
    """Defer the job of a dead letter anew."""
    if (letter_id is None) != everything:
        raise click.UsageError("Give the id of one dead letter, or --all.")

    async def replay(platform: Platform) -> list[int]:
        actor, at = PLATFORM.label, platform.clock.now()
        async with platform.db.transaction(PLATFORM_SCOPE) as connection:
            if letter_id is None:
                return await letters.replay_all(connection, platform.jobs, actor=actor, at=at)
            return [await letters.replay(connection, platform.jobs, letter_id, actor=actor, at=at)]

    deferred = on_platform(settings, replay)
    if as_json:
        click.echo(as_json_text({"jobs": deferred}))
    else:
        click.echo(f"Deferred anew: {len(deferred)} job{'' if len(deferred) == 1 else 's'}.")

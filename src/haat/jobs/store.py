"""All SQL of callers' jobs and their items. Files have `file_store`, webhooks `webhook_store`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from haat.infra.postgres import Connection
from haat.jobs.model import Item, Job, Outcome, Result

_JOB = """id, org_id, application_id, credential_id, key_id, mode, kind, target, name, metadata, priority,
    timeout_seconds, max_attempts, mail, status, reason, note, total, succeeded, failed, cancelled, created_at,
    started_at, ended_at, cancel_asked_at, due_until, slices, engine_job, input_file, output_file, error_file"""


async def add_job(connection: Connection, job: Job) -> None:
    await connection.execute(
        """
        INSERT INTO caller_jobs (id, org_id, application_id, credential_id, key_id, mode, kind, target, name, metadata,
            priority, timeout_seconds, max_attempts, mail, status, created_at, due_until, input_file)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        """,
        (
            job.id, job.org_id, job.application_id, job.credential_id, job.key_id, job.mode, job.kind, job.target,
            job.name, Jsonb(dict(job.metadata)), job.priority, job.timeout_seconds, job.max_attempts, job.mail,
            job.status, job.created_at, job.due_until, job.input_file,
        ),
    )  # fmt: skip


async def add_items(
    connection: Connection,
    job: UUID,
    org: UUID,
    first: int,
    items: Sequence[tuple[str | None, bytes, UUID | None, int]],
) -> None:
    """Add items, each (custom id, body, service, units held), numbered from ``first`` on."""
    await connection.execute(
        """
        INSERT INTO caller_job_items (job_id, place, org_id, custom_id, body, service_id, hold)
        SELECT %s, %s + row.number - 1, %s, row.custom_id, row.body, row.service_id, row.hold
        FROM unnest(%s::text[], %s::bytea[], %s::uuid[], %s::bigint[])
            WITH ORDINALITY AS row (custom_id, body, service_id, hold, number)
        """,
        (
            job, first, org,
            [item[0] for item in items], [item[1] for item in items],
            [item[2] for item in items], [item[3] for item in items],
        ),
    )  # fmt: skip


async def set_begun(connection: Connection, job: UUID, total: int, engine_job: int) -> None:
    """Say how many items a job has, and which durable job works on it."""
    await connection.execute(
        "UPDATE caller_jobs SET total = %s, engine_job = %s WHERE id = %s", (total, engine_job, job)
    )


async def set_engine_job(connection: Connection, job: UUID, engine_job: int) -> None:
    await connection.execute("UPDATE caller_jobs SET engine_job = %s WHERE id = %s", (engine_job, job))


async def hold(connection: Connection, job: UUID, org: UUID, application: UUID, service: UUID, units: int) -> None:
    await connection.execute(
        """
        INSERT INTO caller_job_holds (job_id, service_id, org_id, application_id, held) VALUES (%s, %s, %s, %s, %s)
        ON CONFLICT (job_id, service_id) DO UPDATE SET held = caller_job_holds.held + excluded.held
        """,
        (job, service, org, application, units),
    )


async def open_jobs(connection: Connection, org: UUID) -> int:
    """Return how many jobs of an organisation have not ended, locking out others who ask the same of it."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 13))", (f"jobs/{org}",))
    row = await (
        await connection.execute(
            "SELECT count(*) AS open FROM caller_jobs WHERE org_id = %s AND ended_at IS NULL", (org,)
        )
    ).fetchone()
    assert row is not None
    return int(row["open"])


@dataclass(frozen=True, slots=True)
class Plan:
    """What a subscription allows of a quota. ``unit`` is the quota's, ``max_units`` a call's most of it, if said."""

    service_id: UUID
    per_month: int | None
    per_day: int | None
    unit: str
    reset: str
    overage: bool
    zone: str
    started_at: datetime
    max_units: int | None


async def plan_of(connection: Connection, application: UUID, provider: str, slug: str) -> Plan | None:
    """Return under which plan an application may call a service, None when it may not."""
    row = await (
        await connection.execute(
            """
            SELECT services.id AS service_id, quota_per_month AS per_month, quota_per_day AS per_day,
                quota_unit AS unit, quota_reset AS reset, overage, organisations.zone, started_at,
                CASE WHEN quota_unit = services.unit THEN ceil(max_units)::bigint END AS max_units
            FROM subscriptions JOIN services ON services.id = subscriptions.service_id
            JOIN plans ON plans.id = plan_id JOIN organisations ON organisations.id = subscriptions.org_id
            LEFT JOIN service_versions ON service_versions.service_id = services.id AND is_default
            WHERE application_id = %s AND provider_slug = %s AND services.slug = %s AND subscriptions.status = 'active'
            """,
            (application, provider, slug),
        )
    ).fetchone()
    return Plan(**row) if row else None


async def service_exists(connection: Connection, provider: str, slug: str) -> bool:
    row = await connection.execute(
        "SELECT FROM services WHERE provider_slug = %s AND slug = %s AND status <> 'draft'", (provider, slug)
    )
    return await row.fetchone() is not None


async def used(
    connection: Connection, org: UUID, application: UUID, service: UUID, unit: str, since: datetime, first_id: UUID
) -> int:
    """Return what was used of a quota since an instant, as far as it is in the usage store.

    ``unit`` is one of the plan's own names for units, never a caller's text.
    """
    amount = "count(*)" if unit == "requests" else f"coalesce(ceil(sum({unit})), 0)::bigint"
    row = await (
        await connection.execute(
            f"""
            SELECT {amount} AS used FROM usage
            WHERE org_id = %s AND id >= %s AND at >= %s AND application_id = %s AND service_id = %s
                AND mode = 'live' AND cache <> 'replay' AND outcome IN ('completed', 'client_left')
            """,
            (org, first_id, since, application, service),
        )
    ).fetchone()
    assert row is not None
    return int(row["used"])


async def held(connection: Connection, application: UUID, service: UUID) -> int:
    """Return what open jobs hold of a quota."""
    row = await (
        await connection.execute(
            """
            SELECT coalesce(sum(held), 0)::bigint AS held FROM caller_job_holds
            WHERE application_id = %s AND service_id = %s
            """,
            (application, service),
        )
    ).fetchone()
    assert row is not None
    return int(row["held"])


# --- reading --------------------------------------------------------------------------------------


async def job(connection: Connection, identifier: UUID, application: UUID | None = None) -> Job | None:
    """Return a job, of one application only when that is given."""
    row = await (
        await connection.execute(
            f"SELECT {_JOB} FROM caller_jobs WHERE id = %s AND (%s::uuid IS NULL OR application_id = %s)",
            (identifier, application, application),
        )
    ).fetchone()
    return Job(**row) if row else None


async def job_for_change(connection: Connection, identifier: UUID, application: UUID | None = None) -> Job | None:
    """Return a job, locked until the transaction ends."""
    row = await (
        await connection.execute(
            f"SELECT {_JOB} FROM caller_jobs WHERE id = %s AND (%s::uuid IS NULL OR application_id = %s) FOR UPDATE",
            (identifier, application, application),
        )
    ).fetchone()
    return Job(**row) if row else None


async def jobs(
    connection: Connection,
    *,
    org: UUID,
    application: UUID | None,
    kind: str | None,
    status: str | None,
    before: UUID | None,
    limit: int,
) -> list[Job]:
    """Return jobs, newest first, one more than ``limit`` if there is one."""
    rows = await connection.execute(
        f"""
        SELECT {_JOB} FROM caller_jobs
        WHERE org_id = %s AND (%s::uuid IS NULL OR application_id = %s) AND (%s::text IS NULL OR kind = %s)
            AND (%s::text IS NULL OR status = %s) AND (%s::uuid IS NULL OR id < %s)
        ORDER BY id DESC LIMIT %s
        """,
        (org, application, application, kind, kind, status, status, before, before, limit + 1),
    )
    return [Job(**row) async for row in rows]


async def results(
    connection: Connection, job_id: UUID, *, after: int = -1, limit: int, status: str | None = None
) -> list[Result]:
    """Return items behind a place that have ended, in their order."""
    rows = await connection.execute(
        """
        SELECT place, custom_id, status, attempts, http_status, content_type, answer, request_id, error_code
        FROM caller_job_items
        WHERE job_id = %s AND place > %s AND status <> 'waiting' AND (%s::text IS NULL OR status = %s)
        ORDER BY place LIMIT %s
        """,
        (job_id, after, status, status, limit),
    )
    return [_result(row) async for row in rows]


async def outline(connection: Connection, job_id: UUID, *, after: int, limit: int, status: str | None) -> list[Result]:
    """Return items without their answers, those that wait too."""
    rows = await connection.execute(
        """
        SELECT place, custom_id, status, attempts, http_status, content_type, NULL AS answer, request_id, error_code
        FROM caller_job_items
        WHERE job_id = %s AND place > %s AND (%s::text IS NULL OR status = %s) ORDER BY place LIMIT %s
        """,
        (job_id, after, status, status, limit + 1),
    )
    return [_result(row) async for row in rows]


def _result(row: Mapping[str, Any]) -> Result:
    return Result(**row)


# --- working --------------------------------------------------------------------------------------


async def take(connection: Connection, identifier: UUID, lease: UUID, at: datetime) -> Job | None:
    """Begin a run of a job: from now on only outcomes under this lease are kept. None when it has ended."""
    row = await (
        await connection.execute(
            f"""
            UPDATE caller_jobs SET lease = %s, slices = slices + 1, started_at = coalesce(started_at, %s), note = '',
                status = CASE WHEN status = 'waiting' THEN 'running' ELSE status END
            WHERE id = %s AND ended_at IS NULL RETURNING {_JOB}
            """,
            (lease, at, identifier),
        )
    ).fetchone()
    return Job(**row) if row else None


async def due_items(connection: Connection, job_id: UUID, after: int, at: datetime, limit: int) -> list[Item]:
    """Return items behind a place whose time has come."""
    rows = await connection.execute(
        """
        SELECT place, attempts, key_number, body FROM caller_job_items
        WHERE job_id = %s AND status = 'waiting' AND place > %s AND due_at <= %s ORDER BY place LIMIT %s
        """,
        (job_id, after, at, limit),
    )
    return [Item(**row) async for row in rows]


async def next_due(connection: Connection, job_id: UUID) -> datetime | None:
    """Return when the next of the items that wait is to be done; None when none waits."""
    row = await (
        await connection.execute(
            """
            SELECT min(due_at) AS due FROM caller_job_items
            WHERE job_id = %s AND status = 'waiting' AND due_at > '-infinity'
            """,
            (job_id,),
        )
    ).fetchone()
    return row["due"] if row else None


async def keep(
    connection: Connection, job_id: UUID, lease: UUID, outcomes: Sequence[Outcome], at: datetime
) -> str | None:
    """Keep outcomes, count them and give back what they had reserved; return the job's status.

    None: another run has taken the job over, and nothing was kept. Its calls carry the same idempotency keys.
    """
    row = await (
        await connection.execute(
            "SELECT status FROM caller_jobs WHERE id = %s AND lease = %s AND ended_at IS NULL FOR UPDATE",
            (job_id, lease),
        )
    ).fetchone()
    if row is None:
        return None
    if outcomes:
        await connection.execute(
            """
            WITH outcome AS (
                SELECT * FROM unnest(%(places)s::int[], %(statuses)s::text[], %(attempts)s::smallint[],
                    %(keys)s::smallint[], %(waits)s::float8[], %(codes)s::smallint[], %(types)s::text[],
                    %(answers)s::bytea[], %(requests)s::text[], %(errors)s::text[])
                AS outcome (place, status, attempts, key_number, due_in, http_status, content_type, answer,
                    request_id, error_code)
            ), changed AS (
                UPDATE caller_job_items AS item SET status = outcome.status, attempts = outcome.attempts,
                    key_number = outcome.key_number, http_status = outcome.http_status,
                    content_type = outcome.content_type, answer = outcome.answer, request_id = outcome.request_id,
                    error_code = outcome.error_code,
                    due_at = %(at)s + make_interval(secs => outcome.due_in),
                    ended_at = CASE WHEN outcome.status <> 'waiting' THEN %(at)s END
                FROM outcome
                WHERE item.job_id = %(job)s AND item.place = outcome.place AND item.status = 'waiting'
                RETURNING item.status, item.service_id, item.hold
            ), given_back AS (
                UPDATE caller_job_holds SET held = greatest(0, held - back.units)
                FROM (SELECT service_id, sum(hold) AS units FROM changed
                      WHERE status <> 'waiting' AND service_id IS NOT NULL GROUP BY 1) AS back
                WHERE job_id = %(job)s AND caller_job_holds.service_id = back.service_id
            )
            UPDATE caller_jobs AS job SET succeeded = job.succeeded + counted.succeeded,
                failed = job.failed + counted.failed
            FROM (SELECT count(*) FILTER (WHERE status = 'succeeded') AS succeeded,
                         count(*) FILTER (WHERE status = 'failed') AS failed FROM changed) AS counted
            WHERE job.id = %(job)s
            """,
            {
                "job": job_id,
                "at": at,
                "places": [one.place for one in outcomes],
                "statuses": [one.status for one in outcomes],
                "attempts": [one.attempts for one in outcomes],
                "keys": [one.key_number for one in outcomes],
                "waits": [float(one.due_in) for one in outcomes],
                "codes": [one.http_status for one in outcomes],
                "types": [one.content_type for one in outcomes],
                "answers": [one.answer for one in outcomes],
                "requests": [one.request_id for one in outcomes],
                "errors": [one.error_code for one in outcomes],
            },
        )
    return str(row["status"])


async def end_waiting(connection: Connection, job_id: UUID, status: str, at: datetime) -> None:
    """End the items that still wait, as ``cancelled`` or ``expired``, and give back what the job still holds."""
    ended = await connection.execute(
        "UPDATE caller_job_items SET status = %s, ended_at = %s WHERE job_id = %s AND status = 'waiting'",
        (status, at, job_id),
    )
    await connection.execute(
        "UPDATE caller_jobs SET cancelled = cancelled + %s WHERE id = %s", (ended.rowcount, job_id)
    )
    await connection.execute("DELETE FROM caller_job_holds WHERE job_id = %s", (job_id,))


async def set_status(connection: Connection, job_id: UUID, status: str, reason: str, at: datetime | None) -> None:
    """Change a job's status; with ``at`` that is its end."""
    await connection.execute(
        "UPDATE caller_jobs SET status = %s, reason = %s, note = '', ended_at = %s WHERE id = %s",
        (status, reason, at, job_id),
    )


async def ask_to_cancel(connection: Connection, job_id: UUID, at: datetime) -> None:
    await connection.execute(
        "UPDATE caller_jobs SET status = 'cancelling', cancel_asked_at = %s WHERE id = %s", (at, job_id)
    )


async def set_note(connection: Connection, job_id: UUID, note: str) -> None:
    await connection.execute("UPDATE caller_jobs SET note = %s WHERE id = %s", (note, job_id))


async def set_files(connection: Connection, job_id: UUID, output: UUID | None, errors: UUID | None) -> None:
    await connection.execute(
        "UPDATE caller_jobs SET output_file = %s, error_file = %s WHERE id = %s", (output, errors, job_id)
    )


async def take_up(connection: Connection, job_id: UUID, due_until: datetime) -> dict[UUID | None, tuple[int, int]]:
    """Let failed, cancelled and expired items wait again; return how many, and their units, by service."""
    rows = await connection.execute(
        """
        WITH again AS (
            UPDATE caller_job_items SET status = 'waiting', attempts = 0, key_number = key_number + 1,
                due_at = '-infinity', http_status = NULL, answer = NULL, error_code = '', ended_at = NULL
            WHERE job_id = %s AND status IN ('failed', 'cancelled', 'expired') RETURNING service_id, hold
        )
        SELECT service_id, count(*) AS items, sum(hold)::bigint AS units FROM again GROUP BY 1
        """,
        (job_id,),
    )
    found = {row["service_id"]: (row["items"], row["units"]) async for row in rows}
    await connection.execute(
        """
        UPDATE caller_jobs SET status = 'waiting', reason = '', ended_at = NULL, failed = 0, cancelled = 0,
            cancel_asked_at = NULL, due_until = %s WHERE id = %s
        """,
        (due_until, job_id),
    )
    return found


async def old_jobs(connection: Connection, before: datetime, limit: int) -> list[tuple[UUID, UUID, UUID | None]]:
    """Return (job, organisation, credential) of jobs that ended before an instant."""
    rows = await connection.execute(
        "SELECT id, org_id, key_id FROM caller_jobs WHERE ended_at < %s ORDER BY ended_at LIMIT %s", (before, limit)
    )
    return [(row["id"], row["org_id"], row["key_id"]) async for row in rows]


async def forget(connection: Connection, job_id: UUID) -> None:
    await connection.execute("DELETE FROM caller_jobs WHERE id = %s", (job_id,))


async def overdue(connection: Connection, at: datetime) -> AsyncIterator[UUID]:
    """Yield open jobs whose time is over although a pause keeps their work away."""
    rows = await connection.execute(
        "SELECT id FROM caller_jobs WHERE ended_at IS NULL AND due_until <= %s ORDER BY id LIMIT 1000", (at,)
    )
    async for row in rows:
        yield row["id"]

"""All SQL of feedback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from haat.feedback.model import GRACE, LANDING, Execution, Opinion
from haat.infra.postgres import Connection
from haat.usage.model import id_bound
from haat.usage.subjects import SETTLED, SUBJECT, SUMS, WITHIN, calls_of_subjects

Row = Mapping[str, Any]


async def executions(connection: Connection, application: UUID, requests: Sequence[UUID]) -> dict[UUID, Execution]:
    """Return who executed those of these calls that an application made and that were not refused."""
    rows = await connection.execute(
        """
        SELECT id, at, coalesce(executed_by, service_id) AS service_id, provider_org, version, variant, mode FROM usage
        WHERE id = ANY(%s) AND application_id = %s AND outcome <> 'refused'
            AND coalesce(executed_by, service_id) IS NOT NULL
        """,
        (list(requests), application),
    )
    return {
        row["id"]: Execution(
            row["service_id"], row["provider_org"], row["version"], row["variant"], row["mode"], row["at"]
        )
        async for row in rows
    }


async def put(
    connection: Connection,
    org: UUID,
    application: UUID,
    opinion: Opinion,
    execution: Execution,
    closeness: float | None,
    at: datetime,
) -> bool:
    """Keep an opinion in place of one that was there; return whether one was."""
    row = await (
        await connection.execute(
            """
            INSERT INTO feedback (request_id, org_id, application_id, service_id, provider_org, version, variant, mode,
                called_at, given_at, thumbs, rating, corrected, comment, closeness)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            ON CONFLICT (request_id) DO UPDATE SET given_at = excluded.given_at, thumbs = excluded.thumbs,
                rating = excluded.rating, corrected = excluded.corrected, comment = excluded.comment,
                closeness = excluded.closeness
            RETURNING xmax <> 0 AS replaced
            """,
            (
                *(opinion.request_id, org, application, execution.service_id, execution.provider_org),
                *(execution.version, execution.variant, execution.mode, execution.called_at, at),
                *(opinion.thumbs, opinion.rating, opinion.corrected, opinion.comment, closeness),
            ),
        )
    ).fetchone()
    assert row is not None
    return bool(row["replaced"])


async def remove(connection: Connection, org: UUID, request: UUID) -> bool:
    """Return whether there was one."""
    cursor = await connection.execute("DELETE FROM feedback WHERE request_id = %s AND org_id = %s", (request, org))
    return cursor.rowcount > 0


async def find(
    connection: Connection,
    *,
    org: UUID | None = None,
    provider_org: UUID | None = None,
    service_id: UUID | None = None,
    before: UUID | None = None,
    limit: int = 50,
) -> list[Row]:
    """Return opinions, of the newest calls first; ``org`` or ``provider_org`` says whose. A provider gets live ones."""
    rows = await connection.execute(
        """
        SELECT feedback.*, coalesce(services.provider_slug || '/' || services.slug, '') AS service
        FROM feedback LEFT JOIN services ON services.id = feedback.service_id
        WHERE (%(org)s::uuid IS NULL OR feedback.org_id = %(org)s)
            AND (%(provider)s::uuid IS NULL OR (feedback.provider_org = %(provider)s AND feedback.mode = 'live'))
            AND (%(service)s::uuid IS NULL OR feedback.service_id = %(service)s)
            AND (%(before)s::uuid IS NULL OR feedback.request_id < %(before)s)
        ORDER BY feedback.request_id DESC LIMIT %(limit)s
        """,
        {"org": org, "provider": provider_org, "service": service_id, "before": before, "limit": limit},
    )
    return [row async for row in rows]


def _figures(name: str, value: str) -> str:
    return f"""count({value}) AS {name}_count, coalesce(sum({value}), 0)::double precision AS {name}_sum,
        coalesce(sum({value} * {value}), 0)::double precision AS {name}_squares"""


async def outcomes(
    connection: Connection, provider_org: UUID, service: UUID, since: datetime, until: datetime
) -> list[Row]:
    """Return counts, sums and sums of squares by version and variant, over live calls of a time."""
    rows = await connection.execute(
        f"""
        SELECT version, variant, {_figures("thumbs", "(thumbs = 'up')::integer")}, {_figures("rating", "rating")},
            {_figures("closeness", "closeness")}
        FROM feedback
        WHERE service_id = %(service)s AND called_at >= %(since)s AND called_at < %(until)s AND mode = 'live'
            AND provider_org = %(provider)s
        GROUP BY version, variant ORDER BY version, variant
        """,
        {"service": service, "since": since, "until": until, "provider": provider_org},
    )
    return [row async for row in rows]


_VALUES = {
    "thumbs": "CASE data ->> 'thumbs' WHEN 'up' THEN 1.0 WHEN 'down' THEN 0.0 END",
    "rating": "data ->> 'rating'",
    "closeness": "data ->> 'closeness'",
}


async def by_subject(
    connection: Connection,
    rollout: UUID,
    start: datetime,
    until: datetime,
    now: datetime,
    settle: timedelta,
    metric: str,
) -> list[Row]:
    """Return counts, sums and sums of squares of one value a subject, by variant.

    What was said is taken out of the event log, as it stood at one instant: rows are replaced and forgotten, and
    events are not. A call that another service had to answer says nothing of the variant.
    """
    rows = await connection.execute(
        f"""
        WITH calls AS ({calls_of_subjects("id, executed_by")}), said AS (
            SELECT calls.*, (
                SELECT CASE WHEN type = 'feedback.given' THEN data END FROM events
                WHERE stream = 'feedback/' || calls.id AND events.at < first + %(counts)s
                ORDER BY events.version DESC LIMIT 1
            ) AS data
            FROM calls WHERE {WITHIN}
        ), subjects AS (
            SELECT arm, avg(({_VALUES[metric]})::float8) FILTER (WHERE executed_by IS NULL) AS value,
                   {SETTLED} AND first + %(settles)s <= %(now)s AS settled
            FROM said GROUP BY {SUBJECT}, first
        )
        {SUMS}
        """,
        {
            "rollout": rollout,
            "id_from": id_bound(start),
            "id_to": id_bound(until),
            "settle": settle.total_seconds(),
            "until": until,
            "counts": settle + GRACE,
            "settles": settle + GRACE + LANDING,
            "now": now,
        },
    )
    return [row async for row in rows]


async def forget(connection: Connection, before: datetime, most: int) -> int:
    """Remove up to ``most`` opinions that were given before an instant; return how many."""
    cursor = await connection.execute(
        """
        DELETE FROM feedback WHERE request_id IN (
            SELECT request_id FROM feedback WHERE given_at < %s ORDER BY given_at LIMIT %s)
        """,
        (before, most),
    )
    return cursor.rowcount

"""All SQL of what is measured: calls gathered from usage, probes, and what both come to.

This is the one place where traffic is read. Calls come in by ingest batch: every batch up to one that can be seen is
complete and never changes, so each call is counted once, however often and by however many this runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from haat.infra.postgres import Connection
from haat.sla.evidence import Predicate
from haat.sla.faults import SPENT, condition
from haat.sla.model import Counts
from haat.usage.model import SUMMED, histogram_of, id_bound

Row = Mapping[str, Any]
BATCHES = 200
"""Ingest batches that are gathered in one transaction."""
MINUTES_KEPT = timedelta(days=2)
_GATHER_LOCK = 7_411_021
_VERDICT, _BOUND = condition()
_COUNTED = "answered, failed, down, probes_good, probes_bad"
_OUTSIDE = """
    NOT EXISTS (SELECT FROM sla_maintenance AS window_ WHERE window_.service_id = one.service_id
        AND window_.cancelled_at IS NULL AND one.slot >= window_.starts_at AND one.slot < window_.ends_at)
"""


async def gather(connection: Connection, now: datetime) -> bool:
    """Count the next ingest batches; return whether there are more. One at a time does it: others wait."""
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_GATHER_LOCK,))
    row = await (
        await connection.execute(
            """
            SELECT coalesce((SELECT batch FROM sla_gathered), 0) AS after,
                   coalesce((SELECT max(batch) FROM usage_batches), 0) AS newest
            """
        )
    ).fetchone()
    assert row is not None
    after, upto = row["after"], min(row["after"] + BATCHES, row["newest"])
    if upto <= after:
        return False
    await connection.execute(
        f"""
        WITH fresh AS (
            SELECT coalesce(executed_by, service_id) AS service_id, at, {_VERDICT} AS verdict,
                   latency_bucket({SPENT}) AS bucket
            FROM usage WHERE batch > %(after)s AND batch <= %(upto)s AND mode = 'live' AND service_id IS NOT NULL
        ), cells AS (
            SELECT service_id, minutes, date_bin(make_interval(mins => minutes), at, 'epoch'::timestamptz) AS slot,
                   verdict, CASE WHEN verdict = 'answered' THEN bucket END AS bucket, count(*) AS calls
            FROM fresh CROSS JOIN (VALUES (1), (15)) AS widths (minutes)
            WHERE verdict <> 'not_counted' AND (minutes = 15 OR at >= %(kept)s)
            GROUP BY 1, 2, 3, 4, 5
        )
        INSERT INTO sla_slots (service_id, minutes, slot, answered, failed, down, latency)
        SELECT service_id, minutes, slot,
               coalesce(sum(calls) FILTER (WHERE verdict = 'answered'), 0),
               coalesce(sum(calls) FILTER (WHERE verdict <> 'answered'), 0),
               coalesce(sum(calls) FILTER (WHERE verdict = 'down'), 0),
               coalesce(sum((calls || 'e' || 12 * bucket)::numeric) FILTER (WHERE verdict = 'answered'), 0)
        FROM cells GROUP BY service_id, minutes, slot
        ON CONFLICT (service_id, minutes, slot) DO UPDATE SET
            answered = sla_slots.answered + excluded.answered, failed = sla_slots.failed + excluded.failed,
            down = sla_slots.down + excluded.down, latency = sla_slots.latency + excluded.latency
        """,
        {**_BOUND, "after": after, "upto": upto, "kept": now - MINUTES_KEPT},
    )
    await connection.execute(
        """
        INSERT INTO sla_gathered (batch) VALUES (%s) ON CONFLICT (one) DO UPDATE SET batch = excluded.batch
        """,
        (upto,),
    )
    return bool(upto < row["newest"])


async def gathered(connection: Connection) -> int:
    """Return the batch up to which calls are counted; nobody counts on before this transaction ends."""
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_GATHER_LOCK,))
    row = await (await connection.execute("SELECT coalesce(max(batch), 0) AS batch FROM sla_gathered")).fetchone()
    assert row is not None
    return int(row["batch"])


# --- what it comes to -------------------------------------------------------------------------------


async def counts_of(
    connection: Connection, service_id: UUID, start: datetime, end: datetime, minutes: int = 15
) -> Counts:
    """Return what was counted of a service in a time, its maintenance left out."""
    row = await (
        await connection.execute(
            f"""
            SELECT {_summed()} FROM sla_slots AS one
            WHERE service_id = %s AND minutes = %s AND slot >= %s AND slot < %s AND {_OUTSIDE}
            """,
            (service_id, minutes, start, end),
        )
    ).fetchone()
    assert row is not None
    return _counts(row)


async def standings(connection: Connection, now: datetime, services: Sequence[UUID], days: int) -> list[Row]:
    """Return how services stand, in order of their addresses: over their objective's window, or so many days.

    Besides what was counted: ``promised`` percent, open ``alerts``, ``suspended_since``, ``maintenance_until``, and the
    newest ``breach``.
    """
    rows = await connection.execute(
        f"""
        SELECT services.id, provider_slug, slug, name, status, objective.availability AS promised,
               coalesce(objective.window_days, %(days)s) AS days, counted.*,
               ARRAY(SELECT signal || '_' || pace FROM sla_alerts
                     WHERE service_id = services.id AND closed_at IS NULL ORDER BY opened_at, id) AS alerts,
               (SELECT suspended_at FROM sla_suspensions
                WHERE service_id = services.id AND restored_at IS NULL) AS suspended_since,
               (SELECT max(ends_at) FROM sla_maintenance
                WHERE service_id = services.id AND cancelled_at IS NULL AND starts_at <= %(now)s
                  AND ends_at > %(now)s) AS maintenance_until,
               (SELECT id FROM sla_months WHERE service_id = services.id AND verdict = 'breached'
                ORDER BY period DESC LIMIT 1) AS breach
        FROM services
        LEFT JOIN LATERAL (
            SELECT availability, window_days,
                   (SELECT min(effective_from) FROM sla_objectives WHERE service_id = services.id) AS began
            FROM sla_objectives WHERE service_id = services.id AND effective_from <= %(now)s
            ORDER BY effective_from DESC LIMIT 1) AS objective ON true
        CROSS JOIN LATERAL (
            SELECT {_summed()} FROM sla_slots AS one
            WHERE service_id = services.id AND minutes = 15 AND slot < %(now)s AND slot >= greatest(objective.began,
                date_bin('15 minutes', %(now)s, 'epoch'::timestamptz)
                - make_interval(days => coalesce(objective.window_days, %(days)s)))
              AND {_OUTSIDE}) AS counted
        WHERE services.id = ANY(%(services)s) ORDER BY provider_slug, slug
        """,
        {"now": now, "services": list(services), "days": days},
    )
    return [row async for row in rows]


async def latency_of(
    connection: Connection, service_id: UUID, start: datetime, end: datetime, minutes: int = 15
) -> dict[int, int]:
    """Return a service's answers in a time by latency bucket, its maintenance left out."""
    row = await (
        await connection.execute(
            f"""
            SELECT {SUMMED} AS latency FROM sla_slots AS one
            WHERE service_id = %s AND minutes = %s AND slot >= %s AND slot < %s AND {_OUTSIDE}
            """,
            (service_id, minutes, start, end),
        )
    ).fetchone()
    assert row is not None
    return histogram_of(row["latency"])


async def lately(
    connection: Connection, end: datetime, windows: Sequence[timedelta]
) -> dict[UUID, dict[timedelta, Counts]]:
    """Return what was counted of every service in several windows that end together, by minutes."""
    columns = ", ".join(_summed(f"slot >= %(from_{place})s", f"_{place}") for place in range(len(windows)))
    rows = await connection.execute(
        f"""
        SELECT service_id, {columns} FROM sla_slots AS one
        WHERE minutes = 1 AND slot >= %(first)s AND slot < %(end)s AND {_OUTSIDE} GROUP BY service_id
        """,
        {
            "end": end,
            "first": end - max(windows),
            **{f"from_{place}": end - window for place, window in enumerate(windows)},
        },
    )
    return {
        row["service_id"]: {window: _counts(row, f"_{place}") for place, window in enumerate(windows)}
        async for row in rows
    }


async def bad_minutes(connection: Connection, service_id: UUID, start: datetime, end: datetime) -> int:
    """Return in how many minutes of a time a service was found down."""
    row = await (
        await connection.execute(
            f"""
            SELECT count(*) AS minutes FROM sla_slots AS one
            WHERE service_id = %s AND minutes = 1 AND slot >= %s AND slot < %s
              AND down + probes_bad > 0 AND {_OUTSIDE}
            """,
            (service_id, start, end),
        )
    ).fetchone()
    assert row is not None
    return int(row["minutes"])


async def callers_let_down(connection: Connection, service_id: UUID, start: datetime, end: datetime) -> int:
    """Return how many organisations found a service down, two at most: that is all anybody asks."""
    row = await (
        await connection.execute(
            f"""
            SELECT count(*) AS callers FROM (
                SELECT DISTINCT org_id FROM usage
                WHERE id >= %(id_from)s AND id < %(id_to)s AND coalesce(executed_by, service_id) = %(service)s
                  AND {_VERDICT} = 'down' LIMIT 2) AS found
            """,
            {**_BOUND, "id_from": id_bound(start), "id_to": id_bound(end), "service": service_id},
        )
    ).fetchone()
    assert row is not None
    return int(row["callers"])


async def causes(connection: Connection, predicate: Predicate) -> list[Row]:
    """Return what became of the calls that a breach looked at: counts by outcome, status and error code."""
    where, values = predicate.counted()
    verdict, bound = condition(predicate.rules)
    rows = await connection.execute(
        f"""
        SELECT {verdict} AS verdict, outcome, status, error_code AS code, count(*) AS calls FROM usage
        WHERE {where} GROUP BY 1, 2, 3, 4 ORDER BY calls DESC, outcome, status, code
        """,
        {**values, **bound},
    )
    return [row async for row in rows]


async def broken_calls(
    connection: Connection, predicate: Predicate, org: UUID | None, after: UUID | None, limit: int
) -> list[Row]:
    """Return the calls that broke a promise, in order of time: of one organisation, or of all."""
    where, values = predicate.broken()
    rows = await connection.execute(
        f"""
        SELECT id, at, org_id, status, outcome, error_code, round({SPENT} / 1000.0, 3) AS ms FROM usage
        WHERE {where} AND (%(org)s::uuid IS NULL OR org_id = %(org)s) AND (%(after)s::uuid IS NULL OR id > %(after)s)
        ORDER BY id LIMIT %(limit)s
        """,
        {**values, "org": org, "after": after, "limit": limit},
    )
    return [row async for row in rows]


async def broken_count(connection: Connection, predicate: Predicate) -> int:
    where, values = predicate.broken()
    row = await (await connection.execute(f"SELECT count(*) AS calls FROM usage WHERE {where}", values)).fetchone()
    assert row is not None
    return int(row["calls"])


def _summed(condition: str = "", suffix: str = "") -> str:
    filtered = f" FILTER (WHERE {condition})" if condition else ""
    return ", ".join(f"coalesce(sum({name}){filtered}, 0)::bigint AS {name}{suffix}" for name in _COUNTED.split(", "))


def _counts(row: Row, suffix: str = "") -> Counts:
    return Counts(*(row[f"{name}{suffix}"] for name in _COUNTED.split(", ")))


# --- probes -----------------------------------------------------------------------------------------


async def targets(connection: Connection, now: datetime, before: datetime) -> list[Row]:
    """Return what is to be probed: open listings, and those suspended for their uptime, not looked at since a time."""
    rows = await connection.execute(
        """
        SELECT services.id, services.org_id, services.provider_slug, partners.allowed_networks, version.endpoint,
               version.dialect, version.health_path, version.sample, version.policy, header, ciphertext,
               coalesce(nullif(objective.probe, 'none'), 'health') AS probe
        FROM services
        JOIN partners ON partners.slug = services.provider_slug AND partners.status = 'approved'
        JOIN service_versions AS version ON version.service_id = services.id AND version.is_default
        LEFT JOIN provider_credentials ON provider_credentials.service_id = services.id
        LEFT JOIN LATERAL (
            SELECT probe FROM sla_objectives WHERE service_id = services.id AND effective_from <= %(now)s
            ORDER BY effective_from DESC LIMIT 1) AS objective ON true
        WHERE (services.status IN ('published', 'deprecated') OR services.status = 'suspended' AND EXISTS (
                SELECT FROM sla_suspensions WHERE service_id = services.id AND restored_at IS NULL))
          AND (services.status = 'suspended' OR objective.probe IS DISTINCT FROM 'none')
          AND NOT EXISTS (SELECT FROM sla_probes WHERE service_id = services.id AND at > %(before)s)
        ORDER BY services.id
        """,
        {"now": now, "before": before},
    )
    return [row async for row in rows]


async def add_probes(connection: Connection, seen: Sequence[Row]) -> None:
    """Keep what probes saw, and count those that count."""
    async with connection.cursor() as cursor:
        await cursor.executemany(
            """
            INSERT INTO sla_probes (id, service_id, at, kind, good, counted, ms, detail)
            VALUES (%(id)s, %(service_id)s, %(at)s, %(kind)s, %(good)s, %(counted)s, %(ms)s, %(detail)s)
            """,
            seen,
        )
        await cursor.executemany(
            """
            INSERT INTO sla_slots (service_id, minutes, slot, probes_good, probes_bad)
            SELECT %(service_id)s, minutes, date_bin(make_interval(mins => minutes), %(at)s, 'epoch'::timestamptz),
                   (%(good)s)::integer, (NOT %(good)s)::integer
            FROM (VALUES (1), (15)) AS widths (minutes)
            ON CONFLICT (service_id, minutes, slot) DO UPDATE SET
                probes_good = sla_slots.probes_good + excluded.probes_good,
                probes_bad = sla_slots.probes_bad + excluded.probes_bad
            """,
            [one for one in seen if one["counted"]],
        )


async def probes(connection: Connection, service_id: UUID, since: datetime, limit: int) -> list[Row]:
    """Return a service's probes since a time, the newest first."""
    rows = await connection.execute(
        """
        SELECT id, at, kind, good, counted, ms, detail FROM sla_probes WHERE service_id = %s AND at >= %s
        ORDER BY at DESC, id DESC LIMIT %s
        """,
        (service_id, since, limit),
    )
    return [row async for row in rows]


async def forget(connection: Connection, minutes: datetime, good_probes: datetime, bad_probes: datetime) -> None:
    """Drop minutes, good probes and bad probes that are older than these times; quarter hours stay."""
    await connection.execute("DELETE FROM sla_slots WHERE minutes = 1 AND slot < %s", (minutes,))
    await connection.execute("DELETE FROM sla_probes WHERE at < %s AND good OR at < %s", (good_probes, bad_probes))

"""The SQL of the operator's board: which services stand on it. What each comes to is in `counts`."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from haat.infra.postgres import Connection


async def troubled(connection: Connection, now: datetime, limit: int) -> list[UUID]:
    """Return services with an open alert, suspended, or in maintenance: the gravest first."""
    rows = await connection.execute(
        """
        SELECT service_id, min(rank) AS rank FROM (
            SELECT service_id, 1 AS rank FROM sla_suspensions WHERE restored_at IS NULL
            UNION ALL SELECT service_id, CASE pace WHEN 'fast' THEN 2 ELSE 3 END FROM sla_alerts WHERE closed_at IS NULL
            UNION ALL SELECT service_id, 4 FROM sla_maintenance
                WHERE cancelled_at IS NULL AND starts_at <= %(now)s AND ends_at > %(now)s) AS found
        GROUP BY service_id ORDER BY rank, service_id LIMIT %(limit)s
        """,
        {"now": now, "limit": limit},
    )
    return [row["service_id"] async for row in rows]


async def promising(connection: Connection, now: datetime, after: tuple[str, str], limit: int) -> list[UUID]:
    """Return the services with an objective in force, in order of their addresses, of which one may be given."""
    rows = await connection.execute(
        """
        SELECT services.id FROM services
        WHERE (provider_slug, slug) > (%(provider)s, %(slug)s) AND status <> 'retired'
          AND id IN (SELECT service_id FROM sla_objectives WHERE effective_from <= %(now)s)
        ORDER BY provider_slug, slug LIMIT %(limit)s
        """,
        {"now": now, "provider": after[0], "slug": after[1], "limit": limit},
    )
    return [row["id"] async for row in rows]

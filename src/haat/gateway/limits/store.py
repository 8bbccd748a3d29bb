"""All SQL of what was used before a restart, run as `haat_service`. Never on the call path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from haat.infra.postgres import Connection
from haat.kernel.ids import id_at
from haat.usage.journal import Position
from haat.usage.model import UNITS


async def ship_positions(connection: Connection) -> dict[str, Position]:
    """Return how far each worker's journal is in the store."""
    rows = await connection.execute("SELECT worker, segment, byte_offset FROM ship_positions")
    return {row["worker"]: Position(row["segment"], row["byte_offset"]) async for row in rows}


class Used(NamedTuple):
    """Calls of one application at one service."""

    application: str
    service: str
    at_us: int
    """The end of the grain they fell into, in microseconds; 0 when they were not told apart by time."""
    calls: int
    units: Mapping[str, str]
    """What they used, by unit, as decimal text; empty when that was not asked for."""


async def used_since(
    connection: Connection, start: datetime, outcomes: Sequence[str], units: Sequence[str]
) -> list[Used]:
    """Return what all have used since an instant, in calls and in these units.

    An answer given again for an idempotency key is not another call: the one that was executed counts.
    """
    asked = [unit for unit in UNITS if unit in units and unit != "requests"]
    sums = "".join(f", coalesce(sum({unit}), 0)::text AS {unit}" for unit in asked)
    rows = await connection.execute(
        f"""
        SELECT application_id, service_id, 0::bigint AS at_us, count(*) FILTER (WHERE cache <> 'replay') AS calls{sums}
        FROM usage
        WHERE id >= %(first)s AND at >= %(start)s AND outcome = ANY(%(outcomes)s) AND mode = 'live'
          AND application_id IS NOT NULL AND service_id IS NOT NULL
        GROUP BY 1, 2
        """,
        {"start": start, "first": _first_id(start), "outcomes": list(outcomes)},
    )
    return [_used(row, asked) async for row in rows]


async def admitted_since(connection: Connection, start: datetime, grain_seconds: int) -> list[Used]:
    """Return the admitted calls since an instant by grain, oldest first."""
    rows = await connection.execute(
        """
        SELECT application_id, service_id,
               ceil(extract(epoch FROM at) / %(grain)s)::bigint * %(grain)s * 1000000 AS at_us, count(*) AS calls
        FROM usage
        WHERE id >= %(first)s AND at >= %(start)s AND outcome <> 'refused' AND mode = 'live'
          AND application_id IS NOT NULL AND service_id IS NOT NULL
        GROUP BY 1, 2, 3 ORDER BY 3
        """,
        {"grain": grain_seconds, "start": start, "first": _first_id(start)},
    )
    return [_used(row) async for row in rows]


def _first_id(start: datetime) -> UUID:
    """Ids carry their time: a bound on them leaves out the partitions before (a minute for skew)."""
    return id_at(int(start.timestamp() * 1000) - 60_000)


def _used(row: Mapping[str, Any], units: Sequence[str] = ()) -> Used:
    quantities = {unit: row[unit] for unit in units}
    return Used(str(row["application_id"]), str(row["service_id"]), row["at_us"], row["calls"], quantities)


async def stored_ids(connection: Connection, identifiers: Sequence[UUID]) -> set[UUID]:
    """Return which of these events are in the store."""
    rows = await connection.execute("SELECT id FROM usage WHERE id = ANY(%s)", (list(identifiers),))
    return {row["id"] async for row in rows}

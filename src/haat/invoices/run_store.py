"""All SQL of the run that closes a month: its row, and the batches of organisations that it is worked off in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from haat.infra.postgres import Connection

Row = Mapping[str, Any]


async def _all(connection: Connection, query: str, *values: Any) -> list[Row]:
    return [row async for row in await connection.execute(query, values)]


async def _one(connection: Connection, query: str, *values: Any) -> Row | None:
    row = await (await connection.execute(query, values)).fetchone()
    return row


_RUN = """
    SELECT run.period, run.state, run.pass, run.until, run.organisations, run.started_at, run.started_by, run.ended_at,
           count(batch.number) AS batches, count(batch.done_at) AS done,
           coalesce(sum(batch.issued), 0) AS issued, coalesce(sum(batch.unchanged), 0) AS unchanged,
           coalesce((SELECT jsonb_agg(failure) FROM billing_batches AS one, jsonb_array_elements(one.failed) AS failure
                     WHERE one.period = run.period AND one.pass = run.pass), '[]') AS failed
    FROM billing_runs AS run
    LEFT JOIN billing_batches AS batch ON batch.period = run.period AND batch.pass = run.pass
"""


async def runs(connection: Connection, limit: int) -> list[Row]:
    return await _all(connection, f"{_RUN} GROUP BY run.period ORDER BY run.period DESC LIMIT %s", limit)


async def run(connection: Connection, period: str) -> Row | None:
    return await _one(connection, f"{_RUN} WHERE run.period = %s GROUP BY run.period", period)


async def closed_months(connection: Connection) -> set[str]:
    """Return the months that a run has closed."""
    return {row["period"] for row in await _all(connection, "SELECT period FROM billing_runs WHERE state = 'done'")}


async def begin_run(
    connection: Connection, period: str, until: int, organisations: int, by: str, at: datetime
) -> int | None:
    """Begin a pass over a month and return its number, or None while another one is on."""
    row = await _one(
        connection,
        """
        INSERT INTO billing_runs AS run (period, state, pass, until, organisations, started_at, started_by)
        VALUES (%s, 'billing', 1, %s, %s, %s, %s)
        ON CONFLICT (period) DO UPDATE SET state = 'billing', pass = run.pass + 1, until = excluded.until,
            organisations = excluded.organisations, started_at = excluded.started_at,
            started_by = excluded.started_by, ended_at = NULL
        WHERE run.state = 'done' RETURNING pass
        """,
        period,
        until,
        organisations,
        at,
        by,
    )
    return int(row["pass"]) if row else None


async def add_batches(connection: Connection, period: str, number: int, batches: Sequence[Sequence[UUID]]) -> None:
    async with connection.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO billing_batches (period, pass, number, organisations) VALUES (%s, %s, %s, %s)",
            [(period, number, place, list(orgs)) for place, orgs in enumerate(batches, 1)],
        )


async def claim_batch(connection: Connection, period: str) -> Row | None:
    """Take a batch that nobody works on; it stays ours until the transaction ends, and is free again if we die."""
    return await _one(
        connection,
        """
        SELECT batch.pass, batch.number, batch.organisations, run.until, run.started_by
        FROM billing_batches AS batch JOIN billing_runs AS run ON run.period = batch.period AND run.pass = batch.pass
        WHERE batch.period = %s AND batch.done_at IS NULL AND run.state = 'billing'
        ORDER BY batch.number LIMIT 1 FOR UPDATE OF batch SKIP LOCKED
        """,
        period,
    )


async def end_batch(
    connection: Connection, period: str, batch: Row, issued: int, unchanged: int, failed: Any, at: datetime
) -> None:
    await connection.execute(
        """
        UPDATE billing_batches SET done_at = %s, issued = %s, unchanged = %s, failed = %s
        WHERE period = %s AND pass = %s AND number = %s
        """,
        (at, issued, unchanged, failed, period, batch["pass"], batch["number"]),
    )


async def end_billing(connection: Connection, period: str) -> bool:
    """Go on to settling when every batch is done; the run's row is locked, so one of the last two sees it."""
    await connection.execute("SELECT FROM billing_runs WHERE period = %s FOR UPDATE", (period,))
    moved = await connection.execute(
        """
        UPDATE billing_runs AS run SET state = 'settling'
        WHERE period = %s AND state = 'billing' AND NOT EXISTS (
            SELECT FROM billing_batches AS batch
            WHERE batch.period = run.period AND batch.pass = run.pass AND batch.done_at IS NULL)
        """,
        (period,),
    )
    return moved.rowcount == 1


async def end_run(connection: Connection, period: str, at: datetime) -> bool:
    moved = await connection.execute(
        "UPDATE billing_runs SET state = 'done', ended_at = %s WHERE period = %s AND state = 'settling'", (at, period)
    )
    return moved.rowcount == 1

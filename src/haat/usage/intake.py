"""The way into the usage store: many records in one transaction, each id once.

Rows go by COPY into a temporary stage and from there with ``ON CONFLICT DO NOTHING`` into `usage`; the
rollups grow by the rows that were really inserted, in the same statement, so a duplicate never counts.
One intake runs at a time (an advisory lock held to the commit): batch numbers therefore become visible
in order, and "everything up to batch n" never changes afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import NamedTuple

from psycopg import DataError, IntegrityError

from haat.infra.postgres import Connection
from haat.kernel.ids import new_id
from haat.usage.event import UsageEvent, encode
from haat.usage.model import COLUMNS, UNITS, Cell, Misfit, row_of

INTAKE_LOCK = 7_411_004


class Record(NamedTuple):
    """An event and where in the journal it stood; ``unreadable`` says why there is only a payload."""

    event: UsageEvent | None
    worker: str
    segment: int
    offset: int
    payload: bytes = b""
    unreadable: str = ""


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a batch of records."""

    batch: int
    rows: int
    duplicates: int
    quarantined: int


class _Row(NamedTuple):
    cells: tuple[Cell, ...]
    record: Record


_KEY = (
    "org_id",
    "hour",
    "service_id",
    "application_id",
    "subscription_id",
    "provider_org",
    "plan",
    "status_class",
    "outcome",
)
_SUMS = ("calls", *UNITS, "bytes_in", "bytes_out", "latency_us")
_STAGED = ", ".join((*COLUMNS, "batch"))
_COPY = f"COPY usage_stage ({_STAGED}) FROM STDIN"
_INSERT = f"""
    WITH fresh AS (
        INSERT INTO usage ({_STAGED}) SELECT {_STAGED} FROM usage_stage ON CONFLICT (id) DO NOTHING
        RETURNING at, org_id, application_id, subscription_id, service_id, provider_org, plan, status, outcome,
                  {", ".join(UNITS)}, bytes_in, bytes_out, total_us, mode
    ), cells AS (
        SELECT org_id, date_trunc('hour', at, coalesce(organisations.zone, 'UTC')) AS hour, service_id,
               application_id, subscription_id, provider_org, plan, status / 100 AS status_class, outcome,
               latency_bucket(total_us) AS bucket, count(*) AS calls,
               {", ".join(f"coalesce(sum({unit}), 0) AS {unit}" for unit in UNITS)},
               sum(bytes_in) AS bytes_in, sum(bytes_out) AS bytes_out, sum(total_us) AS latency_us
        FROM fresh LEFT JOIN organisations ON organisations.id = fresh.org_id
        WHERE mode = 'live'
        GROUP BY {", ".join(_KEY)}, bucket
    ), rolled AS (
        INSERT INTO usage_hourly ({", ".join((*_KEY, *_SUMS))}, latency, batch)
        SELECT {", ".join(_KEY)}, {", ".join(f"sum({name})" for name in _SUMS)}, jsonb_object_agg(bucket, calls),
               %s
        FROM cells GROUP BY {", ".join(_KEY)}
        ON CONFLICT ({", ".join(_KEY)}) DO UPDATE SET
            {", ".join(f"{name} = usage_hourly.{name} + excluded.{name}" for name in _SUMS)},
            latency = histogram_add(usage_hourly.latency, excluded.latency), batch = excluded.batch
    )
    SELECT count(*) AS rows FROM fresh
"""


async def take(
    connection: Connection, records: Sequence[Record], at: datetime, *, any_time: bool = False
) -> Taken | None:
    """Store records, each id at most once; set aside, with its reason, what can't be counted.

    ``any_time`` waives the bounds on a record's time. Return None when there was nothing to do.
    """
    if not records:
        return None
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (INTAKE_LOCK,))
    batch = await watermark(connection) + 1
    now_ms = None if any_time else int(at.timestamp() * 1000)
    rows: list[_Row] = []
    misfits: list[tuple[Record, str]] = []
    for record in records:
        if record.event is None:
            misfits.append((record, record.unreadable))
            continue
        try:
            rows.append(_Row((*row_of(record.event, now_ms), batch), record))
        except Misfit as reason:
            misfits.append((record, str(reason)))
    for month in _months(rows):
        await ensure_partition(connection, month)
    await connection.execute(
        "CREATE TEMPORARY TABLE IF NOT EXISTS usage_stage (LIKE usage INCLUDING DEFAULTS) ON COMMIT DELETE ROWS"
    )
    inserted = await _insert(connection, rows, batch, misfits)
    set_aside = sum([await _quarantine(connection, record, reason, at) for record, reason in misfits])
    taken = Taken(batch, inserted, len(records) - len(misfits) - inserted, set_aside)
    await connection.execute(
        "INSERT INTO usage_batches (batch, shipped_at, rows, duplicates, quarantined) VALUES (%s, %s, %s, %s, %s)",
        (taken.batch, at, taken.rows, taken.duplicates, taken.quarantined),
    )
    return taken


async def watermark(connection: Connection) -> int:
    """Return the newest batch that can be seen; it and every one before it are complete."""
    row = await (await connection.execute("SELECT coalesce(max(batch), 0) AS batch FROM usage_batches")).fetchone()
    assert row is not None
    return int(row["batch"])


async def forget_batches(connection: Connection, before: datetime) -> None:
    """Drop the statistics of old batches; the newest stays, numbers go on from it."""
    await connection.execute(
        "DELETE FROM usage_batches WHERE shipped_at < %s AND batch < (SELECT max(batch) FROM usage_batches)", (before,)
    )


async def ensure_partition(connection: Connection, month: date) -> None:
    """Make the partition of a month (UTC) unless it is there."""
    await connection.execute("SELECT usage_partition(%s)", (month,))


async def _insert(connection: Connection, rows: Sequence[_Row], batch: int, misfits: list[tuple[Record, str]]) -> int:
    """Insert rows and return how many were new. What the database refuses is found by halving and set aside."""
    if not rows:
        return 0
    try:
        async with connection.transaction():
            await connection.execute("TRUNCATE usage_stage")
            async with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
                for row in rows:
                    await copy.write_row(row.cells)
            counted = await (await connection.execute(_INSERT, (batch,))).fetchone()
            assert counted is not None
            return int(counted["rows"])
    except (DataError, IntegrityError) as error:
        if len(rows) == 1:
            misfits.append((rows[0].record, f"the database refuses it: {error.diag.message_primary}"))
            return 0
        half = len(rows) // 2
        return await _insert(connection, rows[:half], batch, misfits) + await _insert(
            connection, rows[half:], batch, misfits
        )


async def _quarantine(connection: Connection, record: Record, reason: str, at: datetime) -> int:
    payload, outcome = record.payload, ""
    if record.event is not None:
        payload, outcome = encode(record.event), record.event.outcome.value
    cursor = await connection.execute(
        """
        INSERT INTO usage_quarantine (id, worker, segment, byte_offset, outcome, payload, reason, set_aside_at)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (worker, segment, byte_offset) DO NOTHING
        """,
        (new_id(), record.worker, record.segment, record.offset, outcome, payload, reason, at),
    )
    return cursor.rowcount


def _months(rows: Iterable[_Row]) -> set[date]:
    return {date.fromisoformat(f"{str(row.cells[1])[:7]}-01") for row in rows}


def month_start(at: datetime) -> date:
    return at.astimezone(UTC).date().replace(day=1)

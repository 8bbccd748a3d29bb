"""The way into the usage store: many records in one transaction, each id once.

Rows go by binary COPY straight into `usage` when they are expected to be new, as those of a journal that is read on
are. Where the key says that one isn't, and when a journal is read again, they go into a temporary stage and from there
with ``ON CONFLICT DO NOTHING``. The rollups grow by the rows that were really inserted, in the same transaction, so a
duplicate never counts. One intake runs at a time (an advisory lock held to the commit): batch numbers therefore become
visible in order, and "everything up to batch n" never changes afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import chain
from typing import NamedTuple

from psycopg import DataError, IntegrityError
from psycopg.rows import tuple_row

from haat.infra.postgres import Connection
from haat.kernel.ids import new_id
from haat.usage.event import UsageEvent, encode
from haat.usage.model import Misfit
from haat.usage.rollup import Rollup
from haat.usage.rollups import pieces, roll
from haat.usage.rows import COLUMNS, Row, row_of

INTAKE_LOCK = 7_411_004
_DAY_MS = 24 * 3600 * 1000
_EPOCH = date(1970, 1, 1)


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


_INTO = ", ".join(COLUMNS)
_COPY = f"COPY usage ({_INTO}) FROM STDIN (FORMAT binary)"
_COPY_STAGE = f"COPY usage_stage ({_INTO}) FROM STDIN (FORMAT binary)"
_INSERT = f"""
    INSERT INTO usage ({_INTO}) SELECT {_INTO} FROM usage_stage ON CONFLICT (id) DO NOTHING RETURNING id
"""


@dataclass(slots=True)
class _Sorted:
    """Records on their way: rows, each id once, and what can't be counted, with the reason."""

    batch: int
    now_ms: int | None
    records: int = 0
    rows: list[tuple[Row, Record]] = field(default_factory=list)
    misfits: list[tuple[Record, str]] = field(default_factory=list)
    rollup: Rollup = field(default_factory=Rollup)
    """Of all rows."""
    _known: set[bytes] = field(default_factory=set)

    def data(self, records: Iterable[Record]) -> Iterator[bytes]:
        """Sort records out and yield the data of rows."""
        for record in records:
            self.records += 1
            if record.event is None:
                self.misfits.append((record, record.unreadable))
                continue
            try:
                row = row_of(record.event, self.batch, self.now_ms)
            except Misfit as reason:
                self.misfits.append((record, str(reason)))
                continue
            if row.id in self._known:
                continue
            self._known.add(row.id)
            self.rows.append((row, record))
            self.rollup.add(row)
            yield row.data


async def take(
    connection: Connection,
    records: Iterable[Record],
    at: datetime,
    *,
    any_time: bool = False,
    expect_new: bool = False,
) -> Taken | None:
    """Store records, each id at most once; set aside, with its reason, what can't be counted.

    ``records`` are read while rows are on their way to the database. ``any_time`` waives the bounds on a record's
    time. ``expect_new`` tries the short way first, which only a role that row-level security doesn't bind may go.
    Return None when there was nothing to do.
    """
    source = iter(records)
    first = next(source, None)
    if first is None:
        return None
    await lock(connection)
    batch = await watermark(connection) + 1
    found = _Sorted(batch, None if any_time else int(at.timestamp() * 1000))
    data = found.data(chain((first,), source))
    if not (expect_new and await _copy_all(connection, found, data)):
        for _ in data:  # what is left of it
            pass
        for month in _months(found.rows):
            await ensure_partition(connection, month)
        await connection.execute(
            "CREATE TEMPORARY TABLE IF NOT EXISTS usage_stage (LIKE usage INCLUDING DEFAULTS) ON COMMIT DELETE ROWS"
        )
        inserted = await _insert(connection, found.rows, batch, found.misfits)
    else:
        inserted = len(found.rows)
    set_aside = sum([await _quarantine(connection, record, reason, at) for record, reason in found.misfits])
    taken = Taken(batch, inserted, found.records - len(found.misfits) - inserted, set_aside)
    await connection.execute(
        "INSERT INTO usage_batches (batch, shipped_at, rows, duplicates, quarantined) VALUES (%s, %s, %s, %s, %s)",
        (taken.batch, at, taken.rows, taken.duplicates, taken.quarantined),
    )
    return taken


async def lock(connection: Connection) -> None:
    """Let no intake run until this transaction ends."""
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (INTAKE_LOCK,))


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


async def _copy_all(connection: Connection, found: _Sorted, data: Iterator[bytes]) -> bool:
    """Copy rows straight into the table; return False, having stored nothing, when one of them is refused."""
    try:
        async with connection.transaction():
            async with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
                for piece in pieces(data):
                    await copy.write(piece)
            await roll(connection, found.rollup, found.batch)
        return True
    except (DataError, IntegrityError):  # an id is there already, a month has no partition, a value doesn't fit
        return False


async def _insert(
    connection: Connection, rows: Sequence[tuple[Row, Record]], batch: int, misfits: list[tuple[Record, str]]
) -> int:
    """Insert rows and return how many were new. What the database refuses is found by halving and set aside."""
    if not rows:
        return 0
    try:
        async with connection.transaction():
            await connection.execute("TRUNCATE usage_stage")
            async with connection.cursor() as cursor, cursor.copy(_COPY_STAGE) as copy:
                for piece in pieces(row.data for row, _ in rows):
                    await copy.write(piece)
            async with connection.cursor(binary=True, row_factory=tuple_row) as cursor:
                await cursor.execute(_INSERT)
                new = {identifier.bytes async for (identifier,) in cursor}
            rollup = Rollup()
            for row, _ in rows:
                if row.id in new:
                    rollup.add(row)
            await roll(connection, rollup, batch)
            return len(new)
    except (DataError, IntegrityError) as error:
        if len(rows) == 1:
            misfits.append((rows[0][1], f"the database refuses it: {error.diag.message_primary}"))
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


def _months(rows: Iterable[tuple[Row, Record]]) -> set[date]:
    days = {row.time_ms // _DAY_MS for row, _ in rows}
    return {(_EPOCH + timedelta(days=day)).replace(day=1) for day in days}


def month_start(at: datetime) -> date:
    return at.astimezone(UTC).date().replace(day=1)

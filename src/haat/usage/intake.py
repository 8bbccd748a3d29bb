"""The way into the usage store: many records in one transaction, each id once.

Rows that are expected to be new, as those of a journal that is read on are, go by binary COPY straight into `usage`:
first the usual ones, whose columns are few, then the others. If the key says that one isn't new, nothing of that is
stored, and they go the long way, as what comes after a start does: into a temporary stage and from there with ``ON
CONFLICT DO NOTHING``. The rollups grow by the rows that were really inserted, in the same transaction, so a duplicate
never counts. One intake runs at a time (an advisory lock held to the commit): batch numbers therefore become visible
in order, and "everything up to batch n" never changes afterwards.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import chain

from psycopg import DataError, IntegrityError
from psycopg.rows import tuple_row

from haat.infra.postgres import Connection
from haat.kernel.ids import new_id
from haat.usage.cells import HEADER, TRAILER
from haat.usage.event import encode
from haat.usage.meanwhile import Writer, beside
from haat.usage.record import Record
from haat.usage.rollup import Rollup
from haat.usage.rollups import pieces, roll
from haat.usage.rows import COLUMNS, USUAL_COLUMNS, Row
from haat.usage.sorting import Sorting

INTAKE_LOCK = 7_411_004
_DAY_MS = 24 * 3600 * 1000
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a batch of records."""

    batch: int
    rows: int
    duplicates: int
    quarantined: int


_INTO = ", ".join(COLUMNS)
_COPY = f"COPY usage ({_INTO}) FROM STDIN (FORMAT binary)"
_COPY_USUAL = f"COPY usage ({', '.join(USUAL_COLUMNS)}) FROM STDIN (FORMAT binary)"
_COPY_STAGE = f"COPY usage_stage ({_INTO}) FROM STDIN (FORMAT binary)"
_INSERT = f"""
    INSERT INTO usage ({_INTO}) SELECT {_INTO} FROM usage_stage ON CONFLICT (id) DO NOTHING RETURNING id
"""


class NotAllNew(Exception):
    """One of the records that were expected to be new is stored already, or refused. Nothing of them is stored."""


class NotNext(Exception):
    """The batch number that rows were made for isn't the next one any more. Nothing of them is stored."""


async def take(
    connection: Connection, records: Iterable[Record], at: datetime, *, any_time: bool = False
) -> Taken | None:
    """Store records, each id at most once; set aside, with its reason, what can't be counted.

    ``any_time`` waives the bounds on a record's time. Return None when there was nothing to do.
    """
    source = iter(records)
    first = next(source, None)
    if first is None:
        return None
    await lock(connection)
    batch = await watermark(connection) + 1
    found = Sorting(batch, None if any_time else int(at.timestamp() * 1000))
    rows = found.rows(chain((first,), source))
    for month in _months(rows):
        await ensure_partition(connection, month)
    await connection.execute(
        "CREATE TEMPORARY TABLE IF NOT EXISTS usage_stage (LIKE usage INCLUDING DEFAULTS) ON COMMIT DELETE ROWS"
    )
    return await _taken(connection, found, await _insert(connection, rows, batch, found.misfits), at)


async def take_new(
    connection: Connection, found: Sorting, rows: Iterable[bytes], at: datetime, meanwhile: Callable[[], bool]
) -> Taken:
    """Store the rows of a batch that are expected to be new, the short way.

    Only a role that row-level security doesn't bind may go it. ``rows`` are ``found``'s data; they are asked for one
    after the other, as the database takes them, and when they end ``found`` is whole. ``meanwhile`` is called while
    the database is busy (see `haat.usage.meanwhile`). Raise NotNext when another batch came first and NotAllNew when a
    row isn't new after all; the transaction has failed then.
    """
    await lock(connection)
    if await watermark(connection) + 1 != found.batch:
        raise NotNext
    try:
        with _uncollected():
            await _copy(connection, _COPY_USUAL if found.usual else _COPY, rows, meanwhile)
            if found.unusual:  # it is whole now
                await _copy(connection, _COPY, (found.unusual,), meanwhile)
            async with beside(meanwhile):
                await roll(connection, found.rollup, found.batch)
    except (DataError, IntegrityError) as error:  # an id is there, a month has no partition, a value doesn't fit
        raise NotAllNew(str(error.diag.message_primary)) from error
    return await _taken(connection, found, found.made, at)


async def _copy(
    connection: Connection, statement: str, rows: Iterable[bytes | bytearray], meanwhile: Callable[[], bool]
) -> None:
    async with connection.cursor() as cursor, cursor.copy(statement, writer=Writer(cursor, meanwhile)) as copy:
        await copy.write(HEADER)
        for some in rows:
            await copy.write(some)
        await copy.write(TRAILER)


async def _taken(connection: Connection, found: Sorting, inserted: int, at: datetime) -> Taken:
    """Set aside what can't be counted, and note what became of the batch."""
    set_aside = sum([await _quarantine(connection, record, reason, at) for record, reason in found.misfits])
    taken = Taken(found.batch, inserted, found.records - len(found.misfits) - inserted, set_aside)
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


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Let no garbage be collected meanwhile: it would look again and again at rollups that grow, and find none."""
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()


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
            async with connection.cursor(binary=True, row_factory=tuple_row) as inserted:
                await inserted.execute(_INSERT)
                new = {identifier.bytes async for (identifier,) in inserted}
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

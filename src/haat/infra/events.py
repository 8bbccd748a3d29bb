"""The event log: outbox, audit log and change feed in one table.

Sequence order is not commit order: a reader that remembers the highest ``seq`` skips a row whose
transaction commits late. Each row therefore keeps its transaction id, readers see only rows below
the oldest running transaction, and positions are compared as (xid, seq). A row that appears later
always has a greater xid than everything read before.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb

from haat.infra.postgres import Connection
from haat.kernel.errors import ConcurrentChange
from haat.kernel.events import GENESIS, DomainEvent, Position, chain_hash
from haat.kernel.ids import new_id

CHANNEL = "haat_events"


@dataclass(frozen=True, slots=True)
class NewEvent:
    """One of many events that are appended together."""

    stream: str
    type: str
    data: Mapping[str, Any]
    org: UUID | None


async def append(
    connection: Connection,
    *,
    stream: str,
    type: str,
    data: Mapping[str, Any],
    actor: str,
    org: UUID | None,
    at: datetime,
    expected_version: int | None = None,
) -> DomainEvent:
    """Append one event within the caller's transaction and wake the readers when it commits.

    Raise ConcurrentChange when the stream has moved past ``expected_version``, or when another
    transaction appended to the same stream at the same moment.
    """
    last = await (
        await connection.execute(
            "SELECT version, hash FROM events WHERE stream = %s ORDER BY version DESC LIMIT 1", (stream,)
        )
    ).fetchone()
    version = last["version"] if last else 0
    if expected_version is not None and version != expected_version:
        raise ConcurrentChange(f"{stream} is at version {version}, not {expected_version}: reload it and decide again.")
    prev_hash = bytes(last["hash"]) if last else GENESIS
    identifier = new_id()
    at = at.astimezone(UTC)
    digest = chain_hash(
        prev_hash, id=identifier, stream=stream, version=version + 1, type=type, data=data, actor=actor, org=org, at=at
    )
    try:
        row = await (
            await connection.execute(
                """
                INSERT INTO events (id, stream, version, type, data, actor, org_id, at, prev_hash, hash)
                VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
                RETURNING seq, xid::text::bigint AS xid
                """,
                (identifier, stream, version + 1, type, Jsonb(dict(data)), actor, org, at, prev_hash, digest),
            )
        ).fetchone()
    except UniqueViolation as error:
        raise ConcurrentChange(
            f"Somebody else changed {stream} at the same moment: reload it and decide again."
        ) from error
    assert row is not None
    await connection.execute("SELECT pg_notify(%s, '')", (CHANNEL,))
    return DomainEvent(
        identifier, stream, version + 1, type, data, actor, org, at, prev_hash, digest, Position(row["xid"], row["seq"])
    )


async def append_all(connection: Connection, new: Sequence[NewEvent], *, actor: str, at: datetime) -> list[DomainEvent]:
    """Append many events in their order, in one statement, as `append` does one; several may be of one stream."""
    if not new:
        return []
    at = at.astimezone(UTC)
    known = await connection.execute(
        """
        SELECT last.* FROM (SELECT DISTINCT unnest(%s::text[]) AS stream) AS wanted,
            LATERAL (SELECT stream, version, hash FROM events WHERE stream = wanted.stream
                     ORDER BY version DESC LIMIT 1) AS last
        """,
        ([one.stream for one in new],),
    )
    last = {row["stream"]: (int(row["version"]), bytes(row["hash"])) async for row in known}
    made: list[DomainEvent] = []
    for one in new:
        version, prev_hash = last.get(one.stream, (0, GENESIS))
        identifier = new_id()
        digest = chain_hash(
            prev_hash,
            id=identifier,
            stream=one.stream,
            version=version + 1,
            type=one.type,
            data=one.data,
            actor=actor,
            org=one.org,
            at=at,
        )
        last[one.stream] = (version + 1, digest)
        made.append(
            DomainEvent(identifier, one.stream, version + 1, one.type, one.data, actor, one.org, at, prev_hash, digest)
        )
    rows = [
        {
            "place": place,
            "id": str(event.id),
            "stream": event.stream,
            "version": event.version,
            "type": event.type,
            "data": dict(event.data),
            "org_id": str(event.org) if event.org else None,
            "prev_hash": f"\\x{event.prev_hash.hex()}",
            "hash": f"\\x{event.hash.hex()}",
        }
        for place, event in enumerate(made)
    ]
    try:
        inserted = await connection.execute(
            """
            INSERT INTO events (id, stream, version, type, data, actor, org_id, at, prev_hash, hash)
            SELECT id, stream, version, type, data, %s, org_id, %s, prev_hash, hash
            FROM jsonb_to_recordset(%s) AS one (place integer, id uuid, stream text, version integer, type text,
                                                data jsonb, org_id uuid, prev_hash bytea, hash bytea)
            ORDER BY place RETURNING id, seq, xid::text::bigint AS xid
            """,
            (actor, at, Jsonb(rows)),  # one text: arrays of texts are escaped one character after the other
        )
        places = {row["id"]: Position(row["xid"], row["seq"]) async for row in inserted}
    except UniqueViolation as error:
        raise ConcurrentChange("Somebody else changed one of these at the same moment: try again.") from error
    await connection.execute("SELECT pg_notify(%s, '')", (CHANNEL,))
    return [replace(event, position=places[event.id]) for event in made]


_COLUMNS = "seq, xid::text::bigint AS xid, id, stream, version, type, data, actor, org_id, at, prev_hash, hash"


async def read_after(connection: Connection, position: Position, limit: int = 500) -> list[DomainEvent]:
    """Return up to ``limit`` events after ``position`` that no running transaction can precede."""
    rows = await connection.execute(
        f"""
        SELECT {_COLUMNS} FROM events
        WHERE (xid, seq) > (%s::text::xid8, %s) AND xid < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY events.xid, seq LIMIT %s
        """,
        (str(position.xid), position.seq, limit),
    )
    return [_event(row) async for row in rows]


async def newest(connection: Connection, limit: int) -> list[DomainEvent]:
    """Return the newest ``limit`` events that no running transaction can precede, in order."""
    rows = await connection.execute(
        f"""
        SELECT {_COLUMNS} FROM events WHERE xid < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY events.xid DESC, seq DESC LIMIT %s
        """,
        (limit,),
    )
    return [_event(row) async for row in rows][::-1]


async def present_position(connection: Connection) -> Position:
    """Return a position such that everything committed later lies after it."""
    row = await (
        await connection.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin")
    ).fetchone()
    assert row is not None
    return Position(row["xmin"], 0)


async def newest_position(connection: Connection) -> Position:
    """Return the position of the newest committed event, for comparing how far a reader has come."""
    row = await (
        await connection.execute("SELECT xid::text::bigint AS xid, seq FROM events ORDER BY xid DESC, seq DESC LIMIT 1")
    ).fetchone()
    return Position(row["xid"], row["seq"]) if row else Position()


async def read_stream(connection: Connection, stream: str) -> list[DomainEvent]:
    """Return all events of one stream in order."""
    rows = await connection.execute(f"SELECT {_COLUMNS} FROM events WHERE stream = %s ORDER BY version", (stream,))
    return [_event(row) async for row in rows]


async def read_event(connection: Connection, identifier: UUID) -> DomainEvent | None:
    row = await (await connection.execute(f"SELECT {_COLUMNS} FROM events WHERE id = %s", (identifier,))).fetchone()
    return _event(row) if row else None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What events are looked for; what is empty leaves it open.

    ``type`` and ``stream`` are whole names, or what stands before their dot or slash: ``invoice`` means all types
    that begin with ``invoice.`` and all streams that begin with ``invoice/``. ``start`` counts in, ``end`` does not.
    ``text`` is looked for in the event's data as it is written in JSON, in capitals or not.
    """

    actor: str = ""
    org: UUID | None = None
    type: str = ""
    stream: str = ""
    start: datetime | None = None
    end: datetime | None = None
    text: str = ""


async def find(
    connection: Connection, wanted: Wanted, before: tuple[datetime, int] | None, limit: int
) -> list[DomainEvent]:
    """Return up to ``limit`` events that fit, the newest first, older than ``before`` (its time and ``seq``)."""
    conditions = ["true"]
    values: dict[str, Any] = {"limit": limit}
    for condition, name, value in (
        ("actor = %(actor)s", "actor", wanted.actor or None),
        ("org_id = %(org)s", "org", wanted.org),
        _named("type", wanted.type, "."),
        _named("stream", wanted.stream, "/"),
        ("at >= %(start)s", "start", wanted.start),
        ("at < %(end)s", "end", wanted.end),
        ("strpos(lower(data::text), lower(%(text)s)) > 0", "text", wanted.text or None),
        ("(at, seq) < (%(before_at)s, %(before_seq)s)", "before_at", before[0] if before else None),
    ):
        if value is not None:
            conditions.append(condition)
            values[name] = value
    if before is not None:
        values["before_seq"] = before[1]
    rows = await connection.execute(
        f"SELECT {_COLUMNS} FROM events WHERE {' AND '.join(conditions)} ORDER BY at DESC, seq DESC LIMIT %(limit)s",
        values,
    )
    return [_event(row) async for row in rows]


def _named(column: str, value: str, separator: str) -> tuple[str, str, str | None]:
    """Return the condition for a whole name, or for the names that begin with a word."""
    first, found, rest = value.partition(separator)
    if found and rest:
        return f"{column} = %({column})s", column, value
    return f"starts_with({column}, %({column})s)", column, f"{first}{separator}" if first else None


async def oldest_after(connection: Connection, position: Position) -> datetime | None:
    """Return when the first event after ``position`` happened, None when there is none: how long a reader is behind."""
    found = await read_after(connection, position, 1)
    return found[0].at if found else None


async def neighbours(connection: Connection, stream: str, version: int) -> dict[int, DomainEvent]:
    """Return the events before and after a version of a stream, by their versions."""
    rows = await connection.execute(
        f"SELECT {_COLUMNS} FROM events WHERE stream = %s AND version IN (%s, %s)", (stream, version - 1, version + 1)
    )
    return {row["version"]: _event(row) async for row in rows}


async def types(connection: Connection) -> list[str]:
    """Return every type that an event has, by name. It hops from one to the next in their index."""
    rows = await connection.execute(
        """
        WITH RECURSIVE known (type) AS (
            SELECT min(type) FROM events
            UNION ALL
            SELECT (SELECT min(type) FROM events WHERE type > known.type) FROM known WHERE known.type IS NOT NULL
        )
        SELECT type FROM known WHERE type IS NOT NULL
        """
    )
    return [row["type"] async for row in rows]


async def verify_chain(connection: Connection, stream: str) -> int | None:
    """Return the version of the first event whose hash does not fit, or None when all do."""
    previous = GENESIS
    for event in await read_stream(connection, stream):
        expected = chain_hash(
            previous,
            id=event.id,
            stream=event.stream,
            version=event.version,
            type=event.type,
            data=event.data,
            actor=event.actor,
            org=event.org,
            at=event.at,
        )
        if event.prev_hash != previous or event.hash != expected:
            return event.version
        previous = event.hash
    return None


async def streams(connection: Connection) -> AsyncIterator[str]:
    """Yield the name of every stream."""
    async for row in await connection.execute("SELECT DISTINCT stream FROM events ORDER BY stream"):
        yield row["stream"]


def _event(row: Mapping[str, Any]) -> DomainEvent:
    return DomainEvent(
        id=row["id"],
        stream=row["stream"],
        version=row["version"],
        type=row["type"],
        data=row["data"],
        actor=row["actor"],
        org=row["org_id"],
        at=row["at"].astimezone(UTC),
        prev_hash=bytes(row["prev_hash"]),
        hash=bytes(row["hash"]),
        position=Position(row["xid"], row["seq"]),
    )

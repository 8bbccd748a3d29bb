"""Projections: tables that only say again what is written elsewhere for good, and so can be made anew from it.

Most are folds of events: their domain appends an event and applies it in the same transaction, with the one function
that a rebuild applies it with too. A rebuild fills temporary tables of the same names, which PostgreSQL finds before
the real ones, and compares; real tables are touched only where they differ. So a rebuild in a running platform costs
nothing but time, and one up to a past moment shows how things stood then.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg import sql

from haat.infra import events
from haat.infra.postgres import Connection
from haat.kernel.events import DomainEvent, Position

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Projection(ABC):
    """Some tables that can be made anew, in the order in which they can be filled."""

    name: str
    tables: tuple[str, ...]

    @abstractmethod
    async def fill(self, connection: Connection, until: datetime | None) -> None:
        """Fill the tables, which are empty, from what happened, up to a time."""


Apply = Callable[[Connection, DomainEvent], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fold(Projection):
    """A projection of events: those of streams of some kinds (``wallet/…``), one after the other.

    ``apply`` writes nothing but the projection's tables, names them without a schema, and decides nothing: the event
    says all there is to say.
    """

    kinds: tuple[str, ...]
    apply: Apply

    async def fill(self, connection: Connection, until: datetime | None) -> None:
        async for event in _past(connection):
            if event.stream.partition("/")[0] in self.kinds and (until is None or event.at <= until):
                await self.apply(connection, event)


@dataclass(frozen=True, slots=True)
class Difference:
    """What a rebuild found in one table: rows that were missing, and rows that should not have been there."""

    table: str
    rows: int
    missing: int
    surplus: int


async def record(connection: Connection, projection: Fold, **event: Any) -> DomainEvent:
    """Append an event (see `haat.infra.events.append`) and apply it, within the caller's transaction."""
    appended = await events.append(connection, **event)
    await projection.apply(connection, appended)
    return appended


async def rebuild(connection: Connection, projections: Iterable[Projection], *, repair: bool) -> list[Difference]:
    """Make projections anew and compare them with what is there; with ``repair`` what is there becomes the same.

    ``connection`` is in a transaction of the tables' owner: nobody else may change what is issued.
    """
    found = []
    for projection in projections:
        await _lock(connection, projection.tables)
        await _fill_aside(connection, projection, None)
        differences = [await _difference(connection, table) for table in projection.tables]
        if repair and any(one.missing or one.surplus for one in differences):
            await _repair(connection, differences)
        found += differences
        await _drop_aside(connection, projection)
    return found


async def past(
    connection: Connection, projection: Projection, at: datetime
) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of each table as they stood at a time, in a fixed order. Nothing that is there is changed."""
    await _fill_aside(connection, projection, at)
    for table in projection.tables:
        rows = await connection.execute(
            sql.SQL("SELECT to_jsonb(one)::text AS row FROM pg_temp.{0} AS one ORDER BY one::text").format(_name(table))
        )
        async for row in rows:
            yield table, json.loads(row["row"], parse_float=Decimal)  # a float would lose paise of large amounts
    await _drop_aside(connection, projection)


_DELETE = """
    DELETE FROM public.{0} WHERE ctid IN (
        SELECT one.ctid FROM public.{0} AS one
        WHERE NOT EXISTS (SELECT FROM pg_temp.{0} AS right_one WHERE right_one::text = one::text))
"""
_INSERT = """
    INSERT INTO public.{0} SELECT * FROM pg_temp.{0} AS one
    WHERE NOT EXISTS (SELECT FROM public.{0} AS present WHERE present::text = one::text)
"""


async def _past(connection: Connection) -> AsyncIterator[DomainEvent]:
    position = Position()
    while batch := await events.read_after(connection, position, _BATCH):
        for event in batch:
            yield event
        position = batch[-1].position


async def _lock(connection: Connection, tables: Sequence[str]) -> None:
    for table in tables:
        await connection.execute(sql.SQL("LOCK TABLE public.{0} IN SHARE ROW EXCLUSIVE MODE").format(_name(table)))


async def _fill_aside(connection: Connection, projection: Projection, until: datetime | None) -> None:
    for table in projection.tables:
        await connection.execute(
            sql.SQL("CREATE TEMPORARY TABLE {0} (LIKE public.{0} INCLUDING ALL) ON COMMIT DROP").format(_name(table))
        )
    await projection.fill(connection, until)


async def _drop_aside(connection: Connection, projection: Projection) -> None:
    for table in projection.tables:
        await connection.execute(sql.SQL("DROP TABLE pg_temp.{0}").format(_name(table)))


async def _difference(connection: Connection, table: str) -> Difference:
    row = await (
        await connection.execute(
            sql.SQL(
                """
                WITH made AS (SELECT one::text AS text FROM pg_temp.{0} AS one),
                     there AS (SELECT one::text AS text FROM public.{0} AS one)
                SELECT (SELECT count(*) FROM made) AS rows,
                       (SELECT count(*) FROM (TABLE made EXCEPT ALL TABLE there) AS rest) AS missing,
                       (SELECT count(*) FROM (TABLE there EXCEPT ALL TABLE made) AS rest) AS surplus
                """
            ).format(_name(table))
        )
    ).fetchone()
    assert row is not None
    return Difference(table, row["rows"], row["missing"], row["surplus"])


async def _repair(connection: Connection, differences: Sequence[Difference]) -> None:
    """Put right tables whose rows nobody may change otherwise; what refers to a row is checked at the end."""
    for one in differences:
        await connection.execute(sql.SQL("ALTER TABLE public.{0} DISABLE TRIGGER USER").format(_name(one.table)))
    await connection.execute("SET CONSTRAINTS ALL DEFERRED")
    for one in reversed(differences):
        if one.surplus:
            await connection.execute(sql.SQL(_DELETE).format(_name(one.table)))
    for one in differences:
        if one.missing:
            await connection.execute(sql.SQL(_INSERT).format(_name(one.table)))
    await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")  # no table is altered while a check waits
    for one in differences:
        await connection.execute(sql.SQL("ALTER TABLE public.{0} ENABLE TRIGGER USER").format(_name(one.table)))


def _name(table: str) -> sql.Identifier:
    return sql.Identifier(table)

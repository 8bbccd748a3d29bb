"""Tables that can be made anew: compared, repaired, and seen as they once were."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from haat.infra.postgres import PLATFORM_SCOPE, Connection
from haat.infra.projections import Fold, past, rebuild, record
from haat.kernel.events import DomainEvent

AT = datetime(2026, 11, 30, 12, tzinfo=UTC)


async def apply(connection: Connection, event: DomainEvent) -> None:
    await connection.execute(
        "INSERT INTO tallies (name, count) VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET count = excluded.count",
        (event.stream, event.data["count"]),
    )


TALLIES = Fold("tallies", ("tallies",), ("tally",), apply)


@asynccontextmanager
async def owner(database: Any) -> AsyncIterator[Connection]:
    connection: Connection
    async with await AsyncConnection.connect(database.owner_dsn, row_factory=dict_row) as connection:
        yield connection


@pytest.fixture
async def tallies(database: Any) -> AsyncIterator[Any]:
    """A database with a table of tallies that nobody may change, and what has happened to three of them."""
    async with owner(database) as connection:
        await connection.execute(
            """
            CREATE TABLE tallies (name text PRIMARY KEY, count numeric NOT NULL);
            CREATE TRIGGER never_edited BEFORE DELETE ON tallies FOR EACH ROW EXECUTE FUNCTION refuse_change();
            """
        )
    async with database.app.transaction(PLATFORM_SCOPE) as connection:
        for day, (stream, count) in enumerate((("tally/a", 1), ("tally/b", 1), ("tally/a", 2), ("tally/c", 9))):
            event: dict[str, Any] = {"stream": stream, "type": "t", "data": {"count": count}, "actor": "p", "org": None}
            await record(connection, TALLIES, **event, at=AT + timedelta(days=day))
    yield database
    async with owner(database) as connection:
        await connection.execute("DROP TABLE tallies")


async def rows(database: Any) -> list[tuple[str, int]]:
    async with database.app.transaction(PLATFORM_SCOPE) as connection:
        found = await (await connection.execute("SELECT name, count FROM tallies ORDER BY name")).fetchall()
    return [(row["name"], int(row["count"])) for row in found]


ALL = [("tally/a", 2), ("tally/b", 1), ("tally/c", 9)]


async def test_what_is_right_is_left_alone(tallies: Any) -> None:
    async with owner(tallies) as connection:
        (found,) = await rebuild(connection, [TALLIES], repair=True)
    assert (found.rows, found.missing, found.surplus) == (3, 0, 0)
    assert await rows(tallies) == ALL


@pytest.mark.parametrize(
    ("damage", "missing", "surplus"),
    [
        ("TRUNCATE tallies", 3, 0),
        ("UPDATE tallies SET count = 5 WHERE name = 'tally/b'", 1, 1),
        ("UPDATE tallies SET count = 2.0 WHERE name = 'tally/a'", 1, 1),
        ("INSERT INTO tallies VALUES ('tally/x', 1)", 0, 1),
    ],
)
async def test_what_differs_is_found_and_repaired(tallies: Any, damage: str, missing: int, surplus: int) -> None:
    async with owner(tallies) as connection:
        await connection.execute(damage)
    async with owner(tallies) as connection:
        for _ in range(2):
            (found,) = await rebuild(connection, [TALLIES], repair=False)
            assert (found.missing, found.surplus) == (missing, surplus)
        await rebuild(connection, [TALLIES], repair=True)
        (found,) = await rebuild(connection, [TALLIES], repair=False)
        assert (found.missing, found.surplus) == (0, 0)
    assert await rows(tallies) == ALL


async def test_a_past_time_is_seen_without_changing_anything(tallies: Any) -> None:
    async with owner(tallies) as connection:
        then = [row async for _, row in past(connection, TALLIES, AT + timedelta(days=1, hours=1))]
    assert then == [{"name": "tally/a", "count": 1}, {"name": "tally/b", "count": 1}]
    assert await rows(tallies) == ALL

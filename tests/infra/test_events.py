"""The event log: a chain that shows tampering, one writer a stream, and no event skipped."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from haat.infra import events
from haat.infra.postgres import PLATFORM_SCOPE, Connection
from haat.kernel.errors import ConcurrentChange
from haat.kernel.events import GENESIS, DomainEvent, Position

AT = datetime(2026, 11, 21, 6, 30, tzinfo=UTC)


async def append(connection: Connection, stream: str, **more: Any) -> DomainEvent:
    given = {"type": "user.created", "data": {"name": "हाट", "n": 1}, "actor": "platform", "org": None, "at": AT}
    return await events.append(connection, stream=stream, **(given | more))


async def test_versions_count_up_and_each_event_holds_the_hash_before_it(database: Any) -> None:
    async with database.app.transaction(PLATFORM_SCOPE) as connection:
        first = await append(connection, "user/1")
        second = await append(connection, "user/1", expected_version=1)
    assert (first.version, second.version) == (1, 2)
    assert (first.prev_hash, second.prev_hash) == (GENESIS, first.hash)


async def test_an_event_reads_back_as_it_was_written(database: Any) -> None:
    async with database.app.transaction(PLATFORM_SCOPE) as connection:
        written = await append(connection, "user/1")
    async with database.app.transaction(PLATFORM_SCOPE) as connection:
        assert await events.read_stream(connection, "user/1") == [written]
        assert await events.read_event(connection, written.id) == written
        assert [name async for name in events.streams(connection)] == ["user/1"]


async def test_an_untouched_chain_verifies(database: Any) -> None:
    async with database.app.transaction(PLATFORM_SCOPE) as connection:
        for _ in range(3):
            await append(connection, "user/1")
        assert await events.verify_chain(connection, "user/1") is None


@pytest.mark.parametrize(
    "tampering",
    [
        """UPDATE events SET data = '{"name": "other"}' WHERE version = 2""",
        "UPDATE events SET actor = 'user/9' WHERE version = 2",
        "UPDATE events SET hash = decode(repeat('00', 32), 'hex') WHERE version = 2",
        "DELETE FROM events WHERE version = 1",
    ],
)
async def test_a_rewritten_past_shows_at_the_event_after_it(database: Any, tampering: str) -> None:
    async with database.app.transaction(PLATFORM_SCOPE) as connection:
        for _ in range(3):
            await append(connection, "user/1")
    with psycopg.connect(database.owner_dsn) as owner:
        owner.execute(tampering)
    async with database.app.transaction(PLATFORM_SCOPE) as connection:
        assert await events.verify_chain(connection, "user/1") == 2


@pytest.mark.parametrize("change", ["UPDATE events SET actor = 'x'", "DELETE FROM events"])
async def test_the_application_can_not_change_the_past(database: Any, change: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with database.app.transaction(PLATFORM_SCOPE) as connection:
            await connection.execute(change)


async def test_appending_to_a_stream_that_moved_on_is_refused(database: Any) -> None:
    async with database.app.transaction(PLATFORM_SCOPE) as connection:
        await append(connection, "user/1")
        with pytest.raises(ConcurrentChange):
            await append(connection, "user/1", expected_version=0)


async def test_of_two_concurrent_appends_to_one_stream_the_second_is_refused(database: Any) -> None:
    async def second() -> None:
        async with database.app.transaction(PLATFORM_SCOPE) as connection:
            await append(connection, "user/1")

    async with database.app.transaction(PLATFORM_SCOPE) as connection:
        await append(connection, "user/1")
        waiting = asyncio.create_task(second())
        await until_somebody_waits_for_a_lock(database.owner_dsn)
    with pytest.raises(ConcurrentChange):
        await waiting


async def until_somebody_waits_for_a_lock(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as owner:
        async with asyncio.timeout(5):
            while True:
                waiting = await owner.execute(
                    "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
                if await waiting.fetchone():
                    return
                await asyncio.sleep(0.005)


async def test_a_transaction_that_commits_late_is_not_skipped(database: Any) -> None:
    async with database.app.transaction(PLATFORM_SCOPE) as reader:
        position = await events.present_position(reader)
    async with database.app.transaction(PLATFORM_SCOPE) as slow:
        await append(slow, "user/slow")
        async with database.app.transaction(PLATFORM_SCOPE) as quick:
            await append(quick, "user/quick")
        async with database.app.transaction(PLATFORM_SCOPE) as reader:
            assert await events.read_after(reader, position) == []
    async with database.app.transaction(PLATFORM_SCOPE) as reader:
        read = await events.read_after(reader, position)
    assert [event.stream for event in read] == ["user/slow", "user/quick"]


async def test_a_later_sequence_in_an_earlier_transaction_is_read_in_commit_safe_order(database: Any) -> None:
    async with database.app.transaction(PLATFORM_SCOPE) as early:
        await early.execute("SELECT pg_current_xact_id()")
        async with database.app.transaction(PLATFORM_SCOPE) as late:
            await append(late, "user/late")
        await append(early, "user/early")
    async with database.app.transaction(PLATFORM_SCOPE) as reader:
        read = await events.read_after(reader, Position())
    assert [event.stream for event in read] == ["user/early", "user/late"]
    assert read[0].position.seq > read[1].position.seq


async def test_a_reader_goes_on_where_it_stopped(database: Any) -> None:
    for number in range(5):
        async with database.app.transaction(PLATFORM_SCOPE) as connection:
            await append(connection, f"user/{number}")
    seen: list[str] = []
    position = Position()
    async with database.app.transaction(PLATFORM_SCOPE) as reader:
        while batch := await events.read_after(reader, position, limit=2):
            seen += [event.stream for event in batch]
            position = Position.parse(str(batch[-1].position))
    assert seen == [f"user/{number}" for number in range(5)]


async def test_the_present_position_lies_after_what_is_committed(database: Any) -> None:
    async with database.app.transaction(PLATFORM_SCOPE) as connection:
        await append(connection, "user/before")
    async with database.app.transaction(PLATFORM_SCOPE) as reader:
        position = await events.present_position(reader)
    async with database.app.transaction(PLATFORM_SCOPE) as connection:
        await append(connection, "user/after")
    async with database.app.transaction(PLATFORM_SCOPE) as reader:
        assert [event.stream for event in await events.read_after(reader, position)] == ["user/after"]


async def test_readers_are_woken_when_the_change_commits(database: Any) -> None:
    async with await psycopg.AsyncConnection.connect(database.owner_dsn, autocommit=True) as listener:
        await listener.execute(f"LISTEN {events.CHANNEL}")
        async with database.app.transaction(PLATFORM_SCOPE) as connection:
            await append(connection, "user/1")
        woken = [notice.channel async for notice in listener.notifies(timeout=5, stop_after=1)]
    assert woken == [events.CHANNEL]

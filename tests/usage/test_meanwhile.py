"""While the database is busy, work is done; nothing is lost by it, and what fails in it fails the whole."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bazaar import Bazaar
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.clock import SetClock
from haat.usage.meanwhile import Writer, beside


@pytest.fixture
def bazaar(database: Any, clock: SetClock) -> Bazaar:
    return Bazaar(database.service, clock)


class Work:
    """So many pieces of work, then none; a broken one fails at last."""

    def __init__(self, pieces: int, broken: bool = False) -> None:
        self.left, self.broken = pieces, broken

    def __call__(self) -> bool:
        if not self.left and self.broken:
            raise OSError("the journal can't be read")
        self.left = max(0, self.left - 1)
        return self.left > 0


async def copied(bazaar: Bazaar, work: Work, rows: int) -> int:
    async with bazaar.service_db.transaction(PLATFORM_SCOPE) as connection:
        await connection.execute("CREATE TEMPORARY TABLE lines (line text) ON COMMIT DROP")
        async with (
            connection.cursor() as cursor,
            cursor.copy("COPY lines FROM STDIN", writer=Writer(cursor, work)) as to,
        ):
            for _ in range(rows):
                await to.write(b"x" * 100_000 + b"\n")
        cursor = await connection.execute("SELECT count(*) AS lines, sum(length(line)) AS size FROM lines")
        found = await cursor.fetchone()
        assert found is not None and found["size"] == found["lines"] * 100_000
        return int(found["lines"])


async def test_a_copy_works_while_its_socket_is_full_and_loses_nothing(bazaar: Bazaar) -> None:
    work = Work(20)
    assert await copied(bazaar, work, 100) == 100
    assert work.left < 20


async def test_what_fails_in_the_work_fails_the_copy(bazaar: Bazaar) -> None:
    with pytest.raises(OSError, match="the journal"):
        await copied(bazaar, Work(0, broken=True), 100)


async def test_work_goes_on_beside_what_is_awaited_and_its_failure_is_told() -> None:
    work = Work(5)
    async with beside(work):
        for _ in range(6):
            await asyncio.sleep(0)
    assert work.left == 0
    with pytest.raises(OSError, match="the journal"):
        async with beside(Work(0, broken=True)):
            for _ in range(3):
                await asyncio.sleep(0)


async def test_what_the_block_raises_ends_the_work() -> None:
    work = Work(1 << 30)
    with pytest.raises(ValueError, match="the block"):
        async with beside(work):
            await asyncio.sleep(0)
            raise ValueError("the block")
    left = work.left
    await asyncio.sleep(0)
    assert work.left == left

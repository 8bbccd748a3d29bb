"""What keeps the catalog findable and in order by itself, on a street where calls were made."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg

from haat.app import SCHEDULES, TASKS, Platform
from haat.catalog.jobs import keep_index, rank
from haat.kernel.clock import Period
from haat.kernel.permissions import PLATFORM

from .street import Street


class _Job:
    def __init__(self) -> None:
        self.notes: list[str] = []

    async def report(self, progress: float, note: str = "") -> None:
        self.notes.append(note)


async def test_listings_that_are_called_come_first_and_so_do_their_words(street: Street, platform: Platform) -> None:
    before = (await platform.discovery.search()).items
    job: Any = _Job()
    await rank(platform, job)
    assert job.notes[0].split()[0] != "0"
    called = {one.service_id for one in await _used(platform)}
    after = [listing.id in called for listing in (await platform.discovery.search()).items]
    assert after == sorted(after, reverse=True) and any(after) and not all(after)
    assert {one.id for one in before} == {one.id for one in (await platform.discovery.search()).items}
    await rank(platform, job)
    assert job.notes[1] == "0 listings and 0 words moved"


async def _used(platform: Platform) -> Any:
    now = platform.clock.now()
    return await platform.usage.summary(PLATFORM, Period(now - timedelta(days=7), now, ""))


async def test_what_is_not_indexed_is_by_the_next_minute(street: Street, platform: Platform, database: Any) -> None:
    count = len((await platform.discovery.search()).items)
    with psycopg.connect(database.owner_dsn) as connection:
        connection.execute("DELETE FROM listing_search")
    assert (await platform.discovery.search()).items == []
    job: Any = _Job()
    await keep_index(platform, job)
    assert job.notes == [f"{count} listings indexed"]
    assert len((await platform.discovery.search()).items) == count


def test_both_run_by_themselves() -> None:
    assert {"catalog.keep_index", "catalog.rank"} <= {one.task for one in SCHEDULES} & {one.name for one in TASKS}

"""How long a visitor waits for what the catalog keeps in the process."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from haat.catalog.search_store import Counts
from haat.catalog.shelves import ClosedShelves, Part
from haat.catalog.vocabulary import Vocabulary
from haat.infra.postgres import tenant

ORG = tenant(uuid4())


class Hall:
    """Closed shelves whose readings take as long as a test says, on a clock of its own; the store isn't asked."""

    def __init__(self, took: float) -> None:
        self.now, self.took, self.readings = 0.0, took, 0
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.shelves = ClosedShelves(None, lambda: self.now)  # type: ignore[arg-type]  # nothing is read from it
        self.shelves._read = self._read  # type: ignore[method-assign]

    async def _read(self, *_: Any, **__: Any) -> Part:
        await self.go_on.wait()
        self.readings += 1
        return Part(Vocabulary(), Counts(), self.took, self.now + 50 * self.took)

    async def waits(self) -> bool:
        """Ask while no reading gets on, and tell whether somebody has to wait for one."""
        self.go_on.clear()
        asking = asyncio.create_task(self.shelves.of(ORG))
        done, _ = await asyncio.wait([asking], timeout=0.05)
        self.go_on.set()
        await asking
        await asyncio.sleep(0)
        return not done


@pytest.mark.parametrize(
    ("took", "later", "waits"),
    [
        (0.01, 0.4, False),  # not due yet
        (0.01, 0.6, True),  # read at once: it takes no time
        (0.2, 9.9, False),
        (0.2, 10.1, False),  # a large one is read behind the visitor
        (0.2, 39.9, False),
        (0.2, 40.1, True),  # unless nobody has come for long
    ],
)
async def test_who_comes_when_a_part_is_due_waits_for_a_quick_reading_and_not_for_a_long_one(
    took: float, later: float, waits: bool
) -> None:
    hall = Hall(took)
    assert await hall.waits()  # there is nothing to show before the first reading
    hall.now += later
    assert await hall.waits() is waits
    await asyncio.sleep(0.01)
    assert hall.readings == (2 if later < 50 * took else 4)


async def test_a_reading_behind_a_visitor_that_fails_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    hall = Hall(0.2)
    await hall.shelves.of(ORG)
    hall.now, read = 11.0, hall.shelves._read

    async def fail(*_: Any, **__: Any) -> Part:
        raise OSError("no database")

    hall.shelves._read = fail  # type: ignore[method-assign]
    await hall.shelves.of(ORG)
    await asyncio.sleep(0.01)
    assert "could not be read behind a visitor: no database" in caplog.text
    hall.shelves._read = read  # type: ignore[method-assign]
    await hall.shelves.of(ORG)
    await asyncio.sleep(0.01)
    assert hall.readings == 4

"""The operator's board of service levels, on a real database."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from haat.kernel.errors import InvalidRequest, PermissionDenied
from haat.kernel.permissions import PLATFORM, Actor, Role
from haat.sla.board import Board
from haat.sla.model import ObjectiveDraft

from .rig import Level


@pytest.fixture
def board(level: Level) -> Board:
    return Board(level.db, level.clock)


async def test_what_promises_something_stands_there_with_what_was_measured(level: Level, board: Board) -> None:
    kept, silent = await level.bazaar.service("kept"), await level.bazaar.service("silent")
    await level.bazaar.service("mute")  # promises nothing
    for service in (kept, silent):
        await level.sla.promise(PLATFORM, service.id, ObjectiveDraft(availability=Decimal("99")))
    level.clock.advance(minutes=15)
    one = await level.bazaar.subscribe(await level.bazaar.organisation(), kept)
    await level.use(one, 400, failed=1, over=timedelta(minutes=10))
    await level.watch.gather()
    page = await board.page(PLATFORM)
    found = {place.service_id: place for place in page.items}
    assert set(found) == {kept.id, silent.id} and page.next is None
    place = found[kept.id]
    assert (place.promised, place.measured, place.source) == (Decimal("99"), Decimal("99.750"), "traffic")
    assert place.budget is not None and (place.budget.used, place.budget.spent) == (1, Decimal("25.0"))
    assert (place.alerts, place.suspended_since, place.breach) == ([], None, None)
    assert found[silent.id].measured is None and found[silent.id].budget is None
    assert await board.trouble(PLATFORM) == []


async def test_pages_follow_the_addresses_and_miss_none(level: Level, board: Board) -> None:
    services = [await level.bazaar.service(f"s-{number}") for number in range(5)]
    for service in services:
        await level.sla.promise(PLATFORM, service.id, ObjectiveDraft(availability=Decimal("99")))
    level.clock.advance(minutes=15)
    paths, cursor = [], None
    while True:
        page = await board.page(PLATFORM, cursor=cursor, limit=2)
        paths += [place.path for place in page.items]
        if (cursor := page.next) is None:
            break
    assert len(paths) == 5 and paths == sorted(paths)
    with pytest.raises(InvalidRequest):
        await board.page(PLATFORM, cursor="bmljaHQ")


async def test_the_gravest_trouble_is_first(level: Level, board: Board) -> None:
    """One service in maintenance, one that fails more than it may, one that is suspended for its uptime."""
    resting, burning, down = [await level.bazaar.service(slug) for slug in ("resting", "burning", "down")]
    for service in (resting, burning, down):
        await level.sla.promise(PLATFORM, service.id, ObjectiveDraft(availability=Decimal("99.9"), probe="none"))
    level.clock.advance(minutes=15)
    now = level.clock.now()
    start = (now + timedelta(days=3)).replace(minute=0, second=0, microsecond=0)
    await level.sla.announce(PLATFORM, resting.id, start, start + timedelta(hours=2), "Moving house")
    level.clock.advance(seconds=(start - now).total_seconds() + 60)
    for service, failed in ((burning, 30), (down, 400)):
        for _ in range(2):
            one = await level.bazaar.subscribe(await level.bazaar.organisation(), service)
            await level.use(one, 400, failed=failed, over=timedelta(minutes=50))
    await level.watch.gather()
    await level.watch.review()
    places = await board.trouble(PLATFORM)
    assert [place.service_id for place in places] == [down.id, burning.id, resting.id]
    assert places[0].suspended_since is not None and places[0].status == "suspended"
    assert "availability_fast" in places[1].alerts
    assert places[2].maintenance_until == start + timedelta(hours=2)


async def test_it_is_the_operators_alone(level: Level, board: Board) -> None:
    service = await level.bazaar.service()
    provider = Actor(None, service.provider, Role.PARTNER_ADMIN)
    for ask in (board.trouble(provider), board.page(provider)):
        with pytest.raises(PermissionDenied):
            await ask

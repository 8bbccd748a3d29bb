"""When a key was last used: noted of what came in, whenever it came, and never earlier than it was."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from bazaar import Bazaar, Subscription
from haat.kernel.clock import SetClock
from haat.kernel.ids import new_id
from haat.usage.keys import LOOK_BACK
from haat.usage.shipper import Shipper


@pytest.fixture
def bazaar(database: Any, clock: SetClock) -> Bazaar:
    return Bazaar(database.service, clock)


async def a_key(bazaar: Bazaar, slug: str = "speak") -> tuple[Subscription, UUID]:
    subscription = await bazaar.subscribe(await bazaar.organisation(), await bazaar.service(slug))
    key = new_id()
    await bazaar.run(
        """INSERT INTO credentials (id, org_id, application_id, name, scheme, prefix, last_four, key_hash, created_at)
           VALUES (%s, %s, %s, 'server', 'haat', 'haat_live_ab', 'wxyz', %s, now())""",
        *(key, subscription.org, subscription.application, key.bytes),
    )
    return subscription, key


async def last_used(bazaar: Bazaar, key: UUID) -> Any:
    (row,) = await bazaar.rows("SELECT last_used_at FROM credentials WHERE id = %s", key)
    return row["last_used_at"]


async def test_the_newest_call_of_a_key_is_noted(bazaar: Bazaar, clock: SetClock, tmp_path: Path) -> None:
    subscription, key = await a_key(bazaar)
    _, other = await a_key(bazaar, "listen")
    shipper = Shipper(bazaar.service_db, tmp_path, clock)
    await shipper.note_keys()
    assert await last_used(bazaar, key) is None

    now = clock.now().replace(microsecond=0)
    times = [now - timedelta(minutes=3), now, now - timedelta(minutes=1)]
    await bazaar.take([with_key(bazaar, subscription, key, at) for at in times])
    await shipper.note_keys()
    assert await last_used(bazaar, key) == now
    assert await last_used(bazaar, other) is None

    await bazaar.take([with_key(bazaar, subscription, key, now - timedelta(days=2))])  # it came late
    await shipper.note_keys()
    assert await last_used(bazaar, key) == now


async def test_a_shipper_that_begins_looks_at_what_the_one_before_may_have_left(
    bazaar: Bazaar, clock: SetClock, tmp_path: Path
) -> None:
    subscription, key = await a_key(bazaar)
    forgotten = clock.now().replace(microsecond=0)
    await bazaar.take([with_key(bazaar, subscription, key, forgotten)])
    clock.advance(seconds=LOOK_BACK.total_seconds() / 2)
    await Shipper(bazaar.service_db, tmp_path, clock).note_keys()
    assert await last_used(bazaar, key) == forgotten


def with_key(bazaar: Bazaar, subscription: Subscription, key: UUID, at: Any) -> Any:
    event = bazaar.event(subscription, at=at)
    event.credential = str(key)
    return event

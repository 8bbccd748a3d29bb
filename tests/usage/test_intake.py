"""What goes into the usage store counts once, whatever order and however often it comes."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import psycopg
import pytest

from bazaar import Bazaar, Subscription, consumer, partner
from haat.infra.postgres import PLATFORM_SCOPE, PUBLIC, tenant
from haat.kernel.clock import SetClock
from haat.kernel.errors import NotFound
from haat.kernel.permissions import PLATFORM
from haat.usage import intake
from haat.usage.event import Outcome, UsageEvent
from haat.usage.model import UNITS, Pseudonyms, histogram_of
from haat.usage.service import Usage
from haat.usage.sorting import Sorting


@pytest.fixture
def bazaar(database: Any, clock: SetClock) -> Bazaar:
    return Bazaar(database.service, clock)


@pytest.fixture
def usage(database: Any, clock: SetClock) -> Usage:
    return Usage(database.app, clock, Pseudonyms(bytes(32)))


async def subscriptions(bazaar: Bazaar) -> list[Subscription]:
    services = [await bazaar.service("speak"), await bazaar.service("read", unit="pages", provider="akshara")]
    orgs = [await bazaar.organisation("One"), await bazaar.organisation("Two", zone="Asia/Kathmandu")]
    return [await bazaar.subscribe(org, service) for org in orgs for service in services]


def some_calls(bazaar: Bazaar, chosen: list[Subscription], number: int) -> list[UsageEvent]:
    chance = bazaar.chance
    return [
        bazaar.event(
            chance.choice(chosen),
            str(chance.randint(0, 500)),
            at=bazaar.clock.now() - timedelta(minutes=chance.randint(0, 6000)),
            outcome=chance.choice(list(Outcome)),
            status=chance.choice([200, 200, 200, 404, 429, 502]),
        )
        for _ in range(number)
    ]


async def test_random_duplicates_reorders_and_replays_count_each_call_once(bazaar: Bazaar) -> None:
    events = some_calls(bazaar, await subscriptions(bazaar), 400)
    chance = random.Random(3)
    stream = [*events, *chance.choices(events, k=300)]
    chance.shuffle(stream)
    batches = [stream[at : at + 90] for at in range(0, len(stream), 90)]
    sent = [*batches, *chance.sample(batches, 4)]
    taken = [await bazaar.take(batch) for batch in sent]
    assert sum(one.rows for one in taken) == 400
    assert [one.rows + one.duplicates for one in taken] == [len(batch) for batch in sent]
    stored = await bazaar.rows("SELECT id::text FROM usage ORDER BY id")
    assert [row["id"] for row in stored] == sorted(event.id for event in events)
    assert [one.batch for one in taken] == list(range(1, len(taken) + 1))


async def test_rollups_equal_a_naive_grouping_of_the_rows(bazaar: Bazaar) -> None:
    chosen = await subscriptions(bazaar)
    events = some_calls(bazaar, chosen, 500)
    for at in range(0, 500, 60):
        await bazaar.take([*events[at : at + 60], *events[max(0, at - 20) : at]])
    zones = {str(row["id"]): row["zone"] for row in await bazaar.rows("SELECT id, zone FROM organisations")}
    expected: dict[tuple[Any, ...], Counter[int]] = defaultdict(Counter)
    sums: dict[tuple[Any, ...], dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    for row in await bazaar.rows("SELECT *, latency_bucket(total_us) AS bucket FROM usage"):
        local = row["at"].astimezone(ZoneInfo(zones[str(row["org_id"])]))
        key = (
            local.replace(minute=0, second=0, microsecond=0),
            row["org_id"],
            row["service_id"],
            row["application_id"],
            row["status"] // 100,
            row["outcome"],
        )
        expected[key][row["bucket"]] += 1
        for unit in UNITS:
            sums[key][unit] += row[unit] or 0
        sums[key]["latency_us"] += row["total_us"]
    rolled = await bazaar.rows("SELECT *, numeric_send(latency) AS latency FROM usage_hourly")
    assert len(rolled) == len(expected)
    for row in rolled:
        key = (
            row["hour"].astimezone(ZoneInfo(zones[str(row["org_id"])])),
            row["org_id"],
            row["service_id"],
            row["application_id"],
            row["status_class"],
            row["outcome"],
        )
        assert histogram_of(row["latency"]) == dict(expected[key])
        assert row["calls"] == expected[key].total()
        for name in (*UNITS, "latency_us"):
            assert row[name] == sums[key][name]


async def test_a_call_outside_the_bounds_of_the_clock_is_set_aside_and_can_be_released(
    bazaar: Bazaar, usage: Usage, clock: SetClock
) -> None:
    subscription = (await subscriptions(bazaar))[0]
    future = bazaar.event(subscription, at=clock.now() + timedelta(minutes=6))
    ancient = bazaar.event(subscription, at=clock.now() - timedelta(days=36))
    fine = bazaar.event(subscription, at=clock.now() - timedelta(days=34))
    taken = await bazaar.take([future, ancient, fine])
    assert (taken.rows, taken.quarantined) == (1, 2)
    again = await bazaar.take([fine])
    assert (again.rows, again.duplicates) == (0, 1)
    aside = await usage.quarantined(PLATFORM)
    assert {one.event["id"] for one in aside if one.event} == {future.id, ancient.id}
    released = await usage.release(PLATFORM, [one.id for one in aside])
    assert released is not None and released.rows == 2
    assert await usage.quarantined(PLATFORM) == []
    assert len(await bazaar.rows("SELECT id FROM usage")) == 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"units": {"characters": "-1"}}, "quantity"),
        ({"units": {"characters": "NaN"}}, "quantity"),
        ({"units": {"characters": "1e30"}}, "quantity"),
        ({"units": {"characters": "many"}}, "not a number"),
        ({"org": "somebody"}, "not a UUID"),
        ({"id": "0b2f8c3a-1d7e-4f60-9a51-1f2e3d4c5b6a"}, "UUIDv7"),
        ({"at": 0}, "five minutes apart"),
        ({"id": "ffffffff-ffff-7000-8000-000000000000"}, "thousands of years"),
        ({"id": "tomorrow"}, "not a UUID"),
    ],
)
async def test_what_cannot_be_counted_is_set_aside_with_its_reason_and_stops_nobody(
    bazaar: Bazaar, usage: Usage, change: dict[str, Any], reason: str
) -> None:
    subscription = (await subscriptions(bazaar))[0]
    bad, good = bazaar.event(subscription), bazaar.event(subscription)
    for name, value in change.items():
        setattr(bad, name, value)
    taken = await bazaar.take([bad, good])
    assert (taken.rows, taken.quarantined) == (1, 1)
    (aside,) = await usage.quarantined(PLATFORM)
    assert reason in aside.reason


async def test_what_only_the_database_refuses_is_found_among_the_good_ones(bazaar: Bazaar, usage: Usage) -> None:
    subscription = (await subscriptions(bazaar))[0]
    lost = await bazaar.subscribe(await bazaar.organisation(zone="Nowhere/Else"), subscription.service)
    events = [bazaar.event(subscription) for _ in range(9)]
    events[4] = bazaar.event(lost)
    events[6].user = "nul\0byte"
    taken = await bazaar.take(events)
    assert (taken.rows, taken.quarantined) == (8, 1)
    (aside,) = await usage.quarantined(PLATFORM)
    assert "Nowhere" in aside.reason and aside.event and aside.event["id"] == events[4].id
    assert "nul\ufffdbyte" in [row["end_user"] for row in await bazaar.rows("SELECT end_user FROM usage")]


async def test_a_batch_number_is_never_visible_before_a_smaller_one(bazaar: Bazaar, database: Any) -> None:
    subscription = (await subscriptions(bazaar))[0]
    first, second = bazaar.event(subscription), bazaar.event(subscription)
    async with database.service.transaction(PLATFORM_SCOPE) as connection:
        await intake.take(connection, [intake.Record(first, "a", 1, 1)], bazaar.clock.now())
        async with database.service.transaction(PLATFORM_SCOPE) as other:
            await other.execute("SET LOCAL lock_timeout = '50ms'")
            with pytest.raises(Exception, match="lock timeout"):
                await intake.take(other, [intake.Record(second, "b", 1, 1)], bazaar.clock.now())


async def test_a_tenant_sees_its_own_calls_and_a_provider_those_of_its_services(bazaar: Bazaar, database: Any) -> None:
    chosen = await subscriptions(bazaar)
    await bazaar.take([bazaar.event(subscription) for subscription in chosen for _ in range(3)])

    async def seen(scope: Any, table: str) -> int:
        async with database.app.transaction(scope) as connection:
            row = await (await connection.execute(f"SELECT count(*) AS n FROM {table}")).fetchone()
            return int(row["n"])

    for table, each in (("usage", 3), ("usage_hourly", 1)):
        assert await seen(PUBLIC, table) == 0
        assert await seen(tenant(chosen[0].org), table) == 2 * each
        assert await seen(tenant(chosen[0].service.org), table) == 2 * each
        assert await seen(PLATFORM_SCOPE, table) == 4 * each
    assert await seen(tenant(chosen[0].org), "usage_quarantine") == 0
    partition = (await bazaar.rows("SELECT relname FROM pg_class WHERE relname ~ '^usage_2026' AND relkind = 'r'"))[0]
    with pytest.raises(Exception, match="permission denied"):
        await seen(PLATFORM_SCOPE, partition["relname"])


async def test_usage_rows_are_never_edited(bazaar: Bazaar, database: Any) -> None:
    await bazaar.take([bazaar.event((await subscriptions(bazaar))[0])])
    for statement in ("UPDATE usage SET plan = 'free'", "DELETE FROM usage"):
        with pytest.raises(Exception, match="permission denied"):
            await bazaar.run(statement)


async def test_another_tenants_call_is_not_found(bazaar: Bazaar, usage: Usage) -> None:
    chosen = await subscriptions(bazaar)
    event = bazaar.event(chosen[0], user="asha", tags={"team": "ops"})
    await bazaar.take([event])
    story = await usage.call(consumer(chosen[0].org), request_id(event))
    assert story.call["end_user"] == "asha" and story.quantity == 10 and story.list_charge == Decimal("0.50")
    with pytest.raises(NotFound):
        await usage.call(consumer(chosen[2].org), request_id(event))
    seen = await usage.call(partner(chosen[0].service.org), request_id(event))
    assert "end_user" not in seen.call and "org_id" not in seen.call
    assert seen.call["customer"].startswith("customer-") and seen.invoice is None
    with pytest.raises(NotFound):
        await usage.call(partner(chosen[1].service.org), request_id(event))


async def test_what_came_out_of_the_cache_is_kept_beside_the_whole_quantity(bazaar: Bazaar, usage: Usage) -> None:
    subscription = (await subscriptions(bazaar))[0]
    event = bazaar.event(subscription, "10", cache="partial", cached_units={"characters": "4.5"}, cached_share="0.2")
    await bazaar.take([event])
    story = await usage.call(consumer(subscription.org), request_id(event))
    assert (story.quantity, story.cached_quantity, story.cached_share) == (10, Decimal("4.5"), Decimal("0.2"))
    assert story.list_charge == Decimal("0.32")  # 5.5 × 0.05 + 4.5 × 0.05 × 0.2


async def take_new(bazaar: Bazaar, events: list[UsageEvent], batch: int = 1, *, usual: bool = False) -> intake.Taken:
    """Take events in by the short way, as the shipper does when it reads on."""
    now = bazaar.clock.now()
    records = [intake.Record(event, "short", 1, place) for place, event in enumerate(events)]
    found = Sorting(batch, int(now.timestamp() * 1000), usual=usual)
    async with bazaar.service_db.transaction(PLATFORM_SCOPE) as connection:
        await intake.ensure_partition(connection, intake.month_start(now))
        return await intake.take_new(connection, found, (found.data([one]) for one in records), now, lambda: False)


def unusual_calls(bazaar: Bazaar, subscription: Any) -> list[UsageEvent]:
    """One call for each of the columns in which most calls say nothing."""
    another = str(subscription.org)
    said: list[dict[str, Any]] = [
        *({"user": "u-1"}, {"tags": {"a": "b"}}, {"caller_request_id": "mine"}, {"variant": "b"}),
        *({"raw_usage": '{"tokens": 1}'}, {"units": {"syllables": "2"}}, {"executed_by": another}),
        *({"trace": "00-1-2-01"}, {"mode": "test"}, {"mode": "shadow"}, {"rollout": another}, {"arm": "candidate"}),
        *({"agreed": True}, {"agreed": False}, {"cache": "hit", "cached_share": "0.5"}, {"cache": "miss"}),
    ]
    return [msgspec.structs.replace(bazaar.event(subscription), **one) for one in said]


@pytest.mark.parametrize("usual", [True, False])
@pytest.mark.parametrize("kinds", ["both", "usual", "unusual"])
async def test_the_short_way_stores_what_the_long_way_stores(
    bazaar: Bazaar, database: Any, usual: bool, kinds: str
) -> None:
    chosen = await subscriptions(bazaar)
    events, bad = some_calls(bazaar, chosen, 300) if kinds != "unusual" else [], bazaar.event(chosen[0], "-1")
    events += unusual_calls(bazaar, chosen[1]) if kinds != "usual" else []
    random.Random(7).shuffle(events)
    taken = await take_new(bazaar, [*events, bad], usual=usual)
    assert taken == intake.Taken(1, len(events), 0, 1)
    short = [await bazaar.rows(f"SELECT * FROM {table} ORDER BY {table}") for table in ("usage", "usage_hourly")]
    with psycopg.connect(database.owner_dsn) as owner:
        owner.execute("TRUNCATE usage, usage_hourly, market_hourly, usage_batches")
    await bazaar.take(events)
    assert [
        await bazaar.rows(f"SELECT * FROM {table} ORDER BY {table}") for table in ("usage", "usage_hourly")
    ] == short


async def test_the_short_way_stores_nothing_when_one_comes_twice(bazaar: Bazaar) -> None:
    event = bazaar.event((await subscriptions(bazaar))[0])
    with pytest.raises(intake.NotAllNew, match="duplicate key"):
        await take_new(bazaar, [event, event])
    assert await bazaar.rows("SELECT id FROM usage") == await bazaar.rows("SELECT calls FROM usage_hourly") == []


async def test_the_short_way_stores_nothing_when_one_is_known(bazaar: Bazaar) -> None:
    subscription = (await subscriptions(bazaar))[0]
    known, new = bazaar.event(subscription), bazaar.event(subscription)
    await bazaar.take([known])
    with pytest.raises(intake.NotAllNew, match="duplicate key"):
        await take_new(bazaar, [new, known], batch=2)
    assert [str(row["id"]) for row in await bazaar.rows("SELECT id FROM usage")] == [known.id]
    assert [row["calls"] for row in await bazaar.rows("SELECT calls FROM usage_hourly")] == [1]


async def test_the_short_way_stores_nothing_when_another_batch_took_the_number(bazaar: Bazaar) -> None:
    subscription = (await subscriptions(bazaar))[0]
    await bazaar.take([bazaar.event(subscription)])
    with pytest.raises(intake.NotNext):
        await take_new(bazaar, [bazaar.event(subscription)])
    assert len(await bazaar.rows("SELECT id FROM usage")) == 1


async def test_a_quantity_that_only_the_database_refuses_is_set_aside_alone(bazaar: Bazaar, usage: Usage) -> None:
    subscription = (await subscriptions(bazaar))[0]
    events = [bazaar.event(subscription) for _ in range(7)]
    events[3].units = {"characters": "999999999999999999.9999999"}  # rounded it has a digit more than the column
    taken = await bazaar.take(events)
    assert (taken.rows, taken.quarantined) == (6, 1)
    (aside,) = await usage.quarantined(PLATFORM)
    assert "overflow" in aside.reason and aside.event and aside.event["id"] == events[3].id


@pytest.mark.parametrize(
    "impossible",
    [
        {"cache": "partial", "cached_units": {"characters": "10.1"}},
        {"cache": "partial", "cached_units": {"pages": "1"}},
        {"cache": "partial", "cached_units": {"characters": "1", "requests": "1"}},
        {"cache": "miss", "cached_units": {"characters": "1"}},
        {"cache": "hit", "cached_share": "1.1"},
        {"cache": "hit", "cached_share": "0.0001"},
        {"cache": "hit", "cached_share": "half"},
    ],
)
async def test_a_call_whose_cached_part_can_not_be_is_set_aside(bazaar: Bazaar, impossible: dict[str, Any]) -> None:
    taken = await bazaar.take([bazaar.event((await subscriptions(bazaar))[0], "10", **impossible)])
    assert (taken.rows, taken.quarantined) == (0, 1)


def request_id(event: UsageEvent) -> UUID:
    return UUID(event.id)

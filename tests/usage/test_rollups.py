"""Rollups follow from the rows: by hour and by day, for customers and for sellers, late usage too, and made anew."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from datetime import date, datetime, timedelta
from decimal import Context, Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from bazaar import Bazaar, Subscription, consumer
from haat.infra.postgres import PLATFORM_SCOPE, tenant
from haat.kernel.clock import SetClock
from haat.kernel.errors import PermissionDenied
from haat.kernel.permissions import PLATFORM
from haat.usage import intake, rollups
from haat.usage.analytics import Analytics
from haat.usage.corrections import correct
from haat.usage.event import Outcome, UsageEvent
from haat.usage.model import GROWTH, UNITS, Pseudonyms, histogram_of
from haat.usage.shipper import Shipper

PAIRS = ("hi-Deva>en-Latn", "ta-Taml>en-Latn", "")
_EXACT = Context(prec=10_000)
TABLES = ("usage_hourly", "usage_daily", "market_hourly", "market_daily")


@pytest.fixture
def bazaar(database: Any, clock: SetClock) -> Bazaar:
    return Bazaar(database.service, clock)


@pytest.fixture
def analytics(database: Any, clock: SetClock) -> Analytics:
    return Analytics(database.app, clock, Pseudonyms(bytes(32)), "Asia/Kolkata")


async def subscriptions(bazaar: Bazaar) -> list[Subscription]:
    services = [await bazaar.service("speak"), await bazaar.service("read", unit="pages", provider="akshara")]
    orgs = [await bazaar.organisation("One"), await bazaar.organisation("Two", zone="America/New_York")]
    return [await bazaar.subscribe(org, service) for org in orgs for service in services]


def calls(bazaar: Bazaar, chosen: list[Subscription], number: int, *, days: int) -> list[UsageEvent]:
    chance = bazaar.chance
    return [
        bazaar.event(
            chance.choice(chosen),
            str(chance.randint(0, 500)),
            at=bazaar.clock.now() - timedelta(minutes=chance.randint(0, days * 1440)),
            outcome=chance.choice([*[Outcome.COMPLETED] * 5, Outcome.PROVIDER_FAILED, Outcome.REFUSED]),
            language_pair=chance.choice(PAIRS),
        )
        for _ in range(number)
    ]


def latency_bucket(microseconds: int) -> int:
    return math.ceil(math.log(microseconds) / math.log(GROWTH)) if microseconds > 1 else 0


async def settle(bazaar: Bazaar) -> int:
    async with bazaar.service_db.transaction(PLATFORM_SCOPE) as connection:
        await intake.lock(connection)
        return await rollups.settle(connection, bazaar.clock.now())


async def everything(bazaar: Bazaar) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rollups in a form in which equal ones are equal: numbers without trailing zeros."""

    def plain(value: Any) -> str:
        return str(_EXACT.normalize(value)) if isinstance(value, Decimal) else str(value)

    found = {}
    for table in TABLES:
        rows = await bazaar.rows(f"SELECT * FROM {table}")
        found[table] = sorted(tuple(map(plain, row.values())) for row in rows)
    return found


async def test_rollups_made_anew_from_the_rows_are_the_same(bazaar: Bazaar, analytics: Analytics) -> None:
    chosen = await subscriptions(bazaar)
    events = calls(bazaar, chosen, 600, days=5)
    for at in range(0, 400, 90):
        await bazaar.take([*events[at : at + 90], *events[max(0, at - 30) : at]])
    assert await settle(bazaar) == 5
    await bazaar.take(events[400:])  # most of it into settled days
    before = await everything(bazaar)
    assert all(before.values())
    assert await analytics.rebuild(PLATFORM) == 600
    after = await everything(bazaar)
    for table in TABLES:
        assert after[table] == before[table]


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "Asia/Kathmandu", "America/New_York"])
@pytest.mark.parametrize("anew", [False, True])
async def test_the_whole_markets_hours_and_days_are_those_of_the_operators_wall(
    bazaar: Bazaar, analytics: Analytics, zone: str, anew: bool
) -> None:
    operator = await bazaar.organisation("Operator", kind="operator", zone=zone)
    events = calls(bazaar, await subscriptions(bazaar), 400, days=6)
    await bazaar.take(events[:300])
    await settle(bazaar)
    await bazaar.take([*events[300:], *events[250:320]])  # late, and some of it a second time
    if anew:
        assert await analytics.rebuild(PLATFORM) == 400
    (until,) = await bazaar.rows("SELECT until FROM usage_settled")
    hours: dict[Any, Counter[Any]] = defaultdict(Counter)
    for event in events:
        wall = datetime.fromtimestamp(event.at / 1000, ZoneInfo(zone))
        rest = (event.status // 100, event.outcome.value)
        amounts = {unit: Decimal(quantity) for unit, quantity in event.units.items()}
        for by, pair in (("market", ""), ("market_pair", event.language_pair)):
            key = (by, pair, *rest)
            hour = wall.replace(minute=0, second=0, microsecond=0)
            steps = [("market_hourly", hour)]
            if wall.date() < until["until"]:
                steps.append(("market_daily", wall.date()))
            for step in steps:
                sums = hours[(*step, *key)]
                sums.update({"calls": 1, "latency_us": event.timings_us.total, **amounts})
                sums[latency_bucket(event.timings_us.total)] += 1
    found = {}
    for table, when in (("market_hourly", "hour"), ("market_daily", "day")):
        for row in await bazaar.rows(
            f"SELECT *, numeric_send(latency) AS latency FROM {table} WHERE by IN ('market', 'market_pair')"
        ):
            assert row["provider_org"] == operator and row["service_id"] is None
            sums = Counter({name: row[name] for name in ("calls", "latency_us", *UNITS) if row[name]})
            sums.update(histogram_of(row["latency"]))
            key = (table, row[when], row["by"], row["language_pair"], row["status_class"], row["outcome"])
            assert key not in found
            found[key] = sums
    assert found == hours


async def test_a_corrected_call_is_still_one_call_when_rollups_are_made_anew(
    bazaar: Bazaar, analytics: Analytics, database: Any
) -> None:
    events = [bazaar.event(one) for one in await subscriptions(bazaar)]
    await bazaar.take(events)
    before = await everything(bazaar)
    async with database.app.transaction(PLATFORM_SCOPE) as connection:
        await correct(
            connection,
            PLATFORM,
            UUID(events[0].id),
            units={"characters": Decimal(3)},
            reason="counted twice",
            at=bazaar.clock.now(),
        )
    assert await everything(bazaar) == before
    assert await analytics.rebuild(PLATFORM) == len(events)
    assert await everything(bazaar) == before


async def test_only_who_may_replay_may_make_rollups_anew(bazaar: Bazaar, analytics: Analytics) -> None:
    with pytest.raises(PermissionDenied):
        await analytics.rebuild(consumer((await subscriptions(bazaar))[0].org))


async def test_settled_days_add_up_to_their_hours(bazaar: Bazaar) -> None:
    await bazaar.organisation("Operator", kind="operator")
    await bazaar.take(calls(bazaar, await subscriptions(bazaar), 500, days=6))
    await settle(bazaar)
    (until,) = await bazaar.rows("SELECT until FROM usage_settled")
    assert until["until"] == date(2026, 11, 20)  # the day before it is over in every zone, this one is not
    sums = "sum(calls) AS calls, sum(characters) AS units, sum(latency_us) AS us, sum(latency) AS sketch"
    for hourly, daily, owner in (
        ("usage_hourly", "usage_daily", "org_id"),
        ("market_hourly", "market_daily", "provider_org"),
    ):
        (difference,) = await bazaar.rows(
            f"""
            SELECT count(*) AS rows FROM (
                SELECT {owner}, day, {sums}
                FROM (SELECT hourly.*, (hour AT TIME ZONE zone)::date AS day
                      FROM {hourly} AS hourly JOIN organisations ON organisations.id = {owner}) AS hourly
                WHERE day < '2026-11-20' GROUP BY {owner}, day) AS hours
            FULL JOIN (SELECT {owner}, day, {sums} FROM {daily} GROUP BY {owner}, day) AS days
                USING ({owner}, day, calls, units, us, sketch)
            WHERE num_nulls(hours, days) > 0
            """
        )
        assert difference["rows"] == 0


async def test_late_usage_goes_into_its_own_hour_and_its_settled_day(bazaar: Bazaar) -> None:
    subscription = (await subscriptions(bazaar))[0]
    when = bazaar.clock.now() - timedelta(days=4)
    await bazaar.take([bazaar.event(subscription, at=when)])
    await settle(bazaar)
    await bazaar.take([bazaar.event(subscription, at=when + timedelta(seconds=1))])
    for table in TABLES:
        rows = await bazaar.rows(f"SELECT calls, numeric_send(latency) AS latency FROM {table}")
        assert {row["calls"] for row in rows} == {2}, table
        assert all(sum(histogram_of(row["latency"]).values()) == 2 for row in rows)
        assert len(rows) == (1 if table.startswith("usage") else 6)


async def test_a_day_is_settled_once(bazaar: Bazaar, clock: SetClock) -> None:
    await bazaar.take(calls(bazaar, await subscriptions(bazaar), 50, days=3))
    assert await settle(bazaar) > 0
    before = await everything(bazaar)
    assert await settle(bazaar) == 0
    assert await everything(bazaar) == before
    clock.advance(days=1)
    assert await settle(bazaar) == 1


async def test_the_shipper_settles_days_as_they_are_over(bazaar: Bazaar, clock: SetClock, tmp_path: Path) -> None:
    await bazaar.take(calls(bazaar, await subscriptions(bazaar), 50, days=3))
    shipper = Shipper(bazaar.service_db, tmp_path, clock)
    days = "SELECT DISTINCT day FROM usage_daily"
    await shipper.keep_house()
    before = len(await bazaar.rows(days))
    await shipper.keep_house()
    assert len(await bazaar.rows(days)) == before > 0
    clock.advance(hours=24)
    await shipper.keep_house()
    assert len(await bazaar.rows(days)) == before + 1


async def test_sellers_rollups_count_the_same_calls_as_customers(bazaar: Bazaar) -> None:
    await bazaar.take(calls(bazaar, await subscriptions(bazaar), 300, days=1))
    sums = "sum(calls) AS calls, sum(characters) AS characters, sum(pages) AS pages, sum(latency_us) AS us"
    (customers,) = await bazaar.rows(f"SELECT {sums} FROM usage_hourly")
    for by in ("all", "service", "pair", "both", "market", "market_pair"):
        (sellers,) = await bazaar.rows(f"SELECT {sums} FROM market_hourly WHERE by = %s", by)
        assert sellers == customers, by
    assert customers["calls"] == 300


async def test_a_seller_sees_its_own_market_and_a_customer_none(bazaar: Bazaar, database: Any) -> None:
    chosen = await subscriptions(bazaar)
    await bazaar.take(calls(bazaar, chosen, 40, days=1))
    async with database.app.transaction(tenant(chosen[0].service.org)) as connection:
        seen = await (await connection.execute("SELECT DISTINCT provider_org FROM market_hourly")).fetchall()
    assert [row["provider_org"] for row in seen] == [chosen[0].service.org]
    async with database.app.transaction(tenant(chosen[0].org)) as connection:
        assert await (await connection.execute("SELECT FROM market_hourly")).fetchall() == []


async def test_a_sketch_that_grew_by_many_batches_counts_every_call(bazaar: Bazaar) -> None:
    subscription = (await subscriptions(bazaar))[0]
    chance = random.Random(4)
    durations = [chance.randint(1, 10**7) for _ in range(400)]
    for at in range(0, 400, 20):
        await bazaar.take([bazaar.event(subscription, total_us=one) for one in durations[at : at + 20]])
    (row,) = await bazaar.rows("SELECT calls, numeric_send(latency) AS latency FROM usage_hourly")
    expected = await bazaar.rows(
        "SELECT latency_bucket(total_us) AS bucket, count(*)::int AS calls FROM usage GROUP BY bucket"
    )
    assert histogram_of(row["latency"]) == {one["bucket"]: one["calls"] for one in expected}
    assert row["calls"] == 400

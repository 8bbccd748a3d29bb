"""What is gathered, alerted and suspended, on a real database with a clock that is moved."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from bazaar import Service, Subscription
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.permissions import PLATFORM
from haat.sla import counts
from haat.sla.model import Counts
from haat.usage.event import Outcome

from .rig import Level

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


async def subscribed(level: Level, service: Service, callers: int = 1) -> list[Subscription]:
    return [await level.bazaar.subscribe(await level.bazaar.organisation(), service) for _ in range(callers)]


async def counted(level: Level, service: Service, over: timedelta = DAY) -> Counts:
    now = level.clock.now()
    async with level.db.transaction(PLATFORM_SCOPE) as connection:
        return await counts.counts_of(connection, service.id, now - over, now + MINUTE)


async def minutes_pass(level: Level, many: int, *, every: int = 1) -> None:
    """Let time pass without a call, the review running as it does."""
    for _ in range(0, many, every):
        level.clock.advance(minutes=every)
        await level.watch.review()


# --- gathering ----------------------------------------------------------------------------------------


async def test_each_call_is_counted_once_however_often_and_by_however_many(level: Level) -> None:
    service = await level.bazaar.service()
    [one] = await subscribed(level, service)
    made = await level.use(one, 300, failed=60, over=HOUR)
    await asyncio.gather(*(level.watch.gather() for _ in range(4)))
    await level.bazaar.take(made)  # the same once more: duplicates
    await level.watch.gather()
    assert await counted(level, service) == Counts(240, 60, 60)


async def test_late_calls_are_counted_in_their_own_quarter_hour(level: Level) -> None:
    service = await level.bazaar.service()
    [one] = await subscribed(level, service)
    await level.use(one, 10)
    await level.watch.gather()
    await level.use(one, 20, until=level.clock.now() - 10 * DAY)
    await level.watch.gather()
    assert (await counted(level, service)).calls == 10
    assert (await counted(level, service, 11 * DAY)).calls == 30


async def test_a_call_counts_for_the_service_that_executed_it(level: Level) -> None:
    called, other = await level.bazaar.service("speak"), await level.bazaar.service("say", "akshara")
    [one] = await subscribed(level, called)
    stood_in = [
        replace(event, executed_by=str(other.id), provider_org=str(other.org))
        for event in level.calls(one, 50, failed=5)
    ]
    await level.bazaar.take(stood_in)
    await level.watch.gather()
    assert await counted(level, called) == Counts()
    assert await counted(level, other) == Counts(45, 5, 5)


@pytest.mark.parametrize(
    "members",
    [
        {"mode": "test"},
        {"mode": "shadow"},
        {"cache": "hit", "cached_share": "1"},
        {"outcome": Outcome.REFUSED, "status": 429, "error_code": "RATE_LIMITED"},
        {"outcome": Outcome.PROVIDER_FAILED, "status": 404},
        {"outcome": Outcome.CLIENT_LEFT},
    ],
)
async def test_what_is_nobodys_fault_leaves_no_trace(level: Level, members: dict[str, Any]) -> None:
    service = await level.bazaar.service()
    [one] = await subscribed(level, service)
    await level.bazaar.take([replace(event, **members) for event in level.calls(one, 5)])
    await level.watch.gather()
    assert await counted(level, service) == Counts()


async def test_latency_is_the_time_until_the_first_byte_without_our_own_part(level: Level) -> None:
    service = await level.bazaar.service()
    [one] = await subscribed(level, service)
    events = level.calls(one, 10, ms=500)
    for event in events:
        event.timings_us.admission, event.timings_us.queue, event.timings_us.total = 100_000, 300_000, 9_000_000
    await level.bazaar.take(events)
    await level.watch.gather()
    report = await level.sla.report(None, service.id)
    assert report.latency_ms["p50"] == pytest.approx(100, rel=0.03)


# --- alerts -------------------------------------------------------------------------------------------


async def test_an_outage_alerts_once_and_is_over_once(level: Level) -> None:
    service = await level.bazaar.service()
    await level.promise(service, availability="99.9")
    subscriptions = await subscribed(level, service, 3)
    level.clock.advance(hours=24)
    await level.use(subscriptions[0], 2000, over=23 * HOUR)
    for minute in range(100):
        level.clock.advance(minutes=1)
        for one in subscriptions:
            await level.bazaar.take(level.calls(one, 2, failed=2 if 10 <= minute < 20 else 0))
        await asyncio.gather(level.watch.review(), level.watch.review())
    kinds = await level.kinds(service)
    assert kinds.count("alert_opened") == 2, "the fast and the slow one"
    fast = [event for event in await level.told(service) if event.data.get("pace") == "fast"]
    assert [event.type for event in fast] == ["sla.alert_opened", "sla.alert_closed"]
    assert (fast[0].actor, fast[0].org) == ("platform", service.org)
    report = await level.sla.report(None, service.id)
    assert {one.kind for one in report.incidents} == {"availability_fast", "availability_slow"}


async def test_a_slow_provider_alerts_by_its_latency(level: Level) -> None:
    service = await level.bazaar.service()
    await level.promise(service, availability="99", p95_ms=100)
    [one] = await subscribed(level, service)
    level.clock.advance(minutes=20)
    for _ in range(4):
        level.clock.advance(minutes=1)
        await level.use(one, 60, ms=2000)
        await level.watch.review()
    assert [
        (event.data["signal"], event.data["pace"])
        for event in await level.told(service)
        if event.type == "sla.alert_opened"
    ] == [
        ("p95", "fast"),
        ("p95", "slow"),
    ]


async def test_who_promises_nothing_is_alerted_of_nothing(level: Level) -> None:
    service = await level.bazaar.service()
    [one] = await subscribed(level, service)
    level.clock.advance(minutes=5)
    await level.use(one, 200, failed=200)
    await minutes_pass(level, 2)
    assert await level.kinds(service) == []


async def test_what_fails_in_announced_maintenance_burns_no_budget(level: Level) -> None:
    service = await level.bazaar.service()
    await level.promise(service, availability="99.9")
    [one] = await subscribed(level, service)
    start = level.clock.now() + 48 * HOUR
    await level.sla.announce(PLATFORM, service.id, start, start + HOUR)
    level.to(start)
    for _ in range(60):
        level.clock.advance(minutes=1)
        await level.use(one, 20, failed=20)
    await level.watch.review()
    assert await level.kinds(service) == []
    assert (await counted(level, service)).calls == 0
    await minutes_pass(level, 1)
    await level.use(one, 150, failed=150)
    await minutes_pass(level, 2)
    assert set(await level.kinds(service)) == {"alert_opened"}, "after the window it counts again"


# --- suspension ---------------------------------------------------------------------------------------


async def fail_for(level: Level, subscriptions: list[Subscription], minutes: int, **how: Any) -> None:
    for _ in range(minutes):
        level.clock.advance(minutes=1)
        for one in subscriptions:
            await level.bazaar.take(level.calls(one, 5, **{"failed": 5, **how}))
        await level.watch.review()


async def test_a_listing_below_ninety_percent_is_suspended_by_the_platform_with_its_reason(level: Level) -> None:
    service = await level.bazaar.service()
    await fail_for(level, await subscribed(level, service, 2), 14)
    assert (await level.status(service))[0] == "published", "14 minutes are too few"
    await fail_for(level, await subscribed(level, service, 2), 2)
    status, reason = await level.status(service)
    assert status == "suspended" and "0.000 % of the last 24 hours" in reason
    [row] = await level.bazaar.rows(
        "SELECT actor FROM events WHERE stream = %s AND type = 'service.suspended'", f"service/{service.id}"
    )
    assert row["actor"] == "platform"
    assert await level.kinds(service) == ["suspended"]


async def test_one_caller_alone_suspends_nobody(level: Level) -> None:
    service = await level.bazaar.service()
    await fail_for(level, await subscribed(level, service, 1), 40)
    assert (await level.status(service))[0] == "published"


async def test_the_500s_of_many_callers_suspend_nobody(level: Level) -> None:
    service = await level.bazaar.service()
    await fail_for(level, await subscribed(level, service, 3), 30, status=500)
    assert (await level.status(service))[0] == "published"


async def test_a_model_that_runs_with_us_is_not_suspended(level: Level) -> None:
    service = await level.bazaar.service()
    await level.bazaar.run(
        """INSERT INTO service_versions (id, service_id, version, endpoint, dialect, is_default, accepted_at,
               created_at)
           VALUES (gen_random_uuid(), %s, '1', 'http://127.0.0.1:8090/vani/speak%%401', 'task', true, now(), now())""",
        service.id,
    )
    await fail_for(level, await subscribed(level, service, 3), 30)
    assert (await level.status(service))[0] == "published"


async def test_it_comes_back_when_probes_are_well_and_is_judged_anew(level: Level) -> None:
    service = await level.bazaar.service()
    subscriptions = await subscribed(level, service, 2)
    await fail_for(level, subscriptions, 20)
    assert (await level.status(service))[0] == "suspended"
    for minute in range(40):
        level.clock.advance(minutes=1)
        await level.probed(service, good=minute >= 5)
        await level.watch.review()
        assert ((await level.status(service))[0] == "published") is (minute >= 24), minute
    assert await level.kinds(service) == ["suspended", "restored"]
    await fail_for(level, subscriptions, 12)
    assert (await level.status(service))[0] == "published", "the day before its return is forgotten"
    await fail_for(level, subscriptions, 10)
    assert (await level.status(service))[0] == "suspended"
    [again] = await level.bazaar.rows("SELECT suspended_at FROM sla_suspensions WHERE restored_at IS NULL")
    while level.clock.now() - again["suspended_at"] < timedelta(minutes=59):
        level.clock.advance(minutes=1)
        await level.probed(service, good=True)
        await level.watch.review()
        assert (await level.status(service))[0] == "suspended", "the second time it stays away for an hour"
    await minutes_pass(level, 1)
    assert (await level.status(service))[0] == "published"


async def test_what_the_operator_suspended_stays_so_and_what_it_restored_is_left_alone(level: Level) -> None:
    service = await level.bazaar.service()
    await level.watch._catalog.suspend(PLATFORM, service.id, "A complaint.")
    for _ in range(40):
        level.clock.advance(minutes=1)
        await level.probed(service, good=True)
    await level.watch.review()
    assert await level.status(service) == ("suspended", "A complaint.")
    await level.watch._catalog.restore(PLATFORM, service.id)
    await fail_for(level, await subscribed(level, service, 2), 20)
    await level.watch._catalog.restore(PLATFORM, service.id)
    await level.watch.review()
    assert (await level.status(service))[0] == "published"
    rows = await level.bazaar.rows("SELECT restored_at FROM sla_suspensions WHERE service_id = %s", service.id)
    assert [row["restored_at"] for row in rows] == [level.clock.now()]


async def test_two_reviews_at_once_suspend_once(level: Level) -> None:
    service = await level.bazaar.service()
    subscriptions = await subscribed(level, service, 2)
    for _ in range(20):
        level.clock.advance(minutes=1)
        for one in subscriptions:
            await level.bazaar.take(level.calls(one, 5, failed=5))
    await asyncio.gather(*(level.watch.review() for _ in range(4)))
    assert await level.kinds(service) == ["suspended"]


async def test_what_nobody_reads_any_more_is_dropped(level: Level) -> None:
    service = await level.bazaar.service()
    [one] = await subscribed(level, service)
    await level.use(one, 50)
    await level.probed(service, good=True)
    await level.probed(service, good=False)
    await level.watch.gather()
    level.clock.advance(days=63)
    await level.watch.forget()
    assert {row["minutes"] for row in await level.bazaar.rows("SELECT minutes FROM sla_slots")} == {15}
    assert [row["good"] for row in await level.bazaar.rows("SELECT good FROM sla_probes")] == [False]


async def test_many_batches_are_gathered_some_at_a_time(level: Level, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "BATCHES", 2)
    service = await level.bazaar.service()
    [one] = await subscribed(level, service)
    for _ in range(5):
        await level.use(one, 7, failed=1)
    async with level.db.transaction(PLATFORM_SCOPE) as connection:
        assert await counts.gather(connection, level.clock.now()), "there is more"
    assert (await counted(level, service)).calls == 14
    await level.watch.gather()
    assert await counted(level, service) == Counts(30, 5, 5)

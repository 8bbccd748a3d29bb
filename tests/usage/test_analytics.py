"""Dashboards say what the rows say, compare with the time before, and give no customer away."""

from __future__ import annotations

import csv
import io
import json
import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bazaar import Bazaar, Service, Subscription, consumer, partner
from haat.infra.postgres import PLATFORM_SCOPE
from haat.invoices.credits import CreditItem
from haat.invoices.service import Invoices
from haat.kernel.clock import SetClock
from haat.kernel.errors import InvalidRequest, PermissionDenied, TooManyFeeds
from haat.kernel.ids import new_id
from haat.kernel.permissions import PLATFORM
from haat.settings import Settings
from haat.usage import intake, rollups
from haat.usage.analytics import OTHER_PAIRS, SMALL_GROUP, Analytics, Dashboard, window_of
from haat.usage.analytics_store import spans_of
from haat.usage.event import Outcome
from haat.usage.export import Format
from haat.usage.live import MAX_FEEDS_OF_ONE, Live
from haat.usage.model import CallFilter, Pseudonyms
from haat.usage.service import Usage

ZONE = "Asia/Kolkata"


@pytest.fixture
def bazaar(database: Any, clock: SetClock) -> Bazaar:
    return Bazaar(database.service, clock)


@pytest.fixture
def analytics(database: Any, clock: SetClock) -> Analytics:
    return Analytics(database.app, clock, Pseudonyms(bytes(32)), ZONE)


async def settle(bazaar: Bazaar) -> None:
    async with bazaar.service_db.transaction(PLATFORM_SCOPE) as connection:
        await intake.lock(connection)
        await rollups.settle(connection, bazaar.clock.now())


async def customers(bazaar: Bazaar, service: Service, number: int) -> list[Subscription]:
    return [await bazaar.subscribe(await bazaar.organisation(f"Customer {n}"), service) for n in range(number)]


async def as_consumer(analytics: Analytics, subscription: Subscription, window: str) -> Dashboard:
    actor = consumer(subscription.org)
    return await analytics.consumer(actor, await analytics.window(actor, window))


async def test_a_dashboard_counts_what_became_of_calls_and_how_long_they_took(
    bazaar: Bazaar, analytics: Analytics
) -> None:
    (subscription,) = await customers(bazaar, await bazaar.service(), 1)
    hi, ta = "hi-Deva>en-Latn", "ta-Taml>en-Latn"
    events = [bazaar.event(subscription, "5", total_us=ms * 1000, language_pair=hi) for ms in range(1, 91)]
    events += [
        bazaar.event(subscription, outcome=Outcome.PROVIDER_FAILED, status=502, language_pair=ta) for _ in range(10)
    ]
    events += [bazaar.event(subscription, outcome=Outcome.REFUSED, status=429) for _ in range(5)]
    await bazaar.take(events)
    seen = await as_consumer(analytics, subscription, "24h")
    assert (seen.totals.calls, seen.totals.completed, seen.totals.failed, seen.totals.refused) == (105, 90, 10, 5)
    assert seen.totals.success_rate == 0.9
    assert {one.name: one.figures.calls for one in seen.language_pairs} == {hi: 90, ta: 10, "": 5}
    assert {one.name: one.figures.calls for one in seen.status_classes} == {"2xx": 90, "4xx": 5, "5xx": 10}
    (service,) = seen.services
    assert service.name == "vani/speak" and service.units["characters"] == 90 * 5
    first = next(one for one in seen.language_pairs if one.name == hi)
    assert first.figures.p50_ms == pytest.approx(45, rel=0.021) and first.figures.p99_ms == pytest.approx(90, rel=0.021)
    assert [point.figures.calls for point in seen.series] == [105]


async def test_a_day_from_settled_rollups_is_the_same_as_from_hours(bazaar: Bazaar, analytics: Analytics) -> None:
    await bazaar.organisation("Operator", kind="operator")
    chosen = await customers(bazaar, await bazaar.service(), 2)
    chance = bazaar.chance
    await bazaar.take(
        [
            bazaar.event(chance.choice(chosen), at=bazaar.clock.now() - timedelta(minutes=chance.randint(0, 14 * 1440)))
            for _ in range(400)
        ]
    )
    before = [await as_consumer(analytics, chosen[0], window) for window in ("24h", "7d", "30d", "2026-11")]
    market = await analytics.operator(PLATFORM, await analytics.window(PLATFORM, "30d"))
    await settle(bazaar)
    assert [await as_consumer(analytics, chosen[0], window) for window in ("24h", "7d", "30d", "2026-11")] == before
    assert await analytics.operator(PLATFORM, await analytics.window(PLATFORM, "30d")) == market
    assert market.totals.calls == 400


async def test_a_period_is_compared_with_the_one_before(bazaar: Bazaar, analytics: Analytics, clock: SetClock) -> None:
    (subscription,) = await customers(bazaar, await bazaar.service(), 1)
    now, then = clock.now(), clock.now() - timedelta(days=8)
    await bazaar.take(
        [
            *[bazaar.event(subscription, at=now, total_us=200_000) for _ in range(30)],
            *[bazaar.event(subscription, at=then, total_us=100_000) for _ in range(15)],
            *[bazaar.event(subscription, at=then, outcome=Outcome.PROVIDER_FAILED, total_us=100_000) for _ in range(5)],
        ]
    )
    seen = await as_consumer(analytics, subscription, "7d")
    assert (seen.totals.calls, seen.before.calls) == (30, 20)
    assert seen.change.calls == 0.5 and seen.change.success_rate == 0.25
    assert seen.change.p95_ms == pytest.approx(1, rel=0.05)


def test_a_running_month_is_compared_with_as_much_of_the_month_before() -> None:
    now = datetime(2026, 11, 21, 6, 30, tzinfo=UTC)
    running = window_of(None, now, ZONE)
    assert running.period.label == "2026-11" and running.before.label == "2026-10"
    gone = now.replace(minute=0) + timedelta(hours=1) - running.period.start
    assert running.before.end - running.before.start == gone
    whole = window_of("2026-10", now, ZONE)
    assert whole.before.end == whole.period.start


@pytest.mark.parametrize("name", ["yesterday", "2026-13", "1h", ""])
def test_what_is_no_window_is_refused(name: str) -> None:
    if name:
        with pytest.raises(InvalidRequest, match="window"):
            window_of(name, datetime(2026, 11, 21, tzinfo=UTC), ZONE)
    else:
        assert window_of(name, datetime(2026, 11, 21, tzinfo=UTC), ZONE).period.label == "2026-11"


@given(st.integers(0, 60 * 24), st.integers(1, 60 * 24), st.integers(-5, 70), st.sampled_from([ZONE, "Asia/Kathmandu"]))
def test_settled_days_and_hours_cover_a_period_without_gap_or_overlap(
    start: int, length: int, settled: int, zone: str
) -> None:
    origin = datetime(2026, 9, 1, tzinfo=UTC)
    period = (origin + timedelta(hours=start), origin + timedelta(hours=start + length))
    until = date(2026, 9, 1) + timedelta(days=settled)
    spans = spans_of(*period, zone, until)
    edges = [*spans.hours]
    if spans.days is not None:
        assert spans.days[1] <= until
        edges.append(tuple(midnight(day, zone) for day in spans.days))  # type: ignore[arg-type]
    edges.sort()
    assert (edges[0][0], edges[-1][1]) == period
    assert all(one[1] == other[0] for one, other in pairwise(edges))


def midnight(day: date, zone: str) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).astimezone(UTC)


async def test_a_provider_sees_pseudonyms_and_no_small_group(bazaar: Bazaar, analytics: Analytics) -> None:
    service = await bazaar.service()
    chosen = await customers(bazaar, service, SMALL_GROUP)
    common, rare = "hi-Deva>en-Latn", "sat-Olck>en-Latn"
    few = chosen[: SMALL_GROUP - 1]
    await bazaar.take([bazaar.event(one, language_pair=common) for one in few for _ in range(3)])
    actor = partner(service.org)
    seen = await analytics.provider(actor, await analytics.window(actor, "7d"))
    assert seen.consumers is not None and seen.consumers.number is None and seen.consumers.top == ()
    assert seen.language_pairs == [] and seen.totals.calls == 3 * len(few)

    await bazaar.take(
        [*[bazaar.event(one, language_pair=common) for one in chosen], bazaar.event(chosen[0], language_pair=rare)]
    )
    seen = await analytics.provider(actor, await analytics.window(actor, "7d"))
    assert seen.consumers is not None and seen.consumers.number == SMALL_GROUP
    assert [one.figures.calls for one in seen.consumers.top] == [5, 4, 4, 4, 1]
    assert str(chosen[0].org) not in str(seen)
    # One customer called the rare pair: alone in "other" it would be known by what is missing.
    assert [(one.name, one.figures.calls) for one in seen.language_pairs] == [(OTHER_PAIRS, 18)]
    assert not seen.applications and not seen.providers


async def test_a_pair_of_many_customers_stands_beside_the_others(bazaar: Bazaar, analytics: Analytics) -> None:
    service = await bazaar.service()
    chosen = await customers(bazaar, service, SMALL_GROUP)
    pairs = ["hi-Deva>en-Latn", "ta-Taml>en-Latn"]
    await bazaar.take(
        [
            *[bazaar.event(one, language_pair=pair) for one in chosen for pair in pairs],
            bazaar.event(chosen[0], language_pair=pairs[0]),
            *[bazaar.event(one, language_pair=f"x{place}") for place, one in enumerate(chosen)],
        ]
    )
    actor = partner(service.org)
    seen = await analytics.provider(actor, await analytics.window(actor, "7d"))
    assert [(one.name, one.figures.calls) for one in seen.language_pairs] == [
        (pairs[0], 6),
        (pairs[1], 5),
        (OTHER_PAIRS, 5),
    ]


async def test_each_view_is_for_whom_it_is_about(bazaar: Bazaar, analytics: Analytics) -> None:
    service, other = await bazaar.service(), await bazaar.service("read", "akshara")
    mine, theirs = [await bazaar.subscribe(await bazaar.organisation(), sold) for sold in (service, other)]
    await bazaar.take([bazaar.event(mine), bazaar.event(theirs), bazaar.event(theirs)])
    window = await analytics.window(PLATFORM, "7d")
    assert (await analytics.consumer(consumer(mine.org), window)).totals.calls == 1
    assert (await analytics.provider(partner(other.org), window)).totals.calls == 2
    assert (await analytics.operator(PLATFORM, window)).totals.calls == 3
    assert (await analytics.operator(PLATFORM, window, provider_org=other.org)).totals.calls == 2
    assert (await analytics.operator(PLATFORM, window, service_id=service.id)).totals.calls == 1
    assert [part.name for part in (await analytics.operator(PLATFORM, window)).providers] == ["Akshara", "Vani"]
    with pytest.raises(PermissionDenied):
        await analytics.operator(partner(other.org), window)
    with pytest.raises(PermissionDenied):
        await analytics.provider(consumer(mine.org), window)


# --- live ----------------------------------------------------------------------------------------


async def test_a_feed_shows_each_call_once_and_only_ones_own(bazaar: Bazaar, database: Any, clock: SetClock) -> None:
    mine, theirs = await customers(bazaar, await bazaar.service(), 2)
    live = Live(database.app, clock)
    first = bazaar.event(mine)
    await bazaar.take([first, bazaar.event(theirs)])
    later = [bazaar.event(mine, at=clock.now() - timedelta(minutes=10)), bazaar.event(mine)]
    batches = [[later[0], bazaar.event(theirs)], [], [later[1]]]

    async def while_it_sleeps(_: float) -> None:
        if batches and (batch := batches.pop(0)):
            await bazaar.take(batch)

    feed = live.feed(consumer(mine.org), sleep=while_it_sleeps)
    pieces = [await anext(feed) for _ in range(5)]
    shown = [
        json.loads(line[6:])["id"] for piece in pieces for line in piece.split(b"\n") if line.startswith(b"data: ")
    ]
    assert shown == [first.id, later[0].id, later[1].id]
    assert pieces[2] == b": \n\n" and pieces[0].startswith(b"id: 1\nevent: call\ndata: {")
    await feed.aclose()  # type: ignore[attr-defined]
    again = live.feed(consumer(mine.org), 1, sleep=while_it_sleeps)
    assert first.id.encode() not in await anext(again)
    await again.aclose()  # type: ignore[attr-defined]


async def test_feeds_are_bounded(bazaar: Bazaar, database: Any, clock: SetClock) -> None:
    (mine,) = await customers(bazaar, await bazaar.service(), 1)
    live = Live(database.app, clock)
    feeds = [live.feed(consumer(mine.org)) for _ in range(MAX_FEEDS_OF_ONE)]
    for feed in feeds:
        await anext(feed)
    with pytest.raises(TooManyFeeds):
        await anext(live.feed(consumer(mine.org)))
    await feeds[0].aclose()  # type: ignore[attr-defined]
    last = live.feed(consumer(mine.org))
    assert await anext(last) == b": \n\n"
    for feed in [*feeds[1:], last]:
        await feed.aclose()  # type: ignore[attr-defined]


# --- files ---------------------------------------------------------------------------------------


async def test_json_lines_hold_every_call_with_quantities_as_text(
    bazaar: Bazaar, database: Any, clock: SetClock
) -> None:
    (mine,) = await customers(bazaar, await bazaar.service(), 1)
    strange = 'a "quoted" \\ back\nslash, \x01\x02 and ₹'
    events = [bazaar.event(mine, "2.5", user=strange, tags={"team": "ops"}) for _ in range(200)]
    await bazaar.take(events)
    usage = Usage(database.app, clock, Pseudonyms(bytes(32)))
    data = b"".join([piece async for piece in usage.export(consumer(mine.org), CallFilter(), Format.JSONL)])
    rows = [json.loads(line) for line in data.splitlines()]
    assert {row["id"] for row in rows} == {event.id for event in events}
    assert {row["end_user"] for row in rows} == {strange}
    assert rows[0]["characters"] == "2.5" and rows[0]["tags"] == {"team": "ops"} and rows[0]["service"] == "vani/speak"
    assert datetime.fromisoformat(rows[0]["at"]) == clock.now()


async def test_an_export_is_of_ones_own_calls_whatever_is_asked(bazaar: Bazaar, database: Any, clock: SetClock) -> None:
    mine, theirs = await customers(bazaar, await bazaar.service(), 2)
    await bazaar.take([bazaar.event(mine, user='=1+"1"'), bazaar.event(theirs)])
    usage = Usage(database.app, clock, Pseudonyms(bytes(32)))
    data = b"".join([piece async for piece in usage.export(consumer(mine.org), CallFilter(end_user='=1+"1"'))])
    (row,) = csv.DictReader(io.StringIO(data.decode()))
    assert row["end_user"] == '\'=1+"1"' and Decimal(row["characters"]) == 10
    whole = b"".join([piece async for piece in usage.export(PLATFORM, CallFilter(), Format.JSONL)])
    assert len(whole.splitlines()) == 2
    assert math.isfinite(float(row["total_ms"]))
    nothing = b"".join([piece async for piece in usage.export(consumer(new_id()), CallFilter(), Format.JSONL)])
    assert nothing == b""


async def test_what_was_invoiced_is_net_of_credit_notes_and_of_what_was_voided(
    bazaar: Bazaar, analytics: Analytics, clock: SetClock, database: Any
) -> None:
    service = await bazaar.service(price="1", share="0.70")
    one, other = await customers(bazaar, service, 2)
    await bazaar.take([bazaar.event(one, "100"), bazaar.event(other, "50")])
    clock.advance(days=31)
    invoices = Invoices(database.app, clock, Settings())
    await invoices.issue_all(PLATFORM, "2026-11")
    month = await analytics.window(PLATFORM, "2026-11")

    async def seen() -> tuple[Any, ...]:
        dashboard = await analytics.operator(PLATFORM, month)
        assert dashboard.services[0].net == dashboard.net
        return dashboard.net, dashboard.earned

    assert await seen() == (150, 105)
    (invoice,) = (await invoices.page(PLATFORM, org=one.org)).items
    (line,) = await invoices.lines(PLATFORM, invoice.id)
    for key, fault in (("a", "provider"), ("b", "platform")):
        item = CreditItem(line["id"], Decimal("10.00"), fault)
        await invoices.credit(PLATFORM, [item], key=key, reason="goodwill")
    assert await seen() == (130, 98), "a provider keeps its share of what the platform gives away"
    assert (await analytics.consumer(consumer(one.org), month)).net == 80
    (invoice,) = (await invoices.page(PLATFORM, org=other.org)).items
    await invoices.void(PLATFORM, invoice.id, "billed to the wrong one")
    assert await seen() == (80, 63)

"""What customers, providers and the operator read about usage."""

from __future__ import annotations

import csv
import io
import math
import random
from collections import Counter
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bazaar import Bazaar, Subscription, consumer, partner
from haat.kernel.clock import SetClock, month_of
from haat.kernel.errors import InvalidRequest, NotFound, PermissionDenied
from haat.kernel.permissions import PLATFORM
from haat.usage.cells import sketch_cell
from haat.usage.event import Outcome
from haat.usage.model import GROWTH, CallFilter, Pseudonyms, csv_safe, histogram_of, merged, quantile
from haat.usage.service import Usage


@pytest.fixture
def bazaar(database: Any, clock: SetClock) -> Bazaar:
    return Bazaar(database.service, clock)


@pytest.fixture
def usage(database: Any, clock: SetClock) -> Usage:
    return Usage(database.app, clock, Pseudonyms(bytes(32)))


async def a_subscription(bazaar: Bazaar, slug: str = "speak", provider: str = "vani") -> Subscription:
    return await bazaar.subscribe(await bazaar.organisation(), await bazaar.service(slug, provider))


async def test_a_summary_counts_outcomes_billed_units_and_latency(
    bazaar: Bazaar, usage: Usage, clock: SetClock
) -> None:
    subscription = await a_subscription(bazaar)
    events = [bazaar.event(subscription, "5", total_us=milliseconds * 1000) for milliseconds in range(1, 101)]
    events += [bazaar.event(subscription, outcome=Outcome.REFUSED, status=429, total_us=50) for _ in range(7)]
    events += [bazaar.event(subscription, "3", outcome=Outcome.UNCONFIRMED) for _ in range(2)]
    await bazaar.take(events)
    (row,) = await usage.summary(consumer(subscription.org), month_of(clock.now(), "Asia/Kolkata"))
    counts = row.counts
    assert (counts.calls, counts.completed, counts.refused, counts.in_doubt) == (109, 100, 7, 2)
    assert row.units == {"requests": 100, "characters": 500}
    assert (row.provider, row.slug, row.unit) == ("vani", "speak", "characters")
    assert row.p50_ms == pytest.approx(50, rel=0.021) and row.p95_ms == pytest.approx(95, rel=0.021)


async def test_hours_follow_the_month_and_add_up_to_the_summary(bazaar: Bazaar, usage: Usage, clock: SetClock) -> None:
    subscription = await a_subscription(bazaar)
    chance = random.Random(1)
    for _ in range(3):
        await bazaar.take(
            [bazaar.event(subscription, at=clock.now() - timedelta(minutes=chance.randint(0, 900))) for _ in range(40)]
        )
    asha, period = consumer(subscription.org), await usage.month(consumer(subscription.org))
    hours = await usage.hourly(asha, period)
    assert sum(hour.counts.calls for hour in hours) == 120
    assert [hour.hour for hour in hours] == sorted(hour.hour for hour in hours)
    assert all(hour.hour.minute == 30 for hour in hours)  # whole hours in Kolkata


async def test_a_call_that_another_provider_executed_names_both(bazaar: Bazaar, usage: Usage) -> None:
    subscription = await a_subscription(bazaar)
    other = await bazaar.service("say", "akshara")
    own = bazaar.event(subscription)
    stood_in = msgspec.structs.replace(
        bazaar.event(subscription),
        provider=other.provider,
        provider_org=str(other.org),
        executed_by=str(other.id),
        attempts=2,
    )
    await bazaar.take([own, stood_in])
    asha = consumer(subscription.org)
    calls = {str(row["id"]): row for row in (await usage.calls(asha, CallFilter())).items}
    seen = calls[stood_in.id]
    assert (seen["called_provider"], seen["provider"], seen["executed_by"]) == ("vani", "akshara", other.id)
    assert (seen["service_slug"], seen["attempts"]) == ("speak", 2)
    plain = calls[own.id]
    assert (plain["called_provider"], plain["provider"], plain["executed_by"], plain["attempts"]) == (
        "vani",
        "vani",
        None,
        0,
    )
    exported = list(csv.DictReader(io.StringIO("".join([part async for part in usage.export_csv(asha, CallFilter())]))))
    assert {row["service"] for row in exported} == {"vani/speak"}


async def test_pages_of_calls_reach_every_call_once_newest_first(bazaar: Bazaar, usage: Usage, clock: SetClock) -> None:
    subscription = await a_subscription(bazaar)
    events = [bazaar.event(subscription, at=clock.now() - timedelta(seconds=n)) for n in range(25)]
    await bazaar.take(events)
    seen: list[str] = []
    cursor = None
    while True:
        page = await usage.calls(consumer(subscription.org), CallFilter(), cursor=cursor, limit=10)
        seen += [str(row["id"]) for row in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert seen == [event.id for event in events]
    for bad in ("nonsense", "WzFd"):
        with pytest.raises(InvalidRequest):
            await usage.calls(consumer(subscription.org), CallFilter(), cursor=bad)


async def test_calls_are_found_by_user_tag_outcome_status_and_time(
    bazaar: Bazaar, usage: Usage, clock: SetClock
) -> None:
    subscription = await a_subscription(bazaar)
    wanted = bazaar.event(
        subscription, user="asha", tags={"team": "ops"}, outcome=Outcome.PROVIDER_FAILED, status=502,
        at=clock.now() - timedelta(hours=5),
    )  # fmt: skip
    await bazaar.take([wanted, *[bazaar.event(subscription) for _ in range(5)]])
    for chosen in (
        CallFilter(end_user="asha"),
        CallFilter(tag=("team", "ops")),
        CallFilter(outcome="provider_failed"),
        CallFilter(status_class=5),
        CallFilter(end=clock.now() - timedelta(hours=4)),
    ):
        page = await usage.calls(consumer(subscription.org), chosen)
        assert [str(row["id"]) for row in page.items] == [wanted.id]
    assert (await usage.calls(consumer(subscription.org), CallFilter(service_id=subscription.id))).items == []


async def test_only_the_operator_may_look_beyond_an_organisation(bazaar: Bazaar, usage: Usage, clock: SetClock) -> None:
    one, two = await a_subscription(bazaar), await a_subscription(bazaar, "read", "akshara")
    await bazaar.take([bazaar.event(one), bazaar.event(two), bazaar.event(two)])
    period = await usage.month(PLATFORM)
    assert sum(row.counts.calls for row in await usage.summary(PLATFORM, period)) == 3
    assert sum(row.counts.calls for row in await usage.summary(PLATFORM, period, org=two.org)) == 2
    assert sum(row.counts.calls for row in await usage.summary(consumer(one.org), period)) == 1
    # A provider's own calls are those it made, not those made to it.
    assert await usage.summary(partner(one.service.org), period) == []
    with pytest.raises(NotFound):
        await usage.summary(consumer(one.org), period, org=two.org)
    for forbidden in (usage.quarantined(consumer(one.org)), usage.shipping(partner(one.service.org))):
        with pytest.raises(PermissionDenied):
            await forbidden


async def test_a_provider_sees_its_services_and_customers_under_pseudonyms(
    bazaar: Bazaar, usage: Usage, clock: SetClock
) -> None:
    one, two = await a_subscription(bazaar), await a_subscription(bazaar, "read", "akshara")
    other = await bazaar.subscribe(await bazaar.organisation(), one.service)
    await bazaar.take([bazaar.event(one), bazaar.event(one), bazaar.event(other), bazaar.event(two)])
    period = await usage.month(PLATFORM)
    seen = await usage.provider_summary(partner(one.service.org), period)
    assert [row.counts.calls for row in seen.services] == [3]
    assert [customer.counts.calls for customer in seen.customers] == [2, 1]
    assert str(one.org) not in str(seen.customers) and len({one.pseudonym for one in seen.customers}) == 2
    elsewhere = Pseudonyms(bytes(32)).of(two.service.org, one.org)
    assert elsewhere not in {customer.pseudonym for customer in seen.customers}
    with pytest.raises(PermissionDenied):
        await usage.provider_summary(consumer(one.org), period)


async def test_an_export_has_every_call_and_no_formula(bazaar: Bazaar, usage: Usage, clock: SetClock) -> None:
    subscription = await a_subscription(bazaar)
    events = [bazaar.event(subscription, user="=HYPERLINK(1)") for _ in range(300)]
    await bazaar.take(events)
    text = "".join([piece async for piece in usage.export_csv(consumer(subscription.org), CallFilter())])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["id"] for row in rows} == {event.id for event in events}
    assert {row["end_user"] for row in rows} == {"'=HYPERLINK(1)"}
    assert Decimal(rows[0]["characters"]) == 10 and rows[0]["service"] == "vani/speak"


async def test_an_unbilled_call_tells_that_it_costs_nothing(bazaar: Bazaar, usage: Usage) -> None:
    subscription = await a_subscription(bazaar)
    event = bazaar.event(subscription, outcome=Outcome.UNCONFIRMED)
    await bazaar.take([event])
    story = await usage.call(consumer(subscription.org), UUID(event.id))
    assert not story.billed and story.quantity is None and story.list_charge is None


@given(st.lists(st.integers(2, 10**8), min_size=1, max_size=200), st.integers(1, 99), st.integers(0, 200))
def test_merged_histograms_give_quantiles_within_two_percent(durations: list[int], percent: int, cut: int) -> None:
    def histogram(some: list[int]) -> dict[int, int]:
        return Counter(math.ceil(math.log(duration) / math.log(GROWTH)) for duration in some)

    found = quantile(merged([histogram(durations[:cut]), {}, histogram(durations[cut:])]), percent / 100)
    exact = sorted(durations)[max(1, math.ceil(percent / 100 * len(durations))) - 1]
    assert found is not None and found * 1000 == pytest.approx(exact, rel=0.0201)


@given(st.dictionaries(st.integers(0, 548), st.integers(1, 10**12 - 1), min_size=1))
def test_a_sketch_is_read_as_it_was_written(calls: dict[int, int]) -> None:
    assert histogram_of(sketch_cell(calls)[4:]) == calls  # before it stands its length


def test_without_calls_there_is_no_quantile() -> None:
    assert quantile({}, 0.5) is None


@pytest.mark.parametrize("cell", ["=1", "+1", "-1", "@a", "\t=1"])
def test_cells_that_spreadsheets_would_run_are_quoted(cell: str) -> None:
    assert csv_safe(cell) == "'" + cell


async def test_the_trace_that_a_caller_sent_is_found_with_the_call(bazaar: Bazaar, usage: Usage) -> None:
    subscription = await a_subscription(bazaar)
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    await bazaar.take([msgspec.structs.replace(bazaar.event(subscription), trace=trace), bazaar.event(subscription)])
    calls = (await usage.calls(consumer(subscription.org), CallFilter())).items
    assert sorted(str(row["trace"]) for row in calls) == ["", trace]

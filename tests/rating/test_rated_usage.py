"""From stored calls to lines: meters read what the rows say, in one scan, and each line finds its calls."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from bazaar import Bazaar, Service, Subscription, consumer
from haat.infra.postgres import PLATFORM_SCOPE
from haat.invoices.service import Invoices
from haat.kernel.clock import SetClock, month_period
from haat.kernel.permissions import PLATFORM
from haat.rating import service as rating
from haat.rating.service import Rating
from haat.settings import Settings
from haat.settlement.service import Settlements
from haat.usage.event import UsageEvent
from haat.usage.model import Pseudonyms
from haat.usage.service import Usage
from rating.stalls import meter, price

MONTH = "2026-11"
PERIOD = month_period(2026, 11, "Asia/Kolkata")
D = Decimal


@pytest.fixture
def bazaar(database: Any, clock: SetClock) -> Bazaar:
    return Bazaar(database.service, clock)


@pytest.fixture
def invoices(database: Any, clock: SetClock) -> Invoices:
    return Invoices(database.app, clock, Settings())


def close_month(clock: SetClock) -> None:
    clock.advance(seconds=(datetime(2026, 12, 1, 12, tzinfo=UTC) - clock.now()).total_seconds())


async def stall(bazaar: Bazaar, unit: str = "characters", **members: Any) -> tuple[Service, Subscription]:
    service = await bazaar.service(unit=unit, price=None, **members)
    return service, await bazaar.subscribe(await bazaar.organisation(), service)


def spoken(event: UsageEvent, **units: str) -> UsageEvent:
    return replace(event, units={**event.units, **units})


async def billed(invoices: Invoices, clock: SetClock, org: UUID) -> list[dict[str, Any]]:
    close_month(clock)
    invoice = await invoices.issue(PLATFORM, MONTH, org)
    assert invoice is not None
    return [dict(line) for line in await invoices.lines(PLATFORM, invoice.id)]


async def test_tokens_out_of_a_providers_cache_and_for_reasoning_have_prices_of_their_own(
    bazaar: Bazaar, invoices: Invoices, clock: SetClock
) -> None:
    service, subscription = await stall(bazaar, "tokens")
    await meter(bazaar, service, name="fresh", measure="input_tokens", less=["cached_tokens"])
    await price(
        bazaar, service,
        {"model": "unit", "meter": "fresh", "unit_price": "0.10"},
        {"model": "unit", "meter": "cached_tokens", "unit_price": "0.01"},
        {"model": "unit", "meter": "output_tokens", "unit_price": "0.20"},
        {"model": "unit", "meter": "reasoning_tokens", "unit_price": "0.05"},
    )  # fmt: skip
    first = spoken(bazaar.event(subscription, "70"), input_tokens="40", cached_tokens="10", output_tokens="30")
    second = spoken(bazaar.event(subscription, "9"), input_tokens="5", output_tokens="4", reasoning_tokens="2")
    await bazaar.take([first, second])
    lines = await billed(invoices, clock, subscription.org)
    assert {line["meter"]: (line["quantity"], line["taxable"]) for line in lines} == {
        "fresh": (35, D("3.50")),
        "cached_tokens": (10, D("0.10")),
        "output_tokens": (34, D("6.80")),
        "reasoning_tokens": (2, D("0.10")),
    }
    for line in lines:
        calls = (await invoices.calls(PLATFORM, line["id"])).items
        assert sum(call.quantity for call in calls) == line["quantity"] and len(calls) == line["calls"] == 2


async def test_a_language_pair_a_version_and_what_the_cache_gave_have_prices_of_their_own(
    bazaar: Bazaar, invoices: Invoices, clock: SetClock
) -> None:
    service, subscription = await stall(bazaar)
    await meter(bazaar, service, name="urdu", measure="characters", filter={"language_pairs": ["hi>ur"]})
    await meter(bazaar, service, name="new", measure="characters", filter={"versions": ["2"], "variants": [""]})
    await meter(bazaar, service, name="kept", measure="characters", filter={"cached": True})
    await price(
        bazaar, service,
        {"model": "unit", "meter": "urdu", "unit_price": "2"},
        {"model": "unit", "meter": "new", "unit_price": "3"},
        {"model": "unit", "meter": "kept", "unit_price": "5"},
    )  # fmt: skip
    events = [
        bazaar.event(subscription, "10", language_pair="hi>ur"),
        replace(bazaar.event(subscription, "20", language_pair="hi>ta"), version="2"),
        replace(bazaar.event(subscription, "40", language_pair="hi>ur"), version="2"),
        bazaar.event(subscription, "80", cache="hit", cached_units={"characters": "80"}, cached_share="0.5"),
        bazaar.event(subscription, "160"),
    ]
    await bazaar.take(events)
    lines = await billed(invoices, clock, subscription.org)
    assert {line["meter"]: (line["quantity"], line["taxable"]) for line in lines} == {
        "urdu": (50, 100),
        "new": (60, 180),
        "kept": (80, 200),
    }
    for line in lines:
        calls = (await invoices.calls(PLATFORM, line["id"])).items
        assert sum(call.quantity for call in calls) == line["quantity"] and len(calls) == line["calls"]


async def test_a_call_names_the_line_of_each_meter_that_sees_it(
    bazaar: Bazaar, invoices: Invoices, clock: SetClock, database: Any
) -> None:
    service, subscription = await stall(bazaar)
    await meter(bazaar, service, name="calls", aggregation="count")
    await meter(bazaar, service, name="urdu", measure="characters", filter={"language_pairs": ["hi>ur"]})
    parts = [{"model": "unit", "meter": name, "unit_price": "1"} for name in ("calls", "urdu", "characters")]
    await price(bazaar, service, *parts)
    urdu, other = bazaar.event(subscription, "10", language_pair="hi>ur"), bazaar.event(subscription, "20")
    await bazaar.take([urdu, other])
    await billed(invoices, clock, subscription.org)
    usage = Usage(database.app, clock, Pseudonyms(bytes(32)))
    story = await usage.call(PLATFORM, UUID(urdu.id))
    assert {line["meter"] for line in story.lines} == {"calls", "characters", "urdu"}
    assert story.list_charge is None, "what one call costs can't be told alone"
    assert {line["meter"] for line in (await usage.call(PLATFORM, UUID(other.id))).lines} == {"calls", "characters"}


async def test_users_peaks_and_last_values_are_one_number_a_month_and_grow_from_bill_to_bill(
    bazaar: Bazaar, invoices: Invoices, clock: SetClock
) -> None:
    service, subscription = await stall(bazaar, "audio_seconds")
    await meter(bazaar, service, name="people", aggregation="unique", measure="end_user")
    await meter(bazaar, service, name="longest", aggregation="max", measure="audio_seconds")
    await meter(bazaar, service, name="stored", aggregation="last", measure="bytes")
    parts = [{"model": "unit", "meter": name, "unit_price": "1"} for name in ("people", "longest", "stored")]
    await price(bazaar, service, *parts)

    def at(minutes: int, seconds: str, size: str, user: str, **more: Any) -> UsageEvent:
        event = bazaar.event(subscription, seconds, at=clock.now() + timedelta(minutes=minutes), user=user, **more)
        return spoken(event, bytes=size)

    taken = await bazaar.take([at(-5, "30", "500", "asha"), at(-9, "40", "900", "bina"), at(-7, "10", "1", "asha")])
    first = await invoices.issue(PLATFORM, MONTH, subscription.org, until=taken.batch)
    assert first is not None
    assert {line["meter"]: line["quantity"] for line in await invoices.lines(PLATFORM, first.id)} == {
        "people": 2,
        "longest": 40,
        "stored": 500,
    }
    await bazaar.take([at(-3, "60", "700", "chand"), at(-1, "5", "650", "", cache="hit", cached_share="0")])
    lines = await billed(invoices, clock, subscription.org)
    assert {line["meter"]: (line["quantity"], line["taxable"], line["calls"]) for line in lines} == {
        "people": (1, 1, 2),
        "longest": (20, 20, 2),
        "stored": (150, 150, 2),
    }
    for line in lines:
        assert len((await invoices.calls(PLATFORM, line["id"])).items) == 2


async def test_a_subscription_without_calls_owes_its_fee_by_the_plans_it_stood_on(
    bazaar: Bazaar, invoices: Invoices, clock: SetClock, database: Any
) -> None:
    service, _ = await stall(bazaar)
    await price(bazaar, service, {"model": "flat", "amount": "300"})
    await price(bazaar, service, {"model": "flat", "amount": "600"}, plan_code="professional")
    moved = PERIOD.start + (PERIOD.end - PERIOD.start) / 3
    await bazaar.run("UPDATE subscriptions SET started_at = %s", PERIOD.start - timedelta(days=40))
    await bazaar.run(
        """INSERT INTO events (id, stream, version, type, data, actor, org_id, at, prev_hash, hash)
           SELECT gen_random_uuid(), 'subscription/' || subscriptions.id, 1, 'subscription.plan_changed',
                  jsonb_build_object('from', plan_id, 'to', other.id), 'x', org_id, %s, '', ''
           FROM subscriptions, plans AS other WHERE other.code = 'professional'""",
        moved,
    )
    await bazaar.run("UPDATE subscriptions SET plan_id = (SELECT id FROM plans WHERE code = 'professional')")
    close_month(clock)
    run = await invoices.issue_all(PLATFORM, MONTH)
    lines = await invoices.lines(PLATFORM, run.issued[0].id)
    assert [(line["kind"], line["plan"], line["calls"], line["taxable"]) for line in lines] == [
        ("fee", "basic", 0, 100),
        ("fee", "professional", 0, 400),
    ]
    assert not (await invoices.calls(PLATFORM, lines[0]["id"])).items
    assert not (await invoices.issue_all(PLATFORM, MONTH)).issued
    settled = await Settlements(database.app, clock, Pseudonyms(bytes(32)), invoices).close_all(PLATFORM, MONTH)
    assert [one.gross for one in settled] == [500]


async def test_a_minimum_is_charged_when_the_month_is_over_and_given_back_for_late_usage(
    bazaar: Bazaar, invoices: Invoices, clock: SetClock
) -> None:
    service, subscription = await stall(bazaar)
    await price(bazaar, service, {"model": "unit", "meter": "characters", "unit_price": "1"}, minimum="500")
    await bazaar.run("UPDATE subscriptions SET started_at = %s", PERIOD.start - timedelta(days=40))
    taken = await bazaar.take([bazaar.event(subscription, "200")])
    part = await invoices.issue(PLATFORM, MONTH, subscription.org, until=taken.batch)
    assert part is not None and part.net == 200
    lines = await billed(invoices, clock, subscription.org)
    assert [(line["kind"], line["taxable"]) for line in lines] == [("minimum", 300)]
    await bazaar.take([bazaar.event(subscription, "120", at=PERIOD.end - timedelta(days=2))])
    clock.advance(days=31)
    later = await invoices.issue(PLATFORM, "2026-12", subscription.org)
    assert later is not None
    found = [(line["period"], line["kind"], line["taxable"]) for line in await invoices.lines(PLATFORM, later.id)]
    assert sorted(found) == [
        ("2026-11", "adjustment", -120),
        ("2026-11", "adjustment", 120),
        ("2026-12", "minimum", 500),
    ]


async def test_a_price_by_volume_billed_in_parts_ends_where_it_would_have_ended_at_once(
    bazaar: Bazaar, invoices: Invoices, clock: SetClock
) -> None:
    service, subscription = await stall(bazaar)
    tiers = [{"up_to": "100", "unit_price": "1"}, {"unit_price": "0.6"}]
    await price(bazaar, service, {"model": "volume", "meter": "characters", "tiers": tiers})
    taken = await bazaar.take([bazaar.event(subscription, "80")])
    first = await invoices.issue(PLATFORM, MONTH, subscription.org, until=taken.batch)
    assert first is not None and first.net == 80
    await bazaar.take([bazaar.event(subscription, "70")])
    lines = await billed(invoices, clock, subscription.org)
    assert sum(line["taxable"] for line in lines) + 80 == 150 * D("0.6")


async def test_a_document_says_how_an_amount_comes_together(
    bazaar: Bazaar, invoices: Invoices, clock: SetClock
) -> None:
    service, subscription = await stall(bazaar)
    tiers = [{"up_to": "100", "unit_price": "1"}, {"unit_price": "0.5", "flat": "7"}]
    await price(bazaar, service, {"model": "graduated", "meter": "characters", "tiers": tiers, "free_units": "10"})
    await bazaar.take([bazaar.event(subscription, "150")])
    [line] = await billed(invoices, clock, subscription.org)
    document = await invoices.document(PLATFORM, line["invoice_id"])
    assert document["lines"][0]["steps"] == [
        {"label": "tier 1", "quantity": "100", "price": "1", "amount": "100"},
        {"label": "tier 2", "quantity": "40", "price": "0.5", "amount": "20"},
        {"label": "tier 2 begins", "quantity": "1", "price": "7", "amount": "7"},
    ]
    assert line["taxable"] == 127


async def test_an_event_that_comes_twice_is_rated_once(bazaar: Bazaar, clock: SetClock, database: Any) -> None:
    service, subscription = await stall(bazaar)
    await meter(bazaar, service, name="calls", aggregation="count")
    parts = [{"model": "unit", "meter": name, "unit_price": "1"} for name in ("calls", "characters")]
    await price(bazaar, service, *parts)
    event = bazaar.event(subscription, "10")
    await bazaar.take([event, event])
    await bazaar.take([event])
    live = await Rating(database.app, clock).live(consumer(subscription.org))
    assert live.total == 11


async def many(bazaar: Bazaar, chance: random.Random) -> list[Subscription]:
    """Open stalls with every kind of meter, and let organisations call them."""
    bazaar.chance = chance
    services = [await bazaar.service(f"s{n}", unit=unit, price=None) for n, unit in enumerate(["characters", "tokens"])]
    plain = await bazaar.service("plain", unit="pages", price="0.5", free="3")
    await bazaar.card(plain, price="0.25", start=bazaar.clock.now() - timedelta(days=5))
    await meter(bazaar, services[0], name="urdu", measure="characters", filter={"language_pairs": ["hi>ur"]})
    await meter(bazaar, services[0], name="people", aggregation="unique", measure="end_user")
    await meter(bazaar, services[1], name="net", measure="tokens", less=["cached_tokens"])
    await price(bazaar, services[0], *[{"model": "unit", "meter": m, "unit_price": "1"} for m in ("urdu", "people")])
    tiers = [{"up_to": "50", "unit_price": "2"}, {"unit_price": "1"}]
    await price(bazaar, services[1], {"model": "graduated", "meter": "net", "tiers": tiers})
    organisations = [await bazaar.organisation(f"O{n}") for n in range(4)]
    return [await bazaar.subscribe(org, service) for org in organisations for service in (*services, plain)]


def some_calls(bazaar: Bazaar, subscriptions: list[Subscription], count: int) -> list[UsageEvent]:
    chance, events = bazaar.chance, []
    for _ in range(count):
        subscription = chance.choice(subscriptions)
        event = bazaar.event(
            subscription,
            str(chance.randint(0, 90)),
            at=bazaar.clock.now() - timedelta(minutes=chance.randint(0, 60 * 24 * 12)),
            cache=chance.choice(["", "miss", "hit"]),
            language_pair=chance.choice(["hi>ur", "hi>ta"]),
            user=chance.choice(["", "asha", "bina"]),
        )
        if event.cache == "hit":
            event.cached_units = {subscription.service.unit: event.units[subscription.service.unit]}
            event.cached_share = chance.choice(["", "0.5"])
        events.append(spoken(event, cached_tokens=str(chance.randint(0, 20))))
    return events


async def test_many_organisations_gathered_in_one_scan_are_rated_as_each_is_alone(
    bazaar: Bazaar, database: Any
) -> None:
    subscriptions = await many(bazaar, random.Random(3))
    orgs = sorted({one.org for one in subscriptions})
    first = await bazaar.take(some_calls(bazaar, subscriptions, 150))
    second = await bazaar.take(some_calls(bazaar, subscriptions, 150))
    async with database.app.transaction(PLATFORM_SCOPE) as connection:
        for batches in ((0, second.batch), (first.batch, second.batch)):
            together = await rating.charges_of_many(connection, orgs, PERIOD, batches, {})
            for org in orgs:
                alone = await rating.charges(connection, org, PERIOD, batches)
                assert together[org].charges == alone.charges and alone.charges
        gathered = await rating.measured_many(connection, orgs, PERIOD, (0, second.batch))
    assert sum(one.calls if one.counted is None else one.counted for usage in gathered.values() for one in usage) == 300


async def test_the_running_cost_goes_on_from_where_it_stopped_and_is_what_a_new_look_finds(
    bazaar: Bazaar, clock: SetClock, database: Any
) -> None:
    subscriptions = await many(bazaar, random.Random(5))
    ongoing = Rating(database.app, clock)
    plain = [one for one in subscriptions if one.service.slug != "s0"]
    for _ in range(3):
        await bazaar.take(some_calls(bazaar, plain, 60))
        for org in {one.org for one in plain}:
            fresh = await Rating(database.app, clock).live(consumer(org))
            assert (await ongoing.live(consumer(org))).charges == fresh.charges
    await bazaar.card(plain[1].service, price="9", start=clock.now() - timedelta(days=1))
    org = plain[1].org
    fresh = await Rating(database.app, clock).live(consumer(org))
    assert (await ongoing.live(consumer(org))).charges == fresh.charges, "a new price counts in the past days, too"


async def test_the_running_cost_forgets_calls_that_were_voided_or_corrected_after_it_had_read_them(
    bazaar: Bazaar, invoices: Invoices, clock: SetClock, database: Any
) -> None:
    org = await bazaar.organisation()
    subscription = await bazaar.subscribe(org, await bazaar.service(price="1"))
    events = [bazaar.event(subscription, quantity) for quantity in ("10", "20", "40")]
    await bazaar.take(events)
    ongoing = Rating(database.app, clock)
    assert (await ongoing.live(consumer(org))).total == 70
    await invoices.correct_call(PLATFORM, UUID(events[0].id), units=None, reason="a test of ours")
    assert (await ongoing.live(consumer(org))).total == 60
    await invoices.correct_call(PLATFORM, UUID(events[1].id), units={"characters": D(5)}, reason="counted twice")
    await bazaar.take([bazaar.event(subscription, "100")])
    assert (await ongoing.live(consumer(org))).total == 145
    fresh = await Rating(database.app, clock).live(consumer(org))
    assert (await ongoing.live(consumer(org))).charges == fresh.charges

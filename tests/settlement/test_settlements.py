"""From calls to shares: every paisa is somebody's, once, and leads back to its calls."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from msgspec.structs import replace

from bazaar import Bazaar, consumer, partner
from haat.infra.postgres import tenant
from haat.invoices.service import Invoices
from haat.kernel.clock import SetClock
from haat.kernel.errors import InvalidRequest, NotFound, PermissionDenied
from haat.kernel.permissions import PLATFORM
from haat.settings import Settings
from haat.settlement.service import Settlements
from haat.usage.event import Outcome, UsageEvent
from haat.usage.model import Pseudonyms
from haat.usage.service import Usage

MONTH = "2026-11"


@pytest.fixture
def bazaar(database: Any, clock: SetClock) -> Bazaar:
    return Bazaar(database.service, clock)


@pytest.fixture
def invoices(database: Any, clock: SetClock) -> Invoices:
    return Invoices(database.app, clock, Settings())


@pytest.fixture
def settlements(database: Any, clock: SetClock, invoices: Invoices) -> Settlements:
    return Settlements(database.app, clock, Pseudonyms(bytes(32)), invoices)


def close_month(clock: SetClock) -> None:
    clock.advance(seconds=(datetime(2026, 12, 1, 12, tzinfo=UTC) - clock.now()).total_seconds())


async def test_a_provider_gets_seventy_percent_and_the_platform_the_rest(
    bazaar: Bazaar, invoices: Invoices, settlements: Settlements, clock: SetClock
) -> None:
    service = await bazaar.service(price="0.05")
    subscription = await bazaar.subscribe(await bazaar.organisation(), service)
    event = bazaar.event(subscription, "1")
    await bazaar.take([event])
    close_month(clock)
    await invoices.issue_all(PLATFORM, MONTH)
    (settlement,) = await settlements.close_all(PLATFORM, MONTH)
    assert (settlement.gross, settlement.provider, settlement.platform) == (
        Decimal("0.05"),
        Decimal("0.04"),
        Decimal("0.01"),
    )
    vani = partner(service.org)
    statement = await settlements.statement(vani, settlement.id)
    assert statement.lines[0].customer.startswith("customer-")
    page = await settlements.calls(vani, statement.lines[0].id)
    assert [str(call.id) for call in page.items] == [event.id]


async def test_a_call_that_another_provider_executed_is_charged_as_subscribed_and_earned_by_who_executed_it(
    bazaar: Bazaar, invoices: Invoices, settlements: Settlements, clock: SetClock
) -> None:
    called = await bazaar.service("speak", "vani", price="2", free="5", share="0.60")
    other = await bazaar.service("say", "akshara", price="9", share="0.90")
    subscription = await bazaar.subscribe(await bazaar.organisation(), called)
    own = bazaar.event(subscription, "10")
    stood_in = replace(
        bazaar.event(subscription, "10"),
        provider=other.provider,
        provider_org=str(other.org),
        executed_by=str(other.id),
        attempts=2,
    )
    await bazaar.take([own, stood_in])
    close_month(clock)
    await invoices.issue_all(PLATFORM, MONTH)
    closed = {settlement.org_id: settlement for settlement in await settlements.close_all(PLATFORM, MONTH)}
    assert {closed[called.org].gross, closed[other.org].gross} == {Decimal(10), Decimal(20)}, "5 free units, once"
    assert sum(settlement.gross for settlement in closed.values()) == Decimal(30)
    assert closed[other.org].provider == closed[other.org].gross * Decimal("0.60")
    statement = await settlements.statement(partner(other.org), closed[other.org].id)
    page = await settlements.calls(partner(other.org), statement.lines[0].id)
    assert [str(call.id) for call in page.items] == [stood_in.id]


async def test_closing_twice_or_at_once_changes_nothing(
    bazaar: Bazaar, invoices: Invoices, settlements: Settlements, clock: SetClock
) -> None:
    service = await bazaar.service()
    subscription = await bazaar.subscribe(await bazaar.organisation(), service)
    taken = await bazaar.take([bazaar.event(subscription)])
    await invoices.issue(PLATFORM, MONTH, subscription.org, until=taken.batch)
    assert await settlements.close(PLATFORM, MONTH, subscription.org) is None
    results = await asyncio.gather(*[settlements.close(PLATFORM, MONTH, service.org) for _ in range(6)])
    assert len({settlement.id for settlement in results if settlement}) == 1
    assert len(await bazaar.rows("SELECT id FROM events WHERE type = 'settlement.closed'")) == 1
    # A later part of the month's invoice makes a further settlement.
    await bazaar.take([bazaar.event(subscription)])
    close_month(clock)
    await invoices.issue(PLATFORM, MONTH, subscription.org)
    both = await settlements.close_all(PLATFORM, MONTH)
    assert [settlement.part for settlement in both] == [1, 2]
    assert await settlements.close_all(PLATFORM, MONTH) == both


@pytest.mark.parametrize("seed", range(4))
async def test_from_calls_to_shares_every_paisa_adds_up_and_every_call_is_found(
    bazaar: Bazaar, invoices: Invoices, settlements: Settlements, clock: SetClock, database: Any, seed: int
) -> None:
    chance = bazaar.chance = random.Random(seed)
    services = [
        await bazaar.service(
            f"s{number}",
            chance.choice(["vani", "akshara"]),
            unit=chance.choice(["characters", "pages", "audio_seconds"]),
            price=str(Decimal(chance.randint(0, 10**12)).scaleb(-12)),
            free=str(chance.choice([0, 0, 25])),
            share=str(Decimal(chance.randint(0, 100000)).scaleb(-5)),
        )
        for number in range(4)
    ]
    for service in services[:2]:
        start = clock.now() - timedelta(days=chance.randint(1, 15))
        await bazaar.card(service, price=str(Decimal(chance.randint(0, 10**12)).scaleb(-12)), start=start)
    organisations = [await bazaar.organisation(f"O{n}", state=chance.choice(["07", "29", None])) for n in range(3)]
    subscriptions = [
        await bazaar.subscribe(org, service, chance.choice(["free", "basic"]))
        for org in organisations
        for service in chance.sample(services, 3)
    ]
    billed: dict[str, UsageEvent] = {}
    for _ in range(5):
        events = []
        for _ in range(60):
            outcome = chance.choice([Outcome.COMPLETED] * 4 + list(Outcome))
            quantity = str(Decimal(chance.randint(0, 10**8)).scaleb(-6))
            at = clock.now() - timedelta(minutes=chance.randint(0, 60 * 24 * 20))
            subscription = chance.choice(subscriptions)
            part = {"": "0", "miss": "0", "hit": quantity, "partial": str(Decimal(quantity) * chance.randint(0, 2) / 2)}
            cache = chance.choice(list(part))
            event = bazaar.event(subscription, quantity, at=at, outcome=outcome, cache=cache)
            events.append(event)
            if event.units and cache in ("hit", "partial"):
                event.cached_units = {subscription.service.unit: part[cache]}
                event.cached_share = chance.choice(["", "0.5", "0.125"])
            if outcome in (Outcome.COMPLETED, Outcome.CLIENT_LEFT):
                billed[event.id] = event
        taken = await bazaar.take([*events, *chance.sample(events, 10)])
        if chance.random() < 0.5:
            await invoices.issue_all(PLATFORM, MONTH, until=taken.batch)
            await settlements.close_all(PLATFORM, MONTH)
    close_month(clock)
    await invoices.issue_all(PLATFORM, MONTH)
    found = await settlements.close_all(PLATFORM, MONTH)

    issued = (await invoices.page(PLATFORM, limit=100)).items
    assert sum(one.total for one in issued) == sum(one.net + one.tax for one in issued)
    assert sum(one.net for one in issued) == sum(one.gross for one in found)
    assert sum(one.gross for one in found) == sum(one.provider for one in found) + sum(one.platform for one in found)
    calls: list[UUID] = []
    for invoice in issued:
        lines = await invoices.lines(PLATFORM, invoice.id)
        assert sum(line["taxable"] for line in lines) == invoice.net
        for line in lines:
            behind = (await invoices.calls(PLATFORM, line["id"], limit=100)).items
            assert len(behind) == line["calls"]
            assert sum(call.quantity for call in behind) == line["quantity"]
            calls += [call.id for call in behind]
    # Each billed call on exactly one line, and on a second one for what the cache answered of the rest.
    twice = [identifier for identifier, event in billed.items() if event.cache == "partial"]
    assert sorted(map(str, calls)) == sorted([*billed, *twice])
    settled: list[UUID] = []
    for settlement in found:
        for own in (await settlements.statement(partner(settlement.org_id), settlement.id)).lines:
            settled += [call.id for call in (await settlements.calls(partner(settlement.org_id), own.id)).items]
    assert sorted(settled) == sorted(calls)
    usage = Usage(database.app, clock, Pseudonyms(bytes(32)))
    for event in chance.sample(list(billed.values()), 20):
        story = await usage.call(PLATFORM, UUID(event.id))
        assert story.invoice and story.settlement
        assert story.invoice["serial"] in {one.serial for one in issued}
        assert (story.cached_invoice is not None) == (event.cache == "partial")
        assert (story.cached_settlement is not None) == (event.cache == "partial")


async def test_a_provider_finds_nothing_of_anothers_settlement(
    bazaar: Bazaar, invoices: Invoices, settlements: Settlements, clock: SetClock, database: Any
) -> None:
    service, other = await bazaar.service(), await bazaar.service("read", "akshara")
    subscription = await bazaar.subscribe(await bazaar.organisation(), service)
    await bazaar.take([bazaar.event(subscription)])
    close_month(clock)
    await invoices.issue_all(PLATFORM, MONTH)
    (settlement,) = await settlements.close_all(PLATFORM, MONTH)
    (line,) = (await settlements.statement(PLATFORM, settlement.id)).lines
    stranger = partner(other.org)
    for attempt in (
        settlements.statement(stranger, settlement.id),
        settlements.calls(stranger, line.id),
        settlements.page(stranger, provider_org=service.org),
    ):
        with pytest.raises(NotFound):
            await attempt
    assert (await settlements.page(stranger)).items == []
    assert (await settlements.page(partner(service.org))).items == [settlement]
    for nobody in (consumer(subscription.org), stranger):
        with pytest.raises(PermissionDenied):
            await settlements.close_all(nobody, MONTH)
    with pytest.raises(PermissionDenied):
        await settlements.page(consumer(subscription.org))
    async with database.app.transaction(tenant(other.org)) as connection:
        for table in ("settlements", "settlement_lines"):
            assert await (await connection.execute(f"SELECT FROM {table}")).fetchall() == []


async def test_a_closed_settlement_is_never_changed(
    bazaar: Bazaar, invoices: Invoices, settlements: Settlements, clock: SetClock, database: Any
) -> None:
    subscription = await bazaar.subscribe(await bazaar.organisation(), await bazaar.service())
    await bazaar.take([bazaar.event(subscription)])
    close_month(clock)
    await invoices.issue_all(PLATFORM, MONTH)
    await settlements.close_all(PLATFORM, MONTH)
    for statement in ("UPDATE settlements SET part = 9", "DELETE FROM settlement_lines"):
        with psycopg.connect(database.owner_dsn) as owner, pytest.raises(psycopg.Error, match="never edited"):
            owner.execute(statement)
        with pytest.raises(psycopg.Error, match="permission denied"):
            await bazaar.run(statement)


async def test_what_is_no_month_is_not_settled(settlements: Settlements) -> None:
    with pytest.raises(InvalidRequest):
        await settlements.close_all(PLATFORM, "last month")

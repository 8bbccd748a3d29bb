"""Invoices that wallets pay while gateways draw from them: nothing ends below zero, and nothing stays unpaid."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal
from typing import Any

import pytest

from bazaar import Bazaar, Subscription
from haat.infra.postgres import PLATFORM_SCOPE
from haat.invoices.service import Invoices
from haat.kernel.clock import SetClock
from haat.kernel.permissions import PLATFORM
from haat.settings import Settings
from haat.usage import intake
from haat.wallet import leases
from haat.wallet.holds import WALLET
from haat.wallet.leases import Ask
from haat.wallet.model import NANO, Mode
from haat.wallet.service import Payer, Wallets
from rating.stalls import price
from wallet.played import CALL, TAX, Played, prepaid

PACKAGE = 5 * CALL
"""What a call costs at most that may begin a package."""


@pytest.fixture
def bazaar(database: Any, clock: SetClock) -> Bazaar:
    return Bazaar(database.service, clock)


@pytest.fixture
def wallets(database: Any, clock: SetClock) -> Wallets:
    return Wallets(database.app, clock, TAX)


@pytest.fixture
def invoices(database: Any, clock: SetClock) -> Invoices:
    return Invoices(database.app, clock, Settings(), wallets=Payer(TAX))


async def by_the_package(bazaar: Bazaar, wallets: Wallets, rupees: str, *, fees: bool) -> Subscription:
    """Subscribe to calls that are sold seven for five rupees, with or without ten for a month of at least forty."""
    org = await bazaar.organisation()
    service = await bazaar.service(unit="characters", price=None)
    terms: list[dict[str, Any]] = [
        {"model": "package", "meter": "characters", "package_size": "7", "package_price": "5"},
        {"model": "flat", "amount": "10", "prorated": False},
    ]
    await price(bazaar, service, *(terms if fees else terms[:1]), minimum="40" if fees else "0")
    subscription = await bazaar.subscribe(org, service)
    await wallets.set_mode(PLATFORM, org, Mode.PREPAID)
    await wallets.top_up(PLATFORM, org, Decimal(rupees), key="a")
    return subscription


async def test_an_invoice_is_paid_while_a_lease_still_counts_the_calls_that_are_on_it(
    database: Any, bazaar: Bazaar, wallets: Wallets, invoices: Invoices, clock: SetClock
) -> None:
    subscription = await prepaid(bazaar, wallets, "10.00")
    one, last = (Played(name, database.service, clock, subscription.org) for name in "ab")
    await one.ask(need=10 * NANO, want=10 * NANO)
    served = sum(one.call() for _ in range(4))
    await one.ship(bazaar, subscription)  # and has not asked since
    standing = await wallets.standing(PLATFORM, subscription.org)
    assert (standing.unbilled, standing.leased, one.out) == (Decimal("4.72"), 10, Decimal("5.28"))
    await invoices.issue(PLATFORM, "2026-11", subscription.org, until=await watermark(database))
    assert [(each.total, each.owed) for each in (await invoices.page(PLATFORM)).items] == [(Decimal("4.72"), 0)]
    one.give_up()
    await one.ask()
    while not (await last.ask(need=CALL, want=CALL)).denied:
        served += last.call()
    await last.ship(bazaar, subscription)
    await invoices.issue(PLATFORM, "2026-11", subscription.org, until=await watermark(database))
    issued = (await invoices.page(PLATFORM)).items
    assert (served, {each.state for each in issued}) == (8, {"paid"})
    assert (await wallets.standing(PLATFORM, subscription.org)).balance == Decimal("0.56")


async def test_what_is_paid_afterwards_is_not_paid_with_what_gateways_have_leased(
    database: Any, bazaar: Bazaar, wallets: Wallets, invoices: Invoices, clock: SetClock
) -> None:
    org = await bazaar.organisation()
    service = await bazaar.service(unit="characters", price="1")
    before, afterwards = await bazaar.subscribe(org, service), await bazaar.subscribe(org, service)
    await wallets.set_mode(PLATFORM, org, Mode.PREPAID, before.id)
    await wallets.top_up(PLATFORM, org, Decimal("10.00"), key="a")
    one = Played("a", database.service, clock, org)
    await one.ask(need=10 * NANO, want=10 * NANO)
    assert one.call() and one.call()
    await one.ship(bazaar, before)
    await bazaar.take([bazaar.event(afterwards, "5")])
    await invoices.issue(PLATFORM, "2026-11", org, until=await watermark(database))
    [issued] = (await invoices.page(PLATFORM)).items
    assert (issued.total, issued.owed) == (Decimal("8.26"), Decimal("5.90"))
    assert (await wallets.standing(PLATFORM, org)).balance == one.out == Decimal("7.64")


@pytest.mark.parametrize("seed", range(12))
async def test_in_whatever_order_gateways_and_invoices_come_all_is_covered_and_all_is_paid(
    database: Any, bazaar: Bazaar, wallets: Wallets, invoices: Invoices, clock: SetClock, seed: int
) -> None:
    chance, fees = random.Random(seed), seed % 3 == 0
    subscription = await by_the_package(bazaar, wallets, "106.20" if fees else "59.00", fees=fees)
    org = subscription.org
    gateways = [Played(f"gateway-{n}", database.service, clock, org) for n in range(3)]

    async def step(one: Played, kind: str) -> None:
        match kind:
            case "ask" | "ask in vain":
                need, want = chance.choice((0, PACKAGE)), chance.randrange(5) * PACKAGE
                await one.ask(need, want, hears=kind == "ask")
            case "call":
                one.call(PACKAGE)
            case "ship":
                await one.ship(bazaar, subscription)
            case "give up":
                one.give_up()
            case "bill":
                if newest := await watermark(database):
                    await invoices.issue(PLATFORM, "2026-11", org, until=newest)

    async def check() -> None:
        standing, out = await wallets.standing(PLATFORM, org), sum(one.out for one in gateways)
        assert standing.leased >= out and standing.balance >= standing.unbilled + out
        assert not any(one.owed for one in (await invoices.page(PLATFORM, org=org)).items)

    kinds = {"ask": 6, "ask in vain": 1, "call": 12, "ship": 4, "give up": 1, "bill": 2}
    for kind in chance.choices([*kinds], [*kinds.values()], k=60):
        await step(chance.choice(gateways), kind)
        await check()
    clock.advance(days=10)
    for one in chance.sample(gateways, 2):  # the month is closed before they have asked again
        await one.ship(bazaar, subscription)
    await invoices.issue(PLATFORM, "2026-11", org)
    issued = (await invoices.page(PLATFORM, org=org)).items
    assert {one.state for one in issued} == {"paid"}
    standing = await wallets.standing(PLATFORM, org)
    assert standing.balance == Decimal("106.20" if fees else "59.00") - sum(one.total for one in issued) >= 0


@pytest.mark.parametrize("seed", range(3))
async def test_what_gateways_spend_by_the_package_while_invoices_are_issued_is_paid_to_the_last_paisa(
    database: Any, bazaar: Bazaar, wallets: Wallets, invoices: Invoices, clock: SetClock, seed: int
) -> None:
    chance = random.Random(seed)
    subscription = await by_the_package(bazaar, wallets, "177.00", fees=True)
    org = subscription.org
    gateways = [Played(f"gateway-{n}", database.service, clock, org) for n in range(5)]

    async def live(one: Played) -> None:
        await one.ask(need=PACKAGE, want=chance.randrange(1, 4) * PACKAGE)
        for _ in range(chance.randrange(4)):
            one.call(PACKAGE)
        if chance.random() < 0.5:
            await one.ship(bazaar, subscription)
        if chance.random() < 0.3:
            one.give_up()
            await one.ask()

    async def bill() -> None:
        if newest := await watermark(database):
            await invoices.issue(PLATFORM, "2026-11", org, until=newest)

    async def watch() -> None:
        standing = await wallets.standing(PLATFORM, org)
        assert standing.balance >= standing.unbilled

    for step in range(20):
        await asyncio.gather(*(live(one) for one in gateways), *([bill(), watch()] if step % 5 == 4 else []))
        standing, out = await wallets.standing(PLATFORM, org), sum(one.out for one in gateways)
        assert standing.leased >= out and standing.balance >= standing.unbilled + out
        clock.advance(seconds=7)
    for one in gateways:
        one.give_up()
        await one.ship(bazaar, subscription)
        await one.ask()
    clock.advance(days=12)
    await invoices.issue(PLATFORM, "2026-11", org)
    issued = (await invoices.page(PLATFORM, org=org)).items
    lines = [line for one in issued for line in await invoices.lines(PLATFORM, one.id)]
    assert {one.state for one in issued} == {"paid"} and sum(line["calls"] for line in lines) > 20
    standing = await wallets.standing(PLATFORM, org)
    assert standing.balance == 177 - sum(one.total for one in issued) >= 0
    assert (standing.unbilled, standing.leased) == (Decimal("47.20"), 0), "December's minimum is not due yet"


async def test_invoices_and_gateways_that_want_the_same_wallets_at_once_wait_for_each_other_in_one_order(
    database: Any, bazaar: Bazaar, wallets: Wallets, invoices: Invoices, clock: SetClock
) -> None:
    chance = random.Random(3)
    orgs = [await prepaid(bazaar, wallets, "50.00", f"s{n}") for n in range(8)]
    await bazaar.take([bazaar.event(one, "3") for one in orgs])
    clock.advance(days=12)

    async def sync(name: str) -> None:
        asks = [Ask(one.org, WALLET, 0, 0, 0, CALL, CALL) for one in chance.sample(orgs, len(orgs))]
        async with database.service.transaction(PLATFORM_SCOPE) as connection:
            await leases.sync(connection, name, asks, {name: (1, 0)}, seconds=30, tax=TAX, at=clock.now())

    async def bill() -> None:
        async with database.app.transaction(PLATFORM_SCOPE) as connection:
            wanted = chance.sample([one.org for one in orgs], len(orgs))
            await invoices.issuer().issue(connection, PLATFORM, "2026-11", wanted, clock.now())

    await asyncio.gather(bill(), *(sync(f"gateway-{n}") for n in range(4)), bill())
    issued = (await invoices.page(PLATFORM)).items
    assert [(one.state, one.total) for one in issued] == [("paid", Decimal("3.54"))] * len(orgs)


async def watermark(database: Any) -> int:
    async with database.service.transaction(PLATFORM_SCOPE) as connection:
        return await intake.watermark(connection)

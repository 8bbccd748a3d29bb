"""Leases: many gateways on one wallet never spend more than it has, whoever dies, and nothing is lost for good."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from bazaar import Bazaar, Subscription, consumer
from haat.infra.postgres import PLATFORM_SCOPE, Database
from haat.invoices.service import Invoices
from haat.kernel.clock import SetClock
from haat.kernel.errors import NotFound
from haat.kernel.permissions import PLATFORM
from haat.settings import Settings
from haat.usage import intake
from haat.usage import store as usage_store
from haat.usage.model import MAX_BEHIND_MS
from haat.wallet import leases
from haat.wallet.budgets import Budgets
from haat.wallet.holds import WALLET, budget_fund
from haat.wallet.leases import Answer, Ask
from haat.wallet.model import NANO, Mode, from_nano
from haat.wallet.service import Payer, Wallets
from rating.stalls import price

TAX = Decimal("0.18")
CALL = 1_180_000_000
"""What a call costs with tax: a rupee and 18 paise."""


@pytest.fixture
def bazaar(database: Any, clock: SetClock) -> Bazaar:
    return Bazaar(database.service, clock)


@pytest.fixture
def wallets(database: Any, clock: SetClock) -> Wallets:
    return Wallets(database.app, clock, TAX)


@dataclass
class Played:
    """A gateway as the control plane knows it: what it may draw, what it has drawn, where its journal is."""

    name: str
    db: Database
    clock: SetClock
    org: UUID
    fund: str = WALLET
    limit: int = 0
    taken: int = 0
    used: int = 0
    place: int = 0
    calls: list[int] = field(default_factory=list)
    """Places of the journal of calls that are not in the usage store."""

    async def ask(self, need: int = 0, want: int = 0, *, hears: bool = True) -> Answer:
        ask = Ask(self.org, self.fund, self.limit, self.taken, self.used, need, want)
        async with self.db.transaction(PLATFORM_SCOPE) as connection:
            [answer] = await leases.sync(
                connection, self.name, [ask], {self.name: (1, self.place)}, seconds=30, tax=TAX, at=self.clock.now()
            )
        if hears:
            self.limit = answer.limit
        return answer

    def call(self, cost: int = CALL) -> bool:
        """Make a call and record it, if the lease covers it."""
        if self.taken + cost > self.limit:
            return False
        self.taken += cost
        self.used += cost
        self.place += 1
        self.calls.append(self.place)
        return True

    def give_up(self) -> None:
        self.limit = self.taken

    async def ship(self, bazaar: Bazaar, subscription: Subscription) -> None:
        """Bring the journal to the usage store, as the shipper does it: rows and position together."""
        calls, self.calls = self.calls, []
        if calls:
            await bazaar.take([bazaar.event(subscription, "1") for _ in calls])
        async with self.db.transaction(PLATFORM_SCOPE) as connection:
            await usage_store.move(connection, self.name, 1, self.place, self.clock.now())


async def prepaid(bazaar: Bazaar, wallets: Wallets, rupees: str, slug: str = "speak") -> Subscription:
    org = await bazaar.organisation()
    subscription = await bazaar.subscribe(org, await bazaar.service(slug, unit="characters", price="1"))
    await wallets.set_mode(PLATFORM, org, Mode.PREPAID)
    await wallets.top_up(PLATFORM, org, Decimal(rupees), key="a")
    return subscription


async def test_a_lease_is_half_of_what_is_there_or_what_one_call_needs(
    database: Any, bazaar: Bazaar, wallets: Wallets, clock: SetClock
) -> None:
    subscription = await prepaid(bazaar, wallets, "100.00")
    one, two = (Played(name, database.service, clock, subscription.org) for name in "ab")
    assert (await one.ask(want=1000 * NANO)).limit == 50 * NANO
    assert (await two.ask(need=40 * NANO, want=40 * NANO)).limit == 40 * NANO
    denied = await two.ask(need=40 * NANO, want=40 * NANO)
    assert denied.denied and denied.limit == 45 * NANO and denied.left == 5 * NANO
    standing = await wallets.standing(consumer(subscription.org))
    assert (standing.leased, standing.available) == (Decimal(95), Decimal(5))
    assert {(one.gateway, one.held) for one in await wallets.leases(PLATFORM)} == {("a", 50), ("b", 45)}


async def test_what_is_not_drawn_comes_back_at_once_when_it_is_given_up(
    database: Any, bazaar: Bazaar, wallets: Wallets, clock: SetClock
) -> None:
    subscription = await prepaid(bazaar, wallets, "10.00")
    one, two = (Played(name, database.service, clock, subscription.org) for name in "ab")
    await one.ask(need=10 * NANO, want=10 * NANO)
    assert (await two.ask(need=NANO, want=NANO)).denied
    assert one.call() and one.call()
    one.give_up()
    await one.ask()
    assert (await two.ask(need=7 * NANO, want=7 * NANO)).limit == 7 * NANO


async def test_a_call_is_held_by_its_lease_until_it_is_stored_and_as_usage_after(
    database: Any, bazaar: Bazaar, wallets: Wallets, clock: SetClock
) -> None:
    subscription = await prepaid(bazaar, wallets, "10.00")
    one = Played("a", database.service, clock, subscription.org)
    await one.ask(need=2 * CALL, want=2 * CALL)
    assert one.call() and one.call() and not one.call()
    await one.ask()
    standing = await wallets.standing(PLATFORM, subscription.org)
    assert (standing.unbilled, standing.leased) == (0, from_nano(2 * CALL))
    await one.ship(bazaar, subscription)
    standing = await wallets.standing(PLATFORM, subscription.org)
    assert (standing.unbilled, standing.leased) == (Decimal("2.36"), 0)


async def test_a_silent_gateways_lease_comes_back_only_when_its_calls_can_be_counted(
    database: Any, bazaar: Bazaar, wallets: Wallets, clock: SetClock
) -> None:
    subscription = await prepaid(bazaar, wallets, "10.00")
    dead = Played("dead", database.service, clock, subscription.org)
    await dead.ask(need=10 * NANO, want=10 * NANO)
    assert dead.call()
    clock.advance(days=3)
    await wallets.sweep()
    assert (await wallets.standing(PLATFORM, subscription.org)).available == 0  # its call may still come
    async with database.service.transaction(PLATFORM_SCOPE) as connection:  # a successor finds the journal
        assert await leases.end(connection, "dead", {"dead": (1, dead.place)}) == 1
    assert (await wallets.standing(PLATFORM, subscription.org)).available == 0  # and it is not shipped
    await dead.ship(bazaar, subscription)
    standing = await wallets.standing(PLATFORM, subscription.org)
    assert (standing.leased, standing.available) == (0, Decimal("8.82"))
    assert await wallets.sweep() == 1


async def test_a_lease_comes_back_when_nothing_of_it_can_be_counted_any_more_or_the_operator_says_so(
    database: Any, bazaar: Bazaar, wallets: Wallets, clock: SetClock
) -> None:
    subscription = await prepaid(bazaar, wallets, "10.00")
    for name in ("lost", "gone"):
        await Played(name, database.service, clock, subscription.org).ask(need=5 * NANO, want=5 * NANO)
    assert await wallets.forget_gateway(PLATFORM, "gone") == 1
    with pytest.raises(NotFound):
        await wallets.forget_gateway(PLATFORM, "gone")
    assert (await wallets.standing(PLATFORM, subscription.org)).available == 5
    clock.advance(days=35)
    assert await wallets.sweep() == 0
    clock.advance(days=2)
    assert await wallets.sweep() == 1
    assert (await wallets.standing(PLATFORM, subscription.org)).available == 10


async def test_an_answer_that_gets_lost_is_given_up_by_the_next_question(
    database: Any, bazaar: Bazaar, wallets: Wallets, clock: SetClock
) -> None:
    subscription = await prepaid(bazaar, wallets, "10.00")
    one = Played("a", database.service, clock, subscription.org)
    await one.ask(need=4 * NANO, want=4 * NANO)
    await one.ask(need=4 * NANO, want=4 * NANO, hears=False)
    await one.ask()
    standing = await wallets.standing(PLATFORM, subscription.org)
    assert (one.limit, standing.leased) == (4 * NANO, 4)


async def test_a_gateway_that_was_long_idle_goes_on_where_it_was(
    database: Any, bazaar: Bazaar, wallets: Wallets, clock: SetClock
) -> None:
    subscription = await prepaid(bazaar, wallets, "10.00")
    one = Played("a", database.service, clock, subscription.org)
    await one.ask(need=CALL, want=CALL)
    assert one.call()
    await one.ask()
    await one.ship(bazaar, subscription)
    await wallets.standing(PLATFORM, subscription.org)
    clock.advance(hours=3)
    assert await wallets.sweep() == 1
    assert (await one.ask(need=CALL, want=CALL)).limit == 2 * CALL
    assert (await wallets.standing(PLATFORM, subscription.org)).leased == from_nano(CALL)


async def test_a_hard_budget_is_leased_like_a_wallet_and_what_is_left_depends_on_the_month(
    database: Any, bazaar: Bazaar, wallets: Wallets, clock: SetClock
) -> None:
    org = await bazaar.organisation()
    service = await bazaar.service(unit="characters", price="1")
    mine, other = await bazaar.subscribe(org, service), await bazaar.subscribe(org, service)
    budget = await Budgets(database.app, clock).set(
        consumer(org), Decimal("10.00"), hard_stop=True, application=mine.application
    )
    await bazaar.take([bazaar.event(mine, "4"), bazaar.event(other, "100")])
    november = Played("a", database.service, clock, org, budget_fund(budget.id, "2026-11"))
    december = Played("a", database.service, clock, org, budget_fund(budget.id, "2026-12"))
    assert (await november.ask(need=6 * NANO, want=6 * NANO)).limit == 6 * NANO
    assert (await november.ask(need=1, want=1)).denied
    assert (await december.ask(need=10 * NANO, want=10 * NANO)).limit == 10 * NANO


@pytest.mark.parametrize("seed", range(4))
async def test_many_gateways_never_spend_more_than_was_granted_and_in_the_end_all_of_it(
    database: Any, bazaar: Bazaar, wallets: Wallets, clock: SetClock, seed: int
) -> None:
    chance = random.Random(seed)
    subscription = await prepaid(bazaar, wallets, "60.00")
    granted, served, numbers = Decimal(60), 0, iter(range(1000))

    def born() -> Played:
        return Played(f"gateway-{next(numbers)}", database.service, clock, subscription.org)

    alive, dead = [born() for _ in range(6)], []

    async def live(one: Played) -> None:
        nonlocal served
        await one.ask(need=CALL, want=chance.randrange(1, 8) * CALL)
        for _ in range(chance.randrange(6)):
            served += one.call()
        match chance.randrange(4):
            case 0:
                one.give_up()
                await one.ask()
            case 1:
                await one.ship(bazaar, subscription)
            case 2:
                await one.ask(want=CALL, hears=False)

    for step in range(25):
        await asyncio.gather(*(live(one) for one in alive))
        if chance.random() < 0.3:  # one dies; its successor does not remember what it had
            victim = alive.pop(chance.randrange(len(alive)))
            dead.append(victim)
            alive.append(born())
        if chance.random() < 0.5 and dead:
            async with database.service.transaction(PLATFORM_SCOPE) as connection:
                await leases.end(connection, dead[0].name, {dead[0].name: (1, dead[0].place)})
            await dead.pop(0).ship(bazaar, subscription)
        if step == 12:
            await wallets.top_up(PLATFORM, subscription.org, Decimal("20.00"), key="more")
            granted += 20
        clock.advance(seconds=7)
        assert from_nano(served * CALL) <= granted
        assert (await wallets.standing(PLATFORM, subscription.org)).available >= 0
    for one in dead:
        async with database.service.transaction(PLATFORM_SCOPE) as connection:
            await leases.end(connection, one.name, {one.name: (1, one.place)})
    for one in (*dead, *alive):
        one.give_up()
        await one.ship(bazaar, subscription)
    for one in alive:
        await one.ask()
        await one.ship(bazaar, subscription)
    last = born()
    while not (await last.ask(need=CALL, want=CALL)).denied or last.limit - last.taken >= CALL:
        served += last.call()
    assert from_nano(served * CALL) <= granted < from_nano((served + 1) * CALL)
    await last.ship(bazaar, subscription)
    assert (await wallets.standing(PLATFORM, subscription.org)).unbilled == from_nano(served * CALL)


@pytest.mark.parametrize("seed", range(3))
async def test_what_gateways_spend_by_the_package_while_invoices_are_issued_is_paid_to_the_last_paisa(
    database: Any, bazaar: Bazaar, wallets: Wallets, clock: SetClock, seed: int
) -> None:
    chance, package = random.Random(seed), 5 * CALL
    org = await bazaar.organisation()
    service = await bazaar.service(unit="characters", price=None)
    terms: tuple[dict[str, Any], ...] = (
        {"model": "package", "meter": "characters", "package_size": "7", "package_price": "5"},
        {"model": "flat", "amount": "10", "prorated": False},
    )
    await price(bazaar, service, *terms, minimum="40")
    subscription = await bazaar.subscribe(org, service)
    await wallets.set_mode(PLATFORM, org, Mode.PREPAID)
    await wallets.top_up(PLATFORM, org, Decimal("177.00"), key="a")
    invoices = Invoices(database.app, clock, Settings(), wallets=Payer(TAX))
    gateways = [Played(f"gateway-{n}", database.service, clock, org) for n in range(5)]

    async def live(one: Played) -> None:
        await one.ask(need=package, want=chance.randrange(1, 4) * package)
        for _ in range(chance.randrange(4)):
            one.call(package)
        if chance.random() < 0.5:
            await one.ship(bazaar, subscription)
        if chance.random() < 0.3:
            one.give_up()
            await one.ask()

    async def bill() -> None:
        if newest := await watermark(database):
            await invoices.issue(PLATFORM, "2026-11", org, until=newest)

    for step in range(20):
        await asyncio.gather(*(live(one) for one in gateways), *([bill()] if step % 5 == 4 else []))
        standing = await wallets.standing(PLATFORM, org)
        assert standing.available >= 0 and standing.balance >= standing.unbilled + standing.leased
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
    database: Any, bazaar: Bazaar, wallets: Wallets, clock: SetClock
) -> None:
    chance = random.Random(3)
    orgs = [await prepaid(bazaar, wallets, "50.00", f"s{n}") for n in range(8)]
    await bazaar.take([bazaar.event(one, "3") for one in orgs])
    invoices = Invoices(database.app, clock, Settings(), wallets=Payer(TAX))
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


def test_no_lease_is_given_up_for_lost_while_its_calls_are_still_taken() -> None:
    assert timedelta(milliseconds=MAX_BEHIND_MS) < leases.UNCOUNTABLE

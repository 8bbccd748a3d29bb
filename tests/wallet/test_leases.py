"""Leases: many gateways on one wallet never spend more than it has, whoever dies, and nothing is lost for good."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from bazaar import Bazaar, consumer
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.clock import SetClock
from haat.kernel.errors import NotFound
from haat.kernel.permissions import PLATFORM
from haat.usage.model import MAX_BEHIND_MS
from haat.wallet import leases
from haat.wallet.budgets import Budgets
from haat.wallet.holds import budget_fund
from haat.wallet.model import NANO, from_nano
from haat.wallet.service import Wallets
from wallet.played import CALL, TAX, Played, prepaid


@pytest.fixture
def bazaar(database: Any, clock: SetClock) -> Bazaar:
    return Bazaar(database.service, clock)


@pytest.fixture
def wallets(database: Any, clock: SetClock) -> Wallets:
    return Wallets(database.app, clock, TAX)


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


def test_no_lease_is_given_up_for_lost_while_its_calls_are_still_taken() -> None:
    assert timedelta(milliseconds=MAX_BEHIND_MS) < leases.UNCOUNTABLE

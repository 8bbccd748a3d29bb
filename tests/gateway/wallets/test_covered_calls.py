"""Calls that a wallet or a budget must cover: held, settled, refused, and waiting for a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec import structs

from gateway.rig import APP, ORG, Market, answer
from haat.gateway.limits.registry import PlanLimits
from haat.gateway.market.snapshot import Price
from haat.gateway.wallets.purse import BEAT, OUT_OF_REACH, Purse, steady
from haat.usage.event import Outcome

HOUR = 3_600_000_000
RUPEE = 1_000_000_000
BUDGET = "00000000-0000-7000-8000-0000000000bb"
MakeMarket = Callable[..., Awaitable[Market]]


def prepay(
    market: Market, slug: str = "paid", *, stops: tuple[str, ...] = (), prepaid: bool = True, **more: Any
) -> Purse:
    """Add a service at a rupee a unit whose calls must be covered; return the wallet's purse."""
    market.add_service(slug, **{"price": "1", "unit": "characters", **more})
    directory = market.gateway.directory
    entry = directory.subscriptions[APP, f"service-{slug}"]
    directory.put_subscription(entry.id, structs.replace(entry, prepaid=prepaid, stops=stops))
    return market.gateway.purses.of("wallet", ORG)


def fill(purse: Purse, limit: int, *, denied: bool = False, left: int = 0) -> None:
    purse.fill(limit, steady() + HOUR, 0, denied, left)


def asked(market: Market) -> None:
    """Let it look as if a keeper asks for the purses."""
    market.gateway.limits.counts.signals[BEAT] = steady()


def reports(characters: int, status: int = 200) -> bytes:
    return answer(status, b'{"ok":true}', f"X-Haat-Usage: characters={characters}")


CALL = ("POST", "/v1/services/acme/paid/x", b"a" * 10)


async def test_a_call_holds_the_most_it_can_cost_with_tax_and_is_settled_to_what_it_used(market: Market) -> None:
    purse = prepay(market)
    fill(purse, 20 * RUPEE)
    held = []

    async def look(*_: Any) -> bool:
        held.append(purse.standing())
        return False

    market.provider.behaviour = look
    assert (await market.call(*CALL)).status == 502
    assert (held[0].drawn, held[0].used) == (11_800_000_000, 0)  # 10 bytes are 10 characters at most
    assert purse.standing().drawn == 0  # a call that fails gives everything back
    market.provider.behaviour = reports(4)
    assert (await market.call(*CALL)).status == 200
    assert purse.standing()[:3] == (20 * RUPEE, 4_720_000_000, 4_720_000_000)


async def test_what_is_reported_beyond_what_was_held_is_neither_counted_nor_billed(market: Market) -> None:
    purse = prepay(market)
    fill(purse, 12 * RUPEE)
    market.provider.behaviour = reports(1000)
    assert (await market.call(*CALL)).status == 200
    assert purse.standing().drawn == 11_800_000_000
    assert (await market.settled_event()).units["characters"] == "10"


async def test_a_declared_maximum_is_what_is_held(market: Market) -> None:
    purse = prepay(market)
    fill(purse, 3 * RUPEE)
    market.provider.behaviour = reports(2)
    response = await market.call(*CALL, "X-Haat-Max-Units: characters=2")
    assert response.status == 200
    assert purse.standing().drawn == 2_360_000_000


async def test_a_card_with_several_prices_is_held_at_its_dearest_by_each_unit_it_asks_for(market: Market) -> None:
    purse = prepay(market)
    service = market.gateway.directory.services["acme/paid"]
    asks = (
        ("characters", "50", "8", "0"),  # a package of eight, or two for ten bytes
        ("calls", "2", "0", "1"),  # two rupees each, and one when the first is made
        ("input_tokens", "0.25", "0", "0"),
    )
    price = Price("", "characters", "6.25", "0", 0, plain=False, most=asks)
    market.gateway.directory.put_service(service.id, structs.replace(service, prices=(price,)))
    fill(purse, 200 * RUPEE)
    held = []

    async def look(*_: Any) -> bool:
        held.append(purse.standing())
        return False

    market.provider.behaviour = look
    assert (await market.call(*CALL)).status == 502
    assert held[0].drawn == 124_490_000_000  # 100 + 3 + 2.50, and 18 % of tax
    market.provider.behaviour = answer(200, b"{}", "X-Haat-Usage: characters=4; input_tokens=99")
    assert (await market.call(*CALL)).status == 200
    assert purse.standing().used == 65_490_000_000  # one package was begun: 50 + 3 + 2.50
    assert market.events()[-1].units["input_tokens"] == "10", "what isn't held isn't counted"


async def test_a_call_that_the_wallet_does_not_cover_is_refused_with_what_to_do(market: Market) -> None:
    purse = prepay(market)
    fill(purse, 5 * RUPEE, denied=True)
    asked(market)
    response = await market.call(*CALL)
    problem = response.json()
    assert (response.status, problem["code"]) == (402, "WALLET_EMPTY")
    assert (problem["needed"], problem["left"], problem["currency"]) == ("11.800000000", "5.000000000", "INR")
    assert "₹11.8" in problem["detail"] and "Top it up" in problem["detail"]
    assert response.header("x-should-retry") == "false"
    assert market.provider.requests == []
    event = await market.settled_event()
    assert (event.outcome, event.error_code) == (Outcome.REFUSED, "WALLET_EMPTY")
    assert purse.standing().drawn == 0


async def test_without_a_control_plane_only_what_is_leased_is_spent(market: Market) -> None:
    purse = prepay(market)
    fill(purse, 12 * RUPEE)
    market.gateway.limits.counts.signals[BEAT] = OUT_OF_REACH
    market.provider.behaviour = reports(10)
    assert (await market.call(*CALL)).status == 200
    response = await market.call(*CALL)
    assert (response.status, response.json()["code"]) == (503, "WALLET_UNAVAILABLE")
    assert response.header("retry-after") == "1"


async def test_a_call_waits_for_its_purse_and_goes_on_when_that_is_filled(market: Market) -> None:
    purse = prepay(market)
    market.provider.behaviour = reports(3)
    asked(market)
    calls = [asyncio.create_task(market.call(*CALL)) for _ in range(3)]
    large = asyncio.create_task(market.call(CALL[0], CALL[1], b"a" * 200_000, "X-Haat-Max-Units: characters=5"))
    await market.until(lambda: market.gateway.purses.waiting == 4)
    assert purse.standing().want == 11_800_000_000
    fill(purse, 50 * RUPEE)
    assert [(await call).status for call in (*calls, large)] == [200] * 4
    assert purse.standing().drawn == purse.standing().used == 4 * 3_540_000_000
    assert max(len(request.body) for request in market.provider.requests) == 200_000


async def test_a_call_that_waits_is_refused_when_it_is_said_that_there_is_no_more(market: Market) -> None:
    purse = prepay(market)
    asked(market)
    call = asyncio.create_task(market.call(*CALL))
    await market.until(lambda: market.gateway.purses.waiting == 1)
    fill(purse, 0, denied=True, left=RUPEE)
    response = await call
    assert (response.status, response.json()["left"]) == (402, "1.000000000")


async def test_a_caller_that_leaves_while_its_call_waits_costs_nothing(market: Market) -> None:
    purse = prepay(market)
    asked(market)
    client = await market.connect()
    await client.send(market.raw(*CALL))
    await market.until(lambda: market.gateway.purses.waiting == 1)
    client.reset()
    await market.until(lambda: not market.gateway.clients)
    fill(purse, 50 * RUPEE)
    await market.until(lambda: market.gateway.purses.waiting == 0)
    assert market.provider.requests == []
    assert purse.standing().drawn == 0


async def test_a_call_that_its_limits_refuse_gives_back_what_it_held(market: Market) -> None:
    purse = prepay(market, subscribed=PlanLimits(per_minute=1))
    fill(purse, 50 * RUPEE)
    market.provider.behaviour = reports(10)
    assert [(await market.call(*CALL)).status for _ in range(2)] == [200, 429]
    assert purse.standing().drawn == 11_800_000_000


async def test_a_hard_budget_stops_without_tax_and_each_of_several_funds_must_cover(market: Market) -> None:
    wallet = prepay(market, stops=(BUDGET,))
    market.provider.behaviour = reports(10)
    fill(wallet, 100 * RUPEE)
    asked(market)
    call = asyncio.create_task(market.call(*CALL))
    await market.until(lambda: market.gateway.purses.waiting == 1)
    [budget] = [one for one in market.gateway.purses.all() if one.fund.startswith("budget/")]
    assert budget.fund.split("/")[1] == BUDGET
    fill(budget, 15 * RUPEE)
    assert (await call).status == 200
    assert (wallet.standing().drawn, budget.standing().drawn) == (11_800_000_000, 10_000_000_000)
    fill(budget, 15 * RUPEE, denied=True)
    response = await market.call(*CALL)
    problem = response.json()
    assert (response.status, problem["code"], problem["budget"]) == (429, "BUDGET_SPENT", BUDGET)
    assert wallet.standing().drawn == 11_800_000_000


@pytest.mark.parametrize("price", ["", "0"])
async def test_what_costs_nothing_needs_no_cover(market: Market, price: str) -> None:
    prepay(market, price=price)
    assert (await market.call(*CALL)).status == 200


async def test_a_test_key_needs_no_cover(market: Market) -> None:
    prepay(market)
    assert (await market.call(*CALL, key=market.add_key(mode="test"))).status == 200


async def test_who_pays_afterwards_has_no_purse_at_all(market: Market) -> None:
    market.add_service("free", price="1")
    assert (await market.call("POST", "/v1/services/acme/free/x", b"a")).status == 200
    assert not market.gateway.purses.number


async def test_the_health_says_when_wallets_can_not_be_asked(market: Market) -> None:
    assert "wallets" not in (await market.call("GET", "/health")).json()["components"]
    purse = prepay(market)
    fill(purse, 50 * RUPEE)
    asked(market)
    wallets = (await market.call("GET", "/health")).json()["components"]["wallets"]
    assert wallets == {"status": "healthy", "purses": 1, "waiting": 0}
    market.gateway.limits.counts.signals[BEAT] = OUT_OF_REACH
    health = (await market.call("GET", "/health")).json()
    assert (health["status"], health["components"]["wallets"]["status"]) == ("degraded", "degraded")


async def test_generated_tokens_are_held_once_the_request_says_how_many(market: Market) -> None:
    purse = prepay(market, unit="tokens", dialect="openai", base="/v1")
    fill(purse, 10_000 * RUPEE)
    seen = []

    async def look(_: Any, __: Any, writer: Any) -> bool:
        seen.append(purse.standing().drawn)
        writer.write(answer(200, b'{"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}'))
        return True

    market.provider.behaviour = look
    body = b'{"model":"m","max_tokens":6000,"messages":[]}'
    response = await market.call("POST", "/v1/services/acme/paid/chat/completions", body)
    assert response.status == 200
    assert seen == [(len(body) + 6000) * 1_180_000_000]
    assert purse.standing().drawn == 7 * 1_180_000_000


async def test_a_stream_that_its_caller_leaves_is_settled(market: Market) -> None:
    purse = prepay(market, unit="requests")
    fill(purse, 10 * RUPEE)
    going = asyncio.Event()

    async def stream(_: Any, __: Any, writer: Any) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await writer.drain()
        await going.wait()
        return False

    market.provider.behaviour = stream
    client = await market.connect()
    await client.send(market.raw(*CALL, "Accept: text/event-stream"))
    await market.until(lambda: purse.standing().drawn == 1_180_000_000)
    await client.reader.readuntil(b"data: 1\n\n")
    client.reset()
    await market.until(lambda: purse.standing().drawn == purse.standing().used)
    going.set()
    assert purse.standing().drawn == 1_180_000_000  # what was delivered is billed

"""The same question at the same time: one asks the provider, and nobody fails because of somebody else."""

from __future__ import annotations

import asyncio
import random

import pytest

from gateway.cache.rig import JSON, PATH, Gate, ask, keep, stats
from gateway.rig import Market, Request, Response, answer, reset


async def test_many_who_ask_the_same_at_once_are_one_call_to_the_provider(market: Market) -> None:
    keep(market, ttl_seconds=60)
    gate = Gate(market)
    calls = [asyncio.create_task(ask(market, {})) for _ in range(20)]
    await gate.waited_for(19)
    gate.open()
    responses = await asyncio.gather(*calls)
    assert len(market.provider.requests) == 1
    assert sorted(str(response.header("x-cache")) for response in responses) == ["HIT"] * 19 + ["MISS"]
    assert {response.body for response in responses} == {b'{"n":1}'} and stats(market)["in_flight"] == 0
    await market.until(lambda: len(market.confirmed()) == 20)
    assert sorted(event.cache for event in market.events()) == ["hit"] * 19 + ["miss"]


async def test_nobody_fails_because_somebody_elses_client_left(market: Market) -> None:
    keep(market, ttl_seconds=60)
    gate = Gate(market)
    first = await market.connect()
    await first.send(market.raw("POST", PATH, b"{}", JSON))
    await gate.reached(1)
    calls = [asyncio.create_task(ask(market, {})) for _ in range(5)]
    await gate.waited_for(5)
    first.reset()
    await gate.reached(2)  # one of the others has taken its place, and only one
    gate.open()
    responses = await asyncio.gather(*calls)
    assert [response.status for response in responses] == [200] * 5 and len(market.provider.requests) == 2
    await market.until(lambda: len(market.confirmed()) == 6)
    assert sorted((event.outcome, event.cache) for event in market.events()) == [
        ("client_left", "miss"),
        *[("completed", "hit")] * 4,
        ("completed", "miss"),
    ]


async def test_whoever_takes_the_place_has_all_the_time_it_was_granted(market: Market) -> None:
    keep(market, ttl_seconds=60)
    gate = Gate(market)
    first = await market.connect()
    await first.send(market.raw("POST", PATH, b"{}", JSON))
    await gate.reached(1)
    waiting = asyncio.create_task(ask(market, {}))
    await gate.waited_for(1)
    [call] = [call for call in market.gateway.calls if call.upstream is None]
    granted = call.deadline
    call.deadline = market.gateway.clock.now_us() + 400_000
    first.reset()
    await gate.reached(2)
    assert call.deadline > granted
    gate.open()
    assert (await waiting).status == 200


async def test_after_two_losses_everybody_goes(market: Market) -> None:
    keep(market, ttl_seconds=60)
    gate = Gate(market)
    leaving = [await market.connect() for _ in range(2)]
    for number, client in enumerate(leaving, 1):
        await client.send(market.raw("POST", PATH, b"{}", JSON))
        await market.until(lambda number=number: len(market.gateway.calls) == number)  # type: ignore[misc]
    calls = [asyncio.create_task(ask(market, {})) for _ in range(4)]
    await gate.waited_for(5)
    for number, client in enumerate(leaving, 2):
        client.reset()
        await market.until(lambda number=number: len(market.provider.requests) >= number)  # type: ignore[misc]
    await gate.reached(6)
    gate.open()
    assert [response.status for response in await asyncio.gather(*calls)] == [200] * 4


async def test_a_leader_whose_connection_breaks_fails_alone(market: Market) -> None:
    keep(market, ttl_seconds=60)
    gate = Gate(market)
    broken = asyncio.Event()

    async def once(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await broken.wait()
        market.provider.behaviour = gate.behave
        reset(writer)
        return False

    market.provider.behaviour = once
    calls = [asyncio.create_task(ask(market, {})) for _ in range(4)]
    await gate.waited_for(3)
    broken.set()
    await gate.reached(2)
    gate.open()
    assert sorted(response.status for response in await asyncio.gather(*calls)) == [200, 200, 200, 502]


async def test_nobody_waits_where_answers_are_not_kept(market: Market) -> None:
    keep(market, ttl_seconds=60)
    gate = Gate(market, b"{}", "Cache-Control: no-store")
    calls = [asyncio.create_task(ask(market, {})) for _ in range(4)]
    await gate.waited_for(3)
    gate.open()
    assert {response.status for response in await asyncio.gather(*calls)} == {200}
    assert len(market.provider.requests) == 4
    gate = Gate(market, b"{}", "Cache-Control: no-store")
    calls = [asyncio.create_task(ask(market, {})) for _ in range(4)]
    await gate.reached(8)  # it is known by now: nobody has waited
    gate.open()
    await asyncio.gather(*calls)
    assert stats(market)["coalesced"] == 3


async def test_those_who_wait_do_not_wait_longer_than_their_time(market: Market) -> None:
    market.add_service("slow", timeout_ms=300)
    keep(market, "slow", ttl_seconds=60)
    Gate(market)
    path = "/v1/services/acme/slow/invoke"
    responses = await asyncio.gather(*[ask(market, {}, path=path) for _ in range(3)])
    assert {response.status for response in responses} == {504}
    await market.until(lambda: stats(market)["in_flight"] == 0)


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_clients_and_provider_do_nobody_is_left_waiting(market: Market, seed: int) -> None:
    keep(market, ttl_seconds=1)
    chance = random.Random(seed)

    async def moody(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        for _ in range(chance.randint(0, 20)):
            await asyncio.sleep(0)
        match chance.randint(0, 5):
            case 0:
                reset(writer)
                return False
            case 1:
                writer.write(answer(500, b"{}"))
            case 2:
                writer.write(answer(200, b"{}", "Cache-Control: no-store"))
            case _:
                writer.write(answer(200, request.body))
        return True

    market.provider.behaviour = moody

    async def caller() -> tuple[bytes, Response | None]:
        body = b'{"n":%d}' % chance.randint(0, 3)
        client = await market.connect()
        await client.send(market.raw("POST", PATH, body, JSON, *["Cache-Control: no-cache"] * (chance.random() < 0.1)))
        if chance.random() < 0.3:
            for _ in range(chance.randint(0, 10)):
                await asyncio.sleep(0)
            client.reset()
            return body, None
        return body, await client.receive()

    for _ in range(6):
        outcomes = await asyncio.gather(*[caller() for _ in range(25)])
        for body, response in outcomes:
            assert response is None or response.status in (200, 500, 502)
            if response is not None and response.status == 200:
                assert response.body in (body, b"{}")
        for entry in market.gateway.cache._entries.values():
            entry.expires_at -= chance.choice([0, 2_000_000])
    await market.until(lambda: not market.gateway.calls and not market.gateway.cache.flights)
    cache = market.gateway.cache
    assert cache.bytes == sum(entry.size for entry in cache._entries.values())
    await market.until(lambda: len(market.confirmed()) == len(market.events()))
    assert len({event.id for event in market.events()}) <= 150

"""Connections beyond the cap: no room is said at once, health is answered, and those inside notice nothing."""

from __future__ import annotations

import asyncio

import pytest

from gateway.rig import Client, MakeMarket, Market, Response
from haat.gateway.http import surplus

PATH = "/v1/services/acme/echo/invoke"


async def full(make_market: MakeMarket, most: int = 3) -> tuple[Market, list[Client]]:
    """Return a gateway whose room is taken, and those who are inside."""
    market = await make_market(max_client_connections=most)
    inside = [await market.connect() for _ in range(most)]
    await market.until(lambda: len(market.gateway.clients) == most)
    return market, inside


async def answered(client: Client, method: str = "GET") -> Response:
    response = await client.receive(method)
    assert response is not None
    return response


async def test_one_too_many_is_turned_away_and_told_when_to_come_back(make_market: MakeMarket) -> None:
    market, inside = await full(make_market)
    late = await market.connect()
    await late.send(market.raw("POST", PATH, b"hello"))
    response = await answered(late)
    assert (response.status, response.json()["code"]) == (503, "OVERLOADED")
    assert (response.header("retry-after"), response.header("connection")) == ("1", "close")
    assert response.header("x-request-id") == response.json()["request_id"]
    assert await late.ended()
    assert market.provider.requests == []
    await inside[0].send(market.raw("POST", PATH, b"hello"))
    assert (await answered(inside[0])).status == 200


async def test_room_that_is_left_is_given_to_the_next(make_market: MakeMarket) -> None:
    market, inside = await full(make_market)
    inside[0].close()
    await market.until(lambda: len(market.gateway.clients) == 2)
    assert (await market.call("POST", PATH)).status == 200


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
async def test_health_is_answered_without_room(make_market: MakeMarket, path: str) -> None:
    market, _ = await full(make_market)
    probe = await market.connect()
    await probe.send(market.raw("GET", path), range(1, 20))
    response = await answered(probe)
    assert (response.status, response.header("connection")) == (200, "close")
    assert "status" in response.json()
    assert await probe.ended()


async def test_a_probe_with_head_gets_a_head(make_market: MakeMarket) -> None:
    market, _ = await full(make_market)
    probe = await market.connect()
    await probe.send(market.raw("HEAD", "/health/ready"))
    response = await answered(probe, "HEAD")
    assert (response.status, response.body) == (200, b"")


async def test_who_says_nothing_is_told_after_a_moment(
    make_market: MakeMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surplus, "PATIENCE_SECONDS", 0.05)
    market, _ = await full(make_market)
    silent = await market.connect()
    assert (await answered(silent)).status == 503
    assert await silent.ended()


@pytest.mark.parametrize(
    "raw", [b"\r\n", b"\x16\x03\x01\n", b"a" * 2000, b"GET /health\r\n", b"POST /health HTTP/1.1\r\n"]
)
async def test_anything_else_is_turned_away(make_market: MakeMarket, raw: bytes) -> None:
    market, _ = await full(make_market)
    late = await market.connect()
    await late.send(raw)
    assert (await answered(late)).status == 503


async def test_a_crowd_is_turned_away_unheard(make_market: MakeMarket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surplus, "WAITED_FOR", 5)
    market, _ = await full(make_market)
    crowd = [await market.connect() for _ in range(20)]
    await market.until(lambda: market.gateway.turned_away >= 15)
    told = await asyncio.gather(*(answered(client) for client in crowd[10:]))
    assert {response.status for response in told} == {503}


async def test_stopping_does_not_wait_for_them(make_market: MakeMarket) -> None:
    market, _ = await full(make_market)
    await market.connect()
    await market.until(lambda: len(market.gateway.surplus) == 1)
    async with asyncio.timeout(1.5):
        await market.gateway.stop(0.1)

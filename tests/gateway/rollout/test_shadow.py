"""Copies of calls: who gets them, what becomes of their answers, and what they never do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import structs

from gateway.rig import PROVIDER_ORG, Market, answer
from gateway.rollout.rig import ROLLOUT, ask, change, divide, tell_versions
from haat.gateway.market.policy import ShadowPolicy
from haat.gateway.rollout.shadow import LARGEST, MOST
from haat.usage.event import UsageEvent

ALL = ShadowPolicy(version="2", buckets=10_000)


async def copies(market: Market, count: int = 1) -> list[UsageEvent]:
    def found() -> list[UsageEvent]:
        return [event for event in market.events() if event.mode == "shadow"]

    await market.until(lambda: len(found()) >= count and not market.gateway.shadows.flying)
    return found()


async def test_a_copy_goes_to_the_other_version_and_costs_its_caller_nothing(market: Market) -> None:
    tell_versions(market)
    divide(market, 0, shadow=ALL)
    response = await ask(market, "asha")
    assert (response.json(), response.header("x-haat-variant")) == ({"version": "1"}, "control")
    [copy] = await copies(market)
    assert [request.target for request in market.provider.requests] == ["/base/invoke", "/two/invoke"]
    assert market.provider.requests[1].body == b"{}"
    assert market.provider.requests[1].header("x-provider-key") == ["provider-secret"]
    assert (copy.org, copy.application, copy.credential, copy.subscription, copy.provider_org, copy.user) == (
        *(PROVIDER_ORG, "", "", "", "", ""),
    )
    assert (copy.rollout, copy.arm, copy.version, copy.outcome) == (ROLLOUT, "shadow", "2", "completed")
    assert copy.agreed is False
    own = next(event for event in market.events() if event.mode == "live")
    assert copy.trace == own.id.replace("-", "")
    again = await ask(market, "asha")
    assert again.header("x-ratelimit-remaining") == "998"  # two calls, not four


async def test_answers_are_compared_by_what_they_say(market: Market) -> None:
    first = answer(200, b'{"a": 1, "b": [2]}')
    second = answer(200, b'{"b":[2],"a":1}')
    tell_versions(market, one=first, two=second)
    divide(market, 0, shadow=ALL)
    assert (await ask(market)).body == b'{"a": 1, "b": [2]}'
    assert [copy.agreed for copy in await copies(market)] == [True]


async def test_a_copy_that_fails_hurts_nobody(market: Market) -> None:
    tell_versions(market, two=answer(503, b"{}"))
    divide(market, 0, shadow=ALL)
    for _ in range(8):
        assert (await ask(market)).status == 200
    found = await copies(market, 8)
    assert {(copy.status, copy.outcome) for copy in found} == {(503, "provider_failed")}
    asked = [request for request in market.provider.requests if request.target.startswith("/two")]
    assert len(asked) == len([copy for copy in found if copy.agreed is False]) == 5  # then it is left alone
    assert (await ask(market, "", "/v1/services/acme/echo@2/invoke")).status == 503  # no breaker has opened
    assert market.gateway.routes.find(b"acme/echo@2").breaker.failures == 3  # its own attempts


async def test_slow_copies_slow_nobody_and_those_beyond_the_bound_are_dropped(market: Market) -> None:
    go = asyncio.Event()

    async def behave(request: Any, reader: Any, writer: Any) -> bool:
        if request.target.startswith("/two"):
            await go.wait()
        writer.write(answer())
        return True

    market.provider.behaviour = behave
    divide(market, 0, shadow=ALL)
    for _ in range(MOST + 5):
        assert (await ask(market)).status == 200
    assert (len(market.gateway.shadows.flying), market.gateway.shadows.dropped) == (MOST, 5)
    go.set()
    assert len(await copies(market, MOST)) == MOST


@pytest.mark.parametrize("why", ["not repeatable", "too large", "none sampled"])
async def test_calls_that_are_not_copied(market: Market, why: str) -> None:
    tell_versions(market)
    shadow = structs.replace(ALL, buckets=0) if why == "none sampled" else ALL
    divide(market, 0, shadow=shadow, repeatable=why != "not repeatable")
    body = b"x" * (LARGEST + 1) if why == "too large" else b"{}"
    for _ in range(3):
        assert (await market.call("POST", "/v1/services/acme/echo/invoke", body)).status == 200
    await asyncio.sleep(0.05)
    assert (market.gateway.shadows.sent, len(market.provider.requests)) == (0, 3)


async def test_a_large_upload_is_streamed_as_ever(market: Market) -> None:
    tell_versions(market)
    divide(market, 0, shadow=ALL)
    assert market.gateway.routes.find(b"acme/echo").division is not None
    client = await market.connect()
    body = b"x" * 200_000
    raw = market.raw("POST", "/v1/services/acme/echo/invoke", body)
    await client.send(raw[:100_000])
    await market.until(lambda: bool(market.provider.connections))  # the head is on its way before the body is here
    await client.send(raw[100_000:])
    response = await client.receive("POST")
    assert response is not None and response.status == 200
    assert market.gateway.shadows.sent == 0


async def test_copies_go_to_another_service_of_the_same_provider_alone(market: Market) -> None:
    tell_versions(market)
    market.add_service("other", subscribed=None, base="/other")
    divide(market, 0, shadow=ShadowPolicy("1", 10_000, "acme/other"))
    await ask(market)
    [copy] = await copies(market)
    assert (copy.service_slug, market.provider.requests[-1].target) == ("other", "/other/invoke")
    change(market, "other", provider_org="somebody-else")
    await ask(market)
    await market.until(lambda: market.gateway.shadows.dropped == 1)
    change(market, "other", provider_org=PROVIDER_ORG, unit="characters")
    await ask(market)
    await market.until(lambda: market.gateway.shadows.dropped == 2)


async def test_a_stream_is_copied_and_not_compared(market: Market) -> None:
    stream = answer(200, b"data: one\n\ndata: two\n\n", "X-More: 1").replace(b"application/json", b"text/event-stream")
    tell_versions(market, one=stream, two=stream)
    divide(market, 0, shadow=ALL)
    assert (await ask(market)).body == b"data: one\n\ndata: two\n\n"
    [copy] = await copies(market)
    assert (copy.agreed, copy.outcome) == (None, "completed")


async def test_a_gateway_stops_with_copies_in_flight(market: Market) -> None:
    async def behave(request: Any, reader: Any, writer: Any) -> bool:
        if request.target.startswith("/two"):
            await asyncio.sleep(30)
        writer.write(answer())
        return True

    market.provider.behaviour = behave
    divide(market, 0, shadow=ALL)
    await ask(market)
    await market.until(lambda: len(market.gateway.shadows.flying) == 1)
    await market.gateway.stop(0.1)
    [copy] = [event for event in market.events() if event.mode == "shadow"]
    assert copy.outcome == "interrupted"

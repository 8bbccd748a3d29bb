"""Quotas and rates at the real gateway: never overshot, settled to the truth, said in headers and refusals."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import structs

from gateway.rig import Client, Market, Request, Response, answer
from haat.gateway.limits.registry import Allowance, PlanLimits
from haat.usage.event import Outcome

ECHO = "acme/echo"


def allowance_of(market: Market) -> Allowance:
    [allowance] = market.gateway.limits._allowances.values()
    return allowance


async def slowly(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    await asyncio.sleep(0.02)
    writer.write(answer())
    return True


async def reporting(market: Market, usage: str, *headers: str, body: bytes = b"x" * 50) -> Response:
    market.provider.behaviour = answer(200, b"{}", f"X-Haat-Usage: {usage}")
    return await market.call("POST", "/v1/services/acme/echo/invoke", body, *headers)


async def burst(market: Market, callers: int) -> list[int]:
    """Call from so many connections at once; return the statuses."""
    clients = [await market.connect() for _ in range(callers)]
    for client in clients:
        await client.send(market.raw("POST", "/v1/services/acme/echo/invoke", b"hello"))

    async def status(client: Client) -> int:
        response = await client.receive("POST")
        assert response is not None
        return response.status

    return await asyncio.gather(*(status(client) for client in clients))


@pytest.mark.parametrize(
    "plan",
    [PlanLimits(quota_per_month=100), PlanLimits(quota_per_day=100), PlanLimits(per_minute=100)],
    ids=["month", "day", "minute"],
)
async def test_a_hard_cap_is_not_overshot_by_256_callers_at_once(market: Market, plan: PlanLimits) -> None:
    market.subscribe(ECHO, plan)
    market.provider.behaviour = slowly
    statuses = await burst(market, 256)
    assert (statuses.count(200), statuses.count(429)) == (100, 156)
    assert len(market.provider.requests) == 100
    allowance = allowance_of(market)
    assert (allowance.in_flight, allowance.reserved, allowance.used) == (0, 0, 100)


async def test_a_hard_cap_in_units_is_not_overshot_by_256_callers_at_once(market: Market) -> None:
    market.add_service("echo", unit="characters", subscribed=None)
    market.subscribe(ECHO, PlanLimits(quota_per_month=333, quota_unit="characters"))
    market.provider.behaviour = answer(200, b"{}", "X-Haat-Usage: characters=9")
    statuses = await burst(market, 256)
    used = sum(int(event.units["characters"]) for event in market.events() if event.outcome is Outcome.COMPLETED)
    assert used == statuses.count(200) * 5 <= 333, "each call reserves five bytes' worth and is held to it"
    assert statuses.count(200) == 66
    assert allowance_of(market).used == 330


async def test_failed_calls_give_their_reservations_back(market: Market) -> None:
    market.subscribe(ECHO, PlanLimits(quota_per_month=5))
    market.provider.behaviour = answer(500)
    for _ in range(4):
        assert (await market.call()).status == 500
    market.provider.behaviour = answer()
    assert (await market.call()).header("x-ratelimit-remaining") == "4"
    allowance = allowance_of(market)
    assert (allowance.in_flight, allowance.reserved, allowance.used) == (0, 0, 1)


async def test_what_is_reported_beyond_the_reservation_is_billed_to_nobody(market: Market) -> None:
    market.add_service("echo", unit="characters", subscribed=None)
    market.subscribe(ECHO, PlanLimits(quota_per_month=1000, quota_unit="characters"))
    response = await reporting(market, "characters=5000; graphemes=4000")
    assert response.header("x-haat-units") == "characters=50"
    event = await market.settled_event()
    assert event.units == {"requests": "1", "characters": "50", "graphemes": "4000"}
    assert event.raw_usage == "characters=5000; graphemes=4000"
    assert allowance_of(market).used == 50


async def test_with_overage_all_that_is_reported_counts(market: Market) -> None:
    market.add_service("echo", unit="characters", subscribed=None)
    market.subscribe(ECHO, PlanLimits(quota_per_month=1000, quota_unit="characters", overage=True))
    assert (await reporting(market, "characters=5000")).header("x-haat-units") == "characters=5000"
    response = await reporting(market, "characters=1.5")
    assert response.status == 200
    assert response.header("x-ratelimit-remaining") == "0"
    assert allowance_of(market).used == 5001


@pytest.mark.parametrize(
    ("service", "headers", "reserved"),
    [
        ({"unit": "characters"}, (), 50),
        ({"unit": "characters", "max_units": "40"}, (), 40),
        ({"unit": "characters", "max_units": "40"}, ("X-Haat-Max-Units: characters=30.5",), 30.5),
        ({"unit": "characters", "max_units": "40"}, ("x-haat-max-units: tokens=1; characters=900",), 40),
        ({"unit": "requests", "max_units": "40"}, (), 50),
        ({"unit": "requests"}, ("X-Haat-Max-Units: characters=7",), 7),
    ],
)
async def test_a_call_reserves_the_most_that_it_can_use(
    market: Market, service: dict[str, Any], headers: tuple[str, ...], reserved: float
) -> None:
    market.add_service("echo", **service, subscribed=None)
    market.subscribe(ECHO, PlanLimits(quota_per_month=1000, quota_unit="characters"))
    seen: list[int] = []

    async def look(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        [call] = market.gateway.calls
        seen.append(call.reserved)
        writer.write(answer(200, b"{}", "X-Haat-Usage: characters=1"))
        return True

    market.provider.behaviour = look
    assert (await market.call("POST", "/v1/services/acme/echo/invoke", b"x" * 50, *headers)).status == 200
    assert seen == [int(reserved * 1_000_000)]


async def test_a_chunked_body_reserves_the_body_limit(market: Market) -> None:
    market.add_service("echo", max_body_bytes=600, subscribed=None)
    market.subscribe(ECHO, PlanLimits(quota_per_month=1000, quota_unit="bytes"))
    chunked = b"5\r\nhello\r\n0\r\n\r\n"
    for status in (200, 200):
        response = await market.call("POST", "/v1/services/acme/echo/invoke", chunked, "Transfer-Encoding: chunked")
        assert response.status == status
    assert allowance_of(market).used == 10


async def test_a_declaration_that_can_not_be_read_is_refused(market: Market) -> None:
    market.subscribe(ECHO, PlanLimits(quota_per_month=1000, quota_unit="characters"))
    response = await market.call("POST", "/v1/services/acme/echo/x", b"x", "X-Haat-Max-Units: many")
    assert (response.status, response.json()["code"]) == (400, "INVALID_REQUEST")
    assert not market.provider.requests


async def test_a_quota_refusal_says_what_remains_and_that_a_retry_is_no_cure(market: Market) -> None:
    market.subscribe(ECHO, PlanLimits(quota_per_day=60, quota_unit="characters", per_minute=10))
    assert (await reporting(market, "characters=20")).status == 200
    response = await reporting(market, "characters=20")
    problem = response.json()
    assert (response.status, problem["code"]) == (429, "QUOTA_EXHAUSTED")
    assert (problem["limit"], problem["quota"], problem["remaining"], problem["unit"]) == (
        "day-quota",
        60,
        40,
        "characters",
    )
    assert response.header("x-should-retry") == "false"
    assert response.header("ratelimit") == f'"day-quota";r=40;t={problem["reset_seconds"]}'
    assert response.header("retry-after") == str(problem["reset_seconds"])
    assert "40 are left and this call might need more" in problem["detail"]


async def test_a_burst_is_stated_and_refused_by_its_name(market: Market) -> None:
    market.subscribe(ECHO, PlanLimits(per_minute=60, burst=2))
    first = await market.call()
    assert first.header("ratelimit-policy") == '"burst";q=2;w=2, "minute";q=60;w=60'
    assert (first.header("ratelimit") or "").startswith('"burst";r=1;t=')
    await market.call()
    response = await market.call()
    assert (response.status, response.json()["limit"], response.header("retry-after")) == (429, "burst", "1")


async def test_a_provider_at_its_pace_is_no_fault_of_the_caller(market: Market) -> None:
    service = market.gateway.directory.services[ECHO]
    market.gateway.directory.put_service(service.id, structs.replace(service, max_per_second=2))
    statuses = [(await market.call()).status for _ in range(2)]
    response = await market.call()
    assert [*statuses, response.status] == [200, 200, 503]
    assert response.json()["code"] == "PROVIDER_BUSY"
    assert response.header("retry-after") == "1"
    assert response.header("x-ratelimit-remaining") == "998", "the caller's own quota is untouched"
    assert [event.outcome for event in market.events()][-1] is Outcome.REFUSED


async def test_a_plan_that_changes_holds_for_the_next_call(market: Market) -> None:
    market.subscribe(ECHO, PlanLimits(quota_per_month=2))
    assert [(await market.call()).status for _ in range(3)] == [200, 200, 429]
    market.subscribe(ECHO, PlanLimits(quota_per_month=3, per_minute=60, burst=60))
    assert [(await market.call()).status for _ in range(2)] == [200, 429]

"""Announced maintenance at the gateway: drained by itself from the windows that it knows, and open again after them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.market.test_feed import Facts, following, until
from gateway.rig import PROVIDER_ORG, Market
from haat.gateway.market.maintenance import check_maintenance, next_window, window_at
from haat.gateway.market.policy import ServicePolicy
from haat.gateway.market.snapshot import Service
from haat.infra.keyring import Keyring
from haat.kernel.clock import SetClock
from haat.kernel.errors import ServiceInMaintenance
from haat.kernel.ids import new_id

SECOND = 1_000_000
PATH = "/v1/services/acme/echo/invoke"


def announce(market: Market, *windows: tuple[int, int], slug: str = "echo", **members: Any) -> None:
    service = market.gateway.directory.services[f"acme/{slug}"]
    service = msgspec.structs.replace(service, maintenance=windows, **members)
    market.gateway.directory.put_service(service.id, service)


async def test_calls_are_refused_from_the_very_moment_and_pass_again_after_it(market: Market) -> None:
    now = market.gateway.clock.now_us()
    announce(market, (now + SECOND // 2, now + SECOND))
    assert (await market.call("POST", PATH, b"x")).status == 200
    await market.until(lambda: market.gateway.clock.now_us() > now + SECOND // 2)
    response = await market.call("POST", PATH, b"x")
    problem = response.json()
    assert (response.status, problem["code"]) == (503, "SERVICE_IN_MAINTENANCE")
    assert response.header("retry-after") == "1" and "as announced" in problem["detail"]
    await market.until(lambda: market.gateway.clock.now_us() > now + SECOND)
    assert (await market.call("POST", PATH, b"x")).status == 200
    assert len(market.provider.requests) == 2
    [refused] = [event for event in market.events() if event.status == 503]
    assert (refused.outcome, refused.error_code, refused.units) == ("refused", "SERVICE_IN_MAINTENANCE", {})


async def test_a_connection_that_sends_its_head_again_is_refused_too(market: Market) -> None:
    now = market.gateway.clock.now_us()
    announce(market, (now + SECOND // 4, now + 3600 * SECOND))
    client = await market.connect()
    for _ in range(3):
        await client.send(market.raw("POST", PATH, b"x"))
        response = await client.receive()
        assert response is not None and response.status == 200
    await market.until(lambda: market.gateway.clock.now_us() > now + SECOND // 4)
    await client.send(market.raw("POST", PATH, b"x"))
    response = await client.receive()
    assert response is not None and response.status == 503
    assert 3500 < int(response.header("retry-after") or 0) <= 3600


async def test_every_version_is_drained_and_test_keys_go_on(market: Market) -> None:
    now = market.gateway.clock.now_us()
    announce(market, (now - SECOND, now + 3600 * SECOND))
    for at in ("", "@1", "@2"):
        assert (await market.call("POST", f"/v1/services/acme/echo{at}/invoke", b"x")).status == 503
    key = market.add_key(mode="test")
    assert (await market.call("POST", PATH, b"x", key=key)).status == 200
    assert market.provider.requests == []


async def test_a_service_in_maintenance_stands_in_for_nobody(market: Market) -> None:
    policy = ServicePolicy(repeatable=True, capability="echo")
    market.add_service("other", base="/other")
    now = market.gateway.clock.now_us()
    announce(market, policy=policy)
    announce(market, (now - SECOND, now + 3600 * SECOND), slug="other", policy=policy)
    from gateway.rig import answer

    market.provider.behaviour = answer(503, b"{}")
    key = ("00000000-0000-7000-8000-00000000000b", market.gateway.directory.services["acme/echo"].id)
    subscription = market.gateway.directory.subscriptions[key]
    market.gateway.directory.put_subscription(subscription.id, msgspec.structs.replace(subscription, fallback=True))
    assert (await market.call("POST", PATH, b"x")).status == 503
    assert {request.target for request in market.provider.requests} == {"/base/invoke"}


def test_windows_are_half_open_and_the_next_one_is_known() -> None:
    service = Service(
        "s", "acme", PROVIDER_ORG, "echo", "published", "", "requests", "IN", (), "", b"", (), "",
        maintenance=((10, 20), (20, 30), (50, 60)),
    )  # fmt: skip
    assert [window_at(service, at) for at in (9, 10, 19, 20, 30, 59)] == [
        None, (10, 20), (10, 20), (20, 30), None, (50, 60),
    ]  # fmt: skip
    assert [next_window(service, at) for at in (0, 10, 25)] == [10, 20, 50]
    check_maintenance(service, 30)
    with pytest.raises(ServiceInMaintenance):
        check_maintenance(service, 50)


@pytest.fixture
async def facts(database: Any, keyring: Keyring, clock: SetClock) -> Facts:
    made = Facts(database, keyring, clock)
    await made.market()
    return made


async def test_windows_arrive_ahead_and_leave_when_they_are_cancelled(facts: Facts, tmp_path: Path) -> None:
    window = new_id()
    async with following(facts, tmp_path / "snapshot.bin") as (directory, _):
        assert directory.services["acme/echo"].maintenance == ()
        start = facts.clock.now() + timedelta(days=4000)  # PostgreSQL's own clock says what is over
        await facts.run(
            "INSERT INTO sla_maintenance (id, org_id, service_id, starts_at, ends_at, announced_at)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            *(window, facts.partner, facts.service, start, start + timedelta(hours=1), facts.clock.now()),
            event=(f"service/{facts.service}", "service.maintenance_announced"),
        )
        micros = int(start.timestamp() * SECOND)
        expected = ((micros, micros + 3600 * SECOND),)
        await until(lambda: directory.services["acme/echo"].maintenance == expected)
        await facts.run(
            "UPDATE sla_maintenance SET cancelled_at = %s WHERE id = %s",
            *(facts.clock.now(), window),
            event=(f"service/{facts.service}", "service.maintenance_cancelled"),
        )
        await until(lambda: directory.services["acme/echo"].maintenance == ())

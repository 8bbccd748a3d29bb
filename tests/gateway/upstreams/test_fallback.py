"""Who answers when a call's own provider is away, and who may not."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.rig import APP, ORG, PROVIDER_ORG, Market, Provider, Request, Response, answer
from gateway.upstreams.endpoint_rig import (
    PATH,
    UNAVAILABLE,
    Reader,
    Writer,
    break_it,
    change,
    hang_up,
    nothing_is_held,
    pass_time,
    url,
)
from haat.gateway.limits.registry import PlanLimits
from haat.gateway.market.policy import ApplicationPolicy, DataPolicy, ServicePolicy, Transform, VersionPolicy
from haat.gateway.market.snapshot import Application, Service
from haat.usage.event import Outcome

OTHER_ORG = "00000000-0000-7000-8000-00000000000d"


def offer(market: Market, port: int, **changes: Any) -> Service:
    """Let another provider offer the same capability."""
    own = market.gateway.directory.services["acme/echo"]
    version = replace(own.versions[0], version="7", endpoint=url(port, "/other"), **changes.pop("version", {}))
    service = replace(
        own,
        **{
            "id": "service-other",
            "provider": "bhasha",
            "provider_org": OTHER_ORG,
            "slug": "similar",
            "region": "IN-KA",
            "credential_header": "X-Other-Key",
            "credential": market.keyring.encrypt("other-secret", "service-other"),
            "versions": (version,),
            "default_version": "7",
            "policy": ServicePolicy(capability="echo"),
            **changes,
        },
    )
    market.gateway.directory.put_service(service.id, service)
    return service


def agree(market: Market, *, fallback: bool = True, policy: ApplicationPolicy | None = None) -> None:
    """Let plan and application say what they think of fallback."""
    change(market, policy=ServicePolicy(capability="echo"))
    market.subscribe("acme/echo", PlanLimits(quota_per_month=1000))
    subscription = market.gateway.directory.subscriptions[APP, "service-echo"]
    market.gateway.directory.put_subscription(subscription.id, replace(subscription, fallback=fallback))
    market.gateway.directory.put_application(APP, Application(APP, policy) if policy else None)


async def test_another_provider_answers_at_the_subscribed_price_and_earns_it(market: Market, second: Provider) -> None:
    agree(market)
    offer(market, second.port)
    market.provider.behaviour = UNAVAILABLE
    response = await market.call("POST", PATH, b"hello", "X-Other-Key: forged")
    assert (response.status, response.header("x-haat-served-by")) == (200, "bhasha/similar@7")
    [request] = second.requests
    assert (request.target, request.body) == ("/other/invoke", b"hello")
    assert request.header("x-other-key") == ["other-secret"]
    assert request.header("x-provider-key") == []
    assert request.header("x-request-id") == [response.header("x-request-id")]
    event = await market.settled_event()
    assert (event.service, event.service_slug, event.plan, event.org) == ("service-echo", "echo", "basic", ORG)
    assert (event.provider, event.provider_org, event.version) == ("bhasha", OTHER_ORG, "7")
    assert (event.executed_by, event.region, event.attempts) == ("service-other", "IN-KA", 2)
    assert (event.outcome, event.units) == (Outcome.COMPLETED, {"requests": "1"})
    nothing_is_held(market)


async def test_who_executed_is_said_without_fallback_too(market: Market) -> None:
    response = await market.call("POST", PATH, b"x", "X-Haat-Served-By: nobody")
    assert response.header("x-haat-served-by") == "acme/echo@1"
    event = await market.settled_event()
    assert (event.provider_org, event.executed_by, event.attempts) == (PROVIDER_ORG, "", 0)


async def test_who_is_outside_of_a_keys_scope_does_not_stand_in(market: Market, second: Provider) -> None:
    agree(market)
    offer(market, second.port)
    market.provider.behaviour = UNAVAILABLE
    directory = market.gateway.directory
    [credential] = directory.credentials.values()
    directory.put_credential(credential.id, replace(credential, only=" acme/echo "))
    assert (await market.call("POST", PATH, b"hello")).status == 503 and second.requests == []
    directory.put_credential(credential.id, replace(credential, only=" acme/echo bhasha/similar "))
    assert (await market.call("POST", PATH, b"hello")).status == 200 and len(second.requests) == 1


async def test_another_provider_answers_when_nobody_is_at_the_address(
    market: Market, second: Provider, refused: int
) -> None:
    change(market, endpoints=(url(refused),))
    agree(market)
    offer(market, second.port)
    assert (await market.call("POST", PATH, b"x")).status == 200
    assert len(second.requests) == 1


async def test_another_provider_answers_while_the_breaker_is_open(market: Market, second: Provider) -> None:
    await break_it(market)
    agree(market)
    offer(market, second.port)
    for _ in range(3):
        assert (await market.call("POST", PATH, b"x")).status == 200
    assert (len(market.provider.requests), len(second.requests)) == (0, 3)
    assert market.gateway.routes.find(b"acme/echo").traffic.stood_in == 3


async def test_a_call_that_may_have_been_executed_is_not_given_to_another_provider(
    market: Market, second: Provider
) -> None:
    agree(market)
    offer(market, second.port)
    market.provider.behaviour = hang_up
    assert (await market.call("POST", PATH, b"x")).status == 502
    market.provider.behaviour = answer(504, b"late")
    assert (await market.call("POST", PATH, b"x")).body == b"late"
    assert second.requests == []


async def test_a_repeatable_call_goes_to_another_provider_once_its_retries_are_exhausted(
    market: Market, second: Provider
) -> None:
    agree(market)
    offer(market, second.port)
    change(market, policy=ServicePolicy(repeatable=True, capability="echo"))
    market.provider.behaviour = hang_up
    assert (await market.call("POST", PATH, b"x")).status == 200
    assert (len(market.provider.requests), len(second.requests)) == (3, 1)
    assert (await market.settled_event()).attempts == 4


async def test_a_stand_in_that_fails_as_well_ends_the_call(market: Market, second: Provider) -> None:
    agree(market)
    offer(market, second.port)
    market.provider.behaviour = UNAVAILABLE
    second.behaviour = answer(503, b"me too")
    response = await market.call("POST", PATH, b"x")
    assert (response.status, response.body) == (503, b"me too")
    event = await market.settled_event()
    assert (event.outcome, event.units, event.provider) == (Outcome.PROVIDER_FAILED, {}, "bhasha")
    nothing_is_held(market)


@pytest.mark.parametrize(
    ("changes", "policy"),
    [
        ({}, ApplicationPolicy(fallback=False)),
        ({}, ApplicationPolicy(data=DataPolicy(regions=("IN-TN",)))),
        ({"region": "US"}, ApplicationPolicy(data=DataPolicy(regions=("IN",)))),
        ({"retains_inputs": True}, ApplicationPolicy(data=DataPolicy(retains_inputs=False))),
        ({"policy": ServicePolicy(capability="something-else")}, None),
        ({"policy": ServicePolicy()}, None),
        ({"status": "deprecated"}, None),
        ({"status": "suspended"}, None),
        ({"visibility": "members"}, None),
        ({"unit": "characters"}, None),
        ({"version": {"dialect": "task"}}, None),
        ({"version": {"max_body_bytes": 0}}, None),
        ({"version": {"policy": VersionPolicy(model="another")}}, None),
        ({"version": {"policy": VersionPolicy(request=(Transform("remove_header", "x"),))}}, None),
    ],
    ids=lambda value: repr(value)[:60],
)
async def test_nobody_stands_in_who_may_not(
    market: Market, second: Provider, changes: dict[str, Any], policy: ApplicationPolicy | None
) -> None:
    agree(market, policy=policy)
    change(market, region="IN-TN")
    offer(market, second.port, **changes)
    market.provider.behaviour = UNAVAILABLE
    assert (await market.call("POST", PATH, b"x")).body == b'{"busy":true}'
    assert second.requests == []


async def test_a_stand_in_is_sent_no_more_than_its_provider_takes_a_second(market: Market, second: Provider) -> None:
    agree(market)
    offer(market, second.port, max_per_second=2)
    market.provider.behaviour = answer(503, b"{}", "Retry-After: 1")
    pass_time(market, 10_000_000)
    statuses = [response.status for response in await asyncio.gather(*(market.call("POST", PATH) for _ in range(5)))]
    assert sorted(statuses) == [200, 200, 503, 503, 503]
    pass_time(market, 1_100_000)
    assert (await market.call("POST", PATH)).status == 200


async def test_a_plan_without_fallback_has_none(market: Market, second: Provider) -> None:
    agree(market, fallback=False)
    offer(market, second.port)
    market.provider.behaviour = UNAVAILABLE
    assert (await market.call("POST", PATH, b"x")).status == 503
    assert second.requests == []


@pytest.mark.parametrize(
    ("languages", "pairs", "stands_in"),
    [
        ((), (), True),
        ((), ("hi-Deva>ur-Arab",), True),
        ((), ("hi>ur",), True),
        (("hi-Deva", "ur-Arab"), (), True),
        ((), ("ur-Arab>hi-Deva",), False),
        (("hi-Deva",), (), False),
        (("ta-Taml",), ("ta-Taml>ur-Arab",), False),
    ],
)
async def test_a_stand_in_takes_the_languages_of_the_call(
    market: Market, second: Provider, languages: tuple[str, ...], pairs: tuple[str, ...], stands_in: bool
) -> None:
    market.add_service("echo", dialect="task")
    agree(market)
    offer(market, second.port, version={"languages": languages, "language_pairs": pairs})
    market.provider.behaviour = UNAVAILABLE
    body = b'{"input":[{"text":"x"}],"config":{"source":"hi-Deva","target":"ur-Arab"}}'
    assert (await market.call("POST", PATH, body)).status == (200 if stands_in else 503)


async def test_calls_at_once_through_failures_leave_nothing_behind(market: Market, second: Provider) -> None:
    agree(market)
    offer(market, second.port)
    change(market, policy=ServicePolicy(repeatable=True, capability="echo"))
    count = 0

    async def every_third(request: Request, reader: Reader, writer: Writer) -> bool:
        nonlocal count
        count += 1
        if count % 3 == 0:
            return False
        writer.write(answer() if count % 2 else UNAVAILABLE)
        return True

    market.provider.behaviour = every_third
    responses: list[Response] = await asyncio.gather(*(market.call("POST", PATH, b"x") for _ in range(40)))
    assert {response.status for response in responses} <= {200, 502, 503}
    await market.until(lambda: len(market.confirmed()) == 40)
    assert len(market.events()) == 40
    nothing_is_held(market)


@pytest.mark.parametrize("seed", range(6))
async def test_no_call_that_may_have_been_executed_is_sent_again(market: Market, second: Provider, seed: int) -> None:
    chance = random.Random(seed)
    third = await Provider().start()
    agree(market)
    change(market, endpoints=(url(market.provider.port), url(second.port)))
    offer(market, third.port)
    executed: Counter[str] = Counter()

    async def anything(request: Request, reader: Reader, writer: Writer) -> bool:
        what = chance.choice(["well"] * 4 + ["busy", "busy", "fails", "hangs up", "breaks off"])
        if what != "busy":
            executed[request.header("x-request-id")[0]] += 1
        match what:
            case "well":
                writer.write(answer())
            case "busy":
                writer.write(UNAVAILABLE)
            case "fails":
                writer.write(answer(chance.choice([500, 502, 504])))
            case "breaks off":
                writer.write(answer()[:-3])
                return False
            case _:
                return False
        return True

    for provider in (market.provider, second, third):
        provider.behaviour = anything
    for _ in range(5):
        responses = await asyncio.gather(*(market.call("POST", PATH, b"x") for _ in range(16)))
        assert all(response.status in (200, 500, 502, 503, 504) for response in responses)
        pass_time(market, 61_000_000)  # breakers that have opened try again
    await market.until(lambda: len(market.confirmed()) == 80)
    await third.stop()
    assert max(executed.values()) == 1
    events = market.events()
    assert len(events) == 80 and len(executed) > 40
    assert all(event.units == {} for event in events if event.outcome is not Outcome.COMPLETED)
    assert {event.id for event in events if event.outcome is Outcome.COMPLETED} <= set(executed)
    nothing_is_held(market)

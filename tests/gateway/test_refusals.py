"""Every reason to refuse a call: its status, its words, its headers, its event."""

from __future__ import annotations

import asyncio

from gateway.rig import APP, Market, Request, answer
from haat.gateway import stages
from haat.gateway.limits.registry import SECOND, PlanLimits
from haat.usage.event import Outcome
from usage.faults import put_back, replace_file

INVOKE = "/v1/services/acme/{}/invoke"


async def refused(market: Market, status: int, code: str, slug: str = "echo", **options: object) -> dict[str, object]:
    response = await market.call("POST", INVOKE.format(slug), b"x", **options)
    problem = response.json()
    assert (response.status, problem["code"]) == (status, code), problem
    assert response.header("content-type") == "application/problem+json"
    assert problem["request_id"] == response.header("x-request-id")
    return {**problem, **dict(response.headers)}


async def test_an_expired_key(market: Market) -> None:
    key = market.add_key(expires_at=market.gateway.clock.now_us() - SECOND)
    problem = await refused(market, 401, "EXPIRED_CREDENTIAL", key=key)
    assert problem["www-authenticate"] == 'Bearer realm="haat"'
    assert market.events() == []


async def test_a_revoked_key_and_one_that_will_be(market: Market) -> None:
    now = market.gateway.clock.now_us()
    await refused(market, 401, "REVOKED_CREDENTIAL", key=market.add_key(revoked_at=now - 1))
    grace = market.add_key(revoked_at=now + 3600 * SECOND)
    assert (await market.call("POST", INVOKE.format("echo"), key=grace)).status == 200


async def test_a_key_revoked_between_two_calls_of_one_connection(market: Market) -> None:
    client = await market.connect()
    await client.send(market.raw())
    response = await client.receive()
    assert response is not None and response.status == 200
    for credential in list(market.gateway.directory.credentials.values()):
        market.gateway.directory.put_credential(credential.id, None)
    await client.send(market.raw())
    response = await client.receive()
    assert response is not None and response.status == 401


async def test_no_subscription(market: Market) -> None:
    market.add_service("other", subscribed=None)
    problem = await refused(market, 403, "NOT_SUBSCRIBED", "other")
    assert problem["x-should-retry"] == "false"
    event = await market.settled_event()
    assert (event.outcome, event.status, event.error_code) == (Outcome.REFUSED, 403, "NOT_SUBSCRIBED")
    assert (event.service_slug, event.units, event.subscription) == ("other", {}, "")


async def test_an_unknown_service_makes_an_event_because_we_know_who_asked(market: Market) -> None:
    await refused(market, 404, "SERVICE_NOT_FOUND", "nothing")
    event = await market.settled_event()
    assert (event.outcome, event.error_code, event.application) == (Outcome.REFUSED, "SERVICE_NOT_FOUND", APP)


async def test_a_suspended_service_says_why(market: Market) -> None:
    market.add_service("bad", status="suspended", reason="uptime below 90 %")
    problem = await refused(market, 403, "SERVICE_SUSPENDED", "bad")
    assert "uptime below 90 %" in str(problem["detail"])


async def test_a_retired_service(market: Market) -> None:
    market.add_service("old", status="retired")
    await refused(market, 404, "SERVICE_NOT_FOUND", "old")


async def test_the_rate_limit_says_which_what_remains_and_when(market: Market) -> None:
    market.add_service("limited", subscribed=PlanLimits(per_minute=2, per_hour=100))
    for remaining in ("1", "0"):
        response = await market.call("POST", INVOKE.format("limited"))
        assert (response.status, response.header("x-ratelimit-remaining")) == (200, remaining)
    problem = await refused(market, 429, "RATE_LIMITED", "limited")
    assert problem["ratelimit-policy"] == '"minute";q=2;w=60, "hour";q=100;w=3600'
    assert str(problem["ratelimit"]).startswith('"minute";r=0;t=')
    assert 50 <= int(str(problem["retry-after"])) <= 60
    assert (problem["limit"], problem["quota"], problem["remaining"]) == ("minute", 2, 0)
    assert problem["x-ratelimit-limit"] == "2"
    assert len(market.provider.requests) == 2


async def test_the_quota_is_a_hard_cap_that_a_retry_does_not_cure(market: Market) -> None:
    market.add_service("capped", subscribed=PlanLimits(quota_per_month=1))
    assert (await market.call("POST", INVOKE.format("capped"))).status == 200
    problem = await refused(market, 429, "QUOTA_EXHAUSTED", "capped")
    assert (problem["limit"], problem["x-should-retry"]) == ("month", "false")
    assert int(str(problem["retry-after"])) > 60


async def test_256_callers_at_once_never_overshoot_the_quota(market: Market) -> None:
    market.add_service("capped", subscribed=PlanLimits(quota_per_month=50))

    async def caller() -> int:
        return (await market.call("POST", INVOKE.format("capped"))).status

    statuses = await asyncio.gather(*(caller() for _ in range(256)))
    assert (statuses.count(200), statuses.count(429)) == (50, 206)
    assert len(market.provider.requests) == 50


async def test_concurrency_is_bounded(market: Market) -> None:
    go_on = asyncio.Event()

    async def wait(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await go_on.wait()
        writer.write(answer())
        return True

    market.provider.behaviour = wait
    market.add_service("narrow", subscribed=PlanLimits(max_concurrent=1))
    first = asyncio.create_task(market.call("POST", INVOKE.format("narrow")))
    await market.provider.arrived.wait()
    problem = await refused(market, 429, "RATE_LIMITED", "narrow")
    assert (problem["limit"], problem["retry-after"]) == ("concurrent", "1")
    go_on.set()
    assert (await first).status == 200
    assert (await market.call("POST", INVOKE.format("narrow"))).status == 200


async def test_a_failed_call_gives_its_quota_back(market: Market) -> None:
    market.add_service("capped", subscribed=PlanLimits(quota_per_month=1))
    market.provider.behaviour = answer(500)
    assert (await market.call("POST", INVOKE.format("capped"))).status == 500
    market.provider.behaviour = answer()
    assert (await market.call("POST", INVOKE.format("capped"))).status == 200


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(market: Market) -> None:
    market.add_service("small", max_body_bytes=10)
    client = await market.connect()
    await client.send(market.raw("POST", INVOKE.format("small"), b"", "Content-Length: 11"))
    response = await client.receive()
    assert response is not None and response.json()["limit_bytes"] == 10
    event = await market.settled_event()
    assert (event.outcome, event.error_code) == (Outcome.REFUSED, "BODY_TOO_LARGE")


async def test_a_disk_that_takes_no_record_refuses_calls_and_recovers(market: Market) -> None:
    writer = market.gateway._journal
    kept = replace_file(writer, "/dev/full")
    first = await market.call("POST", INVOKE.format("echo"))
    assert (first.status, first.json()["code"], first.header("retry-after")) == (503, "JOURNAL_FULL", "1")
    served = len(market.provider.requests)
    second = await market.call("POST", INVOKE.format("echo"))
    assert (second.status, second.json()["code"]) == (503, "JOURNAL_FULL")
    assert len(market.provider.requests) == served, "nothing is dispatched while nothing can be metered"
    health = await market.call("GET", "/health")
    journal = health.json()["components"]["journal"]
    assert (health.status, journal["status"], journal["disk"]["state"]) == (503, "unhealthy", "full")
    assert journal["unrecorded_refusals"] == 2
    put_back(writer, kept)
    await market.until(lambda: not market.gateway.meter.failing)
    assert (await market.call("POST", INVOKE.format("echo"))).status == 200
    [allowance] = market.gateway.limits._allowances.values()
    assert (allowance.in_flight, allowance.reserved, allowance.used) == (0, 0, 1)


async def test_calls_that_are_recorded_together_are_refused_together_when_the_disk_takes_no_record(
    market: Market,
) -> None:
    clients = [await market.connect() for _ in range(20)]
    for client in clients:
        await client.send(market.raw(path=INVOKE.format("echo")))
        assert (await client.receive()) is not None
    writer = market.gateway._journal
    kept = replace_file(writer, "/dev/full")
    for client in clients:
        client.writer.write(market.raw(path=INVOKE.format("echo")))
    answers = await asyncio.gather(*(client.receive() for client in clients))
    assert {answer.status for answer in answers if answer is not None} == {503}
    put_back(writer, kept)
    await market.until(lambda: not market.gateway.meter.failing)
    [allowance] = market.gateway.limits._allowances.values()
    assert (allowance.in_flight, allowance.reserved, allowance.used) == (0, 0, 20)
    assert len(market.events()) == 20


async def test_a_gateway_that_knows_no_market_yet_says_so(market: Market) -> None:
    market.gateway.directory.loaded = False
    problem = await refused(market, 503, "OVERLOADED")
    assert problem["retry-after"] == "1"
    assert (await market.call("GET", "/health/ready")).status == 503
    assert (await market.call("GET", "/health/live")).status == 200


async def test_health_says_when_the_snapshot_is_not_kept_fresh(market: Market) -> None:
    market.gateway.set_feed_connected(False)
    health = await market.call("GET", "/health")
    assert (health.status, health.json()["status"], health.json()["position"]) == (200, "degraded", "0:0")


async def test_a_provider_credential_that_cannot_be_read(market: Market) -> None:
    market.add_service("echo2")
    service = market.gateway.directory.services["acme/echo2"]
    broken = type(service)(
        **{name: getattr(service, name) for name in service.__struct_fields__} | {"credential": b"x" * 40}
    )
    market.gateway.directory.put_service(service.id, broken)
    await refused(market, 503, "PROVIDER_UNAVAILABLE", "echo2")


def test_the_stages_stand_in_the_order_of_the_design() -> None:
    assert [stage.__name__ for stage in (*stages.RESOLVE, *stages.ADMIT)] == [
        "split_target",
        "authenticate",
        "find_service",
        "check_scope",
        "check_subscription",
        "check_data_policy",
        "check_meter",
        "check_body",
        "admit",
    ]

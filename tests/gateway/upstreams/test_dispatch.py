"""Where calls go: to which endpoint, and whether again."""

from __future__ import annotations

import asyncio

import pytest

from gateway.rig import MakeMarket, Market, Provider, Request, answer
from gateway.upstreams.endpoint_rig import (
    PATH,
    UNAVAILABLE,
    Reader,
    Writer,
    break_it,
    change,
    endpoints,
    hang_up,
    nothing_is_held,
    one_after_another,
    pass_time,
    silent,
    url,
)
from haat.gateway.market.policy import ServicePolicy
from haat.gateway.upstreams.balance import EJECT_US
from haat.gateway.upstreams.breaker import OPEN_US, THRESHOLD
from haat.gateway.upstreams.endpoints import PROBE_SECONDS, Endpoint
from haat.usage.event import Outcome

# --- the breaker --------------------------------------------------------------------------------


async def test_after_five_failures_calls_are_refused_at_once_and_told_when_to_come_back(market: Market) -> None:
    await break_it(market)
    response = await market.call("POST", PATH, b"x")
    assert (response.status, response.json()["code"]) == (503, "PROVIDER_UNAVAILABLE")
    assert 58 <= int(response.header("retry-after") or 0) <= 60
    assert market.provider.requests == []
    await market.until(lambda: len(market.confirmed()) == THRESHOLD + 1)
    assert {event.outcome for event in market.events()} == {Outcome.PROVIDER_FAILED}
    nothing_is_held(market)


async def test_after_a_minute_one_call_probes_and_its_success_opens_the_way_for_all(market: Market) -> None:
    await break_it(market)
    pass_time(market, OPEN_US)
    go_on = asyncio.Event()

    async def wait(request: Request, reader: Reader, writer: Writer) -> bool:
        await go_on.wait()
        writer.write(answer())
        return True

    market.provider.behaviour = wait
    market.provider.arrived.clear()
    probe = asyncio.create_task(market.call("POST", PATH, b"x"))
    await market.provider.arrived.wait()
    assert (await market.call("POST", PATH, b"x")).status == 503
    go_on.set()
    assert (await probe).status == 200
    assert (await market.call("POST", PATH, b"x")).status == 200
    assert [notice.type for notice in market.gateway.endpoints.notices] == ["breaker_opened", "breaker_closed"]


async def test_a_probe_whose_client_leaves_makes_room_for_the_next(market: Market) -> None:
    await break_it(market)
    pass_time(market, OPEN_US)
    market.provider.behaviour = silent
    market.provider.arrived.clear()
    client = await market.connect()
    await client.send(market.raw("POST", PATH, b"x"))
    await market.provider.arrived.wait()
    client.reset()
    await market.until(lambda: not market.gateway.calls)
    market.provider.behaviour = answer()
    assert (await market.call("POST", PATH, b"x")).status == 200


@pytest.mark.parametrize("status", [400, 404, 429, 500, 501])
async def test_what_speaks_about_the_request_says_nothing_against_the_endpoint(market: Market, status: int) -> None:
    market.provider.behaviour = answer(status)
    for _ in range(THRESHOLD + 1):
        assert (await market.call("POST", PATH, b"x")).status == status
    assert endpoints(market)[0].breaker.failures == 0


async def test_a_provider_that_sheds_load_and_says_until_when_is_not_given_up(market: Market) -> None:
    market.provider.behaviour = answer(503, b"{}", "Retry-After: 1")
    for _ in range(THRESHOLD + 1):
        assert (await market.call("POST", PATH, b"x")).status == 503
    assert len(market.provider.requests) == THRESHOLD + 1
    await break_it(market)
    pass_time(market, OPEN_US)
    market.provider.behaviour = answer(503, b"{}", "Retry-After: 1")
    for _ in range(2):  # such an answer decides nothing: the next call probes again
        assert (await market.call("POST", PATH, b"x")).body == b"{}"
    assert endpoints(market)[0].breaker.state(market.gateway.clock.now_us()) == "half_open"


async def test_a_slow_upload_is_the_callers_own_failure(market: Market) -> None:
    market.add_service("slow", timeout_ms=50)
    market.provider.behaviour = silent
    client = await market.connect()
    await client.send(market.raw("POST", "/v1/services/acme/slow/x", b"", "Content-Length: 100000") + b"x" * 70_000)
    response = await client.receive()
    assert response is not None and (response.status, response.json()["code"]) == (408, "REQUEST_TIMEOUT")
    assert market.gateway.routes.find(b"acme/slow").breaker.failures == 0
    assert [event.outcome for event in market.events()] == ["refused"]


async def test_an_address_where_nobody_answers_opens_the_breaker_however_short_the_timeout(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    market.add_service("slow", timeout_ms=50)
    monkeypatch.setattr("haat.gateway.upstreams.pool.resolve", never)
    for _ in range(THRESHOLD):
        assert (await market.call("POST", "/v1/services/acme/slow/x", b"x")).status == 504
    assert (await market.call("POST", "/v1/services/acme/slow/x", b"x")).status == 503


async def test_waiting_for_a_busy_provider_says_nothing_against_it(make_market: MakeMarket) -> None:
    market = await make_market(upstream_connections=1, upstream_wait_seconds=5)
    market.add_service("slow", timeout_ms=100)
    market.provider.behaviour = silent
    held = await market.connect()
    await held.send(market.raw("POST", PATH, b"x"))
    await market.provider.arrived.wait()
    assert (await market.call("POST", "/v1/services/acme/slow/x", b"x")).status == 504
    assert market.gateway.routes.find(b"acme/slow").breaker.failures == 0


async def test_the_breaker_outlives_a_change_of_the_market(market: Market) -> None:
    await break_it(market)
    market.add_service("other")
    assert (await market.call("POST", PATH, b"x")).status == 503
    assert market.provider.requests == []


async def test_what_is_known_of_an_endpoint_dies_with_its_listing(market: Market) -> None:
    await market.call("POST", PATH, b"x")
    await break_it(market)
    service = market.gateway.directory.services["acme/echo"]
    market.gateway.directory.put_service(service.id, None)
    market.gateway.endpoints.look(market.gateway.clock.now_us())
    assert market.gateway.endpoints.every() == []
    assert market.gateway.pools.each(lambda pool: 1) == 0
    market.gateway.directory.put_service(service.id, service)
    market.provider.behaviour = answer()
    assert (await market.call("POST", PATH, b"x")).status == 200


# --- again --------------------------------------------------------------------------------------


async def test_a_call_that_may_not_be_repeated_gets_the_providers_own_refusal(market: Market) -> None:
    market.provider.behaviour = UNAVAILABLE
    response = await market.call("POST", PATH, b"x")
    assert (response.status, response.body) == (503, b'{"busy":true}')
    assert len(market.provider.requests) == 1


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_safe_call_goes_again_under_its_one_id_and_makes_one_event(market: Market, status: int) -> None:
    market.provider.behaviour = one_after_another(answer(status), answer())
    response = await market.call("GET", PATH)
    assert response.status == 200
    assert [request.header("x-request-id") for request in market.provider.requests] == [
        [response.header("x-request-id")]
    ] * 2
    event = await market.settled_event()
    assert (event.attempts, event.outcome, event.units) == (2, Outcome.COMPLETED, {"requests": "1"})
    [allowance] = market.gateway.limits._allowances.values()
    assert (allowance.in_flight, allowance.reserved, allowance.used) == (0, 0, 1)


async def test_a_post_that_the_listing_calls_repeatable_goes_again_with_its_body(market: Market) -> None:
    change(market, policy=ServicePolicy(repeatable=True))
    market.provider.behaviour = one_after_another(UNAVAILABLE, UNAVAILABLE, answer())
    assert (await market.call("POST", PATH, b"the body")).status == 200
    assert [request.body for request in market.provider.requests] == [b"the body"] * 3
    assert (await market.settled_event()).attempts == 3


async def test_a_call_is_tried_three_times_and_no_more(market: Market) -> None:
    market.provider.behaviour = UNAVAILABLE
    response = await market.call("GET", PATH)
    assert (response.status, response.body) == (503, b'{"busy":true}')
    assert len(market.provider.requests) == 3
    assert (await market.settled_event()).outcome is Outcome.PROVIDER_FAILED
    nothing_is_held(market)


async def test_a_dead_connection_is_tried_again_for_a_repeatable_call_only(market: Market) -> None:
    market.provider.behaviour = hang_up
    assert (await market.call("POST", PATH, b"x")).status == 502
    assert len(market.provider.requests) == 1
    change(market, policy=ServicePolicy(repeatable=True))
    assert (await market.call("POST", PATH, b"x")).status == 502
    assert len(market.provider.requests) == 4


async def test_a_body_that_was_streamed_is_not_sent_again(market: Market) -> None:
    change(market, policy=ServicePolicy(repeatable=True))
    market.provider.behaviour = UNAVAILABLE
    assert (await market.call("POST", PATH, b"x" * 100_000)).status == 503
    assert len(market.provider.requests) == 1


async def test_a_budget_keeps_retries_from_becoming_the_load(market: Market) -> None:
    traffic = market.gateway.routes.find(b"acme/echo").traffic
    while traffic.budget.spend(market.gateway.clock.now_us(), traffic.calls):
        pass
    spent = traffic.budget.spent
    market.provider.behaviour = UNAVAILABLE
    await asyncio.gather(*(market.call("GET", PATH) for _ in range(4)))
    assert traffic.budget.spent - spent <= 3 + 1  # a second's worth, and what four calls pay for
    assert len(market.provider.requests) <= 4 + 4


async def test_a_provider_that_wants_to_be_left_alone_for_long_is(market: Market) -> None:
    market.provider.behaviour = answer(503, b"{}", "Retry-After: 3600")
    assert (await market.call("GET", PATH)).status == 503
    assert len(market.provider.requests) == 1


async def test_a_client_that_leaves_while_its_call_waits_to_go_again_ends_it(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("haat.gateway.upstreams.dispatch.wait", lambda *_: 100_000)
    market.provider.behaviour = UNAVAILABLE
    client = await market.connect()
    await client.send(market.raw("GET", PATH))
    await market.provider.arrived.wait()
    await market.until(lambda: bool(market.gateway.routes.find(b"acme/echo").traffic.budget.spent))
    client.reset()
    await market.until(lambda: not market.gateway.calls)
    assert (await market.settled_event()).outcome is Outcome.CLIENT_LEFT
    await asyncio.sleep(0.12)
    assert len(market.provider.requests) == 1
    nothing_is_held(market)


# --- several endpoints --------------------------------------------------------------------------


async def test_calls_go_round_while_nothing_tells_the_endpoints_apart(market: Market, second: Provider) -> None:
    change(market, endpoints=(url(market.provider.port), url(second.port, "/two")))
    for _ in range(6):
        assert (await market.call("POST", PATH, b"x")).status == 200
    assert (len(market.provider.requests), len(second.requests)) == (3, 3)
    assert second.requests[0].target == "/two/invoke"
    assert second.requests[0].header("host") == [f"127.0.0.1:{second.port}"]
    assert second.requests[0].header("x-provider-key") == ["provider-secret"]


async def test_calls_at_once_are_spread_evenly(market: Market, second: Provider) -> None:
    change(market, endpoints=(url(market.provider.port), url(second.port)))
    market.provider.behaviour = second.behaviour = silent
    clients = [await market.connect() for _ in range(8)]
    for client in clients:
        await client.send(market.raw("POST", PATH, b"x"))
    await market.until(lambda: len(market.provider.requests) == len(second.requests) == 4)


async def test_a_busy_endpoint_is_passed_over(market: Market, second: Provider) -> None:
    change(market, endpoints=(url(market.provider.port), url(second.port)))
    market.provider.behaviour = silent
    client = await market.connect()
    while not market.provider.requests:  # until the one that never answers has a call
        await client.send(market.raw("POST", PATH, b"x"))
        await market.until(lambda: bool(market.provider.requests) or not market.gateway.calls)
        if not market.provider.requests:
            await client.receive()
    before = len(second.requests)
    for _ in range(5):
        assert (await market.call("POST", PATH, b"x")).status == 200
    assert (len(market.provider.requests), len(second.requests)) == (1, before + 5)


async def test_a_call_of_which_nothing_was_sent_goes_to_another_endpoint_at_once(market: Market, refused: int) -> None:
    change(market, endpoints=(url(refused), url(market.provider.port)))
    for _ in range(4):
        assert (await market.call("POST", PATH, b"x")).status == 200
    await market.until(lambda: len(market.confirmed()) == 4)
    assert {event.attempts for event in market.events()} == {0, 2}


async def test_a_probe_that_finds_no_connection_and_goes_elsewhere_makes_room_for_the_next(
    make_market: MakeMarket, second: Provider
) -> None:
    market = await make_market(upstream_connections=1, upstream_wait_seconds=0.1)
    change(market, endpoints=(url(market.provider.port), url(second.port)))
    market.add_service("hog")
    market.provider.behaviour = silent
    client = await market.connect()
    await client.send(market.raw("POST", "/v1/services/acme/hog/x", b"x"))
    await market.provider.arrived.wait()
    first, other = endpoints(market)
    now = market.gateway.clock.now_us()
    for _ in range(THRESHOLD):
        first.failed(now - OPEN_US, None)
        other.failed(now, None)
    probe = asyncio.create_task(market.call("POST", PATH, b"x"))
    await market.until(lambda: first.pool.waiting == 1)
    assert not first.breaker.ready(now)
    other.breaker.open_until = 0
    assert (await probe).status == 200
    assert first.breaker.ready(now) and len(second.requests) == 1


async def test_an_endpoint_that_fails_every_fifth_call_is_ejected_while_another_is_well(
    market: Market, second: Provider
) -> None:
    change(market, endpoints=(url(market.provider.port), url(second.port)))
    bad = endpoints(market)[0]
    now = market.gateway.clock.now_us()
    for number in range(100):
        if number % 5:
            bad.succeeded(now, None)
        else:
            bad.failed(now, None)
    assert not bad.health.ejected_until and bad.breaker.state(now) == "closed"
    bad.failed(now, None)
    for _ in range(4):
        assert (await market.call("POST", PATH, b"x")).status == 200
    assert (len(market.provider.requests), len(second.requests)) == (0, 4)
    assert [notice.type for notice in market.gateway.endpoints.notices] == ["ejected"]


def eject(endpoint: Endpoint, now: int) -> None:
    for _ in range(80):
        endpoint.succeeded(now, None)
    for number in range(20):
        endpoint.failed(now, None)
        if number % 4 == 3:
            endpoint.breaker.succeeded(None)
    assert endpoint.health.ejected_until


async def test_when_all_are_ejected_all_are_used(market: Market, second: Provider) -> None:
    change(market, endpoints=(url(market.provider.port), url(second.port)))
    for endpoint in endpoints(market):
        eject(endpoint, market.gateway.clock.now_us())
    for _ in range(4):
        assert (await market.call("POST", PATH, b"x")).status == 200
    assert (len(market.provider.requests), len(second.requests)) == (2, 2)


async def test_an_ejected_endpoint_returns_after_its_time(market: Market, second: Provider) -> None:
    change(market, endpoints=(url(market.provider.port), url(second.port)))
    [first, _] = endpoints(market)
    now = market.gateway.clock.now_us()
    eject(first, now)
    market.gateway.endpoints.look(now + EJECT_US - 1)
    assert first.health.ejected_until
    pass_time(market, EJECT_US)
    market.gateway.endpoints.look(market.gateway.clock.now_us())
    assert not first.health.ejected_until
    assert market.gateway.endpoints.notices[-1].type == "restored"


async def test_an_ejected_endpoint_with_a_health_path_returns_when_that_answers(
    market: Market, second: Provider
) -> None:
    change(market, endpoints=(url(market.provider.port), url(second.port)), health_path="/health")
    [first, _] = endpoints(market)
    market.provider.behaviour = answer(500)
    eject(first, market.gateway.clock.now_us())
    pass_time(market, EJECT_US)
    market.gateway.endpoints.look(market.gateway.clock.now_us())
    await market.provider.arrived.wait()
    assert market.provider.requests[0].target == "/base/health"
    market.gateway.endpoints.look(market.gateway.clock.now_us())
    assert first.health.ejected_until and len(market.provider.requests) == 1
    market.provider.behaviour = answer(200)
    pass_time(market, int(PROBE_SECONDS * 1_000_000))
    market.gateway.endpoints.look(market.gateway.clock.now_us())
    await market.until(lambda: not first.health.ejected_until)

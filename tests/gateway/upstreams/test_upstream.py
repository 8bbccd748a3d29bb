"""Providers that misbehave: the documented status, a released reservation, an event that isn't billed."""

from __future__ import annotations

import asyncio
import socket

import pytest

from gateway.rig import MakeMarket, Market, Request, Response, answer, reset
from haat.usage.event import Outcome

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
PATH = "/v1/services/acme/echo/invoke"


async def failed(market: Market, status: int, code: str, *, method: str = "POST", slug: str = "echo") -> None:
    """Make a call, and look at everything that a failure must leave behind."""
    response = await market.call(method, f"/v1/services/acme/{slug}/invoke", b"x" if method == "POST" else b"")
    assert (response.status, response.json()["code"]) == (status, code)
    await left_clean(market, code)


async def left_clean(market: Market, code: str) -> None:
    event = await market.settled_event()
    assert (event.outcome, event.error_code, event.units) == (Outcome.PROVIDER_FAILED, code, {})
    for allowance in market.gateway.limits._allowances.values():
        assert (allowance.in_flight, allowance.reserved, allowance.used) == (0, 0, 0)
    assert not market.gateway.calls


def raw_answer(*parts: bytes, close: bool = True, abort: bool = False):  # type: ignore[no-untyped-def]
    async def behave(request: Request, reader: Reader, writer: Writer) -> bool:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.01)
        if abort:
            reset(writer)
        return not close

    return behave


async def test_a_refused_connection(market: Market) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        market.add_service("gone", port=unused.getsockname()[1])
        await failed(market, 503, "PROVIDER_UNAVAILABLE", slug="gone")


async def test_an_address_that_is_not_public_is_not_dialled(market: Market) -> None:
    market.add_service("inside", networks=())
    await failed(market, 503, "PROVIDER_UNAVAILABLE", slug="inside")
    assert market.provider.connections == 0


async def test_a_name_that_leads_inside_is_not_dialled(market: Market) -> None:
    market.add_service("rebound", networks=(), host="localhost")
    await failed(market, 503, "PROVIDER_UNAVAILABLE", slug="rebound")
    assert market.provider.connections == 0


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(raw_answer(), id="closes without a word"),
        pytest.param(raw_answer(abort=True), id="resets without a word"),
        pytest.param(raw_answer(b"HTTP/1.1 200 OK\r\nContent-Le"), id="ends in the head"),
        pytest.param(raw_answer(b"SSH-2.0-OpenSSH_9\r\n"), id="speaks something else"),
        pytest.param(raw_answer(b"HTTP/1.1 20 OK\r\n\r\n"), id="has no status"),
        pytest.param(
            raw_answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi"), id="two lengths"
        ),
        pytest.param(
            raw_answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"),
            id="length and chunked",
        ),
        pytest.param(raw_answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxx"), id="a foreign coding"),
        pytest.param(raw_answer(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000), id="a huge head"),
        pytest.param(raw_answer(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), id="upgrades"),
        pytest.param(raw_answer(b"HTTP/1.1 102 Processing\r\n\r\n" * 40), id="a storm of 1xx"),
    ],
)
async def test_no_usable_answer(market: Market, behaviour: object) -> None:
    market.provider.behaviour = behaviour  # type: ignore[assignment]
    await failed(market, 502, "PROVIDER_FAILED")


async def test_a_provider_that_never_answers(market: Market) -> None:
    market.add_service("slow", timeout_ms=50)

    async def never(request: Request, reader: Reader, writer: Writer) -> bool:
        await reader.read()
        return False

    market.provider.behaviour = never
    await failed(market, 504, "PROVIDER_TIMEOUT", slug="slow")
    await market.until(lambda: market.provider.lost == 1)


async def test_an_endless_answer_is_cut_at_the_longest_time_for_streams(make_market: MakeMarket) -> None:
    market = await make_market(stream_max_seconds=0.3)
    market.add_service("endless", timeout_ms=100)

    async def drip(request: Request, reader: Reader, writer: Writer) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.005)
        return False

    market.provider.behaviour = drip
    response = await market.call("POST", "/v1/services/acme/endless/invoke")
    assert (response.status, response.whole) == (200, False)
    await left_clean(market, "PROVIDER_TIMEOUT")


@pytest.mark.parametrize(
    "parts",
    [
        [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", b"half"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n", b"zz\r\n"],
    ],
    ids=["a body cut short", "chunks cut short", "garbage between chunks"],
)
async def test_an_answer_that_breaks_off_is_never_passed_off_as_whole(market: Market, parts: list[bytes]) -> None:
    market.provider.behaviour = raw_answer(*parts)
    response = await market.call("POST", PATH)
    assert (response.status, response.whole) == (200, False)
    await left_clean(market, "PROVIDER_FAILED")


async def test_informational_answers_are_skipped(market: Market) -> None:
    market.provider.behaviour = (
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + answer()
    )
    response = await market.call("POST", PATH, b"x")
    assert (response.status, response.header("link")) == (200, None)


async def test_a_body_that_ends_with_the_connection(market: Market) -> None:
    market.provider.behaviour = raw_answer(b"HTTP/1.1 200 OK\r\n\r\nfirst", b" second")
    response = await market.call("POST", PATH)
    assert (response.status, response.body, response.whole) == (200, b"first second", True)
    event = await market.settled_event()
    assert (event.outcome, event.bytes_out) == (Outcome.COMPLETED, 12)


async def test_answers_without_a_body(market: Market) -> None:
    client = await market.connect()
    for status in (204, 304):
        market.provider.behaviour = b'HTTP/1.1 %d X\r\nETag: "a"\r\n\r\n' % status
        await client.send(market.raw("GET", PATH))
        response = await client.receive()
        assert response is not None
        assert (response.status, response.body, response.header("etag")) == (status, b"", '"a"')
        assert response.header("transfer-encoding") is None
    assert market.provider.connections == 1


async def test_the_providers_own_errors_pass_through_unbilled(market: Market) -> None:
    market.provider.behaviour = answer(422, b'{"mine":1}', "X-Haat-Usage: characters=5")
    response = await market.call("POST", PATH)
    assert (response.status, response.body) == (422, b'{"mine":1}')
    assert response.header("x-haat-units") is None
    event = await market.settled_event()
    assert (event.outcome, event.status, event.units) == (Outcome.PROVIDER_FAILED, 422, {})


async def test_an_answer_before_the_request_has_ended(market: Market) -> None:
    async def at_once(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(403, b"no"))
        await writer.drain()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(at_once, "127.0.0.1", 0)
    market.add_service("early", port=server.sockets[0].getsockname()[1])
    client = await market.connect()
    await client.send(market.raw("POST", "/v1/services/acme/early/x", b"", "Content-Length: 500000") + b"x" * 70_000)
    response = await client.receive()
    assert response is not None
    assert (response.status, response.body, response.header("connection")) == (403, b"no", "close")
    assert await client.ended()
    server.close()


async def test_bytes_after_the_answer_cost_the_connection_and_nothing_else(market: Market) -> None:
    market.provider.behaviour = answer() + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    client = await market.connect()
    for _ in range(3):
        await client.send(market.raw("POST", PATH))
        response = await client.receive()
        assert response is not None and response.body == b'{"ok":true}'


async def stale(market: Market, method: str) -> Response:
    """Make one call, let the provider close the idle connection at the next request, make another."""
    answered = 0

    async def once(request: Request, reader: Reader, writer: Writer) -> bool:
        nonlocal answered
        answered += 1
        if answered == 2:
            return False
        writer.write(answer())
        return True

    market.provider.behaviour = once
    assert (await market.call("GET", PATH)).status == 200
    return await market.call(method, PATH)


async def test_a_stale_connection_is_no_failure_for_a_safe_call(market: Market) -> None:
    assert (await stale(market, "GET")).status == 200
    assert [request.method for request in market.provider.requests] == ["GET", "GET", "GET"]
    await market.until(lambda: len(market.confirmed()) == 2)


async def test_a_call_that_may_have_been_executed_is_not_repeated(market: Market) -> None:
    assert (await stale(market, "POST")).status == 502
    assert [request.method for request in market.provider.requests] == ["GET", "POST"]


async def test_connections_are_bounded_and_waiters_are_refused_in_time(make_market: MakeMarket) -> None:
    market = await make_market(upstream_connections=2, upstream_wait_seconds=0.1)
    go_on = asyncio.Event()

    async def wait(request: Request, reader: Reader, writer: Writer) -> bool:
        await go_on.wait()
        writer.write(answer())
        return True

    market.provider.behaviour = wait
    calls = [asyncio.create_task(market.call("POST", PATH)) for _ in range(5)]
    done, pending = await asyncio.wait(calls, timeout=1.0)
    assert [task.result().status for task in done] == [503] * 3
    assert all(task.result().json()["code"] == "OVERLOADED" for task in done)
    assert all(task.result().header("retry-after") == "1" for task in done)
    go_on.set()
    assert [response.status for response in await asyncio.gather(*pending)] == [200, 200]
    assert market.provider.connections == 2
    assert {event.outcome for event in market.events()} == {Outcome.COMPLETED, Outcome.REFUSED}


async def test_a_full_wait_queue_refuses_at_once(make_market: MakeMarket) -> None:
    market = await make_market(upstream_connections=1, upstream_wait_seconds=5)

    async def never(request: Request, reader: Reader, writer: Writer) -> bool:
        await reader.read()
        return False

    market.provider.behaviour = never
    calls = [asyncio.create_task(market.call("POST", PATH)) for _ in range(20)]
    done, pending = await asyncio.wait(calls, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
    assert all(task.result().status == 503 for task in done)
    for client in market.clients:
        client.close()
    await asyncio.gather(*pending, return_exceptions=True)


async def test_waiting_calls_get_the_connection_that_becomes_free(make_market: MakeMarket) -> None:
    market = await make_market(upstream_connections=1)
    responses = await asyncio.gather(*(market.call("POST", PATH) for _ in range(8)))
    assert [response.status for response in responses] == [200] * 8
    assert market.provider.connections == 1


async def test_one_bad_provider_disturbs_no_other_call(market: Market) -> None:
    async def bad(reader: Reader, writer: Writer) -> None:
        reset(writer)

    server = await asyncio.start_server(bad, "127.0.0.1", 0)
    market.add_service("bad", port=server.sockets[0].getsockname()[1])
    calls = [market.call("POST", f"/v1/services/acme/{'bad' if n % 2 else 'echo'}/x", b"x") for n in range(40)]
    statuses = [response.status for response in await asyncio.gather(*calls)]
    assert statuses[::2] == [200] * 20
    assert set(statuses[1::2]) <= {502, 503}
    server.close()


@pytest.mark.parametrize(
    ("reported", "unit", "units", "header"),
    [
        (
            "characters=120; graphemes=100",
            "characters",
            {"requests": "1", "characters": "120", "graphemes": "100"},
            "characters=120",
        ),
        ("characters=2000.5", "characters", {"requests": "1", "characters": "1000"}, "characters=1000"),
        (
            "audio_seconds=1.250000",
            "audio_seconds",
            {"requests": "1", "audio_seconds": "1.250000"},
            "audio_seconds=1.250000",
        ),
        ("characters=-5", "characters", {"requests": "1"}, None),
        ("characters=1e9", "characters", {"requests": "1"}, None),
        ("nonsense", "characters", {"requests": "1"}, None),
    ],
)
async def test_reported_usage_is_taken_over_capped_and_kept_word_for_word(
    market: Market, reported: str, unit: str, units: dict[str, str], header: str | None
) -> None:
    market.add_service("metered", unit=unit, max_units="1000")
    market.provider.behaviour = answer(200, b"x", f"X-Haat-Usage: {reported}")
    response = await market.call("POST", "/v1/services/acme/metered/x", b"abc")
    assert response.header("x-haat-usage") is None
    assert response.header("x-haat-units") == header
    event = await market.settled_event()
    assert (event.units, event.raw_usage) == (units, reported)
    assert event.units_source == ("upstream" if len(units) > 1 else "counted")


async def test_bytes_are_counted_by_us(market: Market) -> None:
    market.add_service("bytes", unit="bytes")
    response = await market.call("POST", "/v1/services/acme/bytes/x", b"x" * 123)
    assert response.header("x-haat-units") == "bytes=123"
    assert (await market.settled_event()).units == {"requests": "1", "bytes": "123"}

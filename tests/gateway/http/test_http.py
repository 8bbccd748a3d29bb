"""HTTP/1.1 over real connections: order, continuation, bodies, time. The grammar is in `corpus`."""

from __future__ import annotations

import random

import pytest

from gateway.rig import MakeMarket, Market, answer

PATH = "/v1/services/acme/echo/invoke"


async def test_what_follows_a_refused_framing_is_never_taken_for_a_request(market: Market) -> None:
    smuggled = market.raw("GET", "/v1/services/acme/echo/smuggled")
    for framing in (
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
    ):
        client = await market.connect()
        await client.send(market.raw("POST", PATH, b"0\r\n\r\n", framing) + smuggled)
        response = await client.receive()
        assert response is not None and response.status == 400
        assert response.header("connection") == "close"
        assert await client.ended()
    assert market.provider.requests == []


async def test_pipelined_requests_are_answered_in_order(market: Market) -> None:
    client = await market.connect()
    paths = [f"/v1/services/acme/echo/{n}" for n in range(20)]
    await client.send(b"".join(market.raw("GET", path) for path in paths))
    seen = [await client.receive() for _ in paths]
    assert [response.status for response in seen if response] == [200] * 20
    assert [request.target for request in market.provider.requests] == [f"/base/{n}" for n in range(20)]


async def test_pipelined_requests_with_bodies_and_refusals_between(market: Market) -> None:
    client = await market.connect()
    await client.send(
        market.raw("POST", PATH, b"one")
        + market.raw("POST", "/v1/services/acme/nothing/x", b"two")
        + market.raw("POST", PATH, b"5\r\nthree\r\n0\r\n\r\n", "Transfer-Encoding: chunked")
        + market.raw("GET", "/nowhere")
        + market.raw("POST", PATH, b"four")
    )
    seen = [await client.receive() for _ in range(5)]
    assert [response.status for response in seen if response] == [200, 404, 200, 404, 200]
    assert [request.body for request in market.provider.requests] == [b"one", b"three", b"four"]


async def test_too_many_pipelined_requests_are_bounded_and_the_connection_ends(market: Market) -> None:
    client = await market.connect()
    await client.send(market.raw("GET", PATH) * 1000)
    answered = 0
    while (response := await client.receive()) is not None:
        assert response.status == 200
        answered += 1
    assert 10 < answered < 1000
    assert answered == len(market.provider.requests)


async def test_a_broken_request_after_good_ones_lets_those_be_answered_first(market: Market) -> None:
    client = await market.connect()
    await client.send(market.raw("GET", PATH) * 2 + b"garbage\r\n\r\n")
    statuses = [response.status if (response := await client.receive()) else None for _ in range(4)]
    assert statuses == [200, 200, 400, None]


async def test_a_connection_is_kept_for_many_calls(market: Market) -> None:
    client = await market.connect()
    for _ in range(5):
        await client.send(market.raw("POST", PATH, b"x"))
        response = await client.receive()
        assert response is not None and response.status == 200
        assert response.header("connection") is None
    assert market.provider.connections == 1


async def test_connection_close_and_http_1_0_end_the_connection(market: Market) -> None:
    for raw in (market.raw("GET", PATH, b"", "Connection: close"), market.raw("GET", PATH, version="1.0")):
        client = await market.connect()
        await client.send(raw)
        response = await client.receive()
        assert response is not None and response.header("connection") == "close"
        assert await client.ended()


async def test_http_1_0_may_ask_to_keep_the_connection(market: Market) -> None:
    client = await market.connect()
    for _ in range(2):
        await client.send(market.raw("GET", PATH, b"", "Connection: keep-alive", version="1.0"))
        response = await client.receive()
        assert response is not None and response.header("connection") == "keep-alive"


async def test_expect_100_continue_is_answered_after_admission_and_before_the_body(market: Market) -> None:
    client = await market.connect()
    await client.send(market.raw("POST", PATH, b"", "Expect: 100-continue", "Content-Length: 5"))
    assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send(b"hello")
    response = await client.receive()
    assert response is not None and response.status == 200
    assert market.provider.requests[0].body == b"hello"
    assert market.provider.requests[0].header("expect") == []


async def test_expect_100_continue_is_refused_without_asking_for_the_body(market: Market) -> None:
    client = await market.connect()
    await client.send(market.raw("POST", PATH, b"", "Expect: 100-continue", "Content-Length: 5", key="wrong"))
    response = await client.receive()
    assert response is not None and response.status == 401
    assert response.header("connection") == "close"


async def test_head_has_the_answers_headers_and_no_body(market: Market) -> None:
    market.provider.behaviour = b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nX-Kind: head\r\n\r\n"
    client = await market.connect()
    for _ in range(2):
        await client.send(market.raw("HEAD", PATH))
        response = await client.receive("HEAD")
        assert response is not None
        assert (response.header("content-length"), response.header("x-kind")) == ("1234", "head")
    assert market.provider.connections == 1


async def test_a_refusal_of_head_has_no_body_either(market: Market) -> None:
    client = await market.connect()
    for _ in range(2):
        await client.send(market.raw("HEAD", "/nowhere"))
        response = await client.receive("HEAD")
        assert response is not None and (response.status, response.body) == (404, b"")


async def test_a_refused_small_body_is_read_and_the_connection_stays(market: Market) -> None:
    client = await market.connect()
    await client.send(market.raw("POST", "/nowhere", b"", "Content-Length: 10"))
    response = await client.receive()
    assert response is not None and response.status == 404
    await client.send(b"0123456789" + market.raw("GET", PATH))
    response = await client.receive()
    assert response is not None and response.status == 200


async def test_a_chunked_body_beyond_the_limit_is_refused_while_it_arrives(market: Market) -> None:
    market.add_service("small", max_body_bytes=1000)
    client = await market.connect()
    await client.send(market.raw("POST", "/v1/services/acme/small/x", b"", "Transfer-Encoding: chunked"))
    await client.send(b"200\r\n" + b"x" * 512 + b"\r\n")
    await client.send(b"200\r\n" + b"x" * 512 + b"\r\n")
    response = await client.receive()
    assert response is not None and response.status == 413
    assert response.json()["limit_bytes"] == 1000
    assert await client.ended()
    assert market.provider.requests == []


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_large_body_is_streamed_unchanged(market: Market, chunked: bool) -> None:
    body = random.Random(1).randbytes(900_000)
    if chunked:
        framed = (
            b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:300_000], body[300_000:])) + b"0\r\n\r\n"
        )
        raw = market.raw("POST", PATH, b"", "Transfer-Encoding: chunked") + framed
    else:
        raw = market.raw("POST", PATH, body)
    client = await market.connect()
    await client.send(raw)
    response = await client.receive()
    assert response is not None and response.status == 200
    assert market.provider.requests[0].body == body
    event = await market.settled_event()
    assert event.bytes_in == len(body)


async def test_any_bytes_at_all_get_an_answer_or_an_end(market: Market) -> None:
    chance = random.Random(7)
    good = market.raw("POST", PATH, b"hello", "X-A: b")
    for _ in range(150):
        raw = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(raw))
            match chance.randrange(3):
                case 0:
                    raw[at] = chance.randrange(256)
                case 1:
                    raw[at:at] = chance.randbytes(chance.randint(1, 3))
                case _:
                    del raw[at : at + chance.randint(1, 3)]
        client = await market.connect()
        await client.send(bytes(raw))
        client.writer.write_eof()
        response = await client.receive()
        assert response is None or response.status in (200, 400, 401, 404, 413, 417, 431, 501, 505)
        client.close()
    assert (await market.call("GET", PATH)).status == 200


async def test_a_slow_head_is_timed_out(make_market: MakeMarket) -> None:
    market = await make_market(header_timeout_seconds=0.1)
    client = await market.connect()
    await client.send(b"GET / HTTP/1.1\r\nHost: g\r\n")
    response = await client.receive()
    assert response is not None and response.status == 408
    assert await client.ended()


async def test_a_slow_body_is_timed_out_and_its_admission_given_back(make_market: MakeMarket) -> None:
    market = await make_market(header_timeout_seconds=0.1)
    client = await market.connect()
    await client.send(market.raw("POST", PATH, b"", "Content-Length: 100"))
    response = await client.receive()
    assert response is not None and response.status == 408
    [allowance] = market.gateway.limits._allowances.values()
    assert (allowance.in_flight, allowance.reserved, allowance.used) == (0, 0, 0)


async def test_an_idle_connection_is_closed(make_market: MakeMarket) -> None:
    market = await make_market(keep_alive_seconds=0.1)
    client = await market.connect()
    assert await client.ended()


async def test_the_answer_to_http_1_0_without_a_length_ends_with_the_connection(market: Market) -> None:
    market.provider.behaviour = answer(200, b"3\r\nabc\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=False)
    client = await market.connect()
    await client.send(market.raw("GET", PATH, b"", "Connection: keep-alive", version="1.0"))
    raw = await client.reader.read()
    assert b"transfer-encoding" not in raw.lower()
    assert raw.endswith(b"\r\n\r\nabc")

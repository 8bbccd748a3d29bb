"""HTTP/1.1 as the edge of the internet speaks it: a table of raw requests, each also sent in pieces."""

from __future__ import annotations

import contextlib
import random
from typing import NamedTuple

import pytest

from gateway.rig import MakeMarket, Market, Response, answer

PATH = "/v1/services/acme/echo/invoke"


class Case(NamedTuple):
    name: str
    raw: str
    status: int
    code: str = ""


def post(*lines: str, body: str = "", path: str = PATH, method: str = "POST", version: str = "1.1") -> str:
    head = [f"{method} {path} HTTP/{version}", "Host: gateway", "Authorization: Bearer KEY", *lines]
    return "\r\n".join(head) + "\r\n\r\n" + body


def bare(*lines: str, request: str = f"POST {PATH} HTTP/1.1", body: str = "") -> str:
    return "\r\n".join([request, *lines]) + "\r\n\r\n" + body


AUTH = "Authorization: Bearer KEY"
CASES = [
    # good
    Case("a body of known length", post("Content-Length: 2", body="hi"), 200),
    Case("no body at all", post(), 200),
    Case("an empty body", post("Content-Length: 0"), 200),
    Case("a chunked body", post("Transfer-Encoding: chunked", body="2\r\nhi\r\n3;x=y\r\nyou\r\n0\r\n\r\n"), 200),
    Case("a chunked body in capitals", post("Transfer-Encoding: CHUNKED", body="A\r\n0123456789\r\n0\r\n\r\n"), 200),
    Case("an empty chunked body", post("Transfer-Encoding: chunked", body="0\r\n\r\n"), 200),
    Case("trailers", post("Transfer-Encoding: chunked", body="2\r\nhi\r\n0\r\nX-Sum: 1\r\nHost: evil\r\n\r\n"), 200),
    Case("GET", post(method="GET"), 200),
    Case("DELETE", post(method="DELETE"), 200),
    Case("PATCH", post("Content-Length: 1", method="PATCH", body="x"), 200),
    Case("OPTIONS", post(method="OPTIONS"), 200),
    Case("a query", post(path=PATH + "?a=1&b=%20%E0%A4%B9"), 200),
    Case("an encoded slash", post(path=PATH + "/a%2Fb"), 200),
    Case("dots that are no dot segment", post(path=PATH + "/v1.2/...x/.y"), 200),
    Case("dots in the query", post(path=PATH + "?next=/../x"), 200),
    Case("a service without a tail", post(path="/v1/services/acme/echo"), 200),
    Case("a named version", post(path="/v1/services/acme/echo@2/invoke"), 200),
    Case("absolute form", post(path="http://gateway" + PATH), 200),
    Case("absolute form in capitals", post(path="HTTP://gateway" + PATH), 200),
    Case("X-API-Key", bare("Host: g", "X-API-Key: KEY"), 200),
    Case("header names in any case", bare("hOsT: g", "aUTHORIZATION: bearer KEY", "CONTENT-LENGTH: 2", body="hi"), 200),
    Case("space around a key", bare("Host: g", "Authorization:   Bearer   KEY  "), 200),
    Case("the same key twice", bare("Host: g", AUTH, "X-API-Key: KEY"), 200),
    Case("another scheme beside X-API-Key", bare("Host: g", "Authorization: Basic eDp5", "X-API-Key: KEY"), 200),
    Case("empty lines before the request", "\r\n\r\n" + post(), 200),
    Case("HTTP/1.0 with Host", post(version="1.0"), 200),
    Case("HTTP/1.0 without Host", bare(AUTH, request=f"GET {PATH} HTTP/1.0"), 200),
    Case("Connection: close", post("Connection: close"), 200),
    Case("Upgrade without Connection", post("Upgrade: h2c", "Content-Length: 2", body="hi"), 200),
    Case("an unknown expectation", post("Expect: tea", "Content-Length: 2", body="hi"), 200),
    Case("bytes beyond ASCII in a header", post("X-Name: हिन्दी"), 200),
    Case("health", bare("Host: g", request="GET /health HTTP/1.1"), 200),
    Case("liveness", bare("Host: g", request="GET /health/live HTTP/1.1"), 200),
    Case("readiness", bare("Host: g", request="HEAD /health/ready HTTP/1.1"), 200),
    # framing that could smuggle
    Case("two lengths that differ", post("Content-Length: 2", "Content-Length: 3", body="hi"), 400, "INVALID_REQUEST"),
    Case("two equal lengths", post("Content-Length: 2", "Content-Length: 2", body="hi"), 400, "INVALID_REQUEST"),
    Case("a list of lengths", post("Content-Length: 2, 2", body="hi"), 400, "INVALID_REQUEST"),
    Case("length with a sign", post("Content-Length: +2", body="hi"), 400, "INVALID_REQUEST"),
    Case("negative length", post("Content-Length: -2", body="hi"), 400, "INVALID_REQUEST"),
    Case("hexadecimal length", post("Content-Length: 0x2", body="hi"), 400, "INVALID_REQUEST"),
    Case("length without digits", post("Content-Length: "), 400, "INVALID_REQUEST"),
    Case("length beyond 64 bits", post("Content-Length: 99999999999999999999999"), 400, "INVALID_REQUEST"),
    Case(
        "length and chunked",
        post("Content-Length: 5", "Transfer-Encoding: chunked", body="0\r\n\r\n"),
        400,
        "INVALID_REQUEST",
    ),
    Case(
        "chunked and length",
        post("Transfer-Encoding: chunked", "Content-Length: 5", body="0\r\n\r\n"),
        400,
        "INVALID_REQUEST",
    ),
    Case("chunked twice", post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 400, "INVALID_REQUEST"),
    Case("another coding before", post("Transfer-Encoding: gzip, chunked", body="0\r\n\r\n"), 400, "INVALID_REQUEST"),
    Case("another coding after", post("Transfer-Encoding: chunked, gzip", body="0\r\n\r\n"), 400, "INVALID_REQUEST"),
    Case("an unknown coding", post("Transfer-Encoding: xchunked", body="0\r\n\r\n"), 400, "INVALID_REQUEST"),
    Case("space before the colon", post("Transfer-Encoding : chunked", body="0\r\n\r\n"), 400, "INVALID_REQUEST"),
    Case(
        "chunked in HTTP/1.0",
        post("Transfer-Encoding: chunked", body="0\r\n\r\n", version="1.0"),
        400,
        "INVALID_REQUEST",
    ),
    Case("a chunk without CR", post("Transfer-Encoding: chunked", body="2\nhi\n0\n\n"), 400, "INVALID_REQUEST"),
    Case(
        "a chunk size with a space",
        post("Transfer-Encoding: chunked", body="2 \r\nhi\r\n0\r\n\r\n"),
        400,
        "INVALID_REQUEST",
    ),
    Case("a negative chunk size", post("Transfer-Encoding: chunked", body="-2\r\nhi\r\n"), 400, "INVALID_REQUEST"),
    Case(
        "a chunk size beyond 64 bits",
        post("Transfer-Encoding: chunked", body="f" * 18 + "\r\n"),
        400,
        "INVALID_REQUEST",
    ),
    Case(
        "a chunk longer than it says",
        post("Transfer-Encoding: chunked", body="1\r\nhi\r\n0\r\n\r\n"),
        400,
        "INVALID_REQUEST",
    ),
    # heads
    Case("no Host", bare(AUTH), 400, "INVALID_REQUEST"),
    Case("two Hosts", bare("Host: a", "Host: b", AUTH), 400, "INVALID_REQUEST"),
    Case("the same Host twice", bare("Host: a", "Host: a", AUTH), 400, "INVALID_REQUEST"),
    Case("an empty Host", bare("Host: ", AUTH), 400, "INVALID_REQUEST"),
    Case("a folded header", post("X-Long: a", " b"), 400, "INVALID_REQUEST"),
    Case("a header without a colon", post("X-Nothing"), 400, "INVALID_REQUEST"),
    Case("a header without a name", post(": x"), 400, "INVALID_REQUEST"),
    Case("a space in a name", post("X y: z"), 400, "INVALID_REQUEST"),
    Case("a NUL in a value", post("X: a\x00b"), 400, "INVALID_REQUEST"),
    Case("a bare CR in a value", post("X: a\rb"), 400, "INVALID_REQUEST"),
    Case("a control character in a value", post("X: a\x01b"), 400, "INVALID_REQUEST"),
    Case(
        "lines that end with LF alone",
        f"GET {PATH} HTTP/1.1\nHost: g\nAuthorization: Bearer KEY\n\n",
        400,
        "INVALID_REQUEST",
    ),
    Case("two different keys", bare("Host: g", AUTH, "X-API-Key: other"), 400, "INVALID_REQUEST"),
    Case("two Authorization headers", bare("Host: g", AUTH, "Authorization: Bearer other"), 400, "INVALID_REQUEST"),
    Case("huge headers", post("X: " + "a" * 40_000), 431, "HEADERS_TOO_LARGE"),
    Case("very many headers", post(*[f"X-{n}: {n}" for n in range(4000)]), 431, "HEADERS_TOO_LARGE"),
    Case("a huge target", post(path=PATH + "/" + "a" * 40_000), 431, "HEADERS_TOO_LARGE"),
    # request lines
    Case("an unknown method", post(method="BREW"), 400, "INVALID_REQUEST"),
    Case("a method in small letters", post(method="post"), 400, "INVALID_REQUEST"),
    Case("CONNECT", bare("Host: g", AUTH, request="CONNECT gateway:80 HTTP/1.1"), 400, "INVALID_REQUEST"),
    Case("an upgrade", post("Connection: Upgrade", "Upgrade: websocket", method="GET"), 400, "INVALID_REQUEST"),
    Case("a space in the target", post(path=PATH + "/a b"), 400, "INVALID_REQUEST"),
    Case("a fragment", post(path=PATH + "#x"), 400, "INVALID_REQUEST"),
    Case("a raw non-ASCII target", post(path=PATH + "/हि"), 400, "INVALID_REQUEST"),
    Case("a backslash", post(path=PATH + "/..\\x"), 400, "INVALID_REQUEST"),
    Case("a relative target", post(path="v1/services"), 400, "INVALID_REQUEST"),
    Case("asterisk form", bare("Host: g", AUTH, request="OPTIONS * HTTP/1.1"), 400, "INVALID_REQUEST"),
    Case("another scheme", post(path="ftp://gateway" + PATH), 400, "INVALID_REQUEST"),
    Case("HTTP/2.0 in letters", post(version="2.0"), 400, "INVALID_REQUEST"),
    Case("HTTP/1.2", post(version="1.2"), 400, "INVALID_REQUEST"),
    Case("HTTP/0.9", f"GET {PATH}\r\n\r\n", 400, "INVALID_REQUEST"),
    Case("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "INVALID_REQUEST"),
    Case("not HTTP at all", "\x16\x03\x01\x02\x00\x01\x00", 400, "INVALID_REQUEST"),
    # climbing out of the provider's path
    Case("a dot segment", post(path=PATH + "/../../admin"), 400, "INVALID_REQUEST"),
    Case("a dot segment at the end", post(path=PATH + "/.."), 400, "INVALID_REQUEST"),
    Case("a single dot segment", post(path=PATH + "/./x"), 400, "INVALID_REQUEST"),
    Case("an encoded dot segment", post(path=PATH + "/%2e%2E/admin"), 400, "INVALID_REQUEST"),
    Case("a dot segment behind an encoded slash", post(path=PATH + "/x%2f..%2fadmin"), 400, "INVALID_REQUEST"),
    Case("a dot segment with a parameter", post(path=PATH + "/..;a=b/admin"), 400, "INVALID_REQUEST"),
    # nothing there
    Case("another path", post(path="/v2/anything"), 404, "NOT_FOUND"),
    Case("the root", post(path="/", method="GET"), 404, "NOT_FOUND"),
    Case("an unknown provider", post(path="/v1/services/nobody/echo/x"), 404, "SERVICE_NOT_FOUND"),
    Case("an unknown service", post(path="/v1/services/acme/nothing/x"), 404, "SERVICE_NOT_FOUND"),
    Case("an unknown version", post(path="/v1/services/acme/echo@9/x"), 404, "SERVICE_NOT_FOUND"),
    Case("a provider alone", post(path="/v1/services/acme"), 404, "SERVICE_NOT_FOUND"),
    # who is asking
    Case("no key", bare("Host: g"), 401, "UNAUTHENTICATED"),
    Case("an empty key", bare("Host: g", "Authorization: Bearer "), 401, "UNAUTHENTICATED"),
    Case("another scheme", bare("Host: g", "Authorization: Basic eDp5"), 401, "UNAUTHENTICATED"),
    Case("a key that isn't ours", bare("Host: g", "X-API-Key: sk-123"), 401, "INVALID_CREDENTIAL"),
    Case("a mistyped key", bare("Host: g", "X-API-Key: haat_live_" + "0" * 28), 401, "INVALID_CREDENTIAL"),
    # bodies
    Case("a declared body beyond the limit", post("Content-Length: 1048577"), 413, "BODY_TOO_LARGE"),
]
ids = [case.name for case in CASES]


def encode(market: Market, case: Case) -> bytes:
    return case.raw.replace("KEY", market.key).encode("utf-8" if "हि" in case.raw else "latin-1")


async def send(market: Market, raw: bytes, cuts: list[int]) -> Response:
    client = await market.connect()
    with contextlib.suppress(ConnectionError):  # the gateway may have answered and closed before all was sent
        await client.send(raw, cuts)
    response = await client.receive("HEAD" if raw.startswith(b"HEAD") else "GET")
    client.close()
    assert response is not None, "the connection ended without an answer"
    return response


def check(case: Case, response: Response) -> None:
    assert response.status == case.status, response.body
    if case.code:
        problem = response.json()
        assert response.header("content-type") == "application/problem+json"
        assert (problem["code"], problem["status"]) == (case.code, case.status)
        assert problem["request_id"] == response.header("x-request-id")
        assert len(problem["detail"]) > 10
        assert "Traceback" not in problem["detail"]


@pytest.mark.parametrize("case", CASES, ids=ids)
async def test_raw_request(market: Market, case: Case) -> None:
    raw = encode(market, case)
    check(case, await send(market, raw, []))
    chance = random.Random(case.name)
    for _ in range(3):  # the same bytes, arriving in pieces
        cuts = sorted(chance.sample(range(1, len(raw)), min(len(raw) - 1, chance.choice([1, 2, 8]))))
        check(case, await send(market, raw, cuts))


@pytest.mark.parametrize("case", [case for case in CASES if len(case.raw) < 300][::6], ids=lambda case: case.name)
async def test_raw_request_cut_at_every_byte(market: Market, case: Case) -> None:
    raw = encode(market, case)
    check(case, await send(market, raw, list(range(1, len(raw)))))


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
        assert response is None or response.status in (200, 400, 401, 404, 413, 431)
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

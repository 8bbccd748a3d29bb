"""Smuggling, with both ends watched: the provider sees the requests that were admitted, no more and no other ones.

Three readers look at what was forwarded: h11, which refuses anything odd (`Seen.violations`), and two that
read carelessly, one that believes lengths first, one that believes chunks first. All must find the same.
"""

from __future__ import annotations

import asyncio

import pytest

from gateway.http.case import PATH, Case, call, chunked, get
from gateway.http.corpus import CASES, smuggling
from gateway.http.lenient import Found, read_with_chunks, read_with_length
from gateway.http.test_corpus import positions
from gateway.http.wire import Seen, Visit, Wire
from gateway.rig import Market, Request, answer

ids = [case.name for case in smuggling.CASES]


def readings(seen: Seen) -> list[list[Found]]:
    return [read_with_length(seen.forwarded), read_with_chunks(seen.forwarded)]


def agree(seen: Seen) -> None:
    """Hold all readers against each other and against what the client was told."""
    assert seen.violations == ()
    for found in readings(seen):
        assert [(one.method.decode(), one.target.decode(), one.body) for one in found] == [
            (request.method, request.target, request.body) for request in seen.requests
        ]
    for request in seen.requests:
        check_fields(request)


def check_fields(request: Request) -> None:
    for name in ("host", "x-request-id", "x-provider-key", "via"):
        assert len(request.header(name)) == 1, name
    assert len(request.header("content-length")) + len(request.header("transfer-encoding")) <= 1
    assert request.header("transfer-encoding") in ([], ["chunked"])
    assert not {name for name, _ in request.headers} & {"connection", "upgrade", "te", "trailer", "authorization"}


@pytest.mark.parametrize("case", smuggling.CASES, ids=ids)
def test_every_reader_finds_the_admitted_requests(wire: Wire, case: Case) -> None:
    agree(wire.run(case.raw))
    for seen in wire.run_cut(case.raw, positions(case)[::7]):
        agree(seen)


def test_every_reader_agrees_on_the_whole_corpus(wire: Wire) -> None:
    for case in CASES:
        if len(case.raw) < 5000:
            seen = wire.run(case.raw)
            if "underscore" not in case.name:  # a careless reader takes one for a hyphen, and that name is legal
                agree(seen)


@pytest.mark.parametrize("case", smuggling.CASES, ids=ids)
def test_the_next_client_gets_its_own_answer(wire: Wire, case: Case) -> None:
    """The provider's connection that a shape has passed over carries the next call as if nothing had been."""
    wire.run(case.raw)
    seen = wire.run(get(path="/v1/services/acme/echo/next"))
    agree(seen)
    assert [request.target for request in seen.requests] == ["/base/next"]
    assert [response.status for response in seen.answers()] == [200]


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_a_streamed_body_that_is_full_of_requests_stays_one_body(market: Market, framing: str) -> None:
    body = get(path=PATH + "/hidden") * 1500
    raw = (
        call(f"Content-Length: {len(body)}", body=body)
        if framing == "length"
        else chunked(
            b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:70_000], body[70_000:])) + b"0\r\n\r\n"
        )
    )
    raw = raw.replace(b"haat_live_OfTheCorpusOfTheCorpus3dgwew", market.key.encode())
    client = await market.connect()
    await client.send(raw, [100, 5000, 100_000])
    response = await client.receive()
    assert response is not None and response.status == 200
    [request] = market.provider.requests
    assert request.target == "/base/invoke"
    assert len(request.body) > 100_000


@pytest.mark.parametrize(
    "rest",
    [b"5\r\nhello", b"5\r\nhelloXX", b"zz\r\n", b"5\r\nhello\r\n0\r\nBad Name: x\r\n\r\n", b"-1\r\n"],
    ids=["cut off", "two bytes too many", "no size", "a bad trailer", "a negative size"],
)
def test_a_streamed_body_that_breaks_never_becomes_a_whole_request(wire: Wire, rest: bytes) -> None:
    """The provider must see the end of the connection, never an end of the body that the client didn't send."""
    visit = Visit(wire)

    async def scene() -> Seen:
        visit.client.data_received(chunked(b"%x\r\n%b\r\n" % (70_000, b"x" * 70_000)))
        await wire.settle()
        assert wire.heads == 1
        visit.client.data_received(rest)
        await wire.settle()
        return await visit.end()

    seen = wire.play(scene())
    assert seen.requests == ()
    assert not seen.forwarded.endswith(b"0\r\n\r\n")


async def test_an_answer_that_comes_too_early_is_not_given_to_the_next_caller(market: Market) -> None:
    """A provider that answers twice at once would answer somebody else's question with the second."""

    async def twice(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(answer(200, b"yours") + answer(200, b"not yours"))
        await writer.drain()
        return True

    market.provider.behaviour = twice
    client = await market.connect()
    for _ in range(10):
        await client.send(market.raw("POST", PATH))
        response = await client.receive()
        assert response is not None and response.body == b"yours"
    assert market.provider.connections == 10


async def test_what_an_idle_provider_says_unasked_is_nobodys_answer(market: Market) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def keep(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writers.append(writer)
        writer.write(answer(200, b"asked"))
        return True

    market.provider.behaviour = keep
    assert (await market.call("POST", PATH)).body == b"asked"
    writers[0].write(answer(200, b"unasked"))
    await market.until(lambda: market.provider.lost == 1)
    assert (await market.call("POST", PATH)).body == b"asked"
    assert market.provider.connections == 2

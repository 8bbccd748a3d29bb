"""Back-pressure and disconnects: nobody who is slow grows the gateway's memory, nobody who leaves is worked for.

What is bounded is what the gateway holds: in the transports of both sides, and in the call.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.http.case import call, chunked, get
from gateway.http.wire import BODY, HIGH_WATER, Peer, Visit, Wire
from haat.gateway.call import BUFFERED_BODY
from haat.gateway.http.connection import LINGER_BYTES
from haat.gateway.http.reader import CHUNK_OVERHEAD
from haat.infra.keyring import Keyring

READ = 64 * 1024
"""Bytes that arrive at a time."""
BOUND = BUFFERED_BODY + HIGH_WATER + 3 * READ
LARGE = 20 * 1024 * 1024


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    with Wire(tmp_path, Keyring(bytes(range(32))), max_body_bytes=LARGE) as wire:
        wire.market.add_service("large", port=9, max_body_bytes=LARGE)
        yield wire


def held(wire: Wire, visit: Visit) -> int:
    """Return the bytes that the gateway holds for this client."""
    calls = sum(sum(map(len, one.body)) + sum(map(len, one.lines)) for one in wire.gateway.calls)
    return (
        visit.transport.get_write_buffer_size()
        + calls
        + sum(peer.transport.get_write_buffer_size() for peer in wire.peers)
    )


async def pour(wire: Wire, visit: Visit, parts: Iterator[bytes], most: int = LARGE) -> int:
    """Send parts as long as the gateway reads; return how much it took."""
    taken = 0
    for part in parts:
        if not visit.transport.reading or visit.gone or taken >= most:
            break
        visit.client.data_received(part)
        taken += len(part)
        await wire.settle(answering=False, waiting=False)
        assert held(wire, visit) <= BOUND
    return taken


def endless(part: bytes) -> Iterator[bytes]:
    while True:
        yield part


def upload(framing: str) -> tuple[bytes, bytes]:
    """Return the head of a large upload and a part of its body."""
    path = "/v1/services/acme/large/x"
    if framing == "length":
        return call(f"Content-Length: {LARGE}", path=path), b"x" * READ
    return call("Transfer-Encoding: chunked", path=path), b"10000\r\n" + b"x" * READ + b"\r\n"


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_provider_that_reads_nothing_holds_the_client_back(wire: Wire, framing: str) -> None:
    head, part = upload(framing)

    async def scene() -> None:
        wire.stalled = True
        visit = Visit(wire)
        visit.client.data_received(head)
        taken = await pour(wire, visit, endless(part))
        assert not visit.transport.reading
        assert taken <= BOUND
        [peer] = wire.peers
        peer.transport.unblock()
        await wire.settle(answering=False)
        assert visit.transport.reading, "goes on when the provider does"
        assert await pour(wire, visit, endless(part), READ * 20) >= READ * 20
        assert wire.violations == []
        await visit.end()

    wire.play(scene())


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_provider_that_is_out_of_reach_holds_the_client_back(wire: Wire, framing: str) -> None:
    head, part = upload(framing)

    async def scene() -> None:
        wire.reachable.clear()
        visit = Visit(wire)
        visit.client.data_received(head)
        assert await pour(wire, visit, endless(part)) <= BOUND
        assert not visit.transport.reading
        wire.reachable.set()
        await wire.settle(answering=False)
        assert visit.transport.reading
        await visit.end()

    wire.play(scene())


def test_a_stalled_upload_arrives_whole_once_it_goes_on(wire: Wire) -> None:
    body = bytes(range(256)) * 4096

    async def scene() -> None:
        wire.stalled = True
        visit = Visit(wire)
        raw = call(f"Content-Length: {len(body)}", path="/v1/services/acme/large/x", body=body)
        parts = [raw[at : at + READ] for at in range(0, len(raw), READ)]
        while parts:
            await pour(wire, visit, iter([parts.pop(0)]))
            for peer in wire.peers:  # reads a little, then nothing for a while
                peer.transport.unblock()
                peer.transport.blocked = True
            await wire.settle(answering=False)
        for peer in wire.peers:
            peer.transport.unblock()
        await wire.settle()
        seen = await visit.end()
        assert [request.body for request in seen.requests] == [body]
        assert [response.status for response in seen.answers()] == [200]

    wire.play(scene())


async def asked(wire: Wire, visit: Visit, raw: bytes) -> Peer:
    """Make a call and return the provider that owes an answer."""
    visit.client.data_received(raw)
    await wire.settle(answering=False)
    [peer] = wire.asked
    wire.asked.clear()
    return peer


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", b"x" * READ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * READ + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * READ),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", b"data: x\n\n" * 7000),
    ],
    ids=["length", "chunks", "until the end", "events"],
)
def test_a_client_that_reads_nothing_holds_the_provider_back(wire: Wire, head: bytes, part: bytes) -> None:
    async def scene() -> None:
        visit = Visit(wire)
        visit.transport.blocked = True
        peer = await asked(wire, visit, get())
        peer.receive(head)
        sent = 0
        while peer.transport.reading and sent < LARGE:
            peer.receive(part)
            sent += len(part)
            await wire.settle()
            assert held(wire, visit) <= BOUND
        assert sent <= BOUND
        visit.transport.unblock()
        assert peer.transport.reading, "goes on when the client does"
        peer.receive(part)
        await wire.settle()
        assert len(visit.received) > sent
        await visit.end()
        assert peer.transport.lost, "nobody works for a client that is gone"

    wire.play(scene())


@pytest.mark.parametrize(
    "request_", [get(), get(path="/nowhere"), get(path="/health/live"), get(path="/nowhere", version="1.0")]
)
def test_a_client_that_reads_no_answers_is_not_read_from_for_ever(wire: Wire, request_: bytes) -> None:
    async def scene() -> None:
        visit = Visit(wire)
        visit.transport.blocked = True
        part = request_ * (READ // len(request_))
        taken = 0
        while visit.transport.reading and not visit.gone and taken < LARGE:
            visit.client.data_received(part)
            taken += len(part)
            await wire.settle()
        assert taken < 20 * READ
        assert visit.transport.most <= HIGH_WATER + READ
        visit.transport.unblock()
        await visit.end()

    wire.play(scene())


def test_what_comes_behind_a_refusal_is_thrown_away_and_not_for_ever(wire: Wire) -> None:
    async def scene() -> None:
        visit = Visit(wire)
        visit.client.data_received(call("Content-Length: 9999999999", path="/v1/services/acme/large/x"))
        assert visit.received.startswith(b"HTTP/1.1 413 ")
        assert visit.gone, "our end is announced"
        sent = 0
        while not visit.transport.lost and sent < LARGE:
            visit.client.data_received(b"x" * READ)
            sent += READ
            await wire.settle()
        assert LINGER_BYTES < sent <= LINGER_BYTES + 2 * READ
        await visit.end()

    wire.play(scene())


@pytest.mark.parametrize(
    ("start", "part"),
    [
        (b"5;", b"x" * READ),
        (b"5\r\nhello\r\n0\r\n", b"X: " + b"y" * 100 + b"\r\n"),
        (b"", b"0" * READ),
        (b"", b"1;aaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n" * 100),
    ],
    ids=["an extension", "trailers", "zeros", "an extension of each byte"],
)
def test_what_is_beside_a_chunked_body_has_an_end(wire: Wire, start: bytes, part: bytes) -> None:
    async def scene() -> None:
        visit = Visit(wire)
        visit.client.data_received(chunked(start))
        taken = await pour(wire, visit, endless(part))
        assert taken <= 3 * CHUNK_OVERHEAD + READ
        seen = await visit.end()
        assert [response.status for response in seen.answers()] == [400]
        assert seen.requests == ()

    wire.play(scene())


def test_small_chunks_are_no_abuse(wire: Wire) -> None:
    async def scene() -> None:
        visit = Visit(wire)
        visit.client.data_received(chunked(b""))
        for _ in range(200):
            visit.client.data_received(b"1\r\nx\r\n" * 200)
        visit.client.data_received(b"0\r\n\r\n")
        await wire.settle()
        seen = await visit.end()
        assert [request.body for request in seen.requests] == [b"x" * 40_000]

    wire.play(scene())


def test_a_head_that_never_ends_is_held_no_longer_than_the_limit(wire: Wire) -> None:
    async def scene() -> None:
        visit = Visit(wire)
        visit.client.data_received(get()[:-2])
        taken = await pour(wire, visit, endless(b"X: " + b"y" * 100 + b"\r\n"))
        assert taken <= wire.gateway.settings.max_header_bytes + 200
        seen = await visit.end()
        assert [response.status for response in seen.answers()] == [431]

    wire.play(scene())


# --- clients that leave --------------------------------------------------------------------------


@pytest.mark.parametrize("error", [None, ConnectionResetError()], ids=["an end", "a reset"])
def test_a_client_that_leaves_before_the_answer_is_not_worked_for(wire: Wire, error: Exception | None) -> None:
    async def scene() -> None:
        visit = Visit(wire)
        peer = await asked(wire, visit, call("Content-Length: 5", body=b"hello"))
        visit.transport.leave(error)
        await wire.settle()
        assert peer.transport.lost
        await visit.end()

    wire.play(scene())


def test_a_client_that_leaves_amid_its_body_ends_the_providers_request(wire: Wire) -> None:
    head, part = upload("chunks")

    async def scene() -> None:
        visit = Visit(wire)
        visit.client.data_received(head + part + part)
        await wire.settle()
        [peer] = wire.peers
        visit.transport.leave()
        await wire.settle()
        assert peer.transport.lost
        assert (await visit.end()).requests == ()

    wire.play(scene())


def test_a_client_that_leaves_amid_the_answer_ends_it(wire: Wire) -> None:
    async def scene() -> None:
        visit = Visit(wire)
        peer = await asked(wire, visit, get())
        peer.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
        await wire.settle()
        visit.transport.leave()
        await wire.settle()
        assert peer.transport.lost
        await visit.end()

    wire.play(scene())


def test_a_client_that_leaves_while_it_waits_for_a_connection_makes_no_request(wire: Wire) -> None:
    async def scene() -> None:
        wire.reachable.clear()
        visit = Visit(wire)
        visit.client.data_received(get())
        await wire.settle(waiting=False)
        visit.transport.leave()
        await wire.settle(waiting=False)
        wire.reachable.set()
        await wire.settle()
        assert (await visit.end()).requests == ()

    wire.play(scene())


def test_a_client_that_leaves_takes_what_it_has_queued_with_it(wire: Wire) -> None:
    async def scene() -> None:
        visit = Visit(wire)
        peer = await asked(wire, visit, get() * 10)
        visit.transport.leave()
        await wire.settle()
        assert peer.transport.lost
        assert len((await visit.end()).requests) == 1

    wire.play(scene())


def test_a_connection_is_as_good_as_new_behind_a_pause(wire: Wire) -> None:
    """A provider's connection whose reading was held for a slow client is read from again for the next one."""

    async def scene() -> None:
        visit = Visit(wire)
        visit.transport.blocked = True
        peer = await asked(wire, visit, get())
        peer.receive(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2 * READ))
        peer.receive(b"x" * READ)
        peer.receive(b"x" * READ)
        peer.begin()
        await wire.settle()
        visit.transport.unblock()
        await visit.end()
        seen = await wire.once(get())
        assert [response.body for response in seen.answers()] == [BODY]
        assert len(wire.peers) == 1

    wire.play(scene())


# --- how a connection ends -----------------------------------------------------------------------

CLOSES = get("Connection: close")
UNREAD = call("Content-Length: 9999999999", path="/v1/services/acme/large/x")


@pytest.mark.parametrize("raw", [CLOSES, UNREAD], ids=["a whole request", "a body that isn't read"])
def test_our_side_is_ended_and_the_rest_is_awaited_so_that_no_answer_is_lost_to_a_reset(wire: Wire, raw: bytes) -> None:
    async def scene() -> None:
        visit = Visit(wire)
        visit.client.data_received(raw)
        await wire.settle()
        assert visit.transport.ended and not visit.transport.is_closing()
        visit.client.data_received(b"more of it")
        assert not visit.transport.is_closing()
        await visit.end()

    wire.play(scene())


@pytest.mark.parametrize(
    ("raw", "at_once"), [(CLOSES, True), (UNREAD, False)], ids=["a whole request", "a body that isn't read"]
)
def test_over_tls_the_end_is_the_end_once_the_request_is_here(wire: Wire, raw: bytes, at_once: bool) -> None:
    async def scene() -> None:
        visit = Visit(wire)
        visit.transport.halves = False
        visit.client.data_received(raw)
        await wire.settle()
        assert visit.transport.is_closing() == at_once
        await visit.end()

    wire.play(scene())

"""Streams, clients that leave, clients that don't read, and the order of what the journal holds."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway.rig import Market, Request, answer
from haat.gateway.metering import CHECKPOINT_BYTES
from haat.usage import event as usage
from haat.usage.event import Outcome
from haat.usage.journal import Kind

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
PATH = "/v1/services/acme/echo/stream"
SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def kinds(market: Market) -> list[int]:
    return [frame.kind for frame in market.frames()]


async def test_events_pass_through_as_they_arrive_and_the_journal_knows_before_the_client(market: Market) -> None:
    go_on = asyncio.Event()

    async def events(request: Request, reader: Reader, writer: Writer) -> bool:
        writer.write(SSE_HEAD + b"8\r\ndata: 1\n\r\n")
        await go_on.wait()
        writer.write(b"8\r\ndata: 2\n\r\n0\r\n\r\n")
        return True

    market.provider.behaviour = events
    client = await market.connect()
    await client.send(market.raw("POST", PATH, b"", "Accept: text/event-stream"))
    head = await client.reader.readuntil(b"data: 1\n\r\n")
    assert b"text/event-stream" in head
    assert kinds(market) == [Kind.OPEN]
    opened = usage.decode(market.frames()[0].payload)
    assert (opened.outcome, opened.units) == (Outcome.INTERRUPTED, {})
    go_on.set()
    assert (await client.reader.readuntil(b"0\r\n\r\n")).endswith(b"data: 2\n\r\n0\r\n\r\n")
    event = await market.settled_event()
    assert (event.id, event.outcome, event.bytes_out) == (opened.id, Outcome.COMPLETED, 16)
    assert kinds(market) == [Kind.OPEN, Kind.USAGE, Kind.CONFIRM]


async def test_a_stream_that_nobody_announced_is_opened_before_its_first_byte_leaves(market: Market) -> None:
    async def chunks(request: Request, reader: Reader, writer: Writer) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
        await asyncio.sleep(0.02)
        writer.write(b"0\r\n\r\n")
        return True

    market.provider.behaviour = chunks
    assert (await market.call("POST", PATH)).body == b"hi"
    await market.settled_event()
    assert kinds(market) == [Kind.OPEN, Kind.USAGE, Kind.CONFIRM]


async def test_a_large_answer_leaves_checkpoints(market: Market) -> None:
    body = b"x" * (4 * CHECKPOINT_BYTES)
    market.provider.behaviour = answer(200, body)
    response = await market.call("POST", PATH)
    assert response.body == body
    await market.settled_event()
    found = kinds(market)
    assert found[0] == Kind.OPEN
    assert found[-2:] == [Kind.USAGE, Kind.CONFIRM]
    checkpoints = [usage.decode_checkpoint(f.payload) for f in market.frames() if f.kind == Kind.CHECKPOINT]
    assert 1 <= len(checkpoints) <= 4
    assert [checkpoint.bytes_out for checkpoint in checkpoints] == sorted(c.bytes_out for c in checkpoints)


async def test_a_client_that_leaves_before_the_answer_stops_the_provider_and_pays_nothing(market: Market) -> None:
    stopped = asyncio.Event()

    async def slow(request: Request, reader: Reader, writer: Writer) -> bool:
        await reader.read()
        stopped.set()
        return False

    market.provider.behaviour = slow
    client = await market.connect()
    await client.send(market.raw("POST", PATH, b"x"))
    await market.provider.arrived.wait()
    client.close()
    async with asyncio.timeout(2):
        await stopped.wait()
    event = await market.settled_event()
    assert (event.outcome, event.units, event.status) == (Outcome.CLIENT_LEFT, {}, 0)
    [allowance] = market.gateway.limits._allowances.values()
    assert (allowance.in_flight, allowance.reserved, allowance.used) == (0, 0, 1), (
        "it was executed: the quota counts it"
    )


async def test_a_client_that_leaves_a_stream_pays_for_what_it_got(market: Market) -> None:
    async def endless(request: Request, reader: Reader, writer: Writer) -> bool:
        writer.write(SSE_HEAD)
        while not writer.is_closing():
            writer.write(b"8\r\ndata: x\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.002)
        return False

    market.provider.behaviour = endless
    client = await market.connect()
    await client.send(market.raw("POST", PATH))
    await client.reader.readuntil(b"data: x\n\r\n")
    client.reset()
    event = await market.settled_event()
    assert event.outcome == Outcome.CLIENT_LEFT
    assert event.units == {"requests": "1"}
    assert event.bytes_out >= 8
    await market.until(lambda: market.provider.lost == 1)


async def test_a_client_that_leaves_while_sending_its_body(market: Market) -> None:
    client = await market.connect()
    await client.send(market.raw("POST", PATH, b"", "Content-Length: 1000") + b"x" * 10)
    await market.until(lambda: len(market.gateway.calls) == 1)
    client.close()
    event = await market.settled_event()
    assert (event.outcome, event.units) == (Outcome.CLIENT_LEFT, {})
    [allowance] = market.gateway.limits._allowances.values()
    assert (allowance.in_flight, allowance.reserved, allowance.used) == (0, 0, 0)
    assert market.provider.requests == []


async def test_a_client_that_does_not_read_costs_no_memory_and_holds_the_provider_back(market: Market) -> None:
    sent = 0

    async def flood(request: Request, reader: Reader, writer: Writer) -> bool:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536
        return False

    market.provider.behaviour = flood
    client = await market.connect(limit=1024)
    await client.send(market.raw("GET", PATH))
    await client.reader.readuntil(b"\r\n\r\n")
    last = -1
    while sent != last:  # until the provider can push no more
        last = sent
        await asyncio.sleep(0.2)
    [connection] = market.gateway.clients
    assert connection._transport.get_write_buffer_size() < 1_000_000
    assert sent < 40_000_000, "kernel buffers at both hops, and little more"
    client.close()
    event = await market.settled_event()
    assert event.outcome == Outcome.CLIENT_LEFT


async def test_a_provider_that_does_not_read_holds_the_client_back(market: Market) -> None:
    async def deaf(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await go_on.wait()
        writer.close()

    go_on = asyncio.Event()
    server = await asyncio.start_server(deaf, "127.0.0.1", 0, limit=1024)
    market.add_service("deaf", port=server.sockets[0].getsockname()[1], max_body_bytes=10_000_000)
    client = await market.connect()
    client.writer.write(
        market.raw("POST", "/v1/services/acme/deaf/x", b"", "Content-Length: 9000000") + b"x" * 9_000_000
    )
    await market.until(lambda: bool(market.gateway.calls) and next(iter(market.gateway.calls)).upstream is not None)
    [call] = market.gateway.calls
    await market.until(lambda: call.client._read_paused)
    assert call.upstream is not None
    assert call.upstream._transport.get_write_buffer_size() < 1_000_000
    assert sum(map(len, call.body)) < 1_000_000
    go_on.set()
    server.close()


async def test_an_answer_that_the_client_never_took_whole_is_not_billed(market: Market) -> None:
    body = b"x" * 20_000_000
    market.provider.behaviour = answer(200, body)
    client = await market.connect(limit=1024)
    await client.send(market.raw("GET", PATH))
    await client.reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(0.2)
    client.reset()
    event = await market.settled_event()
    assert event.outcome == Outcome.CLIENT_LEFT


async def test_stopping_finishes_what_is_in_flight_and_seals_the_journal(market: Market) -> None:
    go_on = asyncio.Event()

    async def wait(request: Request, reader: Reader, writer: Writer) -> bool:
        await go_on.wait()
        writer.write(answer())
        return True

    market.provider.behaviour = wait
    call = asyncio.create_task(market.call("POST", PATH))
    idle = await market.connect()
    await market.provider.arrived.wait()
    stopping = asyncio.create_task(market.gateway.stop(5.0))
    assert await idle.ended()
    go_on.set()
    response = await call
    assert (response.status, response.header("connection")) == (200, "close")
    await stopping
    assert kinds(market) == [Kind.USAGE, Kind.CONFIRM, Kind.SEAL]


async def test_stopping_out_of_patience_records_what_it_cuts_off(market: Market) -> None:
    async def never(request: Request, reader: Reader, writer: Writer) -> bool:
        await reader.read()
        return False

    market.provider.behaviour = never
    client = await market.connect()
    await client.send(market.raw("POST", PATH))
    await market.provider.arrived.wait()
    await market.gateway.stop(0.05)
    [event] = market.events()
    assert (event.outcome, event.units) == (Outcome.INTERRUPTED, {})
    assert market.confirmed() == {event.id}


async def test_a_stream_may_last_longer_than_the_timeout_as_long_as_it_flows(market: Market) -> None:
    market.add_service("slow", timeout_ms=300)

    async def drip(request: Request, reader: Reader, writer: Writer) -> bool:
        writer.write(SSE_HEAD)
        for _ in range(10):
            writer.write(b"8\r\ndata: x\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)
        writer.write(b"0\r\n\r\n")
        return True

    market.provider.behaviour = drip
    response = await market.call("POST", "/v1/services/acme/slow/x")
    assert (response.whole, response.body) == (True, b"data: x\n" * 10)
    assert (await market.settled_event()).outcome is Outcome.COMPLETED


def broken_stream(*parts: bytes, pause: float = 0.01, hang: bool = False):  # type: ignore[no-untyped-def]
    async def behave(request: Request, reader: Reader, writer: Writer) -> bool:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
        if hang:
            await reader.read()
        return False

    return behave


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        (b"data: 1\n\n", b"data: 1\n\nevent: error\ndata: "),
        (b"data: 1\r\n", b"data: 1\r\nevent: error\ndata: "),
        (b'data: {"half', b'data: {"half\nevent: error\ndata: '),
    ],
)
async def test_a_stream_that_its_provider_breaks_off_ends_with_an_event_that_says_so(
    market: Market, sent: bytes, received: bytes
) -> None:
    market.provider.behaviour = broken_stream(SSE_HEAD, b"%x\r\n%b\r\n" % (len(sent), sent))
    client = await market.connect()
    await client.send(market.raw("POST", PATH, b"", "Accept: text/event-stream"))
    response = await client.receive("POST")
    assert response is not None and response.whole
    assert response.body.startswith(received) and response.body.endswith(b"\n\n")
    problem = json.loads(response.body.removeprefix(received))
    assert (problem["code"], problem["request_id"]) == ("PROVIDER_FAILED", response.header("x-request-id"))
    assert await client.ended()
    event = await market.settled_event()
    assert (event.outcome, event.error_code, event.units) == (Outcome.PROVIDER_FAILED, "PROVIDER_FAILED", {})
    assert event.bytes_out == len(sent)
    assert 0 < event.timings_us.first_byte <= event.timings_us.total


async def test_a_stream_that_falls_silent_ends_with_an_event_after_the_services_timeout(market: Market) -> None:
    market.add_service("slow", timeout_ms=80)
    market.provider.behaviour = broken_stream(SSE_HEAD, b"8\r\ndata: x\n\r\n", hang=True)
    response = await market.call("POST", "/v1/services/acme/slow/x")
    assert response.whole and b'"code":"PROVIDER_TIMEOUT"' in response.body
    await market.until(lambda: market.provider.lost == 1)


async def test_a_caller_of_http_1_0_gets_the_error_event_too(market: Market) -> None:
    market.provider.behaviour = broken_stream(SSE_HEAD, b"9\r\ndata: 1\n\n\r\n")
    client = await market.connect()
    await client.send(market.raw("POST", PATH, version="1.0"))
    everything = await client.reader.read()
    assert b"transfer-encoding" not in everything.lower()
    assert b"data: 1\n\nevent: error\ndata: {" in everything and everything.endswith(b"}\n\n")


@pytest.mark.parametrize("header", ["Content-Type: application/x-ndjson", "Content-Encoding: gzip"])
async def test_nothing_is_written_into_a_stream_that_is_no_readable_events(market: Market, header: str) -> None:
    head = SSE_HEAD.replace(b"Content-Type: text/event-stream", header.encode())
    market.provider.behaviour = broken_stream(head, b"3\r\n{}\n\r\n")
    response = await market.call("POST", PATH)
    assert (response.body, response.whole) == (b"{}\n", False)

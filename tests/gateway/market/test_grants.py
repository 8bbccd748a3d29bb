"""Grants: found once, and never good for longer than what they were found in."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from gateway.rig import Market, Request, answer
from haat.gateway.call import Call
from haat.usage import event as usage
from haat.usage.event import Outcome
from haat.usage.journal import Kind

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter


async def test_a_plain_record_is_what_the_event_would_have_been(market: Market) -> None:
    made: list[usage.UsageEvent] = []
    market.gateway.meter.observers = (made.append,)
    assert (await market.call(body=b"{}")).status == 200
    event = await market.settled_event()
    event.timings_us.total = made[0].timings_us.total = 0
    assert event == made[0]


async def test_a_plain_opening_is_what_the_event_would_have_been(market: Market) -> None:
    calls: list[Call] = []

    async def look(request: Request, reader: Reader, writer: Writer) -> bool:
        calls.extend(market.gateway.calls)
        writer.write(answer())
        return True

    market.provider.behaviour = look
    assert (
        await market.call("POST", "/v1/services/acme/echo/invoke", b"{}", "Accept: text/event-stream")
    ).status == 200
    [opened] = [frame for frame in market.frames() if frame.kind == Kind.OPEN]
    [call], made = calls, usage.decode(opened.payload)
    call.queue = call.connect = call.first_byte = call.bytes_out = 0  # of what came later
    expected = market.gateway.meter._event(call, Outcome.INTERRUPTED)
    made.timings_us.total = expected.timings_us.total = 0
    assert made == expected


async def test_a_call_with_labels_is_recorded_with_them(market: Market) -> None:
    caller_id = str(uuid4())
    assert (
        await market.call("POST", "/v1/services/acme/echo/invoke", b"{}", f"X-Request-ID: {caller_id}")
    ).status == 200
    assert (await market.settled_event()).caller_request_id == caller_id


async def test_every_change_of_the_market_ends_all_grants(market: Market) -> None:
    assert (await market.call(body=b"{}")).status == 200
    subscription = next(iter(market.gateway.directory.subscriptions.values()))
    market.gateway.directory.put_subscription(subscription.id, None)
    assert (await market.call(body=b"{}")).status == 403


async def test_a_target_with_a_query_is_not_remembered(market: Market) -> None:
    target = b"/v1/services/acme/echo/invoke?page=1"
    assert (await market.call("GET", target.decode())).status == 200
    assert (market.key.encode(), target) not in market.gateway.grants._known
    assert market.provider.requests[0].target == "/base/invoke?page=1"


async def test_what_is_known_of_a_door_ends_with_the_key(market: Market) -> None:
    market.add_service("embed", dialect="task", category="embedding")
    market.provider.behaviour = answer(200, b'{"output": [{"embedding": [0.5]}]}')
    body = b'{"model": "acme/embed", "input": "a"}'
    client = await market.connect()

    async def status(method: str = "POST") -> int:
        await client.send(market.raw(method, "/v1/embeddings", body, "Content-Type: application/json"))
        response = await client.receive(method)
        assert response is not None
        return response.status

    assert [await status(), await status()] == [200, 200]
    assert await status("GET") == 404
    assert await status() == 200
    for name in list(market.gateway.directory.credentials):
        market.gateway.directory.put_credential(market.gateway.directory.credentials[name].id, None)
    assert await status() == 401

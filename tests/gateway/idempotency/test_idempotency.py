"""``Idempotency-Key``: what is sent again is executed once and sold once, whatever happens in between."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.rig import APP, ORG, MakeMarket, Market, Request, Response, answer, close_market, open_market, reset
from haat.gateway.idempotency.once import fingerprint_of, parse_key, scope_of
from haat.gateway.limits.registry import PlanLimits
from haat.gateway.market.policy import ServicePolicy
from haat.gateway.market.snapshot import Credential
from haat.kernel.errors import InvalidRequest
from haat.usage.event import Outcome
from usage.faults import largest_file

INVOKE = "/v1/services/acme/{}/invoke"
KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"


async def keyed(market: Market, body: bytes = b"x", *headers: str, slug: str = "echo", key: str = KEY) -> Response:
    return await market.call("POST", INVOKE.format(slug), body, f"Idempotency-Key: {key}", *headers)


def code(response: Response) -> tuple[int, str]:
    return response.status, response.json()["code"]


def let_repeat(market: Market, slug: str = "echo") -> None:
    service = market.gateway.directory.services[f"acme/{slug}"]
    changed = msgspec.structs.replace(service, policy=ServicePolicy(repeatable=True))
    market.gateway.directory.put_service(service.id, changed)


def billed(market: Market) -> list[dict[str, str]]:
    """Return the units of the events that cost something, as rating sums them."""
    paid = (Outcome.COMPLETED, Outcome.CLIENT_LEFT)
    units = [event.units for event in market.events() if event.outcome in paid]
    return [counted for counted in units if any(float(quantity) for quantity in counted.values())]


# --- the header ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (b'"abc"', b"abc"),
        (b"abc", b"abc"),
        (b'"a \\" and a \\\\"', b'a " and a \\'),
        (b"with spaces inside", b"with spaces inside"),
        (b'"' + b"k" * 255 + b'"', b"k" * 255),
    ],
)
def test_a_key_is_a_quoted_string_or_the_same_without_quotes(value: bytes, key: bytes) -> None:
    assert parse_key(value) == key


@pytest.mark.parametrize(
    "value", [b"", b'""', b'"abc', b'"abc";a=1', b'"a"b"', b'"\\n"', b"k" * 256, "ключ".encode(), b"tab\there"]
)
def test_what_is_no_key_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidRequest, match="Idempotency-Key"):
        parse_key(value)


@given(st.text("".join(map(chr, range(0x20, 0x7F))), min_size=1, max_size=255))
def test_every_printable_string_can_be_quoted_as_a_key(text: str) -> None:
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert parse_key(quoted.encode()) == text.encode()


@given(st.tuples(st.text(), st.text(), st.binary()), st.tuples(st.text(), st.text(), st.binary()))
def test_only_the_same_organisation_service_and_key_share_a_scope(
    one: tuple[str, str, bytes], other: tuple[str, str, bytes]
) -> None:
    clean = [(org.replace(" ", ""), service.replace(" ", ""), key) for org, service, key in (one, other)]
    assert (scope_of(*clean[0]) == scope_of(*clean[1])) == (clean[0] == clean[1])


def test_the_bodys_parts_make_no_difference_and_method_and_target_do() -> None:
    print_ = fingerprint_of(b"POST", b"/a", [b"abc", b"d"])
    assert print_ == fingerprint_of(b"POST", b"/a", [b"a", b"bcd"])
    assert len({print_, fingerprint_of(b"PUT", b"/a", [b"abcd"]), fingerprint_of(b"POST", b"/ab", [b"cd"])}) == 3


# --- one call after the other -------------------------------------------------------------------


async def test_a_finished_call_is_answered_again_and_neither_executed_nor_billed_again(market: Market) -> None:
    market.provider.behaviour = answer(201, b'{"n":1}', "X-Provider: p")
    first = await keyed(market)
    market.provider.behaviour = answer(200, b'{"n":2}')
    again = await keyed(market)
    assert (first.status, first.body, first.header("idempotency-replayed")) == (201, b'{"n":1}', None)
    assert (again.status, again.body, again.header("idempotency-replayed")) == (201, b'{"n":1}', "true")
    assert again.header("x-provider") == "p" and again.header("content-type") == "application/json"
    assert again.header("x-request-id") != first.header("x-request-id")
    assert (first.header("x-haat-units"), again.header("x-haat-units")) == ("requests=1", "requests=0")
    assert len(market.provider.requests) == 1
    await market.until(lambda: len(market.confirmed()) == 2)
    one, two = market.events()
    assert (one.outcome, one.units, one.cache) == (Outcome.COMPLETED, {"requests": "1"}, "")
    assert (two.outcome, two.units, two.cache, two.status) == (Outcome.COMPLETED, {"requests": "0"}, "replay", 201)
    [allowance] = market.gateway.limits._allowances.values()
    assert (allowance.used, allowance.in_flight) == (1, 0)
    metrics = (await market.call("GET", "/metrics")).body.decode()
    assert 'gateway_replays_total{worker="gateway-0"} 1\n' in metrics
    assert 'gateway_journal_full{worker="gateway-0"} 0\n' in metrics


async def test_a_key_with_and_without_quotes_is_the_same_key(market: Market) -> None:
    await keyed(market, key="abc")
    assert (await keyed(market, key='"abc"')).header("idempotency-replayed") == "true"


async def test_calls_without_a_key_are_executed_each_time_and_touch_no_file(market: Market, tmp_path: Path) -> None:
    for _ in range(2):
        assert (await market.call("POST", INVOKE.format("echo"), b"x")).status == 200
    assert len(market.provider.requests) == 2
    assert not (tmp_path / "gateway" / "idempotency.db").exists()


@pytest.mark.parametrize(
    "other",
    [
        ("POST", INVOKE.format("echo"), b"y"),
        ("PUT", INVOKE.format("echo"), b"x"),
        ("POST", INVOKE.format("echo") + "?q=1", b"x"),
        ("POST", INVOKE.format("echo@2"), b"x"),
    ],
)
async def test_the_same_key_with_another_request_is_a_mismatch(market: Market, other: tuple[str, str, bytes]) -> None:
    await keyed(market)
    response = await market.call(*other, f"Idempotency-Key: {KEY}")
    assert code(response) == (422, "IDEMPOTENCY_MISMATCH")
    assert response.header("x-should-retry") == "false"
    assert len(market.provider.requests) == 1
    assert [event.outcome for event in market.events()] == [Outcome.COMPLETED, Outcome.REFUSED]


async def test_a_key_belongs_to_its_organisation_and_service(market: Market) -> None:
    market.add_service("second")
    await keyed(market)
    assert (await keyed(market, slug="second")).header("idempotency-replayed") is None
    sent = [request.header("idempotency-key") for request in market.provider.requests]
    assert all(re.fullmatch('"[0-9a-f]{32}"', value) for [value] in sent)
    assert sent[0] != sent[1], "the provider sees all callers as one: their own keys would collide there"
    assert scope_of(ORG, "service-echo", KEY.encode()).hex() in sent[0][0]


@pytest.mark.parametrize(
    "headers", [("Idempotency-Key: ",), ('Idempotency-Key: "a',), (f"Idempotency-Key: {'k' * 256}",)]
)
async def test_a_bad_key_is_refused_before_anything_is_sent(market: Market, headers: tuple[str, ...]) -> None:
    response = await market.call("POST", INVOKE.format("echo"), b"x", *headers)
    assert code(response) == (400, "INVALID_REQUEST") and market.provider.requests == []


async def test_two_keys_are_refused(market: Market) -> None:
    response = await market.call("POST", INVOKE.format("echo"), b"x", "Idempotency-Key: a", "Idempotency-Key: b")
    assert code(response) == (400, "INVALID_REQUEST")


async def test_a_body_too_large_to_be_buffered_otherwise_is_read_whole_and_compared(market: Market) -> None:
    large = b"a" * 300_000
    assert (await keyed(market, large)).status == 200
    assert market.provider.requests[0].body == large
    assert (await keyed(market, large)).header("idempotency-replayed") == "true"
    assert code(await keyed(market, large[:-1] + b"b")) == (422, "IDEMPOTENCY_MISMATCH")


@pytest.mark.parametrize("status", [500, 501, 502, 504])
async def test_a_providers_5xx_is_kept_and_not_billed(market: Market, status: int) -> None:
    market.provider.behaviour = answer(status, b'{"sorry":true}')
    first = await keyed(market)
    market.provider.behaviour = answer()
    again = await keyed(market)
    assert (first.status, again.status, again.body) == (status, status, b'{"sorry":true}')
    assert again.header("idempotency-replayed") == "true"
    assert [event.outcome for event in market.events()] == [Outcome.PROVIDER_FAILED] * 2 and billed(market) == []


@pytest.mark.parametrize("status", [400, 404, 422, 429, 503])
async def test_an_answer_that_says_nothing_was_done_frees_the_key(market: Market, status: int) -> None:
    market.provider.behaviour = answer(status, b"{}")
    assert (await keyed(market)).status == status
    market.provider.behaviour = answer()
    again = await keyed(market)
    assert (again.status, again.header("idempotency-replayed")) == (200, None)


async def test_a_refusal_of_the_gateway_keeps_nothing(market: Market) -> None:
    market.add_service("tight", subscribed=PlanLimits(per_minute=1))
    assert (await keyed(market, slug="tight", key="one")).status == 200
    assert code(await keyed(market, slug="tight", key="two")) == (429, "RATE_LIMITED")
    market.subscribe("acme/tight", PlanLimits(per_minute=100))
    again = await keyed(market, slug="tight", key="two")
    assert (again.status, again.header("idempotency-replayed")) == (200, None)


async def test_a_provider_that_cant_be_reached_keeps_nothing(market: Market) -> None:
    market.add_service("gone", port=1)
    assert code(await keyed(market, slug="gone")) == (503, "PROVIDER_UNAVAILABLE")
    market.add_service("gone")
    assert (await keyed(market, slug="gone")).status == 200


async def test_a_call_that_may_have_been_executed_is_not_sent_again(market: Market) -> None:
    market.provider.behaviour = _lost_on_the_way
    first = await keyed(market)
    market.provider.behaviour = answer()
    again = await keyed(market)
    assert code(first) == (502, "PROVIDER_FAILED") == code(again)
    assert again.header("idempotency-replayed") == "true" and len(market.provider.requests) == 1
    assert again.header("content-type") == "application/problem+json"


async def test_a_service_that_may_be_repeated_is_asked_again(market: Market) -> None:
    let_repeat(market)
    market.provider.behaviour = _lost_on_the_way
    assert code(await keyed(market)) == (502, "PROVIDER_FAILED")
    market.provider.behaviour = answer()
    assert (await keyed(market)).status == 200


async def test_a_timed_out_call_is_not_sent_again(market: Market) -> None:
    market.add_service("slow", timeout_ms=150)
    market.provider.behaviour = _silent
    assert code(await keyed(market, slug="slow")) == (504, "PROVIDER_TIMEOUT")
    market.provider.behaviour = answer()
    again = await keyed(market, slug="slow")
    assert (*code(again), len(market.provider.requests)) == (504, "PROVIDER_TIMEOUT", 1)


EVENTS = b"data: a\n\ndata: b\n\n"


def streamed(whole: bool = True) -> Callable[..., Awaitable[bool]]:
    async def stream(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for event in EVENTS.splitlines(keepends=True):
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
        if whole:
            writer.write(b"0\r\n\r\n")
        return whole

    return stream


async def test_a_stream_is_given_again_whole_and_billed_once(market: Market) -> None:
    market.provider.behaviour = streamed()
    first = await keyed(market, b"x", "Accept: text/event-stream")
    again = await keyed(market, b"x", "Accept: text/event-stream")
    assert (first.body, again.body) == (EVENTS, EVENTS)
    assert (again.header("content-type"), again.header("idempotency-replayed")) == ("text/event-stream", "true")
    assert len(market.provider.requests) == 1 and len(billed(market)) == 1


async def test_a_stream_that_broke_off_is_not_kept_and_not_executed_again(market: Market) -> None:
    market.provider.behaviour = streamed(whole=False)
    await keyed(market, b"x", "Accept: text/event-stream")
    again = await keyed(market, b"x", "Accept: text/event-stream")
    assert code(again) == (409, "IDEMPOTENCY_NOT_KEPT") and again.header("x-should-retry") == "false"
    assert len(market.provider.requests) == 1 and billed(market) == []


async def test_a_stream_too_long_to_keep_passes_all_the_same(make_market: MakeMarket) -> None:
    market = await make_market(idempotency_answer_bytes=len(EVENTS) - 1)
    market.provider.behaviour = streamed()
    assert (await keyed(market)).body == EVENTS
    assert code(await keyed(market)) == (409, "IDEMPOTENCY_NOT_KEPT")


async def test_an_answer_too_large_is_delivered_and_not_kept(make_market: MakeMarket) -> None:
    market = await make_market(idempotency_answer_bytes=10)
    market.provider.behaviour = answer(200, b"12345678901")
    assert (await keyed(market)).body == b"12345678901"
    assert code(await keyed(market)) == (409, "IDEMPOTENCY_NOT_KEPT")


async def test_reported_units_are_billed_once(market: Market) -> None:
    market.add_service("counted", unit="characters")
    market.provider.behaviour = answer(200, b"{}", "X-Haat-Usage: characters=12")
    first, again = await keyed(market, slug="counted"), await keyed(market, slug="counted")
    assert (first.header("x-haat-units"), again.header("x-haat-units")) == ("characters=12", "characters=0")
    assert billed(market) == [{"requests": "1", "characters": "12"}]


# --- at the same time ---------------------------------------------------------------------------


async def test_a_call_whose_first_is_running_is_asked_to_wait(market: Market) -> None:
    gate = Gate()
    market.provider.behaviour = gate
    first = asyncio.create_task(keyed(market))
    await market.provider.arrived.wait()
    early = await keyed(market)
    assert code(early) == (409, "IDEMPOTENCY_IN_PROGRESS")
    assert (early.header("retry-after"), early.header("x-should-retry")) == ("1", None)
    assert code(await keyed(market, b"other")) == (422, "IDEMPOTENCY_MISMATCH")
    gate.open.set()
    assert (await first).status == 200
    assert (await keyed(market)).header("idempotency-replayed") == "true"


async def test_of_a_hundred_at_once_one_is_executed(market: Market) -> None:
    gate = Gate()
    market.provider.behaviour = gate
    calls = [asyncio.create_task(keyed(market)) for _ in range(100)]
    await market.until(lambda: sum(call.done() for call in calls) == 99)
    gate.open.set()
    responses = await asyncio.gather(*calls)
    assert sorted(response.status for response in responses) == [200] + [409] * 99
    assert len(market.provider.requests) == 1 and len(billed(market)) == 1


# --- clients that leave -------------------------------------------------------------------------


async def leave(market: Market, behaviour: Gate) -> None:
    """Call with a key, and break the connection off while the provider works."""
    market.provider.behaviour = behaviour
    market.provider.arrived.clear()
    client = await market.connect()
    await client.send(market.raw("POST", INVOKE.format("echo"), b"x", f"Idempotency-Key: {KEY}"))
    await market.provider.arrived.wait()
    client.reset()
    await market.until(lambda: not market.gateway.clients)


async def test_a_client_that_left_finds_its_answer_and_pays_for_it_then(market: Market) -> None:
    gate = Gate(answer(200, b"worth waiting for"))
    await leave(market, gate)
    assert code(await keyed(market)) == (409, "IDEMPOTENCY_IN_PROGRESS")
    gate.open.set()
    await market.until(lambda: not market.gateway.calls)
    assert billed(market) == []
    again, third = await keyed(market), await keyed(market)
    assert again.body == third.body == b"worth waiting for"
    assert (again.header("x-haat-units"), third.header("x-haat-units")) == ("requests=1", "requests=0")
    assert len(market.provider.requests) == 1 and billed(market) == [{"requests": "1"}]
    outcomes = [event.outcome for event in market.events()]
    assert outcomes.count(Outcome.CLIENT_LEFT) == 1 and outcomes.count(Outcome.COMPLETED) == 2
    [allowance] = market.gateway.limits._allowances.values()
    assert (allowance.used, allowance.in_flight) == (1, 0)


async def test_a_call_without_its_client_still_has_its_deadline(market: Market) -> None:
    market.add_service("echo", timeout_ms=300)
    await leave(market, Gate())
    await market.until(lambda: not market.gateway.calls)
    await market.until(lambda: market.provider.lost == 1)
    again = await keyed(market)
    assert code(again) == (504, "PROVIDER_TIMEOUT") and again.header("idempotency-replayed") == "true"


async def test_a_gateway_that_stops_finishes_calls_whose_clients_have_left(market: Market, tmp_path: Path) -> None:
    gate = Gate(answer(200, b"in time"))
    await leave(market, gate)
    stopping = asyncio.create_task(market.gateway.stop(5.0))
    await market.until(lambda: market.gateway.draining)
    assert not stopping.done()
    gate.open.set()
    await stopping
    assert [event.outcome for event in market.events()] == [Outcome.CLIENT_LEFT]
    successor = await open_market(tmp_path, market.keyring)
    successor.gateway.directory.put_credential("again", _credential(market))
    again = await successor.call("POST", INVOKE.format("echo"), b"x", f"Idempotency-Key: {KEY}", key=market.key)
    assert again.body == b"in time" and len(billed(successor)) == 1
    await close_market(successor)


async def test_a_call_that_a_stop_cuts_off_is_in_doubt(market: Market, tmp_path: Path) -> None:
    await leave(market, Gate())
    await market.gateway.stop(0.05)
    assert [event.outcome for event in market.events()] == [Outcome.INTERRUPTED]
    successor = await open_market(tmp_path, market.keyring)
    successor.gateway.directory.put_credential("again", _credential(market))
    again = await successor.call("POST", INVOKE.format("echo"), b"x", f"Idempotency-Key: {KEY}", key=market.key)
    assert code(again) == (409, "IDEMPOTENCY_UNKNOWN") and successor.provider.requests == []
    await close_market(successor)


def _credential(market: Market) -> Credential:
    return Credential("again", ORG, APP, market.keyring.hash_key(market.key), 0, 0)


async def test_a_client_of_a_stream_that_leaves_ends_it_as_ever(market: Market) -> None:
    async def stream(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: a\n\n")
        await reader.read()
        return False

    market.provider.behaviour = stream
    client = await market.connect()
    await client.send(market.raw("POST", INVOKE.format("echo"), b"x", f"Idempotency-Key: {KEY}"))
    assert b"data: a" in await client.reader.readuntil(b"data: a")
    client.reset()
    await market.until(lambda: market.provider.lost == 1)
    assert code(await keyed(market)) == (409, "IDEMPOTENCY_NOT_KEPT")


# --- the file -----------------------------------------------------------------------------------


async def test_without_a_place_to_keep_it_a_key_is_refused_and_nothing_is_executed(
    market: Market, tmp_path: Path
) -> None:
    path = tmp_path / "gateway" / "idempotency.db"
    path.mkdir(parents=True)
    response = await keyed(market)
    assert code(response) == (503, "IDEMPOTENCY_UNAVAILABLE") and response.header("retry-after") == "1"
    assert market.provider.requests == []
    assert (await market.call("POST", INVOKE.format("echo"), b"x")).status == 200, "others are not concerned"


async def test_an_answer_that_cant_be_kept_is_delivered_and_the_call_is_not_executed_again(
    market: Market, tmp_path: Path
) -> None:
    gate = Gate(answer(200, b"z" * 100_000))
    market.provider.behaviour = gate
    first = asyncio.create_task(keyed(market))
    await market.provider.arrived.wait()
    with largest_file(_largest(tmp_path)):
        gate.open.set()
        assert (await first).body == b"z" * 100_000
    await market.until(lambda: bool(market.confirmed()))
    again = await _until_kept(market)
    assert code(again) == (409, "IDEMPOTENCY_IN_PROGRESS")
    assert len(market.provider.requests) == 1


def _largest(folder: Path) -> int:
    return max(path.stat().st_size for path in folder.rglob("*") if path.is_file())


async def _until_kept(market: Market) -> Response:
    async with asyncio.timeout(5):
        while True:
            response = await keyed(market)
            if response.status != 503:
                return response
            await asyncio.sleep(0.05)


class Gate:
    """A provider that answers when it is let."""

    def __init__(self, response: bytes | None = None) -> None:
        self.open = asyncio.Event()
        self._response = response or answer()

    async def __call__(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        opened, left = asyncio.ensure_future(self.open.wait()), asyncio.ensure_future(reader.read(1))
        await asyncio.wait({opened, left}, return_when=asyncio.FIRST_COMPLETED)
        opened.cancel()
        if left.done():
            return False
        left.cancel()
        writer.write(self._response)
        await writer.drain()
        return False


async def _lost_on_the_way(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    reset(writer)
    return False


async def _silent(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    await reader.read()
    return False

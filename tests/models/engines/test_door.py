"""Models over HTTP: the task schema, what can be asked of a call, events, and refusals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from haat.models import metrics
from haat.models.directory import Directory, precedence
from haat.models.door import ModelDoor
from haat.models.engines.degrading import DegradingEngine
from haat.models.engines.local import LocalEngine
from haat.models.execution import Execution
from haat.models.hosted import Option
from haat.models.manifest import Batching, Degraded, Listing
from haat.models.process import build_app
from haat.models.server import Server
from models.engines.contract import KEY, sample, until

TOKEN = "t" * 64
INVOKE = "/shop/sample/invoke"


@pytest.fixture
async def engine() -> AsyncIterator[LocalEngine]:
    engine = LocalEngine()
    await engine.start()
    yield engine
    await engine.stop()


def _opens(provider: str, authorization: bytes) -> bool:
    return authorization == f"Bearer {TOKEN}".encode()


def door_to(engine: LocalEngine) -> ModelDoor:
    behind: Any = build_app(Execution({}), TOKEN)
    return ModelDoor(DegradingEngine(engine), _opens, behind, lambda: metrics.render(engine.metrics()))


def client_of(door: ModelDoor) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {TOKEN}", "X-Request-ID": "call-7"}
    return httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://models", headers=headers)


@pytest.fixture
async def client(engine: LocalEngine) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(door_to(engine)) as client:
        yield client


def texts(*given: str) -> dict[str, Any]:
    return {"input": [{"text": text} for text in given]}


def problem(response: httpx.Response, code: str, status: int) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert (body["code"], response.status_code, body["status"]) == (code, status, status)
    assert body["request_id"] == response.headers["x-request-id"]
    return body


def events(text: str) -> list[tuple[str, Any]]:
    """Return the events of a stream, by name and data."""
    found = []
    for event in text.split("\n\n")[:-1]:
        name, data = event.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


async def test_a_call_is_answered_with_output_and_usage(engine: LocalEngine, client: httpx.AsyncClient) -> None:
    await engine.deploy(sample())
    response = await client.post(INVOKE, json=texts("hello", "नमस्ते"))
    assert response.status_code == 200
    assert [output["text"] for output in response.json()["output"]] == ["HELLO", "नमस्ते"]
    assert response.json()["usage"] == {"characters": 11}
    assert response.headers["x-haat-usage"] == "characters=11"
    assert response.headers["x-request-id"] == "call-7"
    assert response.headers["x-haat-batch"] == "2"
    assert "queue;dur=" in response.headers["server-timing"]


async def test_an_address_without_a_version_means_the_newest(engine: LocalEngine, client: httpx.AsyncClient) -> None:
    await engine.deploy(sample("shop/sample@1.10.0", entry="sample:steady"))
    await engine.deploy(sample("shop/sample@1.9.0"))
    assert (await client.post(INVOKE, json=texts("a"))).json()["output"][0]["text"] == "a"
    old = await client.post("/shop/sample@1.9.0/invoke", json=texts("a"))
    assert old.json()["output"][0]["text"] == "A"
    problem(await client.post("/shop/sample@2/invoke", json=texts("a")), "SERVICE_NOT_FOUND", 404)


async def test_what_is_no_models_goes_to_the_services_behind(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health")).json()["status"] == "ok"
    problem(await client.post(INVOKE, json=texts("a")), "SERVICE_NOT_FOUND", 404)
    problem(await client.get(INVOKE), "METHOD_NOT_ALLOWED", 405)


@pytest.mark.parametrize("given", ["Bearer wrong", f"Basic {TOKEN}", "Bearer é"])
async def test_only_the_platforms_credential_opens(engine: LocalEngine, client: httpx.AsyncClient, given: str) -> None:
    await engine.deploy(sample())
    response = await client.post(INVOKE, json=texts("a"), headers={"Authorization": given.encode()})
    problem(response, "INVALID_CREDENTIAL", 401)
    del client.headers["Authorization"]
    problem(await client.post(INVOKE, json=texts("a")), "UNAUTHENTICATED", 401)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "input"),
        ({"input": [{"text": ""}]}, "input[0].text"),
        ({"input": [{"text": "a", "more": 1}]}, "input[0].more"),
        ({"input": [{"text": "a"}], "config": {"voice": "loud"}}, "config.voice"),
        ({"input": [{"text": "a"}] * 101}, "input"),
        ({"input": 7}, "input"),
    ],
)
async def test_bad_input_is_refused_by_the_name_of_its_field(
    engine: LocalEngine, client: httpx.AsyncClient, body: dict[str, Any], field: str
) -> None:
    await engine.deploy(sample(options=(Option("voice", "choice", "", "soft", ("soft", "clear")),)))
    response = await client.post(INVOKE, content=json.dumps(body))
    assert problem(response, "VALIDATION_FAILED", 422)["errors"][0]["field"] == field


async def test_bodies_that_are_no_json_or_too_large_are_refused(engine: LocalEngine, client: httpx.AsyncClient) -> None:
    await engine.deploy(sample(max_characters=10, languages=("hi-Deva", "ta-Taml")))
    hindi = {"config": {"language": "hi"}}
    problem(await client.post(INVOKE, content=b"{"), "MALFORMED_JSON", 400)
    problem(await client.post(INVOKE, content=b"\xff"), "MALFORMED_JSON", 400)
    problem(await client.post(INVOKE, content=rb'{"input": [{"text": "\ud800"}]}'), "MALFORMED_JSON", 400)
    problem(await client.post(INVOKE, json=texts("a" * 11) | hindi), "INPUT_TOO_LONG", 422)
    problem(await client.post(INVOKE, json=texts("a" * 200_000) | hindi), "BODY_TOO_LARGE", 413)
    french = await client.post(INVOKE, json={**texts("a"), "config": {"language": "fr"}})
    assert problem(french, "UNSUPPORTED_LANGUAGE", 422)["supported"] == ["hi-Deva", "ta-Taml"]


@pytest.mark.parametrize("given", ["0", "11", "-1", "x", "5.5", "", "99999999999999999999"])
async def test_a_priority_is_one_to_ten(engine: LocalEngine, client: httpx.AsyncClient, given: str) -> None:
    await engine.deploy(sample())
    response = await client.post(INVOKE, json=texts("a"), headers={"X-Haat-Priority": given})
    assert problem(response, "VALIDATION_FAILED", 422)["errors"][0]["field"] == "X-Haat-Priority"
    assert (await client.post(INVOKE, json=texts("a"), headers={"X-Haat-Priority": "10"})).status_code == 200


async def test_a_caller_may_have_less_time(engine: LocalEngine, client: httpx.AsyncClient) -> None:
    await engine.deploy(sample())
    await engine.load(KEY)
    response = await client.post(INVOKE, json=texts("sleep 0.5"), headers={"X-Haat-Timeout-Ms": "50"})
    problem(response, "ENGINE_TIMEOUT", 504)
    response = await client.post(INVOKE, json=texts("a"), headers={"X-Haat-Timeout-Ms": "0"})
    assert problem(response, "VALIDATION_FAILED", 422)["errors"][0]["field"] == "X-Haat-Timeout-Ms"


async def test_what_a_model_does_wrong_is_a_documented_refusal(engine: LocalEngine, client: httpx.AsyncClient) -> None:
    await engine.deploy(sample())
    assert "scores[1]" in problem(await client.post(INVOKE, json=texts("nan")), "ENGINE_FAILED", 502)["detail"]
    problem(await client.post(INVOKE, json=texts("exit")), "ENGINE_FAILED", 502)
    problem(await client.post(INVOKE, json=texts("refuse")), "INPUT_TOO_LONG", 422)


async def test_a_model_writes_no_headers_and_no_status_by_its_error(
    engine: LocalEngine, client: httpx.AsyncClient
) -> None:
    await engine.deploy(sample())
    response = await client.post(INVOKE, json=texts("inject"))
    problem(response, "OVERLOADED", 503)
    assert "retry-after" not in response.headers and "x-haat-usage" not in response.headers


async def test_an_overloaded_model_says_when_to_come_back(engine: LocalEngine, client: httpx.AsyncClient) -> None:
    await engine.deploy(sample(batching=Batching(max_items=1)))
    await engine.load(KEY)
    calls = [asyncio.create_task(client.post(INVOKE, json=texts("sleep 0.2"))) for _ in range(11)]
    await until(lambda: engine.state(KEY).queued == 10)
    response = await client.post(INVOKE, json=texts("a"))
    assert problem(response, "OVERLOADED", 503)["retry_after"] == int(response.headers["retry-after"])
    assert {call.status_code for call in await asyncio.gather(*calls)} == {200}


async def test_who_stood_in_is_named(engine: LocalEngine) -> None:
    door = door_to(engine)
    cheap = "shop/cheap@1.0.0"
    await door._engine.deploy(sample(batching=Batching(max_items=1), degraded=Degraded(instead=cheap)))
    await door._engine.deploy(sample(cheap, entry="sample:steady"))
    await engine.load(KEY)
    async with client_of(door) as client:
        calls = [asyncio.create_task(client.post(INVOKE, json=texts("sleep 0.1"))) for _ in range(11)]
        await until(lambda: engine.state(KEY).queued == 10)
        response = await client.post(INVOKE, json=texts("a"))
        assert response.headers["x-haat-degraded"] == cheap
        assert "x-haat-degraded" not in (await calls[0]).headers
        await asyncio.gather(*calls)


# --- events -----------------------------------------------------------------------------------------


async def test_events_tell_the_place_the_outputs_and_the_use(engine: LocalEngine, client: httpx.AsyncClient) -> None:
    await engine.deploy(sample(batching=Batching(max_items=1)))
    await engine.load(KEY)
    calls = [asyncio.create_task(client.post(INVOKE, json=texts("sleep 0.1"))) for _ in range(4)]
    await until(lambda: engine.state(KEY).queued == 3)
    response = await client.post(INVOKE, json=texts("a", "b"), headers={"Accept": "text/event-stream"})
    await asyncio.gather(*calls)
    assert response.headers["content-type"] == "text/event-stream"
    told = events(response.text)
    places = [data["place"] for name, data in told if name == "place"]
    assert places[0] == 4
    assert places == sorted(places, reverse=True)
    assert [(data["output"]["text"], data["usage"]) for name, data in told if name == "output"] == [
        ("A", {"characters": 2}),
        ("B", {"characters": 2}),
    ]
    name, data = told[-1]
    assert (name, data["usage"]) == ("done", {"characters": 2})


async def test_a_model_that_streams_gives_its_parts_as_events(engine: LocalEngine, client: httpx.AsyncClient) -> None:
    await engine.deploy(sample(streams=True))
    response = await client.post(INVOKE, json=texts("one two", "three"), headers={"Accept": "text/event-stream"})
    parts = [(data["input"], data["output"]["text"]) for name, data in events(response.text) if name == "output"]
    assert parts == [(0, "one"), (0, "two"), (1, "three")]


async def test_a_failure_before_the_first_event_is_a_refusal_and_after_it_the_last_event(
    engine: LocalEngine, client: httpx.AsyncClient
) -> None:
    await engine.deploy(sample(streams=True))
    await engine.load(KEY)
    accept = {"Accept": "text/event-stream"}
    problem(await client.post(INVOKE, json=texts("raise"), headers=accept), "ENGINE_FAILED", 502)
    broken = events((await client.post(INVOKE, json=texts("one raise"), headers=accept)).text)
    assert [name for name, _ in broken] == ["output", "error"]
    assert broken[-1][1]["code"] == "ENGINE_FAILED"
    problem(await client.post(INVOKE, content=b"[", headers=accept), "MALFORMED_JSON", 400)


# --- what there is beside calls ---------------------------------------------------------------------


async def test_health_says_how_a_model_is_doing(engine: LocalEngine, client: httpx.AsyncClient) -> None:
    await engine.deploy(sample())
    assert (await client.get("/shop/sample/health")).json() == {"status": "ok", "model": "unloaded"}
    await engine.deploy(sample(entry="sample:Broken"))
    await client.post(INVOKE, json=texts("a"))
    problem(await client.get("/shop/sample/health"), "ENGINE_FAILED", 502)


async def test_metrics_are_there_for_prometheus(engine: LocalEngine, client: httpx.AsyncClient) -> None:
    await engine.deploy(sample())
    await client.post(INVOKE, json=texts("a"))
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert f'models_calls_total{{model="{KEY}"}} 1' in response.text.splitlines()


async def test_units_are_those_of_the_listing(engine: LocalEngine, client: httpx.AsyncClient) -> None:
    await engine.deploy(sample(listing=Listing(unit="requests")))
    assert (await client.post(INVOKE, json=texts("a", "b"))).json()["usage"] == {"requests": 1}


def test_versions_are_ordered_by_their_numbers() -> None:
    versions = ["1.0.0-rc1", "1.0.0", "1.2", "1.10.0", "2", "2026.11.3"]
    mixed = ["2026.11.3", "1.10.0", "1.0.0", "2", "1.0.0-rc1", "1.2"]
    assert sorted(mixed, key=precedence) == versions


async def test_a_removed_model_is_gone_from_its_address(engine: LocalEngine) -> None:
    directory = Directory(engine)
    await engine.deploy(sample())
    assert directory.find("shop/sample") is not None
    await engine.remove(KEY)
    await until(lambda: directory.find("shop/sample") is None)


# --- over a socket ----------------------------------------------------------------------------------


@pytest.fixture
async def port(engine: LocalEngine) -> AsyncIterator[int]:
    server = Server(door_to(engine), shutdown_seconds=5)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


async def _send(port: int, body: dict[str, Any], accept: str = "*/*") -> tuple[asyncio.StreamReader, Any]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    content = json.dumps(body).encode()
    head = f"POST {INVOKE} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nAccept: {accept}\r\n"
    writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(content) + content)
    await writer.drain()
    return reader, writer


async def test_head_and_body_arrive_together_and_calls_follow_each_other(engine: LocalEngine, port: int) -> None:
    await engine.deploy(sample())
    await engine.load(KEY)
    content = json.dumps(texts("a")).encode()
    head = f"POST {INVOKE} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
    call = head + b"Content-Length: %d\r\n\r\n" % len(content) + content
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(call + call)  # the second one before the first is answered
    for _ in range(2):
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        length = int(answer.split(b"content-length: ")[1].split(b"\r\n")[0])
        assert json.loads(await reader.readexactly(length))["output"][0]["text"] == "A"
    writer.write(call.replace(b"Host: a", b"Host: a\r\nConnection: close"))
    assert (await reader.read()).endswith(b"}")
    writer.close()
    await writer.wait_closed()


async def test_a_large_answer_arrives_whole_and_then_the_connection_ends(engine: LocalEngine, port: int) -> None:
    await engine.deploy(sample(max_characters=2_000_000))
    await engine.load(KEY)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        headers = {"Authorization": f"Bearer {TOKEN}", "Connection": "close"}
        response = await client.post(INVOKE, json=texts("a" * 2_000_000), headers=headers)
    assert response.json()["output"][0]["text"] == "A" * 2_000_000


async def test_a_client_who_leaves_takes_the_call_out_of_the_queue(engine: LocalEngine, port: int) -> None:
    await engine.deploy(sample(batching=Batching(max_items=1)))
    await engine.load(KEY)
    _, first = await _send(port, texts("sleep 1"))
    await until(lambda: engine.state(KEY).in_flight == 1)
    _, second = await _send(port, texts("a"))
    await until(lambda: engine.state(KEY).queued == 1)
    second.close()
    await second.wait_closed()
    await until(lambda: engine.state(KEY).queued == 0, 0.5)
    first.close()
    await first.wait_closed()


async def test_a_client_who_leaves_ends_the_stream(engine: LocalEngine, port: int) -> None:
    await engine.deploy(sample(streams=True))
    await engine.load(KEY)
    reader, writer = await _send(port, texts("count 0.01"), "text/event-stream")
    await reader.readuntil(b'"text":"3"')
    writer.close()
    await writer.wait_closed()
    await until(lambda: engine.state(KEY).in_flight == 0)
    assert engine.metrics()[KEY][0].abandoned == 1


async def _exchange(port: int, *pieces: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send a request in pieces, read its answer to the connection's end; an interim answer is left out."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(0.01)
    head, _, rest = (await reader.read()).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n").partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in lines), rest


@pytest.mark.parametrize("given", [texts("a"), texts("nan"), {"input": 7}])
async def test_the_short_way_and_the_long_one_answer_alike(
    engine: LocalEngine, port: int, given: dict[str, Any]
) -> None:
    await engine.deploy(sample(entry="sample:Sample"))
    await engine.load(KEY)
    body = json.dumps(given).encode()
    fields = b"Host: a\r\nX-Request-ID: call-7\r\nConnection: close\r\nAuthorization: Bearer %b\r\n" % TOKEN.encode()
    head = b"POST %b HTTP/1.1\r\n" % INVOKE.encode() + fields
    sized = b"Content-Length: %d\r\n" % len(body)
    seen = []
    for pieces in (
        (head + sized + b"\r\n" + body,),
        (head + sized + b"\r\n", body[:5], body[5:]),
        (head[:9], head[9:40], head[40:] + sized + b"\r\n" + body),
        (head.replace(b"HTTP/1.1", b"HTTP/1.0") + sized + b"\r\n" + body,),
        (head.replace(b"sample", b"s%61mple") + sized + b"\r\n" + body,),
        (head + sized + b"Expect: 100-continue\r\n\r\n", body),
        (head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),),
    ):
        status, headers, answer = await _exchange(port, *pieces)
        assert set(headers) >= {"date", "content-type", "content-length", "connection"}
        assert headers["x-request-id"] == "call-7"
        decoded = json.loads(answer)
        for output in decoded.get("output", ()):
            output.pop("pid")
        seen.append((status, sorted(headers), headers["content-type"], decoded))
    assert all(one == seen[0] for one in seen)


async def test_the_short_way_asks_for_the_credential_too(engine: LocalEngine, port: int) -> None:
    await engine.deploy(sample())
    body = json.dumps(texts("a")).encode()
    head = b"POST %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    status, headers, _ = await _exchange(port, head % (INVOKE.encode(), len(body)) + body)
    assert (status, headers["www-authenticate"]) == (401, "Bearer")


async def test_the_server_ends_after_the_calls_it_is_at(engine: LocalEngine) -> None:
    await engine.deploy(sample())
    await engine.load(KEY)
    server = Server(door_to(engine), shutdown_seconds=5)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    reader, writer = await _send(server.servers[0].sockets[0].getsockname()[1], texts("sleep 0.5"))
    await until(lambda: engine.state(KEY).in_flight == 1)
    server.should_exit = True
    assert b'"SLEEP 0.5"' in await reader.read()
    writer.close()
    await serving

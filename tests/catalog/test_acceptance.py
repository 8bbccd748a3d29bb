"""The acceptance call against a real server that does what a script tells it."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from haat.catalog import acceptance
from haat.catalog.acceptance import Report, Step, check
from haat.catalog.drafts import SampleCall
from haat.infra.net import parse_networks
from haat.kernel.errors import AcceptanceFailed

LOOPBACK = parse_networks(["127.0.0.0/8"])
TASK = SampleCall(body={"input": [{"text": "नमस्ते"}], "config": {}})
GOOD = json.dumps({"output": [{"text": "سلام"}]}).encode()

Answer = tuple[int, bytes] | tuple[int, bytes, dict[str, str]]
Script = Callable[["Seen"], Awaitable[Answer]]


class Seen:
    """A request as the server saw it, and its number from 1."""

    def __init__(self, number: int, head: bytes, body: bytes) -> None:
        self.number = number
        first, *lines = head.decode("latin-1").split("\r\n")
        self.method, self.path, _ = first.split(" ")
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
        self.body = body


class Server:
    """An HTTP/1.1 server on loopback that answers by a script and remembers what it was asked."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.script: Script = self._good
        self.endpoint = ""
        self._serving: set[asyncio.Task[None]] = set()

    @staticmethod
    async def _good(_: Seen) -> Answer:
        return 200, GOOD

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await task
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        self._serving.discard(task)

    async def end(self) -> None:
        """Break off what still runs and wait until its connections are closed."""
        while self._serving:
            for task in self._serving:
                task.cancel()
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        request = Seen(len(self.seen) + 1, head, b"")
        request.body = await reader.readexactly(int(request.headers.get("content-length", "0")))
        self.seen.append(request)
        status, body, *rest = await self.script(request)
        headers = {"Content-Length": str(len(body)), "Connection": "close", **(rest[0] if rest else {})}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + body)
        await writer.drain()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    listening = await asyncio.start_server(server.connected, "127.0.0.1", 0)
    server.endpoint = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    yield server
    listening.close()
    await server.end()


async def _check(server: Server, **changes: Any) -> Report:
    settings = {"dialect": "task", "sample": TASK, "warm_up_seconds": 0.3, "allowed": LOOPBACK, "https_only": False}
    return await check(server.endpoint, **{**settings, **changes})


def _names(report: Report) -> list[tuple[str, bool]]:
    return [(step.name, step.ok) for step in report.steps]


async def test_a_good_service_passes_and_saw_the_real_call(server: Server) -> None:
    report = await _check(server, health_path="/health", credential=("X-Secret", "s3cret"))
    assert report.ok and _names(report) == [("address", True), ("health", True), ("sample call", True)]
    report.require()
    health, call = server.seen
    assert (health.method, health.path) == ("GET", "/health")
    assert (call.method, call.path, call.headers["content-type"]) == ("POST", "/invoke", "application/json")
    assert json.loads(call.body) == TASK.body
    assert call.headers["x-secret"] == health.headers["x-secret"] == "s3cret"
    assert f"http://{call.headers['host']}" == server.endpoint


PAIR = SampleCall(body={"input": [{"text": "नमस्ते"}], "config": {"source": "hi-Deva", "target": "ur-Arab"}})


async def test_a_service_that_speaks_ulca_is_asked_its_sample_in_its_words(server: Server) -> None:
    async def dhruva(_: Seen) -> Answer:
        return 200, '{"taskType":"translation","output":[{"source":"नमस्ते","target":"سلام"}]}'.encode()

    server.script = dhruva
    server.endpoint += "/services/inference/translation"
    assert (await _check(server, dialect="ulca", sample=PAIR)).ok
    [call] = server.seen
    assert (call.path, call.headers["content-type"]) == ("/services/inference/translation", "application/json")
    assert json.loads(call.body) == {
        "config": {"language": {"sourceLanguage": "hi", "targetLanguage": "ur"}},
        "controlConfig": {"dataTracking": False},
        "input": [{"source": "नमस्ते"}],
    }


@pytest.mark.parametrize(
    ("sample", "path", "said"),
    [
        (PAIR, "/translation", "the answer can't be used: it holds no `output`"),
        (TASK, "/translation", "config.source: must be a language tag"),
        (PAIR, "/somewhere", "the address ends with none of the tasks translation, "),
    ],
)
async def test_a_service_that_speaks_ulca_is_told_what_does_not_fit(
    server: Server, sample: SampleCall, path: str, said: str
) -> None:
    server.endpoint += path
    report = await _check(server, dialect="ulca", sample=sample)
    assert not report.ok and said in report.steps[-1].detail


async def test_the_name_is_kept_for_the_host_header_while_the_address_is_dialled(server: Server) -> None:
    port = server.endpoint.rpartition(":")[2]
    server.endpoint = f"http://localhost:{port}/base/"
    assert (await _check(server, allowed=(*LOOPBACK, *parse_networks(["::1/128"])))).ok
    assert (server.seen[0].headers["host"], server.seen[0].path) == (f"localhost:{port}", "/base/invoke")


async def test_a_text_body_and_a_get_without_body_are_sent_as_such(server: Server) -> None:
    async def plain(_: Seen) -> Answer:
        return 200, b"ok"

    server.script = plain
    assert (await _check(server, dialect="http", sample=SampleCall(body="नमस्ते"))).ok
    assert (await _check(server, dialect="http", sample=SampleCall(method="GET", path="/say?q=1", body="x"))).ok
    text, get = server.seen
    assert (text.body.decode(), text.headers["content-type"]) == ("नमस्ते", "text/plain; charset=utf-8")
    assert (get.method, get.path, get.body) == ("GET", "/say?q=1", b"")


async def test_a_service_that_warms_up_is_asked_again(server: Server) -> None:
    async def warming(request: Seen) -> Answer:
        return (503, b"loading") if request.number < 3 else (200, GOOD)

    server.script = warming
    assert (await _check(server, warm_up_seconds=10)).ok
    assert len(server.seen) == 3


async def _answers(status: int, body: bytes, **headers: str) -> Answer:
    return status, body, headers


@pytest.mark.parametrize(
    ("status", "body", "headers", "reason"),
    [
        (500, b"Traceback", {}, "answered 500 instead of 200: Traceback"),
        (404, b"", {}, "answered 404"),
        (401, b"who?", {}, "answered 401"),
        (201, GOOD, {}, "answered 201 instead of 200"),
        (302, b"", {"Location": "http://169.254.169.254/"}, "answered 302"),
        (200, b"<html>", {}, "not JSON with an `output`"),
        (200, b"\xff\xfe", {}, "not JSON with an `output`"),
        (200, b"[" * 200_000, {}, "not JSON with an `output`"),
        (200, b'{"result": 1}', {}, "not JSON with an `output`"),
        (200, b"[1]", {}, "not JSON with an `output`"),
        (200, b'{"output": "text"}', {}, "one item for each of the 1 inputs"),
        (200, b'{"output": []}', {}, "one item for each of the 1 inputs"),
        (200, b'{"output": [1, 2]}', {}, "one item for each of the 1 inputs"),
        (200, b"not gzip", {"Content-Encoding": "gzip"}, "no usable answer"),
        (200, GOOD, {"Content-Length": "5000"}, "no usable answer"),
    ],
)
async def test_an_answer_its_buyers_could_not_use_fails(
    server: Server, status: int, body: bytes, headers: dict[str, str], reason: str
) -> None:
    server.script = lambda _: _answers(status, body, **headers)
    report = await _check(server, warm_up_seconds=0.1)
    assert _names(report) == [("address", True), ("sample call", False)]
    assert reason in report.steps[-1].detail
    with pytest.raises(AcceptanceFailed, match="sample call") as refusal:
        report.require()
    assert [step["ok"] for step in refusal.value.extensions["steps"]] == [True, False]


@pytest.mark.parametrize(
    ("dialect", "path", "body", "reason"),
    [
        ("openai", "/chat/completions", b'{"choices": []}', ""),
        ("openai", "/v1/embeddings", b'{"data": []}', ""),
        ("openai", "/audio/speech", b"RIFF", ""),
        ("anthropic", "/messages", b'{"content": []}', ""),
        ("openai", "/chat/completions", b'{"output": []}', "an object with `choices`"),
        ("openai", "/chat/completions", b"<html>", "is not JSON"),
        ("openai", "/chat/completions", b"[]", "an object with `choices`"),
        ("anthropic", "/messages", b"{}", "an object with `content`"),
    ],
)
async def test_who_speaks_a_protocol_answers_in_its_shape(
    server: Server, dialect: str, path: str, body: bytes, reason: str
) -> None:
    server.script = lambda _: _answers(200, body)
    report = await _check(
        server, dialect=dialect, sample=SampleCall(path=path, body={"model": "m"}), warm_up_seconds=0.5
    )
    assert report.ok is not bool(reason)
    assert reason in report.steps[-1].detail


@pytest.mark.parametrize(
    ("dialect", "unit", "said", "ok"),
    [
        ("task", "graphemes", "graphemes=5", True),
        ("task", "graphemes", "characters=7; graphemes = 5.25", True),
        ("http", "audio_seconds", "audio_seconds=0", True),
        ("task", "graphemes", "", False),
        ("task", "graphemes", "characters=7", False),
        ("http", "graphemes", "graphemes=-1", False),
        ("http", "graphemes", "graphemes=many", False),
        ("task", "requests", "", True),
        ("http", "bytes", "", True),
        ("openai", "tokens", "", True),
    ],
)
async def test_a_service_that_is_sold_by_what_only_it_can_count_has_to_say_it(
    server: Server, dialect: Any, unit: str, said: str, ok: bool
) -> None:
    async def script(_: Seen) -> Answer:
        return 200, GOOD, {"X-Haat-Usage": said} if said else {}

    server.script = script
    report = await check(server.endpoint, dialect=dialect, sample=TASK, allowed=LOOPBACK, unit=unit)
    assert report.ok is ok
    if not ok:
        assert report.steps[-1].name == "metering" and f"X-Haat-Usage: {unit}=42" in report.steps[-1].detail


async def test_a_redirect_is_not_followed(server: Server) -> None:
    server.script = lambda request: _answers(302, b"", Location=server.endpoint + "/elsewhere")
    await _check(server, warm_up_seconds=0.1)
    assert {request.path for request in server.seen} == {"/invoke"}


async def test_a_service_without_answer_is_not_waited_for_beyond_its_warm_up(server: Server) -> None:
    async def silent(_: Seen) -> Answer:
        await asyncio.Event().wait()
        return 200, GOOD

    server.script = silent
    async with asyncio.timeout(5):
        report = await _check(server, warm_up_seconds=0.2)
    assert "no usable answer within 0.2 s" in report.steps[-1].detail


async def test_an_answer_beyond_ten_mebibytes_is_cut_off(server: Server) -> None:
    server.script = lambda _: _answers(200, b"x" * (acceptance._MAX_ANSWER + 1))
    report = await _check(server, warm_up_seconds=0.1)
    assert "larger than 10 MiB" in report.steps[-1].detail


async def test_a_small_answer_that_unpacks_beyond_ten_mebibytes_is_cut_off(server: Server) -> None:
    bomb = gzip.compress(b"x" * (acceptance._MAX_ANSWER + 1))
    server.script = lambda _: _answers(200, bomb, **{"Content-Encoding": "gzip"})
    report = await _check(server, warm_up_seconds=0.1)
    assert "larger than 10 MiB" in report.steps[-1].detail


async def test_a_bad_health_path_ends_the_check(server: Server) -> None:
    server.script = lambda _: _answers(503, b"")
    report = await _check(server, health_path="/health")
    assert _names(report) == [("address", True), ("health", False)]
    assert len(server.seen) == 1


async def test_a_closed_port_is_told(server: Server, unused_port: int) -> None:
    server.endpoint = f"http://127.0.0.1:{unused_port}"
    report = await _check(server, warm_up_seconds=0.1)
    assert _names(report) == [("address", True), ("sample call", False)]


@pytest.fixture
async def unused_port() -> int:
    listening = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = int(listening.sockets[0].getsockname()[1])
    listening.close()
    await listening.wait_closed()
    return port


async def test_an_inward_address_is_refused_unless_its_network_is_allowed(server: Server) -> None:
    report = await _check(server, allowed=())
    assert _names(report) == [("address", False)]
    assert server.seen == []


@pytest.mark.parametrize("endpoint", ["http://user@127.0.0.1", "http://127.0.0.1:22", "ftp://127.0.0.1", "http://[::1"])
async def test_an_address_that_is_not_taken_is_told_as_a_step(server: Server, endpoint: str) -> None:
    server.endpoint = endpoint
    assert _names(await _check(server)) == [("address", False)]


async def test_plain_http_is_told_as_a_step_where_https_is_required(server: Server) -> None:
    assert _names(await _check(server, https_only=True, allowed=())) == [("address", False)]


async def test_a_path_no_client_can_send_is_told_as_a_step(server: Server) -> None:
    sample = SampleCall.model_construct(method="POST", path="/\x01", body=None, expect_status=200)
    assert _names(await _check(server, sample=sample))[-1] == ("sample call", False)


def test_a_report_without_steps_is_no_success() -> None:
    assert not Report().ok
    assert Report([Step("address", True, "", 0.0)]).ok

"""Every refusal a caller can meet, on a whole running platform: its words, its record, and that it costs nothing."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest
from running import free_ports
from trade import Handler, Market, serving

from haat.identity.model import make_key

pytestmark = pytest.mark.verify

CODES = set(re.findall(r"^\| `([A-Z_]+)` \|", (Path(__file__).parents[2] / "docs/errors.md").read_text(), re.MULTILINE))
INSIDES = re.compile(r'Traceback|File "|\.py\b|(?<![\w.])/(?:home|usr|tmp|root|var|opt|etc)/')
GOOD = {"input": [{"text": "नमस्ते दुनिया"}], "config": {"source": "hi-Deva", "target": "te-Telu"}}
TRANSLITERATE = "akshara/transliterate"


@dataclass
class Caller:
    """An application of its own, and what became of each of its calls."""

    market: Market
    application: str
    key: str = ""
    credential: str = ""
    tag: str = field(default_factory=lambda: uuid4().hex)
    outcomes: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Status and outcome that the usage store must hold, by request id."""

    def subscribe(self, path: str, plan: str = "basic") -> None:
        service = self.market.id_of(path)
        self.market.buyer.ask("POST", "/subscriptions", application_id=self.application, service_id=service, plan=plan)

    def make_key(self, **settings: Any) -> tuple[str, str]:
        made = self.market.buyer.ask("POST", f"/applications/{self.application}/keys", name="trial", **settings)
        return made["key"], made["credential"]["id"]

    def send(self, path: str, body: Any = None, *, key: str | None = None, tail: str = "/invoke") -> httpx.Response:
        """Call a service; a body that is not bytes is sent as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(GOOD if body is None else body).encode()
        return httpx.post(
            f"{self.market.platform.gateway_url}/v1/services/{path}{tail}",
            content=content,
            headers={
                "Authorization": f"Bearer {key or self.key}",
                "Content-Type": "application/json",
                "X-Haat-Tags": f"trial={self.tag}",
            },
            timeout=40,
            trust_env=False,
        )

    def is_answered(self, path: str, body: Any = None, *, key: str | None = None, tail: str = "/invoke") -> None:
        response = self.send(path, body, key=key, tail=tail)
        assert response.status_code == 200, response.text
        self.outcomes[response.headers["X-Request-ID"]] = (200, "completed")

    def is_refused(self, code: str, response: httpx.Response, outcome: str | None = "refused") -> dict[str, Any]:
        """Check the form of a refusal; ``outcome`` is None for one that is not authenticated and not recorded."""
        assert response.headers["Content-Type"] == "application/problem+json", response.text
        problem: dict[str, Any] = response.json()
        assert problem["code"] == code, problem
        assert code in CODES
        assert problem["status"] == response.status_code
        assert problem["request_id"] == response.headers["X-Request-ID"]
        assert problem["type"].startswith("urn:haat:problem:")
        assert problem["title"] and problem["detail"].endswith((".", "`"))
        assert not INSIDES.search(response.text)
        if outcome is not None:
            self.outcomes[problem["request_id"]] = (response.status_code, outcome)
        return problem

    def check_accounts(self) -> None:
        """The usage store holds exactly one event a call, as it ended, and only what was answered is billed."""
        for request_id, (status, outcome) in self.outcomes.items():
            story = self.market.buyer.story(request_id)
            call = story["call"]
            assert (call["status"], call["outcome"]) == (status, outcome), story
            assert story["billed"] is (outcome == "completed"), story
            if outcome != "completed":
                assert not any(map(float, story["units"].values())) and not float(story["list_charge"] or 0), story
        recorded = self.market.buyer.ask("GET", f"/usage/calls?limit=100&tag=trial={self.tag}")["items"]
        assert sorted(call["id"] for call in recorded) == sorted(self.outcomes)


@pytest.fixture
def caller(market: Market) -> Iterator[Caller]:
    """An application subscribed to transliteration, with a key; its accounts are checked when the test is over."""
    application = market.buyer.ask("POST", "/applications", name=f"Trial {uuid4().hex[:8]}")["id"]
    caller = Caller(market, application)
    caller.subscribe(TRANSLITERATE)
    caller.key, caller.credential = caller.make_key()
    market.settle()
    yield caller
    caller.check_accounts()


# --- the request ------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"{", b"", b"\xff\xfe", b"[" * 5_000, b'{"input": NaN}'])
def test_malformed_json(caller: Caller, body: bytes) -> None:
    caller.is_refused("MALFORMED_JSON", caller.send(TRANSLITERATE, body), "provider_failed")


def test_a_body_that_is_too_large_is_refused_unread(caller: Caller) -> None:
    problem = caller.is_refused("BODY_TOO_LARGE", caller.send(TRANSLITERATE, b" " * (11 << 20)))
    assert 1024 <= problem["limit_bytes"] <= 10 << 20
    caller.is_answered(TRANSLITERATE)


def test_a_body_without_a_length_is_refused_once_it_is_too_large(caller: Caller) -> None:
    with httpx.Client(base_url=caller.market.platform.gateway_url, trust_env=False) as client:
        response = client.post(
            f"/v1/services/{TRANSLITERATE}/invoke",
            content=iter([b" " * 65_536] * 176),
            headers={"X-API-Key": caller.key, "X-Haat-Tags": f"trial={caller.tag}"},
        )
    caller.is_refused("BODY_TOO_LARGE", response)


@pytest.mark.parametrize("path", ["akshara/no-such-service", "nobody/transliterate", "akshara/transliterate@99"])
def test_an_unknown_service_or_version(caller: Caller, path: str) -> None:
    caller.is_refused("SERVICE_NOT_FOUND", caller.send(path))


def test_an_unsupported_language_names_the_supported_ones(caller: Caller) -> None:
    body = {**GOOD, "config": {"source": "hi-Deva", "target": "ja-Jpan"}}
    problem = caller.is_refused("UNSUPPORTED_LANGUAGE", caller.send(TRANSLITERATE, body), "provider_failed")
    assert "hi-Deva>te-Telu" in problem["supported"]


def test_an_input_that_is_too_long_names_the_limit(caller: Caller) -> None:
    body = {**GOOD, "input": [{"text": "न"}, {"text": "क" * 5_001}]}
    problem = caller.is_refused("INPUT_TOO_LONG", caller.send(TRANSLITERATE, body), "provider_failed")
    assert (problem["limit"], problem["unit"], problem["input"]) == (5_000, "characters", 1)


# --- the caller -------------------------------------------------------------------------------


def test_a_key_that_is_wrong(caller: Caller) -> None:
    mistyped = caller.key[:-1] + ("a" if caller.key[-1] != "a" else "b")
    for key in (mistyped, make_key(), "no key at all"):
        response = caller.send(TRANSLITERATE, key=key)
        caller.is_refused("INVALID_CREDENTIAL", response, None)
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
    caller.is_answered(TRANSLITERATE)


def test_a_revoked_key_is_refused_within_a_second(caller: Caller) -> None:
    key, credential = caller.make_key()
    caller.market.settle()
    caller.is_answered(TRANSLITERATE, key=key)
    caller.market.buyer.ask("DELETE", f"/keys/{credential}")
    revoked_at = time.monotonic()
    while (response := caller.send(TRANSLITERATE, key=key)).status_code == 200:
        caller.outcomes[response.headers["X-Request-ID"]] = (200, "completed")
        assert time.monotonic() - revoked_at < 1
    caller.is_refused("REVOKED_CREDENTIAL", response, None)
    caller.is_answered(TRANSLITERATE)


def test_a_key_that_expires(caller: Caller) -> None:
    expiry = datetime.now(UTC) + timedelta(seconds=1.5)
    key, _ = caller.make_key(expires_at=expiry.isoformat())
    caller.market.settle()
    while (response := caller.send(TRANSLITERATE, key=key)).status_code == 200:
        caller.outcomes[response.headers["X-Request-ID"]] = (200, "completed")
        assert datetime.now(UTC) < expiry + timedelta(seconds=0.5)
        time.sleep(0.1)
    assert caller.outcomes, "it was good until then"
    assert datetime.now(UTC) >= expiry
    caller.is_refused("EXPIRED_CREDENTIAL", response, None)


def test_no_subscription(caller: Caller) -> None:
    caller.is_refused("NOT_SUBSCRIBED", caller.send("akshara/sentiment"))


def test_the_eleventh_call_of_a_minute_on_the_free_plan(caller: Caller) -> None:
    path = "akshara/detect-language"
    caller.subscribe(path, "free")
    caller.market.settle()
    body = {"input": [{"text": "ఈ రోజు వాతావరణం చాలా బాగుంది."}]}
    for _ in range(10):
        caller.is_answered(path, body)
    response = caller.send(path, body)
    caller.is_refused("RATE_LIMITED", response)
    assert 1 <= int(response.headers["Retry-After"]) <= 60
    assert response.headers["RateLimit"] == f'"minute";r=0;t={response.headers["Retry-After"]}'
    assert '"minute";q=10;w=60' in response.headers["RateLimit-Policy"]
    caller.is_answered(TRANSLITERATE)


# --- the provider -----------------------------------------------------------------------------


class Trickster(Handler):
    """A real HTTP API that answers well at ``/well`` and badly elsewhere."""

    protocol_version = "HTTP/1.1"
    release = threading.Event()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/well":
            self.answer(200, b'{"ok": true}')
        elif self.path == "/sorry":
            self.answer(500, b'{"error": "out of paper"}')
        elif self.path == "/hang":
            self.release.wait(20)
            self.close_connection = True
        else:
            said = {
                "/mute": b"",
                "/noise": b"\0\1 this is no HTTP \r\n\r\n",
                "/cut": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes.",
                "/cut-stream": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n",
            }
            self.wfile.write(said[self.path])
            self.close_connection = True


@contextlib.contextmanager
def trickster() -> Iterator[str]:
    """Serve for the length of a block; yield the address."""
    Trickster.release.clear()
    with serving(Trickster) as address:
        try:
            yield address
        finally:
            Trickster.release.set()


SAMPLE = {"method": "POST", "path": "/well", "body": {}}


@pytest.fixture(scope="module")
def bad_api(market: Market) -> Iterator[str]:
    with trickster() as address:
        yield market.offer(address, SAMPLE, dialect="http", timeout_ms=600, max_body_bytes=100)


def test_a_quota_that_is_used_up(caller: Caller, bad_api: str) -> None:
    service = caller.market.id_of(bad_api)
    caller.market.provider.ask(
        "POST", f"/services/{service}/plans", code="two", name="Two a month", per_minute=100, quota_per_month=2
    )
    caller.subscribe(bad_api, "two")
    caller.market.settle()
    caller.is_answered(bad_api, {}, tail="/well")
    caller.is_refused("PROVIDER_FAILED", caller.send(bad_api, {}, tail="/mute"), "provider_failed")
    caller.is_answered(bad_api, {}, tail="/well")  # the failed call gave its place back
    response = caller.send(bad_api, {}, tail="/well")
    problem = caller.is_refused("QUOTA_EXHAUSTED", response)
    assert (problem["limit"], problem["quota"], problem["remaining"]) == ("month", 2, 0)
    assert int(response.headers["Retry-After"]) > 0


def test_a_versions_own_limit_of_the_body(caller: Caller, bad_api: str) -> None:
    caller.subscribe(bad_api)
    caller.market.settle()
    problem = caller.is_refused("BODY_TOO_LARGE", caller.send(bad_api, b"x" * 101, tail="/well"))
    assert problem["limit_bytes"] == 100


@pytest.mark.parametrize(
    ("tail", "code"),
    [
        ("/mute", "PROVIDER_FAILED"),
        ("/noise", "PROVIDER_FAILED"),
        ("/hang", "PROVIDER_TIMEOUT"),
    ],
)
def test_a_provider_that_breaks_down(caller: Caller, bad_api: str, tail: str, code: str) -> None:
    caller.subscribe(bad_api)
    caller.market.settle()
    caller.is_refused(code, caller.send(bad_api, {}, tail=tail), "provider_failed")
    caller.is_answered(bad_api, {}, tail="/well")


@pytest.mark.parametrize("tail", ["/cut", "/cut-stream"])
def test_an_answer_that_breaks_off_cannot_be_taken_for_a_whole_one(caller: Caller, bad_api: str, tail: str) -> None:
    caller.subscribe(bad_api)
    caller.market.settle()
    request_id = ""
    try:
        with httpx.stream(
            "POST",
            f"{caller.market.platform.gateway_url}/v1/services/{bad_api}{tail}",
            json={},
            headers={"X-API-Key": caller.key, "X-Haat-Tags": f"trial={caller.tag}"},
            trust_env=False,
        ) as response:
            request_id = response.headers["X-Request-ID"]
            response.read()
    except httpx.RemoteProtocolError:
        caller.outcomes[request_id] = (200, "provider_failed")
    else:  # part and end came at once: nothing had left yet, and it is refused like any other
        caller.is_refused("PROVIDER_FAILED", response, "provider_failed")


def test_a_providers_own_refusal_passes_unchanged(caller: Caller, bad_api: str) -> None:
    caller.subscribe(bad_api)
    caller.market.settle()
    response = caller.send(bad_api, {}, tail="/sorry")
    assert (response.status_code, response.json()) == (500, {"error": "out of paper"})
    caller.outcomes[response.headers["X-Request-ID"]] = (500, "provider_failed")


def test_a_provider_that_is_gone(caller: Caller) -> None:
    with trickster() as address:
        path = caller.market.offer(address, SAMPLE, dialect="http")
    caller.subscribe(path)
    caller.market.settle()
    caller.is_refused("PROVIDER_UNAVAILABLE", caller.send(path, {}, tail="/well"), "provider_failed")


# --- the engine -------------------------------------------------------------------------------


@dataclass
class Workshop:
    """A service execution module of its own, with the one program that it finds, offered by the provider."""

    process: psutil.Process
    program: Path
    speech: str
    summary: str

    @contextlib.contextmanager
    def with_program(self, script: str | None) -> Iterator[None]:
        """Have another program, or none, in the engine's place for the length of a block."""
        aside = self.program.with_suffix(".aside")
        self.program.rename(aside)
        try:
            if script is not None:
                self.program.write_text(f"#!/bin/sh\n{script}\n")
                self.program.chmod(0o755)
            yield
        finally:
            aside.replace(self.program)

    def workers(self) -> list[psutil.Process]:
        found = []
        for child in self.process.children():
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended just now, or nobody has reaped it yet
                if "haat.models.engine_worker" in child.cmdline():
                    found.append(child)
        return found


SPEECH = {"input": [{"text": "नमस्ते"}], "config": {"language": "hi"}}
SUMMARY = {"input": [{"text": "The market opens at six. Farmers bring fruit. By noon all is sold."}],
           "config": {"language": "en", "sentences": 1}}  # fmt: skip


@pytest.fixture(scope="module")
def workshop(market: Market, short_tmp: Path) -> Iterator[Workshop]:
    programs = short_tmp / "programs"
    programs.mkdir()
    program = programs / "espeak-ng"
    program.symlink_to("/usr/bin/espeak-ng")
    (port,) = free_ports(1)
    environment = {**market.platform.environment, "HAAT_MODELS_PORT": str(port), "PATH": str(programs)}
    with (
        (short_tmp / "workshop.log").open("wb") as log,
        subprocess.Popen(
            market.platform.command("models"), env=environment, stdout=log, stderr=log, cwd=short_tmp
        ) as process,
    ):
        try:
            address = f"http://127.0.0.1:{port}"
            speech, summary = (
                market.offer(
                    f"{address}/{path}",
                    {"method": "POST", "path": "/invoke", "body": sample},
                    dialect="task",
                    warm_up_seconds=30,
                    timeout_ms=40_000,
                )
                for path, sample in (("vani/text-to-speech", SPEECH), ("akshara/summarise", SUMMARY))
            )
            yield Workshop(psutil.Process(process.pid), program, speech, summary)
        finally:
            process.terminate()


def test_a_service_whose_engine_was_uninstalled(caller: Caller, workshop: Workshop) -> None:
    caller.subscribe(workshop.speech)
    caller.market.settle()
    caller.is_answered(workshop.speech, SPEECH)
    with workshop.with_program(None):
        caller.is_refused("ENGINE_MISSING", caller.send(workshop.speech, SPEECH), "provider_failed")
    caller.is_answered(workshop.speech, SPEECH)


def test_an_engine_that_crashes(caller: Caller, workshop: Workshop) -> None:
    caller.subscribe(workshop.speech)
    caller.market.settle()
    with workshop.with_program("kill -SEGV $$"):
        caller.is_refused("ENGINE_FAILED", caller.send(workshop.speech, SPEECH), "provider_failed")
    caller.is_answered(workshop.speech, SPEECH)


def test_an_engine_that_is_too_slow(caller: Caller, workshop: Workshop) -> None:
    caller.subscribe(workshop.speech)
    caller.market.settle()
    with workshop.with_program("exec /bin/sleep 600"):
        caller.is_refused("ENGINE_TIMEOUT", caller.send(workshop.speech, SPEECH), "provider_failed")
    assert not [child for child in workshop.process.children(recursive=True) if child.name() == "sleep"]
    caller.is_answered(workshop.speech, SPEECH)


def test_a_worker_process_that_is_killed_in_a_call(caller: Caller, workshop: Workshop) -> None:
    caller.subscribe(workshop.summary)
    caller.market.settle()
    caller.is_answered(workshop.summary, SUMMARY)
    answered = threading.Event()

    def kill_all_there_are() -> None:
        while not answered.wait(0.01):
            for worker in workshop.workers():
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.kill()

    for worker in workshop.workers():
        os.kill(worker.pid, signal.SIGSTOP)  # so that the call can't be faster than its killer
    killer = threading.Thread(target=kill_all_there_are)
    killer.start()
    try:
        response = caller.send(workshop.summary, SUMMARY)
    finally:
        answered.set()
        killer.join()
    caller.is_refused("ENGINE_FAILED", response, "provider_failed")
    caller.is_answered(workshop.summary, SUMMARY)

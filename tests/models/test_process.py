from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from haat.infra.keyring import keyring_of
from haat.models.execution import Execution, Places
from haat.models.process import build_app, run
from haat.plugins.manager import hosted_services
from haat.settings import Settings

TOKEN = "t" * 64
CALL = {"input": [{"text": "नमस्ते दुनिया"}], "config": {"source": "hi", "target": "te"}}
TRANSLITERATE = "/akshara/transliterate/invoke"


def client_of(execution: Execution) -> httpx.AsyncClient:
    """Return a client of the application itself, with its credential."""
    transport = httpx.ASGITransport(build_app(execution, TOKEN), raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {TOKEN}", "X-Request-ID": "call-7"}
    return httpx.AsyncClient(transport=transport, base_url="http://models", headers=headers)


@pytest.fixture
async def client(unruly: None) -> AsyncIterator[httpx.AsyncClient]:
    execution = Execution(hosted_services())
    async with client_of(execution) as client:
        yield client
    await execution.stop()


def problem(response: httpx.Response, code: str, status: int) -> dict[str, object]:
    """Return the problem, checked for what every one must have."""
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, object] = response.json()
    assert (body["code"], response.status_code, body["status"]) == (code, status, status)
    assert body["request_id"] == response.headers["x-request-id"]
    assert "Traceback" not in response.text
    return body


async def test_a_call_is_answered_with_output_and_usage(client: httpx.AsyncClient) -> None:
    response = await client.post(TRANSLITERATE, json=CALL)
    assert response.status_code == 200
    assert response.json() == {"output": [{"text": "నమస్తే దునియా"}], "usage": {"characters": 13}}
    assert response.headers["x-haat-usage"] == "characters=13"
    assert response.headers["x-request-id"] == "call-7"


async def test_fractions_of_a_unit_are_written_plainly(client: httpx.AsyncClient) -> None:
    response = await client.post("/unruly/worker/invoke", json={"input": [{"text": "a"}]})
    assert response.json()["usage"] == {"characters": 1.5}
    assert response.headers["x-haat-usage"] == "characters=1.50"


@pytest.mark.parametrize("given", ["Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer é"])
async def test_only_the_platforms_credential_opens(client: httpx.AsyncClient, given: str) -> None:
    response = await client.post(TRANSLITERATE, json=CALL, headers={"Authorization": given.encode()})
    problem(response, "INVALID_CREDENTIAL", 401)
    assert response.headers["www-authenticate"] == "Bearer"


async def test_without_a_credential_nothing_opens(client: httpx.AsyncClient) -> None:
    del client.headers["Authorization"]
    problem(await client.post(TRANSLITERATE, json=CALL), "UNAUTHENTICATED", 401)


async def test_what_is_not_here_is_not_found(client: httpx.AsyncClient) -> None:
    problem(await client.post("/akshara/fortune/invoke", json=CALL), "SERVICE_NOT_FOUND", 404)
    problem(await client.get("/akshara"), "NOT_FOUND", 404)
    refusal = await client.get(TRANSLITERATE)
    problem(refusal, "METHOD_NOT_ALLOWED", 405)
    assert refusal.headers["allow"] == "POST"


async def test_a_wrong_call_is_refused_field_by_field(client: httpx.AsyncClient) -> None:
    problem(await client.post(TRANSLITERATE, content=b"{"), "MALFORMED_JSON", 400)
    body = problem(await client.post(TRANSLITERATE, json={"input": []}), "VALIDATION_FAILED", 422)
    assert body["errors"] == [
        {"field": "config.source", "message": "must be a language tag such as `hi-Deva`"},
        {"field": "config.target", "message": "must be a language tag such as `hi-Deva`"},
        {"field": "input", "message": "must be a list with at least one item"},
    ]


async def test_a_body_larger_than_any_call_is_not_read_to_its_end(client: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65_536
            yield b" " * 65_536

    body = problem(await client.post("/vani/text-to-speech/invoke", content=endless()), "BODY_TOO_LARGE", 413)
    limit = hosted_services()["vani/text-to-speech"].max_body_bytes
    assert body["limit_bytes"] == limit
    assert sent <= limit + 2 * 65_536


async def test_failures_of_an_engine_are_told_apart(client: httpx.AsyncClient) -> None:
    for path, text, code, status in (
        ("worker", "crash", "ENGINE_FAILED", 502),
        ("worker", "raise", "ENGINE_FAILED", 502),
        ("worker", "hang", "ENGINE_TIMEOUT", 504),
        ("worker", "refuse", "UNSUPPORTED_LANGUAGE", 422),
        ("program", "exit 1", "ENGINE_FAILED", 502),
        ("absent", "a", "ENGINE_MISSING", 503),
    ):
        problem(await client.post(f"/unruly/{path}/invoke", json={"input": [{"text": text}]}), code, status)
    assert (await client.post("/unruly/worker/invoke", json={"input": [{"text": "well"}]})).status_code == 200


async def test_an_overloaded_engine_says_when_to_come_back(unruly: None) -> None:
    execution = Execution(hosted_services())
    execution._commands = Places(1, most_waiting=1)
    call = {"input": [{"text": "sleep 0.2"}]}
    async with client_of(execution) as client:
        answers = await asyncio.gather(*(client.post("/unruly/program/invoke", json=call) for _ in range(5)))
    await execution.stop()
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(refused) == 3
    for answer in refused:
        problem(answer, "OVERLOADED", 503)
        assert answer.headers["retry-after"] == "2"


@pytest.mark.parametrize("given", ["", "x" * 129, "tab\there"])
async def test_a_request_id_that_can_not_be_repeated_is_replaced(client: httpx.AsyncClient, given: str) -> None:
    body = problem(
        await client.post(TRANSLITERATE, content=b"{", headers={"X-Request-ID": given}), "MALFORMED_JSON", 400
    )
    assert body["request_id"] not in ("", given)


async def test_health_names_what_is_missing(client: httpx.AsyncClient) -> None:
    services = (await client.get("/health")).json()["services"]
    assert services["akshara/transliterate"] == "ok"
    assert services["unruly/absent"].startswith("unruly-engine is not installed")
    assert (await client.get("/akshara/sentiment/health")).json() == {"status": "ok"}
    problem(await client.get("/unruly/absent/health"), "ENGINE_MISSING", 503)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_the_process_serves_every_built_in_service_and_stops(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, models_port=free_port(), shutdown_seconds=5)
    stop = asyncio.Event()
    serving = asyncio.create_task(run(settings, stop))
    token = keyring_of(settings).derive("models-token").hex()
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=settings.models_address, headers=headers, timeout=30) as client:
        deadline = time.monotonic() + 20
        while True:
            try:
                assert (await client.get("/health")).status_code == 200
                break
            except httpx.ConnectError:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)
        for path, service in hosted_services().items():
            response = await client.post(f"/{path}/invoke", json=dict(service.sample))
            assert response.status_code == 200, response.text
            assert len(response.json()["output"]) == len(service.sample["input"])
            assert response.headers["x-haat-usage"].startswith(service.unit)
        last = asyncio.create_task(client.post("/vani/ocr/invoke", json=dict(hosted_services()["vani/ocr"].sample)))
        await asyncio.sleep(0.05)
        stop.set()
        assert (await last).status_code == 200  # what is in flight is finished
    await asyncio.wait_for(serving, 10)

"""The bridge by itself: what it is asked, whom it asks, and what it does with requests that the gateway never makes."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.dialects.grpc_rig import Models
from haat.infra import bridge_client
from haat.infra.inference.upstream import DEADLINE, UPSTREAM
from haat.infra.net import parse_networks

LOOPBACK = parse_networks(["127.0.0.0/8"])
HERE = f"http://{bridge_client.HOST}"


@pytest.fixture
async def client(bridge_home: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with bridge_client.client(bridge_home) as made:
        yield made


@pytest.fixture
def headers(models: Models) -> dict[str, str]:
    return bridge_client.headers_for(models.url, LOOPBACK)


async def test_a_servers_own_addresses_are_asked(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    async def get(path: str) -> tuple[int, Any]:
        response = await client.get(HERE + path, headers=headers)
        return response.status_code, response.json()

    assert await get("/v2") == (200, {"name": "models", "version": "9", "extensions": ["x"]})
    assert await get("/v2/health/live") == (200, {"live": True})
    assert await get("/v2/health/ready") == (200, {"ready": True})
    assert await get("/v2/models/nmt/ready") == (200, {"name": "nmt", "ready": True})
    assert await get("/v2/models/none/ready") == (503, {"name": "none", "ready": False})
    assert (await get("/v2/models/none"))[0] == 404
    status, card = await get("/v2/models/narrator/versions/3")
    assert (status, card["decoupled"], card["versions"]) == (200, True, ["1", "3"])
    assert card["inputs"] == [{"name": "TEXT", "datatype": "BYTES", "shape": [-1, 1]}]
    assert (await get("/v2/models/typed"))[1]["decoupled"] is False
    for path in ("/", "/v2/models/", "/v2/models/nmt/load", "/v2/models/nmt/versions/"):
        assert (await get(path))[0] == 404
    response = await client.post(f"{HERE}/v2/repository/index", headers=headers, json={})
    assert {"name": "nmt", "version": "3", "state": "READY", "reason": ""} in response.json()


async def test_whom_to_ask_is_said_exactly_once(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    value = headers[UPSTREAM]
    for wrong in ([], [(UPSTREAM, "nobody")], [(UPSTREAM, value), (UPSTREAM, value)], [(UPSTREAM, value[:-8])]):
        response = await client.get(f"{HERE}/v2", headers=wrong)
        assert (response.status_code, "which server" in response.json()["error"]) == (400, True)


@pytest.mark.parametrize("name", ["grpc-timeout", "X-Key-bin", "X Key"])
async def test_a_credential_that_grpc_can_not_carry_is_told(
    client: httpx.AsyncClient, models: Models, name: str
) -> None:
    headers = bridge_client.headers_for(models.url, LOOPBACK, (name, "secret"))
    response = await client.get(f"{HERE}/v2/health/ready", headers=headers)
    assert (response.status_code, "choose another one" in response.json()["error"]) == (400, True)


@pytest.mark.parametrize("url", ["grpc://127.0.0.1", "http://127.0.0.1:1", "grpc://127.0.0.1:22", "unix:/tmp/x", ""])
async def test_addresses_are_looked_at_here_too(client: httpx.AsyncClient, url: str) -> None:
    response = await client.get(f"{HERE}/v2", headers=bridge_client.headers_for(url, LOOPBACK))
    assert response.status_code == 503 and "may not be called" in response.json()["error"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"inputs":[]}', b"\xff", b'{"inputs":[{"name":"TEXT"}]}'], ids=repr
)
@pytest.mark.parametrize("what", ["infer", "infer_stream"])
async def test_what_is_no_infer_request_is_refused(
    client: httpx.AsyncClient, headers: dict[str, str], body: bytes, what: str
) -> None:
    response = await client.post(f"{HERE}/v2/models/narrator/{what}", headers=headers, content=body)
    assert response.status_code == 400 and response.json()["error"]


async def test_a_deadline_that_is_over_ends_the_call(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    text = {"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": ["wait 20"]}
    body = json.dumps({"inputs": [text]})
    asked = f"{HERE}/v2/models/moody/infer"
    response = await client.post(asked, headers={**headers, DEADLINE: "1"}, content=body)
    assert (response.status_code, response.json()["error"]) == (504, "The model's server did not answer in time.")


async def test_a_request_that_is_too_large_is_refused(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    response = await client.post(f"{HERE}/v2/models/nmt/infer", headers=headers, content=bytes((64 << 20) + 1))
    assert (response.status_code, "at most" in response.json()["error"]) == (413, True)


async def test_what_does_not_speak_grpc_is_not_there(client: httpx.AsyncClient) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        headers = bridge_client.headers_for(f"grpc://127.0.0.1:{mute.getsockname()[1]}", LOOPBACK)
        headers[DEADLINE] = bridge_client.deadline_in(0.3)
        response = await client.get(f"{HERE}/v2/health/ready", headers=headers)
    assert response.status_code in (503, 504)

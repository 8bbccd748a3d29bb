"""Versions that change or adapt: what a provider may declare, how it is tried, and how an end is announced."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from haat.catalog.drafts import VersionDraft, VersionPolicyDraft
from haat.gateway.market.policy import VersionPolicy
from haat.kernel.errors import AcceptanceFailed, Conflict, NotFound, ValidationFailed
from market import Market, draft

OLD, NEW = {"text": "नमस्ते"}, {"input": [{"text": "नमस्ते"}], "config": {}}
TO_NEW = [
    {"do": "move", "path": "text", "to": "input[0].text"},
    {"do": "set", "path": "config", "value": {}},
    {"do": "set_header", "path": "X-Model", "value": "two"},
]
TO_OLD = [{"do": "move", "path": "output[0].text", "to": "text"}, {"do": "remove", "path": "output"}]


@asynccontextmanager
async def task_service() -> AsyncIterator[tuple[str, list[tuple[str, Any]]]]:
    """A service that takes nothing but the new shape, and remembers what it was sent."""
    asked: list[tuple[str, Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            int(line.split(":")[1]) for line in head.split("\r\n") if line.lower().startswith("content-length")
        )
        body = json.loads(await reader.readexactly(length))
        asked.append((head, body))
        good = isinstance(body.get("input"), list)
        answer = json.dumps(
            {"output": [{"text": "ok"} for _ in body["input"]]} if good else {"error": "shape"}
        ).encode()
        status = b"200 OK" if good else b"422 No"
        writer.write(
            b"HTTP/1.1 %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (status, len(answer), answer)
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    finally:
        server.close()


def two(endpoint: str) -> dict[str, Any]:
    return {"version": "2", "endpoint": endpoint, "dialect": "task", "sample": {"body": NEW}}


def one(version: str = "1", **policy: Any) -> VersionDraft:
    policy = {"serves": "2", "request": TO_NEW, "answer": TO_OLD, **policy}
    made: VersionDraft = VersionDraft.parse({"version": version, "sample": {"body": OLD}, "policy": policy})
    return made


async def test_an_adapter_is_tried_in_its_own_shape_and_serves_beside_what_it_adapts(market: Market) -> None:
    async with task_service() as (endpoint, asked):
        provider = await market.provider()
        made = await market.catalog.register(provider, draft(version=two(endpoint)))
        old = await market.catalog.versions.add(provider, made.service_id, one())
        with pytest.raises(Conflict, match="accepted first"):
            await market.catalog.versions.accept(provider, made.service_id, old)
        await market.catalog.versions.accept(provider, made.service_id, made.version_id)
        asked.clear()
        await market.catalog.versions.accept(provider, made.service_id, old)
    [(head, body)] = asked
    assert body == NEW and "X-Model: two" in head
    versions = {version.version: version for version in await market.discovery.versions(provider, made.service_id)}
    assert versions["2"].is_default and not versions["1"].is_default
    assert versions["1"].accepted_at is not None and versions["1"].serves == "2"


async def test_an_adapter_that_does_not_fit_fails_with_the_place(market: Market) -> None:
    async with task_service() as (endpoint, _):
        provider = await market.provider()
        made = await market.catalog.register(provider, draft(version=two(endpoint)))
        await market.catalog.versions.accept(provider, made.service_id, made.version_id)
        wrong = one(request=[{"do": "rename", "path": "text", "to": "words"}]).model_copy(update={"warm_up_seconds": 1})
        old = await market.catalog.versions.add(provider, made.service_id, wrong)
        with pytest.raises(AcceptanceFailed, match="422"):
            await market.catalog.versions.accept(provider, made.service_id, old)
        policy = VersionPolicyDraft.parse({"serves": "2", "request": TO_NEW, "answer": TO_OLD})
        await market.catalog.versions.set_policy(provider, made.service_id, old, policy)
        await market.catalog.versions.accept(provider, made.service_id, old)
        fitting = VersionPolicyDraft.parse(
            {"serves": "2", "request": TO_NEW, "answer": [{"do": "set", "path": "output.text", "value": 1}]}
        )
        with pytest.raises(AcceptanceFailed, match="`output` is not an object"):
            await market.catalog.versions.set_policy(provider, made.service_id, old, fitting)


async def test_what_an_adapter_serves_exists_is_executed_itself_and_stays(market: Market) -> None:
    async with task_service() as (endpoint, _):
        provider = await market.provider()
        made = await market.catalog.register(provider, draft(version=two(endpoint)))
        with pytest.raises(ValidationFailed):
            await market.catalog.versions.add(provider, made.service_id, one(serves="9"))
        old = await market.catalog.versions.add(provider, made.service_id, one())
        with pytest.raises(ValidationFailed):
            await market.catalog.versions.add(provider, made.service_id, one("0", serves="1"))
        with pytest.raises(Conflict):
            await market.catalog.versions.set_policy(provider, made.service_id, old, VersionPolicyDraft())
        with pytest.raises(Conflict):
            await market.catalog.versions.move_endpoint(provider, made.service_id, old, endpoint)
    with pytest.raises(ValidationFailed):
        await market.catalog.register(provider, draft(slug="first", version=one().model_dump()))


@pytest.mark.parametrize(
    "version",
    [
        {"version": "1", "sample": {"body": OLD}},
        {"version": "1", "endpoint": "https://a.example", "sample": {"body": OLD}, "policy": {"serves": "2"}},
        {"version": "1", "sample": {"body": OLD}, "policy": {"serves": "1"}},
        {"version": "1", "sample": {"body": OLD}, "policy": {"serves": "2", "endpoints": ["https://a.example"]}},
        {
            "version": "1",
            "sample": {"body": OLD},
            "policy": {"serves": "2", "request": [{"do": "set", "path": "a..b"}]},
        },
        {"version": "1", "sample": {"body": OLD}, "policy": {"serves": "2", "request": [{"do": "run", "path": "a"}]}},
        {
            "version": "1",
            "sample": {"body": OLD},
            "policy": {"serves": "2", "answer": [{"do": "set_header", "path": "Set-Cookie", "value": "a=b"}]},
        },
        {
            "version": "1",
            "sample": {"body": OLD},
            "policy": {"serves": "2", "request": [{"do": "set", "path": "a", "value": "x" * 5000}]},
        },
        {"version": "1", "sample": {"body": OLD}, "policy": {"serves": "2", "request": [TO_NEW[0]] * 33}},
    ],
)
def test_what_can_not_be_adapted_is_refused(version: dict[str, Any]) -> None:
    with pytest.raises(ValidationFailed):
        VersionDraft.parse(version)


async def test_the_end_of_a_version_is_announced_and_taken_back(market: Market) -> None:
    async with task_service() as (endpoint, _):
        provider = await market.provider()
        made = await market.catalog.register(provider, draft(version=two(endpoint)))
        old = await market.catalog.versions.add(provider, made.service_id, one())
        ends = market.clock.now() + timedelta(days=90)
        announced = await market.catalog.versions.deprecate(
            provider, made.service_id, old, sunset_at=ends, successor="2"
        )
        assert (announced.sunset_at, announced.successor, announced.deprecated_at) == (ends, "2", market.clock.now())
        await market.catalog.versions.accept(provider, made.service_id, made.version_id)
        policy = VersionPolicyDraft.parse({"serves": "2", "request": TO_NEW, "answer": TO_OLD})
        await market.catalog.versions.set_policy(provider, made.service_id, old, policy)
    versions = {version.id: version for version in await market.discovery.versions(provider, made.service_id)}
    assert versions[old].sunset_at == ends and versions[old].serves == "2"
    back = await market.catalog.versions.restore(provider, made.service_id, old)
    assert (back.sunset_at, back.successor, back.deprecated_at, back.serves) == (None, "", None, "2")


async def test_an_end_lies_ahead_and_a_successor_exists(market: Market) -> None:
    async with task_service() as (endpoint, _):
        provider = await market.provider()
        made = await market.catalog.register(provider, draft(version=two(endpoint)))
    catalog, service, version = market.catalog, made.service_id, made.version_id
    with pytest.raises(ValidationFailed):
        past = market.clock.now() - timedelta(days=1)
        await catalog.versions.deprecate(provider, service, version, sunset_at=past, successor="")
    for successor in ("2", "7"):
        with pytest.raises(ValidationFailed):
            await catalog.versions.deprecate(provider, service, version, sunset_at=None, successor=successor)
    with pytest.raises(NotFound):
        await catalog.versions.deprecate(await market.provider("other"), service, version, sunset_at=None, successor="")


def test_what_is_kept_is_what_the_gateway_reads() -> None:
    import msgspec

    kept = one().policy.model_dump(mode="json", exclude_defaults=True)
    read = msgspec.convert(kept, VersionPolicy)
    assert (read.serves, len(read.request), read.answer[0].to) == ("2", 3, "text")
    assert read.request[1].value == {}

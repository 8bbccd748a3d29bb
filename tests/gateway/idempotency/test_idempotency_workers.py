"""``Idempotency-Key`` across workers that share a machine, and across a worker's death."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from gateway.idempotency.test_idempotency import Gate
from gateway.rig import PROVIDER_ORG, Client, Provider, Request, Response, answer
from gateway.test_process import SERVICE, keep_snapshot
from gateway.workers.test_workers import Family, family, until
from haat.gateway.limits.registry import PlanLimits
from haat.gateway.market.policy import ServicePolicy
from haat.gateway.market.snapshot import Service, Version
from haat.infra.keyring import Keyring
from haat.usage import event as usage
from haat.usage.journal import START, JournalReader, Kind, workers


async def keyed(port: int, api_key: str, key: str) -> Response | None:
    """Call once over a connection of its own; None when it was broken off."""
    client = await Client.connect(port)
    await client.send(
        b"POST /v1/services/acme/echo/x HTTP/1.1\r\nHost: g\r\nConnection: close\r\nContent-Length: 2\r\n"
        b"X-API-Key: %b\r\nIdempotency-Key: %b\r\n\r\nhi" % (api_key.encode(), key.encode())
    )
    response = await client.receive()
    client.close()
    return response


def code(response: Response | None) -> str:
    assert response is not None
    return "" if response.status == 200 else response.json()["code"]


def billed(running: Family) -> int:
    """Count the confirmed records of all workers that cost something."""
    events, confirmed = {}, set()
    for worker in workers(running.journal):
        reader, position = JournalReader(running.journal, worker), START
        while frames := reader.read(position):
            for frame in frames:
                if frame.kind == Kind.USAGE:
                    event = usage.decode(frame.payload)
                    events[event.id.replace("-", "")] = event
                elif frame.kind == Kind.CONFIRM:
                    confirmed |= {frame.payload[at : at + 16].hex() for at in range(0, len(frame.payload), 16)}
            position = frames[-1].end
    return sum(event.units.get("requests") == "1" for name, event in events.items() if name in confirmed)


async def test_of_a_hundred_at_once_over_two_workers_one_is_executed(tmp_path: Path, provider: Provider) -> None:
    provider.behaviour = gate = Gate()
    key = keep_snapshot(tmp_path, Keyring.load(tmp_path), provider.port, PlanLimits())
    async with family(tmp_path) as running:
        port = running.present(0).port
        calls = [asyncio.create_task(keyed(port, key, "k")) for _ in range(100)]
        await until(lambda: sum(call.done() for call in calls) == 99)
        gate.open.set()
        codes = [code(response) for response in await asyncio.gather(*calls)]
        assert codes.count("") == 1 and set(codes) <= {"", "IDEMPOTENCY_IN_PROGRESS", "IDEMPOTENCY_UNAVAILABLE"}
        assert codes.count("IDEMPOTENCY_IN_PROGRESS") > 90
        replays = [await keyed(port, key, "k") for _ in range(20)]  # whichever worker takes the connection
        assert all(replay is not None and replay.header("idempotency-replayed") == "true" for replay in replays)
        assert len(provider.requests) == 1
        await until(lambda: billed(running) == 1)
    assert len(workers(tmp_path / "journal")) == 2


async def test_a_call_whose_worker_was_killed_is_in_doubt_and_not_executed_again(
    tmp_path: Path, provider: Provider
) -> None:
    provider.behaviour = gate = Gate()
    key = keep_snapshot(tmp_path, Keyring.load(tmp_path), provider.port, PlanLimits())
    async with family(tmp_path) as running:
        port, victims = running.present(0).port, [running.present(slot).pid for slot in range(2)]
        gate.open.set()
        assert code(await keyed(port, key, "before")) == ""
        await until(lambda: billed(running) == 1)
        gate.open.clear()
        provider.arrived.clear()
        cut = asyncio.create_task(keyed(port, key, "k"))
        await provider.arrived.wait()
        for victim in victims:  # whichever has the call
            os.kill(victim, signal.SIGKILL)
        assert await asyncio.gather(cut, return_exceptions=True) != []
        await until(lambda: all(running.is_back(slot, but=victim) for slot, victim in enumerate(victims)))
        gate.open.set()
        after = await keyed(port, key, "k")
        assert code(after) == "IDEMPOTENCY_UNKNOWN" and after is not None and after.status == 409
        known = await keyed(port, key, "before")
        assert known is not None and known.header("idempotency-replayed") == "true"
        assert code(await keyed(port, key, "another")) == ""
        assert len(provider.requests) == 3
        await until(lambda: billed(running) == 2)


@pytest.mark.parametrize("repeatable", [False, True])
async def test_a_pipeline_whose_worker_was_killed_goes_on_behind_what_was_done(
    tmp_path: Path, provider: Provider, repeatable: bool
) -> None:
    opened = asyncio.Event()

    async def behave(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        [item] = json.loads(request.body)["input"]
        if item["text"].endswith("!"):  # the second stage
            await opened.wait()
        writer.write(answer(200, json.dumps({"output": [{"text": item["text"] + "!"}]}).encode()))
        await writer.drain()
        return True

    async def run() -> Response | None:
        client = await Client.connect(running.present(0).port)
        stages = [{"service": "acme/echo"}] * 2
        body = json.dumps({"stages": stages, "input": [{"text": "a"}]}).encode()
        head = f"POST /v1/pipelines HTTP/1.1\r\nHost: g\r\nX-API-Key: {key}\r\nIdempotency-Key: k\r\n"
        await client.send(f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        try:
            return await client.receive("POST")
        finally:
            client.close()

    provider.behaviour = behave
    service = Service(
        SERVICE, "acme", PROVIDER_ORG, "echo", "published", "", "requests", "IN", ("127.0.0.0/8",), "", b"",
        (Version("1", f"http://127.0.0.1:{provider.port}", 5000, 1 << 20, "", "task"),), "1",
        ServicePolicy(repeatable=repeatable),
    )  # fmt: skip
    key = keep_snapshot(tmp_path, Keyring.load(tmp_path), provider.port, PlanLimits(), service)
    async with family(tmp_path) as running:
        victims = [running.present(slot).pid for slot in range(2)]
        cut = asyncio.create_task(run())
        await until(lambda: len(provider.requests) == 2)
        await until(lambda: billed(running) == 1)
        for victim in victims:  # whichever has the call
            os.kill(victim, signal.SIGKILL)
        await asyncio.gather(cut, return_exceptions=True)
        await until(lambda: all(running.is_back(slot, but=victim) for slot, victim in enumerate(victims)))
        opened.set()
        again = await run()
        assert again is not None
        if repeatable:
            assert (again.status, again.json()["output"]) == (200, [{"text": "a!!"}])
        else:
            assert code(again) == "IDEMPOTENCY_UNKNOWN" and again.json()["stage"]["number"] == 2
        texts = [json.loads(request.body)["input"][0]["text"] for request in provider.requests]
        assert texts == (["a", "a!", "a!"] if repeatable else ["a", "a!"])
        await until(lambda: billed(running) == (2 if repeatable else 1))

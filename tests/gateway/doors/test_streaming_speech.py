"""Streaming speech with python-socketio's own client: through the gateway, to the process, and back to its door."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import socketio

from gateway.rig import PATIENCE, Market

TASKS = [{"taskType": "asr", "config": {"language": {"sourceLanguage": "en"}, "samplingRate": 16000}}]
SECOND = b"\x00\x00" * 16_000
TRANSPORTS = {"polling": ["polling"], "websocket": ["websocket"], "both": ["polling", "websocket"]}


class Caller:
    """One who speaks, and what it has been told."""

    def __init__(self) -> None:
        self.client = socketio.AsyncClient(reconnection=False)
        self.told: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
        for event in ("ready", "response", "abort", "terminate", "disconnect"):
            self.client.on(event, self._teller(event))

    def _teller(self, event: str) -> Any:
        async def tell(*arguments: Any) -> None:
            arguments = (event, *arguments) if event != "disconnect" else (event,)
            await self.told.put(arguments)

        return tell

    async def connect(self, market: Market, key: str, transports: list[str]) -> None:
        await self.client.connect(
            f"http://127.0.0.1:{market.port}", auth={"authorization": key}, transports=transports, wait_timeout=PATIENCE
        )

    async def hear(self) -> tuple[Any, ...]:
        return await asyncio.wait_for(self.told.get(), PATIENCE)


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    made = Caller()
    yield made
    await made.client.disconnect()


@pytest.mark.speaks("bhashini streaming speech", client="python-socketio (PyPI)")
@pytest.mark.parametrize("transports", TRANSPORTS.values(), ids=TRANSPORTS)
async def test_who_speaks_is_known_by_a_key_and_agrees_on_tasks(
    speech: Market, caller: Caller, transports: list[str]
) -> None:
    await caller.connect(speech, speech.key, transports)
    await caller.client.emit("data", ({"audio": []}, {}, False, False))
    assert await caller.hear() == ("abort", "Send `start` first, and wait for `ready`.")
    await caller.client.emit("start", ([{"taskType": "tts"}], {}))
    assert await caller.hear() == ("abort", "The first task of speech is `asr`.")
    await caller.client.emit("start", (TASKS, {"responseFrequencyInSecs": 2.0, "responseTaskSequenceDepth": 1}))
    assert await caller.hear() == ("ready",)
    await caller.client.emit("data", (None, None, True, True))
    assert [await caller.hear() for _ in range(2)] == [("terminate",), ("disconnect",)]
    assert speech.events() == []


@pytest.mark.parametrize("key", ["", "nobody's", "haat_live_aaaaaaaaaaaaaaaaaaaaaaaaaaaa"])
async def test_a_stranger_does_not_get_in(speech: Market, caller: Caller, key: str) -> None:
    with pytest.raises(socketio.exceptions.ConnectionError):
        await caller.connect(speech, key, ["websocket"])
    assert speech.events() == [] and speech.provider.requests == []


async def test_a_hundred_who_come_and_go_leave_nothing_behind(speech: Market) -> None:
    async def visit(number: int) -> None:
        caller = Caller()
        await caller.connect(speech, speech.key, TRANSPORTS["websocket" if number % 2 else "both"])
        await caller.client.emit("start", (TASKS, {}))
        assert await caller.hear() == ("ready",)
        await caller.client.disconnect()

    for start in range(0, 100, 20):
        await asyncio.gather(*(visit(number) for number in range(start, start + 20)))
    await speech.until(lambda: not speech.gateway.passages)
    assert speech.events() == []


async def test_without_the_process_everything_else_goes_on(market: Market) -> None:
    response = await market.call("GET", "/socket.io/?EIO=4&transport=polling")
    assert (response.status, response.json()["code"]) == (503, "PROVIDER_UNAVAILABLE")
    assert (await market.call(body=b"{}")).status == 200


async def test_what_follows_on_a_connection_does_not_reach_the_process(speech: Market) -> None:
    client = await speech.connect()
    await client.send(speech.raw("GET", "/socket.io/?EIO=4&transport=polling"))
    response = await client.receive()
    assert response is not None and response.status == 200 and response.body.startswith(b"0{")
    assert await client.ended()

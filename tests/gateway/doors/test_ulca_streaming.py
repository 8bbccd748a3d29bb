"""Speech that is answered while it is spoken reaches the services by ULCA's compute call, as the config call says."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import socketio

from gateway.bills import billed
from gateway.doors.ulca_market import done, stock, task
from gateway.rig import PATIENCE, Market

SECOND = b"\x05\x00" * 16_000
CONFIGS = "/ulca/apis/v0/model/getModelsPipeline"


@pytest.mark.speaks("bhashini streaming speech", client="python-socketio (PyPI)")
async def test_what_is_said_is_answered_on_the_way_and_translated_at_the_end(speech: Market) -> None:
    stock(speech)
    tasks = [task("asr", "hi", samplingRate=16_000), task("translation", "hi", "ur")]
    found = (await speech.call("POST", CONFIGS, json.dumps({"pipelineTasks": tasks}).encode())).json()
    door = found["pipelineInferenceSocketEndPoint"]
    assert door["callbackUrl"] == "ws" + speech.gateway.settings.gateway_address.removeprefix("http")

    told: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
    client = socketio.AsyncClient(reconnection=False)
    for event in ("ready", "response", "abort", "terminate"):
        client.on(event, lambda *said, event=event: told.put_nowait((event, *said)))

    async def hear() -> tuple[Any, ...]:
        return await asyncio.wait_for(told.get(), PATIENCE)

    key = door["inferenceApiKey"]["value"]
    await client.connect(f"ws://127.0.0.1:{speech.port}", auth={"authorization": key}, transports=["websocket"])
    await client.emit("start", (tasks, {"responseFrequencyInSecs": 1.0, "responseTaskSequenceDepth": 1}))
    assert await hear() == ("ready",)
    await client.emit("data", ({"audio": [{"audioContent": SECOND}]}, {}, False, False))
    heard = {"source": "heard hi-Deva", "nBestTokens": None}
    first = {"taskType": "asr", "config": None, "output": [heard], "audio": None}
    assert await hear() == ("response", [first], {"isIntermediateResult": True})
    await client.emit("data", (None, None, True, True))
    event, answered, kind = await hear()
    assert (event, kind, answered[0]) == ("response", {"isIntermediateResult": False}, first)
    assert answered[1]["output"] == [{"source": "heard hi-Deva", "target": "heard hi-Deva [hi-Deva>ur-Arab]"}]
    assert await hear() == ("terminate",)
    await client.disconnect()
    assert await billed(speech) == [done("hear"), done("hear"), done("translate")]

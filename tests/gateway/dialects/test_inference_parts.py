"""Models that answer in parts: every part is an event, metered while it flows, and broken off honestly."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from gateway.dialects import grpc_rig
from gateway.dialects.grpc_rig import NARRATOR, NMT, Models, add
from gateway.doors.inference_calls import listed
from gateway.rig import Client, Market, Response
from haat.infra.inference.mapping import TensorMap
from haat.usage.event import Outcome
from haat.usage.journal import Kind

NATIVE, DOOR = "/v1/services/acme/model/invoke", "/v2/models/acme%2Fmodel/infer"


def task(text: str) -> bytes:
    return json.dumps({"input": [{"text": text}]}).encode()


def tensors(text: str, **more: Any) -> bytes:
    return json.dumps({"id": "7", "inputs": [listed("INPUT_TEXT", text, shape=[1, 1])], **more}).encode()


async def tell(market: Market, body: bytes, path: str = NATIVE, **options: Any) -> Response:
    return await market.call("POST", path, body, "Content-Type: application/json", **options)


def events(response: Response) -> list[Any]:
    """Return what the events of an answer say; that of an `error` event behind the word."""
    found: list[Any] = []
    for event in response.body.decode().split("\n\n"):
        lines = event.split("\n")
        if "event: error" in lines:
            found.append("error")
        found += [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    return found


@pytest.fixture
def story(market: Market, models: Models) -> Market:
    add(market, models.url, NARRATOR, category="nlp")
    return market


async def test_each_part_is_an_event_in_the_task_schema(story: Market, models: Models) -> None:
    response = await tell(story, task("once upon a time"))
    assert (response.status, response.header("content-type")) == (200, "text/event-stream"), response.body
    assert events(response) == [{"output": [{"text": word}]} for word in ("once", "upon", "a", "time")]
    assert response.header("x-haat-units") == "characters=16"
    [asked] = [one for one in models.noted() if "model" in one]
    assert asked["parameters"] == {"triton_enable_empty_final_response": True}
    assert "triton_grpc_error" not in asked["metadata"]  # of which Triton dies, where a model goes on after an error
    event = await story.settled_event()
    assert (event.outcome, event.units["characters"], event.units_source) == (Outcome.COMPLETED, "16", "counted")
    assert event.bytes_out == len(response.body)


async def test_at_the_protocols_door_each_part_is_an_infer_response(story: Market) -> None:
    response = await tell(
        story, tensors("a b", outputs=[{"name": "OUTPUT", "parameters": {"binary_data": True}}]), DOOR
    )
    assert (response.status, response.header("content-type")) == (200, "text/event-stream"), response.body
    card = {"model_name": "acme/model", "model_version": "1", "id": "7"}
    expected = [json.dumps({"text": word}, separators=(",", ":")) for word in ("a", "b")]
    assert events(response) == [card | {"outputs": [listed("OUTPUT", said, shape=[1, 1])]} for said in expected]
    assert (await story.settled_event()).units["characters"] == "3"


async def test_parts_come_as_soon_as_they_are_there(story: Market, models: Models) -> None:
    client = await story.connect()
    await client.send(story.raw("POST", NATIVE, task("first wait:30 last"), "Content-Type: application/json"))
    assert await until(client, b'{"text":"first"}')
    client.close()
    await story.until(lambda: models.noted()[-1] == {"ended": "stream"})
    event = await story.settled_event()
    assert (event.outcome, event.units["characters"]) == (Outcome.CLIENT_LEFT, "18")
    assert [frame.kind for frame in story.frames()][:2] == [Kind.OPEN, Kind.USAGE]


async def until(client: Client, wanted: bytes) -> bool:
    got = b""
    async with asyncio.timeout(10):
        while wanted not in got:
            data = await client.reader.read(65536)
            if not data:
                return False
            got += data
    return True


@pytest.mark.parametrize("path", [NATIVE, DOOR], ids=["native", "door"])
@pytest.mark.parametrize(
    ("ending", "counts"),
    [("fail:INTERNAL", False), ("fail:UNAVAILABLE", True), ("error:sorry", False), ("shape", False)],
)
async def test_a_model_that_fails_on_the_way_ends_the_stream_with_an_event(
    story: Market, path: str, ending: str, counts: bool
) -> None:
    text = f"one two {ending} three"
    response = await tell(story, task(text) if path == NATIVE else tensors(text), path)
    assert response.status == 200, response.body
    *before, last = [event for event in events(response) if event != "error"]
    assert len(before) == 2 and "one" in str(before[0]) and "two" in str(before[1])
    assert last["code"] == "PROVIDER_FAILED" and last["request_id"] == response.header("x-request-id")
    assert ("error" in last) is (path == DOOR)
    event = await story.settled_event()
    assert (event.outcome, event.units, event.error_code) == (Outcome.PROVIDER_FAILED, {}, "PROVIDER_FAILED")
    assert story.gateway.routes.find(b"acme/model").endpoint.failures == counts


@pytest.mark.parametrize(
    ("text", "status"),
    [("fail:INVALID_ARGUMENT", 400), ("fail:UNAVAILABLE", 503), ("error:sorry", 500)],
)
async def test_one_that_fails_before_its_first_part_answers_with_a_status(
    story: Market, text: str, status: int
) -> None:
    response = await tell(story, task(text))
    assert (response.status, response.header("content-type")) == (status, "application/problem+json"), response.body
    event = await story.settled_event()
    assert (event.outcome, event.units) == (Outcome.PROVIDER_FAILED, {})


async def test_a_first_part_that_can_not_be_used_is_not_billed(story: Market) -> None:
    response = await tell(story, task("shape"))
    assert response.status in (200, 502), response.body  # by whether the stream's head has left before the part came
    problem = response.json() if response.status == 502 else events(response)[-1]
    assert (problem["code"], "PART" in problem["detail"]) == ("PROVIDER_FAILED", True)
    event = await story.settled_event()
    assert (event.outcome, event.units) == (Outcome.PROVIDER_FAILED, {})


async def test_a_model_that_is_not_there_answers_with_a_status(market: Market, models: Models) -> None:
    add(market, models.url, structs.replace(NARRATOR, model="nobody"))
    response = await tell(market, task("a"))
    assert (response.status, response.json()["code"]) == (500, "PROVIDER_FAILED")
    assert "unknown model" in response.json()["detail"]
    assert (await market.settled_event()).outcome == Outcome.PROVIDER_FAILED


async def test_a_server_that_is_gone_on_the_way_is_told_and_not_billed(
    market: Market, models: Models, tmp_path: Path
) -> None:
    with grpc_rig.model_server(tmp_path / "other") as other:
        add(market, other.url, NARRATOR)
        response = await tell(market, task("one die"))
    assert response.status in (200, 503)
    if response.status == 200:
        assert events(response)[-1]["code"] == "PROVIDER_FAILED"
    event = await market.settled_event()
    assert (event.outcome, event.units) == (Outcome.PROVIDER_FAILED, {})


async def test_no_part_at_all_is_a_stream_without_events(story: Market) -> None:
    response = await tell(story, task("wait:0"))
    assert (response.status, response.body) == (200, b"")
    assert (await story.settled_event()).outcome == Outcome.COMPLETED


async def test_bytes_that_are_no_text_are_base64(market: Market, models: Models) -> None:
    mapping = TensorMap(model="narrator", inputs={"text": "TEXT"}, outputs={"audio": "PART"}, decoupled=True)
    add(market, models.url, mapping, category="text_to_speech")
    response = await tell(market, task("raw:52494646ff"))
    assert events(response) == [{"output": [{"audio": {"content": "UklGRv8=", "format": "wav"}}]}]
    door = await tell(market, tensors("raw:52494646ff"), DOOR)
    [event] = events(door)
    assert event["outputs"][0]["data"] == ["UklGRv8="]
    assert event["outputs"][0]["parameters"] == {"content_type": "base64"}


async def test_a_reader_who_is_slow_slows_the_model_down(story: Market, models: Models) -> None:
    client = await story.connect(limit=1024)
    await client.send(story.raw("POST", NATIVE, task("flood:20000"), "Content-Type: application/json"))
    await story.until(lambda: len(models.noted()) > 20)
    sent = [-1]

    def stands() -> bool:
        sent.append(len(models.noted()))
        return len(sent) > 20 and len(set(sent[-20:])) == 1

    await story.until(stands)
    assert sent[-1] < 2_000
    client.close()
    await story.until(lambda: models.noted()[-1] == {"ended": "stream"})
    assert (await story.settled_event()).outcome == Outcome.CLIENT_LEFT


async def test_long_streams_are_checkpointed_with_what_was_counted(story: Market) -> None:
    response = await tell(story, task("flood:10"))
    assert len(events(response)) == 10
    await story.settled_event()
    kinds = [frame.kind for frame in story.frames()]
    assert Kind.CHECKPOINT in kinds and kinds.index(Kind.CHECKPOINT) < kinds.index(Kind.USAGE)


async def test_who_can_not_take_parts_is_told_so_before_anything_is_asked(story: Market, models: Models) -> None:
    stages = {"stages": [{"service": "acme/model"}], "input": [{"text": "a"}]}
    response = await tell(story, json.dumps(stages).encode(), "/v1/pipelines")
    assert response.status == 400 and "several parts" in response.json()["detail"], response.body
    assert models.noted() == []
    event = await story.settled_event()
    assert (event.outcome, event.units) == (Outcome.REFUSED, {})


async def test_a_test_key_is_answered_in_one_part_and_asks_nobody(story: Market, models: Models) -> None:
    response = await tell(story, task("a"), key=story.add_key(mode="test"))
    assert (response.status, models.noted()) == (200, [])
    assert len(response.json()["output"]) == 1


async def test_an_endpoint_that_answers_whole_is_no_stream(market: Market, models: Models) -> None:
    add(market, f"http://127.0.0.1:{market.provider.port}", structs.replace(NMT, decoupled=True))
    body = {"input": [{"text": "a"}], "config": {"source": "hi", "target": "ur"}}
    response = await tell(market, json.dumps(body).encode())
    assert (response.status, response.json()["code"]) == (502, "PROVIDER_FAILED")
    assert (await market.settled_event()).outcome == Outcome.PROVIDER_FAILED

"""Pipelines that stream: stages at work at the same time, results at once, nobody run over, nothing sold unasked."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.doors.flows import Chain, Listener, events_in, place
from gateway.rig import Client, Market, answer
from haat.gateway.limits.registry import PlanLimits
from haat.usage.event import Outcome


@pytest.fixture
def chain(market: Market) -> Chain:
    return Chain(market, "a", "b", "c")


async def listen(chain: Chain, letters: str, *texts: str, **more: Any) -> tuple[Client, Listener]:
    client = await chain.market.connect()
    await client.send(chain.raw(letters, *texts, stream=True, **more))
    return client, Listener(client)


async def whole(chain: Chain, letters: str, *texts: str, **more: Any) -> Any:
    client = await chain.market.connect()
    await client.send(chain.raw(letters, *texts, **{"stream": True, **more}))
    response = await client.receive("POST")
    assert response is not None
    return response


@pytest.mark.speaks("haat pipelines")
async def test_each_result_is_an_event_and_the_last_one_tells_what_it_came_to(chain: Chain) -> None:
    for letter, rupees in (("a", "0.5"), ("b", "0.25")):
        chain.price(letter, rupees)
    response = await whole(chain, "ab", "x", "yy")
    assert (response.status, response.header("content-type")) == (200, "text/event-stream")
    *outputs, done, end = events_in(response.body)
    assert sorted((place(one), one.data["output"]["text"]) for one in outputs) == [
        ((1, 0), "xa"), ((1, 1), "yya"), ((2, 0), "xab"), ((2, 1), "yyab")
    ]  # fmt: skip
    assert [one.name for one in (*outputs, done, end)] == ["output"] * 4 + ["done", "message"]
    assert end.data == "[DONE]"
    assert done.data["units"] == {"characters": "8"} and done.data["charge"] == "2.75 INR"
    assert done.data["served_by"] == ["acme/a@1", "acme/b@1"]
    first, second = done.data["stages"]
    assert (first["service"], first["units"], first["charge"]) == (
        "acme/a", {"requests": "2", "characters": "3"}, "1.5 INR"
    )  # fmt: skip
    assert (second["units"]["characters"], second["charge"]) == ("5", "1.25 INR")
    await chain.market.until(lambda: len(chain.market.confirmed()) == 4)
    assert {*first["request_ids"], *second["request_ids"]} == {event.id for event in chain.market.events()}
    assert {one.data["request_id"] for one in outputs} == chain.market.confirmed()
    assert len({event.trace for event in chain.market.events()}) == 1


async def test_the_header_alone_asks_for_a_stream_and_the_body_has_the_last_word(chain: Chain) -> None:
    accept = ("Accept: text/event-stream",)
    client = await chain.market.connect()
    await client.send(chain.raw("a", "x", headers=accept))
    response = await client.receive("POST")
    assert response is not None and response.header("content-type") == "text/event-stream"
    await client.send(chain.raw("a", "x", headers=accept, stream=False))
    response = await client.receive("POST")
    assert response is not None and response.json()["output"] == [{"text": "xa"}]


async def test_a_result_leaves_before_the_next_stage_has_answered(chain: Chain) -> None:
    gate = chain.gate("b", "xa")
    _, listener = await listen(chain, "ab", "x")
    assert place(await listener.next()) == (1, 0)
    gate.set()
    assert place(await listener.next()) == (2, 0)


async def test_stages_work_at_the_same_time_and_none_runs_ahead(chain: Chain) -> None:
    gate = chain.gate("b", "1a")
    _, listener = await listen(chain, "ab", "1", "2", "3", "4")
    assert [place(await listener.next()) for _ in range(2)] == [(1, 0), (1, 1)]
    await chain.market.until(lambda: ("b", "1a") in chain.asked)
    await asyncio.sleep(0.05)
    assert chain.asked == [("a", "1"), ("b", "1a"), ("a", "2")] or chain.asked == [("a", "1"), ("a", "2"), ("b", "1a")]
    gate.set()
    rest = [await listener.next() for _ in range(8)]
    assert [place(one)[1] for one in rest[:-2] if one.data["stage"] == 2] == [0, 1, 2, 3]


async def test_two_stages_of_one_service_ask_it_one_after_the_other(chain: Chain) -> None:
    chain.market.subscribe("acme/a", PlanLimits(max_concurrent=1))
    response = await whole(chain, "aa", "1", "2", "3")
    assert events_in(response.body)[-1].data == "[DONE]"


async def test_a_caller_who_does_not_read_holds_the_pipeline_back(chain: Chain) -> None:
    chain.pad = "p" * 500_000
    _, listener = await listen(chain, "a", *map(str, range(60)))
    before = -1
    while len(chain.asked) != before:
        before = len(chain.asked)
        await asyncio.sleep(0.2)
    assert 1 <= before < 40
    events = [await listener.next() for _ in range(62)]
    assert [place(one)[1] for one in events[:-2]] == list(range(60)) and events[-1].data == "[DONE]"


async def test_nobody_who_does_not_read_outlasts_the_deadline(chain: Chain) -> None:
    chain.pad = "p" * 500_000
    await listen(chain, "a", *map(str, range(60)), timeout_ms=300)
    await chain.market.until(lambda: bool(chain.asked))
    await chain.market.until(lambda: not chain.market.gateway.clients)
    assert not chain.market.gateway.calls


async def test_a_failure_in_the_middle_names_stage_and_item_and_what_was_done(chain: Chain) -> None:
    gate = chain.gate("b", "2a")
    chain.instead["b", "2a"] = answer(422, b'{"code":"UNSUPPORTED_LANGUAGE","title":"t","detail":"No Urdu."}')
    _, listener = await listen(chain, "ab", "1", "2", "3")
    seen = [place(await listener.next()) for _ in range(4)]
    assert sorted(seen) == [(1, 0), (1, 1), (1, 2), (2, 0)]
    gate.set()
    error = await listener.next()
    assert error.name == "error"
    said = error.data
    assert (said["code"], said["status"]) == ("UNSUPPORTED_LANGUAGE", 422)
    assert (said["stage"]["number"], said["stage"]["name"], said["item"]) == (2, "b", 1)
    assert said["detail"] == "Stage 2 (b), item 2: No Urdu."
    assert [len(one["request_ids"]) for one in said["done"]] == [3, 1]
    await chain.market.until(lambda: len(chain.market.confirmed()) == 5)
    assert sorted(chain.billed()) == [("a", "1")] * 3 + [("b", "2")]
    assert said["stage"]["request_id"] in {
        event.id for event in chain.market.events() if event.outcome == Outcome.PROVIDER_FAILED
    }


async def test_what_fails_before_the_first_event_is_a_refusal_like_any_other(chain: Chain) -> None:
    chain.market.subscribe("acme/a", PlanLimits(per_minute=1))
    assert (await whole(chain, "a", "1")).status == 200
    response = await whole(chain, "ab", "1", "2")
    said = response.json()
    assert (response.status, said["code"], said["item"]) == (429, "RATE_LIMITED", 0)
    assert response.header("retry-after") and response.header("content-type") == "application/problem+json"


async def test_a_failure_gives_up_what_runs_elsewhere(chain: Chain) -> None:
    chain.gate("b", "1a")
    chain.instead["a", "2"] = answer(500, b"oops")
    _, listener = await listen(chain, "ab", "1", "2")
    assert place(await listener.next()) == (1, 0)
    assert (await listener.next()).name == "error"
    await chain.market.until(lambda: not chain.market.gateway.calls)
    await chain.market.until(lambda: len(chain.market.confirmed()) == 3)
    assert sorted((event.service_slug, event.outcome.value) for event in chain.market.events()) == [
        ("a", "completed"), ("a", "provider_failed"), ("b", "client_left")
    ]  # fmt: skip
    assert chain.billed() == [("a", "1")]


async def test_a_caller_who_leaves_gives_up_what_runs(chain: Chain) -> None:
    chain.gate("b", "1a")
    chain.gate("a", "2")
    client, listener = await listen(chain, "ab", "1", "2", "3")
    await listener.next()
    await chain.market.until(lambda: len(chain.asked) == 3)
    client.reset()
    await chain.market.until(lambda: not chain.market.gateway.calls)
    await chain.market.until(lambda: len(chain.market.confirmed()) == 3)
    assert chain.billed() == [("a", "1")]
    assert [event.outcome for event in chain.market.events()].count(Outcome.CLIENT_LEFT) == 2
    assert len(chain.asked) == 3


async def test_the_whole_has_one_deadline(chain: Chain) -> None:
    chain.gate("b", "1a")
    _, listener = await listen(chain, "ab", "1", timeout_ms=300)
    await listener.next()
    error = await listener.next()
    assert (error.data["code"], error.data["stage"]["number"], error.data["item"]) == ("PROVIDER_TIMEOUT", 2, 0)


async def test_a_text_may_be_divided_so_that_its_first_sentence_is_through_first(chain: Chain) -> None:
    gate = chain.gate("a", "कल छुट्टी है।")
    _, listener = await listen(chain, "ab", "आज मौसम अच्छा है। कल छुट्टी है।", "एक", split="sentences")
    first = [await listener.next() for _ in range(2)]
    assert [(place(one), one.data["part"], one.data["parts"]) for one in first] == [((1, 0), 0, 2), ((2, 0), 0, 2)]
    assert first[1].data["output"]["text"] == "आज मौसम अच्छा है।ab"
    gate.set()
    rest = [await listener.next() for _ in range(4)]
    assert sorted((place(one), one.data.get("part")) for one in rest) == [
        ((1, 0), 1), ((1, 1), None), ((2, 0), 1), ((2, 1), None)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"stream": True, "input": [{"text": "x"}] * 1001}, "input"),
        ({"split": "sentences"}, "split"),
        ({"stream": True, "split": "words"}, "split"),
        ({"stream": 1}, "stream"),
    ],
    ids=["too many", "split without a stream", "split by words", "no boolean"],
)
async def test_a_stream_that_cannot_be_is_refused_by_its_field(chain: Chain, body: Any, field: str) -> None:
    raw = json.dumps({"stages": [{"service": "acme/a"}], "input": [{"text": "x"}], **body}).encode()
    response = await chain.market.call("POST", "/v1/pipelines", raw)
    assert response.status == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert chain.asked == []


async def test_an_answer_that_is_not_one_output_is_the_providers_failure(chain: Chain) -> None:
    chain.instead["a", "1"] = answer(200, b'{"output":[{"text":"x"},{"text":"y"}]}')
    response = await whole(chain, "ab", "1")
    assert (response.status, response.json()["code"], response.json()["stage"]["number"]) == (502, "PROVIDER_FAILED", 1)


async def test_what_leads_nowhere_names_the_stage_it_leads_to(chain: Chain) -> None:
    chain.instead["a", "1"] = answer(200, b'{"output":[{"label":"x"}]}')
    output, error = events_in((await whole(chain, "ab", "1")).body)
    assert place(output) == (1, 0)
    assert (error.name, error.data["stage"]["number"], error.data["stage"]["request_id"]) == ("error", 2, "")


async def test_a_client_of_http_1_0_has_its_events_up_to_the_end_of_the_connection(chain: Chain) -> None:
    client = await chain.market.connect()
    body = chain.body("a", "x", stream=True)
    await client.send(chain.market.raw("POST", "/v1/pipelines", body, version="1.0"))
    response = await client.receive("POST")
    assert response is not None and response.header("transfer-encoding") is None
    assert events_in(response.body)[-1].data == "[DONE]"

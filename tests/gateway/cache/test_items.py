"""Batches whose items are kept: only the unknown are asked for, and every unit is paid in full once."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import msgspec
import pytest

from gateway.cache.rig import ask, keep, stats
from gateway.rig import APP, Market, Request, Response, answer
from haat.gateway.market.policy import Transform, VersionPolicy
from haat.gateway.market.snapshot import Price


async def upper(request: Request, reader: Any, writer: Any) -> bool:
    """A task service: texts in capitals, metered by characters."""
    inputs = json.loads(request.body)["input"]
    if any(item["text"] == "bad" for item in inputs):
        at = next(at for at, item in enumerate(inputs) if item["text"] == "bad")
        problem = {"code": "VALIDATION_FAILED", "errors": [{"field": f"input[{at}].text", "message": "bad"}]}
        writer.write(answer(422, json.dumps(problem).encode()))
        return True
    total = sum(len(item["text"]) for item in inputs)
    body = {"output": [{"text": item["text"].upper()} for item in inputs], "usage": {"characters": total}}
    writer.write(answer(200, json.dumps(body).encode(), f"X-Haat-Usage: characters={total}"))
    return True


def batches(market: Market, unit: str = "characters", **policy: Any) -> None:
    market.add_service("task", unit=unit, dialect="task", max_units=policy.pop("max_units", ""))
    keep(market, "task", ttl_seconds=60, items=True, **policy)
    market.provider.behaviour = upper


async def task(market: Market, *texts: str, **options: Any) -> Response:
    body = {"input": [{"text": text} for text in texts], "config": options.pop("config", {})}
    return await ask(market, body, *options.pop("headers", ()), path="/v1/services/acme/task/invoke")


def asked(market: Market) -> list[list[str]]:
    return [[item["text"] for item in json.loads(request.body)["input"]] for request in market.provider.requests]


def texts(response: Response) -> list[str]:
    return [output["text"] for output in response.json()["output"]]


async def test_only_the_unknown_items_of_a_batch_are_asked_for(market: Market) -> None:
    batches(market)
    assert (await task(market, "a", "bb")).header("x-cache") == "MISS"
    mixed = await task(market, "ccc", "bb", "dddd", "a")
    assert (mixed.header("x-cache"), texts(mixed)) == ("PARTIAL", ["CCC", "BB", "DDDD", "A"])
    whole = await task(market, "dddd", "a")
    assert (whole.header("x-cache"), texts(whole)) == ("HIT", ["DDDD", "A"])
    assert whole.json()["usage"] == {"characters": 5} and mixed.json()["usage"] == {"characters": 10}
    assert asked(market) == [["a", "bb"], ["ccc", "dddd"]]
    assert int(market.provider.requests[-1].header("content-length")[0]) == len(market.provider.requests[-1].body)
    await market.until(lambda: len(market.confirmed()) == 3)
    events = sorted(market.events(), key=lambda event: event.id)
    assert [(event.cache, event.units["characters"], event.cached_units) for event in events] == [
        ("miss", "3", {}),
        ("partial", "10", {"characters": "3"}),
        ("hit", "5", {"characters": "5"}),
    ]
    assert mixed.header("x-haat-units") == "characters=10"
    assert (stats(market)["items_known"], stats(market)["items_asked"]) == (4, 4)


async def test_an_item_that_is_in_a_batch_twice_is_asked_for_once(market: Market) -> None:
    batches(market)
    response = await task(market, "a", "bb", "a")
    assert texts(response) == ["A", "BB", "A"] and asked(market) == [["a", "bb"]]
    event = await market.settled_event()
    assert (event.cache, event.units["characters"], event.cached_units) == ("partial", "4", {"characters": "1"})


async def test_another_config_is_another_item(market: Market) -> None:
    batches(market)
    await task(market, "a", config={"target": "hi"})
    assert (await task(market, "a", config={"target": "ur"})).header("x-cache") == "MISS"


async def test_what_was_known_costs_the_plans_share_and_the_answer_says_so(market: Market) -> None:
    batches(market)
    directory = market.gateway.directory
    service = directory.services["acme/task"]
    priced = msgspec.structs.replace(service, prices=(Price("", "characters", "0.5", "0", 0),))
    directory.put_service(service.id, priced)
    subscribed = directory.subscriptions[APP, service.id]
    directory.put_subscription(subscribed.id, msgspec.structs.replace(subscribed, cached_share="0.125"))
    answers = [await task(market, "aaaa"), await task(market, "aaaa", "bb"), await task(market, "bb")]
    assert [one.header("x-haat-charge") for one in answers] == ["2 INR", "1.25 INR", "0.125 INR"]
    await market.until(lambda: len(market.confirmed()) == 3)
    events = sorted(market.events(), key=lambda event: event.id)
    assert [event.cached_share for event in events] == ["", "0.125", "0.125"]


async def test_a_refresh_asks_for_everything_and_keeps_it(market: Market) -> None:
    batches(market)
    await task(market, "a")
    assert (await task(market, "a", "b", "a", headers=("Cache-Control: no-cache",))).header("x-cache") == "BYPASS"
    assert asked(market) == [["a"], ["a", "b", "a"]]
    assert (await task(market, "b")).header("x-cache") == "HIT"


async def test_a_known_batch_can_be_revalidated(market: Market) -> None:
    batches(market)
    tag = (await task(market, "a", "b")).header("etag")
    response = await task(market, "a", "b", headers=(f"If-None-Match: {tag}",))
    assert (response.status, response.header("etag")) == (304, tag)
    assert (await task(market, "b", "a", headers=(f"If-None-Match: {tag}",))).status == 200


async def test_a_refusal_of_the_unknown_items_names_them_as_the_caller_did_and_keeps_nothing(market: Market) -> None:
    batches(market)
    await task(market, "a", "b")
    response = await task(market, "a", "b", "bad")
    assert response.status == 422 and response.json()["errors"][0]["field"] == "input[2].text"
    assert asked(market)[-1] == ["bad"]
    await market.until(lambda: len(market.confirmed()) == 2)
    refused = next(event for event in market.events() if event.status == 422)
    assert (refused.outcome, refused.units, refused.cached_units) == ("provider_failed", {}, {})


@pytest.mark.parametrize("body", [b'{"output":[]}', b'{"output":[1,2,3]}', b"[]", b"no json"])
async def test_a_wrong_number_of_outputs_is_the_providers_failure(market: Market, body: bytes) -> None:
    batches(market)
    await task(market, "a")
    market.provider.behaviour = answer(200, body)
    response = await task(market, "a", "b", "c")
    assert (response.status, response.json()["code"]) == (502, "PROVIDER_FAILED")
    assert stats(market)["entries"] == 1
    market.provider.behaviour = upper
    assert texts(await task(market, "a", "b", "c")) == ["A", "B", "C"]


async def test_answers_that_say_more_than_outputs_are_passed_on_and_not_kept(market: Market) -> None:
    batches(market)
    market.provider.behaviour = answer(200, b'{"output":["A"],"model":"m"}')
    for _ in range(2):
        response = await task(market, "a")
        assert (response.header("x-cache"), response.json()["model"]) == ("MISS", "m")


async def test_a_partial_hit_of_a_service_sold_by_requests_costs_a_whole_request(market: Market) -> None:
    batches(market, unit="requests")
    await task(market, "a")
    await task(market, "a", "b")
    await task(market, "a", "b")
    await market.until(lambda: len(market.confirmed()) == 3)
    events = sorted(market.events(), key=lambda event: event.id)
    assert [(event.cache, event.units["requests"], event.cached_units) for event in events] == [
        ("miss", "1", {}),
        ("partial", "1", {}),
        ("hit", "1", {"requests": "1"}),
    ]


async def test_a_partial_hit_of_a_service_sold_by_bytes_asks_for_those_that_were_sent_on(market: Market) -> None:
    batches(market, unit="bytes")

    async def silent(request: Request, reader: Any, writer: Any) -> bool:
        inputs = json.loads(request.body)["input"]
        writer.write(answer(200, json.dumps({"output": inputs}).encode()))
        return True

    market.provider.behaviour = silent
    await task(market, "a" * 100)
    await task(market, "a" * 100, "b")
    await market.until(lambda: len(market.confirmed()) == 2)
    event = max(market.events(), key=lambda event: event.id)
    sent = len(market.provider.requests[-1].body)
    assert int(event.units["bytes"]) == event.bytes_in
    assert int(event.cached_units["bytes"]) == event.bytes_in - sent > 100


async def test_known_items_never_raise_a_call_above_the_versions_most(market: Market) -> None:
    batches(market, max_units="4")
    await task(market, "aaa")
    await task(market, "aaa", "bb")
    await market.until(lambda: len(market.confirmed()) == 2)
    event = max(market.events(), key=lambda event: event.id)
    assert (event.units["characters"], event.cached_units) == ("4", {"characters": "2"})


async def test_the_same_batch_at_the_same_time_is_asked_for_once(market: Market) -> None:
    batches(market)
    gate = asyncio.Event()

    async def held(request: Request, reader: Any, writer: Any) -> bool:
        await gate.wait()
        return await upper(request, reader, writer)

    market.provider.behaviour = held
    calls = [asyncio.create_task(task(market, "a", "b")) for _ in range(5)]
    await market.until(lambda: stats(market)["coalesced"] == 4)
    gate.set()
    assert {tuple(texts(response)) for response in await asyncio.gather(*calls)} == {("A", "B")}
    assert len(market.provider.requests) == 1


async def test_random_batches_are_answered_as_without_a_cache_and_their_units_add_up(market: Market) -> None:
    batches(market)
    chance = random.Random(11)
    words = ["a" * (number % 7 + 1) + chr(98 + number) for number in range(20)]
    for _ in range(60):
        chosen = chance.choices(words, k=chance.randint(1, 8))
        response = await task(market, *chosen)
        assert texts(response) == [word.upper() for word in chosen]
        assert response.json()["usage"] == {"characters": sum(map(len, chosen))}
        assert response.header("x-haat-units") == f"characters={sum(map(len, chosen))}"
    await market.until(lambda: len(market.confirmed()) == 60)
    asked_for = sum(len(text) for batch in asked(market) for text in batch)
    full = sum(int(event.units["characters"]) for event in market.events())
    cached = sum(int(event.cached_units.get("characters", 0)) for event in market.events())
    assert full - cached == asked_for == sum(map(len, words))  # each was paid in full once


# --- versions that adapt another one ------------------------------------------------------------


async def test_a_version_that_adapts_another_has_the_same_items_kept_in_its_own_shape(market: Market) -> None:
    batches(market)
    directory = market.gateway.directory
    service = directory.services["acme/task"]
    policy = VersionPolicy(
        serves="1", request=(Transform("rename", "texts", "input"),), answer=(Transform("rename", "output", "results"),)
    )
    old = msgspec.structs.replace(service.versions[0], version="0", policy=policy)
    directory.put_service(service.id, msgspec.structs.replace(service, versions=(*service.versions, old)))
    path = "/v1/services/acme/task@0/invoke"
    first = await ask(market, {"texts": [{"text": "a"}, {"text": "b"}]}, path=path)
    again = await ask(market, {"texts": [{"text": "b"}]}, path=path)
    assert (first.header("x-cache"), again.header("x-cache")) == ("MISS", "HIT")
    assert again.json() == {"results": [{"text": "B"}], "usage": {"characters": 1}}
    assert again.header("etag") is None  # it would name another shape
    moved = msgspec.structs.replace(service.versions[0], endpoint=service.versions[0].endpoint + "/moved")
    directory.put_service(service.id, msgspec.structs.replace(service, versions=(moved, service.versions[1], old)))
    assert (await ask(market, {"texts": [{"text": "b"}]}, path=path)).header("x-cache") == "MISS"

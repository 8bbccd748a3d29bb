"""``Idempotency-Key`` on requests that several calls answer: sent again they go on, and nothing is sold twice."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from gateway.doors.flows import Chain, Listener, events_in
from gateway.doors.ulca_market import stock, task, texts
from gateway.rig import APP, ORG, MakeMarket, Market, Response, answer, close_market, open_market
from haat.gateway.limits.registry import PlanLimits
from haat.gateway.market.policy import ServicePolicy
from haat.gateway.market.snapshot import Credential
from haat.usage.event import Outcome

KEY = ("Idempotency-Key: 8e03978e",)


@pytest.fixture
def chain(market: Market) -> Chain:
    return Chain(market, "a", "b", "c")


async def run(chain: Chain, letters: str = "ab", *given: str, **more: Any) -> Response:
    client = await chain.market.connect()
    await client.send(chain.raw(letters, *(given or ("x",)), headers=KEY, **more))
    response = await client.receive("POST")
    assert response is not None
    client.close()
    return response


async def leave(chain: Chain, letters: str = "ab", *given: str, **more: Any) -> None:
    """Ask, and break the connection off once the gated call has come to its provider."""
    letter, text = next(iter(chain.gates))
    client = await chain.market.connect()
    await client.send(chain.raw(letters, *(given or ("x",)), headers=KEY, **more))
    await chain.market.until(lambda: (letter, text) in chain.asked)
    client.reset()
    await chain.market.until(lambda: not chain.market.gateway.clients)


def is_replay(response: Response) -> bool:
    return response.header("idempotency-replayed") == "true"


def code(response: Response) -> tuple[int, str]:
    return response.status, response.json()["code"]


async def successor(market: Market, folder: Path) -> Chain:
    """Return the gateway that starts where this one has stopped."""
    made = await open_market(folder, market.keyring)
    known = Credential("again", ORG, APP, market.keyring.hash_key(market.key), 0, 0)
    made.gateway.directory.put_credential("again", known)
    made.key = market.key
    return Chain(made, "a", "b", "c")


async def test_a_finished_pipeline_is_answered_again_as_it_was(chain: Chain) -> None:
    first, again = await run(chain), await run(chain)
    assert first.status == again.status == 200 and first.body == again.body
    assert (is_replay(first), is_replay(again)) == (False, True)
    assert (first.header("x-haat-units"), again.header("x-haat-units")) == ("characters=3", "requests=0")
    assert again.header("x-haat-charge") == "0 INR"
    assert first.header("x-haat-served-by") == again.header("x-haat-served-by") == "acme/a@1, acme/b@1"
    assert chain.asked == [("a", "x"), ("b", "xa")]
    await chain.market.until(lambda: len(chain.market.confirmed()) == 3)
    *_, replay = chain.market.events()
    assert (replay.outcome, replay.cache, replay.units, replay.service) == (
        Outcome.COMPLETED, "replay", {"requests": "0"}, ""
    )  # fmt: skip
    assert chain.billed() == [("a", "1"), ("b", "2")]


@pytest.mark.parametrize("stream", [False, True])
async def test_another_request_with_the_key_is_a_mismatch(chain: Chain, stream: bool) -> None:
    await run(chain, stream=stream)
    for response in (await run(chain, "ab", "y", stream=stream), await run(chain, "ac", stream=stream)):
        assert code(response) == (422, "IDEMPOTENCY_MISMATCH")
    assert len(chain.asked) == 2


async def test_a_whole_answer_and_a_stream_are_two_requests(chain: Chain) -> None:
    client = await chain.market.connect()
    for accept, status in ((), 200), (("Accept: text/event-stream",), 422):
        await client.send(chain.raw("a", "x", headers=(*KEY, *accept)))
        response = await client.receive("POST")
        assert response is not None and response.status == status


async def test_one_that_runs_is_waited_for(chain: Chain) -> None:
    gate = chain.gate("b", "xa")
    first = asyncio.create_task(run(chain))
    await chain.market.until(lambda: len(chain.asked) == 2)
    early = await run(chain)
    assert code(early) == (409, "IDEMPOTENCY_IN_PROGRESS") and early.header("retry-after") == "1"
    gate.set()
    assert (await first).status == 200
    assert is_replay(await run(chain)) and len(chain.asked) == 2


async def test_what_was_done_before_a_refusal_is_not_done_and_not_sold_again(chain: Chain) -> None:
    chain.market.subscribe("acme/b", PlanLimits(per_minute=1))
    await chain.market.call("POST", "/v1/services/acme/b/invoke", b'{"input":[{"text":"z"}]}')
    refused = await run(chain)
    assert code(refused) == (429, "RATE_LIMITED") and refused.json()["stage"]["number"] == 2
    chain.market.subscribe("acme/b", PlanLimits(per_minute=100))
    done = await run(chain)
    assert (done.status, done.json()["output"]) == (200, [{"text": "xab"}])
    assert chain.asked == [("b", "z"), ("a", "x"), ("b", "xa")]
    assert chain.billed() == [("b", "1"), ("a", "1"), ("b", "2")]
    assert is_replay(await run(chain))


async def test_a_refusal_before_anything_was_done_frees_the_key(chain: Chain) -> None:
    chain.market.subscribe("acme/a", PlanLimits(per_minute=1))
    await chain.market.call("POST", "/v1/services/acme/a/invoke", b'{"input":[{"text":"z"}]}')
    assert code(await run(chain)) == (429, "RATE_LIMITED")
    assert (await run(chain, "bc", "y")).status == 200


async def test_what_a_provider_may_have_executed_is_not_asked_again(chain: Chain) -> None:
    chain.instead["b", "xa"] = answer(500, b"oops")
    first, again = await run(chain), await run(chain)
    assert (first.status, again.status) == (500, 500)
    assert is_replay(again) and again.json()["stage"]["name"] == "b"
    assert again.header("content-type") == "application/problem+json"
    assert len(chain.asked) == 2 and chain.billed() == [("a", "1")]


async def test_what_may_be_repeated_is_asked_again_where_it_failed(chain: Chain) -> None:
    service = chain.market.gateway.directory.services["acme/b"]
    chain.market.gateway.directory.put_service(
        service.id, structs.replace(service, policy=ServicePolicy(repeatable=True))
    )
    chain.lost.add(("b", "xa"))
    assert (await run(chain)).status == 502
    chain.lost.clear()
    assert (await run(chain)).status == 200
    assert {letter for letter, _ in chain.asked[1:]} == {"b"} and chain.billed() == [("a", "1"), ("b", "2")]


@pytest.mark.parametrize("stream", [False, True])
async def test_who_left_finds_what_ran_and_goes_on_from_there(chain: Chain, stream: bool) -> None:
    gate = chain.gate("b", "xa")
    await leave(chain, "abc", stream=stream)
    early = await run(chain, "abc", stream=stream)
    if not stream:
        assert code(early) == (409, "IDEMPOTENCY_IN_PROGRESS") and early.json()["stage"]["number"] == 2
    gate.set()
    await chain.market.until(lambda: not chain.market.gateway.calls)
    assert chain.billed() == [("a", "1")]
    done = await run(chain, "abc", stream=stream)
    assert done.status == 200
    assert chain.asked == [("a", "x"), ("b", "xa"), ("c", "xab")]
    assert chain.billed() == [("a", "1"), ("b", "2"), ("c", "3")]
    assert is_replay(await run(chain, "abc", stream=stream))


async def test_a_finished_stream_is_given_again_event_by_event(chain: Chain) -> None:
    first, again = await run(chain, "ab", "x", "y", stream=True), await run(chain, "ab", "x", "y", stream=True)
    assert first.body == again.body and is_replay(again)
    assert again.header("content-type") == "text/event-stream" and len(events_in(again.body)) == 6
    assert len(chain.asked) == 4 and len(chain.billed()) == 4


async def test_a_stream_that_failed_half_way_goes_on_there(chain: Chain) -> None:
    chain.instead["b", "ya"] = answer(503, b"{}")
    broken = events_in((await run(chain, "ab", "x", "y", stream=True)).body)
    assert broken[-1].name == "error"
    whole = events_in((await run(chain, "ab", "x", "y", stream=True)).body)
    assert whole[-1].data == "[DONE]"
    assert sorted(chain.asked) == [("a", "x"), ("a", "y"), ("b", "xa"), ("b", "ya"), ("b", "ya")]
    assert sorted(chain.billed()) == [("a", "1"), ("a", "1"), ("b", "2"), ("b", "2")]


async def test_an_answer_too_large_to_keep_is_made_again_of_its_parts(make_market: MakeMarket) -> None:
    chain = Chain(await make_market(idempotency_answer_bytes=260), "a", "b")
    first, again = await run(chain), await run(chain)
    assert len(first.body) > 260 and first.json()["output"] == again.json()["output"]
    assert is_replay(again) and again.header("x-haat-units") == "characters=0"
    assert len(chain.asked) == 2 and chain.billed() == [("a", "1"), ("b", "2")]


async def test_after_a_restart_what_was_finished_is_known_and_what_was_not_is_in_doubt(
    chain: Chain, tmp_path: Path
) -> None:
    assert (await run(chain, "abc", "done")).status == 200
    chain.gate("b", "xa")
    client = await chain.market.connect()
    await client.send(chain.raw("abc", "x", headers=("Idempotency-Key: two",)))
    await chain.market.until(lambda: ("b", "xa") in chain.asked)
    await chain.market.gateway.stop(0.05)
    later = await successor(chain.market, tmp_path)
    assert is_replay(await run(later, "abc", "done"))
    client = await later.market.connect()
    await client.send(later.raw("abc", "x", headers=("Idempotency-Key: two",)))
    response = await client.receive("POST")
    assert response is not None
    assert code(response) == (409, "IDEMPOTENCY_UNKNOWN")
    assert response.json()["stage"]["number"] == 2 and [one["name"] for one in response.json()["done"]] == ["a"]
    assert later.asked == []
    await close_market(later.market)


async def test_after_a_restart_between_two_stages_the_second_is_all_that_is_done(chain: Chain, tmp_path: Path) -> None:
    chain.instead["b", "xa"] = answer(503, b"{}")
    assert (await run(chain)).status == 503
    await chain.market.gateway.stop(1)
    later = await successor(chain.market, tmp_path)
    assert (await run(later)).json()["output"] == [{"text": "xab"}]
    assert later.asked == [("b", "xa")]
    await close_market(later.market)


async def test_a_key_that_is_none_is_refused(chain: Chain) -> None:
    response = await chain.market.call("POST", "/v1/pipelines", chain.body("a", "x"), 'Idempotency-Key: "a')
    assert code(response) == (400, "INVALID_REQUEST") and chain.asked == []


async def test_without_a_place_to_keep_it_nothing_is_done(chain: Chain, tmp_path: Path) -> None:
    (tmp_path / "gateway" / "idempotency.db").mkdir(parents=True)
    assert code(await run(chain)) == (503, "IDEMPOTENCY_UNAVAILABLE") and chain.asked == []


async def test_the_same_key_may_be_used_live_and_in_a_test(chain: Chain) -> None:
    chain.market.add_key(mode="test")
    assert (await run(chain)).status == 200
    chain.market.key = chain.market.add_key(mode="test")
    assert not is_replay(await run(chain))


# --- other doors ------------------------------------------------------------------------------------


async def test_a_translation_keeps_to_whom_it_had_chosen(chain: Chain) -> None:
    """Prices change between the request and its repetition: nobody else is asked, and paid, for the same again."""
    market = chain.market
    for letter in "ab":
        service = market.gateway.directory.services[f"acme/{letter}"]
        version = structs.replace(service.versions[0], language_pairs=("hi-Deva>en-Latn", "en-Latn>ta-Taml"))
        market.gateway.directory.put_service(service.id, structs.replace(service, versions=(version,)))
    body = json.dumps({"text": "x", "source": "hi", "target": "ta", "pivot": "allow"}).encode()
    chain.price("a", "1")
    chain.price("b", "2")
    chain.instead["a", "xa"] = answer(503, b"{}")
    first = await market.call("POST", "/v1/translate", body, *KEY)
    assert first.status == 503
    chain.price("a", "3")
    again = await market.call("POST", "/v1/translate", body, *KEY)
    assert again.status == 200, again.body
    assert [stage["service"] for stage in again.json()["stages"]] == ["acme/a", "acme/a"]
    assert again.json()["pivot"] == ["en-Latn"]
    assert chain.asked == [("a", "x"), ("a", "xa"), ("a", "xa")]
    assert is_replay(await market.call("POST", "/v1/translate", body, *KEY))


async def test_ulcas_tasks_in_a_row_are_sold_once(market: Market) -> None:
    stock(market)
    tasks = [task("translation", "hi", "ur"), task("tts", "ur")]
    body = json.dumps({"pipelineTasks": tasks, "inputData": texts("नमस्ते")}).encode()
    first, again = [await market.call("POST", "/services/inference/pipeline", body, *KEY) for _ in range(2)]
    assert first.status == again.status == 200 and first.body == again.body
    assert is_replay(again) and len(market.provider.requests) == 2
    assert first.header("x-haat-served-by") == "acme/translate@1, acme/speak@1"
    other = json.dumps({"pipelineTasks": tasks, "inputData": texts("अलविदा")}).encode()
    refused = await market.call("POST", "/services/inference/pipeline", other, *KEY)
    assert (refused.status, refused.json()["code"]) == (422, "IDEMPOTENCY_MISMATCH")


async def test_speech_to_speech_goes_on_where_it_was_refused(market: Market) -> None:
    from gateway.doors.ulca_market import behave, sound

    stock(market)
    market.provider.behaviour = behave(speak=answer(503, b"{}"))
    config = {"language": {"sourceLanguage": "hi", "targetLanguage": "ur"}}
    body = json.dumps({"config": config, **sound()}).encode()
    refused = await market.call("POST", "/services/inference/s2s", body, *KEY)
    assert refused.status == 503
    market.provider.behaviour = behave()
    done = await market.call("POST", "/services/inference/s2s", body, *KEY)
    assert done.status == 200, done.body
    assert [request.target.split("/")[1] for request in market.provider.requests] == [
        "hear", "translate", "speak", "speak"
    ]  # fmt: skip
    assert Decimal((done.header("x-haat-units") or "").partition("=")[2]) == 7, "two of three are given again"


async def test_a_stream_is_not_mixed_up_with_its_listeners(chain: Chain) -> None:
    gate = chain.gate("b", "xa")
    client = await chain.market.connect()
    await client.send(chain.raw("ab", "x", headers=KEY, stream=True))
    listener = Listener(client)
    await listener.next()
    assert code(await run(chain, stream=True)) == (409, "IDEMPOTENCY_IN_PROGRESS")
    gate.set()
    assert [(await listener.next()).name for _ in range(2)] == ["output", "done"]

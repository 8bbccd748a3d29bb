"""Calls of providers who speak well-known protocols are metered by what those report, natively and at every door."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.doors.upstreams import USAGE, chat_stream, chunk, completion, events, stream, usage_of
from gateway.rig import Market, Request, Response, answer
from haat.gateway.limits.registry import PlanLimits
from haat.gateway.market.policy import CachePolicy
from haat.usage.event import Outcome

CHAT = {"model": "theirs", "messages": [{"role": "user", "content": "Namaste"}]}
PATH = "/v1/services/acme/llm/chat/completions"


@pytest.fixture
def llm(market: Market) -> Market:
    market.add_service("llm", dialect="openai", category="llm", unit="tokens")
    market.add_service("claude", dialect="anthropic", category="llm", unit="tokens")
    market.provider.behaviour = completion()
    return market


async def ask(market: Market, body: Any, *headers: str, path: str = PATH) -> Response:
    return await market.call("POST", path, json.dumps(body).encode(), "Content-Type: application/json", *headers)


def sent(market: Market) -> Any:
    return json.loads(market.provider.requests[-1].body)


TASK = {"input": [{"text": "a"}]}


def host_models(market: Market) -> None:
    """Let the provider's port be that of the models process, with a model that is sold by tokens."""
    market.gateway.settings = market.gateway.settings.model_copy(update={"models_port": market.provider.port})
    market.add_service("told", dialect="task", unit="tokens")


@pytest.mark.parametrize(
    ("tail", "document", "units"),
    [
        (
            "chat/completions",
            {"choices": [], "usage": USAGE},
            {"tokens": "30", "input_tokens": "10", "output_tokens": "20"},
        ),
        (
            "chat/completions",
            {
                "choices": [],
                "usage": {
                    **USAGE,
                    "prompt_tokens_details": {"cached_tokens": 4},
                    "completion_tokens_details": {"reasoning_tokens": 9},
                },
            },
            {
                "tokens": "30",
                "input_tokens": "10",
                "output_tokens": "20",
                "cached_tokens": "4",
                "reasoning_tokens": "9",
            },
        ),
        (
            "chat/completions",
            {
                "choices": [],
                "usage": {
                    **USAGE,
                    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 6},
                    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 15},
                },
            },
            {
                "tokens": "30",
                "input_tokens": "10",
                "output_tokens": "20",
                "input_audio_tokens": "6",
                "output_audio_tokens": "15",
            },
        ),
        (
            "embeddings",
            {"data": [], "usage": {"prompt_tokens": 8, "total_tokens": 8}},
            {"tokens": "8", "input_tokens": "8"},
        ),
        (
            "responses",
            {
                "output": [],
                "usage": {
                    "input_tokens": 5,
                    "output_tokens": 6,
                    "total_tokens": 11,
                    "input_tokens_details": {"cached_tokens": 2},
                    "output_tokens_details": {"reasoning_tokens": 3},
                },
            },
            {
                "tokens": "11",
                "input_tokens": "5",
                "output_tokens": "6",
                "cached_tokens": "2",
                "reasoning_tokens": "3",
            },
        ),
        (
            "audio/transcriptions",
            {"text": "a", "usage": {"type": "duration", "seconds": 7.5}},
            {"audio_seconds": "7.5"},
        ),
        ("audio/transcriptions", {"text": "a", "duration": 8.470000267028809}, {"audio_seconds": "8.47"}),
    ],
)
async def test_a_whole_answer_is_metered_by_its_usage_block(
    llm: Market, tail: str, document: dict[str, Any], units: dict[str, str]
) -> None:
    body = json.dumps(document).encode()
    llm.provider.behaviour = answer(200, body)
    response = await ask(llm, CHAT, path=f"/v1/services/acme/llm/{tail}")
    assert response.body == body
    if "tokens" in units:
        assert response.header("x-haat-units") == f"tokens={units['tokens']}"
    event = await llm.settled_event()
    assert (event.units, event.units_source) == ({"requests": "1", **units}, "upstream")


@pytest.mark.parametrize(
    ("last", "units"),
    [
        (
            {"usage": {"tokens": 12, "compute_seconds": 0.25}},
            {"requests": "1", "tokens": "12", "compute_seconds": "0.25"},
        ),
        (
            {"input": 1, "output": {"usage": {"tokens": 99}, "type": "urn:haat:problem:x"}},
            {"requests": "1", "tokens": "5"},
        ),
        ({"type": "urn:haat:problem:engine-failed", "code": "ENGINE_FAILED"}, {"requests": "0", "tokens": "0"}),
    ],
)
async def test_a_hosted_models_events_pass_unchanged_and_say_what_it_has_used(
    market: Market, last: dict[str, Any], units: dict[str, str]
) -> None:
    host_models(market)
    pieces = [events([part]) for part in ({"place": 3}, {"input": 0, "output": {}, "usage": {"tokens": 5}}, last)]
    market.provider.behaviour = stream(pieces)
    headers = ("Accept: text/event-stream", "X-Haat-Priority: 9", "X-Haat-Timeout-Ms: 700")
    response = await ask(market, TASK, *headers, path="/v1/services/acme/told/invoke")
    assert response.body == b"".join(pieces)
    asked = market.provider.requests[-1]
    told = [asked.header(name) for name in ("x-haat-priority", "x-haat-timeout-ms", "accept")]
    assert told == [["9"], ["700"], ["text/event-stream"]]
    event = await market.settled_event()
    assert (event.units, event.units_source) == (units, "upstream")


async def test_who_leaves_a_hosted_models_stream_has_used_what_it_said_so_far(market: Market) -> None:
    host_models(market)
    wait = asyncio.Event()
    market.provider.behaviour = stream([events([{"input": 0, "output": {}, "usage": {"tokens": 5}}])], wait=wait)
    client = await market.connect()
    path = "/v1/services/acme/told/invoke"
    await client.send(market.raw("POST", path, json.dumps(TASK).encode(), "Accept: text/event-stream"))
    await client.reader.readuntil(b"usage")
    client.reset()
    event = await market.settled_event()
    wait.set()
    assert (event.outcome, event.units) == (Outcome.CLIENT_LEFT, {"requests": "1", "tokens": "5"})


async def test_an_answer_without_a_report_is_estimated_and_says_so(llm: Market) -> None:
    llm.provider.behaviour = completion("x" * 41, usage=None)
    await ask(llm, CHAT)
    event = await llm.settled_event()
    asked = -(-len(json.dumps(CHAT)) // 4)
    assert (usage_of(event.units), event.units_source) == ((asked + 11, asked, 11), "counted")


async def test_an_answer_too_large_to_be_looked_into_is_estimated(llm: Market) -> None:
    llm.provider.behaviour = answer(200, b'{"data": "%b"}' % (b"x" * (17 << 20)))
    response = await ask(llm, {"model": "m", "input": "a"}, path="/v1/services/acme/llm/embeddings")
    assert len(response.body) > 17 << 20
    event = await llm.settled_event()
    asked = -(-len(json.dumps({"model": "m", "input": "a"})) // 4)
    assert (usage_of(event.units), event.units_source) == ((asked, asked, 0), "counted")


async def test_a_report_in_a_header_goes_before_all_others(llm: Market) -> None:
    llm.provider.behaviour = answer(200, b'{"choices":[],"usage":{"total_tokens":9}}', "X-Haat-Usage: tokens=3")
    await ask(llm, CHAT)
    event = await llm.settled_event()
    assert (event.units["tokens"], event.raw_usage) == ("3", "tokens=3")


async def test_a_refusal_is_not_metered(llm: Market) -> None:
    llm.provider.behaviour = answer(400, b'{"error":{"message":"no"}}')
    assert (await ask(llm, CHAT)).status == 400
    assert (await llm.settled_event()).units == {}


@pytest.mark.parametrize("accept", [(), ("Accept: text/event-stream",)], ids=["body", "header"])
async def test_a_stream_is_asked_for_its_usage_and_the_caller_sees_none_of_that(
    llm: Market, accept: tuple[str, ...]
) -> None:
    llm.provider.behaviour = chat_stream("Nam", "aste")
    response = await ask(llm, {**CHAT, "stream": True, "stream_options": {"x": 1}}, *accept)
    assert sent(llm)["stream_options"] == {"x": 1, "include_usage": True}
    wanted = [chunk({"role": "assistant", "content": ""}), chunk({"content": "Nam"}), chunk({"content": "aste"})]
    assert response.body == events([*wanted, chunk({}, "stop"), "[DONE]"])
    event = await llm.settled_event()
    assert (usage_of(event.units), event.units_source) == ((30, 10, 20), "upstream")
    assert event.outcome == Outcome.COMPLETED


async def test_a_caller_who_asks_for_the_usage_gets_it(llm: Market) -> None:
    llm.provider.behaviour = chat_stream("Nam")
    body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    response = await ask(llm, body)
    assert b'"total_tokens": 30' in response.body
    assert llm.provider.requests[-1].body == json.dumps(body).encode()


async def test_a_stream_without_a_report_is_estimated(llm: Market) -> None:
    llm.provider.behaviour = chat_stream("n" * 400, "\u0928" * 4, usage=None)
    await ask(llm, {**CHAT, "stream": True})
    event = await llm.settled_event()
    asked = -(-len(json.dumps({**CHAT, "stream": True})) // 4)
    assert (usage_of(event.units), event.units_source) == ((asked + 103, asked, 103), "counted")


async def test_a_caller_who_leaves_midway_is_charged_what_has_come(llm: Market) -> None:
    wait = asyncio.Event()
    llm.provider.behaviour = stream([events([chunk({"content": "x" * 40})])], wait=wait)
    client = await llm.connect()
    await client.send(llm.raw("POST", PATH, json.dumps({**CHAT, "stream": True}).encode()))
    await client.reader.readuntil(b"xxxx")
    client.reset()
    event = await llm.settled_event()
    wait.set()
    asked = -(-len(json.dumps({**CHAT, "stream": True})) // 4)
    assert event.outcome == Outcome.CLIENT_LEFT
    assert (usage_of(event.units), event.units_source) == ((asked + 10, asked, 10), "counted")


async def test_a_stream_that_breaks_off_is_not_billed(llm: Market) -> None:
    llm.provider.behaviour = stream([events([chunk({"content": "x"})])], whole=False)
    response = await ask(llm, {**CHAT, "stream": True})
    assert b"event: error" in response.body
    event = await llm.settled_event()
    assert (event.outcome, event.units) == (Outcome.PROVIDER_FAILED, {})


RESPONSE = [
    {"type": "response.created", "response": {"id": "r", "usage": None}},
    {"type": "response.output_text.delta", "delta": "Namaste"},
    {"type": "response.output_text.done", "text": "Namaste"},
    {"type": "response.completed", "response": {"usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}}},
]
MESSAGE = [
    {
        "type": "message_start",
        "message": {
            "usage": {
                "input_tokens": 5,
                "cache_read_input_tokens": 7,
                "cache_creation_input_tokens": 0,
                "output_tokens": 1,
            }
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Namaste"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 20}},
    {"type": "message_stop"},
]


@pytest.mark.parametrize(
    ("path", "parts", "tokens"),
    [
        ("/v1/services/acme/llm/responses", RESPONSE, (7, 3, 4)),
        ("/v1/services/acme/claude/messages", MESSAGE, (32, 12, 20)),
    ],
    ids=["responses", "messages"],
)
async def test_typed_events_pass_as_they_are_and_are_metered(
    llm: Market, path: str, parts: list[dict[str, Any]], tokens: tuple[int, int, int]
) -> None:
    raw = events(parts, named=True)
    llm.provider.behaviour = stream([raw[:50], raw[50:333], raw[333:]])
    response = await ask(llm, {"model": "m", "stream": True}, path=path)
    assert response.body == raw
    assert "stream_options" not in sent(llm)
    event = await llm.settled_event()
    assert (usage_of(event.units), event.units_source) == (tokens, "upstream")
    if "claude" in path:
        assert event.units["cached_tokens"] == "7"


async def test_a_message_that_was_only_begun_is_estimated_from_what_is_known(llm: Market) -> None:
    llm.provider.behaviour = stream([events(MESSAGE[:3], named=True)])
    await ask(llm, {"model": "m", "stream": True}, path="/v1/services/acme/claude/messages")
    event = await llm.settled_event()
    assert (usage_of(event.units), event.units_source) == ((14, 12, 2), "counted")


async def test_counting_tokens_takes_none(llm: Market) -> None:
    llm.provider.behaviour = answer(200, b'{"input_tokens": 2095}')
    await ask(llm, {"model": "m"}, path="/v1/services/acme/claude/messages/count_tokens")
    assert (await llm.settled_event()).units == {"requests": "1", "tokens": "0"}


async def test_speech_is_counted_by_the_characters_of_its_text(llm: Market) -> None:
    llm.add_service("voice", dialect="openai", unit="characters")
    llm.provider.behaviour = answer(200, b"RIFF", "Content-Type: audio/wav")
    await ask(llm, {"model": "m", "input": "नमस्ते"}, path="/v1/services/acme/voice/audio/speech")
    assert (await llm.settled_event()).units == {"requests": "1", "characters": "6"}


@pytest.mark.parametrize("usage", [USAGE, None], ids=["reported", "estimated"])
async def test_an_answer_out_of_the_cache_has_the_units_of_the_first(llm: Market, usage: dict[str, Any] | None) -> None:
    llm.add_service("llm", dialect="openai", unit="tokens", cache=CachePolicy())
    llm.provider.behaviour = completion(usage=usage)
    for _ in range(2):
        assert (await ask(llm, CHAT)).status == 200
    await llm.until(lambda: len(llm.confirmed()) == 2)
    first, second = llm.events()
    assert len(llm.provider.requests) == 1
    assert first.units == second.units and int(first.units["tokens"]) > 0
    assert (first.cache, second.cache) == ("miss", "hit")


async def test_streams_of_a_service_with_a_cache_each_go_to_the_provider(llm: Market) -> None:
    llm.add_service("llm", dialect="openai", unit="tokens", cache=CachePolicy())
    llm.provider.behaviour = chat_stream("Nam", "aste")
    for _ in range(2):
        response = await ask(llm, {**CHAT, "stream": True})
        assert b"aste" in response.body and b"usage" not in response.body
    await llm.until(lambda: len(llm.confirmed()) == 2)
    assert [usage_of(event.units) for event in llm.events()] == [(30, 10, 20)] * 2
    assert len(llm.provider.requests) == 2


async def test_a_stream_with_a_key_is_given_again_without_what_only_we_asked_for(llm: Market) -> None:
    llm.provider.behaviour = chat_stream("Nam", "aste")
    key = "Idempotency-Key: one"
    first = await ask(llm, {**CHAT, "stream": True}, key)
    again = await ask(llm, {**CHAT, "stream": True}, key)
    assert again.body == first.body and b"usage" not in first.body
    assert again.header("idempotency-replayed") == "true"
    await llm.until(lambda: len(llm.confirmed()) == 2)
    assert [event.units["tokens"] for event in llm.events()] == ["30", "0"]


# --- quotas -------------------------------------------------------------------------------------

QUOTA = PlanLimits(quota_per_month=1000, quota_unit="tokens")


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"max_tokens": 900}, 200),
        ({"max_tokens": 950}, 429),
        ({"max_completion_tokens": 950}, 429),
        ({"max_output_tokens": 950}, 429),
        ({"max_tokens": 450, "n": 2}, 200),
        ({"max_tokens": 480, "n": 2}, 429),
        ({}, 429),  # 4096 when nobody says anything
        ({"max_tokens": "many"}, 429),
    ],
)
@pytest.mark.parametrize("pieces", [False, True], ids=["whole", "pieces"])
async def test_a_call_reserves_its_body_and_the_longest_answer(
    llm: Market, more: dict[str, Any], status: int, pieces: bool
) -> None:
    """Whether the body comes with the head or behind it: its bytes, and the tokens that the answer may have."""
    llm.add_service("llm", dialect="openai", unit="tokens", subscribed=QUOTA)
    body = json.dumps({**CHAT, **more}).encode()
    raw = llm.raw("POST", PATH, body, "Content-Type: application/json")
    client = await llm.connect()
    await client.send(raw, [raw.index(b"\r\n\r\n") + 10] if pieces else [])
    response = await client.receive("POST")
    assert response is not None and response.status == status, response.body
    if status == 429:
        assert response.json()["code"] == "QUOTA_EXHAUSTED"
        assert llm.provider.requests == []
        assert (await ask(llm, {**CHAT, "max_tokens": 900})).status == 200  # nothing of the refused call is held


async def test_a_head_that_is_sent_again_reserves_as_much(llm: Market) -> None:
    llm.add_service("llm", dialect="openai", unit="tokens", subscribed=QUOTA)
    client = await llm.connect()
    statuses = []
    for most in (700, 700, 800, 970):
        await client.send(llm.raw("POST", PATH, json.dumps({**CHAT, "max_tokens": most}).encode()))
        response = await client.receive("POST")
        assert response is not None
        statuses.append(response.status)
    assert statuses == [200, 200, 200, 429]


async def test_what_was_reserved_and_not_used_is_given_back(llm: Market) -> None:
    llm.add_service("llm", dialect="openai", unit="tokens", subscribed=QUOTA)
    for _ in range(5):
        assert (await ask(llm, {**CHAT, "max_tokens": 700})).status == 200  # 30 each


async def test_a_hard_quota_bounds_what_a_report_counts_for(llm: Market) -> None:
    llm.add_service("llm", dialect="openai", unit="tokens", subscribed=QUOTA)
    llm.provider.behaviour = completion(usage={"total_tokens": 10**9})
    await ask(llm, {**CHAT, "max_tokens": 10})
    event = await llm.settled_event()
    assert int(event.units["tokens"]) == len(json.dumps({**CHAT, "max_tokens": 10})) + 10


async def test_other_addresses_pass_untouched(llm: Market) -> None:
    async def echo(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(answer(200, request.body))
        await writer.drain()
        return True

    llm.provider.behaviour = echo
    response = await ask(llm, {"stream": True}, path="/v1/services/acme/llm/rerank")
    assert response.body == b'{"stream": true}'
    assert (await llm.settled_event()).units == {"requests": "1"}

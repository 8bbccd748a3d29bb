"""The OpenAI-compatible door, held against OpenAI's own client for Python."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any, TypeVar

import openai
import pytest

from gateway.bills import PRICE, billed
from gateway.doors.upstreams import TOKENS, chat_stream, chunk, completion, events, stream
from gateway.rig import Market, answer
from haat.gateway.limits.registry import PlanLimits

T = TypeVar("T")
HELLO: Any = [{"role": "user", "content": "Namaste"}]
CHAT = ("llm", "completed", TOKENS, "3.75")


@pytest.fixture
def llm(market: Market) -> Market:
    market.add_service(
        "llm", dialect="openai", category="llm", unit="tokens", price=PRICE, aliases=("gpt-small",), model="theirs"
    )
    market.provider.behaviour = completion()
    return market


def sync(market: Market, **options: Any) -> openai.OpenAI:
    options = {"api_key": market.key, "max_retries": 0, **options}
    return openai.OpenAI(base_url=f"http://127.0.0.1:{market.port}/v1", **options)


async def apart(do: Callable[[], T]) -> T:
    """Run a client that blocks in a thread of its own."""
    return await asyncio.to_thread(do)


def sent(market: Market) -> Any:
    return json.loads(market.provider.requests[-1].body)


@pytest.mark.speaks("openai chat.completions", client="openai (PyPI)")
async def test_a_chat_completion(llm: Market, client: openai.AsyncOpenAI) -> None:
    made = await client.chat.completions.create(model="gpt-small", messages=HELLO, temperature=0.5)
    assert made.choices[0].message.content == "Namaste!"
    assert made.usage is not None and made.usage.total_tokens == 30
    assert llm.provider.requests[-1].target == "/base/chat/completions"
    assert sent(llm) == {"messages": HELLO, "model": "theirs", "temperature": 0.5}
    assert await billed(llm) == [CHAT]


async def test_the_client_that_blocks_sees_the_same(llm: Market) -> None:
    with sync(llm) as client:
        made = await apart(lambda: client.chat.completions.create(model="acme/llm", messages=HELLO))
        assert made.choices[0].message.content == "Namaste!"
        llm.provider.behaviour = chat_stream("Nam", "aste")

        def read() -> str:
            chunks = client.chat.completions.create(model="acme/llm", messages=HELLO, stream=True)
            return "".join(one.choices[0].delta.content or "" for one in chunks)

        assert await apart(read) == "Namaste"
    assert await billed(llm) == [CHAT, CHAT]


async def test_where_the_version_names_no_model_the_callers_name_is_kept(market: Market) -> None:
    market.add_service("llm", dialect="openai", category="llm")
    market.provider.behaviour = completion()
    body = b'{ "model" : "acme/llm", "messages": [], "own": {"x": 1.50} }'
    response = await market.call("POST", "/v1/chat/completions", body, "Content-Type: application/json")
    assert response.status == 200
    assert market.provider.requests[-1].body == body


async def test_tool_calls_and_fields_that_nobody_here_knows_pass_both_ways(
    llm: Market, client: openai.AsyncOpenAI
) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Pune"}'}}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": None, "tool_calls": [call]},
        "finish_reason": "tool_calls",
    }
    llm.provider.behaviour = completion(choices=[choice], own={"x": [1.5]})
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    made = await client.chat.completions.create(
        model="acme/llm", messages=HELLO, tools=tools, extra_body={"top_k": 40, "guided": {"a": None}}
    )
    tool_calls: Any = made.choices[0].message.tool_calls
    assert tool_calls[0].function.arguments == '{"city":"Pune"}'
    assert made.model_extra == {"own": {"x": [1.5]}}
    assert await billed(llm) == [CHAT]
    assert sent(llm)["tools"] == tools and sent(llm)["top_k"] == 40 and sent(llm)["guided"] == {"a": None}


@pytest.mark.speaks("openai chat.completions", client="openai (PyPI)")
@pytest.mark.parametrize("wants_usage", [False, True])
async def test_a_streamed_completion(llm: Market, client: openai.AsyncOpenAI, wants_usage: bool) -> None:
    llm.provider.behaviour = chat_stream("Nam", "aste", "!")
    options: Any = {"stream_options": {"include_usage": True}} if wants_usage else {}
    chunks = [
        one
        async for one in await client.chat.completions.create(model="acme/llm", messages=HELLO, stream=True, **options)
    ]
    assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == "Namaste!"
    usages = [one.usage for one in chunks if one.usage is not None]
    assert [usage.total_tokens for usage in usages] == ([30] if wants_usage else [])
    assert [one for one in chunks if not one.choices] == (chunks[-1:] if wants_usage else [])
    assert await billed(llm) == [CHAT]
    assert (await llm.settled_event()).units_source == "upstream"


async def test_a_stream_that_breaks_off_is_an_error_in_the_client(llm: Market, client: openai.AsyncOpenAI) -> None:
    llm.provider.behaviour = stream([events([chunk({"content": "Nam"})])], whole=False)
    chunks = await client.chat.completions.create(model="acme/llm", messages=HELLO, stream=True)
    texts = []
    with pytest.raises(openai.APIError) as raised:
        async for one in chunks:
            texts.append(one.choices[0].delta.content)
    assert texts == ["Nam"]
    assert raised.value.code == "PROVIDER_FAILED"
    assert await billed(llm) == [("llm", "provider_failed", {}, "0")]


async def test_a_client_that_closes_a_stream_is_charged_what_has_come(llm: Market, client: openai.AsyncOpenAI) -> None:
    wait = asyncio.Event()
    llm.provider.behaviour = stream([events([chunk({"content": "x" * 40})])], wait=wait)
    chunks = await client.chat.completions.create(model="acme/llm", messages=HELLO, stream=True)
    assert (await anext(aiter(chunks))).choices[0].delta.content == "x" * 40
    await chunks.close()
    event = await llm.settled_event()
    wait.set()
    asked = -(-event.bytes_in // 4)
    units = {"tokens": str(asked + 10), "input_tokens": str(asked), "output_tokens": "10"}
    assert await billed(llm) == [("llm", "client_left", units, f"{(asked + 10) / 8:g}")]
    assert event.units_source == "counted"


async def test_each_refusal_is_the_clients_own_exception(llm: Market, client: openai.AsyncOpenAI) -> None:
    llm.add_service("foreign", dialect="openai", subscribed=None)
    llm.add_service("words", dialect="task")

    async def refused(kind: type[openai.APIStatusError], model: str, *, by: Any = client) -> openai.APIStatusError:
        with pytest.raises(kind) as raised:
            await by.chat.completions.create(model=model, messages=HELLO)
        assert type(raised.value) is kind
        return raised.value

    wrong = await refused(openai.BadRequestError, "acme/words")
    assert (wrong.param, wrong.code, wrong.type) == ("model", "INVALID_REQUEST", "invalid_request_error")
    assert wrong.request_id  # of our own header
    assert (await refused(openai.NotFoundError, "gpt-9")).code == "SERVICE_NOT_FOUND"
    assert (await refused(openai.PermissionDeniedError, "acme/foreign")).code == "NOT_SUBSCRIBED"
    stranger = client.with_options(api_key="nobody")
    assert (await refused(openai.AuthenticationError, "acme/llm", by=stranger)).type == "authentication_error"
    llm.subscribe("acme/llm", PlanLimits(per_minute=1))
    await client.chat.completions.create(model="acme/llm", messages=HELLO)
    limited = await refused(openai.RateLimitError, "acme/llm")
    assert (limited.code, limited.type) == ("RATE_LIMITED", "rate_limit_error")
    llm.subscribe("acme/llm", PlanLimits())
    problem = {
        "error": {"message": "no such parameter", "type": "invalid_request_error", "param": "x", "code": "theirs"}
    }
    llm.provider.behaviour = answer(400, json.dumps(problem).encode())
    theirs = await refused(openai.BadRequestError, "acme/llm")
    assert (theirs.param, theirs.code) == ("x", "theirs")
    llm.provider.behaviour = b"HTTP/1.1 nothing\r\n\r\n"
    assert (await refused(openai.InternalServerError, "acme/llm")).status_code == 502
    assert await billed(llm) == [
        *[("", "refused", {}, "0")] * 2,
        ("foreign", "refused", {}, "0"),
        CHAT,
        ("llm", "refused", {}, "0"),
        *[("llm", "provider_failed", {}, "0")] * 2,
    ]


async def test_a_client_that_retries_stops_where_that_is_no_use(llm: Market) -> None:
    llm.subscribe("acme/llm", PlanLimits(quota_per_month=1, quota_unit="tokens"))
    with sync(llm, max_retries=3) as client, pytest.raises(openai.RateLimitError) as raised:
        await apart(lambda: client.chat.completions.create(model="acme/llm", messages=HELLO))
    assert raised.value.code == "QUOTA_EXHAUSTED"
    assert await billed(llm) == [("llm", "refused", {}, "0")]


@pytest.mark.speaks("openai models", "openai models.retrieve", client="openai (PyPI)")
async def test_the_models(llm: Market, client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["acme/echo", "acme/llm", "gpt-small"]
    assert (await client.models.retrieve("acme/llm")).owned_by == "acme"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("acme/none")
    assert await billed(llm) == [("", "refused", {}, "0")]


@pytest.mark.speaks("openai embeddings", client="openai (PyPI)")
@pytest.mark.parametrize("dialect", ["task", "openai"])
async def test_embeddings_whoever_makes_them(market: Market, client: openai.AsyncOpenAI, dialect: str) -> None:
    market.add_service("embed", dialect=dialect, category="embedding", unit="tokens", price=PRICE)
    if dialect == "task":
        body: dict[str, Any] = {"output": [{"embedding": [0.25, -1.5]}], "usage": {"tokens": 7}}
        market.provider.behaviour = answer(200, json.dumps(body).encode(), "X-Haat-Usage: tokens=7")
    else:
        vector = base64.b64encode(bytes.fromhex("0000803e0000c0bf")).decode()
        body = {
            "object": "list",
            "model": "m",
            "data": [{"object": "embedding", "index": 0, "embedding": vector}],
            "usage": {"prompt_tokens": 7, "total_tokens": 7},
        }
        market.provider.behaviour = answer(200, json.dumps(body).encode())
    made = await client.embeddings.create(model="acme/embed", input="Namaste")
    assert made.data[0].embedding == [0.25, -1.5]
    assert made.usage.total_tokens == 7
    [event] = await billed(market)
    assert (event.service, event.outcome, event.units["tokens"], event.charge) == ("embed", "completed", "7", "0.875")


@pytest.mark.speaks("openai responses", client="openai (PyPI)")
async def test_responses(llm: Market, client: openai.AsyncOpenAI) -> None:
    usage = {
        "input_tokens": 3,
        "output_tokens": 4,
        "total_tokens": 7,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 1},
    }
    message = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "Namaste", "annotations": []}],
    }
    body = {"id": "r", "object": "response", "created_at": 1, "model": "m", "output": [message], "usage": usage}
    llm.provider.behaviour = answer(200, json.dumps(body).encode())
    made = await client.responses.create(model="acme/llm", input="Namaste")
    assert made.output_text == "Namaste"
    assert sent(llm) == {"input": "Namaste", "model": "theirs"}
    units = {"tokens": "7", "input_tokens": "3", "output_tokens": "4", "reasoning_tokens": "1"}
    assert await billed(llm) == [("llm", "completed", units, "0.875")]


@pytest.mark.speaks("openai responses", client="openai (PyPI)")
async def test_streamed_responses(llm: Market, client: openai.AsyncOpenAI) -> None:
    usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    whole = {"id": "r", "object": "response", "created_at": 1, "model": "m", "output": []}
    place = {"output_index": 0, "content_index": 0, "item_id": "m"}
    parts = [
        {"type": "response.created", "sequence_number": 0, "response": whole},
        {"type": "response.output_text.delta", "sequence_number": 1, "delta": "Namaste", **place},
        {"type": "response.completed", "sequence_number": 2, "response": {**whole, "usage": usage}},
    ]
    llm.provider.behaviour = stream([events(parts, named=True)])
    seen = [one async for one in await client.responses.create(model="acme/llm", input="Namaste", stream=True)]
    assert [one.type for one in seen] == [part["type"] for part in parts]
    units = {"tokens": "7", "input_tokens": "3", "output_tokens": "4"}
    assert await billed(llm) == [("llm", "completed", units, "0.875")]


@pytest.mark.speaks("openai moderations", client="openai (PyPI)")
@pytest.mark.parametrize("named", [{}, {"model": "acme/guard"}], ids=["unnamed", "named"])
async def test_moderations_of_a_task_service(market: Market, client: openai.AsyncOpenAI, named: Any) -> None:
    market.add_service("guard", dialect="task", category="nlp", price=PRICE, aliases=("omni-moderation-latest",))
    outputs = [
        {"flagged": False, "categories": {"harassment": False}, "scores": {"harassment": 0.1}},
        {"flagged": True, "categories": {"harassment": True}, "scores": {"harassment": 0.9}},
    ]
    market.provider.behaviour = answer(200, json.dumps({"output": outputs}).encode())
    made = await client.moderations.create(input=["a", "b"], **named)
    assert sent(market) == {"input": [{"text": "a"}, {"text": "b"}]}
    assert [one.flagged for one in made.results] == [False, True]
    assert made.results[1].categories.harassment is True
    assert made.results[1].category_scores.harassment == 0.9
    market.provider.behaviour = answer(200, b'{"output": [{"text": "x"}]}')
    with pytest.raises(openai.InternalServerError):
        await client.moderations.create(input="a", **named)
    picture: Any = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    with pytest.raises(openai.BadRequestError):
        await client.moderations.create(input=picture, **named)
    assert await billed(market) == [
        ("guard", "completed", {}, PRICE),
        ("guard", "provider_failed", {}, "0"),
        ("", "refused", {}, "0"),
    ]


async def test_moderations_are_passed_on_to_who_speaks_the_protocol(llm: Market, client: openai.AsyncOpenAI) -> None:
    llm.provider.behaviour = answer(200, b'{"id": "m", "model": "theirs", "results": []}')
    made = await client.moderations.create(model="acme/llm", input="a")
    assert made.model == "theirs" and llm.provider.requests[-1].target == "/base/moderations"
    assert await billed(llm) == [("llm", "completed", {"tokens": "0"}, "0")]

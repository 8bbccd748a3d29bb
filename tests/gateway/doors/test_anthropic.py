"""Anthropic's door, held against Anthropic's own client for Python."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest

from gateway.bills import PRICE, billed
from gateway.doors.upstreams import events, stream
from gateway.rig import Market, answer
from haat.gateway.limits.registry import PlanLimits
from haat.usage.event import Outcome

HELLO: Any = [{"role": "user", "content": "Namaste"}]
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "theirs",
    "content": [{"type": "text", "text": "Namaste!"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 5, "cache_read_input_tokens": 7, "output_tokens": 20},
}
STREAM = [
    {"type": "message_start", "message": {**MESSAGE, "content": [], "usage": {"input_tokens": 5, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Nam"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "aste"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 20},
    },
    {"type": "message_stop"},
]

WHOLE = (
    *("claude", "completed"),
    {"tokens": "32", "input_tokens": "12", "output_tokens": "20", "cached_tokens": "7"},
    "4",
)
STREAMED = ("claude", "completed", {"tokens": "25", "input_tokens": "5", "output_tokens": "20"}, "3.125")


@pytest.fixture
def claude(market: Market) -> Market:
    market.add_service("claude", dialect="anthropic", category="llm", unit="tokens", price=PRICE, model="theirs")
    market.provider.behaviour = answer(200, json.dumps(MESSAGE).encode())
    return market


@pytest.fixture
async def client(market: Market) -> AsyncIterator[anthropic.AsyncAnthropic]:
    address = f"http://127.0.0.1:{market.port}"
    async with anthropic.AsyncAnthropic(base_url=address, api_key=market.key, max_retries=0) as made:
        yield made


@pytest.mark.speaks("anthropic messages", client="anthropic (PyPI)")
async def test_a_message(claude: Market, client: anthropic.AsyncAnthropic) -> None:
    made = await client.messages.create(
        model="acme/claude", max_tokens=64, messages=HELLO, extra_headers={"anthropic-beta": "own-2026"}
    )
    [block] = made.content
    assert block.type == "text" and block.text == "Namaste!"
    [request] = claude.provider.requests
    assert request.target == "/base/messages"
    assert json.loads(request.body) == {"max_tokens": 64, "messages": HELLO, "model": "theirs"}
    assert len(request.header("anthropic-version")) == 1 and request.header("anthropic-beta") == ["own-2026"]
    assert request.header("x-api-key") == [] and request.header("x-provider-key") == ["provider-secret"]
    assert await billed(claude) == [WHOLE]


async def test_the_client_that_blocks_sees_the_same(claude: Market) -> None:
    address = f"http://127.0.0.1:{claude.port}"
    with anthropic.Anthropic(base_url=address, api_key=claude.key, max_retries=0) as client:
        made = await asyncio.to_thread(
            lambda: client.messages.create(model="acme/claude", max_tokens=64, messages=HELLO)
        )
    assert made.usage.output_tokens == 20
    assert await billed(claude) == [WHOLE]


@pytest.mark.speaks("anthropic messages", client="anthropic (PyPI)")
async def test_a_streamed_message(claude: Market, client: anthropic.AsyncAnthropic) -> None:
    claude.provider.behaviour = stream([events(STREAM, named=True)])
    async with client.messages.stream(model="acme/claude", max_tokens=64, messages=HELLO) as streamed:
        assert "".join([text async for text in streamed.text_stream]) == "Namaste"
        assert (await streamed.get_final_message()).usage.output_tokens == 20
    assert await billed(claude) == [STREAMED]
    assert (await claude.settled_event()).units_source == "upstream"


async def test_a_stream_that_breaks_off_is_an_error_in_the_client(
    claude: Market, client: anthropic.AsyncAnthropic
) -> None:
    claude.provider.behaviour = stream([events(STREAM[:4], named=True)], whole=False)
    seen = []
    with pytest.raises(anthropic.APIStatusError) as raised:
        async for event in await client.messages.create(
            model="acme/claude", max_tokens=64, messages=HELLO, stream=True
        ):
            seen.append(event.type)
    assert "content_block_delta" in seen
    body: Any = raised.value.body
    assert body["type"] == "error" and body["error"]["code"] == "PROVIDER_FAILED"
    assert await billed(claude) == [("claude", "provider_failed", {}, "0")]


@pytest.mark.speaks("anthropic messages.count_tokens", client="anthropic (PyPI)")
async def test_tokens_are_counted_by_the_provider_and_take_none(
    claude: Market, client: anthropic.AsyncAnthropic
) -> None:
    claude.provider.behaviour = answer(200, b'{"input_tokens": 2095}')
    assert (await client.messages.count_tokens(model="acme/claude", messages=HELLO)).input_tokens == 2095
    assert claude.provider.requests[-1].target == "/base/messages/count_tokens"
    assert await billed(claude) == [("claude", "completed", {"tokens": "0"}, "0")]


async def test_each_refusal_is_the_clients_own_exception(claude: Market, client: anthropic.AsyncAnthropic) -> None:
    claude.add_service("foreign", dialect="anthropic", subscribed=None)
    claude.add_service("llm", dialect="openai")

    async def refused(kind: type[anthropic.APIStatusError], model: str, by: Any = client) -> dict[str, Any]:
        with pytest.raises(kind) as raised:
            await by.messages.create(model=model, max_tokens=64, messages=HELLO)
        assert type(raised.value) is kind
        body: Any = raised.value.body
        assert body["type"] == "error" and body["request_id"] and body["error"]["message"]
        return dict(body["error"])

    assert (await refused(anthropic.BadRequestError, "acme/llm"))["type"] == "invalid_request_error"
    assert (await refused(anthropic.NotFoundError, "claude-9"))["type"] == "not_found_error"
    assert (await refused(anthropic.PermissionDeniedError, "acme/foreign"))["type"] == "permission_error"
    stranger = client.with_options(api_key="nobody")
    assert (await refused(anthropic.AuthenticationError, "acme/claude", stranger))["type"] == "authentication_error"
    claude.subscribe("acme/claude", PlanLimits(quota_per_month=1, quota_unit="tokens"))
    quota = await refused(anthropic.RateLimitError, "acme/claude")
    assert (quota["type"], quota["code"]) == ("rate_limit_error", "QUOTA_EXHAUSTED")
    claude.subscribe("acme/claude", PlanLimits())
    claude.provider.behaviour = b"HTTP/1.1 nothing\r\n\r\n"
    assert (await refused(anthropic.InternalServerError, "acme/claude"))["type"] == "api_error"
    assert await billed(claude) == [
        *[("", "refused", {}, "0")] * 2,
        ("foreign", "refused", {}, "0"),
        ("claude", "refused", {}, "0"),
        ("claude", "provider_failed", {}, "0"),
    ]


@pytest.mark.parametrize("body", [b"{", b"{}", b'{"model": 5}', b"[]", b"\xff"], ids=repr)
async def test_a_body_that_names_no_model_is_refused_in_the_protocols_shape(claude: Market, body: bytes) -> None:
    response = await claude.call("POST", "/v1/messages", body, "Content-Type: application/json")
    assert response.status == 400 and response.json()["error"]["type"] == "invalid_request_error"
    assert (await claude.settled_event()).outcome == Outcome.REFUSED

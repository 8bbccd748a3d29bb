"""The same work asked for natively and at a door leaves the same record, but for id, time and durations."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.doors.upstreams import chat_stream, completion
from gateway.rig import Behaviour, Market, answer

EMBEDDING = answer(
    200, json.dumps({"output": [{"embedding": [1.0]}], "usage": {"tokens": 7}}).encode(), "X-Haat-Usage: tokens=7"
)
CHAT = {"model": "acme/llm", "messages": [{"role": "user", "content": "Namaste"}]}
_OWN = {"id", "at", "timings_us"}


@pytest.mark.parametrize(
    ("dialect", "behaviour", "native", "door"),
    [
        (
            "task",
            EMBEDDING,
            ("/invoke", {"input": [{"text": "a"}]}),
            ("/v1/embeddings", {"model": "acme/llm", "input": "a"}),
        ),
        (
            "openai",
            answer(200, b'{"data": [], "usage": {"prompt_tokens": 7, "total_tokens": 7}}'),
            ("/embeddings", {"model": "acme/llm", "input": "a"}),
            ("/v1/embeddings", {"model": "acme/llm", "input": "a"}),
        ),
        ("openai", completion(), ("/chat/completions", CHAT), ("/v1/chat/completions", CHAT)),
        ("openai", completion(usage=None), ("/chat/completions", CHAT), ("/v1/chat/completions", CHAT)),
        (
            "openai",
            chat_stream("Nam", "aste"),
            ("/chat/completions", {**CHAT, "stream": True}),
            ("/v1/chat/completions", {**CHAT, "stream": True}),
        ),
        (
            "anthropic",
            answer(200, b'{"content": [], "usage": {"input_tokens": 5, "output_tokens": 20}}'),
            ("/messages", CHAT),
            ("/v1/messages", CHAT),
        ),
        ("openai", answer(400, b'{"error": {}}'), ("/chat/completions", CHAT), ("/v1/chat/completions", CHAT)),
    ],
    ids=["embedding-task", "embedding", "chat", "chat-estimated", "chat-stream", "message", "refusal"],
)
async def test_a_door_changes_nothing_in_the_record(
    market: Market,
    dialect: str,
    behaviour: bytes | Behaviour,
    native: tuple[str, Any],
    door: tuple[str, Any],
) -> None:
    market.add_service("llm", dialect=dialect, unit="tokens")
    market.provider.behaviour = behaviour
    for path, body in ((f"/v1/services/acme/llm{native[0]}", native[1]), door):
        raw = json.dumps(body, separators=(",", ":")).encode()
        await market.call("POST", path, raw, "Content-Type: application/json")
    await market.until(lambda: len(market.confirmed()) == 2)
    assert len(market.provider.requests) == 2
    assert market.provider.requests[0].body == market.provider.requests[1].body
    one, other = (
        {name: getattr(event, name) for name in event.__struct_fields__ if name not in _OWN}
        for event in market.events()
    )
    assert one == other

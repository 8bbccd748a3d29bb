"""Whatever is sent to a door is answered in its protocol's shape, recorded, and never our own failure."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.doors.forms import CONTENT_TYPE, form
from gateway.rig import Market
from haat.gateway.doors.openai.chat import ChatCompletions
from haat.usage.event import Outcome

BODIES: tuple[bytes, ...] = (
    b"",
    b"null",
    b"5",
    b'"text"',
    b"[]",
    b"{}",
    b"{",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"model": null}',
    b'{"model": ""}',
    b'{"model": "\\ud800"}',
    b'{"model": "acme/words", "input": {"a": 1}, "voice": 5}',
    b'{"model": "acme/words", "input": [null], "voice": []}',
    b'{"model": "acme/words", "input": [[[]]], "speed": "fast"}',
    b'{"model": "acme/words@9", "input": "a", "voice": "b"}',
    b'{"model": "acme/../x", "input": "a", "voice": "b"}',
    b'{"model": "/", "input": "a", "voice": "b"}',
    json.dumps({"model": "x" * 100_000, "input": "a", "voice": "b"}).encode(),
    form(("model", None, b"\xff")),
    form(("model", None, b"x" * 100_000)),
    form(("model", "a.wav", b"acme/words")),
)
ADDRESSES = (
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/moderations",
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
    "/v1/messages",
    "/v1/messages/count_tokens",
)


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("content_type", ["Content-Type: application/json", CONTENT_TYPE], ids=["json", "form"])
async def test_an_odd_body_is_the_callers_fault(market: Market, address: str, content_type: str) -> None:
    market.add_service("words", dialect="task", category="nlp")
    for body in BODIES:
        response = await market.call("POST", address, body, content_type)
        error: dict[str, Any] = response.json()["error"]
        assert 400 <= response.status < 500, (body[:80], response.body)
        assert error["message"] and error["type"] and error["code"]
    assert market.provider.requests == []
    assert {event.outcome for event in market.events()} == {Outcome.REFUSED}
    assert len(market.events()) == len(BODIES)


def fail(*_: object) -> bool:
    raise RuntimeError("nobody foresaw this")


@pytest.mark.parametrize("times", [1, 2], ids=["first", "head-again"])
async def test_an_error_of_ours_is_answered_too(
    market: Market, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, times: int
) -> None:
    client = await market.connect()
    raw = market.raw(
        "POST", "/v1/chat/completions", b'{"model": "acme/none", "messages": []}', "Content-Type: application/json"
    )
    for _ in range(times - 1):
        await client.send(raw)
        response = await client.receive("POST")
        assert response is not None and response.status == 404
    monkeypatch.setattr(ChatCompletions, "enter", fail)
    await client.send(raw)
    response = await client.receive("POST")
    assert response is not None and (response.status, response.json()["error"]["code"]) == (500, "INTERNAL")
    assert await client.ended()
    assert "should not happen" in caplog.text

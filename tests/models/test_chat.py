"""A hosted chat: what it is asked, how its answers are cut and counted, and the process that serves it."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.kernel.errors import HaatError, InvalidRequest
from haat.models.chat import Asked, Reply, read_request
from haat.models.chats import Chats
from haat.models.execution import Execution
from haat.models.hosted import HostedChat, Speak, Turn
from haat.models.process import build_app
from haat.plugins.manager import hosted_chats
from haat.providers.companies import AKSHARA

TOKEN = "models-token"
CHAT = hosted_chats()["akshara/chat"]
ADDRESS = "/akshara/chat/chat/completions"


def saying(text: str, **changes: Any) -> HostedChat:
    """Return a chat that says one text over and over, a character at a time."""

    def speak(turn: Turn) -> Iterator[str]:
        while True:
            yield from text

    return parrot(lambda: speak, **changes)


def parrot(open_: Any, **changes: Any) -> HostedChat:
    fields = {
        "company": AKSHARA,
        "slug": "parrot",
        "name": "Parrot",
        "summary": "",
        "description": "",
        "category": "llm",
        "unit": "tokens",
        "sample": {"messages": [{"role": "user", "content": "a"}]},
        "unit_price": Decimal(0),
        "license_note": "",
        "open": open_,
    }
    return HostedChat(**{**fields, **changes})


def request(**fields: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": "hello"}], **fields}).encode()


def asked(chat: HostedChat, **fields: Any) -> Asked:
    return read_request(chat, request(**fields))


# --- what is asked --------------------------------------------------------------------------------


def test_a_request_becomes_a_turn() -> None:
    body = {
        "model": "any",
        "messages": [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": None, "tool_calls": []},
        ],
        "max_completion_tokens": 9,
        "temperature": 0,
        "seed": 3,
        "stop": "x",
        "stream": True,
        "stream_options": {"include_usage": True},
        "user": "asha",
        "n": 1,
    }
    found = read_request(CHAT, json.dumps(body).encode())
    messages = (("system", "be kind"), ("user", "a\nb"), ("assistant", ""))
    assert found == Asked(Turn(messages, 9, 0, 1.0, 3, ("x",)), "any", 10, True, True)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "king", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": "a\0b"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "a"}] * 201}, "messages"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1_001}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"seed": 1.5}, "seed"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stop": ["x" * 65]}, "stop"),
        ({"n": 2}, "n"),
        ({"tools": [{}]}, "tools"),
        ({"functions": [{}]}, "functions"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"frequency_penalty": 1}, "frequency_penalty"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"modalities": ["audio"]}, "modalities"),
    ],
)
def test_what_it_cannot_do_is_refused_by_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        asked(CHAT, **fields)
    assert refusal.value.extensions["field"] == field


@pytest.mark.parametrize("body", [b"", b"{", b'{"tools":' + b"[" * 100_000, b'{"model": "\xff"}'])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(HaatError) as refusal:
        read_request(CHAT, body)
    assert refusal.value.code == "MALFORMED_JSON"


def test_a_conversation_has_a_limit() -> None:
    with pytest.raises(HaatError) as refusal:
        asked(CHAT, messages=[{"role": "user", "content": "a" * 10_001}] * 2)
    assert refusal.value.code == "INPUT_TOO_LONG"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["messages", "stop", "seed", "temperature", "stream", "n", "tools"]), JSON))
def test_any_request_is_taken_or_refused(fields: dict[str, Any]) -> None:
    try:
        asked(CHAT, **fields)
    except HaatError as error:
        assert 400 <= error.status < 500


# --- the answer -----------------------------------------------------------------------------------


def told(text: str, **fields: Any) -> Reply:
    chat = saying(text)
    question = asked(chat, **fields)
    reply = Reply(chat, question, chat.open()(question.turn))
    assert "".join(reply.pieces()) == reply.text
    return reply


def test_an_answer_ends_with_its_tokens() -> None:
    reply = told("abc", max_tokens=7)
    assert (reply.text, reply.reason) == ("abcabca", "length")
    assert reply.usage == {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}


@pytest.mark.parametrize(
    ("stop", "text", "reason"),
    [
        ("c", "ab", "stop"),
        (["bca", "ca"], "a", "stop"),
        (["xyz"], "abcabcabca", "length"),
        (["cc", "cab"], "ab", "stop"),
        (["caa"], "abcabcabca", "length"),
    ],
)
def test_an_answer_is_cut_before_a_stop_text(stop: str | list[str], text: str, reason: str) -> None:
    reply = told("abc", max_tokens=10, stop=stop)
    assert (reply.text, reply.reason) == (text, reason)


@given(
    st.text("ab", min_size=1, max_size=6),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=4),
    st.integers(1, 30),
)
def test_nothing_of_a_stop_text_is_ever_given(text: str, stops: list[str], most: int) -> None:
    whole = (text * 31)[:most]
    found = [at for stop in stops if (at := whole.find(stop)) >= 0]
    reply = told(text, max_tokens=most, stop=stops)
    assert not any(stop in reply.text for stop in stops)
    assert whole.startswith(reply.text)
    if not found:
        assert (reply.text, reply.reason) == (whole, "length")


# --- the process ----------------------------------------------------------------------------------


def client_of(chats: Chats) -> httpx.AsyncClient:
    app = build_app(Execution({}), TOKEN, chats)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {TOKEN}", "X-Request-ID": "call-7"}
    return httpx.AsyncClient(transport=transport, base_url="http://models", headers=headers)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(Chats(hosted_chats())) as client:
        yield client


def events(response: httpx.Response) -> list[Any]:
    assert response.headers["content-type"].startswith("text/event-stream")
    *lines, last = [line for line in response.text.split("\n\n") if line]
    assert last == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


async def test_an_answer_is_a_completion_with_its_usage(client: httpx.AsyncClient) -> None:
    response = await client.post(
        ADDRESS, json={"model": "m", "messages": [{"role": "user", "content": "hello"}], "seed": 5}
    )
    body = response.json()
    assert response.status_code == 200
    assert (body["object"], body["model"], body["id"][:9]) == ("chat.completion", "m", "chatcmpl-")
    assert abs(body["created"] - time.time()) < 60
    [choice] = body["choices"]
    assert choice["message"]["role"] == "assistant" and len(choice["message"]["content"]) > 10
    assert choice["finish_reason"] in ("stop", "length")
    tokens = 5 + len(choice["message"]["content"])
    assert body["usage"]["total_tokens"] == tokens
    assert response.headers["x-haat-usage"] == f"tokens={tokens}"
    assert response.headers["x-request-id"] == "call-7"


@pytest.mark.parametrize("by_itself", [True, False])
async def test_a_stream_says_the_same_and_ends_with_the_usage(client: httpx.AsyncClient, by_itself: bool) -> None:
    body = json.loads(request(seed=5, max_tokens=60))
    whole = (await client.post(ADDRESS, json=body)).json()
    options = {"stream": True, "stream_options": {"include_usage": by_itself}}
    chunks = events(await client.post(ADDRESS, json={**body, **options}))
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert (
        "".join(choice["delta"].get("content", "") for choice in choices) == whole["choices"][0]["message"]["content"]
    )
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == [
        whole["choices"][0]["finish_reason"]
    ]
    assert chunks[-1]["usage"] == whole["usage"]
    assert (chunks[-1]["choices"] == []) is by_itself
    assert all("usage" not in chunk for chunk in chunks[:-1])


async def test_the_same_seed_says_the_same_and_another_one_does_not(client: httpx.AsyncClient) -> None:
    async def said(**fields: Any) -> str:
        response = await client.post(ADDRESS, content=request(**fields))
        return str(response.json()["choices"][0]["message"]["content"])

    assert await said(seed=1) == await said(seed=1)
    assert len({await said(seed=seed) for seed in range(5)}) > 1
    assert len({await said(temperature=0, max_tokens=50) for _ in range(3)}) == 1
    hindi = await said(seed=1, temperature=0.5, messages=[{"role": "user", "content": "आम कितने के हैं?"}])
    assert "\u0900" < hindi[0] < "\u097f"


@pytest.mark.parametrize(
    ("headers", "body", "status", "code", "kind"),
    [
        ({}, b"{", 400, "MALFORMED_JSON", "invalid_request_error"),
        ({}, request(n=3), 400, "INVALID_REQUEST", "invalid_request_error"),
        ({"Authorization": "Bearer other"}, request(), 401, "INVALID_CREDENTIAL", "authentication_error"),
        ({}, b" " * 2_000_000, 413, "BODY_TOO_LARGE", "invalid_request_error"),
    ],
)
async def test_a_refusal_has_the_protocols_shape(
    client: httpx.AsyncClient, headers: dict[str, str], body: bytes, status: int, code: str, kind: str
) -> None:
    response = await client.post(ADDRESS, content=body, headers=headers)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["type"]) == (status, code, kind)
    assert error["message"] and response.headers["x-request-id"] == "call-7"


async def test_chats_and_task_services_have_addresses_of_their_own(client: httpx.AsyncClient) -> None:
    assert (await client.post("/akshara/chat/invoke", json={})).status_code == 404
    assert (await client.post("/akshara/sentiment/chat/completions", json={})).status_code == 404
    assert (await client.get("/akshara/chat/health")).json() == {"status": "ok"}
    assert (await client.get("/health")).json()["services"] == {"akshara/chat": "ok"}


async def test_a_model_that_fails_is_said_to_have_failed(caplog: pytest.LogCaptureFixture) -> None:
    def breaks(turn: Turn) -> Iterator[str]:
        yield from "abcdefghijklmnop"
        raise RuntimeError("a secret of the model")

    opened: list[int] = []

    def opens() -> Speak:
        opened.append(1)
        if len(opened) == 1:
            raise OSError("no memory")
        return breaks

    with caplog.at_level(logging.ERROR):
        async with client_of(Chats({"akshara/parrot": parrot(opens)})) as client:
            for _ in range(2):  # it can't be loaded at first, then breaks off
                response = await client.post("/akshara/parrot/chat/completions", content=request())
                assert (response.status_code, response.json()["error"]["code"]) == (502, "ENGINE_FAILED")
            response = await client.post("/akshara/parrot/chat/completions", content=request(stream=True))
    assert response.status_code == 200  # it was under way
    last = [line for line in response.text.split("\n\n") if line][-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "ENGINE_FAILED"
    assert "a secret" not in response.text and "a secret" in caplog.text


async def test_a_model_that_is_not_installed_says_so() -> None:
    chat = saying("a", missing=lambda: "parrot is not installed.")
    async with client_of(Chats({"akshara/parrot": chat})) as client:
        response = await client.post("/akshara/parrot/chat/completions", content=request())
        assert (response.status_code, response.json()["error"]["message"]) == (503, "parrot is not installed.")


async def test_a_model_is_loaded_once_for_all_who_wait() -> None:
    opened: list[int] = []

    def opens() -> Speak:
        opened.append(1)
        time.sleep(0.05)
        return saying("a").open()

    chats = Chats({"akshara/parrot": parrot(opens)})
    await chats.warm_up()
    async with client_of(chats) as client:
        for _ in range(3):
            assert (await client.post("/akshara/parrot/chat/completions", content=request())).status_code == 200
    assert opened == [1]


async def test_answers_are_made_by_turns_and_no_more_than_so_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("haat.models.chats.MOST_AT_ONCE", 3)
    said: list[str] = []

    def speak(turn: Turn) -> Iterator[str]:
        for _ in range(32):
            said.append(turn.messages[0][1])
            yield "x"

    async with client_of(Chats({"akshara/parrot": parrot(lambda: speak)})) as client:

        async def ask(name: str) -> httpx.Response:
            body = json.dumps({"messages": [{"role": "user", "content": name}]})
            return await client.post("/akshara/parrot/chat/completions", content=body)

        await ask("first")  # loads the model
        said.clear()
        answers = [asyncio.create_task(ask(name)) for name in "abc"]
        while len(set(said)) < 3:  # noqa: ASYNC110  # until each has had a turn
            await asyncio.sleep(0)
        late = await ask("d")
        assert (late.status_code, late.json()["error"]["code"], late.headers["retry-after"]) == (503, "OVERLOADED", "2")
        assert {answer.status_code for answer in await asyncio.gather(*answers)} == {200}
        assert (await ask("d")).status_code == 200
    turns = [name for name, run in itertools.groupby(said) for _ in range(len(list(run)) // 8)]
    assert turns[:6] == ["a", "b", "c", "a", "b", "c"]


def test_the_sample_is_one() -> None:
    read_request(CHAT, msgspec.json.encode(CHAT.sample))

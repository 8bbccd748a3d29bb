"""The example of docs/chat.md, and the chat as OpenAI's own client finds it behind the gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import openai
import pytest
import uvicorn

from gateway.bills import PRICE, billed
from gateway.rig import Market, close_market, open_market
from haat.infra.keyring import Keyring
from haat.models.chats import Chats
from haat.models.execution import Execution
from haat.models.process import build_app
from haat.plugins.manager import hosted_chats

DOCS = (Path(__file__).parents[2] / "docs" / "chat.md").read_text()
TOKEN = "models-token"


def block(kind: str) -> Any:
    return json.loads(DOCS.split(f"```json {kind}\n", 1)[1].split("```", 1)[0])


async def test_the_documented_example_gets_the_documented_answer() -> None:
    app = build_app(Execution({}), TOKEN, Chats(hosted_chats()))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://models", headers=headers
    ) as client:
        answer = (await client.post("/akshara/chat/chat/completions", json=block("example"))).json()
    assert answer.pop("id").startswith("chatcmpl-") and answer.pop("created") > 0
    expected = block("answer")
    assert answer == {name: value for name, value in expected.items() if name not in ("id", "created")}


@pytest.fixture
async def market(tmp_path: Path) -> AsyncIterator[Market]:
    """A gateway with the chat behind it, which runs as the models process runs it."""
    app = build_app(Execution({}), TOKEN, Chats(hosted_chats()))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  # it has no event for that
        await asyncio.sleep(0.005)
    market = await open_market(tmp_path, Keyring(bytes(32)))
    port = server.servers[0].sockets[0].getsockname()[1]
    market.add_service(
        "chat", port=port, base="/akshara/chat", unit="tokens", price=PRICE, dialect="openai", category="llm"
    )
    service = market.gateway.directory.services["acme/chat"]
    credential = market.keyring.encrypt(f"Bearer {TOKEN}", service.id)
    service = msgspec.structs.replace(service, credential_header="Authorization", credential=credential)
    market.gateway.directory.put_service(service.id, service)
    yield market
    await close_market(market)
    server.should_exit = True
    await serving


async def ask(market: Market, use: Callable[[openai.OpenAI], Any]) -> Any:
    def work() -> Any:
        address = f"http://127.0.0.1:{market.port}/v1/services/acme/chat"
        with openai.OpenAI(api_key=market.key, base_url=address, max_retries=0) as client:
            return use(client)

    return await asyncio.to_thread(work)


HELLO: Any = [{"role": "user", "content": "hello"}]


async def test_a_client_of_openais_chats_with_it_and_is_metered_by_the_token(market: Market) -> None:
    answer = await ask(
        market, lambda client: client.chat.completions.create(model="any", messages=HELLO, seed=5, max_tokens=30)
    )
    assert answer.choices[0].finish_reason == "length"
    assert len(answer.choices[0].message.content) == 30
    assert answer.usage.total_tokens == 35
    assert await billed(market) == [("chat", "completed", {"tokens": "35"}, "4.375")]


async def test_a_client_of_openais_follows_its_stream(market: Market) -> None:
    def use(client: openai.OpenAI) -> tuple[str, Any]:
        text, usage = "", None
        options = {"include_usage": True}
        stream = client.chat.completions.create(
            model="any",
            messages=HELLO,
            seed=5,
            max_tokens=30,
            stream=True,
            stream_options=options,  # type: ignore[arg-type]
        )
        for chunk in stream:
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
            usage = chunk.usage
        return text, usage

    text, usage = await ask(market, use)
    assert len(text) == 30 and usage.total_tokens == 35
    units = {"tokens": "35", "input_tokens": "5", "output_tokens": "30"}
    assert await billed(market) == [("chat", "completed", units, "4.375")]


async def test_a_client_of_openais_reads_its_refusals(market: Market) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        await ask(market, lambda client: client.chat.completions.create(model="any", messages=HELLO, n=2))
    assert (refusal.value.code, refusal.value.param) == ("INVALID_REQUEST", "n")
    assert await billed(market) == [("chat", "provider_failed", {}, "0")]

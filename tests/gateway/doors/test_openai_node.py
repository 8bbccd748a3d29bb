"""The OpenAI-compatible door, held against OpenAI's own client for JavaScript."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.bills import PRICE, billed
from gateway.doors.node import folder_with, run
from gateway.doors.upstreams import TOKENS, chat_stream, completion
from gateway.rig import Market, Provider, Request, answer

VERSION = "7"

PROGRAM = """
import fs from "node:fs";
import OpenAI, { toFile } from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: process.argv[3], maxRetries: 0 });
const messages = [{ role: "user", content: "Namaste" }];
const seen = {};

const whole = await client.chat.completions.create({ model: "acme/llm", messages });
seen.whole = whole.choices[0].message.content;
seen.pieces = [];
for await (const chunk of await client.chat.completions.create({ model: "acme/llm", messages, stream: true })) {
  seen.pieces.push(chunk.choices[0].delta.content ?? "");
}
const embedding = await client.embeddings.create({ model: "acme/llm", input: "Namaste" });
seen.embedding = embedding.data[0].embedding;
seen.models = [];
for await (const model of client.models.list()) seen.models.push(model.id);
try {
  await client.chat.completions.create({ model: "gpt-9", messages });
} catch (error) {
  seen.error = [error.constructor.name, error.status, error.code];
}
const file = await toFile(Buffer.alloc(300000, 1), "a.wav");
seen.text = (await client.audio.transcriptions.create({ file, model: "acme/llm" })).text;
console.log(JSON.stringify(seen));
"""


@pytest.fixture(scope="session")
def node() -> Path:
    """Return the folder in ``build`` with the client in it; it is installed once."""
    return folder_with(PROGRAM, f"openai@{VERSION}")


async def behave(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    path = request.target.removeprefix("/base")
    if path == "/audio/transcriptions":
        writer.write(answer(200, json.dumps({"text": str(len(request.body))}).encode()))
    elif path == "/embeddings":
        data: list[dict[str, Any]] = [{"object": "embedding", "index": 0, "embedding": "AACAPgAAwL8="}]
        writer.write(
            answer(
                200, json.dumps({"object": "list", "data": data, "model": "m", "usage": {"total_tokens": 7}}).encode()
            )
        )
    elif json.loads(request.body).get("stream"):
        return await chat_stream("Nam", "aste")(request, reader, writer)
    else:
        writer.write(completion())
    await writer.drain()
    return True


@pytest.mark.speaks(
    "openai chat.completions",
    "openai embeddings",
    "openai models",
    "openai audio.transcriptions",
    client="openai (npm)",
)
async def test_a_program_in_javascript_is_served(market: Market, node: Path) -> None:
    market.add_service("llm", dialect="openai", category="llm", unit="tokens", price=PRICE)
    provider: Provider = market.provider
    provider.behaviour = behave
    seen = await run(node, f"http://127.0.0.1:{market.port}/v1", market.key)
    assert int(seen.pop("text")) > 300_000
    assert seen == {
        "whole": "Namaste!",
        "pieces": ["", "Nam", "aste", ""],
        "embedding": [0.25, -1.5],
        "models": ["acme/echo", "acme/llm"],
        "error": ["NotFoundError", 404, "SERVICE_NOT_FOUND"],
    }
    assert await billed(market) == [
        ("llm", "completed", TOKENS, "3.75"),
        ("llm", "completed", TOKENS, "3.75"),
        ("llm", "completed", {"tokens": "7"}, "0.875"),
        ("", "refused", {}, "0"),
        ("llm", "completed", {}, "0"),
    ]

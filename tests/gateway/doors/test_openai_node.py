"""The OpenAI-compatible door, held against OpenAI's own client for JavaScript."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gateway.doors.upstreams import chat_stream, completion
from gateway.rig import Market, Provider, Request, answer

VERSION = "7"
FOLDER = Path(__file__).parents[3] / "build" / "node-openai"
PATIENCE = 60.0

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
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.fail("This test runs OpenAI's client for JavaScript: install Node.js 20 or later, with npm.")
    if not (FOLDER / "node_modules" / "openai" / "package.json").exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / "package.json").write_text(json.dumps({"private": True, "type": "module"}))
        command = ["npm", "install", f"openai@{VERSION}", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=300)
        if done.returncode:
            pytest.fail(f"npm could not install the client `openai`: {done.stderr.strip()[-500:]}")
    (FOLDER / "program.mjs").write_text(PROGRAM)
    return FOLDER


async def behave(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    path = request.target.removeprefix("/base")
    if path == "/audio/transcriptions":
        writer.write(answer(200, json.dumps({"text": str(len(request.body))}).encode()))
    elif path == "/embeddings":
        data: list[dict[str, Any]] = [{"object": "embedding", "index": 0, "embedding": "AACAPgAAwL8="}]
        writer.write(answer(200, json.dumps({"object": "list", "data": data, "model": "m"}).encode()))
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
    market.add_service("llm", dialect="openai", category="llm", unit="tokens")
    provider: Provider = market.provider
    provider.behaviour = behave
    address = f"http://127.0.0.1:{market.port}/v1"
    process = await asyncio.create_subprocess_exec(
        "node", "program.mjs", address, market.key, cwd=node, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    async with asyncio.timeout(PATIENCE):
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    seen = json.loads(output)
    assert int(seen.pop("text")) > 300_000
    assert seen == {
        "whole": "Namaste!",
        "pieces": ["", "Nam", "aste", ""],
        "embedding": [0.25, -1.5],
        "models": ["acme/echo", "acme/llm"],
        "error": ["NotFoundError", 404, "SERVICE_NOT_FOUND"],
    }

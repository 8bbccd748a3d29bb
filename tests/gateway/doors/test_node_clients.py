"""Anthropic's client and Socket.IO's own, both for JavaScript."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.bills import PRICE, billed
from gateway.doors.node import folder_with, run
from gateway.doors.test_anthropic import MESSAGE, STREAM, STREAMED, WHOLE
from gateway.doors.ulca_market import done, stock, task
from gateway.doors.upstreams import events, stream
from gateway.rig import Market, Provider, Request, answer

MESSAGES = """
import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({ baseURL: process.argv[2], apiKey: process.argv[3], maxRetries: 0 });
const asked = { model: "acme/claude", max_tokens: 64, messages: [{ role: "user", content: "Namaste" }] };
const seen = { models: [] };

seen.whole = (await client.messages.create(asked)).content[0].text;
seen.beta = (await client.beta.messages.create({ ...asked, betas: ["own-2026"] })).content[0].text;
seen.streamed = await client.messages.stream(asked).finalText();
for await (const model of client.models.list({ limit: 1 })) seen.models.push(model.id);
seen.one = (await client.models.retrieve("acme/claude")).display_name;
try {
  await client.messages.create({ ...asked, model: "claude-9" });
} catch (error) {
  seen.error = [error.constructor.name, error.status, error.requestID.length];
}
console.log(JSON.stringify(seen));
"""

SPEECH = """
import { io } from "socket.io-client";

const [address, authorization, tasks, ...transports] = process.argv.slice(2);
const socket = io(address, { auth: { authorization }, transports, reconnection: false });
const seen = [];
const end = () => { console.log(JSON.stringify(seen)); process.exit(0); };
socket.on("connect_error", (error) => { seen.push(["connect_error", error.message]); end(); });
socket.on("abort", (sentence) => { seen.push(["abort", sentence]); end(); });
socket.on("connect", () =>
  socket.emit("start", JSON.parse(tasks), { responseFrequencyInSecs: 1.0, responseTaskSequenceDepth: 1 }));
socket.on("ready", () => {
  socket.emit("data", { audio: [{ audioContent: Buffer.alloc(32000, 5) }] }, {}, false, false);
  socket.emit("data", null, null, true, true);
});
socket.on("response", (parts, kind) => seen.push([parts.map((part) => part.output[0]), kind.isIntermediateResult]));
socket.on("terminate", end);
"""


async def behave(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    if json.loads(request.body).get("stream"):
        return await stream([events(STREAM, named=True)])(request, reader, writer)
    writer.write(answer(200, json.dumps(MESSAGE).encode()))
    await writer.drain()
    return True


@pytest.mark.speaks(
    "anthropic messages", "anthropic models", "anthropic models.retrieve", client="@anthropic-ai/sdk (npm)"
)
async def test_a_program_with_anthropics_client_is_served(market: Market) -> None:
    market.add_service("claude", dialect="anthropic", category="llm", unit="tokens", price=PRICE)
    provider: Provider = market.provider
    provider.behaviour = behave
    folder = await asyncio.to_thread(folder_with, MESSAGES, "@anthropic-ai/sdk@0")
    assert await run(folder, f"http://127.0.0.1:{market.port}", market.key) == {
        "whole": "Namaste!",
        "beta": "Namaste!",
        "streamed": "Namaste",
        "models": ["acme/claude", "acme/echo"],
        "one": "acme/claude",
        "error": ["NotFoundError", 404, 36],
    }
    assert [request.target for request in provider.requests][1] == "/base/messages?beta=true"
    assert await billed(market) == [WHOLE, WHOLE, STREAMED, ("", "refused", {}, "0")]


@pytest.mark.speaks("bhashini streaming speech", client="socket.io-client (npm)")
@pytest.mark.parametrize("transports", [["polling", "websocket"], ["websocket"], ["polling"]], ids="-".join)
async def test_speech_from_a_program_in_javascript(speech: Market, transports: list[str]) -> None:
    stock(speech)
    folder = await asyncio.to_thread(folder_with, SPEECH, "socket.io-client@4")
    tasks = [task("asr", "hi", samplingRate=16_000), task("translation", "hi", "ur")]
    seen: Any = await run(folder, f"http://127.0.0.1:{speech.port}", speech.key, json.dumps(tasks), *transports)
    heard = {"source": "heard hi-Deva", "nBestTokens": None}
    assert seen[-1] == [[heard, {"source": "heard hi-Deva", "target": "heard hi-Deva [hi-Deva>ur-Arab]"}], False]
    assert await billed(speech) == [done("hear"), done("hear"), done("translate")]

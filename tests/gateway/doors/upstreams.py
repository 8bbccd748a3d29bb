"""Providers for the doors' tests: what a server of a well-known protocol answers, as bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from gateway.rig import Behaviour, Request, answer

USAGE = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
TOKENS = {"tokens": "30", "input_tokens": "10", "output_tokens": "20"}
"""The same as a record has it."""


def usage_of(units: dict[str, str]) -> tuple[int, int, int]:
    """Return the tokens of a record: all, of the request, of the answer."""
    return int(units["tokens"]), int(units["input_tokens"]), int(units["output_tokens"])


def completion(text: str = "Namaste!", usage: dict[str, Any] | None = USAGE, **more: Any) -> bytes:
    """Return a chat completion as a whole answer."""
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "theirs",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        **({"usage": usage} if usage else {}),
        **more,
    }
    return answer(200, json.dumps(body).encode())


def chunk(delta: dict[str, Any] | None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """Return one chunk of a streamed chat completion; without a delta the one with no choices."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "theirs",
        "choices": choices,
        **more,
    }


def events(parts: Iterable[dict[str, Any] | str], named: bool = False) -> bytes:
    """Return events as they stand in a stream; ``named`` for those whose type is their event's name."""
    lines = []
    for part in parts:
        name = f"event: {part['type']}\n" if named and isinstance(part, dict) else ""
        lines.append(f"{name}data: {part if isinstance(part, str) else json.dumps(part)}\n\n")
    return "".join(lines).encode()


def stream(pieces: list[bytes], *, whole: bool = True, wait: asyncio.Event | None = None) -> Behaviour:
    """Return the behaviour of a provider that streams these pieces, and then ends, breaks off or waits."""

    async def behave(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in pieces:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
            await asyncio.sleep(0)
        if wait is not None:
            await wait.wait()
        if whole:
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        return whole

    return behave


def chat_stream(*texts: str, usage: dict[str, Any] | None = USAGE) -> Behaviour:
    """Return a provider of chat completions that reports its usage when it is asked for it."""

    async def behave(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        asked = json.loads(request.body)
        parts: list[dict[str, Any] | str] = [chunk({"role": "assistant", "content": ""})]
        parts += [chunk({"content": text}) for text in texts]
        parts.append(chunk({}, "stop"))
        if usage is not None and asked.get("stream_options", {}).get("include_usage"):
            parts.append(chunk(None, usage=usage))
        pieces = [events([part]) for part in [*parts, "[DONE]"]]
        return await stream(pieces)(request, reader, writer)

    return behave

"""The programs in the pages about the doors run as they are written there."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
from pathlib import Path

from gateway.doors.upstreams import chat_stream
from gateway.rig import Market, Provider, Request, answer

DOCS = Path(__file__).parents[3] / "docs"


def program(page: str, market: Market) -> str:
    """Return the program in a page, with this market's address and key in it."""
    text = (DOCS / page).read_text()
    found = re.search(r"```python (?:openai|anthropic)\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1].replace("127.0.0.1:8080", f"127.0.0.1:{market.port}").replace("YOUR-KEY", market.key)


def output_of(source: str) -> str:
    printed = io.StringIO()
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(printed):
        exec(compile(source, "page", "exec"), names)  # our own page
        names["client"].close()  # type: ignore[attr-defined]
    return printed.getvalue()


async def test_the_program_for_openais_client(market: Market) -> None:
    market.add_service("llm", dialect="openai", category="llm", unit="tokens")
    market.add_service("embed", dialect="task", category="embedding")

    async def behave(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if request.target.endswith("/completions"):
            return await chat_stream("नम", "स्ते")(request, reader, writer)
        count = len(json.loads(request.body)["input"])
        writer.write(answer(200, json.dumps({"output": [{"embedding": [1.0]}] * count}).encode()))
        await writer.drain()
        return True

    provider: Provider = market.provider
    provider.behaviour = behave
    assert await asyncio.to_thread(output_of, program("openai.md", market)) == "नमस्ते2\n"


async def test_the_program_for_anthropics_client(market: Market) -> None:
    market.add_service("claude", dialect="anthropic", category="llm", unit="tokens")
    message = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "नमस्ते"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    market.provider.behaviour = answer(200, json.dumps(message).encode())
    assert await asyncio.to_thread(output_of, program("anthropic.md", market)) == "नमस्ते\n"

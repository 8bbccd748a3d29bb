"""Setu Text Tools: the small provider of the tour, an ordinary HTTP API that knows nothing of Haat.

It counts what a text is made of, asks for a credential of its own, and tells in a response header
what it used. `docs/providers.md` shows the same thing from a provider's side.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import AsyncIterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from haat.language import count_graphemes, script_counts, search_words

MAX_CHARACTERS = 20_000


def build_app(credential: str) -> Starlette:
    """Return the API; it answers only calls that carry ``credential`` in ``Authorization``."""

    async def statistics(request: Request) -> JSONResponse:
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), credential.encode()):
            return JSONResponse({"error": "unknown caller"}, 401)
        try:
            text = (await request.json())["text"]
        except (ValueError, KeyError, TypeError):
            return JSONResponse({"error": 'send {"text": "…"}'}, 400)
        if not isinstance(text, str) or len(text) > MAX_CHARACTERS:
            return JSONResponse({"error": f"text is a string of at most {MAX_CHARACTERS} characters"}, 422)
        graphemes = count_graphemes(text)
        return JSONResponse(
            {"graphemes": graphemes, "words": len(search_words(text)), "scripts": dict(script_counts(text))},
            headers={"X-Haat-Usage": f"graphemes={graphemes}"},
        )

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[Route("/v1/statistics", statistics, methods=["POST"]), Route("/health", health, methods=["GET"])]
    )


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]  # signals belong to the command that started us
        yield


@contextlib.asynccontextmanager
async def serving(credential: str) -> AsyncIterator[str]:
    """Run the API on a free loopback port for the length of a block; yield its address."""
    server = _Server(
        uvicorn.Config(build_app(credential), host="127.0.0.1", port=0, log_level="warning", access_log=False)
    )
    task = asyncio.create_task(server.serve())
    while not server.started:
        if task.done():
            await task
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task

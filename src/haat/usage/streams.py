"""Answers that are sent while they are made, refused before they begin or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.responses import StreamingResponse

EVENT_STREAM = "text/event-stream"


async def streamed(pieces: AsyncIterator[bytes], media_type: str) -> StreamingResponse:
    """Return a response of pieces. The first is asked for here, so that a refusal is a response of its own."""
    first = await anext(pieces, b"")

    async def body() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    return StreamingResponse(body(), media_type=media_type, headers={"Cache-Control": "no-store"})

"""A chat's answer as it is made: the gateway's events, read here, go on to the page as plain pieces of text.

Each event is ``text`` with a piece, or at the end ``done`` with the outcome as HTML; both are JSON strings.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import httpx

from haat.catalog.model import Listing, Version
from haat.language.messages import _
from haat.portal.trial import FEED_PAUSE, FEED_SECONDS, NEWS, Piece, Trial, TrialKey, call_of, read_answer, unreachable
from haat.portal.visit import Visit

MOST_TEXT = 20_000
"""Characters of an answer that are shown."""
MOST_SECONDS = 120.0


async def stream_trial(
    visit: Visit, listing: Listing, version: Version, key: TrialKey, render: Callable[[Trial], str]
) -> AsyncIterator[bytes]:
    """Yield the events of one call; ``render`` writes its outcome. A page that leaves ends the call at the gateway."""
    call = await call_of(visit, listing, version, key)
    body = json.loads(call.content or b"{}") | {"stream": True}
    headers = {**call.headers, "Accept": "text/event-stream"}
    deadline = time.monotonic() + FEED_SECONDS
    begun = time.perf_counter()
    said: list[str] = []
    status, request_id = 200, ""
    try:
        async with asyncio.timeout(MOST_SECONDS), httpx.AsyncClient(trust_env=False, timeout=call.timeout) as client:
            while True:
                async with client.stream(call.method, call.url, content=json.dumps(body), headers=headers) as response:
                    request_id, status = response.headers.get("x-request-id", ""), response.status_code
                    if status >= 400 or "text/event-stream" not in response.headers.get("content-type", ""):
                        await response.aread()
                        trial = read_answer(response, listing, time.perf_counter() - begun, call.target)
                        if trial.code not in NEWS or time.monotonic() > deadline:
                            yield _event("done", render(replace(trial, own=key.own)))
                            return
                    else:
                        async for piece in _pieces(response):
                            said.append(piece)
                            yield _event("text", piece)
                        break
                await asyncio.sleep(FEED_PAUSE)  # the change feed is still carrying the news to the gateway
    except httpx.HTTPError as error:
        if not said:
            yield _event("done", render(unreachable(error)))
            return
        said.append(_("… the answer broke off."))
    except TimeoutError:
        said.append(_("… it took too long."))
    outcome = _outcome("".join(said), status, request_id, time.perf_counter() - begun)
    yield _event("done", render(replace(outcome, own=key.own)))


async def _pieces(response: httpx.Response) -> AsyncIterator[str]:
    left = MOST_TEXT
    async for line in response.aiter_lines():
        if line.startswith("data:") and (piece := delta_of(line[5:].strip())[:left]):
            left -= len(piece)
            yield piece
        if left <= 0:
            return


def delta_of(data: str) -> str:
    """Return the text that an event of a chat adds, empty for one that adds none or can't be read."""
    try:
        event: Any = json.loads(data)
    except (ValueError, RecursionError):
        return ""
    choices = event.get("choices") if isinstance(event, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    delta = first.get("delta") if isinstance(first, dict) else None
    content = delta.get("content") if isinstance(delta, dict) else None
    return content if isinstance(content, str) else ""


def _outcome(text: str, status: int, request_id: str, seconds: float) -> Trial:
    return Trial(
        ok=True,
        status=status,
        milliseconds=seconds * 1000,
        request_id=request_id,
        units=(),
        cost=None,
        pieces=(Piece(text),),
        raw="",
    )


def _event(name: str, data: str) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()

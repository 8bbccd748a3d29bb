"""Callers that go on while processes die under them, and the reckoning afterwards: answered ⊆ metered, none twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import psycopg
from running import RunningPlatform


@dataclass
class Seen:
    """What callers saw: ids with a whole answer and its status, and how many requests were cut off."""

    events_a_stream: int = 0
    """How many events make a stream that is whole."""
    answered: dict[str, int] = field(default_factory=dict)
    streams: int = 0
    cut: int = 0


def request_for(path: str, key: str, body: Any, tag: str, *, stream: bool = False) -> bytes:
    """Return a call's bytes; its record will have ``tag``."""
    content = json.dumps(body, ensure_ascii=False).encode()
    return (
        f"POST {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key}\r\n"
        f"Accept: {'text/event-stream' if stream else 'application/json'}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\nX-Haat-Tags: {tag}\r\n\r\n"
    ).encode() + content


async def call_until(stop: asyncio.Event, port: int, request: bytes, seen: Seen) -> None:
    """Call again and again, over a new connection whenever one breaks."""
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None
    while not stop.is_set():
        sent = False
        try:
            if reader is None or writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            sent = True
            async with asyncio.timeout(30):
                identifier, status = await _read_answer(reader, seen)
            assert identifier not in seen.answered, "one id was answered twice"
            seen.answered[identifier] = status
            if status >= 500:
                await asyncio.sleep(0.05)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            seen.cut += sent
            if writer is not None:
                writer.transport.abort()
            reader = writer = None
            await asyncio.sleep(0.05)
    if writer is not None:
        writer.close()


async def _read_answer(reader: asyncio.StreamReader, seen: Seen) -> tuple[str, int]:
    """Return (request id, status) of an answer that came whole."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
    if "content-length" in headers:
        await reader.readexactly(int(headers["content-length"]))
    else:
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
        if b"event: error" in body:
            raise ConnectionResetError  # it says itself that it is not whole
        assert body.count(b"data: ") == seen.events_a_stream
        seen.streams += 1
    return headers["x-request-id"], int(head[0].split()[1])


async def reckon(platform: RunningPlatform, seen: Seen, tag: str) -> tuple[dict[str, str], Counter[str]]:
    """Hold what callers saw against what is metered and billed; return the outcomes of all calls and of the surplus."""
    stored = await _shipped(platform, seen, tag)
    surplus = Counter(outcome for identifier, outcome in stored.items() if identifier not in seen.answered)
    assert not seen.answered.keys() - stored.keys(), "answered but not metered"
    assert sum(surplus.values()) <= seen.cut, "more metered without an answer than was in flight at the kills"
    assert set(surplus) <= {"unconfirmed", "interrupted", "client_left", "provider_failed", "refused"}
    for identifier, status in seen.answered.items():
        expected = ("completed",) if status == 200 else ("refused", "provider_failed")
        assert stored[identifier] in (*expected, "unconfirmed"), (identifier, status, stored[identifier])
    await _nothing_in_doubt_is_billed(platform, stored)
    return stored, surplus


async def _shipped(platform: RunningPlatform, seen: Seen, tag: str) -> dict[str, str]:
    """Return the outcome of every stored call, once nothing more arrives and all answered ones are there."""
    deadline, before = time.monotonic() + 120, -1
    while True:
        with contextlib.suppress(psycopg.Error):
            async with await psycopg.AsyncConnection.connect(platform.owner_dsn(), autocommit=True) as connection:
                rows = await connection.execute("SELECT id::text, outcome FROM usage WHERE tags ? %s", (tag,))
                stored = dict(await rows.fetchall())
            if (seen.answered.keys() <= stored.keys() and len(stored) == before) or time.monotonic() > deadline:
                return stored
            before = len(stored)
        assert time.monotonic() < deadline + 60, platform.log()[-3000:]
        await asyncio.sleep(1)


async def _nothing_in_doubt_is_billed(platform: RunningPlatform, stored: dict[str, str]) -> None:
    """The rollups that bills are made of hold exactly the completed calls, however often something was replayed."""
    async with await psycopg.AsyncConnection.connect(platform.owner_dsn(), autocommit=True) as connection:
        row = await (
            await connection.execute(
                """
                SELECT coalesce(sum(calls) FILTER (WHERE outcome = 'completed'), 0), sum(calls) FROM usage_hourly
                WHERE application_id = (SELECT application_id FROM usage WHERE id = %s)
                """,
                (next(iter(stored)),),
            )
        ).fetchone()
    assert row is not None
    assert int(row[0]) == sum(outcome == "completed" for outcome in stored.values())
    assert int(row[1]) == len(stored)

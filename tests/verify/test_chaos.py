"""The metering promise while any process may die at any moment: single answers and streams, for five minutes.

`CHAOS_SECONDS` shortens it for a look by hand, `CHAOS_SEED` repeats a choice of victims.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg
import pytest
from running import RunningPlatform
from trade import Market, open_market

pytestmark = pytest.mark.verify

SECONDS = float(os.environ.get("CHAOS_SECONDS", "300"))
SEED = int(os.environ.get("CHAOS_SEED", "20261121"))
SECONDS_BETWEEN_KILLS = (1.0, 4.0)
CALLERS, LISTENERS = 8, 4
EVENTS_A_STREAM = 20
SAMPLE = {"input": [{"text": "नमस्ते"}]}


# --- a provider that answers, or streams --------------------------------------------------------


async def provide(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request with JSON, or with server-sent events when it asks for them."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0)
            await reader.readexactly(length)
            if b"text/event-stream" not in head:
                writer.write(
                    b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{"output":[]}'
                )
                await writer.drain()
                continue
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            for number in range(EVENTS_A_STREAM):
                event = b"data: %d\n\n" % number
                writer.write(b"%x\r\n%b\r\n" % (len(event), event))
                await writer.drain()
                await asyncio.sleep(0.01)
            writer.write(b"0\r\n\r\n")
    writer.close()


@contextlib.asynccontextmanager
async def provider() -> AsyncIterator[int]:
    server = await asyncio.start_server(provide, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


# --- callers ------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What callers saw: ids with a whole answer and its status, and how many requests were cut off."""

    answered: dict[str, int] = field(default_factory=dict)
    streams: int = 0
    cut: int = 0


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
                identifier, status = await read_answer(reader, seen)
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


async def read_answer(reader: asyncio.StreamReader, seen: Seen) -> tuple[str, int]:
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
        assert body.count(b"data: ") == EVENTS_A_STREAM
        seen.streams += 1
    return headers["x-request-id"], int(head[0].split()[1])


# --- chaos --------------------------------------------------------------------------------------


async def kill_at_random(platform: RunningPlatform, chance: random.Random) -> Counter[str]:
    """SIGKILL one process after another: every second time a gateway worker, else one of any kind.

    PostgreSQL's own processes are among them, one at a time.
    """
    killed: Counter[str] = Counter()
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends:
        await asyncio.sleep(chance.uniform(*SECONDS_BETWEEN_KILLS))
        processes = await asyncio.to_thread(platform.processes)
        kinds = sorted({name_of(process) for process in processes} - {"gone"})
        if kinds:
            name = "gateway" if "gateway" in kinds and chance.random() < 0.5 else chance.choice(kinds)
            victim = chance.choice([process for process in processes if name_of(process) == name])
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
                killed[name] += 1
    return killed


def name_of(process: psutil.Process) -> str:
    """Return what a process is, in one word."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return "gone"
    if words and "postgres" in words[0]:
        return "postgres"
    return next(
        (
            word
            for word in ("gateway", "control", "worker", "shipper", "models", "websocket", "speech")
            if word in words
        ),
        "other",
    )


@pytest.fixture(scope="module")
def market(short_tmp: Path) -> Iterator[Market]:
    data_dir = short_tmp / "chaos"
    data_dir.mkdir()
    platform = RunningPlatform(data_dir, gateway_workers="2")
    try:
        platform.start()
        with open_market(platform) as market:
            yield market
    finally:
        platform.stop()


async def test_every_answered_call_is_metered_once_whoever_dies(
    market: Market, capsys: pytest.CaptureFixture[str]
) -> None:
    platform = market.platform
    async with provider() as port:
        path = await asyncio.to_thread(
            market.offer, f"http://127.0.0.1:{port}", {"method": "POST", "path": "/invoke", "body": SAMPLE}
        )
        service = await asyncio.to_thread(market.id_of, path)
        await asyncio.to_thread(
            market.provider.ask, "POST", f"/services/{service}/plans", code="wide", name="Wide", per_minute=1_000_000
        )
        key = await asyncio.to_thread(market.customer, path, "wide")
        seen, stop = Seen(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number in range(CALLERS + LISTENERS):
                request = request_for(path, key, stream=number >= CALLERS)
                group.create_task(call_until(stop, platform.gateway_port, request, seen))
            killed = await kill_at_random(platform, random.Random(SEED))
            await asyncio.sleep(3)
            stop.set()
    stored = await shipped(platform, seen)
    surplus = Counter(outcome for identifier, outcome in stored.items() if identifier not in seen.answered)
    with capsys.disabled():
        print(
            f"\n{SECONDS:.0f} s, killed {', '.join(f'{count} x {name}' for name, count in killed.most_common())}: "
            f"{len(seen.answered)} answered, {seen.streams} of them streams; {len(stored)} metered; surplus "
            f"{sum(surplus.values())} of {seen.cut} cut off: {dict(surplus)}"
        )
    assert killed["gateway"] >= SECONDS / 20
    assert seen.streams > 10
    assert not seen.answered.keys() - stored.keys(), "answered but not metered"
    assert sum(surplus.values()) <= seen.cut, "more metered without an answer than was in flight at the kills"
    assert set(surplus) <= {"unconfirmed", "interrupted", "client_left", "provider_failed", "refused"}
    for identifier, status in seen.answered.items():
        expected = ("completed",) if status == 200 else ("refused", "provider_failed")
        assert stored[identifier] in (*expected, "unconfirmed"), (identifier, status, stored[identifier])
    await nothing_in_doubt_is_billed(platform, stored)


def request_for(path: str, key: str, stream: bool) -> bytes:
    body = json.dumps(SAMPLE, ensure_ascii=False).encode()
    accept = "text/event-stream" if stream else "application/json"
    return (
        f"POST /v1/services/{path}/invoke HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key}\r\n"
        f"Accept: {accept}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "X-Haat-Tags: chaos\r\n\r\n"
    ).encode() + body


async def shipped(platform: RunningPlatform, seen: Seen) -> dict[str, str]:
    """Return the outcome of every stored call, once nothing more arrives and all answered ones are there."""
    deadline, before = time.monotonic() + 120, -1
    while True:
        with contextlib.suppress(psycopg.Error):
            async with await psycopg.AsyncConnection.connect(platform.owner_dsn(), autocommit=True) as connection:
                rows = await connection.execute("SELECT id::text, outcome FROM usage WHERE tags ? 'chaos'")
                stored = dict(await rows.fetchall())
            if (seen.answered.keys() <= stored.keys() and len(stored) == before) or time.monotonic() > deadline:
                return stored
            before = len(stored)
        assert time.monotonic() < deadline + 60, platform.log()[-3000:]
        await asyncio.sleep(2)


async def nothing_in_doubt_is_billed(platform: RunningPlatform, stored: dict[str, str]) -> None:
    """The rollups that bills are made of hold exactly the completed calls, however often something was replayed."""
    async with await psycopg.AsyncConnection.connect(platform.owner_dsn(), autocommit=True) as connection:
        row = await (
            await connection.execute(
                """
                SELECT coalesce(sum(calls) FILTER (WHERE outcome = 'completed'), 0), sum(calls) FROM usage_hourly
                WHERE service_id = (
                    SELECT service_id FROM usage WHERE tags ? 'chaos' AND service_id IS NOT NULL LIMIT 1
                )
                """
            )
        ).fetchone()
    assert row is not None
    assert int(row[0]) == sum(outcome == "completed" for outcome in stored.values())
    assert int(row[1]) == len(stored)

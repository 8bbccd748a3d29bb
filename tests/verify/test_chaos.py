"""The metering promise while any process may die at any moment: single answers and streams, for five minutes.

`CHAOS_SECONDS` shortens it for a look by hand, `CHAOS_SEED` repeats a choice of victims.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
from callers import Seen, call_until, reckon, request_for
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
        seen, stop = Seen(EVENTS_A_STREAM), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number in range(CALLERS + LISTENERS):
                stream = number >= CALLERS
                request = request_for(f"/v1/services/{path}/invoke", key, SAMPLE, "chaos", stream=stream)
                group.create_task(call_until(stop, platform.gateway_port, request, seen))
            killed = await kill_at_random(platform, random.Random(SEED))
            await asyncio.sleep(3)
            stop.set()
    stored, surplus = await reckon(platform, seen, "chaos")
    with capsys.disabled():
        print(
            f"\n{SECONDS:.0f} s, killed {', '.join(f'{count} x {name}' for name, count in killed.most_common())}: "
            f"{len(seen.answered)} answered, {seen.streams} of them streams; {len(stored)} metered; surplus "
            f"{sum(surplus.values())} of {seen.cut} cut off: {dict(surplus)}"
        )
    assert killed["gateway"] >= SECONDS / 20
    assert seen.streams > 10

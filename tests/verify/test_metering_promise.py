"""The metering promise under SIGKILL: answered ⊆ metered, nothing twice, the surplus bounded and not billed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from dataclasses import dataclass, field

import psycopg
import pytest
from running import RunningPlatform

pytestmark = pytest.mark.verify

CALLERS = 16
KILLS = 12
SECONDS_BETWEEN_KILLS = (0.6, 1.8)
VICTIMS = ("gateway", "shipper", "worker")


@dataclass
class Seen:
    """What the callers saw: ids that came with a whole answer, and requests whose answer was cut off."""

    answered: dict[str, int] = field(default_factory=dict)
    cut: int = 0


async def call_until(stop: asyncio.Event, port: int, request: bytes, seen: Seen) -> None:
    """Call again and again over one connection, making a new one whenever it breaks."""
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None
    while not stop.is_set():
        sent = False
        try:
            if reader is None or writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            sent = True
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
            await reader.readexactly(int(headers["content-length"]))
            identifier = headers["x-request-id"]
            assert identifier not in seen.answered, "one id was answered twice"
            seen.answered[identifier] = int(head[0].split()[1])
        except (OSError, asyncio.IncompleteReadError):
            seen.cut += sent
            if writer is not None:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
            reader = writer = None
            await asyncio.sleep(0.02)
    if writer is not None:
        writer.close()


async def kill_at_random(platform: RunningPlatform, chance: random.Random) -> list[str]:
    """SIGKILL processes one after another; return who it was."""
    killed = []
    while len(killed) < KILLS:
        await asyncio.sleep(chance.uniform(*SECONDS_BETWEEN_KILLS))
        victim = chance.choice(VICTIMS) if killed else "gateway"
        process = platform.child(victim)
        if process is not None:
            process.kill()
            killed.append(victim)
    return killed


async def test_every_answered_call_is_metered_once_although_processes_are_killed(
    platform_process: RunningPlatform, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox = platform_process.sandbox()
    service = next(entry for entry in sandbox["services"] if entry["service"] == "akshara/transliterate")
    body = json.dumps(service["sample"], ensure_ascii=False).encode()
    path = service["url"].removeprefix(sandbox["gateway_url"])
    request = (
        f"POST {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {sandbox['key']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nX-Haat-Tags: chaos\r\n\r\n"
    ).encode() + body
    seen, stop = Seen(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(call_until(stop, platform_process.gateway_port, request, seen))
        killed = await kill_at_random(platform_process, random.Random(20261121))
        await asyncio.sleep(2)
        stop.set()

    stored = await shipped(platform_process, seen)
    surplus = {identifier: outcome for identifier, outcome in stored.items() if identifier not in seen.answered}
    with capsys.disabled():
        print(
            f"\nkilled {', '.join(killed)}: {len(seen.answered)} answered, {len(stored)} metered, "
            f"{len(surplus)} surplus of {seen.cut} cut off"
        )
    assert killed.count("gateway") >= 2
    assert sum(status == 200 for status in seen.answered.values()) > 500
    assert not seen.answered.keys() - stored.keys(), "answered but not metered"
    assert len(surplus) <= seen.cut, "more metered without an answer than was in flight at the kills"
    assert set(surplus.values()) <= {"unconfirmed", "interrupted", "client_left", "provider_failed", "refused"}
    for identifier, status in seen.answered.items():
        expected = ("completed",) if status == 200 else ("refused", "provider_failed")
        assert stored[identifier] in (*expected, "unconfirmed"), (identifier, status, stored[identifier])
    await nothing_in_doubt_is_billed(platform_process, stored)


async def shipped(platform: RunningPlatform, seen: Seen) -> dict[str, str]:
    """Return the outcome of every stored call of the test once all answered ones have arrived."""
    deadline = time.monotonic() + 60
    async with await psycopg.AsyncConnection.connect(platform.owner_dsn(), autocommit=True) as connection:
        while True:
            rows = await connection.execute("SELECT id::text, outcome FROM usage WHERE tags ? 'chaos'")
            stored = dict(await rows.fetchall())
            if seen.answered.keys() <= stored.keys() or time.monotonic() > deadline:
                return stored
            await asyncio.sleep(0.2)


async def nothing_in_doubt_is_billed(platform: RunningPlatform, stored: dict[str, str]) -> None:
    """The rollups that bills are made of hold exactly the completed calls, however often something was replayed."""
    completed = sum(outcome == "completed" for outcome in stored.values())
    async with await psycopg.AsyncConnection.connect(platform.owner_dsn(), autocommit=True) as connection:
        row = await (
            await connection.execute(
                """
                SELECT sum(calls) FILTER (WHERE outcome = 'completed') AS completed, sum(calls) AS calls
                FROM usage_hourly WHERE application_id = (SELECT application_id FROM usage WHERE id = %s)
                """,
                (next(iter(stored)),),
            )
        ).fetchone()
    assert row is not None
    assert int(row[0]) == completed
    assert int(row[1]) == len(stored)

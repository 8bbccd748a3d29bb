"""The metering promise under SIGKILL, for half a minute: `test_chaos` does it to every process, and for longer."""

from __future__ import annotations

import asyncio
import random

import pytest
from callers import Seen, call_until, reckon, request_for
from running import RunningPlatform

pytestmark = pytest.mark.verify

CALLERS = 16
KILLS = 12
SECONDS_BETWEEN_KILLS = (0.6, 1.8)
VICTIMS = ("gateway", "shipper", "worker")


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
    path = service["url"].removeprefix(sandbox["gateway_url"])
    request = request_for(path, sandbox["key"], service["sample"], "killed")
    seen, stop = Seen(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(call_until(stop, platform_process.gateway_port, request, seen))
        killed = await kill_at_random(platform_process, random.Random(20261121))
        await asyncio.sleep(2)
        stop.set()
    stored, surplus = await reckon(platform_process, seen, "killed")
    with capsys.disabled():
        print(
            f"\nkilled {', '.join(killed)}: {len(seen.answered)} answered, {len(stored)} metered, "
            f"{sum(surplus.values())} surplus of {seen.cut} cut off"
        )
    assert killed.count("gateway") >= 2
    assert sum(status == 200 for status in seen.answered.values()) > 500

"""Workers on one port share their limits: to the last call, through a worker's death, through a restart of all."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from gateway.rig import Client, Provider, Request, answer
from gateway.test_process import keep_snapshot, raw
from gateway.workers.test_workers import family, until
from haat.gateway.limits.registry import PlanLimits
from haat.infra.keyring import Keyring


async def statuses(port: int, key: str, callers: int, calls: int) -> list[int]:
    """Make so many calls over so many connections at once."""

    async def caller() -> list[int]:
        client, seen = await Client.connect(port), []
        with contextlib.closing(client):
            for _ in range(calls):
                await client.send(raw(key))
                response = await client.receive()
                assert response is not None
                seen.append(response.status)
        return seen

    return [status for seen in await asyncio.gather(*(caller() for _ in range(callers))) for status in seen]


async def test_two_workers_let_through_exactly_what_one_would_also_after_a_restart(
    tmp_path: Path, provider: Provider
) -> None:
    plan = PlanLimits(per_minute=2000, per_hour=150, quota_per_month=100_000)
    key = keep_snapshot(tmp_path, Keyring.load(tmp_path), provider.port, plan)
    async with family(tmp_path, 2) as running:
        seen = await statuses(running.present(0).port, key, 16, 8)
        assert seen == [200] * 128
    async with family(tmp_path, 3) as running:
        seen = await statuses(running.present(0).port, key, 16, 8)
        assert (seen.count(200), seen.count(429)) == (22, 106)


async def test_what_a_killed_worker_had_in_flight_is_given_back_by_its_successor(
    tmp_path: Path, provider: Provider
) -> None:
    plan = PlanLimits(quota_per_month=20, max_concurrent=12)
    key = keep_snapshot(tmp_path, Keyring.load(tmp_path), provider.port, plan)
    held: list[asyncio.StreamWriter] = []

    async def hold(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        held.append(writer)
        await reader.read()
        return False

    async with family(tmp_path, 2) as running:
        port = running.present(0).port
        assert await statuses(port, key, 1, 3) == [200] * 3
        provider.behaviour = hold
        clients = [await Client.connect(port) for _ in range(12)]
        for client in clients:
            await client.send(raw(key))
        await until(lambda: len(held) == 12)
        assert await statuses(port, key, 1, 1) == [429], "all places are taken"
        for slot in (0, 1):
            victim = running.present(slot).pid
            os.kill(victim, signal.SIGKILL)
            await until(lambda slot=slot, victim=victim: running.is_back(slot, but=victim))
        provider.behaviour = answer()
        await until(running.all_ready)
        seen = await statuses(port, key, 4, 6)
        assert (seen.count(200), seen.count(429)) == (17, 7), "none of the twelve was answered: none counts"
        for client in clients:
            client.close()

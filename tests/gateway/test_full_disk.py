"""A gateway on a disk that is full: nothing is served unmetered, nothing ends it, and it goes on by itself."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from pathlib import Path

import psutil

from gateway.rig import Client, Provider, Response
from gateway.test_process import keep_snapshot, raw
from gateway.workers.test_workers import Family, family, until
from haat.gateway.limits.registry import PlanLimits
from haat.infra.keyring import Keyring


async def call(port: int, request: bytes) -> Response:
    client = await Client.connect(port)
    await client.send(request)
    response = await client.receive()
    client.close()
    assert response is not None
    return response


def fill_disk(running: Family) -> None:
    """Let no process of the family make a file grow: to each of them that is a full disk."""
    _limit(running, 0)


def free_disk(running: Family) -> None:
    _limit(running, resource.RLIM_INFINITY)


def _limit(running: Family, size: int) -> None:
    parent = psutil.Process(running.process.pid)
    hard = resource.prlimit(parent.pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(parent.pid, resource.RLIMIT_FSIZE, (size, hard))  # first: who is born from now on inherits it
    for process in parent.children(recursive=True):
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, hard))


async def code_of(port: int, request: bytes) -> str:
    response = await call(port, request)
    return "" if response.status == 200 else str(response.json()["code"])


async def until_told_full(port: int, request: bytes) -> None:
    """Ask the worker that has just refused a call, until it is asked before it looks at the disk itself again.

    To the file system, which that look asks, this disk has room: only these processes may not use it.
    """
    async with asyncio.timeout(20):
        state = ""
        while state != "full":
            client = await Client.connect(port)
            await client.send(request)
            refused = await client.receive()
            assert refused is not None and refused.json()["code"] == "JOURNAL_FULL"
            await client.send(b"GET /health HTTP/1.1\r\nHost: g\r\n\r\n")
            health = await client.receive()
            client.close()
            assert health is not None
            state = health.json()["components"]["journal"]["disk"]["state"]


async def until_code(port: int, request: bytes, wanted: str) -> None:
    async with asyncio.timeout(20):
        while await code_of(port, request) != wanted:  # noqa: ASYNC110  # it happens in another process
            await asyncio.sleep(0.05)


async def test_a_gateway_refuses_on_a_full_disk_survives_a_kill_and_recovers_by_itself(
    tmp_path: Path, provider: Provider
) -> None:
    request = raw(keep_snapshot(tmp_path, Keyring.load(tmp_path), provider.port, PlanLimits()))
    async with family(tmp_path) as running:
        port, victims = running.present(0).port, [running.present(slot).pid for slot in range(2)]
        assert await code_of(port, request) == ""
        fill_disk(running)
        for _ in range(30):  # each worker finds out with its first record
            assert await code_of(port, request) == "JOURNAL_FULL"
        served = len(provider.requests)
        assert (await call(port, b"GET /health/live HTTP/1.1\r\nHost: g\r\n\r\n")).status == 200
        await until_told_full(port, request)

        for victim in victims:  # their successors find the disk as full as it was
            os.kill(victim, signal.SIGKILL)
        await until(lambda: not any(map(psutil.pid_exists, victims)))
        await until_code_after_start(port, request, "JOURNAL_FULL")
        assert len(provider.requests) == served, "nothing is executed that can't be metered"

        free_disk(running)
        await until_code(port, request, "")
        await until(lambda: all(running.is_back(slot, but=victim) for slot, victim in enumerate(victims)))
        async with asyncio.timeout(20):
            while (answered := await call(port, request)).status != 200:  # noqa: ASYNC110  # each finds out by itself
                await asyncio.sleep(0.05)
        await until(lambda: answered.header("x-request-id") in running.metered())


async def until_code_after_start(port: int, request: bytes, wanted: str) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                if await code_of(port, request) == wanted:
                    return
            except (ConnectionError, AssertionError):
                pass  # it is being started
            await asyncio.sleep(0.05)

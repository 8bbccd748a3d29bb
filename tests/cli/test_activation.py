"""The bridge is started by the first who comes to its socket, and by nobody else."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import httpx

from haat.cli.activation import Activation
from haat.cli.processes import SUPERVISED
from haat.cli.supervisor import Supervisor
from haat.infra import bridge_client
from haat.settings import Settings


async def test_the_first_to_come_starts_the_process_and_is_served(tmp_path: Path) -> None:
    environment = {**os.environ, SUPERVISED: "1", "HAAT_DATA_DIR": str(tmp_path)}
    supervisor = Supervisor(tmp_path, environment, lambda _: None, lambda: None)

    async def start(more: dict[str, str], descriptors: tuple[int, ...]) -> None:
        command = [sys.executable, "-m", "haat.cli.main", "bridge"]
        await supervisor.start("bridge", command, environment=more, descriptors=descriptors)

    activation = Activation(Settings(data_dir=tmp_path), start)
    activation.watch()
    try:
        assert bridge_client.runs(tmp_path)
        await asyncio.sleep(0.05)
        assert supervisor.children == {}
        async with bridge_client.client(tmp_path) as client:
            assert await _answers(client)
            process = supervisor.children["bridge"].process
            assert process is not None
            process.kill()
            await process.wait()
            assert await _answers(client)
        assert supervisor.children["bridge"].restarts == 1
    finally:
        await supervisor.stop([["bridge"]], 10)
        await activation.close()
    assert not bridge_client.runs(tmp_path)


async def test_nobody_came(tmp_path: Path) -> None:
    async def start(more: dict[str, str], descriptors: tuple[int, ...]) -> None:
        raise AssertionError("nobody came")

    activation = Activation(Settings(data_dir=tmp_path), start)
    activation.watch()
    await activation.close()
    assert not bridge_client.runs(tmp_path)


async def _answers(client: httpx.AsyncClient) -> bool:
    response = await client.get(f"http://{bridge_client.HOST}/v2", timeout=60)
    return response.status_code == 400 and "which server" in response.json()["error"]

"""Several workers on one port: killed, stopped, drained, and nothing of it lost to a caller."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import psutil

from gateway.rig import Client, Provider
from gateway.test_process import keep_snapshot, raw
from haat.gateway.limits.registry import PlanLimits
from haat.gateway.workers.place import Ready
from haat.infra.keyring import Keyring
from haat.usage import event as usage
from haat.usage.journal import START, JournalReader, Kind, workers

PATIENCE = 60.0


class Family:
    """`haat gateway --workers N` without a database, from a snapshot on disk."""

    def __init__(self, data_dir: Path, process: subprocess.Popen[bytes]) -> None:
        self.home, self.journal, self.process = data_dir / "gateway", data_dir / "journal", process

    def worker(self, slot: int) -> Ready | None:
        with contextlib.suppress(FileNotFoundError):
            return msgspec.json.decode((self.home / f"ready-{slot}.json").read_bytes(), type=Ready)
        return None

    def present(self, slot: int) -> Ready:
        worker = self.worker(slot)
        assert worker is not None
        return worker

    def all_ready(self) -> bool:
        assert self.process.poll() is None, "the family ended"
        return (self.home / "ready.json").exists()

    def is_back(self, slot: int, but: int) -> bool:
        worker = self.worker(slot)
        return worker is not None and worker.pid != but

    def metered(self) -> list[str]:
        """Return the ids of all recorded calls, of every worker."""
        found = []
        for worker in workers(self.journal):
            reader, position = JournalReader(self.journal, worker), START
            while batch := reader.read(position):
                found += [usage.decode(frame.payload).id for frame in batch if frame.kind == Kind.USAGE]
                position = batch[-1].end
        return found


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  # it happens in another process
            await asyncio.sleep(0.01)


def queued(port: int) -> int:
    """Return how many connections wait in the queues of a port's listening sockets."""
    listening, waiting = "0A", 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, queues, *_ = line.split()
        if state == listening and int(local.partition(":")[2], 16) == port:
            waiting += int(queues.partition(":")[2], 16)
    return waiting


def start(command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env=environment)


@asynccontextmanager
async def family(data_dir: Path, workers: int = 2, *, database: bool = False) -> AsyncIterator[Family]:
    """Run it, with the PostgreSQL of its data directory if there is a ``database``."""
    environment = {**os.environ, "HAAT_SUPERVISED": "1"}
    if not database:
        environment["HAAT_DATABASE_URL"] = "postgresql://nobody@127.0.0.1:1/none"
    command = [sys.executable, "-m", "haat.cli.main", "gateway", "--workers", str(workers), "--gateway-port", "0"]
    running = Family(data_dir, start([*command, "--data-dir", str(data_dir)], environment))
    try:
        await until(running.all_ready)
        yield running
    finally:
        running.process.terminate()
        await asyncio.to_thread(running.process.wait, PATIENCE)


async def test_connections_queued_on_a_killed_worker_are_served_by_its_sibling(
    tmp_path: Path, provider: Provider
) -> None:
    key = keep_snapshot(tmp_path, Keyring.load(tmp_path), provider.port, PlanLimits())
    async with family(tmp_path) as running:
        victim, port = running.present(0).pid, running.present(1).port
        os.kill(victim, signal.SIGSTOP)  # it accepts nothing: what comes for it stays in its queue
        clients, answers = contextlib.ExitStack(), []
        with clients:
            async with asyncio.timeout(PATIENCE):
                while queued(port) <= 20:  # its sibling may have stood in for it until a moment ago
                    client = clients.enter_context(contextlib.closing(await Client.connect(port)))
                    await client.send(raw(key))
                    answers.append(asyncio.create_task(client.receive()))
            os.kill(victim, signal.SIGKILL)
            responses = await asyncio.gather(*answers)
        assert {None if response is None else response.status for response in responses} == {200}
        await until(lambda: running.is_back(0, but=victim))


async def test_a_worker_killed_under_load_takes_only_calls_in_flight_with_it(
    tmp_path: Path, provider: Provider
) -> None:
    key = keep_snapshot(tmp_path, Keyring.load(tmp_path), provider.port, PlanLimits())
    answered: set[str] = set()
    cut = 0
    stop = asyncio.Event()

    async def caller(port: int, keeps: bool) -> None:
        nonlocal cut
        while not stop.is_set():
            client = await Client.connect(port)
            with contextlib.closing(client):
                while not stop.is_set():
                    try:
                        await client.send(raw(key))
                        response = await client.receive()
                    except ConnectionError:
                        response = None
                    if response is None or not response.whole:
                        cut += 1
                        break
                    identifier = response.header("x-request-id")
                    assert response.status == 200 and identifier is not None and identifier not in answered
                    answered.add(identifier)
                    if not keeps:
                        break

    async with family(tmp_path) as running:
        port = running.present(0).port
        callers = [asyncio.create_task(caller(port, keeps=number < 8)) for number in range(16)]
        for slot in (0, 1):
            before, victim = len(answered), running.present(slot).pid
            await until(lambda before=before: len(answered) > before + 200)
            os.kill(victim, signal.SIGKILL)
            await until(lambda slot=slot, victim=victim: running.is_back(slot, but=victim))
        await until(running.all_ready)
        before = len(answered)
        await until(lambda: len(answered) > before + 200)
        stop.set()
        await asyncio.gather(*callers)

    metered = running.metered()
    assert len(metered) == len(set(metered)), "metered twice"
    assert answered <= set(metered), "answered and not metered"
    assert len(set(metered) - answered) <= cut <= 2 * 16
    assert workers(tmp_path / "journal") == ["gateway-0", "gateway-1"]


async def test_limits_stay_exact_over_workers_that_are_killed(tmp_path: Path, provider: Provider) -> None:
    quota = 60
    limits = PlanLimits(quota_per_month=quota, max_concurrent=64)
    key = keep_snapshot(tmp_path, Keyring.load(tmp_path), provider.port, limits)
    statuses: list[int] = []
    cut = 0

    async def caller(port: int) -> None:
        nonlocal cut
        while statuses.count(429) < 20:
            client = await Client.connect(port)
            with contextlib.closing(client), contextlib.suppress(ConnectionError):
                await client.send(raw(key))
                response = await client.receive()
                if response is not None and response.whole:
                    statuses.append(response.status)
                    continue
            cut += 1

    async with family(tmp_path) as running:
        port, victim = running.present(0).port, running.present(0).pid
        callers = [asyncio.create_task(caller(port)) for _ in range(8)]
        await until(lambda: statuses.count(200) >= 20)
        os.kill(victim, signal.SIGKILL)
        await until(lambda: running.is_back(0, but=victim))
        await asyncio.gather(*callers)
    assert set(statuses) == {200, 429}
    assert quota - cut <= statuses.count(200) <= quota


async def test_a_worker_that_drains_leaves_the_port_to_its_siblings(tmp_path: Path, provider: Provider) -> None:
    key = keep_snapshot(tmp_path, Keyring.load(tmp_path), provider.port, PlanLimits())
    async with family(tmp_path) as running:
        drained, port = running.present(1).pid, running.present(0).port
        os.kill(drained, signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            while not running.is_back(1, but=drained):
                client = await Client.connect(port)
                await client.send(raw(key))
                response = await client.receive()
                assert response is not None and response.status == 200
                client.close()


async def test_the_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    keep_snapshot(tmp_path, Keyring.load(tmp_path), 1, PlanLimits())
    async with family(tmp_path) as running:
        children = [psutil.Process(running.present(slot).pid) for slot in (0, 1)]
        running.process.kill()
        await until(lambda: not any(child.is_running() for child in children))

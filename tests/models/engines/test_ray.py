"""The Ray engine does what every engine does. Run by `make ray-tests`, in an environment that has Ray."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import psutil
import pytest

from haat.kernel.errors import EngineFailed
from haat.models.autoscaling import Autoscaler
from haat.models.engines.port import Engine
from haat.models.manifest import Batching, Workers
from models.engines.contract import KEY, SAMPLE, EngineContract, ask, outcome, sample, until

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]  # what Ray warns of is its own affair


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Start Ray once for all of these tests."""
    import os

    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    from haat.models.engines.ray import local_cluster

    local_cluster()
    yield
    ray.shutdown()


@pytest.fixture
async def engine(cluster: None) -> AsyncIterator[Engine]:
    from haat.models.engines.ray import RayEngine

    engine = RayEngine()
    await engine.start()
    yield engine
    await engine.stop()


class TestRayEngine(EngineContract):
    pass


# --- what only a cluster has ----------------------------------------------------------------------


async def test_scaling_leaves_the_replicas_that_are_there_alone(engine: Engine) -> None:
    await engine.deploy(sample(workers=Workers(least=1, most=2)))
    pid = (await ask(engine, "a"))[0]["pid"]
    await engine.scale(KEY, 2)
    pids = {(await ask(engine, "a"))[0]["pid"] for _ in range(50)}
    assert pid in pids


async def test_a_replica_that_dies_with_its_machine_is_replaced(engine: Engine) -> None:
    await engine.deploy(sample())
    child = psutil.Process((await ask(engine, "a"))[0]["pid"])
    replica = child.parent()
    assert replica is not None
    before = child.memory_info().rss
    running = asyncio.create_task(outcome(ask(engine, "grow 100 30")))
    # What has not begun at a replica, Serve gives to the next one.
    await until(lambda: child.memory_info().rss > before + 50_000_000)
    replica.kill()
    assert isinstance(await running, EngineFailed)
    assert (await ask(engine, "b"))[0]["text"] == "B"
    await until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


async def test_an_unloaded_model_leaves_no_process(engine: Engine) -> None:
    await engine.deploy(sample())
    child = psutil.Process((await ask(engine, "a"))[0]["pid"])
    await engine.unload(KEY)
    await until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


async def test_a_model_that_the_cluster_has_no_memory_for_is_refused(engine: Engine) -> None:
    await engine.deploy(sample(memory_mb=50_000_000))
    with pytest.raises(EngineFailed, match="MB; all together may take"):
        await ask(engine, "a")


async def test_the_autoscaler_gives_a_model_replicas(engine: Engine) -> None:
    batching, workers = Batching(max_items=2), Workers(least=1, most=2)
    await engine.deploy(sample(entry="sample:steady", batching=batching, workers=workers))
    await engine.load(KEY)
    scaler = Autoscaler(engine)
    scaler.start()
    ended = asyncio.Event()

    async def call() -> None:
        while not ended.is_set():
            await outcome(ask(engine, "a"))

    callers = [asyncio.create_task(call()) for _ in range(18)]
    await until(lambda: engine.state(KEY).workers == 2, 60)
    ended.set()
    await asyncio.gather(*callers)
    await scaler.stop()


PROGRAM = """
import asyncio, os, sys
from pathlib import Path
from haat.models.engines import engine_named
from haat.models.engines.port import Model, Ticket
from haat.models.manifest import Manifest
from haat.models.runtimes.port import Input
from haat.settings import Settings

async def main():
    engine = engine_named(Settings(models_engine="ray"))
    await engine.start()
    await engine.deploy(Model("shop/sample@1.0.0", Manifest("sample", "python", "sample:Sample"), Path(sys.argv[1])))
    print((await engine.run("shop/sample@1.0.0", [Input("hello")], Ticket()))[0]["text"], flush=True)
    if sys.argv[2] == "wait":
        await asyncio.sleep(86_000)
    await engine.stop()

asyncio.run(main())
"""


LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def listening(process: psutil.Process) -> list[str]:
    """Return the addresses that a process listens on."""
    return [one.laddr.ip for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_cluster_of_our_own_ends_with_us(end: str) -> None:
    command = [sys.executable, "-c", PROGRAM, str(SAMPLE), "wait" if end == "kill" else "stop"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "HELLO\n"
        everything = psutil.Process(program.pid).children(recursive=True)
        if end == "kill":
            assert {"raylet", "gcs_server"} <= {process.name() for process in everything}
            program.kill()
    left = psutil.wait_procs(everything, timeout=150)[1]  # its agents look for it now and then
    assert [process.name() for process in left] == []

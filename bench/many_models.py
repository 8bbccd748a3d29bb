"""A thousand models of which twenty are hot, in the local engine within a limit of memory."""

from __future__ import annotations

import asyncio
import os
import random
import time
from dataclasses import dataclass, field
from typing import Any

from bench.measure import MEGABYTE
from bench.model_servers import APPS
from bench.processes import process_tree
from haat.kernel.errors import HaatError, Overloaded
from haat.models.engines.local import LocalEngine
from haat.models.engines.port import Model, Ticket
from haat.models.manifest import Manifest, Workers
from haat.models.runtimes.port import Input

MODELS, HOT = 1_000, 20
LIMIT_MB, MODEL_MB = 1_600, 64
HOT_PAUSE, COLD_CALLERS = 0.2, 2
"""Each hot model is called five times a second; two callers go through the cold ones."""


@dataclass(slots=True)
class Seen:
    """``pids`` are the processes that have answered for each hot model; memory is in MB, all workers together."""

    calls: int = 0
    failed: int = 0
    cold_calls: int = 0
    cold_refused: int = 0
    cold_failed: int = 0
    most_mb: float = 0.0
    most_counted_mb: float = 0.0
    pids: dict[str, set[int]] = field(default_factory=dict)

    @property
    def unloaded(self) -> int:
        """How often a hot model had to be loaded again."""
        return sum(len(pids) - 1 for pids in self.pids.values())

    def as_json(self) -> dict[str, Any]:
        return {
            "models": MODELS,
            "hot": HOT,
            "limit_mb": LIMIT_MB,
            "most_mb": round(self.most_mb),
            "most_counted_mb": round(self.most_counted_mb),
            "hot_calls": self.calls,
            "hot_failed": self.failed,
            "hot_unloaded": self.unloaded,
            "cold_calls": self.cold_calls,
            "cold_refused": self.cold_refused,
            "cold_failed": self.cold_failed,
        }


async def run(seconds: float) -> Seen:
    """Load the hot models, then call them and the cold ones for some seconds."""
    engine, seen = LocalEngine(LIMIT_MB * MEGABYTE), Seen()
    keys = [f"bench/small-{number}@1.0.0" for number in range(MODELS)]
    manifest = Manifest("small", "python", "haat_model:SmallModel", memory_mb=MODEL_MB, workers=Workers(1, 1))
    await engine.start()
    try:
        for key in keys:
            await engine.deploy(Model(key, manifest, APPS))
        for key in keys[:HOT]:
            await _call(engine, key)
        ended = time.monotonic() + seconds
        await asyncio.gather(
            *(_keep_hot(engine, key, ended, seen) for key in keys[:HOT]),
            *(_go_through(engine, keys[HOT:], number, ended, seen) for number in range(COLD_CALLERS)),
            _watch(engine, ended, seen),
        )
    finally:
        await engine.stop()
    return seen


async def _call(engine: LocalEngine, key: str) -> int:
    """Call a model; return its process."""
    outputs = await engine.run(key, [Input("x")], Ticket())
    return int(outputs[0]["pid"])


async def _keep_hot(engine: LocalEngine, key: str, ended: float, seen: Seen) -> None:
    while time.monotonic() < ended:
        seen.calls += 1
        try:
            seen.pids.setdefault(key, set()).add(await _call(engine, key))
        except HaatError:
            seen.failed += 1
        await asyncio.sleep(HOT_PAUSE)


async def _go_through(engine: LocalEngine, keys: list[str], number: int, ended: float, seen: Seen) -> None:
    order = random.Random(number).sample(keys, len(keys))  # noqa: S311
    while order and time.monotonic() < ended:
        seen.cold_calls += 1
        try:
            await _call(engine, order.pop())
        except Overloaded:
            seen.cold_refused += 1
            await asyncio.sleep(0.5)
        except HaatError:
            seen.cold_failed += 1


async def _watch(engine: LocalEngine, ended: float, seen: Seen) -> None:
    while time.monotonic() < ended:
        seen.most_counted_mb = max(seen.most_counted_mb, engine.memory() / MEGABYTE)
        seen.most_mb = max(seen.most_mb, await asyncio.to_thread(_held))
        await asyncio.sleep(0.5)


def _held() -> float:
    """Return the memory of all workers as the kernel counts it: each page that is shared, in parts (PSS)."""
    held = 0
    for process in process_tree(os.getpid())[1:]:
        try:
            with open(f"/proc/{process.pid}/smaps_rollup") as lines:  # noqa: PTH123
                held += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):
            continue
    return held / 1024

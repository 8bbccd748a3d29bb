"""The loop that gives an engine's models the workers that the policy wants."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from haat.kernel.errors import EngineFailed
from haat.models import autoscaling
from haat.models.autoscaling import Autoscaler
from haat.models.engines.port import Engine, Model, State, Status, Ticket
from haat.models.hosted import Output
from haat.models.manifest import Manifest, Workers
from haat.models.runtimes.port import Input


class Scaled(Engine):
    """An engine whose states are set by the test, and which remembers what it was told."""

    def __init__(self, **states: State) -> None:
        self.states = {f"shop/{name}@1.0.0": state for name, state in states.items()}
        self.told: list[tuple[str, int]] = []
        self.refuses = False

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def deploy(self, model: Model) -> None: ...
    async def remove(self, key: str) -> None: ...
    async def load(self, key: str) -> None: ...
    async def unload(self, key: str) -> None: ...
    async def run(self, key: str, inputs: Sequence[Input], ticket: Ticket) -> list[Output]:
        raise EngineFailed

    async def stream(self, key: str, given: Input, ticket: Ticket) -> AsyncIterator[Output]:
        raise EngineFailed
        yield {}

    async def scale(self, key: str, workers: int) -> None:
        if self.refuses:
            raise EngineFailed("No place for it.")
        self.told.append((key, workers))

    def state(self, key: str) -> State:
        return self.states[key]

    def models(self) -> list[Model]:
        manifest = Manifest("m", "python", "m:M", workers=Workers(least=1, most=4))
        return [Model(key, manifest, Path()) for key in self.states]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def looked(scaler: Autoscaler, clock: Clock, times: int) -> None:
    for _ in range(times):
        await scaler.look()
        clock.now += 1


async def test_an_engine_is_told_of_a_change_once() -> None:
    clock, engine = Clock(), Scaled(one=State(Status.BUSY, workers=1, queued=200), other=State(Status.READY, workers=1))
    await looked(Autoscaler(engine, clock=clock), clock, 4)
    assert engine.told == [("shop/one@1.0.0", 3)]


async def test_models_that_are_not_loaded_are_left_alone() -> None:
    statuses = (Status.UNLOADED, Status.LOADING, Status.UNLOADING, Status.ERROR)
    clock = Clock()
    engine = Scaled(**{status.value: State(status, workers=0, queued=500) for status in statuses})
    scaler = Autoscaler(engine, clock=clock)
    await looked(scaler, clock, 10)
    assert engine.told == []
    assert not [line for line in scaler.metrics().splitlines() if not line.startswith("#")]


async def test_what_the_engine_refuses_is_tried_again() -> None:
    clock, engine = Clock(), Scaled(one=State(Status.BUSY, workers=1, queued=200))
    engine.refuses = True
    scaler = Autoscaler(engine, clock=clock)
    await looked(scaler, clock, 20)
    engine.refuses = False
    await looked(scaler, clock, 10)
    assert engine.told == [("shop/one@1.0.0", 3)]


async def test_a_model_that_is_removed_is_forgotten() -> None:
    clock, engine = Clock(), Scaled(one=State(Status.BUSY, workers=1))
    scaler = Autoscaler(engine, clock=clock)
    await looked(scaler, clock, 1)
    assert 'haat_model_workers_wanted{model="shop/one@1.0.0"} 1' in scaler.metrics().splitlines()
    engine.states.clear()
    assert "shop/one" not in scaler.metrics()
    await looked(scaler, clock, 1)
    assert "shop/one" not in scaler.metrics()


async def test_the_metrics_are_prometheus_text() -> None:
    clock = Clock()
    engine = Scaled(b=State(Status.BUSY, workers=2, queued=7), a=State(Status.READY, workers=1))
    engine.states['shop/odd"\\@1'] = State(Status.READY, workers=1)
    scaler = Autoscaler(engine, clock=clock)
    await looked(scaler, clock, 1)
    lines = scaler.metrics().splitlines()
    assert lines[:5] == [
        "# HELP haat_model_workers_wanted Workers that the autoscaling policy wants for a loaded model.",
        "# TYPE haat_model_workers_wanted gauge",
        'haat_model_workers_wanted{model="shop/a@1.0.0"} 1',
        'haat_model_workers_wanted{model="shop/b@1.0.0"} 2',
        'haat_model_workers_wanted{model="shop/odd\\"\\\\@1"} 1',
    ]
    assert 'haat_model_inputs_waiting{model="shop/b@1.0.0"} 7' in lines
    sample = re.compile(r'^[a-z_]+\{model="(?:[^"\\]|\\.)*"\} [0-9.]+$')
    assert all(line.startswith("# ") or sample.match(line) for line in lines)


async def test_the_loop_looks_by_itself_until_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoscaling, "PERIOD", 0.001)
    engine, told = Scaled(one=State(Status.BUSY, workers=1, queued=200)), asyncio.Event()

    async def scale(key: str, workers: int) -> None:
        told.set()

    monkeypatch.setattr(engine, "scale", scale)
    clock = iter(range(1_000_000))
    scaler = Autoscaler(engine, clock=lambda: float(next(clock)))
    scaler.start()
    async with asyncio.timeout(10):
        await told.wait()
    await scaler.stop()
    await scaler.stop()


async def test_an_error_does_not_end_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoscaling, "PERIOD", 0.001)
    engine, again = Scaled(), asyncio.Event()
    looks = 0

    def models() -> list[Model]:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise RuntimeError("for once")
        again.set()
        return []

    monkeypatch.setattr(engine, "models", models)
    scaler = Autoscaler(engine)
    scaler.start()
    async with asyncio.timeout(10):
        await again.wait()
    await scaler.stop()

"""The local engine: models in worker processes on this machine, within a bound of memory."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import psutil
from msgspec import structs

from haat.kernel.errors import EngineFailed, HaatError, Overloaded, ServiceNotFound
from haat.models import wire
from haat.models.engines.local.calls import StreamCall
from haat.models.engines.local.counters import Counters
from haat.models.engines.local.crew import Crew
from haat.models.engines.local.memory import to_unload
from haat.models.engines.local.pool import Pool
from haat.models.engines.local.process import WorkerProcess
from haat.models.engines.port import Engine, Model, State, Ticket
from haat.models.hosted import Output
from haat.models.runtimes.port import Input
from haat.models.task import parse_inputs

LOAD_SECONDS = 300.0
CLOSE_SECONDS = 2.0
MEASURE_SECONDS = 5.0
MOST_SHARING = 32
"""Small models in one worker."""
MEMORY_SHARE = 0.7
"""Of the machine's memory, for models, unless a limit is given."""
_MEGABYTE = 1024 * 1024

log = logging.getLogger(__name__)


class LocalEngine(Engine):
    """Runs models here. ``memory_limit`` is in bytes, for all models together; 0 takes 70 % of the machine's.

    Workers have their private folders in ``home``, which is emptied at the start; models that may use the network reach
    ``networks`` though they aren't public.
    """

    def __init__(self, memory_limit: int = 0, home: Path | None = None, networks: Iterable[str] = ()) -> None:
        self._places, self._networks = home, tuple(networks)
        self._limit = memory_limit or int(psutil.virtual_memory().total * MEMORY_SHARE)
        self._pools: dict[str, Pool] = {}
        self._leaving: set[Pool] = set()
        self._counters: dict[str, Counters] = {}
        self._shared: list[WorkerProcess] = []
        self._ending: set[asyncio.Task[None]] = set()
        self._homes = asyncio.Lock()
        self._room = asyncio.Lock()
        self._measuring: asyncio.Task[None] | None = None
        self._stopped = False

    async def start(self) -> None:
        if self._measuring is None:
            if self._places is not None:  # what is left of an engine that was killed
                await asyncio.to_thread(shutil.rmtree, self._places, ignore_errors=True)
            self._measuring = asyncio.create_task(self._measure_for_ever(), name="measure models")

    async def stop(self) -> None:
        self._stopped = True
        if self._measuring is not None:
            self._measuring.cancel()
            await asyncio.wait([self._measuring])
            self._measuring = None
        await asyncio.gather(*(pool.close() for pool in (*self._pools.values(), *self._leaving)))
        await asyncio.gather(*(worker.end() for worker in self._shared))
        self._shared.clear()
        if self._ending:
            await asyncio.wait(self._ending)

    async def deploy(self, model: Model) -> None:
        before = self._pools.get(model.key)
        pool = Pool(model, self, self._counters.setdefault(model.key, Counters()))
        self._pools[model.key] = pool
        if before is not None:
            await self._see_off(before)
        if model.manifest.preload:
            with contextlib.suppress(HaatError):  # its state says what is wrong
                await pool.crew.load()

    async def remove(self, key: str) -> None:
        pool = self._pools.pop(key, None)
        if pool is not None:
            await self._see_off(pool)
            if key not in self._pools:
                self._counters.pop(key, None)

    async def load(self, key: str) -> None:
        await self._pools[key].crew.load()

    async def unload(self, key: str) -> None:
        await self._pools[key].unload()

    async def run(self, key: str, inputs: Sequence[Input], ticket: Ticket) -> list[Output]:
        pool = self._pool(key)
        if not inputs:
            return []
        call = pool.submit(inputs, ticket)
        try:
            await call.future
        except asyncio.CancelledError:
            pool.abandon(call)
            raise
        return call.outputs  # type: ignore[return-value]  # all of them are there

    async def stream(self, key: str, given: Input, ticket: Ticket) -> AsyncIterator[Output]:
        pool = self._pool(key)
        call = pool.submit([given], ticket, stream=True)
        assert isinstance(call, StreamCall)
        try:
            while (part := await call.next()) is not None:
                yield part
        finally:
            pool.abandon(call)

    async def scale(self, key: str, workers: int) -> None:
        pool = self._pools[key]
        bounds = pool.model.manifest.workers
        await pool.scale(max(1, bounds.least, min(workers, bounds.most)))

    def state(self, key: str) -> State:
        return self._pools[key].state()

    def models(self) -> list[Model]:
        return [pool.model for pool in self._pools.values()]

    def model(self, key: str) -> Model | None:
        """Return a model by its key."""
        pool = self._pools.get(key)
        return None if pool is None else pool.model

    def metrics(self) -> dict[str, tuple[Counters, State]]:
        """Return what is counted of each model, and its state, by key."""
        return {key: (pool.counters, pool.state()) for key, pool in self._pools.items()}

    @property
    def memory_limit(self) -> int:
        """Bytes that models may take together."""
        return self._limit

    def memory(self) -> int:
        """Return the bytes that models take now, and those kept for models that are being loaded."""
        return sum(pool.crew.memory for pool in (*self._pools.values(), *self._leaving))

    def _pool(self, key: str) -> Pool:
        pool = self._pools.get(key)
        if pool is None:
            raise ServiceNotFound("No model of that name runs here; check provider, service and version.")
        return pool

    async def _see_off(self, pool: Pool) -> None:
        self._leaving.add(pool)
        await pool.drain()
        await pool.close()
        self._leaving.discard(pool)

    # --- workers: what a crew asks of its staff -----------------------------------------------------

    async def hire(self, crew: Crew) -> WorkerProcess:
        """Start a worker for a crew's model, or find a shared one, and open the model in it, warm."""
        await self._make_room(crew)
        try:
            worker = await self._home(crew.model)
            try:
                await self._open(crew, worker)
            except BaseException:
                await self._leave(crew.model.key, worker)
                raise
            return worker
        finally:
            crew.reserved = 0

    async def dismiss(self, crew: Crew, worker: WorkerProcess) -> None:
        """Close a crew's model in a worker, and end the worker if it has no other."""
        if not worker.lost and not self._stopped:
            with contextlib.suppress(HaatError):
                await worker.ask(["close", crew.model.key], CLOSE_SECONDS)
        await self._leave(crew.model.key, worker)

    async def _home(self, model: Model) -> WorkerProcess:
        manifest = model.manifest
        if not manifest.workers.shared or manifest.environment:
            return await self._start(model)
        async with self._homes:
            for worker in self._shared:
                if not worker.lost and len(worker.models) < MOST_SHARING and _can_share(worker, model):
                    break
            else:
                worker = await self._start(model)
                self._shared.append(worker)
            worker.models[model.key] = model
            return worker

    async def _start(self, model: Model) -> WorkerProcess:
        if model.manifest.workers.shared:
            most = model.manifest.memory_mb * MOST_SHARING  # each is held to its own when it is measured
            model = replace(model, manifest=structs.replace(model.manifest, memory_mb=most))
        worker = WorkerProcess(model, self._lost, self._places, self._networks)
        worker.models[model.key] = model
        await worker.start()
        return worker

    async def _open(self, crew: Crew, worker: WorkerProcess) -> None:
        model, manifest = crew.model, crew.model.manifest
        written = msgspec.to_builtins(manifest)
        folder = model.folder
        if manifest.workers.shared and worker.work is not None:  # it reads no folder but its first model's and its own
            folder = worker.work / "models" / model.key.replace("/", ".")
            await asyncio.to_thread(shutil.copytree, model.folder, folder, dirs_exist_ok=True)
        await worker.ask(["open", model.key, written, str(folder)], LOAD_SECONDS)
        if manifest.sample:
            await self._warm_up(model, worker)
        memory = await asyncio.to_thread(worker.memory_bytes) // max(1, len(worker.models))
        if memory > manifest.memory_mb * _MEGABYTE:
            raise EngineFailed(
                f"The model takes {memory // _MEGABYTE} MB, and its manifest says {manifest.memory_mb} (`memory_mb`)."
            )
        if not worker.lost:
            crew.measure(worker, memory)

    async def _warm_up(self, model: Model, worker: WorkerProcess) -> None:
        try:
            inputs = parse_inputs(model.manifest, msgspec.json.encode(model.manifest.sample))
            await worker.ask(["run", model.key, "", wire.inputs_of(inputs)], LOAD_SECONDS)
        except HaatError as error:
            if not await self._goes_on(worker):
                raise
            log.warning("%s fails on its own sample: %s", model.key, error.detail)

    async def _goes_on(self, worker: WorkerProcess) -> bool:
        """Tell whether a worker is there after an error: one that was out of memory ends."""
        try:
            await worker.ask(["ping"], CLOSE_SECONDS)
        except HaatError:
            return False
        return True

    async def _leave(self, key: str, worker: WorkerProcess) -> None:
        worker.models.pop(key, None)
        if not worker.models or worker.lost:
            if worker in self._shared:
                self._shared.remove(worker)
            await worker.end()

    def _lost(self, worker: WorkerProcess, keys: list[str]) -> None:
        ending = asyncio.create_task(worker.end(), name=f"end worker {worker.pid}")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        if worker in self._shared:
            self._shared.remove(worker)
        for pool in (*(self._pools[key] for key in keys if key in self._pools), *self._leaving):
            pool.crew.lose(worker)

    # --- memory -------------------------------------------------------------------------------------

    async def _make_room(self, crew: Crew) -> None:
        """Keep memory for one more worker of a model; others are unloaded for it. Overloaded when all is in use."""
        async with self._room:
            needed = crew.measured or crew.model.manifest.memory_mb * _MEGABYTE
            if needed > self._limit:
                raise EngineFailed(
                    f"The model takes {needed // _MEGABYTE} MB; all together may take {self._limit // _MEGABYTE}."
                )
            if not await self._unload_for(needed, crew):
                raise Overloaded(
                    "All memory for models is in use; try again when others have less to do.", retry_after=5
                )
            crew.reserved = needed

    async def _unload_for(self, needed: int, crew: Crew | None = None) -> bool:
        # One at a time, and then seen anew: while one is unloaded another may have got something to do.
        while (keys := self._least_needed(needed, crew)) is not None:
            if not keys:
                return True
            log.info("%s is unloaded: others need its memory", keys[0])
            await self._pools[keys[0]].unload()
        return False

    def _least_needed(self, needed: int, crew: Crew | None) -> list[str] | None:
        now = time.monotonic()
        others = [other.resident(now) for other in self._pools.values() if other.crew.memory and other.crew is not crew]
        own = self.memory() - sum(other.memory for other in others)
        return to_unload(others, needed + own, self._limit)

    async def _measure_for_ever(self) -> None:
        while True:
            await asyncio.sleep(MEASURE_SECONDS)
            try:
                await self._measure()
            except Exception:
                log.exception("the memory of models can't be measured")

    async def _measure(self) -> None:
        pools = [*self._pools.values(), *self._leaving]
        workers = list({worker for pool in pools for worker in pool.workers})
        sizes = await asyncio.to_thread(lambda: [worker.memory_bytes() for worker in workers])
        taken = dict(zip(workers, sizes, strict=True))
        for pool in pools:
            limit = pool.model.manifest.memory_mb * _MEGABYTE
            for worker in list(pool.workers):
                if worker.lost or worker not in taken:
                    continue
                memory = taken[worker] // max(1, len(worker.models))
                pool.crew.measure(worker, memory)
                if memory > limit and worker.free:
                    log.warning(
                        "a worker of %s has grown beyond %d MB; it is replaced", pool.model.key, limit // _MEGABYTE
                    )
                    worker.kill()
        async with self._room:
            await self._unload_for(0)


def _can_share(worker: WorkerProcess, model: Model) -> bool:
    """Tell whether a model may live with those of a worker: of one provider, as they could read each other's inputs."""
    return all(_kind(other) == _kind(model) for other in worker.models.values())


def _kind(model: Model) -> tuple[str, str, str, bool]:
    """Return what a worker's process is made for."""
    return model.provider, model.python, model.manifest.runtime, model.manifest.network

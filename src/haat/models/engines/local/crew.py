"""The workers of one model: hired, replaced when they are lost, let go, and the memory they take."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from haat.kernel.errors import EngineFailed, HaatError, Overloaded
from haat.models.engines.local.calls import again
from haat.models.engines.local.counters import Counters
from haat.models.engines.local.process import WorkerProcess
from haat.models.engines.port import Model

FIRST_BACKOFF, MOST_BACKOFF = 0.05, 30.0
RETRY_SECONDS = 5.0
"""So long some workers go on alone before more are tried for again."""

log = logging.getLogger(__name__)


class Staff(Protocol):
    """Who gives a model its workers, and takes them back."""

    async def hire(self, crew: Crew) -> WorkerProcess:
        """Return a worker in which the crew's model is open; raise a HaatError."""

    async def dismiss(self, crew: Crew, worker: WorkerProcess) -> None:
        """Close the model in a worker, and end one that has nothing else to do."""


@dataclass(frozen=True, slots=True)
class Ears:
    """Who is told what happens to a crew."""

    free: Callable[[], None]
    """A worker has become free, or is new."""
    first: Callable[[float], None]
    """There is a worker again; hiring it began at this time."""
    refused: Callable[[HaatError], None]
    """There is none, and none can be had for now."""


class Crew:
    """The workers of a model. There are as many as are ``wanted`` once something is to be done."""

    def __init__(self, model: Model, staff: Staff, counters: Counters, ears: Ears) -> None:
        self.model = model
        self.workers: list[WorkerProcess] = []
        self.wanted = max(1, model.manifest.workers.least)
        self.measured = 0
        """Bytes that a worker took when one was last measured."""
        self.reserved = 0
        """Memory kept for a worker that is being started."""
        self.unloading = False
        self.closed = False
        self.error: HaatError | None = None
        """Why the model can't be loaded, until it is."""
        self._memory_of: dict[WorkerProcess, int] = {}
        self._staff = staff
        self._counters = counters
        self._ears = ears
        self._loading: asyncio.Task[None] | None = None
        self._failures = 0
        self._refusal: HaatError | None = None
        """What the last attempt to load it ended with."""
        self._not_before = 0.0
        self._retry: asyncio.TimerHandle | None = None

    # --- there being enough -------------------------------------------------------------------------

    @property
    def loading(self) -> bool:
        """Tell whether workers are being started."""
        return self._loading is not None

    def hopeless(self, now: float) -> HaatError | None:
        """Return why no worker will come soon, if that is so."""
        return self.error if now < self._not_before and not self.workers else None

    def staff_up(self) -> asyncio.Task[None]:
        """See that there are as many workers as are wanted; return what does so."""
        if self._loading is None:
            self._refusal = None
            self._loading = asyncio.create_task(self._hire(), name=f"load {self.model.key}")
        return self._loading

    async def _hire(self) -> None:
        began = time.monotonic()
        try:
            while len(self.workers) < self.wanted and not self.closed:
                await asyncio.sleep(max(0.0, self._not_before - time.monotonic()))
                worker = await self._staff.hire(self)
                if worker.lost:
                    continue
                self.error = None
                self.workers.append(worker)
                worker.users.append(self._ears.free)
                now = time.monotonic()
                self._counters.loads += 1
                self._counters.load_seconds.add(now - began)
                if len(self.workers) == 1:
                    self._ears.first(began)
                self._ears.free()
                began = now
        except HaatError as error:
            self._not_loaded(error)
        except Exception:
            log.exception("%s can't be loaded", self.model.key)
            self._not_loaded(EngineFailed("The model can't be loaded; the operator's log says why."))
        finally:
            self._loading = None

    def _not_loaded(self, error: HaatError) -> None:
        log.warning("%s is not loaded: %s", self.model.key, error.detail)
        self._refusal = error
        if not isinstance(error, Overloaded):
            self.error = error
            self._back_off()
        if not self.workers:
            self._ears.refused(error)
            return
        if self._retry is not None:
            self._retry.cancel()
        wait = max(RETRY_SECONDS, self._not_before - time.monotonic())
        self._retry = asyncio.get_running_loop().call_later(wait, self._try_again)

    def _try_again(self) -> None:
        if self.workers and not self.unloading and not self.closed:
            self.staff_up()

    def _back_off(self) -> None:
        self._failures += 1
        # The first time at once: one crash is no reason to let callers wait.
        wait = FIRST_BACKOFF * 2 ** min(self._failures - 2, 16) if self._failures > 1 else 0.0
        if self.error is not None:
            wait = max(wait, 1.0)
        self._not_before = time.monotonic() + min(MOST_BACKOFF, wait)

    def did_well(self) -> None:
        """Note that a batch has succeeded: the next loss is a first one."""
        self._failures = 0

    def lose(self, worker: WorkerProcess) -> None:
        """Replace a worker that is gone."""
        self._memory_of.pop(worker, None)
        if worker not in self.workers:
            return
        self.workers.remove(worker)
        self._counters.lost += 1
        log.warning("a worker of %s (pid %d) is gone; it is replaced", self.model.key, worker.pid)
        if not self.unloading and not self.closed:
            self._back_off()
            self.staff_up()

    async def load(self) -> None:
        """Return when there are as many workers as are wanted; raise what keeps the model from being loaded."""
        while len(self.workers) < self.wanted:
            if self._loading is None:
                self._not_before = 0.0
            await asyncio.wait([self.staff_up()])
            if self.closed:
                raise EngineFailed("The model is being taken away.")
            if self._refusal is not None and len(self.workers) < self.wanted:
                raise again(self._refusal)

    # --- there being fewer --------------------------------------------------------------------------

    async def shrink(self) -> None:
        """Let go of those that are more than are wanted; each ends what it does first."""
        while len(self.workers) > self.wanted:
            idle = [worker for worker in self.workers if not worker.busy]
            await self._let_go(idle[-1] if idle else self.workers[-1])

    async def unload(self) -> None:
        """Let go of all, once what runs has ended."""
        self.unloading = True
        try:
            if self._loading is not None:
                await asyncio.wait([self._loading])
            if self.workers:
                self._counters.unloads += 1
            while self.workers:
                await self._let_go(self.workers[-1])
        finally:
            self.unloading = False

    async def close(self, running: set[WorkerProcess]) -> None:
        """End all of them, those that are ``running`` something by force."""
        if self._retry is not None:
            self._retry.cancel()
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait([self._loading])
        for worker in running.intersection(self.workers):
            worker.kill()
        while self.workers:
            await self._let_go(self.workers[-1])

    async def _let_go(self, worker: WorkerProcess) -> None:
        self.workers.remove(worker)  # it gets no more batches; being dismissed waits for its turn
        if self._ears.free in worker.users:
            worker.users.remove(self._ears.free)
        await self._staff.dismiss(self, worker)
        self._memory_of.pop(worker, None)

    # --- memory -------------------------------------------------------------------------------------

    @property
    def memory(self) -> int:
        """Bytes that they take, and those kept for one that is being started."""
        return sum(self._memory_of.values()) + self.reserved

    def measure(self, worker: WorkerProcess, memory: int) -> None:
        """Note what a worker takes."""
        self.measured = self._memory_of[worker] = memory

"""One model in the local engine: its queue, its workers, and what runs in them."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from haat.kernel.errors import EngineFailed, EngineTimeout, HaatError, Overloaded
from haat.models import costs
from haat.models.engines.local.batcher import Batcher, Entry
from haat.models.engines.local.batches import Batch, Piece
from haat.models.engines.local.calls import Call, StreamCall, again
from haat.models.engines.local.counters import Counters, Lately
from haat.models.engines.local.memory import HOT, Heat, Resident
from haat.models.engines.local.process import WorkerProcess
from haat.models.engines.port import PRIORITIES, Model, State, Status, Ticket
from haat.models.runtimes.port import Input

MOST_RETRY_AFTER = 60
FIRST_BACKOFF, MOST_BACKOFF = 0.05, 30.0
SHORT_BATCH_SECONDS = 0.05
"""A batch that takes no longer is worth sending ahead: what comes with a higher priority waits for one more."""

log = logging.getLogger(__name__)


class Staff(Protocol):
    """Who gives a model its workers, and takes them back."""

    async def hire(self, pool: Pool) -> WorkerProcess:
        """Return a worker in which the pool's model is open; raise a HaatError."""

    async def dismiss(self, pool: Pool, worker: WorkerProcess) -> None:
        """Close the model in a worker, and end one that has nothing else to do."""


class Pool:
    """A deployed model."""

    def __init__(self, model: Model, staff: Staff, counters: Counters) -> None:
        manifest = model.manifest
        self.model = model
        self.counters = counters
        self.lately = Lately()
        self.heat = Heat()
        self.workers: list[WorkerProcess] = []
        self.wanted = max(1, manifest.workers.least)
        self.memory_of: dict[WorkerProcess, int] = {}
        """What each worker takes for this model, as last measured."""
        self.measured = 0
        """What a worker took when one was last measured."""
        self.reserved = 0
        """Memory kept for a worker that is being started."""
        self.used_at = time.monotonic()
        self._staff = staff
        self._loop = asyncio.get_running_loop()  # asking for it costs a system call each time
        self._limit = manifest.timeout_seconds
        self._batcher = Batcher(manifest.batching)
        self._again: deque[Piece] = deque()
        self._calls: set[Call] = set()
        self._running: set[Batch] = set()
        self._running_calls = 0
        self._batch_seconds = math.inf
        """What the last batch has taken."""
        self._watched: set[Call] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loading: asyncio.Task[None] | None = None
        self._dismissing: set[asyncio.Task[None]] = set()
        self._unloading = False
        self._closed = False
        self._failures = 0
        self._error: HaatError | None = None
        """Why it can't be loaded, until it is."""
        self._refusal: HaatError | None = None
        """What the last attempt to load it ended with."""
        self._not_before = 0.0
        self._idle = asyncio.Event()
        self._idle.set()

    # --- calls --------------------------------------------------------------------------------------

    def submit(self, inputs: Sequence[Input], ticket: Ticket, *, stream: bool = False) -> Call:
        """Let a call wait for its turn; raise Overloaded, or what keeps the model from being loaded."""
        now = time.monotonic()
        if ticket.priority not in PRIORITIES:
            raise ValueError(f"a priority is 1 to 10, not {ticket.priority}")
        self._refuse_if_hopeless(now)
        deadline = ticket.deadline or now + self._limit
        future: asyncio.Future[None] = self._loop.create_future()
        call = (StreamCall if stream else Call)(inputs, ticket, now, future, self._ended)
        batching = self.model.manifest.batching
        call.entries = [
            Entry(
                call,
                index,
                given,
                now,
                ticket.priority,
                costs.cost(batching, given),
                costs.group(batching, given) if batching.group_by else (),
                len(given.content) or len(given.text) + len(given.other),
                stream,
            )
            for index, given in enumerate(inputs)
        ]
        self.heat.add(now)
        self.used_at = now
        self.counters.calls += 1
        self.counters.inputs += len(inputs)
        self._calls.add(call)
        self._idle.clear()
        if ticket.on_place is not None:
            self._watched.add(call)
        call.timer = self._loop.call_later(max(0.0, deadline - now), self._is_late, call)
        self._batcher.add(call.entries, self._running_calls)
        self.pump()
        return call

    def abandon(self, call: Call) -> None:
        """Give up a call whose caller has gone: what waits of it leaves the queue, a stream of it is ended."""
        if call.ended:
            return
        self.counters.abandoned += 1
        call.future.cancel()
        call.end(None)
        if isinstance(call, StreamCall) and call.stop is not None:
            call.stop()

    def _refuse_if_hopeless(self, now: float) -> None:
        if self._closed:
            raise EngineFailed("The model is being taken away; the call is not billed.")
        if self._error is not None and now < self._not_before and not self.workers:
            self.counters.errors[self._error.code] += 1
            raise again(self._error)
        if self._batcher.is_full(len(self.workers), self._ready()):
            self.counters.errors[Overloaded.code] += 1
            raise Overloaded(retry_after=self._retry_after())

    def _retry_after(self) -> int:
        """Return the seconds in which half of what waits is done, at the rate of lately."""
        rate = self.lately.rate(max(1, len(self.workers)))
        return min(MOST_RETRY_AFTER, max(1, math.ceil(len(self._batcher) / 2 / rate))) if rate else 1

    def _is_late(self, call: Call) -> None:
        call.end(EngineTimeout())
        if isinstance(call, StreamCall) and call.stop is not None:
            call.stop()

    def _ended(self, call: Call) -> None:
        now = time.monotonic()
        self._batcher.drop(call)
        self._calls.discard(call)
        self._watched.discard(call)
        if call.future.cancelled():
            pass
        elif (error := call.future.exception()) is not None:
            self.counters.errors[getattr(error, "code", "INTERNAL")] += 1
        else:
            self.lately.answer(now, now - call.since)
        if not self._calls:
            self._idle.set()

    # --- batches ------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Give every free worker the next batch that is due."""
        if self._unloading:
            return
        for worker in self.workers:
            while worker.free and (piece := self._next()) is not None:
                self._launch(worker, piece)
        if self._batch_seconds <= SHORT_BATCH_SECONDS:
            for worker in self.workers:
                if worker.takes_one_more and self._batcher.has_whole_batch:
                    entries = self._batcher.take(time.monotonic(), len(self.workers), self._running_calls)
                    self._launch(worker, Piece(entries), behind=True)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._again or len(self._batcher):
            self._come_back()
        if self._watched:
            self._tell_places()

    def _next(self) -> Piece | None:
        while self._again:
            piece = self._again.popleft()
            piece.entries = piece.alive()
            if piece.entries:
                return piece
        entries = self._batcher.take(time.monotonic(), len(self.workers), self._running_calls)
        return Piece(entries) if entries else None

    def _launch(self, worker: WorkerProcess, piece: Piece, *, behind: bool = False) -> None:
        batch = Batch(self.model.key, piece, worker, self._limit, self._batch_ended)
        self._running.add(batch)
        self._count_running()
        for entry in batch.entries:
            call = entry.call
            if isinstance(call, StreamCall) and call.timer is not None and not call.ticket.deadline:
                call.timer.cancel()  # from now on it is silence that ends it
        self.counters.batch_size.add(len(batch.entries))
        if behind:
            batch.follow()
        else:
            batch.begin()

    def _batch_ended(self, batch: Batch, again: list[Piece]) -> None:
        self._running.discard(batch)
        self._count_running()
        self._again.extendleft(reversed(again))
        if batch.waits_behind:
            return
        for entry in batch.entries:
            self.counters.queue_seconds.add(batch.began - entry.since)
        self.counters.inference_seconds.add(batch.seconds)
        if not batch.failed and not batch.hung:
            self._failures = 0
            self._batch_seconds = batch.seconds
            self.lately.batch(time.monotonic(), len(batch.entries), batch.seconds)
        self.used_at = time.monotonic()

    def _ready(self) -> int:
        """Return how many inputs lie ready behind batches that run."""
        return sum(len(batch.entries) for batch in self._running if batch.waits_behind)

    def _count_running(self) -> None:
        self._running_calls = len({entry.call for batch in self._running for entry in batch.entries})

    def _come_back(self) -> None:
        if not self.workers:
            self.staff_up()
        elif any(worker.free for worker in self.workers) and math.isfinite(due := self._batcher.due_at()):
            # A free worker has left something: it waits for company.
            self._timer = self._loop.call_later(max(0.0, due - time.monotonic()), self.pump)

    def _tell_places(self) -> None:
        for call in tuple(self._watched):
            places = [self._batcher.place(entry) for entry in call.entries if entry.waits]
            place = min(places, default=0)
            if place != call.place and call.ticket.on_place is not None:
                call.place = place
                call.ticket.on_place(place)
            if not place:
                self._watched.discard(call)

    # --- workers ------------------------------------------------------------------------------------

    def staff_up(self) -> asyncio.Task[None]:
        """See that there are as many workers as are wanted; return what does so."""
        if self._loading is None:
            self._refusal = None
            self._loading = asyncio.create_task(self._hire(), name=f"load {self.model.key}")
        return self._loading

    async def _hire(self) -> None:
        began = time.monotonic()
        try:
            while len(self.workers) < self.wanted and not self._closed:
                await asyncio.sleep(max(0.0, self._not_before - time.monotonic()))
                worker = await self._staff.hire(self)
                if worker.lost:
                    continue
                self._error = None
                self.workers.append(worker)
                worker.users.append(self.pump)
                self.counters.loads += 1
                now = time.monotonic()
                self.counters.load_seconds.add(now - began)
                if len(self.workers) == 1:
                    for call in self._calls:
                        call.ticket.loaded += now - max(began, call.since)
                self.pump()
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
            self._error = error
            self._back_off()
        if not self.workers:
            for call in tuple(self._calls):
                call.end(again(error))

    def _back_off(self) -> None:
        self._failures += 1
        # The first time at once: one crash is no reason to let callers wait.
        wait = FIRST_BACKOFF * 2 ** min(self._failures - 2, 16) if self._failures > 1 else 0.0
        if self._error is not None:
            wait = max(wait, 1.0)
        self._not_before = time.monotonic() + min(MOST_BACKOFF, wait)

    def lose(self, worker: WorkerProcess) -> None:
        """Replace a worker that is gone."""
        self.memory_of.pop(worker, None)
        if worker not in self.workers:
            return
        self.workers.remove(worker)
        self.counters.lost += 1
        log.warning("a worker of %s (pid %d) is gone; it is replaced", self.model.key, worker.pid)
        if not self._unloading and not self._closed:
            self._back_off()
            self.staff_up()

    async def load(self) -> None:
        """Return when there are as many workers as are wanted; raise what keeps the model from being loaded."""
        while len(self.workers) < self.wanted:
            if self._loading is None:
                self._not_before = 0.0
            await asyncio.wait([self.staff_up()])
            if self._closed:
                raise EngineFailed("The model is being taken away.")
            if self._refusal is not None and len(self.workers) < self.wanted:
                raise again(self._refusal)

    async def scale(self, workers: int) -> None:
        """Have so many workers from now on; those that are too many end what they do first."""
        self.wanted = workers
        if not self.workers and not self._calls and self._loading is None:
            return  # it isn't loaded: they come with the next call
        while len(self.workers) > self.wanted:
            idle = [worker for worker in self.workers if not worker.busy]
            await self._let_go(idle[-1] if idle else self.workers[-1])
        if len(self.workers) < self.wanted:
            await self.load()

    async def _let_go(self, worker: WorkerProcess) -> None:
        self.workers.remove(worker)  # it gets no more batches; being dismissed waits for its turn
        await self._dismiss(worker)

    async def _dismiss(self, worker: WorkerProcess) -> None:
        if self.pump in worker.users:
            worker.users.remove(self.pump)
        await self._staff.dismiss(self, worker)
        self.memory_of.pop(worker, None)

    async def unload(self) -> None:
        """Give the memory back once what runs has ended; what waits stays, and has the model loaded again."""
        if self._unloading:
            return
        self._unloading = True
        try:
            if self._loading is not None:
                await asyncio.wait([self._loading])
            if self.workers:
                self.counters.unloads += 1
            while self.workers:
                await self._let_go(self.workers[-1])
        finally:
            self._unloading = False
            self.pump()

    async def drain(self) -> None:
        """Wait until every call has ended. Each does, at its deadline at the latest."""
        await self._idle.wait()

    async def close(self) -> None:
        """End everything; calls that still run fail."""
        self._closed = True
        for call in tuple(self._calls):
            call.end(EngineFailed("The engine is being stopped; the call is not billed."))
        if self._timer is not None:
            self._timer.cancel()
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait([self._loading])
        for worker in tuple(self.workers):
            if any(batch.worker is worker for batch in self._running):
                worker.kill()
        while self.workers:
            worker = self.workers.pop()
            await self._dismiss(worker)

    # --- how it is doing ----------------------------------------------------------------------------

    @property
    def memory(self) -> int:
        """Bytes its workers take, and those kept for one that is being started."""
        return sum(self.memory_of.values()) + self.reserved

    def measure(self, worker: WorkerProcess, memory: int) -> None:
        """Note what a worker takes."""
        self.measured = self.memory_of[worker] = memory

    def resident(self, now: float) -> Resident:
        """Tell what there is to know when memory is short."""
        kept = bool(self.model.manifest.preload or self._calls or self._loading or self._running)
        return Resident(self.model.key, self.memory, self.used_at, kept or self._unloading or self.heat.now(now) > HOT)

    def state(self) -> State:
        """Tell how it is doing."""
        now = time.monotonic()
        running = sum(now - batch.began for batch in self._running if not batch.waits_behind)
        return State(
            status=self._status(),
            workers=len(self.workers),
            queued=len(self._batcher) + self._ready() + sum(len(piece.entries) for piece in self._again),
            in_flight=sum(len(batch.entries) for batch in self._running if not batch.waits_behind),
            memory_bytes=self.memory,
            latency_p95=self.lately.latency_p95(now),
            utilisation=self.lately.utilisation(now, len(self.workers), running),
            error=self._error.detail if self._error is not None else "",
        )

    def _status(self) -> Status:
        if self._unloading:
            return Status.UNLOADING
        if self.workers:
            return Status.BUSY if self._running else Status.READY
        if self._error is not None:
            return Status.ERROR
        return Status.LOADING if self._loading is not None else Status.UNLOADED

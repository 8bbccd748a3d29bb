"""One model in the local engine: the calls for it, and their batches at its workers."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Sequence

from haat.kernel.errors import EngineFailed, EngineTimeout, HaatError, Overloaded
from haat.models import costs
from haat.models.engines.local.batcher import Batcher, Entry
from haat.models.engines.local.batches import Batch, Piece
from haat.models.engines.local.calls import Call, StreamCall, again
from haat.models.engines.local.counters import Counters, Lately
from haat.models.engines.local.crew import Crew, Ears, Staff
from haat.models.engines.local.memory import HOT, Heat, Resident
from haat.models.engines.local.process import WorkerProcess
from haat.models.engines.port import PRIORITIES, Model, State, Status, Ticket
from haat.models.runtimes.port import Input

MOST_RETRY_AFTER = 60
SHORT_BATCH_SECONDS = 0.05
"""A batch that takes no longer is worth sending ahead: what comes with a higher priority waits for one more."""


class Pool:
    """A deployed model."""

    def __init__(self, model: Model, staff: Staff, counters: Counters) -> None:
        manifest = model.manifest
        self.model = model
        self.counters = counters
        self.lately = Lately()
        self.heat = Heat()
        self.used_at = time.monotonic()
        self.crew = Crew(model, staff, counters, Ears(self.pump, self._hired, self._refused))
        self.workers = self.crew.workers
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
        self._idle = asyncio.Event()
        self._idle.set()

    # --- calls --------------------------------------------------------------------------------------

    def submit(self, inputs: Sequence[Input], ticket: Ticket, *, stream: bool = False) -> Call:
        """Let a call wait for its turn; raise Overloaded, EngineTimeout, or why the model can't be loaded."""
        now = time.monotonic()
        if ticket.priority not in PRIORITIES:
            raise ValueError(f"a priority is 1 to 10, not {ticket.priority}")
        self._refuse_if_hopeless(now)
        deadline = ticket.deadline or now + self._limit
        if deadline <= now:
            self.counters.errors[EngineTimeout.code] += 1
            raise EngineTimeout
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
        call.timer = self._loop.call_later(deadline - now, self._is_late, call)
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
        if self.crew.closed:
            raise EngineFailed("The model is being taken away; the call is not billed.")
        if (error := self.crew.hopeless(now)) is not None:
            self.counters.errors[error.code] += 1
            raise again(error)
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
        if self.crew.unloading:
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
        if behind:
            batch.follow()
        else:
            batch.begin()
        for entry in batch.entries:
            call = entry.call
            if isinstance(call, StreamCall) and call.timer is not None and not call.ticket.deadline:
                call.timer.cancel()  # from now on it is silence that ends it
        self.counters.batch_size.add(len(batch.entries))

    def _batch_ended(self, batch: Batch, again: list[Piece]) -> None:
        self._running.discard(batch)
        self._count_running()
        self._again.extendleft(reversed(again))
        if again:  # its own worker may be gone, and another have nothing to do
            self._loop.call_soon(self.pump)
        if batch.waits_behind:
            return
        if not batch.failed and not batch.hung:
            self.crew.did_well()
            self._batch_seconds = batch.seconds
        self._loop.call_soon(self._count, batch)  # after its callers and its worker, which both wait

    def _count(self, batch: Batch) -> None:
        for entry in batch.entries:
            self.counters.queue_seconds.add(batch.began - entry.since)
        self.counters.inference_seconds.add(batch.seconds)
        self.used_at = now = time.monotonic()
        if not batch.failed and not batch.hung:
            self.lately.batch(now, len(batch.entries), batch.seconds)

    def _ready(self) -> int:
        """Return how many inputs lie ready behind batches that run."""
        return sum(len(batch.entries) for batch in self._running if batch.waits_behind)

    def _count_running(self) -> None:
        self._running_calls = len({entry.call for batch in self._running for entry in batch.entries})

    def _come_back(self) -> None:
        if not self.workers:
            self.crew.staff_up()
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

    def _hired(self, began: float) -> None:
        now = time.monotonic()
        for call in self._calls:
            call.ticket.loaded += now - max(began, call.since)

    def _refused(self, error: HaatError) -> None:
        for call in tuple(self._calls):
            call.end(again(error))

    async def scale(self, workers: int) -> None:
        """Have so many workers from now on; those that are too many end what they do first."""
        self.crew.wanted = workers
        if not self.workers and not self._calls and not self.crew.loading:
            return  # it isn't loaded: they come with the next call
        await self.crew.shrink()
        await self.crew.load()

    async def unload(self) -> None:
        """Give the memory back once what runs has ended; what waits stays, and has the model loaded again."""
        if self.crew.unloading:
            return
        try:
            await self.crew.unload()
        finally:
            self.pump()

    async def drain(self) -> None:
        """Wait until every call has ended. Each does, at its deadline at the latest."""
        await self._idle.wait()

    async def close(self) -> None:
        """End everything; calls that still run fail."""
        self.crew.closed = True
        for call in tuple(self._calls):
            call.end(EngineFailed("The engine is being stopped; the call is not billed."))
        if self._timer is not None:
            self._timer.cancel()
        await self.crew.close({batch.worker for batch in self._running})

    # --- how it is doing ----------------------------------------------------------------------------

    def resident(self, now: float) -> Resident:
        """Tell what there is to know when memory is short."""
        crew = self.crew
        kept = bool(self.model.manifest.preload or self._calls or crew.loading or self._running)
        return Resident(self.model.key, crew.memory, self.used_at, kept or crew.unloading or self.heat.now(now) > HOT)

    def state(self) -> State:
        """Tell how it is doing."""
        now = time.monotonic()
        running = sum(now - batch.began for batch in self._running if not batch.waits_behind)
        return State(
            status=self._status(),
            workers=len(self.workers),
            queued=len(self._batcher) + self._ready() + sum(len(piece.entries) for piece in self._again),
            in_flight=sum(len(batch.entries) for batch in self._running if not batch.waits_behind),
            memory_bytes=self.crew.memory,
            latency_p95=self.lately.latency_p95(now),
            utilisation=self.lately.utilisation(now, len(self.workers), running),
            error=self.crew.error.detail if self.crew.error is not None else "",
        )

    def _status(self) -> Status:
        crew = self.crew
        if crew.unloading:
            return Status.UNLOADING
        if crew.workers:
            return Status.BUSY if self._running else Status.READY
        if crew.error is not None:
            return Status.ERROR
        return Status.LOADING if crew.loading else Status.UNLOADED

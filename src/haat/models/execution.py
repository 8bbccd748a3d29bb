"""Runs calls of hosted services without ever blocking the event loop.

Three ways, by what the engine is: ``inline`` ones take microseconds and run where they are called;
``process`` ones run in worker processes that are killed when slow and replaced when they die;
``command`` ones run in threads that wait for a program. The last two have few places and a short
queue: what finds it full is refused at once, with the time to come back.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import msgspec

from haat.kernel.errors import EngineFailed, EngineMissing, EngineTimeout, HaatError, Overloaded
from haat.models.engine_worker import HEADER, error_named, request_frame
from haat.models.hosted import HostedService, Item, Output, Units
from haat.models.task import parse_call
from haat.providers.programs import MOST_AT_ONCE, call_deadline, stop_programs

WORKERS = max(2, min(4, os.cpu_count() or 2))
MOST_WAITING = 64
WAIT_SECONDS = 10.0
RETRY_AFTER = 2  # seconds
START_SECONDS = 30.0
# Above this many characters even a fast engine takes more than about a millisecond.
INLINE_CHARACTERS = 2_000
_STOP_SECONDS = 2.0

log = logging.getLogger(__name__)


class Places:
    """A number of places and a bounded queue before them, first come, first served.

    It counts by itself: with `asyncio.Semaphore` a burst is in the queue before its length is known.
    """

    def __init__(self, places: int, most_waiting: int = MOST_WAITING, wait_seconds: float = WAIT_SECONDS) -> None:
        self._free = places
        self._most_waiting = most_waiting
        self._wait_seconds = wait_seconds
        self._queue: deque[asyncio.Future[None]] = deque()

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Hold a place for the length of a block; raise Overloaded when the queue is full or too slow."""
        await self.take()
        try:
            yield
        finally:
            self.give_back()

    async def take(self) -> None:
        """Take a place, to be given back once; raise Overloaded when the queue is full or too slow."""
        if self._free:
            self._free -= 1
            return
        if len(self._queue) >= self._most_waiting:
            raise Overloaded(retry_after=RETRY_AFTER)
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            async with asyncio.timeout(self._wait_seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # the place came in the very moment of leaving
                self.give_back()
            else:
                with contextlib.suppress(ValueError):  # passed over already
                    self._queue.remove(turn)
            if isinstance(error, TimeoutError):
                raise Overloaded(retry_after=RETRY_AFTER) from None
            raise

    def give_back(self) -> None:
        """Give a place to whoever waits longest."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class Workers:
    """Worker processes, each doing one call at a time; a dead one is replaced before the next call."""

    def __init__(self, size: int = WORKERS, places: Places | None = None) -> None:
        self._places = places or Places(size)
        # None stands for a worker not yet started. The last one used is the first one used again:
        # its engines are loaded.
        self._idle: list[Process | None] = [None] * size
        self._alive: set[Process] = set()
        self._calls: set[asyncio.Task[dict[str, Any]]] = set()
        self._stopped = False

    async def call(
        self, path: str, items: Sequence[Item], config: Mapping[str, Any], seconds: float
    ) -> tuple[list[Output], Units]:
        """Run one call; raise what the engine raised, EngineTimeout, EngineFailed or Overloaded."""
        async with self._places.one():
            exchange = asyncio.create_task(self._exchange(request_frame(path, items, config), seconds))
            self._calls.add(exchange)
            exchange.add_done_callback(self._calls.discard)
            reply = await exchange
        if "code" in reply:
            raise error_named(reply["code"], reply["detail"], reply["extensions"])
        return reply["outputs"], {unit: Decimal(count) for unit, count in reply["units"].items()}

    async def _exchange(self, request: bytes, seconds: float) -> dict[str, Any]:
        worker = self._idle.pop()
        try:
            if worker is None or worker.returncode is not None:
                worker = None
                worker = await self._start()
            return await self._ask(worker, request, seconds)
        except BaseException:
            # Late, dead, or no longer awaited: whatever it still answers belongs to nobody. It is killed
            # without waiting, so that a second cancellation can't leave it in use.
            if worker is not None:
                self._kill(worker)
                worker = None
            raise
        finally:
            self._idle.append(worker)

    async def stop(self) -> None:
        """End all workers: each finishes as its stdin closes, or is killed after two seconds."""
        self._stopped = True
        for worker in self._alive:
            if worker.stdin is not None:
                worker.stdin.close()
        ends = [asyncio.create_task(worker.wait()) for worker in self._alive]
        if ends:
            await asyncio.wait(ends, timeout=_STOP_SECONDS)
        for worker in self._alive:
            self._kill(worker)
        if self._calls:
            await asyncio.wait(self._calls)  # they fail at once: nobody answers them any more
        for worker in self._alive:
            await worker.communicate()  # to the end of its pipes, so that they are closed before the loop is
        await asyncio.gather(*ends)

    async def _start(self) -> Process:
        self._alive = {worker for worker in self._alive if worker.returncode is None}
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "haat.models.engine_worker", stdin=PIPE, stdout=PIPE, stderr=None
        )
        self._alive.add(worker)
        if self._stopped:
            self._kill(worker)
        try:
            # Loading the plugins is not the call's fault: it has a time of its own.
            await self._ask(worker, b"", START_SECONDS)
        except BaseException:
            self._kill(worker)
            raise
        return worker

    async def _ask(self, worker: Process, request: bytes, seconds: float) -> dict[str, Any]:
        assert worker.stdin is not None and worker.stdout is not None
        try:
            async with asyncio.timeout(seconds):
                worker.stdin.write(request)
                await worker.stdin.drain()
                (length,) = HEADER.unpack(await worker.stdout.readexactly(HEADER.size))
                reply: dict[str, Any] = msgspec.msgpack.decode(await worker.stdout.readexactly(length))
                return reply
        except TimeoutError:
            raise EngineTimeout from None
        except (asyncio.IncompleteReadError, ConnectionError):
            log.error("an engine worker (pid %d) died in a call; it is replaced", worker.pid)
            raise EngineFailed from None

    @staticmethod
    def _kill(worker: Process) -> None:
        if worker.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                worker.kill()


class Execution:
    """Everything needed to run calls; `stop` ends it."""

    def __init__(self, services: Mapping[str, HostedService]) -> None:
        self.services = services
        self._workers = Workers()
        self._threads = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="engine")
        self._commands = Places(MOST_AT_ONCE)
        self._long_texts = Places(MOST_AT_ONCE)
        self._warm: set[str] = set()

    async def run(
        self, service: HostedService, items: Sequence[Item], config: Mapping[str, Any]
    ) -> tuple[list[Output], Units]:
        """Run a checked call; raise a HaatError for everything that can go wrong."""
        if service.runtime == "process":
            return await self._workers.call(service.path, items, config, service.timeout_seconds)
        if service.runtime == "command":
            sentence = service.missing()
            if sentence is not None:
                raise EngineMissing(sentence)
            return await self._in_thread(self._commands, service, items, config)
        if service.path in self._warm and sum(len(i.text) + len(i.other) for i in items) <= INLINE_CHARACTERS:
            return invoke(service, items, config)
        answer = await self._in_thread(self._long_texts, service, items, config)
        self._warm.add(service.path)
        return answer

    async def warm_up(self) -> None:
        """Make the sample call of each service whose engine takes long to load; log what fails."""
        for service in sorted(self.services.values(), key=lambda service: service.runtime != "inline"):
            if service.runtime == "command":
                continue  # a program is loaded anew by each call
            try:
                items, config = parse_call(service, msgspec.json.encode(service.sample))
                await self.run(service, items, config)
            except HaatError as error:
                log.warning("%s is not ready: %s", service.path, error.detail)

    async def stop(self) -> None:
        """End workers and programs; calls still running fail."""
        stop_programs()
        await self._workers.stop()
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    async def _in_thread(
        self, places: Places, service: HostedService, items: Sequence[Item], config: Mapping[str, Any]
    ) -> tuple[list[Output], Units]:
        await places.take()
        context = contextvars.copy_context()
        context.run(call_deadline.set, time.monotonic() + service.timeout_seconds)
        try:
            work = self._threads.submit(context.run, invoke, service, items, config)
        except BaseException:
            places.give_back()
            raise
        loop = asyncio.get_running_loop()
        # The place is free when the thread is, not when the caller has gone.
        work.add_done_callback(lambda _: _call_soon(loop, places))
        return await asyncio.wrap_future(work)


def _call_soon(loop: asyncio.AbstractEventLoop, places: Places) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for a place any more
        loop.call_soon_threadsafe(places.give_back)


def invoke(service: HostedService, items: Sequence[Item], config: Mapping[str, Any]) -> tuple[list[Output], Units]:
    """Call the engine here and now; anything but a HaatError becomes EngineFailed and is logged."""
    try:
        return service.invoke(items, config)
    except HaatError:
        raise
    except Exception:
        log.exception("%s failed", service.path)
        raise EngineFailed from None

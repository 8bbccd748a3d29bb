"""An open loop: requests leave by the clock, whether or not the answers to earlier ones are back.

A request that finds no free connection waits in the generator and its latency counts from the instant
it was due, so a server that stalls for a second shows a second, not one slow call (no coordinated
omission). Requests are due in small groups, one group a millisecond, as the loop's clock is that fine.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from array import array
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from bench.load import Target
from bench.measure import percentile
from bench.processes import LOOPBACK

CONNECTIONS = 256
DRAIN_SECONDS = 10.0
_TICK_SECONDS = 0.001
_ID = b"\r\nX-Request-ID: "


@dataclass(slots=True)
class Seen:
    """What the generator saw. Latencies in ms from the instant a request was due; ``ids`` are request ids."""

    rate: int
    seconds: float
    sent: int = 0
    answered: int = 0
    wrong: int = 0
    lost: int = 0
    """Requests without an answer: the connection broke, or nothing came within ten seconds of the end."""
    latencies: array[float] = field(default_factory=lambda: array("d"))
    waited: int = 0
    """Requests that found every connection taken; they left when one became free."""
    lateness: array[float] = field(default_factory=lambda: array("d"))
    """ms by which the generator itself came late to the others and to the waiting; a part of the latency."""
    generator_cpu_seconds: float = 0.0
    ids: list[bytes] = field(default_factory=list)

    @property
    def errors(self) -> int:
        return self.wrong + self.lost

    def quantiles(self) -> dict[str, float]:
        """Return p50, p95, p99 and the most, and how late the generator itself was, in ms."""
        ordered, late = sorted(self.latencies), sorted(self.lateness)
        return {
            "p50_ms": percentile(ordered, 0.50),
            "p95_ms": percentile(ordered, 0.95),
            "p99_ms": percentile(ordered, 0.99),
            "max_ms": percentile(ordered, 1.0),
            "generator_late_p99_ms": percentile(late, 0.99),
        }


def wire(port: int, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """Return a POST request as it goes over the connection."""
    head = [f"POST {path} HTTP/1.1", f"Host: {LOOPBACK}:{port}"]
    head += [f"{name}: {value}" for name, value in headers.items()]
    head += [f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(head).encode() + body


class Caller(asyncio.Protocol):
    """A connection with at most one request under way. An answer is whole when it ends with the known body."""

    def __init__(self, loop: OpenLoop) -> None:
        self.loop = loop
        self.buffer = b""
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.loop.idle.append(self)

    def send(self, due: float) -> None:
        self.due = due
        self.loop.seen.sent += 1
        self.transport.write(self.loop.request)

    def data_received(self, data: bytes) -> None:
        if self.buffer:
            data = self.buffer + data
        if not data.endswith(self.loop.answer):
            self.buffer = data
            return
        self.buffer = b""
        seen = self.loop.seen
        seen.answered += 1
        seen.latencies.append((time.perf_counter() - self.due) * 1e3)
        self.due = 0.0
        if data.startswith(b"HTTP/1.1 200"):
            at = data.find(_ID)
            if at > 0:
                seen.ids.append(data[at + len(_ID) : at + len(_ID) + 36])
        else:
            seen.wrong += 1
        self.loop.free(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.loop.lost(self)


class OpenLoop:
    """One run against one target; ``answer`` is the body of every right answer."""

    def __init__(self, target: Target, answer: bytes, rate: int, seconds: float) -> None:
        self.request, self.answer = wire(target.port, target.path, target.headers, target.body), answer
        self.port = target.port
        self.seen = Seen(rate, seconds)
        self.idle: list[Caller] = []
        self.waiting: deque[float] = deque()
        """When the requests were due that have found no connection yet."""
        self._ended = False
        self._all_sent = False
        self._all_answered = asyncio.Event()
        self._mending: set[asyncio.Task[object]] = set()

    def free(self, caller: Caller) -> None:
        if self.waiting:
            caller.send(self.waiting.popleft())
        else:
            self.idle.append(caller)
        if self._all_sent:
            self._look_for_the_end()

    def _look_for_the_end(self) -> None:
        if self.seen.answered + self.seen.lost == self.seen.sent and not self.waiting:
            self._all_answered.set()

    def lost(self, caller: Caller) -> None:
        """A connection has ended: its request is lost, another connection takes its place."""
        if self._ended:
            return
        if caller.due:
            self.seen.lost += 1
        if caller in self.idle:
            self.idle.remove(caller)
        task: asyncio.Task[object] = asyncio.ensure_future(self._connect())
        self._mending.add(task)
        task.add_done_callback(self._mending.discard)
        if self._all_sent:
            self._look_for_the_end()

    async def run(self) -> Seen:
        """Send at the rate for so long, wait for the last answers, and return what was seen."""
        for _ in range(CONNECTIONS):
            await self._connect()
        callers = list(self.idle)
        # A pause of our own collector would look like one of the server.
        gc.collect()
        gc.freeze()
        gc.disable()
        began = time.process_time()
        try:
            await self._send()
            self._all_sent = True
            self._look_for_the_end()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_answered.wait(), DRAIN_SECONDS)
        finally:
            gc.enable()
            gc.unfreeze()
            self._ended = True
        self.seen.generator_cpu_seconds = time.process_time() - began
        self.seen.lost += self.seen.sent - self.seen.answered - self.seen.lost + len(self.waiting)
        for caller in callers:
            caller.transport.abort()
        return self.seen

    async def _connect(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: Caller(self), LOOPBACK, self.port)

    async def _send(self) -> None:
        total, due = int(self.seen.rate * self.seen.seconds), 0
        start = time.perf_counter() + 0.05
        each = max(1, round(self.seen.rate * _TICK_SECONDS))
        while due < total:
            instant = start + due / self.seen.rate
            wait = instant - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
                continue
            self.seen.lateness.append(-wait * 1e3)
            for _ in range(min(each, total - due)):
                if self.idle:
                    self.idle.pop().send(instant)
                else:
                    self.seen.waited += 1
                    self.waiting.append(instant)
            due += each

"""A mixed load by the clock: plain calls, streams, refusals of every kind, and clients that leave."""

from __future__ import annotations

import asyncio
import random
import time
from array import array
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast
from uuid import UUID

import httptools

from bench.processes import LOOPBACK

IDLE_CONNECTIONS = 128
ANSWER_SECONDS = 10.0
_TICK_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of call. ``outcome`` is what the journal has to say about it; empty when it says nothing.

    The latency of a ``timed`` one is noted; ``fresh`` opens a connection for this call alone. A client with
    ``leaves_after_seconds`` goes before the answer, one with ``leaves_after_bytes`` in the midst of it.
    """

    name: str
    share: int
    requests: Sequence[bytes]
    statuses: frozenset[int] = frozenset({200})
    outcome: str = "completed"
    timed: bool = False
    fresh: bool = False
    leaves_after_seconds: float = 0.0
    leaves_after_bytes: int = 0

    @property
    def leaves(self) -> bool:
        return bool(self.leaves_after_seconds or self.leaves_after_bytes)


@dataclass(slots=True)
class Seen:
    """What the clients saw since the last `Mix.take`. Latencies in ms, from the instant a call was due."""

    asked: Counter[str] = field(default_factory=Counter)
    good: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    """By kind and what came instead."""
    latencies: array[float] = field(default_factory=lambda: array("d"))
    ids: dict[UUID, str] = field(default_factory=dict)
    """Request ids of whole answers, with the outcome that the journal should have."""


class Client(asyncio.Protocol):
    """One connection, with at most one call under way."""

    def __init__(self, mix: Mix) -> None:
        self.mix = mix
        self.kind: Kind | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def ask(self, kind: Kind, due: float) -> None:
        self.kind, self.due, self.body_bytes = kind, due, 0
        self.identifier = b""
        self.parser = httptools.HttpResponseParser(self)
        self.mix.seen.asked[kind.name] += 1
        self.transport.write(self.mix.chance.choice(kind.requests))
        loop = asyncio.get_running_loop()
        if kind.leaves_after_seconds:
            self.timer = loop.call_later(kind.leaves_after_seconds, self.leave)
        else:
            self.timer = loop.call_later(ANSWER_SECONDS, self.failed, "no answer in time")

    def leave(self) -> None:
        """Break the connection off, as a browser's tab does."""
        assert self.kind is not None
        self.mix.seen.left[self.kind.name] += 1
        self._done()
        self.transport.abort()

    def failed(self, how: str) -> None:
        assert self.kind is not None
        self.mix.seen.wrong[f"{self.kind.name}: {how}"] += 1
        self._done()
        self.transport.abort()

    def _done(self) -> None:
        self.kind = None
        self.timer.cancel()
        self.mix.ended()

    def data_received(self, data: bytes) -> None:
        if self.kind is not None:
            self.parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-request-id":
            self.identifier = value

    def on_body(self, data: bytes) -> None:
        self.body_bytes += len(data)
        if self.kind is not None and 0 < self.kind.leaves_after_bytes <= self.body_bytes:
            self.leave()

    def on_message_complete(self) -> None:
        kind, seen = self.kind, self.mix.seen
        if kind is None:
            return
        status = self.parser.get_status_code()
        if status not in kind.statuses or kind.leaves:
            self.failed(f"answered {status}")
            return
        seen.good[kind.name] += 1
        if kind.timed:
            seen.latencies.append((time.perf_counter() - self.due) * 1e3)
        if kind.outcome:
            # A limit that is not yet reached lets a call pass: then it is one like the others.
            outcome = "completed" if status == 200 else kind.outcome
            seen.ids[UUID(self.identifier.decode("ascii"))] = outcome
        reusable = not kind.fresh and self.parser.should_keep_alive()
        self._done()
        if reusable:
            self.mix.free(self)
        else:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if self.kind is not None:
            self.failed("connection lost")
        self.mix.forget(self)


class Mix:
    """Asks at a steady rate, kinds drawn by their shares."""

    def __init__(self, port: int, kinds: Sequence[Kind], rate: int) -> None:
        self.kinds, self.rate, self.port = kinds, rate, port
        self.chance = random.Random(1)  # noqa: S311  # the same mix each time, not a secret
        self.seen = Seen()
        self.clients: set[Client] = set()
        self._idle: deque[Client] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self._under_way = 0
        self._one_less = asyncio.Event()

    def take(self) -> Seen:
        """Return what was seen since the last time and begin anew."""
        seen, self.seen = self.seen, Seen()
        return seen

    def free(self, client: Client) -> None:
        if len(self._idle) < IDLE_CONNECTIONS:
            self._idle.append(client)
        else:
            client.transport.close()

    def forget(self, client: Client) -> None:
        self.clients.discard(client)
        if client in self._idle:
            self._idle.remove(client)

    async def run(self, seconds: float) -> None:
        """Ask for so long; calls still under way afterwards are waited for by `settle`."""
        shares = [kind.share for kind in self.kinds]
        start, due = time.perf_counter(), 0
        while due < seconds * self.rate:
            await asyncio.sleep(_TICK_SECONDS)
            now = time.perf_counter()
            ready = min(int((now - start) * self.rate), int(seconds * self.rate))
            for kind in self.chance.choices(self.kinds, shares, k=max(0, ready - due)):
                self._ask(kind, start + due / self.rate)
                due += 1

    async def settle(self) -> None:
        """Wait until nothing is under way any more, which each call's own deadline sees to; close all connections."""
        while self._under_way:
            self._one_less.clear()
            await self._one_less.wait()
        for client in list(self.clients):
            client.transport.abort()

    def ended(self) -> None:
        """A call has come to its end, whichever."""
        self._under_way -= 1
        self._one_less.set()

    def _ask(self, kind: Kind, due: float) -> None:
        self._under_way += 1
        if not kind.fresh and not kind.leaves and self._idle:
            self._idle.pop().ask(kind, due)
            return
        task = asyncio.ensure_future(self._connect_and_ask(kind, due))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect_and_ask(self, kind: Kind, due: float) -> None:
        try:
            _, client = await asyncio.get_running_loop().create_connection(lambda: Client(self), LOOPBACK, self.port)
        except OSError as error:
            self.seen.asked[kind.name] += 1
            self.seen.wrong[f"{kind.name}: {error}"] += 1
            self.ended()
            return
        self.clients.add(client)
        client.ask(kind, due)

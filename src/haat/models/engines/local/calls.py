"""A call in the engine: what is still to come of it, and how its caller learns."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from haat.kernel.errors import HaatError
from haat.models.engines.local.batcher import Entry
from haat.models.engines.port import Ticket
from haat.models.hosted import Output
from haat.models.runtimes.port import Input

MOST_PARTS = 64
"""Parts of an output that wait for a slow reader before the worker is held back."""


class Call:
    """Inputs of one caller. It ends once: with all outputs, or with an error."""

    __slots__ = (
        "ended",
        "entries",
        "future",
        "inputs",
        "on_end",
        "outputs",
        "place",
        "remaining",
        "since",
        "ticket",
        "timer",
    )

    def __init__(
        self,
        inputs: Sequence[Input],
        ticket: Ticket,
        since: float,
        future: asyncio.Future[None],
        on_end: Callable[[Call], None],
    ) -> None:
        self.inputs = inputs
        self.ticket = ticket
        self.since = since
        self.on_end = on_end
        self.entries: list[Entry] = []
        self.outputs: list[Output | None] = [None] * len(inputs)
        self.remaining = len(inputs)
        self.future = future
        self.timer: asyncio.TimerHandle | None = None
        self.place = 0
        self.ended = False

    def answer(self, index: int, output: Output) -> None:
        """Take an output; the last one ends the call."""
        if self.ended:
            return
        self.outputs[index] = output
        self.remaining -= 1
        if not self.remaining:
            self.end(None)

    def end(self, error: HaatError | None) -> None:
        """End it, unless it has ended."""
        if self.ended:
            return
        self.ended = True
        self.entries = []  # they know us: we would keep each other in memory
        if self.timer is not None:
            self.timer.cancel()
        if not self.future.done():
            if error is None:
                self.future.set_result(None)
            else:
                self.future.set_exception(error)
        self.on_end(self)


class StreamCall(Call):
    """A call whose one output comes in parts. ``hold`` stops and ``go_on`` continues their coming."""

    __slots__ = ("_arrived", "_held", "_parts", "go_on", "hold", "stop")

    def __init__(
        self,
        inputs: Sequence[Input],
        ticket: Ticket,
        since: float,
        future: asyncio.Future[None],
        on_end: Callable[[Call], None],
    ) -> None:
        super().__init__(inputs, ticket, since, future, on_end)
        self._parts: deque[Output] = deque()
        self._arrived = asyncio.Event()
        self._held = False
        self.hold: Callable[[], None] | None = None
        self.go_on: Callable[[], None] | None = None
        self.stop: Callable[[], None] | None = None

    @property
    def is_held(self) -> bool:
        """Tell whether its worker is held back because it is read slowly."""
        return self._held and not self.ended

    def part(self, part: Output) -> None:
        """Take the next part."""
        if self.ended:
            return
        self._parts.append(part)
        self._arrived.set()
        if len(self._parts) >= MOST_PARTS and self.hold is not None:
            self._held = True
            self.hold()

    def end(self, error: HaatError | None) -> None:
        super().end(error)
        self._arrived.set()

    async def next(self) -> Output | None:
        """Return the next part, None after the last; raise what the call ended with."""
        while not self._parts:
            if self.future.done():
                await self.future
                return None
            self._arrived.clear()
            await self._arrived.wait()
        part = self._parts.popleft()
        if self._held and len(self._parts) < MOST_PARTS // 2 and self.go_on is not None:
            self._held = False
            self.go_on()
        return part


def again(error: HaatError) -> HaatError:
    """Return an error to be raised once more, without the way that the first one has come."""
    return type(error)(error.detail, **error.extensions)

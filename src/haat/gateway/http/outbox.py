"""Writes of one turn of the event loop, kept until the turn's end and then made one after another.

A write to a socket whose reader sleeps wakes that reader, which costs the writer many times what the
write itself does. Readers that were just woken are still awake for the next write when it follows at
once. So what is written while a turn's arrivals are worked on leaves together when all of them are done.
What must be on disk before any of it leaves is written there then, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

MOST_KEPT = 32 * 1024
"""What one transport keeps at most, in bytes: more is written at once, so that it can ask for a pause."""


class Outbox:
    """The transports of one event loop that have something to write."""

    def __init__(self, before: Callable[[], object] = lambda: None) -> None:
        self.before = before
        """Is called before anything leaves; may break transports off."""
        self._waiting: list[OutboxTransport] = []

    def add(self, transport: OutboxTransport) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self.flush)
        self._waiting.append(transport)

    def flush(self) -> None:
        """Hand everything kept to the transports."""
        self.before()
        waiting, self._waiting = self._waiting, []
        for transport in waiting:
            transport.send()


class OutboxTransport:
    """A transport whose writes leave at the end of the turn; all else is the transport's own."""

    def __init__(self, outbox: Outbox, transport: asyncio.Transport) -> None:
        self.raw = transport
        self.unsent: bytes = b""
        self._outbox = outbox

    def write(self, data: bytes) -> None:
        if self.unsent:
            self.unsent += data
            if len(self.unsent) > MOST_KEPT:
                self.flush()  # the transport says when it is too much
        elif data:
            self.unsent = data
            self._outbox.add(self)

    def flush(self) -> None:
        """Write what is kept now, not at the end of the turn."""
        if self.unsent:
            self._outbox.before()
            self.send()

    def send(self) -> None:
        """Hand what is kept to the transport."""
        unsent = self.unsent
        if unsent and not self.raw.is_closing():  # else it stays, to tell that it was never sent
            self.unsent = b""
            self.raw.write(unsent)

    def get_write_buffer_size(self) -> int:
        return len(self.unsent) or self.raw.get_write_buffer_size()

    def is_closing(self) -> bool:
        return self.raw.is_closing()

    def close(self) -> None:
        self.flush()
        self.raw.close()

    def abort(self) -> None:
        self.unsent = b""
        self.raw.abort()

    def write_eof(self) -> None:
        self.flush()
        self.raw.write_eof()

    def can_write_eof(self) -> bool:
        return self.raw.can_write_eof()

    def pause_reading(self) -> None:
        self.raw.pause_reading()

    def resume_reading(self) -> None:
        self.raw.resume_reading()

    def get_extra_info(self, name: str) -> object:
        return self.raw.get_extra_info(name)

"""Stands in for siblings that are away: no caller waits for a worker to be started again.

The kernel spreads new connections over the listening sockets of all slots, also over one whose worker
has died, is being started or drains. Each worker has the sockets of all slots; while a sibling is away,
the others accept from its socket as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
from collections.abc import Awaitable, Callable

from haat.gateway.workers.place import Place, ReadyFiles

LOOK_SECONDS = 0.1

Accept = Callable[[socket.socket], Awaitable[asyncio.Server]]


class Neighbours:
    """Watches the siblings of one worker; `watch` runs as a task while the worker takes calls."""

    def __init__(self, place: Place, ready: ReadyFiles, accept: Accept) -> None:
        self._ready, self._accept = ready, accept
        self._slots = [slot for slot in range(place.workers) if slot != place.slot]
        self._listeners = place.listeners
        self._standing_in: dict[int, asyncio.Server] = {}
        self._watched: dict[int, tuple[int, int]] = {}
        """The process in a slot, and the descriptor that becomes readable when it ends."""
        self._look = asyncio.Event()

    @property
    def away(self) -> int:
        """How many siblings take no calls."""
        return len(self._standing_in)

    async def watch(self) -> None:
        try:
            while self._slots:
                for slot in self._slots:
                    if self._is_there(slot):
                        if slot in self._standing_in:
                            self._standing_in.pop(slot).close()
                    elif slot not in self._standing_in:
                        self._standing_in[slot] = await self._accept(inherited(self._listeners[slot]))
                self._look.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._look.wait(), LOOK_SECONDS)
        finally:
            for server in self._standing_in.values():
                server.close()
            self._standing_in.clear()
            for slot in list(self._watched):
                self._forget(slot)

    def _is_there(self, slot: int) -> bool:
        ready = self._ready.of(slot)
        if slot in self._watched and (ready is None or self._watched[slot][0] != ready.pid):
            self._forget(slot)
        if ready is None:
            return False
        if slot not in self._watched:
            try:
                descriptor = os.pidfd_open(ready.pid)
            except ProcessLookupError:
                return False  # the file is a killed one's
            self._watched[slot] = (ready.pid, descriptor)
            asyncio.get_running_loop().add_reader(descriptor, self._ended, descriptor)
        ends = select.poll()
        ends.register(self._watched[slot][1], select.POLLIN)
        return not ends.poll(0)

    def _ended(self, descriptor: int) -> None:
        """A sibling's process is gone, whatever its file still says."""
        asyncio.get_running_loop().remove_reader(descriptor)
        self._look.set()

    def _forget(self, slot: int) -> None:
        _, descriptor = self._watched.pop(slot)
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)


def inherited(descriptor: int) -> socket.socket:
    """Return a socket on a copy of a listening descriptor, so that closing it leaves the descriptor open."""
    return socket.socket(fileno=os.dup(descriptor))

"""A process that few need is started when somebody first comes to its socket, and kept running from then on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from haat.infra.rendezvous import BRIDGE, LISTENER, Rendezvous
from haat.settings import Settings


class Activation:
    """The bridge's socket, listened to in its place. Who comes waits there until the process takes him.

    The socket stays open here, so that nobody is turned away while the process is started again.
    """

    def __init__(self, settings: Settings, start: Callable[[dict[str, str], tuple[int, ...]], Awaitable[None]]) -> None:
        """``start`` starts the process, with what its environment has in addition and the descriptors it is handed."""
        self._start = start
        self._meeting = Rendezvous(settings.data_dir, BRIDGE)
        self._listener = self._meeting.listen()
        self._starting: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Wait for the first to come."""
        asyncio.get_running_loop().add_reader(self._listener.fileno(), self._come)

    def _come(self) -> None:
        asyncio.get_running_loop().remove_reader(self._listener.fileno())
        self._starting = asyncio.get_running_loop().create_task(self._begin())

    async def _begin(self) -> None:
        descriptor = self._listener.fileno()
        await self._start({LISTENER: str(descriptor)}, (descriptor,))

    async def close(self) -> None:
        """Let nobody come any more."""
        if self._starting is None:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
        else:
            with contextlib.suppress(OSError):
                await self._starting
        self._listener.close()
        self._meeting.socket.unlink(missing_ok=True)
        self._meeting.close()

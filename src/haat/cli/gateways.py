"""The gateway's workers as a family: their listening sockets, opened once and handed down."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable

from haat.cli.processes import LIFELINE, SUPERVISED
from haat.cli.supervisor import Supervisor
from haat.gateway.workers.place import Place, open_listeners
from haat.settings import Settings


class Gateways:
    """The workers that a supervisor is to start. It keeps the sockets open while one is started again,

    so that callers who wait in a killed worker's queue are served by whoever takes its place.
    """

    def __init__(self, settings: Settings, listeners: list[socket.socket]) -> None:
        self._listeners = listeners
        self.names = [f"gateway-{slot}" for slot in range(len(listeners))] if len(listeners) > 1 else ["gateway"]

    @classmethod
    def open(cls, settings: Settings) -> Gateways:
        """Open the sockets; raise OSError when the port can't be had."""
        (settings.data_dir / "gateway" / "ready.json").unlink(missing_ok=True)  # of a family that was killed
        return cls(settings, open_listeners(settings.host, settings.gateway_port, settings.gateway_workers))

    @property
    def port(self) -> int:
        return int(self._listeners[0].getsockname()[1])

    async def start(self, supervisor: Supervisor, *, lifeline: int | None = None) -> None:
        """Start every worker; with ``lifeline`` they end when its other end is closed."""
        descriptors = tuple(listener.fileno() for listener in self._listeners)
        for slot, name in enumerate(self.names):
            environment = Place(slot, descriptors).environment()
            passed = descriptors
            if lifeline is not None:
                environment[LIFELINE] = str(lifeline)
                passed = (*descriptors, lifeline)
            command = [sys.executable, "-m", "haat.cli.main", "gateway"]
            await supervisor.start(name, command, environment=environment, descriptors=passed)

    def close(self) -> None:
        """Let nobody queue any more: new connections are refused once the workers have closed theirs."""
        for listener in self._listeners:
            listener.close()


async def run_workers(settings: Settings, stop: asyncio.Event, say: Callable[[str], None]) -> None:
    """Run the gateway's workers alone until ``stop`` is set."""
    gateways = Gateways.open(settings)
    environment = {
        **os.environ,
        SUPERVISED: "1",
        "HAAT_DATA_DIR": str(settings.data_dir),
        "HAAT_GATEWAY_PORT": str(gateways.port),
        "HAAT_GATEWAY_WORKERS": str(settings.gateway_workers),
    }
    supervisor = Supervisor(None, environment, say, lambda: None)
    lifeline, ours = os.pipe()
    try:
        await gateways.start(supervisor, lifeline=lifeline)
        await stop.wait()
    finally:
        gateways.close()
        await supervisor.stop([gateways.names], settings.shutdown_seconds + 5)
        os.close(lifeline)
        os.close(ours)

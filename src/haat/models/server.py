"""The HTTP server before models: uvicorn on loopback, as fast as it can be made, and without its signal handlers."""

from __future__ import annotations

import contextlib
import gc
import socket
from collections.abc import Iterator

import uvicorn

from haat.models.http import Door, ModelProtocol


class Server(uvicorn.Server):
    """Signals belong to the command that has started us: set ``should_exit`` to end it."""

    def __init__(self, door: Door, *, port: int = 0, log_level: str = "warning", shutdown_seconds: int) -> None:
        super().__init__(
            uvicorn.Config(
                door,
                http=ModelProtocol,
                ws="none",
                host="127.0.0.1",
                port=port,
                log_level=log_level,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                lifespan="off",
                timeout_graceful_shutdown=shutdown_seconds,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen. What has been loaded by now stays: looking through it for garbage would hold all calls up."""
        gc.collect()
        gc.freeze()
        await super().startup(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

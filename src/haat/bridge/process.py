"""The process that asks models over gRPC: ``haat bridge``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket

import uvicorn

from haat.bridge.app import Bridge
from haat.bridge.channels import Channels
from haat.infra.rendezvous import BRIDGE, LISTENER, Rendezvous
from haat.settings import Settings

log = logging.getLogger(__name__)

_SWEEP_SECONDS = 30.0
_KEEP_ALIVE_SECONDS = 75


class _Server(uvicorn.Server):
    """Uvicorn without its signal handlers: signals belong to the command that started us."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]  # uvicorn's own is untyped in effect
        yield


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Pass requests on until ``stop`` is set. A socket that was handed down is the parent's to remove."""
    meeting = Rendezvous(settings.data_dir, BRIDGE)
    handed_down = os.environ.get(LISTENER)
    listener = socket.socket(fileno=int(handed_down)) if handed_down else meeting.listen()
    channels = Channels()
    server = _Server(
        uvicorn.Config(
            Bridge(channels),
            log_level="warning",
            access_log=False,
            lifespan="off",
            server_header=False,
            date_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    stopping = asyncio.create_task(stop.wait())
    sweeping = asyncio.create_task(_sweep(channels))
    log.info("models are asked over gRPC for whoever comes to %s", meeting.socket)
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = server.force_exit = True
    stopping.cancel()
    sweeping.cancel()
    await asyncio.wait({serving, sweeping})
    await channels.close()
    if not handed_down:
        meeting.socket.unlink(missing_ok=True)
    meeting.close()
    await serving


async def _sweep(channels: Channels) -> None:
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        channels.expire()

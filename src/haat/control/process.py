"""Runs the control API and the portal on uvicorn until told to stop, and what the gateway hands on beside them."""

from __future__ import annotations

import asyncio
import contextlib

import uvicorn

from haat.app import open_platform
from haat.control.api import build_app
from haat.control.front import build_front
from haat.infra.rendezvous import FRONT, Rendezvous
from haat.settings import Settings


class _Server(uvicorn.Server):
    """Uvicorn without its signal handlers: signals belong to the command that started us."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]  # uvicorn's own is untyped in effect
        yield


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Serve on ``settings.host:settings.port`` until ``stop`` is set, then finish what is in flight."""
    async with open_platform(settings, name="haat-control") as platform:
        await platform.discovery.warm_up()
        server = _Server(
            uvicorn.Config(
                build_app(platform),
                host=settings.host,
                port=settings.port,
                log_level=settings.log_level,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=int(settings.shutdown_seconds),
            )
        )
        meeting = Rendezvous(settings.data_dir, FRONT)
        front = _Server(
            uvicorn.Config(
                build_front(platform),
                log_level=settings.log_level,
                access_log=False,
                server_header=False,
                date_header=False,
                lifespan="off",
                timeout_graceful_shutdown=int(settings.shutdown_seconds),
            )
        )
        serving = asyncio.create_task(server.serve())
        fronting = asyncio.create_task(front.serve(sockets=[meeting.listen()]))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, fronting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        server.should_exit = front.should_exit = True
        await asyncio.gather(serving, fronting)
        meeting.socket.unlink(missing_ok=True)
        meeting.close()

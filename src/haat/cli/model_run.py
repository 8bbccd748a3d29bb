"""`haat models run`: one model on a loopback port, served as on a platform, and opened again when its files change."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

import click
import uvloop
from starlette.responses import JSONResponse

from haat.cli.models import sentence_of
from haat.kernel.errors import HaatError, ServiceNotFound
from haat.kernel.ids import new_id
from haat.models import metrics
from haat.models.autoscaling import Autoscaler
from haat.models.door import Called, ModelDoor, Receive, Scope, Send
from haat.models.engines.degrading import DegradingEngine
from haat.models.engines.local import LocalEngine
from haat.models.engines.port import Model
from haat.models.server import Server
from haat.models.trial import PROVIDER, model_in

LOOK_SECONDS = 0.5
SHUTDOWN_SECONDS = 5
_IGNORED = {"__pycache__", ".git", ".venv", ".pytest_cache"}

log = logging.getLogger(__name__)

Say = Callable[[str], None]


class Opened:
    """A model in an engine of its own, and the door to it, which is open to everybody on this machine."""

    def __init__(self, model: Model, networks: Iterable[str]) -> None:
        local = LocalEngine(networks=networks)
        self.model = model
        self._scaler = Autoscaler(local)
        self._engine = DegradingEngine(local)
        self.door = ModelDoor(
            self._engine, None, _no_other, lambda: metrics.render(local.metrics()) + self._scaler.metrics()
        )

    async def start(self) -> None:
        """Load it; raise whatever is wrong with it."""
        await self._engine.start()
        try:
            await self._engine.deploy(self.model)
            await self._engine.load(self.model.key)
        except BaseException:
            await self._engine.stop()
            raise
        self._scaler.start()

    async def stop(self) -> None:
        """Close it once it has ended what it is doing."""
        await self._scaler.stop()
        try:
            await self._engine.remove(self.model.key)
        finally:
            await self._engine.stop()


class Folder:
    """The model of a folder: an ASGI application that answers by what was last opened there without an error."""

    def __init__(self, folder: Path, networks: Iterable[str], say: Say) -> None:
        self._folder, self._networks, self._say = folder, tuple(networks), say
        self._now: Opened | None = None
        self._seen: dict[str, tuple[int, int]] = {}
        """The files as they were before they were last opened: what changes meanwhile is a change."""
        self._leaving: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (_no_other if self._now is None else self._now.door)(scope, receive, send)

    def called(self, path: str) -> Called | None:
        """Return what answers a call to a path, as `ModelDoor.called` does."""
        return None if self._now is None else self._now.door.called(path)

    async def open(self) -> str:
        """Open what is in the folder now and return its name; what was open before ends what it is doing.

        Raise HaatError, and leave open what was.
        """
        self._seen = await asyncio.to_thread(_look, self._folder)
        model = await asyncio.to_thread(model_in, self._folder)
        fresh = Opened(model, self._networks)
        await fresh.start()
        before, self._now = self._now, fresh
        if before is not None:
            self._let_go(before)
        self._say(f"{model.manifest.name} {model.manifest.version} is open.")
        return model.manifest.name

    def _let_go(self, opened: Opened) -> None:
        task = asyncio.create_task(opened.stop())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def watch(self) -> None:
        """Open the model again after each change; one that can't be opened leaves the one before as it is."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if await asyncio.to_thread(_look, self._folder) == self._seen:
                continue
            try:
                await self.open()
            except HaatError as error:
                self._say(f"{sentence_of(error)}\nThe model that was open before goes on.")
            except Exception:
                log.exception("the model can't be opened; the one that was open before goes on")

    async def close(self) -> None:
        """Close what is open; calls still at work fail."""
        if self._now is not None:
            self._let_go(self._now)
            self._now = None
        if self._leaving:
            _, late = await asyncio.wait(self._leaving, timeout=SHUTDOWN_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


async def serve(
    folder: Path, port: int, stop: asyncio.Event, *, networks: Iterable[str], reload: bool, say: Say
) -> None:
    """Serve until ``stop`` is set. ``say`` is told the address, and of each time the model is opened.

    Raise OSError for a port that can't be had, HaatError for a model that can't be opened at all.
    """
    with socket.create_server(("127.0.0.1", port)) as listening:
        application = Folder(folder, networks, say)
        name = await application.open()
        server = Server(application, shutdown_seconds=SHUTDOWN_SECONDS)
        running = [asyncio.create_task(server.serve(sockets=[listening])), asyncio.create_task(stop.wait())]
        say(f"http://127.0.0.1:{listening.getsockname()[1]}/{PROVIDER}/{name}/invoke answers calls; Ctrl-C ends it.")
        watching = asyncio.create_task(application.watch()) if reload else None
        try:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if watching is not None:
                watching.cancel()
            server.should_exit = True
            running[1].cancel()
            await asyncio.wait(running)
            await application.close()


def run(folder: Path, port: int, *, networks: Iterable[str], reload: bool) -> None:
    """Serve until Ctrl-C or SIGTERM. Raise as `serve` does."""

    async def until_told() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve(folder, port, stop, networks=networks, reload=reload, say=click.echo)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(until_told())


async def _no_other(scope: Scope, receive: Receive, send: Send) -> None:
    error = ServiceNotFound("No model of that name runs here; check provider, name and version.")
    problem = error.problem(str(new_id()), scope["path"])
    await JSONResponse(problem, error.status, media_type="application/problem+json")(scope, receive, send)


def _look(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in folder.rglob("*"):
        if not _IGNORED & set(path.relative_to(folder).parts):
            with contextlib.suppress(OSError):
                status = path.stat()
                found[str(path)] = (status.st_mtime_ns, status.st_size)
    return found

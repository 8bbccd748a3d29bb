"""`haat models run`: one model on a loopback port, opened again when its files change."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

import uvicorn

from haat.kernel.errors import HaatError
from haat.models.engines.port import Model
from haat.models.manifest_file import read_manifest
from haat.models.serving import Serving, build_app
from haat.models.trial import PROVIDER

LOOK_SECONDS = 0.5
_IGNORED = {"__pycache__", ".git", ".venv", ".pytest_cache"}

log = logging.getLogger(__name__)


async def serve(folder: Path, port: int, *, reload: bool, say: Callable[[str], None]) -> None:
    """Serve until cancelled or interrupted. ``say`` is told the address, and of each time the model is opened."""
    serving = Serving()
    await _open(serving, folder, say)
    server = uvicorn.Server(
        uvicorn.Config(build_app(serving), host="127.0.0.1", port=port, log_level="warning", access_log=False)
    )
    running = asyncio.create_task(server.serve())
    while not server.started:
        if running.done():
            break
        await asyncio.sleep(0.01)  # uvicorn tells nobody when it has started
    if server.started:
        name = read_manifest(folder).name
        address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/{PROVIDER}/{name}/invoke"
        say(f"{address} answers calls as docs/tasks.md has them.")
    watching = asyncio.create_task(_watch(serving, folder, say)) if reload else None
    try:
        await running
    finally:
        if watching is not None:
            watching.cancel()
        server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await serving.stop()


async def _open(serving: Serving, folder: Path, say: Callable[[str], None]) -> None:
    manifest = read_manifest(folder)
    key = f"{PROVIDER}/{manifest.name}@{manifest.version}"
    await serving.deploy(Model(key, manifest, folder))
    for other in serving.models():
        if other != key:
            await serving.remove(other)
    say(f"{manifest.name} {manifest.version} is open.")


async def _watch(serving: Serving, folder: Path, say: Callable[[str], None]) -> None:
    seen = _look(folder)
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        now = await asyncio.to_thread(_look, folder)
        if now == seen:
            continue
        seen = now
        try:
            await _open(serving, folder, say)
        except HaatError as error:
            say(f"{error.detail} The model that was open before goes on.")
        except Exception as error:
            log.exception("the model can't be opened")
            say(f"{type(error).__name__}: {error}. The model that was open before goes on.")


def _look(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in folder.rglob("*"):
        if not _IGNORED & set(path.relative_to(folder).parts):
            with contextlib.suppress(OSError):
                status = path.stat()
                found[str(path)] = (status.st_mtime_ns, status.st_size)
    return found

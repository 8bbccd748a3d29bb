"""Serves the benchmark's two models as the models process serves models: its server and door, the local engine.

    python -m bench.haat_models PORT WORKERS TEXT_MODEL PACKAGES

TEXT_MODEL is the ONNX file, PACKAGES the folder with ONNX Runtime, which isn't among the platform's own.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import uvloop

from bench.model_servers import APPS, BATCH, SERVED, TOKEN
from haat.models.door import ModelDoor, Receive, Scope, Send
from haat.models.engines.local import LocalEngine
from haat.models.engines.port import Model
from haat.models.manifest import Batching, Manifest, Workers
from haat.models.server import Server

BATCHING = Batching(max_items=BATCH, max_wait_ms=5.0)


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Stand behind the door for what is no model's."""
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def model(name: str, entry: str, workers: int, folder: Path, environment: dict[str, str]) -> Model:
    """Return one of the benchmark's models, with a fixed number of workers."""
    manifest = Manifest(
        name,
        "python",
        f"haat_model:{entry}",
        takes_language=False,
        memory_mb=1024,
        preload=True,
        batching=BATCHING,
        workers=Workers(workers, workers),
        environment=environment,
    )
    return Model(f"bench/{name}@1.0.0", manifest, folder)


async def serve(port: int, workers: int, folder: Path, environment: dict[str, str]) -> None:
    """Serve until SIGTERM."""
    engine, stop = LocalEngine(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await engine.start()
    for name, entry in SERVED.items():
        await engine.deploy(model(name, entry, workers, folder, environment))
    door = ModelDoor(engine, lambda _, given: given == f"Bearer {TOKEN}".encode(), _nothing, lambda: "")
    server = Server(door, port=port, shutdown_seconds=5)
    serving = asyncio.create_task(server.serve())
    await asyncio.wait([serving, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    await serving
    await engine.stop()


def main() -> None:
    port, workers, text, packages = sys.argv[1:]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in (*APPS.glob("*.py"), Path(text)):  # a model reads no other folder than its own
            shutil.copy(file, folder)
        environment = {"TEXT_MODEL": str(folder / Path(text).name), "PYTHONPATH": str(Path(packages).absolute())}
        uvloop.run(serve(int(port), int(workers), folder, environment))


if __name__ == "__main__":
    main()

"""What the tests of models over gRPC stand on: the model server and the bridge, each a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import structs

from gateway.rig import Market
from haat.gateway.market.policy import VersionPolicy
from haat.infra.bridge_client import runs
from haat.infra.inference.mapping import TensorMap

SERVER = Path(__file__).with_name("grpc_models.py")
START_SECONDS = 60.0

NMT = TensorMap(
    model="nmt",
    inputs={"text": "INPUT_TEXT", "source": "INPUT_LANGUAGE_ID", "target": "OUTPUT_LANGUAGE_ID"},
    outputs={"text": "OUTPUT_TEXT"},
)
MOODY = TensorMap(model="moody", inputs={"text": "TEXT"}, outputs={"text": "SAID"})
NARRATOR = TensorMap(model="narrator", inputs={"text": "TEXT"}, outputs={"text": "PART"}, decoupled=True)


@dataclass
class Models:
    """The model server: what it was asked can be read from its log."""

    port: int
    log: Path
    process: subprocess.Popen[str]
    read: int = 0

    @property
    def url(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    def noted(self) -> list[dict[str, Any]]:
        """Return what it has noted since `forget`."""
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()[self.read :]]

    def forget(self) -> None:
        self.read = len(self.log.read_text(encoding="utf-8").splitlines())


@contextmanager
def model_server(folder: Path, *tls: Path) -> Iterator[Models]:
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "models.log"
    log.touch()
    command = [sys.executable, str(SERVER), str(log), *map(str, tls)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Models(int(process.stdout.readline()), log, process)
        finally:
            process.kill()


@contextmanager
def bridge(home: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the bridge on a data directory."""
    command = [sys.executable, "-m", "haat.cli.main", "bridge"]
    process = subprocess.Popen(command, env={**os.environ, **environment, "HAAT_DATA_DIR": str(home)})
    try:
        ends = time.monotonic() + START_SECONDS
        while not runs(home):
            assert process.poll() is None and time.monotonic() < ends
            time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        process.wait(10)


def lend(home: Path, data_dir: Path) -> None:
    """Let a gateway on one data directory use the bridge that works on another."""
    (data_dir / "gateway").mkdir(parents=True, exist_ok=True)
    (data_dir / "gateway" / "bridge.sock").symlink_to(home / "gateway" / "bridge.sock")


def add(
    market: Market, url: str, tensors: TensorMap, slug: str = "model", more: tuple[str, ...] = (), **options: Any
) -> None:
    """List a model over gRPC; its second version is asked at its third one."""
    options = {"category": "translation", "unit": "characters", **options}
    market.add_service(slug, dialect="inference", **options)
    service = market.gateway.directory.services[f"acme/{slug}"]
    first, second = service.versions
    versions = (
        structs.replace(first, policy=VersionPolicy(tensors=tensors, endpoints=more), endpoint=url),
        structs.replace(second, policy=VersionPolicy(tensors=structs.replace(tensors, version="3")), endpoint=url),
    )
    market.gateway.directory.put_service(service.id, structs.replace(service, versions=versions))

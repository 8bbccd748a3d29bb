"""A bridge of a command's own: a model over gRPC can be tried where no platform runs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

from haat.infra.bridge_client import runs
from haat.infra.inference.upstream import is_asked_over_grpc

_START_SECONDS = 20.0
_END_SECONDS = 5.0


@contextlib.contextmanager
def own_bridge(address: str) -> Iterator[Path | None]:
    """Yield the data directory on which a bridge works, for an address that is asked over gRPC; None for others."""
    if not is_asked_over_grpc(address):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="haat-bridge-") as home:
        command = [sys.executable, "-m", "haat.cli.main", "bridge"]
        environment = {**os.environ, "HAAT_DATA_DIR": home, "HAAT_LOG_LEVEL": "error"}
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + _START_SECONDS
            while not runs(Path(home)):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise click.ClickException("`haat bridge`, which asks models over gRPC, does not start.")
                time.sleep(0.02)
            yield Path(home)
        finally:
            process.terminate()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

"""A worker: opens models with the runtimes that their manifests name, and answers batches, one at a time.

The local engine starts it as ``python -m haat.models.worker SOCKET [MEMORY]``; what is said over that socket stands in
`haat.models.wire`. It ends when the socket does, and dies with the engine's process.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from haat.kernel.errors import EngineFailed, EngineMissing, HaatError
from haat.models import wire
from haat.models.manifest import Manifest
from haat.models.outputs import problem_of
from haat.models.region import Region
from haat.models.runtimes import runtime_named
from haat.models.runtimes.confinement import confine
from haat.models.runtimes.port import Runner
from haat.models.traces import current_trace

_PR_SET_PDEATHSIG = 1
_MOST_DETAIL = 500
_TOO_MUCH = "The model wanted more memory than its manifest says (`memory_mb`); the call is not billed."

log = logging.getLogger(__name__)


class Worker:
    """The models of this process, the socket to the engine, and the memory that is shared with it."""

    def __init__(self, engine: socket.socket, region: Region | None) -> None:
        self._engine = engine
        self._region = region
        self._runners: dict[str, Runner] = {}
        self._confined = False

    def serve(self) -> None:
        """Answer until the engine hangs up."""
        self._say(["ready", 0.0])
        while (message := self._hear()) is not None:
            what, *fields = message
            if what == "stop":
                continue  # it came after the stream's end
            try:
                getattr(self, f"_{what}")(*fields)
            except HaatError as error:
                self._say(["error", wire.error_fields(error)])
            except MemoryError:
                self._say(["error", wire.error_fields(EngineFailed(_TOO_MUCH))])
                return  # what it holds now is lost to whoever comes next: another worker begins anew
            except Exception as error:  # whatever a model raises is its own affair
                log.exception("%s of %s failed", what, fields[0])
                self._say(["error", wire.error_fields(EngineFailed(_sentence(what, error)))])

    def _open(self, key: str, written: dict[str, Any], folder: str) -> None:
        began = time.monotonic()
        manifest = msgspec.convert(written, Manifest)
        runtime = runtime_named(manifest.runtime)
        if sentence := runtime.missing(manifest):
            raise EngineMissing(sentence)
        if not self._confined:
            confine(manifest, Path(folder), Path.home())  # once: others of its kind are opened in it later
            self._confined = True
        self._runners[key] = runtime.open(manifest, Path(folder))
        gc.freeze()  # a model stays: no call need wait until it has been looked through for garbage
        self._say(["ready", time.monotonic() - began])

    def _ping(self) -> None:
        self._say(["ready", 0.0])

    def _close(self, key: str) -> None:
        self._runners.pop(key).close()
        self._say(["ready", 0.0])

    def _run(self, key: str, trace: str, sent: Sequence[Sequence[Any]]) -> None:
        current_trace.set(trace)
        inputs = wire.read_inputs(sent, self._region)
        began = time.monotonic()
        outputs: list[Any] = list(self._runners[key].predict(inputs))
        seconds = time.monotonic() - began
        if len(outputs) != len(inputs):
            raise EngineFailed(
                f"The model gave {len(outputs)} outputs for {_inputs(len(inputs))}; the call is not billed."
            )
        wrong = {}
        for index, output in enumerate(outputs):
            if problem := problem_of(output):
                wrong[index] = wire.error_fields(EngineFailed(problem))
                outputs[index] = None
        self._say(["outputs", outputs, wrong, seconds])

    def _stream(self, key: str, trace: str, sent: Sequence[Sequence[Any]]) -> None:
        current_trace.set(trace)
        began = time.monotonic()
        parts = iter(self._runners[key].stream(wire.read_inputs(sent, self._region)[0]))
        try:
            for part in parts:
                if problem := problem_of(part):
                    raise EngineFailed(problem)
                if self._is_told_to_stop():
                    break
                self._say(["part", part])
        finally:
            if close := getattr(parts, "close", None):
                close()
        self._say(["end", time.monotonic() - began])

    def _is_told_to_stop(self) -> bool:
        if not select.select([self._engine], [], [], 0)[0]:
            return False
        self._hear()
        return True

    def _hear(self) -> list[Any] | None:
        header = self._receive(wire.HEADER.size)
        if header is None:
            return None
        payload = self._receive(wire.HEADER.unpack(header)[0])
        return None if payload is None else msgspec.msgpack.decode(payload)

    def _receive(self, size: int) -> bytearray | None:
        received = bytearray(size)
        view = memoryview(received)
        while view:
            count = self._engine.recv_into(view)
            if not count:
                return None
            view = view[count:]
        return received

    def _say(self, message: Sequence[Any]) -> None:
        self._engine.sendall(wire.frame(message))


def _inputs(count: int) -> str:
    return "1 input" if count == 1 else f"{count} inputs"


def _sentence(what: str, error: Exception) -> str:
    """Say which kind of error it was, and no more: what it says may be a secret of the model."""
    kind = type(error).__name__[:_MOST_DETAIL]
    if what == "open":
        return f"The model can't be loaded: it fails with {kind}."
    return f"The model failed with {kind}; the call is not billed."


def main() -> None:
    """Serve on the descriptor that is given."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the engine's to act on
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    logging.basicConfig(level=logging.INFO)
    os.dup2(2, 1)  # models may print: what they write to stdout goes to stderr
    region = Region(int(sys.argv[2])) if len(sys.argv) > 2 else None
    with socket.socket(fileno=int(sys.argv[1])) as engine:
        engine.setblocking(True)
        os.set_inheritable(engine.fileno(), False)
        os.register_at_fork(after_in_child=engine.detach)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the engine was killed
            Worker(engine, region).serve()


if __name__ == "__main__":
    main()

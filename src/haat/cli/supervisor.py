"""Keeps child processes running: starts them, restarts what dies, rotates their logs, stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

MAX_LOG_BYTES = 10 * 1024 * 1024
KEPT_LOGS = 3
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0
_STEADY_SECONDS = 10.0  # a process that ran this long did not fail at its start
_LEAST_GRACE = 2.0


@dataclass(slots=True)
class Child:
    """One supervised process. With ``once`` it may end with status 0.

    ``environment`` is added to everybody's; ``descriptors`` stay open in it.
    """

    name: str
    command: Sequence[str]
    once: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    descriptors: Sequence[int] = ()
    process: asyncio.subprocess.Process | None = None
    created: float = 0.0
    restarts: int = 0
    watcher: asyncio.Task[None] | None = field(default=None, repr=False)


class Supervisor:
    """Runs children until told to stop. ``say`` gets a sentence for each thing worth knowing."""

    def __init__(
        self,
        logs: Path | None,
        environment: Mapping[str, str],
        say: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        self._logs = logs
        self._environment = dict(environment)
        self._say = say
        self._changed = changed
        self._stopping = False
        self._readers: set[asyncio.Task[None]] = set()
        self.children: dict[str, Child] = {}

    async def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        once: bool = False,
        environment: Mapping[str, str] | None = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        """Start a child and keep it running."""
        child = self.children[name] = Child(name, command, once, environment or {}, descriptors)
        await self._spawn(child)
        child.watcher = asyncio.create_task(self._watch(child))

    async def stop(self, order: Sequence[Sequence[str]], seconds: float) -> None:
        """Stop the children stage by stage: SIGTERM, and SIGKILL for what is left after ``seconds``."""
        self._stopping = True
        deadline = time.monotonic() + seconds
        for stage in order:
            await asyncio.gather(
                *(self._stop(self.children[name], deadline) for name in stage if name in self.children)
            )

    async def _stop(self, child: Child, deadline: float) -> None:
        if child.process is not None and child.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.process.terminate()
            try:
                await asyncio.wait_for(child.process.wait(), max(deadline - time.monotonic(), _LEAST_GRACE))
            except TimeoutError:
                self._say(f"{child.name} does not stop in time and is killed")
                with contextlib.suppress(ProcessLookupError):
                    child.process.kill()
                await child.process.wait()
        if child.watcher is not None:
            child.watcher.cancel()
            await asyncio.gather(child.watcher, return_exceptions=True)

    async def _watch(self, child: Child) -> None:
        pause = _FIRST_PAUSE
        while True:
            assert child.process is not None
            began = time.monotonic()
            status = await child.process.wait()
            if self._stopping or (child.once and status == 0):
                return
            if time.monotonic() - began > _STEADY_SECONDS:
                pause = _FIRST_PAUSE
            self._say(f"{child.name} ended ({_reason(status)}); it is started again in {pause:g} s")
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            child.restarts += 1
            await self._spawn(child)

    async def _spawn(self, child: Child) -> None:
        if self._logs is None:
            output: int = asyncio.subprocess.PIPE
        else:
            output = os.open(self._log_file(child.name), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        try:
            child.process = await asyncio.create_subprocess_exec(
                *child.command,
                env={**self._environment, **child.environment},
                pass_fds=child.descriptors,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the supervisor, which stops its children in order
            )
        finally:
            if self._logs is not None:
                os.close(output)
        with contextlib.suppress(psutil.NoSuchProcess):
            child.created = psutil.Process(child.process.pid).create_time()
        if child.process.stdout is not None:
            reader = asyncio.create_task(_prefix(child.name, child.process.stdout))
            self._readers.add(reader)  # the event loop itself keeps tasks only weakly
            reader.add_done_callback(self._readers.discard)
        self._changed()

    def _log_file(self, name: str) -> Path:
        assert self._logs is not None
        return self._logs / f"{name}.log"

    def rotate_logs(self) -> None:
        """Copy a log that has grown too long aside and empty it.

        The children write to it themselves, so they also log after the supervisor was killed; what
        they write between copy and truncation (microseconds) is lost.
        """
        for name in self.children if self._logs is not None else ():
            rotate(self._log_file(name), MAX_LOG_BYTES, KEPT_LOGS)


def rotate(log: Path, most_bytes: int, kept: int) -> None:
    """Shift ``log`` to ``log.1``, ``log.1`` to ``log.2`` … once it is longer than ``most_bytes``."""
    if not log.exists() or log.stat().st_size <= most_bytes:
        return
    for number in range(kept - 1, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number + 1}"))
    log.with_name(f"{log.name}.1").write_bytes(log.read_bytes())
    os.truncate(log, 0)


async def end_processes(processes: Sequence[psutil.Process], seconds: float) -> None:
    """End processes that aren't our children: SIGTERM, then SIGKILL after ``seconds``."""
    for send in (psutil.Process.terminate, psutil.Process.kill):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                send(process)
        _, processes = await asyncio.to_thread(psutil.wait_procs, processes, seconds)
        if not processes:
            return


async def _prefix(name: str, stream: asyncio.StreamReader) -> None:
    """Pass a child's lines on to our standard error, each with its name."""
    async for line in stream:
        sys.stderr.write(f"{name:<8} {line.decode(errors='replace')}")
        sys.stderr.flush()


def _reason(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"

"""What happens when a model's process is killed under load: calls lost, and the time until it answers again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from bench.load import LoadFailed, Target
from bench.model_servers import worker_of
from bench.processes import LOOPBACK, ask
from bench.servers import request_of

CALLERS, OTHERS = 32, 4
BEFORE_SECONDS, PATIENCE_SECONDS, AFTER_SECONDS = 1.0, 20.0, 1.0
CALL_SECONDS = 10.0
"""A caller that has had no answer for so long gives up: it counts as failed."""


@dataclass(slots=True)
class Calls:
    """Calls of one model: when each ended, and whether it was answered with 200. Times are time.monotonic's."""

    ended: list[tuple[float, float, bool]] = field(default_factory=list)
    """Begin, end, success."""

    @property
    def failed(self) -> int:
        return sum(1 for _, _, good in self.ended if not good)

    def recovered(self, since: float) -> float | None:
        """Return the seconds from ``since`` to the end of the first good call that began after it, or None."""
        ends = [end for begin, end, good in self.ended if good and begin > since]
        return min(ends) - since if ends else None


@dataclass(frozen=True, slots=True)
class Crash:
    """What was seen. ``back_seconds`` is None for a server that did not come back within twenty seconds."""

    calls: int
    failed: int
    back_seconds: float | None
    others_calls: int
    others_failed: int


async def crash(target: Target, other: Target) -> Crash:
    """Load both models, kill the process that runs the first, and go on until it is back."""
    pid = worker_of(ask(target.port, request_of(target)).body)
    seen, others = Calls(), Calls()
    async with _load(target, CALLERS, seen), _load(other, OTHERS, others):
        await asyncio.sleep(BEFORE_SECONDS)
        if not seen.ended or seen.failed:
            raise LoadFailed(f"{target.name} fails before anything is killed")
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        while seen.recovered(killed) is None and time.monotonic() < killed + PATIENCE_SECONDS:  # noqa: ASYNC110  # they are counted, not told
            await asyncio.sleep(0.05)
        await asyncio.sleep(AFTER_SECONDS)
    return Crash(len(seen.ended), seen.failed, seen.recovered(killed), len(others.ended), others.failed)


@contextlib.asynccontextmanager
async def _load(target: Target, callers: int, seen: Calls) -> AsyncIterator[None]:
    """Have callers who call again as soon as they are answered, for the length of a block."""
    tasks = [asyncio.create_task(_caller(target, seen)) for _ in range(callers)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _caller(target: Target, seen: Calls) -> None:
    head = "".join(f"{name}: {value}\r\n" for name, value in target.headers.items())
    request = f"POST {target.path} HTTP/1.1\r\nHost: bench\r\n{head}Content-Length: {len(target.body)}\r\n\r\n".encode()
    while True:
        try:
            reader, writer = await asyncio.open_connection(LOOPBACK, target.port)
        except OSError:
            now = time.monotonic()
            seen.ended.append((now, now, False))
            await asyncio.sleep(0.05)
            continue
        try:
            good = True
            while good:
                begin = time.monotonic()
                try:
                    async with asyncio.timeout(CALL_SECONDS):
                        writer.write(request + target.body)
                        good = await _is_answered(reader)
                except (OSError, EOFError, KeyError, ValueError, TimeoutError):
                    good = False
                seen.ended.append((begin, time.monotonic(), good))
            await asyncio.sleep(0.05)  # as a client waits before it tries again
        finally:
            writer.close()


async def _is_answered(reader: asyncio.StreamReader) -> bool:
    """Read one answer; tell whether it is a 200."""
    head = await reader.readuntil(b"\r\n\r\n")
    status, *lines = head.lower().split(b"\r\n")
    fields = dict(line.split(b": ", 1) for line in lines if b": " in line)
    if fields.get(b"transfer-encoding") == b"chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(size + 2)
        await reader.readexactly(2)
    else:
        await reader.readexactly(int(fields[b"content-length"]))
    return status.split()[1] == b"200"

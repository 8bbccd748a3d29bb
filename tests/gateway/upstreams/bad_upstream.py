"""A server that misbehaves in every way that providers do, on real sockets.

A target that holds ``/good`` is answered properly, so that calls which share the endpoint with a bad one
can be watched. `BEHAVIOURS` is named as in docs/resilience.md, which says what a caller gets.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from gateway.rig import reset

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
Behaviour = Callable[[Reader, Writer], Awaitable[None]]

GOOD = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{"ok":true}'
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
SSE = CHUNKED.replace(b"text/plain", b"text/event-stream")


def says(*parts: bytes, then: Behaviour | None = None, pause: float = 0.01) -> Behaviour:
    """Read the request, send parts one after another, then close or do something else."""

    async def behave(reader: Reader, writer: Writer) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
        if then is not None:
            await then(reader, writer)

    return behave


async def resets(reader: Reader, writer: Writer) -> None:
    reset(writer)


async def waits(reader: Reader, writer: Writer) -> None:
    """Say nothing until the other side goes."""
    while await reader.read(65536):
        pass


async def never_reads(reader: Reader, writer: Writer) -> None:
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # asyncio's stream says only WriteTransport
    await asyncio.sleep(5)


def forever(beginning: bytes, part: bytes, pause: float = 0.0) -> Behaviour:
    """Send a part again and again, as long as anybody takes it."""

    async def behave(reader: Reader, writer: Writer) -> None:
        writer.write(beginning)
        while not writer.is_closing():
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)

    return behave


BEHAVIOURS: dict[str, Behaviour] = {
    "closes without an answer": says(),
    "resets the connection": resets,
    "resets in the middle of the body": says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", then=resets),
    "sends less than it announced": says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", b"half"),
    "sends more than it announced": says(GOOD + b"surplus"),
    "sends a second answer unasked": says(GOOD + GOOD),
    "breaks off its chunks": says(CHUNKED, b"5\r\nhello\r\n"),
    "sends a wrong chunk": says(CHUNKED, b"5\r\nhello\r\n", b"zz\r\n"),
    "breaks off an event stream": says(SSE, b"9\r\ndata: 1\n\n\r\n"),
    "sends its head byte by byte": forever(b"HTTP/1.1 200 OK\r\n", b"x", 0.02),
    "never answers": waits,
    "never reads the request": never_reads,
    "falls silent in its body": says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", then=waits),
    "never ends its body": forever(CHUNKED, b"1\r\nx\r\n", 0.005),
    "sends a body larger than anybody reads": forever(CHUNKED, b"10000\r\n%b\r\n" % (b"x" * 65536), 0.01),
    "sends interim answers only": forever(b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "switches protocols": says(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
    "speaks something else": says(b"SSH-2.0-OpenSSH_9\r\n"),
    "sends garbage": says(bytes(range(256)) * 4),
    "has no status": says(b"HTTP/1.1 20 OK\r\n\r\n"),
    "sends a huge head": says(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000),
    "never ends its head": forever(b"HTTP/1.1 200 OK\r\n", b"X-Filler: " + b"a" * 1000 + b"\r\n"),
    "states two lengths": says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi"),
    "states a length and chunks": says(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"
    ),
    "uses a foreign transfer coding": says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxx"),
    "is overloaded": says(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy"),
}
"""What happens to a request that has been read whole, but for those that never read."""

EARLY = b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno"
AFTER_THE_HEAD = {
    "answers before the request has ended": says(EARLY, then=waits),
    "never reads the request": never_reads,
}
"""What happens as soon as a request's head is there."""


class BadUpstream:
    """Does to every call what ``behaviour`` names, but to those of a good target."""

    def __init__(self, behaviour: str) -> None:
        self.behaviour = behaviour
        self.calls = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> BadUpstream:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: Reader, writer: Writer) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._answer(reader, writer):
                pass
        self._tasks.discard(task)
        writer.close()

    async def _answer(self, reader: Reader, writer: Writer) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        good = b"/good" in head.split(b"\r\n")[0]
        self.calls += not good
        if not good and self.behaviour in AFTER_THE_HEAD:
            await AFTER_THE_HEAD[self.behaviour](reader, writer)
            return False
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                await reader.readexactly(int(line.split(b":")[1]))
        if good:
            writer.write(GOOD)
            await writer.drain()
            return True
        await BEHAVIOURS[self.behaviour](reader, writer)
        return False

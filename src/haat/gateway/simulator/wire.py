"""The simulator's answer on its way into the gateway: the bytes that a provider would send, without a socket.

So everything behind a provider meets it too: framing, usage headers, streams, doors, and what breaks off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from haat.gateway.call import Call
from haat.gateway.simulator.shapes import EVENTS, Simulated
from haat.gateway.upstreams.connection import UpstreamConnection


class Line(asyncio.Transport):
    """A connection to nobody. What the gateway writes to it is forgotten; it says what it was given to say."""

    def __init__(self, call: Call, answer: Simulated, breaks_off: bool) -> None:
        super().__init__()
        route = call.route
        assert route is not None
        self._call, self._answer, self._breaks_off = call, answer, breaks_off
        self._upstream = UpstreamConnection(route.endpoint.pool)
        self._pieces: Iterator[bytes] = iter(())
        self._next: asyncio.Handle | None = None
        self._closed = self._paused = False

    def begin(self, seconds: float) -> None:
        """Take the request, and begin to answer after so many seconds."""
        self._upstream.connection_made(self)
        self._upstream.send(self._call)
        self._pieces = pieces(self._answer, self._breaks_off)
        self._next = asyncio.get_running_loop().call_later(seconds, self._say)

    def _say(self) -> None:
        self._next = None
        if self._closed or self._paused:
            return
        piece = next(self._pieces, b"")
        if not piece:
            self._lose(ConnectionResetError() if self._breaks_off else None)
            return
        self._upstream.data_received(piece)
        if not self._closed:
            self._next = asyncio.get_running_loop().call_soon(self._say)

    def _lose(self, reason: Exception | None) -> None:
        if not self._closed:
            self._closed = True
            if self._next is not None:
                self._next.cancel()
                self._next = None
            asyncio.get_running_loop().call_soon(self._upstream.connection_lost, reason)

    # --- as the transport of the upstream connection --------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Nobody is there to read it."""

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._lose(None)

    def abort(self) -> None:
        self._lose(None)

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        if self._next is None and not self._closed:
            self._next = asyncio.get_running_loop().call_soon(self._say)


def pieces(answer: Simulated, breaks_off: bool) -> Iterator[bytes]:
    """Yield an answer as it comes over a line: whole, or in chunks; ``breaks_off`` ends it in its middle."""
    head = [b"HTTP/1.1 200 OK", b"Connection: close", b"Content-Type: " + answer.content_type]
    if answer.usage:
        head.append(b"X-Haat-Usage: " + answer.usage)
    if answer.content_type != EVENTS:
        [body] = answer.parts
        head.append(b"Content-Length: %d" % len(body))
        yield b"\r\n".join(head) + b"\r\n\r\n" + (body[: len(body) // 2] if breaks_off else body)
        return
    head.append(b"Transfer-Encoding: chunked")
    yield b"\r\n".join(head) + b"\r\n\r\n"
    parts = answer.parts[: max(1, len(answer.parts) // 2)] if breaks_off else answer.parts
    for part in parts:
        yield b"%x\r\n%b\r\n" % (len(part), part)
    if not breaks_off:
        yield b"0\r\n\r\n"

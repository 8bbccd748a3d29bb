"""HTTP/1.1 before models: uvicorn's protocol, with a short way for what nearly every call is.

A call that is small and here whole needs nothing of what ASGI is good at: bodies that come in pieces, answers that
go in parts. It goes straight to the door and back, which saves up to a quarter of the processor's time, and nothing
that can be measured where large batches share it. All else goes as uvicorn has it go, but that what is written in one
turn of the loop leaves together: a system call is a tenth of what a small call costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol, cast

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from haat.models.door import Answer, Called

_STATUS_LINES = {one.value: b"HTTP/1.1 %d %b\r\n" % (one.value, one.phrase.encode()) for one in HTTPStatus}


class GatheringTransport:
    """A transport that writes at the end of the loop's turn, or at once if told so; all else is the transport's own."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._gathered: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write soon."""
        if not self._gathered:
            self._loop.call_soon(self._flush)
        self._gathered.append(data)

    def write_now(self, data: bytes) -> None:
        """Write what is whole: nothing will be added to it in this turn."""
        self._gathered.append(data)
        self._flush()

    def close(self) -> None:
        """Write what is to be written, and close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        gathered, self._gathered = self._gathered, []
        if gathered and not self._transport.is_closing():
            self._transport.write(b"".join(gathered))


class Door(Protocol):
    """What the server asks: an ASGI application that may answer calls without ASGI."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    def called(self, path: str) -> Called | None:
        """Return what answers a POST to a path that is here whole and wants no events, if it calls a model."""


class DirectCall:
    """A call on the short way. Uvicorn takes it for what it calls a cycle, by whose members it knows what goes on."""

    def __init__(self, protocol: ModelProtocol, called: Called, headers: dict[bytes, bytes], keep_alive: bool) -> None:
        self.body = bytearray()
        self.more_body = True
        self.disconnected = False
        self.keep_alive = keep_alive
        self.response_complete = False
        self.message_event = self
        self._protocol = protocol
        self._called = called
        self._headers = headers
        self._task: asyncio.Task[None] | None = None
        """What answers it; None before, and again afterwards: it knows us, and we would keep each other in memory."""

    def set(self) -> None:
        """See what uvicorn has changed here: a part of the body has come, all of it, or the client has gone."""
        if self.disconnected:
            if self._task is not None:
                self._task.cancel()
        elif not self.more_body and self._task is None and not self.response_complete:
            self._task = self._protocol.work(self._answer())

    async def _answer(self) -> None:
        protocol = self._protocol
        answer = await self._called(self._headers, bytes(self.body))
        if protocol.flow.write_paused:
            await protocol.flow.drain()
        if not self.disconnected:
            protocol.answer(self, answer)
        self._task = None


class ModelProtocol(HttpToolsProtocol):
    """One connection to the models' server, whose application is a `Door`."""

    def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._door: Door = config.app

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, GatheringTransport(transport, self.loop)))

    def on_message_begin(self) -> None:
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        call = self._direct_call()
        if call is not None:
            self.cycle = cast(Any, call)
            return
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()  # makes what ASGI wants
        self.url, self.expect_100_continue = url, expect
        self.headers.extend(headers)
        super().on_headers_complete()

    def _direct_call(self) -> DirectCall | None:
        """Return what has begun to arrive as a call for the short way, if it is one."""
        url, parser = self.url, self.parser
        if not (url.endswith(b"/invoke") and url.startswith(b"/") and url.isascii()) or parser.get_method() != b"POST":
            return None
        if self.expect_100_continue or parser.should_upgrade() or parser.get_http_version() != "1.1":
            return None
        if self.cycle is not None and not self.cycle.response_complete:
            return None  # it waits behind another
        headers = dict(self.headers)
        length = headers.get(b"content-length")
        if length is None or int(length) > HIGH_WATER_LIMIT or b"text/event-stream" in headers.get(b"accept", b""):
            return None
        called = self._door.called(url.decode("ascii"))
        return None if called is None else DirectCall(self, called, headers, parser.should_keep_alive())

    def work(self, answering: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Let a call be answered; the server waits for it when it ends."""
        task = self.loop.create_task(answering)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def answer(self, call: DirectCall, answer: Answer) -> None:
        """Write the answer to a call."""
        status, headers, body = answer
        parts = [_STATUS_LINES[status]]
        for name, value in (*self.server_state.default_headers, *headers, (b"content-length", b"%d" % len(body))):
            parts += (name, b": ", value, b"\r\n")
        parts.append(b"\r\n" if call.keep_alive else b"connection: close\r\n\r\n")
        parts.append(body)
        cast(GatheringTransport, self.transport).write_now(b"".join(parts))
        call.response_complete = True
        if not call.keep_alive:
            self.transport.close()
        self.on_response_complete()

"""The way of a connection from a client to the process that speaks Socket.IO: bytes both ways."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast

import msgspec

from haat.gateway import relay
from haat.gateway.doors.operation import Operation
from haat.gateway.doors.visit import Visit
from haat.gateway.http.headers import without
from haat.kernel.errors import HaatError, ProviderUnavailable
from haat.usage.event import Outcome

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.http.connection import ClientConnection

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
MOST_PASSAGES = 1000
_encode = msgspec.json.Encoder().encode
_ONE_REQUEST = (b"connection", b"host")


class StreamingSpeech(Operation):
    """``/socket.io/``: who speaks is asked for his key by the process, in Socket.IO's own handshake."""

    name = "bhashini streaming speech"
    open_to_all = True
    unfolds = False  # what comes is the process's to read

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        if len(gateway.passages) >= MOST_PASSAGES:
            raise ProviderUnavailable("Too many are speaking at the moment: try again shortly.", reset_seconds=5)
        passage = Passage(gateway, call, visit)
        work = asyncio.get_running_loop().create_task(passage.open())
        gateway.tunnel_work.add(work)
        work.add_done_callback(gateway.tunnel_work.discard)
        return False

    def problem(self, error: HaatError, request_id: str) -> tuple[bytes, bytes]:
        return b"application/json", _encode({"message": error.detail, "code": error.code})


class Passage:
    """One connection. A request that isn't an upgrade is the last one on it: what follows it may be for others."""

    def __init__(self, gateway: Gateway, call: Call, visit: Visit) -> None:
        self._gateway, self._call, self._visit = gateway, call, visit
        self.near: asyncio.Transport | None = None
        self.far: asyncio.Transport | None = None

    async def open(self) -> None:
        """Connect to the process, give it the request, and leave the client's connection to it."""
        call = self._call
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                loop = asyncio.get_running_loop()
                await loop.create_unix_connection(lambda: _End(self, "far"), self._gateway.speech_rendezvous.path)
        except (OSError, TimeoutError) as error:
            log.error("the process for streaming speech does not answer: %s", error)
            unavailable = ProviderUnavailable("Streaming speech is not served at the moment: try again shortly.")
            relay.refuse(call, unavailable, Outcome.REFUSED)
            return
        assert self.far is not None
        if call.answered:
            self.far.abort()  # the client has left meanwhile
            return
        self.far.write(self._request())
        call.answered = True
        self.near = cast("ClientConnection", call.client).hand_over(cast(Any, _End(self, "near")))
        self._gateway.passages.add(self)
        if call.extras is not None and call.extras.early:
            self.far.write(call.extras.early)

    def _request(self) -> bytes:
        """Return the request as it came, but for what would let another one follow it."""
        call = self._call
        extras = call.extras
        upgrades = extras is not None and extras.websocket
        body = b"".join(call.body)
        return b"".join(
            (
                b"%b %b HTTP/1.1\r\nHost: speech\r\n" % (call.method, self._visit.target),
                b"Connection: Upgrade\r\nUpgrade: websocket\r\n" if upgrades else b"Connection: close\r\n",
                *without(call.lines, _ONE_REQUEST),
                b"Content-Length: %d\r\n" % len(body) if body else b"",
                b"\r\n",
                body,
            )
        )

    def arrived(self, side: str, data: bytes) -> None:
        other = self.near if side == "far" else self.far
        if other is not None and not other.is_closing():
            other.write(data)

    def lost(self, side: str, exc: Exception | None) -> None:
        other = self.near if side == "far" else self.far
        if other is not None and not other.is_closing():
            other.close()
        if side == "near":
            self._gateway.passages.discard(self)
            client = cast("ClientConnection", self._call.client)
            client.active = None
            client.connection_lost(exc)

    def hold(self, side: str, wait: bool) -> None:
        """Let one side wait while the other doesn't take what it sends."""
        other = self.near if side == "far" else self.far
        if other is not None and not other.is_closing():
            if wait:
                other.pause_reading()
            else:
                other.resume_reading()

    def end(self) -> None:
        """Break it off: the gateway is being stopped."""
        if self.near is not None:
            self.near.abort()


class _End(asyncio.Protocol):
    """One of the two sides."""

    def __init__(self, passage: Passage, side: str) -> None:
        self._passage, self._side = passage, side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        setattr(self._passage, self._side, cast(asyncio.Transport, transport))

    def data_received(self, data: bytes) -> None:
        self._passage.arrived(self._side, data)

    def pause_writing(self) -> None:
        self._passage.hold(self._side, True)

    def resume_writing(self) -> None:
        self._passage.hold(self._side, False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._passage.lost(self._side, exc)


OPERATIONS = {(method, b"/socket.io/*"): StreamingSpeech() for method in (b"GET", b"POST", b"OPTIONS")}

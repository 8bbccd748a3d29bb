"""A gateway without sockets: its real protocol objects, on transports that are lists of bytes.

Bytes are handed to ``data_received`` in whatever pieces a test wants, and the provider at the other
end is h11, which is strict. Only the event loop's way out of the process is replaced.
"""

from __future__ import annotations

import asyncio
import itertools
import operator
import re
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import h11

from gateway.http.case import KEY
from gateway.rig import APP, ORG, Market, Request, Response
from haat.gateway.gateway import Gateway
from haat.gateway.http.connection import ClientConnection
from haat.gateway.limits.registry import PlanLimits
from haat.gateway.market.snapshot import Credential, Directory, Snapshot
from haat.infra.keyring import Keyring
from haat.settings import Settings
from haat.usage import event as usage
from haat.usage.event import UsageEvent
from haat.usage.journal import START, JournalReader, JournalWriter, Kind

T = TypeVar("T")
HIGH_WATER = 64 * 1024
"""What uvloop lets a transport hold before it says ``pause_writing``."""
IDLE_TURNS = 4
SECOND = 1_000_000
BODY = b'{"ok":true}'
PROVIDER = "127.0.0.1:9"
_VOLATILE = re.compile(
    rb"(?<=X-Request-ID: )[0-9a-f-]{36}"
    rb'|(?<="request_id":")[0-9a-f-]{36}'
    rb"|(?<=Date: )[^\r]*"
)
_BUSY, _WAITING = operator.attrgetter("busy"), operator.attrgetter("waiting")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class MemoryTransport(asyncio.Transport):
    """What a protocol sees of a socket. ``take`` gets what was written, unless ``blocked``."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: Any, take: Callable[[bytes], None]):
        super().__init__({"peername": ("127.0.0.1", 9), "sockname": ("127.0.0.1", 8)})
        self.protocol, self.blocked = protocol, False
        self.reading = True
        self.halves = True
        """One side can be ended alone, which TLS can't."""
        self.ended = False
        """Our side has sent its end."""
        self.most = 0
        """Most bytes that were ever held here."""
        self._loop, self._take = loop, take
        self._held = bytearray()
        self._closing = self._lost = self._paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.ended, "written after the end"
        if self._lost or self._closing:
            return
        if not self.blocked:
            self._take(bytes(data))
            return
        self._held += data
        self.most = max(self.most, len(self._held))
        if len(self._held) > HIGH_WATER and not self._paused:
            self._paused = True
            self.protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def unblock(self) -> None:
        """Take everything that is held here, and what comes from now on."""
        self.blocked = False
        held = bytes(self._held)
        self._held.clear()
        if held:
            self._take(held)
        if self._paused:
            self._paused = False
            self.protocol.resume_writing()
        if self._closing:
            self._lose(None)

    def get_write_buffer_size(self) -> int:
        return len(self._held)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return HIGH_WATER // 4, HIGH_WATER

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_reading(self) -> bool:
        return self.reading

    def can_write_eof(self) -> bool:
        return self.halves

    def write_eof(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if not self._held:
                self._lose(None)

    def abort(self) -> None:
        self._closing = True
        self._held.clear()
        self._lose(None)

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    @property
    def lost(self) -> bool:
        return self._lost

    def leave(self, exc: Exception | None = None) -> None:
        """The other side is gone."""
        self._closing = True
        self._held.clear()
        self._lose(exc)

    def _lose(self, exc: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self._loop.call_soon(self.protocol.connection_lost, exc)


class Peer:
    """One connection at the provider's end, read strictly: a violation is noted in ``wire.violations``."""

    def __init__(self, wire: Wire, protocol: Any) -> None:
        self._wire = wire
        self.begin()
        self.transport = MemoryTransport(wire.loop, protocol, self._take)

    def begin(self) -> None:
        """Expect a request, whatever came before."""
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        self._head: h11.Request | None = None
        self._body: list[bytes] = []

    def _take(self, data: bytes) -> None:
        self._wire.forwarded += data
        self._h11.receive_data(data)
        try:
            self._read()
        except h11.RemoteProtocolError as error:
            self._wire.violations.append(str(error))

    def _read(self) -> None:
        while True:
            event = self._h11.next_event()
            if isinstance(event, h11.Request):
                self._head = event
                self._wire.heads += 1
            elif isinstance(event, h11.Data):
                self._body.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                assert self._head is not None
                headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self._head.headers]
                method, target = self._head.method.decode(), self._head.target.decode("latin-1")
                self._wire.requests.append(Request(method, target, headers, b"".join(self._body)))
                self._body.clear()
                self._wire.asked.append(self)
            else:
                return

    def answer(self) -> None:
        """Answer the request that came last, and be ready for another."""
        if self.transport.lost:
            return
        status = h11.Response(status_code=200, headers=[("Content-Length", str(len(BODY)))], reason=b"OK")
        body = [] if self._head is not None and self._head.method == b"HEAD" else [h11.Data(data=BODY)]
        parts = [self._h11.send(event) for event in (status, *body, h11.EndOfMessage())]
        if self._h11.our_state is h11.DONE:
            self._h11.start_next_cycle()
        self.receive(b"".join(part for part in parts if part))

    def receive(self, data: bytes) -> None:
        """Let the gateway receive bytes from this provider."""
        if not self.transport.lost:
            self.transport.protocol.data_received(data)

    def end(self) -> None:
        """Let this provider end the connection."""
        if not self.transport.lost:
            self.transport.protocol.eof_received()
            self.transport.leave()


class MemoryLoop(asyncio.SelectorEventLoop):
    """An event loop whose connections lead to `Peer`s."""

    wire: Wire

    async def create_connection(self, protocol_factory: Any, *args: Any, **options: Any) -> Any:
        await self.wire.reachable.wait()
        protocol = protocol_factory()
        peer = Peer(self.wire, protocol)
        peer.transport.blocked = self.wire.stalled
        self.wire.peers.append(peer)
        protocol.connection_made(peer.transport)
        return peer.transport, protocol


class Seen(NamedTuple):
    """What one connection came to. ``output`` and ``forwarded`` without what changes from call to call."""

    output: bytes
    interim: int
    kept: bool
    requests: tuple[Request, ...]
    heads: int
    """Request heads the provider saw, of requests that came whole or did not."""
    forwarded: bytes
    """Everything that was written to providers, one connection after the other."""
    violations: tuple[str, ...]

    def answers(self, methods: Sequence[str] = ()) -> list[Response]:
        """Parse the output strictly; every answer must be whole."""
        answers: list[Response] = []
        left = self.output
        while left:
            method = methods[len(answers)] if len(answers) < len(methods) else "POST"
            parser = h11.Connection(h11.CLIENT)
            parser.send(h11.Request(method=method, target="/", headers=[("Host", "h")]))
            parser.send(h11.EndOfMessage())
            parser.receive_data(left)
            event, body = parser.next_event(), b""
            while isinstance(event, h11.InformationalResponse):
                event = parser.next_event()
            if event is h11.NEED_DATA and left.replace(CONTINUE, b"") == b"":
                break  # the body that was asked for never came
            assert isinstance(event, h11.Response), event
            head = event
            while isinstance(event := parser.next_event(), h11.Data):
                body += bytes(event.data)
            if event is h11.NEED_DATA and not self.kept:
                parser.receive_data(b"")
                event = parser.next_event()
                while isinstance(event, h11.Data):
                    body += bytes(event.data)
                    event = parser.next_event()
            assert isinstance(event, h11.EndOfMessage), event
            headers = [(name.decode(), value.decode("latin-1")) for name, value in head.headers]
            answers.append(Response(head.status_code, headers, body))
            left = parser.trailing_data[0]
        return answers


class Wire:
    """A gateway in memory with the services ``acme/echo`` and ``acme/small``; a context manager."""

    def __init__(self, folder: Path, keyring: Keyring, **options: Any) -> None:
        self._folder, self._keyring, self._options = folder, keyring, options
        self.peers: list[Peer] = []
        self.reachable = asyncio.Event()
        """Not set: connecting to the provider takes for ever."""
        self.reachable.set()
        self.stalled = False
        """The provider reads nothing."""
        self.requests: list[Request] = []
        self.asked: list[Peer] = []
        """Those that owe an answer."""
        self.violations: list[str] = []
        self.forwarded = bytearray()
        self.heads = 0
        self.errors: list[dict[str, Any]] = []
        """What the event loop was told went wrong in a callback."""

    def __enter__(self) -> Wire:
        def make_loop() -> MemoryLoop:
            loop = MemoryLoop()
            loop.wire = self
            loop.set_exception_handler(lambda _, context: self.errors.append(context))
            return loop

        self._runner = asyncio.Runner(loop_factory=make_loop)
        self.loop = self._runner.get_loop()
        self._runner.run(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.run(self.gateway.stop(0))
        self._runner.close()

    async def _open(self) -> None:
        self._reader, self._position = JournalReader(self._folder / "journal", "gateway-0"), START
        writer = JournalWriter(self._folder / "journal", "gateway-0", 1 << 24, sync_ms=60_000)
        settings = Settings(data_dir=self._folder, **self._options)
        self.gateway = Gateway(settings, self._keyring, writer, Directory(Snapshot()))
        self.gateway.feed_connected = True
        market = Market(self.gateway, None, self._folder, KEY, 0, self._keyring)  # type: ignore[arg-type]  # the ports are given
        market.add_service("echo", port=9, subscribed=PlanLimits())
        market.add_service("small", port=9, subscribed=PlanLimits(), max_body_bytes=1000)
        credential = Credential("corpus", ORG, APP, self._keyring.hash_key(KEY), 0, 0)
        self.gateway.directory.put_credential(credential.id, credential)
        self.market = market
        self.endpoint = self.gateway.routes.find(b"acme/echo").endpoint

    def run(self, raw: bytes, cuts: Sequence[int] = (), *, late: bool = False, patience: float = 0) -> Seen:
        """Send bytes over one connection, cut into pieces, and return what came of them.

        ``late`` lets the provider answer only when the gateway reads no more or everything has arrived.
        """
        return self.play(self.once(raw, cuts, late, patience))

    def run_cut(self, raw: bytes, positions: Iterable[int], *, late: bool = False, patience: float = 0) -> list[Seen]:
        """Send bytes in two pieces, once for each position."""

        async def each() -> list[Seen]:
            return [await self.once(raw, [position], late, patience) for position in positions]

        return self.play(each())

    def play(self, scene: Coroutine[Any, Any, T]) -> T:
        """Run a test's own coroutine on this gateway's loop."""
        return self._runner.run(scene)

    def events(self) -> list[UsageEvent]:
        """Return what was recorded since the last time: the last record of each call."""
        found: dict[str, UsageEvent] = {}
        while batch := self._reader.read(self._position):
            events = [usage.decode(frame.payload) for frame in batch if frame.kind == Kind.USAGE]
            found |= {event.id: event for event in events}
            self._position = batch[-1].end
        return list(found.values())

    async def once(self, raw: bytes, cuts: Sequence[int] = (), late: bool = False, patience: float = 0) -> Seen:
        """Do what `run` does, within a scene."""
        visit = Visit(self)
        bounds = [0, *cuts, len(raw)]
        for piece in (raw[start:stop] for start, stop in itertools.pairwise(bounds)):
            if not visit.transport.reading:
                await self.settle()
                assert visit.transport.reading or visit.gone, "nothing is read any more and nothing goes on"
            if visit.transport.lost:
                break
            if piece:
                visit.client.data_received(piece)
            if not late:
                await self.settle()
        await self.settle()
        if patience:
            self.gateway.clock.tick()
            visit.expire(patience)
            await self.settle()
        return await visit.end()

    async def settle(self, answering: bool = True, waiting: bool = True) -> None:
        """Let everything happen that can: the provider's answers too, and calls that wait for a connection."""
        pools, idle = self.gateway.pools, 0
        while idle < IDLE_TURNS or (waiting and pools.each(_WAITING)):
            idle += 1
            while self.asked and answering:
                self.asked.pop(0).answer()
                idle = 0
            await asyncio.sleep(0)
            assert idle < 100, "calls wait, and nothing goes on"


class Visit:
    """One client connection, step by step."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.received = bytearray()
        wire.requests, wire.violations, wire.errors = [], [], []
        wire.asked.clear()
        wire.forwarded.clear()
        wire.heads = 0
        wire.gateway.clock.tick()
        wire.endpoint.succeeded(wire.gateway.clock.lately, None)  # so that no breaker opens over what was tried before
        self.client = ClientConnection(wire.gateway)
        self.transport = MemoryTransport(wire.loop, self.client, self._take)
        self.client.connection_made(self.transport)

    def _take(self, data: bytes) -> None:
        self.received += data

    @property
    def gone(self) -> bool:
        return self.transport.is_closing() or self.transport.ended

    def expire(self, seconds: float) -> None:
        """Look at this connection as the clock would after some time."""
        if not self.transport.lost:
            self.client.expire(self.wire.gateway.clock.now_us() + int(seconds * SECOND))

    async def end(self) -> Seen:
        """Leave, and look at what was left behind: nothing."""
        wire = self.wire
        kept = not self.gone
        output = bytes(self.received)
        self.transport.leave()
        await wire.settle()
        gateway = wire.gateway
        left = [len(gateway.calls), len(gateway.clients), *(gateway.pools.each(look) for look in (_BUSY, _WAITING))]
        gateway.calls.clear()
        gateway.clients.clear()
        assert wire.errors == [], wire.errors
        assert left == [0, 0, 0, 0], "calls, clients, busy or waiting ones were left behind"
        wire.peers = [peer for peer in wire.peers if not peer.transport.lost]
        gateway.meter.flush()
        interim = output.count(CONTINUE)
        output = _VOLATILE.sub(lambda found: b"*" * len(found[0]), output)
        return Seen(
            output, interim, kept, tuple(wire.requests), wire.heads, bytes(wire.forwarded), tuple(wire.violations)
        )

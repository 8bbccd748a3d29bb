"""The way to providers: an HTTP/1.1 client on httptools, and a bounded pool for each endpoint."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import httptools

from haat.gateway import relay
from haat.gateway.call import Call
from haat.gateway.clock import GatewayClock
from haat.gateway.headers import (
    ANSWER_HEADERS,
    CODING,
    CONNECTION,
    FORWARD,
    KEEP_ALIVE,
    LENGTH,
    USAGE,
    named_headers,
    without,
)
from haat.infra.net import IPNetwork, resolve
from haat.kernel.errors import (
    AddressForbidden,
    HaatError,
    Overloaded,
    ProviderFailed,
    ProviderTimeout,
    ProviderUnavailable,
)

log = logging.getLogger(__name__)

SECOND = 1_000_000
CONNECT_SECONDS = 5.0
REUSE_IDLE_SECONDS = 4.0
"""Servers commonly close after 5 idle seconds: a connection is not reused when that may be happening."""
MAX_ANSWER_HEAD = 64 * 1024
_MAX_INFORMATIONAL = 16
_SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS"})
_WAITERS_PER_CONNECTION = 8


class Origin(NamedTuple):
    """Where an endpoint is."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, endpoint: str) -> Origin:
        parts = urlsplit(endpoint)
        return cls(parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))


class UpstreamConnection:
    """One connection to a provider, an `asyncio.Protocol` by its methods.

    It carries one call at a time and is never pipelined.

    ``status`` to ``usage`` are what is known of the answer that is being read, ``parts`` what came of
    its body in this turn.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.call: Call | None = None
        self.reuse_until = 0
        self.used = False
        self.lost = False
        self.status = 0
        self.reason = b""
        self.lines: list[bytes] = []
        self.length = -1
        self.chunked = False
        self.usage = b""
        self.parts: list[bytes] = []
        self._transport: asyncio.Transport
        self._parser: httptools.HttpResponseParser
        self._connection = b""
        self._foreign_coding = False
        self._headed = False
        self._ended = False
        self._received = False
        self._keep = False
        self._informational = 0
        self._head_bytes = 0
        self._write_paused = False
        self._read_paused = False

    # --- the request ----------------------------------------------------------------------------

    def send(self, call: Call) -> None:
        """Write the request head, and the body as far as it is here."""
        grant = call.grant
        assert grant is not None
        self.call, call.upstream = call, self
        self._begin_answer()
        parts = call.body
        if call.body_complete:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            framing = (
                b"Content-Length: %d\r\n\r\n" % len(body)
                if body or call.content_length >= 0 or call.chunked
                else b"\r\n"
            )
            if call.method not in _SAFE:
                call.body = []  # kept for the one retry that is allowed
        else:
            body = b"".join(parts)
            call.body = []
            call.body_streamed = True
            if call.chunked:
                framing = b"Transfer-Encoding: chunked\r\n\r\n"
                body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            else:
                framing = b"Content-Length: %d\r\n\r\n" % call.content_length
        self._transport.write(b"".join((call.method, grant.request, *call.lines, call.id_line, framing, body)))
        if call.body_streamed and not self._write_paused:
            call.client.release_reading()

    def send_body(self, data: bytes, chunked: bool) -> None:
        """Forward a part of a streamed body."""
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)

    def end_body(self, chunked: bool) -> None:
        if chunked:
            self._transport.write(b"0\r\n\r\n")

    @property
    def usable(self) -> bool:
        return not self.lost and not self._transport.is_closing()

    def close(self) -> None:
        self._transport.close()

    @property
    def write_paused(self) -> bool:
        return self._write_paused

    def pause_writing(self) -> None:
        self._write_paused = True
        if self.call is not None:
            self.call.client.hold_reading()

    def resume_writing(self) -> None:
        self._write_paused = False
        if self.call is not None:
            self.call.client.release_reading()

    def hold_reading(self) -> None:
        """Take no more of the answer while the client doesn't."""
        if not self._read_paused and self.usable:
            self._transport.pause_reading()
            self._read_paused = True

    def release_reading(self) -> None:
        if self._read_paused and self.usable:
            self._transport.resume_reading()
        self._read_paused = False

    def abort(self) -> None:
        """Drop the connection and its call without a word."""
        if self.call is not None:
            self.call.upstream = None
            self.call = None
        if not self.lost:
            self._transport.abort()

    # --- the answer -----------------------------------------------------------------------------

    def _begin_answer(self) -> None:
        self._received = False
        self._ended = False
        self._headed = False
        self._informational = 0
        self._head_bytes = 0
        self._begin_head()

    def _begin_head(self) -> None:
        self.lines = []
        self.reason = b""
        self.usage = b""
        self.length = -1
        self.chunked = False
        self._connection = b""
        self._foreign_coding = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        call = self.call
        if call is None:
            self._transport.abort()  # nobody asked: what follows could be taken for another call's answer
            return
        self._received = True
        if not self._headed:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if self._ended and self.call is call:  # the answer is whole, what follows it is not HTTP
                self._keep = False
            else:
                self._fail(ProviderFailed("The provider's answer is not HTTP; the call is not billed."))
                return
        if self.call is not call:
            return  # it was dropped while parsing
        if self._ended:
            self.call = None
            call.upstream = None
            relay.proceed(call, self, True)
            self._release()
        elif self._headed:
            relay.proceed(call, self, False)
        elif self._head_bytes > MAX_ANSWER_HEAD:
            self._fail(ProviderFailed("The head of the provider's answer is too large."))

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        meaning = ANSWER_HEADERS.get(name)
        if meaning is None:
            meaning = ANSWER_HEADERS.get(name.lower(), FORWARD)
        if self._headed:
            return  # a trailer: dropped (RFC 9110, 6.5.1 lets a recipient do so)
        if not meaning:
            self.lines.append(b"%b: %b\r\n" % (name, value))
        elif meaning == LENGTH:
            self.length = int(value)
        elif meaning == CODING:
            self.chunked = True
            self._foreign_coding = value.lower() != b"chunked"
        elif meaning == CONNECTION:
            value = value.lower()
            if value != b"keep-alive":
                self._connection += b"," + value
        elif meaning == USAGE:
            self.usage = value
        elif meaning == KEEP_ALIVE:
            self._read_keep_alive(value)

    def on_headers_complete(self) -> None:
        call = self.call
        if self._ended:
            self._keep = False  # a second answer to one request: nobody's
            return
        self.status = status = self._parser.get_status_code()
        if call is None or status < 200:
            return
        if self._foreign_coding:
            self._fail(ProviderFailed("The provider uses a transfer coding other than chunked."))
            return
        if self._connection and (named := named_headers(self._connection)):
            self.lines = without(self.lines, named)
        self._headed = True
        if call.method == b"HEAD":
            # The parser doesn't know that this answer has no body: go on with a fresh one.
            self._keep = self._parser.should_keep_alive() and not self.chunked
            self._parser = httptools.HttpResponseParser(self)
            self._end(call)

    def on_body(self, data: bytes) -> None:
        if self._ended:
            self._keep = False
        elif self.call is not None:
            self.parts.append(data)

    def on_message_complete(self) -> None:
        call = self.call
        if call is None or self._ended:
            return
        if not self._headed:
            self._informational += 1
            if self._informational > _MAX_INFORMATIONAL or self.status == 101:
                self._fail(ProviderFailed("The provider never came to its answer."))
            self._begin_head()
            return
        self._keep = self._parser.should_keep_alive()
        self._end(call)

    def _end(self, call: Call) -> None:
        self._ended = True
        if not call.body_complete:
            self._keep = False  # it answered before it had the whole request

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.pool.dropped(self)
        call = self.call
        if call is None:
            return
        until_close = self._headed and self.length < 0 and not self.chunked
        if until_close and exc is None:
            self.call, call.upstream = None, None
            relay.proceed(call, self, True)
        elif self.used and not self._received and not call.body_streamed and call.method in _SAFE and not call.attempts:
            # An idle connection that the provider closed just then: no answer began, and the call is safe.
            self.call, call.upstream = None, None
            call.attempts = 1
            self.pool.acquire(call, fresh=True)
        else:
            reason = "broke off its answer" if self._received else "closed the connection without an answer"
            self._fail(ProviderFailed(f"The provider {reason}; the call is not billed."))

    def _fail(self, error: HaatError) -> None:
        call = self.call
        self.abort()
        self.parts.clear()
        if call is not None:
            relay.fail(call, error)

    def _read_keep_alive(self, value: bytes) -> None:
        for part in value.split(b","):
            name, _, seconds = part.strip().partition(b"=")
            if name.lower() == b"timeout" and seconds.isdigit():
                self.pool.reuse_seconds = max(0.0, min(60.0, int(seconds[:4]) - 1))

    def _release(self) -> None:
        self.used = True
        if self._keep and self.usable:
            if self._read_paused:
                self.release_reading()
            self.pool.release(self)
        else:
            self._transport.close()


class Pool:
    """At most ``size`` connections to one endpoint, and a bounded queue of calls that wait for one."""

    def __init__(self, origin: Origin, networks: tuple[IPNetwork, ...], size: int, wait_us: int, clock: GatewayClock):
        self.origin, self.networks = origin, networks
        self.reuse_seconds = REUSE_IDLE_SECONDS
        self._size, self._wait_us, self._clock = size, wait_us, clock
        self._open: set[UpstreamConnection] = set()
        self._idle: list[UpstreamConnection] = []
        self._waiting: deque[Call] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self._tls = ssl.create_default_context() if origin.scheme == "https" else None

    @property
    def busy(self) -> int:
        return len(self._open) - len(self._idle)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def acquire(self, call: Call, fresh: bool = False) -> None:
        """Send a call over a free connection, or queue it; a full queue refuses it as overloaded."""
        while self._idle and not fresh:
            connection = self._idle.pop()
            if call.started < connection.reuse_until and not connection.lost:
                connection.send(call)
                return
            connection.close()
        if len(self._waiting) >= self._size * _WAITERS_PER_CONNECTION:
            relay.fail(call, Overloaded("Too many calls wait for this provider: try again shortly."))
            return
        call.wait_deadline = self._clock.tick() + self._wait_us
        self._waiting.append(call)
        if len(self._open) + len(self._connecting) < self._size:
            self._connect()

    def release(self, connection: UpstreamConnection) -> None:
        """Take a connection back: the longest waiting call gets it."""
        while self._waiting:
            call = self._waiting.popleft()
            if not call.answered:
                call.queue = self._clock.now_us() - call.started - call.admission
                connection.send(call)
                return
        now = self._clock.lately
        connection.reuse_until = now + int(self.reuse_seconds * SECOND)
        self._idle.append(connection)

    def dropped(self, connection: UpstreamConnection) -> None:
        """Forget a connection that is gone; what waits may have a new one instead."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if len(self._connecting) < len(self._waiting) and len(self._open) + len(self._connecting) < self._size:
            self._connect()

    def expire(self, now: int) -> None:
        """Refuse what has waited too long, and close connections that won't be reused."""
        while self._waiting and (self._waiting[0].wait_deadline <= now or self._waiting[0].answered):
            call = self._waiting.popleft()
            if not call.answered:
                busy = self.busy >= self._size
                relay.fail(
                    call, Overloaded("All connections to this provider are busy.") if busy else ProviderTimeout()
                )
        if self._idle and self._idle[0].reuse_until <= now:
            for connection in [idle for idle in self._idle if idle.reuse_until <= now]:
                connection.close()
            self._idle = [idle for idle in self._idle if idle.reuse_until > now]

    async def close(self) -> None:
        for task in list(self._connecting):
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        for connection in list(self._open):
            connection.abort()

    def _connect(self) -> None:
        task = asyncio.get_running_loop().create_task(self._make_connection())
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _make_connection(self) -> None:
        began = self._clock.now_us()
        loop, origin = asyncio.get_running_loop(), self.origin
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                address = await resolve(origin.host, origin.port, self.networks)
                connection = UpstreamConnection(self)
                await loop.create_connection(
                    lambda: cast(asyncio.Protocol, connection),
                    str(address),  # the very address that was looked at
                    origin.port,
                    ssl=self._tls,
                    server_hostname=origin.host if self._tls else None,
                )
        except TimeoutError:
            self._fail_one(ProviderTimeout("No connection to the provider within 5 seconds."))
        except AddressForbidden as error:
            log.warning("%s is not dialled: %s", origin.host, error.detail)
            self._fail_one(ProviderUnavailable("The provider's address may not be called; the call is not billed."))
        except OSError as error:
            log.info("no connection to %s:%s: %s", origin.host, origin.port, error)
            self._fail_one(ProviderUnavailable())
        else:
            if connection.usable:
                self._open.add(connection)
                if self._waiting:
                    self._waiting[0].connect = self._clock.now_us() - began
                self.release(connection)

    def _fail_one(self, error: HaatError) -> None:
        while self._waiting:
            call = self._waiting.popleft()
            if not call.answered:
                relay.fail(call, error)
                return


class Pools:
    """All pools, by endpoint and the networks it may lie in."""

    def __init__(self, size: int, wait_seconds: float, clock: GatewayClock) -> None:
        self._size, self._wait_us, self._clock = size, int(wait_seconds * SECOND), clock
        self._pools: dict[tuple[Origin, tuple[IPNetwork, ...]], Pool] = {}

    def of(self, origin: Origin, networks: tuple[IPNetwork, ...]) -> Pool:
        key = (origin, networks)
        if key not in self._pools:
            self._pools[key] = Pool(origin, networks, self._size, self._wait_us, self._clock)
        return self._pools[key]

    def expire(self, now: int) -> None:
        for pool in self._pools.values():
            pool.expire(now)

    def each(self, look: Callable[[Pool], int]) -> int:
        """Return the sum of a figure over all pools."""
        return sum(look(pool) for pool in self._pools.values())

    async def close(self) -> None:
        for pool in self._pools.values():
            await pool.close()

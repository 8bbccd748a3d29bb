"""The client's side: HTTP/1.1 on httptools and uvloop, callbacks all the way, no task a request.

One connection works on one call at a time; calls that were pipelined behind it wait in a bounded
queue. The parser can't pause in the middle of what it was fed, so the bound is kept here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, cast

import httptools

from haat.gateway import answers, dispatch, health, hooks, relay, status
from haat.gateway.call import BUFFERED_BODY, Call
from haat.gateway.headers import (
    ACCEPT,
    API_KEY,
    AUTHORIZATION,
    CODING,
    CONNECTION,
    EXPECT,
    FORWARD,
    HOST,
    LENGTH,
    REQUEST_HEADERS,
    REQUEST_ID,
    TAGS,
    USER,
    named_headers,
    without,
)
from haat.gateway.languages import read_languages
from haat.gateway.stages import ADMIT, check_form, resolve
from haat.kernel.errors import (
    BodyTooLarge,
    HaatError,
    HeadersTooLarge,
    InvalidRequest,
    RequestTimeout,
)
from haat.usage.event import Outcome
from haat.usage.journal import JournalError

if TYPE_CHECKING:
    from haat.gateway.gateway import Gateway

SECOND = 1_000_000
MAX_PIPELINED = 64
LINGER_BYTES = 1024 * 1024
LINGER_SECONDS = 2
MIN_BODY_RATE = 1024
"""Bytes a second that a body must come at on average, after the time allowed for a head."""


class ClientConnection:
    """One client, an `asyncio.Protocol` by its methods.

    ``active`` is the call being worked on, ``_parsing`` the one still arriving."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.active: Call | None = None
        self.unconfirmed: list[Call] = []
        """Answers written whole whose bytes the kernel may not have taken yet."""
        self._queue: deque[Call] = deque()
        self._parsing: Call | None = None
        self._head_open = False
        self._head_bytes = 0
        self._max_head = gateway.settings.max_header_bytes
        self._much = False
        self._waiting_since = 0
        self._write_paused = False
        self._read_paused = False
        self._deaf = False
        """Whatever still arrives is thrown away: this connection is about to end."""
        self._thrown_away = 0
        self._no_more = False
        """The call that arrives now is the last one taken from this connection."""
        self._lost = False
        self._aborted = False
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)

    # --- transport ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.gateway.clients.add(self)
        self._waiting_since = self.gateway.clock.lately

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        meter = self.gateway.meter
        meter.forget(self)
        for call in self.unconfirmed:
            if exc is None and not self._aborted:
                meter.confirm(call)  # an orderly end comes after everything was sent
            else:
                meter.client_left(call)
        self.unconfirmed.clear()
        if self.active is not None:
            self.gateway.calls.discard(self.active)
            relay.client_left(self.active)
            self.active = None
        self._queue.clear()
        self.gateway.forget(self)

    def abort(self) -> None:
        """Break the connection off; what was not sent yet is dropped."""
        if not self._lost:
            self._aborted = self._transport.get_write_buffer_size() > 0
            self._transport.abort()

    def close(self) -> None:
        """End the connection after everything written has been sent."""
        self._deaf = True
        if not self._lost:
            self._waiting_since = self.gateway.clock.lately
            self._transport.close()

    def close_when_idle(self) -> None:
        """End now if nothing is asked, else after the answer that is being made."""
        if self.active is None and self._parsing is None:
            self.close()

    def write(self, data: bytes) -> None:
        if not self._lost:
            self._transport.write(data)

    @property
    def write_paused(self) -> bool:
        return self._write_paused

    def drained(self) -> bool:
        """Tell whether the kernel has taken everything written."""
        return self._transport.get_write_buffer_size() == 0

    def pause_writing(self) -> None:
        self._write_paused = True
        if self.active is not None and self.active.upstream is not None:
            self.active.upstream.hold_reading()

    def resume_writing(self) -> None:
        self._write_paused = False
        if self.active is None:
            self._next()
        elif self.active.upstream is not None:
            self.active.upstream.release_reading()

    def hold_reading(self) -> None:
        """Take no more from the client until what is here has gone on."""
        if not self._read_paused and not self._lost and not self._transport.is_closing():
            self._transport.pause_reading()
            self._read_paused = True

    def release_reading(self) -> None:
        if self._read_paused and not self._queue:
            self._read_paused = False
            if not self._lost and not self._transport.is_closing():
                self._transport.resume_reading()

    # --- parsing --------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._deaf or (self._no_more and self._parsing is None):
            self._thrown_away += len(data)
            if self._thrown_away > LINGER_BYTES:
                self.abort()
            return
        if self._parsing is None:
            self._waiting_since = self.gateway.clock.lately
        if self._head_open:
            self._head_bytes += len(data)
        # A head can only be too large when so much arrived: else nothing needs counting.
        if self._head_bytes + len(data) > self._max_head:
            self._much = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._deaf = True  # the request itself was refused; what follows it is not HTTP
        except httptools.HttpParserError as error:
            self._broken(InvalidRequest(f"The request is not valid HTTP/1.1: {_reason(error)}."))
        if self._head_open:
            if self._head_bytes == 0:  # it began in this turn
                self._head_bytes = len(data)
            if self._head_bytes > self._max_head:
                self._broken(HeadersTooLarge())

    def on_message_begin(self) -> None:
        if self._no_more or self._deaf:
            return
        self._parsing = Call(self)
        self._head_open = True
        self._head_bytes = 0

    def on_url(self, part: bytes) -> None:
        call = self._parsing
        if call is not None:
            call.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        call = self._parsing
        if call is None or not self._head_open:
            return  # a trailer is dropped (RFC 9110, 6.5.1)
        special = REQUEST_HEADERS.get(name)
        if special is None:
            special = REQUEST_HEADERS.get(name.lower(), FORWARD)
        if not special:
            call.lines.append(b"%b: %b\r\n" % (name, value))
        elif special == HOST:
            call.hosts += 1 if value.strip() else 2
        elif special == LENGTH:
            call.content_length = int(value)
        elif special == AUTHORIZATION:
            scheme, _, key = value.strip().partition(b" ")
            if scheme.lower() == b"bearer":
                call.bearer = _one_of(call, call.bearer, key.strip())
        elif special == API_KEY:
            call.api_key = _one_of(call, call.api_key, value.strip())
        elif special == CODING:
            call.chunked = True
            if value.strip().lower() != b"chunked":
                call.fault = InvalidRequest("The only transfer coding taken here is chunked.")
        elif special == CONNECTION:
            call.connection += b"," + value.lower()
        elif special == ACCEPT:
            call.accepts_stream = b"text/event-stream" in value
            call.lines.append(name + b": " + value + b"\r\n")
        elif special == EXPECT:
            call.expects_continue = value.strip().lower() == b"100-continue"
        elif special == REQUEST_ID:
            call.labelled = True
            call.caller_request_id = value.strip()
        elif special == USER:
            call.labelled = True
            call.user = value.strip()
        elif special == TAGS:
            call.labelled = True
            call.tags = call.tags + b"," + value if call.tags else value

    def on_headers_complete(self) -> None:
        call, parser = self._parsing, self._parser
        if call is None:
            return
        self._head_open = False
        call.method = parser.get_method()
        version = parser.get_http_version()
        if version == "1.0":
            call.minor_version = 0
            call.keep_alive = b"keep-alive" in call.connection
        elif version != "1.1":
            call.fault = InvalidRequest(f"HTTP/{version} is not spoken here: use HTTP/1.1.")
            call.keep_alive = False
        if call.connection:
            if b"close" in call.connection:
                call.keep_alive = False
            if named := named_headers(call.connection):
                call.lines = without(call.lines, named)
        if parser.should_upgrade():  # CONNECT, or Upgrade with Connection: upgrade
            call.keep_alive = False
            call.fault = InvalidRequest("The connection can't be upgraded to another protocol here.")
        if self._much:
            self._much = False
            if len(call.target) + sum(map(len, call.lines)) > self._max_head:
                call.fault = HeadersTooLarge()
        self._head_bytes = 0
        self._arrived(call)

    def on_body(self, data: bytes) -> None:
        call = self._parsing
        if call is None or call.answered:
            return
        call.body_size += len(data)
        if call.body_limit and call.body_size > call.body_limit:
            self._give_up(call, BodyTooLarge(limit_bytes=call.body_limit))
        elif call.body_streamed and call.upstream is not None:
            call.upstream.send_body(data, call.chunked)
        else:
            call.body.append(data)
            if call.body_size > BUFFERED_BODY and call is self.active and not (call.route and call.route.steps):
                if not call.dispatched:
                    self._dispatch(call)
                if call.upstream is None:
                    self.hold_reading()  # until there is a connection to the provider

    def on_message_complete(self) -> None:
        call = self._parsing
        if call is None:
            return
        self._parsing = None
        self._waiting_since = self.gateway.clock.lately
        call.body_complete = True
        if not self._parser.should_keep_alive():
            call.keep_alive = False
        if call is not self.active:
            return
        if call.answered:
            self._done(call)
        elif not call.dispatched:
            self._dispatch(call)
        elif call.body_streamed and call.upstream is not None:
            call.upstream.end_body(call.chunked)

    def _broken(self, error: HaatError) -> None:
        """What arrives can't be read on: answer what came before, then this, then end."""
        if self._deaf:
            return
        self._deaf = True
        call, self._parsing = self._parsing, None
        self._head_open = False
        if call is None:
            call = Call(self)
        call.keep_alive = False
        if call is self.active:
            self._give_up(call, error)
        elif call in self._queue:
            call.fault = error
        else:
            call.fault = error
            self._arrived(call)

    # --- calls ----------------------------------------------------------------------------------

    def _arrived(self, call: Call) -> None:
        if self.active is None and not self._write_paused:
            self._begin(call)
            return
        self._queue.append(call)
        self.hold_reading()
        if len(self._queue) >= MAX_PIPELINED:
            call.keep_alive = False  # a client repeats what was not answered before the end (RFC 9112, 9.3.2)
            self._no_more = True

    def _next(self) -> None:
        """Go on to the next pipelined call, once the answer before it has room to leave."""
        while self._queue and self.active is None and not self._write_paused:
            self._begin(self._queue.popleft())
        self.release_reading()

    def _begin(self, call: Call) -> None:
        gateway = self.gateway
        self.active = call
        call.started = started = gateway.clock.now_us()
        call.number = number = gateway.ids.next(started)
        call.id_line = gateway.ids.line(number)
        try:
            if call.hosts != 1 or call.fault is not None or (call.bearer and call.api_key) or call.minor_version == 0:
                check_form(call)
            if gateway.authenticators:
                hooks.authenticate(gateway, call)
            grant = gateway.grants.find(call.bearer or call.api_key, call.target)
            if grant is None or grant.generation != gateway.directory.generation or started >= grant.until:
                if health.is_asked(call.target):
                    self._answer_health(call)
                    return
                if status.is_asked(gateway, call, self._peer()):
                    self._answer_ourselves(call, 200, *status.report(gateway, call.target))
                    return
                grant = resolve(gateway, call)
            call.grant = grant
            call.credential = grant.credential
            call.route = grant.route
            call.subscription = grant.subscription
            for stage in ADMIT:
                stage(gateway, call)
        except HaatError as error:
            self.refuse(call, error, Outcome.REFUSED)
            return
        call.admission = gateway.clock.now_us() - started
        gateway.calls.add(call)
        if call.body_complete:
            self._dispatch(call)
            return
        if call.expects_continue and call.body_size == 0 and call.minor_version == 1:
            self.write(answers.CONTINUE)
        if call.content_length > BUFFERED_BODY and not grant.route.steps:
            self._dispatch(call)

    def _dispatch(self, call: Call) -> None:
        grant = call.grant
        assert grant is not None
        route = grant.route
        call.deadline = call.started + call.admission + route.timeout_us
        call.dispatched = True
        if call.accepts_stream:
            try:
                self.gateway.meter.open(call)
            except JournalError:
                relay.fail(call, self.gateway.meter.trouble())
                return
        if route.credential_name:
            call.lines = without(call.lines, (route.credential_name,))
        if route.reads_languages and call.body_complete:
            read_languages(call)
        if route.steps or route.endpoints or route.breaker.failures:
            dispatch.resume(self.gateway, call)
        else:
            route.pool.acquire(call)

    def refuse(self, call: Call, error: HaatError, outcome: Outcome) -> None:
        """Answer with a problem, recorded like every other answer to somebody we know."""
        gateway = self.gateway
        if call.answered:
            return
        call.answered = True
        if call.on_answer:
            relay.missed(call)
        if call.endpoint is not None:
            call.endpoint.breaker.released(call)
        drains = call.body_complete or (
            not call.expects_continue
            and not self._deaf
            and 0 <= max(call.content_length, 0) <= BUFFERED_BODY
            and not call.chunked
        )
        if not drains or gateway.draining:
            call.keep_alive = False
        try:
            if call.admitted or not gateway.meter.full:
                gateway.meter.record(call, outcome, error.status, error.code)
            else:
                gateway.meter.unrecorded += 1  # what is left of the disk belongs to calls in flight
        except JournalError:
            error = gateway.meter.trouble()
        call.body.clear()
        self.write(answers.problem(call, error, gateway.clock.now_us()))
        self.finished(call)

    def finished(self, call: Call) -> None:
        """The answer's last byte was handed to the transport."""
        gateway, transport = self.gateway, self._transport
        gateway.calls.discard(call)
        closing = self._lost or transport.is_closing()
        if call.confirmable:
            if closing:
                gateway.meter.client_left(call)  # what was written just now went nowhere
            elif transport.get_write_buffer_size() == 0:
                gateway.meter.confirm(call)
            else:
                self.unconfirmed.append(call)
                gateway.meter.await_confirmation(self)
        if call is self.active and (call.body_complete or not call.keep_alive):
            self._done(call)

    def _done(self, call: Call) -> None:
        self.active = None
        if self._lost:
            return
        if call.keep_alive and not self.gateway.draining and not self._transport.is_closing():
            self._waiting_since = self.gateway.clock.lately
            if self._queue or self._read_paused:
                self._next()
        elif call.body_complete:
            self.close()
        else:
            self._linger()

    def _give_up(self, call: Call, error: HaatError) -> None:
        """Refuse a call whose own request went wrong after it was admitted."""
        self._deaf = True
        self._parsing = None
        call.keep_alive = False
        if call.answered:  # its answer has left; only the rest of its body was still awaited
            self._done(call)
            return
        if call.upstream is not None:
            call.upstream.abort()
        if call.head_flushed:
            relay.client_left(call)
            self.abort()
        else:
            self.refuse(call, error, Outcome.REFUSED)

    def _linger(self) -> None:
        """End our side and wait a little, so that the client reads the answer before a reset reaches it."""
        self._deaf = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self.release_reading()
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self.close)

    def _answer_health(self, call: Call) -> None:
        code, body = health.report(self.gateway, call.target)
        self._answer_ourselves(call, code, b"application/json", body)

    def _answer_ourselves(self, call: Call, code: int, content_type: bytes, body: bytes) -> None:
        """Answer a question about the gateway itself: nobody's call, and not metered."""
        call.answered = True
        if not call.body_complete and (call.chunked or call.content_length > 0):
            call.keep_alive = False
        self.write(answers.plain(call, code, content_type, body, b"Cache-Control: no-store\r\n"))
        self.finished(call)

    def _peer(self) -> str:
        """Return the address at the other end; empty when there is none, as on a socket of the file system."""
        name = self._transport.get_extra_info("peername")
        return str(name[0]) if isinstance(name, tuple) and name else ""

    # --- time -----------------------------------------------------------------------------------

    def expire(self, now: int) -> None:
        """End what takes too long: a slow head, a slow body, an idle connection, a client that doesn't read."""
        settings = self.gateway.settings
        waited = now - self._waiting_since
        call = self._parsing
        if call is not None:
            allowed = settings.header_timeout_seconds + call.body_size / MIN_BODY_RATE
            if not self._read_paused and waited > allowed * SECOND:
                self._broken(RequestTimeout())
        elif self.active is None and waited > settings.keep_alive_seconds * SECOND:
            if self._transport.is_closing():
                self.abort()  # it never read what it asked for
            else:
                self.close()


def _one_of(call: Call, present: bytes, further: bytes) -> bytes:
    if present and present != further:
        call.fault = InvalidRequest("Two different API keys were sent: send one.")
    return further


def _reason(error: Exception) -> str:
    text = str(error).strip().rstrip(".")
    return text if text.isprintable() and len(text) < 200 else "it can't be parsed"

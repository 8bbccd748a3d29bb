"""The client's side: HTTP/1.1 on httptools and uvloop, callbacks all the way, no task a request.

One connection works on one call at a time; calls that were pipelined behind it wait in a bounded
queue. The parser can't pause in the middle of what it was fed, so the bound is kept here.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, cast

import httptools

from haat.gateway import relay
from haat.gateway.admission import begin, go_on, is_wanted_whole, look_ahead, send_on
from haat.gateway.call import BUFFERED_BODY, Call
from haat.gateway.extras import extras_of
from haat.gateway.http import answers, trace, upgrades
from haat.gateway.http.headers import (
    ACCEPT,
    API_KEY,
    API_VERSION,
    AUTHORIZATION,
    CODING,
    CONNECTION,
    EXPECT,
    FORWARD,
    HOST,
    IDEMPOTENCY_KEY,
    KEY_PREFIX,
    LENGTH,
    METHODS,
    ORIGIN,
    PREFLIGHT,
    REQUEST_HEADERS,
    REQUEST_ID,
    TAGS,
    TRACE_PARENT,
    TRACE_STATE,
    UPGRADE,
    USER,
    ends_chunked,
    is_host,
    read_connection,
    without,
)
from haat.gateway.http.outbox import OutboxTransport
from haat.gateway.http.repeated import MAX_MISSES, Head, RequestMeaning, head_of
from haat.gateway.idempotency.once import Once
from haat.gateway.market import versions
from haat.gateway.websocket import tunnel
from haat.kernel.errors import (
    BodyTooLarge,
    ExpectationFailed,
    HaatError,
    HeadersTooLarge,
    InvalidRequest,
    NotSupported,
    RequestTimeout,
    TargetTooLong,
    VersionNotSupported,
)
from haat.usage.event import Outcome

if TYPE_CHECKING:
    from haat.gateway.gateway import Gateway

log = logging.getLogger(__name__)

SECOND = 1_000_000
MAX_PIPELINED = 64
MAX_FIELDS = 128
"""Header lines of one request that are forwarded, at most."""
CHUNK_OVERHEAD = 64 * 1024
"""Bytes a chunked body may have beside its content, in extensions and trailers, and sixteen for each of content."""
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
        self._fresh = False
        """The bytes at hand begin with a request, and none of it was parsed yet."""
        self._head_bytes = 0
        """How much of the open head has come; -1 while that isn't known, because it began behind other bytes."""
        self._unkept = 0
        """Bytes of the open head in headers that are read here and not forwarded."""
        self._max_head = gateway.settings.max_header_bytes
        self._much = False
        """The head may be too large: so much has come, or it came in pieces."""
        self._chunk_bytes = 0
        """What has come of a chunked body after the piece that its head was in; -1 until then."""
        self._last_head: Head | None = None
        """The head that the next request's may repeat, and what it means."""
        self._meaning: RequestMeaning | None = None
        self._misses = 0
        self._codings = b""
        self._upgrade = b""
        self._session: Call | None = None
        """The call that asks for a WebSocket session: the last one here, because what follows isn't HTTP."""
        self._ignored: Call | None = None
        """A call whose wish for another protocol is ignored, while the parser still waits to see it granted."""
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
        self._lingering: asyncio.TimerHandle | None = None
        self._transport: OutboxTransport
        self._parser = httptools.HttpRequestParser(self)

    # --- transport ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = OutboxTransport(self.gateway.outbox, cast(asyncio.Transport, transport))
        self.gateway.clients.add(self)
        self._waiting_since = self.gateway.clock.lately

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if self._lingering is not None:
            self._lingering.cancel()
        meter = self.gateway.meter
        meter.forget(self)
        for call in self.unconfirmed:
            if exc is None and not self._aborted and not self._transport.unsent:
                meter.confirm(call)  # an orderly end comes after everything was sent
            else:
                meter.client_left(call)
        self.unconfirmed.clear()
        self._parsing = None  # what it holds, a file perhaps, is free with the call
        active, self.active = self.active, None
        if active is not None and (active.once is None or not active.once.goes_on(active)):
            self.gateway.calls.discard(active)
            relay.client_left(active)
        self._queue.clear()
        self.gateway.forget(self)

    def abort(self) -> None:
        """Break the connection off; what was not sent yet is dropped."""
        if not self._lost:
            self._aborted = self._transport.get_write_buffer_size() > 0
            self._transport.abort()

    def hand_over(self, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        """Leave the connection to a session's protocol, which in the end tells `connection_lost` here."""
        self._transport.flush()
        self._transport.raw.set_protocol(protocol)
        if self._read_paused:
            self._read_paused = False
            self._transport.resume_reading()
        return self._transport.raw

    def take_back(self, call: Call, error: HaatError) -> None:
        """Refuse a call whose answer is written and has not left, if it is all that is written; end the connection."""
        if self._lost or len(self._transport.unsent) != call.answer_bytes:
            self.abort()
            return
        call.keep_alive = False
        self._transport.unsent = answers.problem(call, error, self.gateway.clock.now_us())
        self.close()

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
        elif self.active.extras is not None and self.active.extras.visit is not None:
            self.active.extras.visit.resume()

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
            if self._session is not None and not self._session.answered:
                extras_of(self._session).early += data
                self.hold_reading()
                return
            self._thrown_away += len(data)
            if self._thrown_away > LINGER_BYTES:
                self.abort()
            return
        begins = self._parsing is None
        if begins:
            self._waiting_since = self.gateway.clock.lately
            if self._last_head is not None:
                body = self._last_head.body_of(data)
                if body is not None:
                    self._repeated(body)
                    return
            self._last_head = None
            self._meaning = None
            self._fresh = True
        elif self._head_open:
            self._head_bytes += len(data)
        # A head can only be too large when so much arrived: else nothing needs counting.
        self._much = self._head_open or len(data) > self._max_head
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as pause:
            self._go_on_without_upgrade(data[pause.args[0] :])
        except httptools.HttpParserCallbackError as error:
            log.error("a call met an error that should not happen", exc_info=error.__context__)
            self._broken(HaatError())
        except httptools.HttpParserError as error:
            self._broken(_explain(error))
        if self._parsing is not None:
            self._bound(self._parsing, len(data))
        elif begins and self._meaning is not None:
            self._misses += 1
            self._last_head = head_of(data, self._meaning.content_length)

    def _repeated(self, body: bytes) -> None:
        """Take a request whose head is the last one's again, without parsing it."""
        assert self._meaning is not None
        self._misses = 0
        call = Call(self)
        self._meaning.give(call, body)
        self._arrived(call)

    def _bound(self, call: Call, arrived: int) -> None:
        """Refuse a request that isn't here whole and has had more bytes already than its framing may take."""
        if self._head_open:
            if self._head_bytes <= 0:  # it began in this turn
                self._head_bytes = arrived if self._head_bytes == 0 else self._head_size(call)
            if self._head_bytes > self._max_head:
                self._broken(self._too_large(call))
        elif call.chunked:
            self._chunk_bytes = self._chunk_bytes + arrived if self._chunk_bytes >= 0 else 0
            if self._chunk_bytes > CHUNK_OVERHEAD + 16 * call.body_size:
                self._broken(InvalidRequest("There is too much beside the content of this chunked body."))

    def _head_size(self, call: Call) -> int:
        """Return the size of what has been parsed of a head, the same for every way it came in pieces."""
        return len(call.target) + sum(map(len, call.lines)) + self._unkept

    def _too_large(self, call: Call) -> HaatError:
        longest = self.gateway.settings.max_target_bytes
        return TargetTooLong(limit_bytes=longest) if len(call.target) > longest else HeadersTooLarge()

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Read on in HTTP/1.1, the body first; unless the request was refused, because then what follows isn't HTTP."""
        while True:
            call, self._ignored = self._ignored, None
            if call is None:
                self._deaf = True
                if self._session is not None and not self._session.answered:
                    extras_of(self._session).early = rest
                    self.hold_reading()
                return
            self._parsing = call
            self._parser = upgrades.parser_behind(self)
            self._arrived(call)
            try:
                self._parser.feed_data(upgrades.head_again(call))
                self._parser.feed_data(rest)
            except httptools.HttpParserUpgrade as pause:
                rest = rest[pause.args[0] :]
            except httptools.HttpParserError as error:
                self._broken(_explain(error))
                return
            else:
                return

    def on_message_begin(self) -> None:
        if self._no_more or self._deaf:
            return
        self._parsing = Call(self)
        self._head_open = True
        self._unkept = 0
        if self._fresh:
            self._fresh = False
            self._head_bytes = 0
        else:
            self._head_bytes = -1

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
            return
        self._unkept += len(value)
        if special == HOST:
            call.hosts += 1 if is_host(value) else 2
        elif special == LENGTH:
            call.content_length = int(value)
        elif special == AUTHORIZATION:
            scheme, _, key = value.strip().partition(b" ")
            if scheme.lower() == b"bearer":
                call.bearer = _one_of(call, call.bearer, key.strip())
            elif not key and scheme.startswith(KEY_PREFIX):  # clients of ULCA send the key alone
                call.bearer = _one_of(call, call.bearer, scheme)
        elif special == API_KEY:
            call.api_key = _one_of(call, call.api_key, value.strip())
        elif special == CODING:
            self._codings = self._codings + b"," + value if call.chunked else value
            call.chunked = True
        elif special == CONNECTION:
            call.connection += b"," + value.lower()
        elif special == ACCEPT:
            call.accepts_stream = b"text/event-stream" in value
            if b"vnd.haat." in value:
                value = versions.ask_by_media_type(call, value)
            call.lines.append(name + b": " + value + b"\r\n")
            self._unkept -= len(value)
        elif special == EXPECT:
            call.expects_continue = True
            if value.strip().lower() != b"100-continue":
                call.fault = ExpectationFailed()
        elif special == UPGRADE:
            self._upgrade = value.strip().lower()
        elif special == API_VERSION:
            versions.ask(call, value.strip())
        elif special == TRACE_PARENT:
            trace.take_parent(call, value)
        elif special == TRACE_STATE:
            trace.take_state(call, value)
        elif special == ORIGIN:
            extras_of(call).origin = value.strip()
            call.lines.append(name + b": " + value + b"\r\n")
            self._unkept -= len(value)
        elif special == PREFLIGHT:
            extras_of(call).preflight = True
            call.lines.append(name + b": " + value + b"\r\n")
            self._unkept -= len(value)
        elif special == REQUEST_ID:
            call.labelled = True
            call.caller_request_id = value.strip()
        elif special == USER:
            call.labelled = True
            call.user = value.strip()
        elif special == TAGS:
            call.labelled = True
            call.tags = call.tags + b"," + value if call.tags else value
        elif special == IDEMPOTENCY_KEY:
            if call.once is not None:
                call.fault = InvalidRequest("Send one Idempotency-Key.")
            call.once = Once(value.strip())

    def on_headers_complete(self) -> None:
        call, parser = self._parsing, self._parser
        if call is None:
            return
        self._head_open = False
        call.method = method = parser.get_method()
        if method not in METHODS:
            call.fault = NotSupported(f"The gateway forwards no {method.decode()} requests.")
        version = parser.get_http_version()
        if version != "1.1":
            call.keep_alive = False
            if version == "1.0":
                call.minor_version = 0
            else:
                call.fault = VersionNotSupported()
        if call.connection:
            wishes = read_connection(call.connection)
            if wishes.close:
                call.keep_alive = False
            elif wishes.keep_alive and version == "1.0":
                call.keep_alive = True
            if wishes.named:
                call.lines = without(call.lines, wishes.named)
        if len(call.lines) > MAX_FIELDS or (self._much and self._head_size(call) > self._max_head):
            call.keep_alive = False
            call.fault = self._too_large(call)
        if call.chunked:
            self._chunk_bytes = -1
            if self._codings.strip().lower() != b"chunked":
                call.keep_alive = False
                sentence = "The only transfer coding taken here is chunked."
                call.fault = NotSupported(sentence) if ends_chunked(self._codings) else InvalidRequest(sentence)
        if parser.should_upgrade():  # CONNECT, or Upgrade with Connection: upgrade
            if upgrades.is_ignored(call, self._upgrade):
                self._ignored, self._parsing = call, None
                return
            call.keep_alive = False
            if tunnel.is_wanted(call, self._upgrade):
                self._session = call
                extras_of(call).websocket = True
                call.accepts_stream = True
                call.once = None  # nothing of a session is kept and given again
            elif call.fault is None:
                call.fault = InvalidRequest("The connection can't be upgraded to another protocol here.")
        elif self._misses < MAX_MISSES and RequestMeaning.suits(call):
            self._meaning = RequestMeaning(call)
        self._arrived(call)

    def on_body(self, data: bytes) -> None:
        call = self._parsing
        if call is None:
            return
        call.body_size += len(data)
        if call.answered:
            if call.body_size > BUFFERED_BODY:
                self._give_up(call, BodyTooLarge())
        elif call.body_limit and call.body_size > call.body_limit:
            self._give_up(call, BodyTooLarge(limit_bytes=call.body_limit))
        elif call.body_streamed and call.upstream is not None:
            call.upstream.send_body(data, call.chunked)
        else:
            call.body.append(data)
            if call.body_size > BUFFERED_BODY and call is self.active:
                if call.grant is None and call.extras is not None and call.extras.visit is not None:
                    look_ahead(self.gateway, call)
                if call.answered or is_wanted_whole(call):
                    return
                if not call.dispatched:
                    send_on(self.gateway, call)
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
            go_on(self.gateway, call)
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
            call.fault = call.fault or error
        else:
            call.fault = error
            self._arrived(call)

    # --- calls ----------------------------------------------------------------------------------

    def _arrived(self, call: Call) -> None:
        if self.active is None and not self._write_paused:
            self.active = call
            begin(self.gateway, call)
            return
        self._queue.append(call)
        self.hold_reading()
        if len(self._queue) >= MAX_PIPELINED:
            call.keep_alive = False  # a client repeats what was not answered before the end (RFC 9112, 9.3.2)
            self._no_more = True

    def _next(self) -> None:
        """Go on to the next pipelined call, once the answer before it has room to leave."""
        while self._queue and self.active is None and not self._write_paused:
            self.active = call = self._queue.popleft()
            begin(self.gateway, call)
        self.release_reading()

    def drains(self, call: Call) -> bool:
        """Tell whether the rest of a refused request is small enough to be read, so that the connection can stay."""
        if call.body_complete or not call.has_body:
            return True
        return not call.expects_continue and not self._deaf and call.content_length <= BUFFERED_BODY

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
                call.body = []
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
            return
        self._queue.clear()
        self._linger(whole=call.body_complete)

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
            relay.refuse(call, error, Outcome.REFUSED)

    def _linger(self, whole: bool) -> None:
        """End our side and wait a little, so that the client reads the answer before a reset reaches it.

        TLS can't end one side alone: there it is closed at once when the request is here whole, because a
        client may wait for the end to know that it has the whole answer.
        """
        self._deaf = True
        if self._transport.is_closing():
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        elif whole:
            self.close()
            return
        self.release_reading()
        self._lingering = asyncio.get_running_loop().call_later(LINGER_SECONDS, self.close)

    def peer(self) -> str:
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


def _explain(error: Exception) -> HaatError:
    """Return the refusal of what the parser can't read."""
    text = str(error).strip().rstrip(".")
    if text == "Invalid HTTP version":
        return VersionNotSupported()
    reason = text if text.isprintable() and len(text) < 200 else "it can't be parsed"
    return InvalidRequest(f"The request is not valid HTTP/1.1: {reason}.")

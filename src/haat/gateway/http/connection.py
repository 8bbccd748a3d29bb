"""The client's side: HTTP/1.1 on httptools and uvloop, callbacks all the way, no task a request.

`haat.gateway.http.reader` makes calls of what arrives. One connection works on one call at a time; those that
were pipelined behind it wait in a bounded queue.
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
from haat.gateway.clock import SECOND
from haat.gateway.extras import extras_of
from haat.gateway.http import answers
from haat.gateway.http.outbox import OutboxTransport
from haat.gateway.http.reader import RequestReader
from haat.kernel.errors import BodyTooLarge, HaatError, RequestTimeout
from haat.usage.event import Outcome

if TYPE_CHECKING:
    from haat.gateway.gateway import Gateway

log = logging.getLogger(__name__)

MAX_PIPELINED = 64
LINGER_BYTES = 1024 * 1024
LINGER_SECONDS = 2
MIN_BODY_RATE = 1024
"""Bytes a second that a body must come at on average, after the time allowed for a head."""


class ClientConnection(RequestReader):
    """One client, an `asyncio.Protocol` by its methods."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
        self._queue: deque[Call] = deque()
        self._write_paused = False
        self._read_paused = False
        self._thrown_away = 0
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

    @property
    def takes_parts(self) -> bool:
        """Whether it can do something with an answer that is a stream of events."""
        return True

    def drained(self) -> bool:
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
        elif self.active.visit is not None:
            self.active.visit.resume()

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

    # --- what arrives ---------------------------------------------------------------------------

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
                if call.grant is None and call.visit is not None:
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

    def _pass_over(self, data: bytes) -> None:
        """Throw away what still arrives, unless it is for the session that begins; not without end."""
        if self._session is not None and not self._session.answered:
            extras_of(self._session).early += data
            self.hold_reading()
            return
        self._thrown_away += len(data)
        if self._thrown_away > LINGER_BYTES:
            self.abort()

    def _failed(self, error: BaseException) -> None:
        """Answer the call that has met an error of ours, and end the connection: nobody waits for what won't come."""
        log.error("a call met an error that should not happen", exc_info=error)
        active = self.active
        if self._parsing is None and active is not None:  # it was here whole, and was being carried on
            self._give_up(active, HaatError())
        else:
            self._broken(HaatError())

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

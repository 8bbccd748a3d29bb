"""One connection to a provider: an HTTP/1.1 client on httptools."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import httptools

from haat.gateway import relay
from haat.gateway.call import BUFFERED_BODY, Call
from haat.gateway.http.outbox import OutboxTransport
from haat.gateway.upstreams import dispatch
from haat.gateway.upstreams.reader import AnswerReader
from haat.kernel.errors import HaatError, ProviderFailed

if TYPE_CHECKING:
    from haat.gateway.upstreams.pool import Pool

VIA, VIA_1_0 = b"Via: 1.1 haat\r\n", b"Via: 1.0 haat\r\n"
"""What a gateway must say in each request it forwards, behind what others have said (RFC 9110, 7.6.3)."""


class UpstreamConnection(AnswerReader):
    """One connection to a provider, an `asyncio.Protocol` by its methods.

    It carries one call at a time and is never pipelined.
    """

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.pool = pool
        self.reuse_until = 0
        self.used = False
        self.lost = False
        self._transport: OutboxTransport
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
            if len(body) > BUFFERED_BODY:
                call.body = []  # too much to keep in case it must be sent again
                call.body_streamed = True
        else:
            body = b"".join(parts)
            call.body = []
            call.body_streamed = True
            if call.chunked:
                framing = b"Transfer-Encoding: chunked\r\n\r\n"
                body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            else:
                framing = b"Content-Length: %d\r\n\r\n" % call.content_length
        request = grant.request if call.endpoint is None else call.endpoint.request(grant.tail)
        traced = call.client.gateway.tracer.line(call)
        via = VIA if call.minor_version else VIA_1_0
        self._transport.write(b"".join((call.method, request, *call.lines, via, call.id_line, traced, framing, body)))
        if call.body_streamed and not self._write_paused:
            self._take_more(call)

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
            self._take_more(self.call)

    def _take_more(self, call: Call) -> None:
        """Let the rest of a streamed body come: from the client, or out of the file in which it waits."""
        if call.visit is not None and call.visit.spool is not None:
            call.visit.spool.pump(call, self)
        call.client.release_reading()

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

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = OutboxTransport(self.pool.outbox, cast(asyncio.Transport, transport))
        self._parser = httptools.HttpResponseParser(self)

    def _over(self, call: Call) -> None:
        """Carry on the end of an answer, and give the connection back."""
        self.call = None
        call.upstream = None
        relay.proceed(call, self, True)
        self._release()

    def _unasked(self) -> None:
        self._transport.abort()  # what follows could be taken for another call's answer

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
        elif (
            self.used
            and not self._received
            and not call.body_streamed
            and not call.attempts
            and dispatch.repeatable(call)
        ):
            # An idle connection that the provider closed just then: no answer began, and the call is harmless.
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
            dispatch.failed(call, error, sent=True)

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

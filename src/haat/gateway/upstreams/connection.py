"""One connection to a provider: an HTTP/1.1 client on httptools."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, cast

import httptools

from haat.gateway import relay
from haat.gateway.call import BUFFERED_BODY, Call
from haat.gateway.http import answers
from haat.gateway.http.headers import (
    ANSWER_HEADERS,
    CODING,
    CONNECTION,
    DATE,
    FORWARD,
    KEEP_ALIVE,
    LENGTH,
    SET_COOKIE,
    USAGE,
    read_connection,
    without,
)
from haat.gateway.http.outbox import OutboxTransport
from haat.gateway.http.repeated import (
    MAX_MISSES,
    AnswerMeaning,
    Head,
    chunk_size,
    ends_with_a_chunk,
    head_of,
    last_chunk_size,
    stream_head_of,
)
from haat.gateway.upstreams import dispatch
from haat.kernel.errors import HaatError, ProviderFailed

if TYPE_CHECKING:
    from haat.gateway.upstreams.pool import Pool

MAX_ANSWER_HEAD = 64 * 1024
VIA, VIA_1_0 = b"Via: 1.1 haat\r\n", b"Via: 1.0 haat\r\n"
"""What a gateway must say in each request it forwards, behind what others have said (RFC 9110, 7.6.3)."""
_MAX_INFORMATIONAL = 16


log = logging.getLogger(__name__)


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
        self._transport: OutboxTransport
        self._parser: httptools.HttpResponseParser
        self._connection = b""
        self._foreign_coding = False
        self._dated = False
        self._headed = False
        self._ended = False
        self._received = False
        self._keep = False
        self._informational = 0
        self._head_bytes = 0
        self._write_paused = False
        self._read_paused = False
        self._last_head: Head | None = None
        """The head that the next answer's may repeat, and what it means."""
        self._stream_head = b""
        """The same where the body came in chunks."""
        self._meaning: AnswerMeaning | None = None
        self._misses = 0
        self._between = False
        """The answer is chunked, and a chunk comes next: whole ones need not pass through the parser."""
        self._unparsed = b""
        """The head of the answer that is being read, while the parser has seen nothing of it."""

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
        if call.extras is not None and call.extras.visit is not None and call.extras.visit.spool is not None:
            call.extras.visit.spool.pump(call, self)
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

    def _begin_answer(self) -> None:
        self._received = False
        self._ended = False
        self._headed = False
        self._informational = 0
        self._head_bytes = 0
        self._between = False
        self._unparsed = b""
        self._begin_head()

    def _begin_head(self) -> None:
        self.lines = []
        self.reason = b""
        self.usage = b""
        self.length = -1
        self.chunked = False
        self._connection = b""
        self._foreign_coding = False
        self._dated = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = OutboxTransport(self.pool.outbox, cast(asyncio.Transport, transport))
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        call = self.call
        if call is None:
            self._transport.abort()  # nobody asked: what follows could be taken for another call's answer
            return
        if self._between:
            size = chunk_size(data)
            if size:
                relay.pass_on(call, self, data, size)
                return
            if self._unparsed:
                size = last_chunk_size(data)
                if size >= 0:
                    self._end_stream(call, data[-7 - size : -7])
                    return
            self._between = False
        begins = not self._received
        self._received = True
        if begins and call.method != b"HEAD" and self._comes_again(call, data):
            return
        if not self._headed:
            self._head_bytes += len(data)
        try:
            if self._unparsed:
                head, self._unparsed = self._unparsed, b""
                self._parser.feed_data(head)
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if isinstance(error, httptools.HttpParserCallbackError):
                log.error("an answer met an error that should not happen", exc_info=error.__context__)
            if self._ended and self.call is call:  # the answer is whole, what follows it is not HTTP
                self._keep = False
            else:
                self._fail(ProviderFailed("The provider's answer is not HTTP; the call is not billed."))
                return
        if self.call is not call:
            return  # it was dropped while parsing
        if self._ended:
            if begins:
                self._remember(call, data)
            self._over(call)
        elif self._headed:
            self._between = begins and self.chunked and ends_with_a_chunk(data, self.parts)
            if begins:
                self._remember(call, data)
            relay.proceed(call, self, False)
        elif self._head_bytes > MAX_ANSWER_HEAD:
            self._fail(ProviderFailed("The head of the provider's answer is too large."))

    def _over(self, call: Call) -> None:
        """Carry on the end of an answer, and give the connection back."""
        self.call = None
        call.upstream = None
        relay.proceed(call, self, True)
        self._release()

    def _remember(self, call: Call, data: bytes) -> None:
        """Remember the head of an answer, if it came in one piece with its whole body or with up to one chunk."""
        self._last_head = None
        self._stream_head = b""
        if (
            self._misses < MAX_MISSES
            and 200 <= self.status < 300
            and self.status != 204
            and (self.length >= 0 if self._ended else self._between)
            and call.method != b"HEAD"
            and call.body_complete
            and not (self._informational or self._connection)
        ):
            self._misses += 1
            if self._ended:
                self._last_head = head_of(data, self.length)
            else:
                self._stream_head = stream_head_of(data)
            lines = self.lines.copy() if self._dated else self.lines[:-1]  # already as they go on
            self._meaning = AnswerMeaning(self.status, self.reason, lines, self.usage, self._dated, self._keep)

    def _comes_again(self, call: Call, data: bytes) -> bool:
        """Take an answer whose head is the last one's again, without parsing it; tell whether it is one."""
        if self._last_head is not None:
            body = self._last_head.body_of(data)
            if body is None:
                return False
            meaning = self._repeat(call)
            self.length = len(body)
            self._keep = meaning.keep
            if self._leads_elsewhere(call):
                return True
            if body:
                self.parts.append(body)
            self._end(call)
            self._over(call)
            return True
        head = self._stream_head
        if not head or not data.startswith(head):
            return False
        chunk = data[len(head) :]
        size = chunk_size(chunk) if chunk else 0
        if chunk and not size:
            return False
        self._repeat(call)
        self.chunked = True
        self._unparsed, self._between = head, True
        if self._leads_elsewhere(call):
            return True
        if chunk:
            self.parts.append(chunk[-2 - size : -2])
        relay.proceed(call, self, False)
        return True

    def _repeat(self, call: Call) -> AnswerMeaning:
        """Give this answer's head the meaning of the last one's."""
        meaning = self._meaning
        assert meaning is not None
        self._misses = 0
        self.status, self.reason, self.usage = meaning.status, meaning.reason, meaning.usage
        self.lines = meaning.lines.copy()
        if not meaning.dated:
            self.lines.append(answers.date_line(call.client.gateway.clock.lately))
        self._headed = True
        return meaning

    def _leads_elsewhere(self, call: Call) -> bool:
        """Tell the call's endpoint that it has answered; tell whether the call goes on without this answer."""
        grant = call.grant
        assert grant is not None
        return (call.endpoint is not None or grant.route.breaker.failures > 0) and dispatch.answered(call, self)

    def _end_stream(self, call: Call, content: bytes) -> None:
        """Take the end of a stream that the parser has seen nothing of."""
        if content:
            self.parts.append(content)
        self._keep = True  # the answer before it had the same head, and the connection stayed
        self._end(call)
        self._over(call)

    def on_message_begin(self) -> None:
        if self._ended:
            self._keep = False  # the beginning of a second answer, which the next call's would be read behind

    def on_status(self, reason: bytes) -> None:
        if not self._headed:
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
        elif meaning == DATE:
            self._dated = True
            self.lines.append(b"%b: %b\r\n" % (name, value))
        elif meaning == CODING:
            self._foreign_coding = self.chunked or value.lower() != b"chunked"
            self.chunked = True
        elif meaning == CONNECTION:
            value = value.lower()
            if value != b"keep-alive":
                self._connection += b"," + value
        elif meaning == USAGE:
            self.usage = value
        elif meaning == KEEP_ALIVE:
            self._read_keep_alive(value)
        elif meaning == SET_COOKIE:
            # Nobody sets cookies at the gateway's host. But the answer was meant for this caller alone.
            self.lines.append(b"Cache-Control: private\r\n")

    def on_headers_complete(self) -> None:
        call = self.call
        if self._ended:
            self._keep = False  # a second answer to one request: nobody's
            return
        if self._headed:
            return  # its meaning was known before it was parsed
        self.status = status = self._parser.get_status_code()
        if call is None or 100 <= status < 200:
            return
        if not 200 <= status < 600:
            self._fail(ProviderFailed("The provider's answer has a status that HTTP doesn't know."))
            return
        if self.chunked and (self._foreign_coding or self._parser.get_http_version() != "1.1"):
            self._fail(ProviderFailed("The provider uses a transfer coding other than chunked, or it in HTTP/1.0."))
            return
        if self._head_bytes > MAX_ANSWER_HEAD and sum(map(len, self.lines)) > MAX_ANSWER_HEAD:
            self._fail(ProviderFailed("The head of the provider's answer is too large."))
            return
        if not self._dated:
            self.lines.append(answers.date_line(call.client.gateway.clock.lately))  # RFC 9110, 6.6.1
        if self._connection and (named := read_connection(self._connection).named):
            self.lines = without(self.lines, named)
        self._headed = True
        grant = call.grant
        assert grant is not None
        if (status >= 502 or call.endpoint is not None or grant.route.breaker.failures) and dispatch.answered(
            call, self
        ):
            return
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

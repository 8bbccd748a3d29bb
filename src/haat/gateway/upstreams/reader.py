"""What a provider answers, read piece by piece: the callbacks of httptools' parser.

An answer under the head of the last one, and whole chunks of a stream, do not pass through the parser
(`haat.gateway.http.repeated`).
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod

import httptools

from haat.gateway import relay
from haat.gateway.call import Call
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

log = logging.getLogger(__name__)

MAX_ANSWER_HEAD = 64 * 1024
_MAX_INFORMATIONAL = 16


class AnswerReader(ABC):
    """Reads the answer to ``call``, None while nobody has asked.

    ``status`` to ``usage`` are what is known of it, ``parts`` what came of its body in this turn.
    """

    _parser: httptools.HttpResponseParser
    """Made by the connection once there is one."""

    def __init__(self) -> None:
        self.call: Call | None = None
        self.status = 0
        self.reason = b""
        self.lines: list[bytes] = []
        self.length = -1
        self.chunked = False
        self.usage = b""
        self.parts: list[bytes] = []
        self._connection = b""
        self._foreign_coding = False
        self._dated = False
        self._headed = False
        self._ended = False
        self._received = False
        self._keep = False
        """The connection can carry another call behind this answer."""
        self._informational = 0
        self._head_bytes = 0
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

    # --- what the connection does with it -------------------------------------------------------

    @abstractmethod
    def _over(self, call: Call) -> None:
        """The answer is here whole."""

    @abstractmethod
    def _fail(self, error: HaatError) -> None:
        """The answer can't be used."""

    @abstractmethod
    def _unasked(self) -> None:
        """Something arrived, and nobody has asked."""

    @abstractmethod
    def _read_keep_alive(self, value: bytes) -> None:
        """The provider says how long it keeps a connection."""

    # --- bytes ----------------------------------------------------------------------------------

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

    def data_received(self, data: bytes) -> None:
        call = self.call
        if call is None:
            self._unasked()
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

    def _leads_elsewhere(self, call: Call) -> bool:
        """Tell the call's endpoint that it has answered; tell whether the call goes on without this answer."""
        grant = call.grant
        assert grant is not None
        return (
            self.status >= 502 or call.endpoint is not None or grant.route.breaker.failures > 0
        ) and dispatch.answered(call, self)

    def _end_stream(self, call: Call, content: bytes) -> None:
        """Take the end of a stream that the parser has seen nothing of."""
        if content:
            self.parts.append(content)
        self._keep = True  # the answer before it had the same head, and the connection stayed
        self._end(call)
        self._over(call)

    # --- the parser's callbacks -----------------------------------------------------------------

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
        if self._leads_elsewhere(call):
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

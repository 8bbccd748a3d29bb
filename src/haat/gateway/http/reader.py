"""What a client sends, read into calls: the callbacks of httptools' parser, and the bounds that it does not keep.

The parser can't pause in the middle of what it was fed. A head that is the last one's again does not pass
through it (`haat.gateway.http.repeated`).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import httptools

from haat.gateway.call import Call
from haat.gateway.extras import extras_of
from haat.gateway.http import trace, upgrades
from haat.gateway.http.client import Client
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
from haat.gateway.http.repeated import MAX_MISSES, Head, RequestMeaning, head_of
from haat.gateway.idempotency.once import Once
from haat.gateway.market import versions
from haat.gateway.websocket import tunnel
from haat.kernel.errors import (
    ExpectationFailed,
    HaatError,
    HeadersTooLarge,
    InvalidRequest,
    NotSupported,
    TargetTooLong,
    VersionNotSupported,
)

if TYPE_CHECKING:
    from haat.gateway.gateway import Gateway

MAX_FIELDS = 128
"""Header lines of one request that are forwarded, at most."""
CHUNK_OVERHEAD = 64 * 1024
"""Bytes a chunked body may have beside its content, in extensions and trailers, and sixteen for each of content."""


class RequestReader(Client):
    """Reads heads, and tells the connection that it is the beginning of what has arrived.

    ``_parsing`` is the call still arriving."""

    _parser: httptools.HttpRequestParser
    """Made by the connection once that is whole."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
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
        self._deaf = False
        """Whatever still arrives is thrown away: this connection is about to end."""
        self._no_more = False
        """The call that arrives now is the last one taken from this connection."""

    # --- what the connection does with it --------------------------------------------------------

    @abstractmethod
    def _arrived(self, call: Call) -> None:
        """A call's head is here."""

    @abstractmethod
    def on_body(self, data: bytes) -> None:
        """A part of the body is here."""

    @abstractmethod
    def on_message_complete(self) -> None:
        """The call that was arriving is here whole."""

    @abstractmethod
    def _broken(self, error: HaatError) -> None:
        """What arrives can't be read on."""

    @abstractmethod
    def _failed(self, error: BaseException) -> None:
        """A call has met an error that should not happen."""

    @abstractmethod
    def _pass_over(self, data: bytes) -> None:
        """This arrived behind all that is taken here."""

    # --- bytes ------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._deaf or (self._no_more and self._parsing is None):
            self._pass_over(data)
            return
        begins = self._parsing is None
        if begins:
            self._waiting_since = self.gateway.clock.lately
            if self._last_head is not None:
                body = self._last_head.body_of(data)
                if body is not None:
                    try:
                        self._repeated(body)
                    except Exception as error:
                        self._failed(error)
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
            self._failed(error.__context__ or error)
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

    # --- the parser's callbacks -------------------------------------------------------------------

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

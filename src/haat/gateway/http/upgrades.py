"""Wishes to change the protocol of a connection that are ignored, as a server may (RFC 9110, 7.8).

Many clients offer HTTP/2 with their first request in plain text. The parser stops at such a request, its
body unread, for the other protocol to take over. Nothing takes over: a fresh parser reads on, after it
was given the same framing in a head of our making.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httptools

from haat.gateway.call import Call

if TYPE_CHECKING:
    from haat.gateway.http.reader import RequestReader


def is_ignored(call: Call, wish: bytes) -> bool:
    """Tell whether the call is served as if it had no Upgrade; CONNECT and WebSocket ask for more than an upgrade."""
    return call.method != b"CONNECT" and b"websocket" not in wish


def head_again(call: Call) -> bytes:
    """Return a head with the framing of this call, for the parser behind it."""
    if call.chunked:
        framing = b"Transfer-Encoding: chunked\r\n"
    else:
        framing = b"Content-Length: %d\r\n" % max(call.content_length, 0)
    return b"POST / HTTP/1.1\r\n%b%b\r\n" % (framing, b"" if call.keep_alive else b"Connection: close\r\n")


def parser_behind(client: RequestReader) -> httptools.HttpRequestParser:
    """Return a parser that tells the client connection everything but the first head that it is given."""
    return httptools.HttpRequestParser(_Deafened(client))


class _Deafened:
    """The callbacks of a connection, which has heard the first head already."""

    def __init__(self, client: RequestReader) -> None:
        self._client, self._heard = client, False
        self.on_body = client.on_body
        self.on_message_complete = client.on_message_complete

    def on_message_begin(self) -> None:
        if self._heard:
            self._client.on_message_begin()

    def on_url(self, part: bytes) -> None:
        if self._heard:
            self._client.on_url(part)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._heard:
            self._client.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._heard:
            self._client.on_headers_complete()
        self._heard = True

"""What providers answer, well and badly: the client gets it whole, gets 502, or sees it break off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gateway.http.case import head

OK = "HTTP/1.1 200 OK"
LAST = b"0\r\n\r\n"
CHUNKED = "Transfer-Encoding: chunked"
HELLO = head(OK, "Content-Length: 5") + b"hello"


class Answer(NamedTuple):
    """One answer to one call."""

    name: str
    raw: bytes
    status: int = 200
    body: bytes = b""
    reused: bool = True
    """Whether the provider's connection carries another call."""
    ends: bool = False
    """The provider ends the connection behind these bytes."""
    breaks: bool = False
    """It can't be answered whole: 502 where that shows before the client has got any of it, else it breaks off."""
    method: str = "POST"
    has: Mapping[str, str] = {}
    lacks: tuple[str, ...] = ()


def good(name: str, raw: bytes, body: bytes = b"hello", **more: object) -> Answer:
    return Answer(name, raw, body=body, **more)  # type: ignore[arg-type]  # as the fields say


def fails(name: str, raw: bytes, *, ends: bool = False) -> Answer:
    """Describe an answer that is refused before anything of it has gone on."""
    return Answer(name, raw, 502, reused=False, ends=ends)


def breaks(name: str, raw: bytes, *, ends: bool = False) -> Answer:
    return Answer(name, raw, reused=False, ends=ends, breaks=True)


def chunked(body: bytes, *fields: str) -> bytes:
    return head(OK, CHUNKED, *fields) + body


def said(*fields: str, line: str = OK) -> bytes:
    return head(line, *fields, "Content-Length: 5") + b"hello"


def field(*fields: str) -> bytes:
    return said("X-First: a", *fields, "X-Last: z")


ANSWERS: list[Answer] = [
    good("a body of known length", HELLO),
    good("no body", head(OK, "Content-Length: 0"), b""),
    good("leading zeros in the length", head(OK, "Content-Length: 0005") + b"hello", has={"content-length": "5"}),
    good("chunks", chunked(b"2\r\nhe\r\n3\r\nllo\r\n" + LAST)),
    good("chunked in capitals", head(OK, "Transfer-Encoding: CHUNKED") + b"5\r\nhello\r\n" + LAST),
    good("chunk extensions", chunked(b'5;a="b"\r\nhello\r\n0;c\r\n\r\n')),
    good("no chunks", chunked(LAST), b""),
    good("trailers", chunked(b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", "Trailer: X-Sum"), lacks=("x-sum", "trailer")),
    good("a trailer with a name that matters", chunked(b"5\r\nhello\r\n0\r\nX-Haat-Usage: requests=9\r\n\r\n")),
    good("a body that ends with the connection", head(OK) + b"hello", reused=False, ends=True),
    good("nothing, which ends with the connection", head(OK), b"", reused=False, ends=True),
    good("HTTP/1.0", said(line="HTTP/1.0 200 OK"), reused=False),
    good("HTTP/1.0 until the end", head("HTTP/1.0 200 OK") + b"hello", reused=False, ends=True),
    good("HTTP/1.0 that stays", said("Connection: keep-alive", line="HTTP/1.0 200 OK")),
    good("close", said("Connection: close"), reused=False, lacks=("connection",)),
    good(
        "close in capitals among others", said("Connection: X-Own, CLOSE", "X-Own: a"), reused=False, lacks=("x-own",)
    ),
    good("a named field", said("X-Own: a", "Connection: x-OWN"), lacks=("x-own", "connection")),
    good("the length is named", head(OK, "Connection: Content-Length", "Content-Length: 5") + b"hello"),
    good(
        "hop-by-hop fields",
        said("Keep-Alive: timeout=9", "Proxy-Authenticate: a", "Upgrade: b", "TE: c"),
        lacks=("keep-alive", "proxy-authenticate", "upgrade", "te"),
    ),
    good(
        "fields that only the gateway says",
        said("X-Request-ID: mine", "RateLimit: 1", "X-RateLimit-Remaining: 1", "X-Haat-Units: a=1"),
        lacks=("ratelimit", "x-ratelimit-remaining"),
    ),
    good("its usage", said("X-Haat-Usage: requests=1"), lacks=("x-haat-usage",)),
    good("a field of its own", field("X-Own: a"), has={"x-own": "a", "x-first": "a", "x-last": "z"}),
    good("a field twice", field("X-Own: a", "X-Own: b"), has={"x-own": "a|b"}),
    good("cookies", field("Set-Cookie: a"), lacks=("set-cookie",)),
    good("bytes beyond ASCII", field("X-Own: \xe0\xa4\xb9"), has={"x-own": "\xe0\xa4\xb9"}),
    good("an empty value", field("X-Own:"), has={"x-own": ""}),
    good("much space around a value", field("X-Own: \t a \t "), has={"x-own": "a"}),
    good("its own date", said("Date: Sat, 21 Nov 2026 06:30:00 GMT")),
    good("a reason of its own", said(line="HTTP/1.1 200 Very well")),
    good("a reason beyond ASCII", said(line="HTTP/1.1 200 \xe0\xa4\xb9")),
    Answer("a control character in the reason", said(line="HTTP/1.1 299 O\x01K"), 299, b"hello"),
    Answer("a NUL in the reason", said(line="HTTP/1.1 299 O\x00K"), 299, b"hello"),
    good("an empty reason", said(line="HTTP/1.1 200 ")),
    good("no reason", said(line="HTTP/1.1 200")),
    Answer("a status that nobody knows", said(line="HTTP/1.1 299 Odd"), 299, b"hello"),
    Answer("a redirect", said("Location: /x", line="HTTP/1.1 302 Found"), 302, b"hello", has={"location": "/x"}),
    Answer("its own refusal", said(line="HTTP/1.1 422 No"), 422, b"hello"),
    Answer("its own failure", said(line="HTTP/1.1 500 No"), 500, b"hello"),
    Answer("the highest status", said(line="HTTP/1.1 599 No"), 599, b"hello"),
    Answer("204", head("HTTP/1.1 204 No Content"), 204),
    Answer("204 with a length", head("HTTP/1.1 204 No Content", "Content-Length: 0"), 204, lacks=("content-length",)),
    Answer("204 that says chunked", head("HTTP/1.1 204 No Content", CHUNKED), 204, lacks=("transfer-encoding",)),
    Answer(
        "204 with a body all the same",
        head("HTTP/1.1 204 No Content", "Content-Length: 5") + b"hello",
        204,
        reused=False,
        lacks=("content-length",),
    ),
    Answer("304", head("HTTP/1.1 304 Not Modified", 'ETag: "a"'), 304, has={"etag": '"a"'}),
    Answer(
        "304 with the length of what it stands for",
        head("HTTP/1.1 304 Not Modified", "Content-Length: 5"),
        304,
        has={"content-length": "5"},
    ),
    Answer(
        "304 with a body all the same",
        head("HTTP/1.1 304 Not Modified", "Content-Length: 5") + b"hello",
        304,
        reused=False,
    ),
    good("HEAD", head(OK, "Content-Length: 5"), b"", method="HEAD", has={"content-length": "5"}),
    good("HEAD without a length", head(OK), b"", method="HEAD", reused=False),
    good("HEAD with chunked", head(OK, CHUNKED), b"", method="HEAD", reused=False),
    good("HEAD with a body all the same", HELLO, b"", method="HEAD", reused=False, has={"content-length": "5"}),
    good("HEAD of HTTP/1.0", head("HTTP/1.0 200 OK", "Content-Length: 5"), b"", method="HEAD", reused=False),
    Answer("HEAD refused", head("HTTP/1.1 404 No", "Content-Length: 5"), 404, method="HEAD"),
    good("100 before", head("HTTP/1.1 100 Continue") + HELLO),
    good("103 before", head("HTTP/1.1 103 Early Hints", "Link: </x>") + HELLO, lacks=("link",)),
    good("several before", head("HTTP/1.1 102 Processing") * 10 + HELLO),
    good("one before HEAD's", head("HTTP/1.1 103 Early Hints") + head(OK, "Content-Length: 5"), b"", method="HEAD"),
    good(
        "one with a length before",
        head("HTTP/1.1 103 Early Hints", "Content-Length: 7") + HELLO,
        has={"content-length": "5"},
    ),
    good("an empty line before", b"\r\n" + HELLO),
    # Odd, but clear: what goes on to the client is HTTP/1.1 all the same.
    good("HTTP/2.0 in letters", said(line="HTTP/2.0 200 OK"), reused=False),
    good("HTTP/0.9 in letters", said(line="HTTP/0.9 200 OK"), reused=False),
    good("RTSP", said(line="RTSP/1.0 200 OK"), reused=False),
    # What comes behind a whole answer is nobody's: the connection is not used again.
    good("another answer behind", HELLO + HELLO, reused=False),
    good("another answer behind chunks", chunked(b"5\r\nhello\r\n" + LAST) + HELLO, reused=False),
    good("another answer behind HEAD's", head(OK, "Content-Length: 0") + HELLO, b"", method="HEAD", reused=False),
    good("an informational answer behind", HELLO + head("HTTP/1.1 100 Continue"), reused=False),
    good("noise behind", HELLO + b"noise", reused=False),
    good("one byte behind", HELLO + b"x", reused=False),
    good("the first byte of an answer behind", HELLO + b"H", reused=False),
    good("half a status line behind", HELLO + b"HTTP/1.1 20", reused=False),
    good("half a head behind", HELLO + b"HTTP/1.1 200 OK\r\nX-Own: ", reused=False),
    good("half a head behind chunks", chunked(b"5\r\nhello\r\n" + LAST) + b"HTTP/1.1 200 OK\r\nX-Own: ", reused=False),
    good(
        "half a head behind HEAD's", head(OK, "Content-Length: 0") + b"HTTP/1.1 200", b"", method="HEAD", reused=False
    ),
    Answer("half a head behind 204", head("HTTP/1.1 204 X") + b"HTTP/1.1 200 OK\r\nX-Own: ", 204, reused=False),
    good("a body longer than it says", head(OK, "Content-Length: 5") + b"hello world", reused=False),
    # Framing that two readers could read in two ways (RFC 9112, 6.3).
    fails("a length and chunked", head(OK, "Content-Length: 5", CHUNKED) + LAST),
    fails("chunked and a length", head(OK, CHUNKED, "Content-Length: 5") + LAST),
    fails("two lengths that differ", head(OK, "Content-Length: 5", "Content-Length: 6") + b"hello"),
    fails("two lengths that are equal", head(OK, "Content-Length: 5", "Content-Length: 5") + b"hello"),
    fails("a list of lengths", head(OK, "Content-Length: 5, 5") + b"hello"),
    fails("a length with a sign", head(OK, "Content-Length: +5") + b"hello"),
    fails("a negative length", head(OK, "Content-Length: -5") + b"hello"),
    fails("a hexadecimal length", head(OK, "Content-Length: 0x5") + b"hello"),
    fails("a length without digits", head(OK, "Content-Length:") + b"hello"),
    fails("a length beyond 64 bits", head(OK, "Content-Length: 18446744073709551621") + b"hello"),
    fails("a space before the colon of the length", head(OK, "Content-Length : 5") + b"hello"),
    fails("gzip", head(OK, "Transfer-Encoding: gzip") + b"hello", ends=True),
    fails("gzip and chunked", head(OK, "Transfer-Encoding: gzip, chunked") + LAST),
    fails("gzip and chunked in two fields", head(OK, "Transfer-Encoding: gzip", CHUNKED) + LAST),
    fails("chunked and gzip", head(OK, "Transfer-Encoding: chunked, gzip") + LAST, ends=True),
    fails("chunked and gzip in two fields", head(OK, CHUNKED, "Transfer-Encoding: gzip") + LAST, ends=True),
    fails("chunked twice", head(OK, CHUNKED, CHUNKED) + LAST),
    fails("identity", head(OK, "Transfer-Encoding: identity") + b"hello", ends=True),
    fails("xchunked", head(OK, "Transfer-Encoding: xchunked") + LAST, ends=True),
    fails("chunked of HTTP/1.0", head("HTTP/1.0 200 OK", CHUNKED) + b"5\r\nhello\r\n" + LAST),
    # Heads that are none.
    fails("a folded value", field("X-Own: a", " b")),
    fails("a space before the colon", field("X-Own : a")),
    fails("a field without a colon", field("X-Own")),
    fails("a field without a name", field(": a")),
    fails("a space in a name", field("X Own: a")),
    fails("a NUL in a value", field("X-Own: a\x00b")),
    fails("a bare CR in a value", field("X-Own: a\rb")),
    fails("a bare LF in a value", field("X-Own: a\nSet-Cookie: b")),
    fails("a control character in a value", field("X-Own: a\x01b")),
    fails("lines that end with LF alone", b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"),
    fails("a bare CR in the reason", said(line="HTTP/1.1 200 O\rX-Own: a")),
    fails("a status of two digits", said(line="HTTP/1.1 20 OK")),
    fails("a status of four digits", said(line="HTTP/1.1 2000 OK")),
    fails("a status of letters", said(line="HTTP/1.1 OK OK")),
    fails("a status that can't be", said(line="HTTP/1.1 000 OK")),
    fails("a status below 100", said(line="HTTP/1.1 099 OK")),
    fails("a status beyond 599", said(line="HTTP/1.1 600 OK")),
    fails("no status", said(line="HTTP/1.1")),
    fails("HTTP/1.2", said(line="HTTP/1.2 200 OK")),
    fails("HTTP/0.9 as it was", b"hello", ends=True),
    fails("a version in small letters", said(line="http/1.1 200 OK")),
    fails("another protocol", said(line="SIP/2.0 200 OK")),
    fails("a space before the version", said(line=" HTTP/1.1 200 OK")),
    fails("a request instead", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    fails("noise", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    fails("a field that is too long", said("X-Own: " + "a" * 70_000)),
    fails("a head that never ends", head(OK, "X-Own: " + "a" * 70_000)[:-4]),
    fails("very many fields", said(*["X: y"] * 20_000)),
    # Never an answer.
    fails("a change of protocol", head("HTTP/1.1 101 Switching", "Connection: upgrade", "Upgrade: x") + b"\x00\x01"),
    fails("a change of protocol without a name", head("HTTP/1.1 101 Switching") + HELLO),
    fails("an endless row of informational answers", head("HTTP/1.1 102 Processing") * 40),
    fails("informational answers, then nothing", head("HTTP/1.1 100 Continue"), ends=True),
    fails("nothing", b"", ends=True),
    fails("half a status line", b"HTTP/1.1 20", ends=True),
    fails("half a head", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-", ends=True),
    fails("a head without its last byte", head(OK, "Content-Length: 5")[:-1], ends=True),
    # Bodies that are not whole.
    breaks("half a body", head(OK, "Content-Length: 5") + b"he", ends=True),
    breaks("no body where one was announced", head(OK, "Content-Length: 5"), ends=True),
    breaks("chunks without the last", chunked(b"5\r\nhello\r\n"), ends=True),
    breaks("half a chunk", chunked(b"5\r\nhe"), ends=True),
    breaks("half a chunk size", chunked(b"5"), ends=True),
    breaks("a last chunk without its end", chunked(b"5\r\nhello\r\n0\r\n"), ends=True),
    breaks("half a trailer", chunked(b"5\r\nhello\r\n0\r\nX-Su"), ends=True),
    breaks("a chunk size that is no number", chunked(b"five\r\nhello\r\n" + LAST)),
    breaks("a negative chunk size", chunked(b"-5\r\nhello\r\n" + LAST)),
    breaks("a chunk size with 0x", chunked(b"0x5\r\nhello\r\n" + LAST)),
    breaks("a chunk size beyond 64 bits", chunked(b"10000000000000005\r\nhello\r\n" + LAST)),
    breaks("a chunk without its line end", chunked(b"5\r\nhello" + LAST)),
    breaks("a chunk that ends with LF alone", chunked(b"5\r\nhello\n" + LAST)),
    breaks("a chunk size that ends with LF alone", chunked(b"5\nhello\r\n" + LAST)),
    breaks("a chunk longer than it says", chunked(b"4\r\nhello\r\n" + LAST)),
    breaks("a LF in an extension", chunked(b"5;a\nb\r\nhello\r\n" + LAST)),
    breaks("a folded trailer", chunked(b"5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n")),
    breaks("a length among the trailers", chunked(b"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n")),
    breaks("noise behind the first chunk", chunked(b"5\r\nhello\r\nnoise")),
    breaks("an answer in the midst of another", chunked(b"5\r\nhello\r\n" + HELLO)),
]

"""The bytes of answers: heads, problem bodies, the headers that say where the limits stand."""

from __future__ import annotations

import re
from email.utils import formatdate
from http import HTTPStatus
from typing import Protocol

import msgspec

from haat.gateway.call import Call
from haat.gateway.http import cors
from haat.kernel.errors import HaatError

REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
STATUS_LINES = {status: b"HTTP/1.1 %d %b\r\n" % (status, reason) for status, reason in REASONS.items()}
NOT_CURED_BY_RETRY = frozenset(
    {
        "QUOTA_EXHAUSTED",
        "WALLET_EMPTY",
        "BUDGET_SPENT",
        "NOT_SUBSCRIBED",
        "SERVICE_SUSPENDED",
        "DATA_POLICY",
        "OUT_OF_SCOPE",
        "IDEMPOTENCY_MISMATCH",
        "IDEMPOTENCY_UNKNOWN",
        "IDEMPOTENCY_NOT_KEPT",
    }
)
"""Refusals after which the common SDKs must not retry by themselves, though they do so on 429."""

_encode = msgspec.json.Encoder().encode


class Whole:
    """A whole answer on its way to the client. Lines end with CRLF; none of them frames the body."""

    __slots__ = ("body", "lines", "reason", "status")

    def __init__(self, status: int, reason: bytes, lines: list[bytes], body: bytes) -> None:
        self.status, self.reason, self.lines, self.body = status, reason, lines, body


class AnswerStep(Protocol):
    """What must see an answer whole: a cache, a transformation, a plugin."""

    def answered(self, call: Call, answer: Whole) -> None:
        """Look at the answer before it is recorded and written; change it in place or raise HaatError."""
        ...

    def missed(self, call: Call) -> None:
        """The call ended without a whole answer: refused, failed, streamed, or its client is gone."""
        ...


_UNREADABLE = re.compile(rb"[^\t\x20-\x7e\x80-\xff]")
_date = (0, b"")


def security_lines(address: str) -> bytes:
    """Return what every answer tells browsers, at the address that callers use."""
    lines = b"X-Content-Type-Options: nosniff\r\n"
    if address.startswith("https:"):
        lines += b"Strict-Transport-Security: max-age=31536000\r\n"
    return lines


def status_line(status: int, reason: bytes) -> bytes:
    """Return the first line of an answer; a reason of the provider's own only where there is no common one."""
    known = STATUS_LINES.get(status)
    return known if known is not None else b"HTTP/1.1 %d %b\r\n" % (status, _UNREADABLE.sub(b" ", reason))


def date_line(now: int) -> bytes:
    """Return the Date header, made once a second; ``now`` is the gateway clock's."""
    global _date
    second = now // 1_000_000
    if second != _date[0]:
        _date = (second, b"Date: %b\r\n" % formatdate(second, usegmt=True).encode("ascii"))
    return _date[1]


def limit_headers(call: Call, now: int) -> bytes:
    """Return the rate limit headers (draft-ietf-httpapi-ratelimit-headers-11) of an admitted call."""
    allowance = call.allowance
    return b"" if allowance is None else allowance.headers(now)


def connection_header(call: Call) -> bytes:
    """Return the Connection header that tells the client what happens to its connection."""
    if not call.keep_alive:
        return b"Connection: close\r\n"
    return b"Connection: keep-alive\r\n" if call.minor_version == 0 else b""


def empty(call: Call, headers: bytes) -> bytes:
    """Return an answer that is its headers (RFC 9110, 15.3.5)."""
    gateway = call.client.gateway
    return b"".join(
        (
            STATUS_LINES[204],
            date_line(gateway.clock.lately),
            call.id_line,
            gateway.security_lines,
            headers,
            connection_header(call),
            b"\r\n",
        )
    )


def plain(call: Call, status: int, content_type: bytes, body: bytes, headers: bytes = b"") -> bytes:
    """Return a whole answer of our own; for HEAD without its body (RFC 9110, 9.3.2)."""
    head = b"HTTP/1.1 %d %b\r\n%bContent-Type: %b\r\nContent-Length: %d\r\n%b%b%b%b\r\n" % (
        status,
        REASONS.get(status, b"Error"),
        date_line(call.client.gateway.clock.lately),
        content_type,
        len(body),
        call.id_line,
        call.client.gateway.security_lines,
        headers,
        connection_header(call),
    )
    return head if call.method == b"HEAD" else head + body


def error_event(call: Call, error: HaatError) -> bytes:
    """Return the last event of a stream that its provider has broken off.

    Its data is the problem. When the stream broke off within a line, what there was of the event becomes
    part of this one: so nobody takes it for whole.
    """
    if call.visit is not None:
        event = call.visit.operation.error_event(error, call.id)
    else:
        event = b"event: error\ndata: %b\n\n" % _encode(error.problem(call.id))
    if call.line_open:
        event = b"\n" + event
    return b"%x\r\n%b\r\n%b" % (len(event), event, LAST_CHUNK) if call.chunk_answer else event


def problem(call: Call, error: HaatError, now: int) -> bytes:
    """Return a refusal as application/problem+json (RFC 9457), with the headers its reason asks for."""
    headers = b"Cache-Control: no-store\r\n"
    refused = error.extensions
    if call.route is not None:
        headers += call.route.lines
    if call.extras is not None:
        headers += cors.lines(call.client.gateway, call)
    if error.status == 401:
        headers += b'WWW-Authenticate: Bearer realm="haat"\r\n'
    if call.allowance is not None:
        if "limit" in refused and "reset_seconds" in refused:
            headers += call.allowance.lines_of(refused["limit"], refused["remaining"], refused["reset_seconds"])
        else:
            headers += limit_headers(call, now)
    retry_after = refused.get("reset_seconds") or (1 if error.status == 503 else 0)
    if retry_after:
        headers += b"Retry-After: %d\r\n" % retry_after
    if error.code in NOT_CURED_BY_RETRY:
        headers += b"X-Should-Retry: false\r\n"
    if call.visit is not None:
        headers += call.visit.id_line(call)
        content_type, body = call.visit.operation.problem(error, call.id)
    else:
        content_type, body = b"application/problem+json", _encode(error.problem(call.id))
    return plain(call, error.status, content_type, body, headers)

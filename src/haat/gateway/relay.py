"""The answer's way to the client: head, body, end, and what happens when it breaks off.

Both ends of a call come here. Nothing is written while an answer is being parsed; `flush` writes
once a turn, after the record of a call that ended in this turn.
"""

from __future__ import annotations

from typing import NamedTuple

from haat.gateway import answers
from haat.gateway.call import Call
from haat.gateway.metering import CHECKPOINT_BYTES, read_usage, unit_header
from haat.kernel.errors import HaatError, JournalUnavailable, Overloaded
from haat.usage.event import Outcome
from haat.usage.journal import JournalError

_BODILESS = frozenset({204, 304})
_TOKENS_KEPT = frozenset({b"", b"close", b"keep-alive"})


class Answer(NamedTuple):
    """The head of a provider's answer. ``length`` is -1 when it isn't stated."""

    status: int
    reason: bytes
    lines: list[bytes]
    length: int
    chunked: bool
    usage: bytes


def named_headers(connection: bytes) -> set[bytes]:
    """Return the headers that a Connection header names: they end here (RFC 9110, 7.6.1)."""
    return {token.strip().lower() for token in connection.split(b",")} - _TOKENS_KEPT


def begin(call: Call, answer: Answer) -> None:
    """Prepare the head; it leaves with the first part of the body."""
    gateway, route = call.client.gateway, call.route
    assert route is not None
    now = gateway.clock.now_us()
    call.first_byte = now - call.started
    call.status = answer.status
    if answer.usage and answer.status < 400:
        read_usage(call, route, answer.usage)
    call.no_body = call.method == b"HEAD" or answer.status in _BODILESS
    if not call.body_complete or gateway.draining:
        call.keep_alive = False
    framing = b""
    if answer.length >= 0:
        framing = b"Content-Length: %d\r\n" % answer.length
        call.streaming = answer.length > CHECKPOINT_BYTES
    elif not call.no_body:
        call.streaming = True
        if call.minor_version == 1:
            call.chunk_answer = True
            framing = b"Transfer-Encoding: chunked\r\n"
        else:
            call.keep_alive = False  # HTTP/1.0 knows the end of such a body by the connection's end
    call.out.append(
        b"".join(
            (
                b"HTTP/1.1 %d %b\r\n" % (answer.status, answer.reason),
                *answer.lines,
                framing,
                b"X-Request-ID: ",
                call.id.encode(),
                b"\r\n",
                answers.limit_headers(call, now),
                unit_header(call, route) if answer.status < 400 else b"",
                answers.connection_header(call),
                b"\r\n",
            )
        )
    )


def forward(call: Call, data: bytes) -> None:
    """Take a part of the answer's body."""
    if call.no_body:
        return
    call.bytes_out += len(data)
    call.out.append(b"%x\r\n%b\r\n" % (len(data), data) if call.chunk_answer else data)


def end(call: Call) -> None:
    """Record the call: the bytes that are still to be written are its last."""
    try:
        call.client.gateway.meter.record(
            call, Outcome.COMPLETED if call.status < 400 else Outcome.PROVIDER_FAILED, call.status
        )
    except JournalError:
        call.out.clear()
        fail(call, JournalUnavailable())
        return
    if call.chunk_answer:
        call.out.append(answers.LAST_CHUNK)
    call.answered = True


def flush(call: Call) -> None:
    """Write what has been taken; before a stream's first part, and now and then after, say so in the journal."""
    client = call.client
    if call.answered:
        if call.out:
            client.write(b"".join(call.out))
            call.out.clear()
            call.head_flushed = True
            client.finished(call)
        return
    if not call.out:
        return
    if call.streaming:
        meter = client.gateway.meter
        try:
            if not call.opened:
                meter.open(call)
            elif call.bytes_out - call.checkpointed >= CHECKPOINT_BYTES:
                meter.checkpoint(call)
        except JournalError:
            call.out.clear()
            fail(call, JournalUnavailable())
            return
    client.write(b"".join(call.out))
    call.out.clear()
    call.head_flushed = True


def fail(call: Call, error: HaatError) -> None:
    """End a call that the provider, or the way to it, has failed.

    Before the head has left this is an answer like any other. After it the only honest thing is to
    break the connection off, so that the client can't take a part for the whole.
    """
    if call.answered:
        return
    if call.upstream is not None:
        call.upstream.abort()
    if not call.head_flushed:
        ours = isinstance(error, (Overloaded, JournalUnavailable))
        call.client.refuse(call, error, Outcome.REFUSED if ours else Outcome.PROVIDER_FAILED)
        return
    call.answered = True
    try:
        call.client.gateway.meter.record(call, Outcome.PROVIDER_FAILED, call.status, error.code)
        call.client.gateway.meter.confirm(call)
    except JournalError:
        pass  # the open record stays: recovery reports the stream as interrupted
    call.client.abort()


def client_left(call: Call) -> None:
    """End a call whose client is gone: nobody waits for the provider's work any more."""
    if call.answered:
        return
    call.answered = True
    if call.upstream is not None:
        call.upstream.abort()
    gateway = call.client.gateway
    try:
        gateway.meter.record(call, Outcome.CLIENT_LEFT, call.status)
        gateway.meter.confirm(call)
    except JournalError:
        pass  # not answered and not recorded: the caller is charged nothing

"""The answer's way to the client: head, body, end, and what happens when it breaks off.

Both ends of a call come here. What arrived of an answer in one turn leaves in one write; the record of
a call that ended in this turn goes before it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from haat.gateway.call import NO_ANSWER_STEPS, Call
from haat.gateway.http import answers, cors, streams
from haat.gateway.http.answers import Whole
from haat.gateway.http.headers import value_of
from haat.gateway.metering import CHECKPOINT_BYTES
from haat.gateway.units import read_usage, unit_header
from haat.kernel.errors import (
    ContentRefused,
    HaatError,
    JournalUnavailable,
    Overloaded,
    PluginFailed,
    ProviderFailed,
    RequestTimeout,
)
from haat.usage.event import Outcome
from haat.usage.journal import JournalError

if TYPE_CHECKING:
    from haat.gateway.upstreams.reader import AnswerReader

log = logging.getLogger(__name__)

_LINE_ENDS = b"\r\n"
MAX_COLLECTED = 16 * 1024 * 1024
"""The largest answer that is taken whole into memory because a step asks for it."""


def proceed(call: Call, upstream: AnswerReader, ended: bool) -> None:
    """Carry on what this turn has brought of the provider's answer."""
    parts = upstream.parts
    if not parts:
        data = b""
    else:
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
    if call.headed:
        head = b""
    else:
        call.headed = True
        if call.on_answer and not _collects(call, upstream):
            if call.extras is not None and not _begins_stream(call, upstream):
                return
            if call.once is not None:
                call.once.copies(call, upstream)
            if call.visit is not None and not call.visit.passes:
                try:
                    call.visit.streams(call, _is_event_stream(upstream.lines))
                except HaatError as error:
                    fail(call, error)
                    return
                upstream.length = -1
            missed(call)
        head = b"" if call.collected is not None else _head(call, upstream)
    if call.collected is not None:
        _collect(call, upstream, data, ended)
        return
    failed: HaatError | None = None
    if call.extras is not None and call.extras.rewriter is not None:
        try:
            data = call.extras.rewriter.feed(data, ended)
        except HaatError as error:
            fail(call, error)
            return
        failed = call.extras.rewriter.failed
        if failed is not None:
            ended = False
            if not data:
                fail(call, failed)
                return
    if data:
        if call.no_body:
            data = b""
        else:
            call.bytes_out += len(data)
            if call.event_stream:
                call.line_open = data[-1] not in _LINE_ENDS
            if call.chunk_answer:
                data = b"%x\r\n%b\r\n" % (len(data), data)
    if ended:
        _end(call, head, data)
        return
    if not head and not data:
        return
    if call.streaming:
        meter = call.client.gateway.meter
        try:
            if not call.opened:
                meter.open(call)
            elif call.bytes_out - call.checkpointed >= CHECKPOINT_BYTES:
                meter.checkpoint(call)
        except JournalError:
            fail(call, call.client.gateway.meter.trouble())
            return
        _extend(call)
    call.head_flushed = True
    call.client.write(head + data)
    if failed is not None:
        fail(call, failed)


def pass_on(call: Call, upstream: AnswerReader, chunk: bytes, size: int) -> None:
    """Carry on a chunk of a stream as it came, unless something has to be done with the ``size`` bytes in it."""
    if not call.chunk_answer or not call.opened or call.extras is not None:
        upstream.parts.append(chunk[-2 - size : -2])
        proceed(call, upstream, False)
        return
    call.bytes_out += size
    call.line_open = chunk[-3] not in _LINE_ENDS
    if call.bytes_out - call.checkpointed >= CHECKPOINT_BYTES:
        try:
            call.client.gateway.meter.checkpoint(call)
        except JournalError:
            fail(call, call.client.gateway.meter.trouble())
            return
    _extend(call)
    call.client.write(chunk)


def _extend(call: Call) -> None:
    """Give a stream that flows another while: it may last long, but not be silent for long."""
    gateway, grant = call.client.gateway, call.grant
    assert grant is not None
    longest = call.started + gateway.stream_max_us
    deadline = gateway.clock.lately + grant.route.timeout_us
    call.deadline = deadline if deadline < longest else longest


def _head(call: Call, upstream: AnswerReader) -> bytes:
    """Return the head of the answer to the client."""
    client, grant, status = call.client, call.grant, upstream.status
    gateway = client.gateway
    assert grant is not None
    now = gateway.clock.now_us()
    call.first_byte = now - call.started
    call.status = status
    if not call.body_complete or gateway.draining:
        call.keep_alive = False
    if status >= 400:
        units_line = b""
    elif upstream.usage:
        read_usage(call, grant.route, upstream.usage)
        units_line = unit_header(call, grant.route)
    else:
        units_line = grant.units_line or unit_header(call, grant.route)
    call.no_body = status == 204 or status == 304 or call.method == b"HEAD"
    framing = b""
    length = upstream.length
    if length >= 0:
        framing = b"Content-Length: %d\r\n" % length if status != 204 else b""
        call.streaming = length > CHECKPOINT_BYTES
    elif not call.no_body:
        call.streaming = True
        call.event_stream = _is_event_stream(upstream.lines)
        if call.minor_version == 1:
            call.chunk_answer = True
            framing = b"Transfer-Encoding: chunked\r\n"
        else:
            call.keep_alive = False  # HTTP/1.0 knows the end of such a body by the connection's end
    return b"".join(
        (
            answers.status_line(status, upstream.reason),
            *upstream.lines,
            framing,
            call.id_line,
            answers.limit_headers(call, now),
            units_line,
            grant.route.endpoint.served_by if call.endpoint is None else call.endpoint.served_by,
            grant.lines,
            grant.varies if call.extras is None else cors.lines(gateway, call),
            b"\r\n" if call.keep_alive and call.minor_version == 1 else answers.connection_header(call) + b"\r\n",
        )
    )


def _end(call: Call, head: bytes, data: bytes) -> None:
    """Record the call, then write its last bytes."""
    client, status = call.client, call.status
    try:
        client.gateway.meter.record(call, Outcome.COMPLETED if status < 400 else Outcome.PROVIDER_FAILED, status)
    except JournalError:
        fail(call, call.client.gateway.meter.trouble())
        return
    call.answered = True
    call.head_flushed = True
    answer = b"".join((head, data, answers.LAST_CHUNK)) if call.chunk_answer else head + data
    if head:
        call.answer_bytes = len(answer)
    client.write(answer)
    client.finished(call)


# --- answers that something must see whole ------------------------------------------------------


def _collects(call: Call, upstream: AnswerReader) -> bool:
    """Begin to take the answer whole, unless it is a stream or larger than anybody should hold."""
    if upstream.length > MAX_COLLECTED or _is_event_stream(upstream.lines):
        return False
    gateway = call.client.gateway
    call.collected = []
    call.status = upstream.status
    call.first_byte = gateway.clock.now_us() - call.started
    return True


def _is_event_stream(lines: list[bytes]) -> bool:
    """Tell whether these header lines announce server-sent events, in the clear."""
    return value_of(lines, b"content-type")[:17].lower() == b"text/event-stream" and not value_of(
        lines, b"content-encoding"
    )


def _begins_stream(call: Call, upstream: AnswerReader) -> bool:
    """Let steps look at an answer that isn't collected as it passes; tell whether it may."""
    try:
        if streams.begin(call, _is_event_stream(upstream.lines)):
            upstream.length = -1
    except HaatError as error:
        fail(call, error)
        return False
    return True


def _collect(call: Call, upstream: AnswerReader, data: bytes, ended: bool) -> None:
    collected = call.collected
    assert collected is not None
    if data:
        collected.append(data)
        call.bytes_out += len(data)
        if call.bytes_out > MAX_COLLECTED:
            fail(call, ProviderFailed("The provider's answer is too large for what this service does with answers."))
            return
    if not ended:
        return
    if upstream.usage and upstream.status < 400 and call.route is not None:
        read_usage(call, call.route, upstream.usage)
    answer_whole(call, Whole(upstream.status, upstream.reason, upstream.lines, b"".join(collected)))


def answer_whole(call: Call, answer: Whole, cache: str = "") -> None:
    """Answer a call with an answer that is here whole: through its remaining steps, record, write.

    ``cache`` says in the record how it came about without the provider: ``hit`` and the like.
    """
    gateway = call.client.gateway
    if cache:
        call.cache = cache
    while call.on_answer:
        step = call.on_answer[-1]
        call.on_answer = call.on_answer[:-1]
        try:
            step.answered(call, answer)
        except HaatError as error:
            fail(call, error)
            return
        except Exception:
            log.exception("an answer met an error that should not happen")
            fail(call, HaatError())
            return
    call.status = status = answer.status
    call.no_body = status in (204, 304) or call.method == b"HEAD"
    if not call.body_complete or gateway.draining:
        call.keep_alive = False
    call.collected = None
    call.bytes_out = 0 if call.no_body else len(answer.body)
    if call.visit is not None and call.visit.bytes_out >= 0:
        call.bytes_out = call.visit.bytes_out
    units_line = unit_header(call, call.route) if status < 400 and call.route is not None else b""
    head = b"".join(
        (
            answers.status_line(status, answer.reason),
            *answer.lines,
            b"" if status in (204, 304) else b"Content-Length: %d\r\n" % len(answer.body),
            call.id_line,
            answers.limit_headers(call, gateway.clock.now_us()),
            units_line,
            served_by(call),
            b"" if call.grant is None else call.grant.lines,
            b"" if call.grant is None else call.grant.varies if call.extras is None else cors.lines(gateway, call),
            answers.connection_header(call),
            b"\r\n",
        )
    )
    _end(call, head, b"" if call.no_body else answer.body)


def served_by(call: Call) -> bytes:
    """Return the header line that names who has executed a call; empty before that is known."""
    if call.endpoint is not None:
        return call.endpoint.served_by
    return call.route.endpoint.served_by if call.route is not None else b""


def missed(call: Call) -> None:
    """Tell the steps that wanted the answer whole that they won't get it."""
    steps, call.on_answer = call.on_answer, NO_ANSWER_STEPS
    for step in reversed(steps):
        step.missed(call)


# --- calls that end otherwise -------------------------------------------------------------------


def refuse(call: Call, error: HaatError, outcome: Outcome) -> None:
    """Answer with a problem, recorded like every other answer to somebody we know."""
    client = call.client
    gateway = client.gateway
    if call.answered:
        return
    call.answered = True
    if call.on_answer:
        call.fault = error
        missed(call)
    if call.endpoint is not None:
        call.endpoint.breaker.released(call)
    if not client.drains(call) or gateway.draining:
        call.keep_alive = False
    try:
        if call.admitted or not gateway.meter.full:
            gateway.meter.record(call, outcome, error.status, error.code)
        else:
            gateway.meter.unrecorded += 1  # what is left of the disk belongs to calls in flight
    except JournalError:
        error = gateway.meter.trouble()
    call.body.clear()
    client.write(answers.problem(call, error, gateway.clock.now_us()))
    client.finished(call)


def fail(call: Call, error: HaatError) -> None:
    """End a call that the provider, or the way to it, has failed.

    Before the head has left this is an answer like any other. After it a stream of events ends with
    one that says so; of any other answer the only honest end is to break the connection off, so that the
    client can't take a part for the whole.
    """
    if call.answered:
        return
    if call.upstream is not None:
        call.upstream.abort()
    if not call.head_flushed:
        ours = isinstance(error, (Overloaded, JournalUnavailable, ContentRefused, PluginFailed, RequestTimeout))
        refuse(call, error, Outcome.REFUSED if ours else Outcome.PROVIDER_FAILED)
        return
    call.answered = True
    _cut_off(call)
    meter = call.client.gateway.meter
    try:
        meter.record(call, Outcome.PROVIDER_FAILED, call.status, error.code)
    except JournalError:
        call.client.abort()  # the open record stays: recovery reports the stream as interrupted
        return
    if call.event_stream:
        call.keep_alive = False
        call.client.write(answers.error_event(call, error))
        call.client.finished(call)
    else:
        meter.confirm(call)
        call.client.abort()


def _cut_off(call: Call) -> None:
    """Tell who looks at a stream's events that no more come."""
    if call.extras is not None and call.extras.rewriter is not None:
        call.extras.rewriter.cut_off()


def client_left(call: Call) -> None:
    """End a call whose client is gone: nobody waits for the provider's work any more."""
    if call.answered:
        return
    call.answered = True
    if call.on_answer:
        missed(call)
    _cut_off(call)
    if call.endpoint is not None:
        call.endpoint.breaker.released(call)
    if call.upstream is not None:
        call.upstream.abort()
    gateway = call.client.gateway
    try:
        gateway.meter.record(call, Outcome.CLIENT_LEFT, call.status)
        gateway.meter.confirm(call)
    except JournalError:
        pass  # not answered and not recorded: the caller is charged nothing

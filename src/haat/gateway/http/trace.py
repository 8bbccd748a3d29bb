"""W3C trace context: each call that goes to a provider is a span of its caller's trace, or begins one.

A trace that begins here has the request id for its id; a span in somebody else's is the call's number
under a secret of this process. No randomness is asked for on the way of a call. Whether a trace is sampled is
this gateway's own decision, made from the trace id, so that it is the same wherever it is made;
a caller's wish would let anybody fill the provider's tracing.
"""

from __future__ import annotations

import os
import re
import zlib
from typing import TYPE_CHECKING

from haat.gateway.call import ID_AT, ID_END
from haat.gateway.extras import extras_of

if TYPE_CHECKING:
    from haat.gateway.call import Call

# A later version may say more after what this one has (Trace Context, 4.3); ff is never a version.
_PARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_NO_TRACE, _NO_SPAN = b"0" * 32, b"0" * 16
_MAX_STATE = 512
_SAMPLED, _NOT_SAMPLED = b"-01\r\n", b"-00\r\n"
_STATE_VALUE = re.compile(rb"[\x20-\x7e\t]*")


def parse_parent(value: bytes) -> bytes:
    """Return the trace id of a ``traceparent``, empty for one that isn't valid."""
    match = _PARENT.fullmatch(value)
    if match is None:
        return b""
    version, trace, span, more = match.groups()
    return b"" if (version == b"00" and more) or trace == _NO_TRACE or span == _NO_SPAN else bytes(trace)


def take_parent(call: Call, value: bytes) -> None:
    """Take over the caller's ``traceparent``; a second one makes both void."""
    extras = extras_of(call)
    if extras.has_parent:
        extras.trace = b""
        return
    extras.has_parent = True
    extras.trace = parse_parent(value.strip())
    if extras.trace:
        call.labelled = True  # its record has a member of its own


def take_state(call: Call, value: bytes) -> None:
    """Take over the caller's ``tracestate``; it may come in several headers."""
    extras = extras_of(call)
    state = extras.trace_state + b"," + value.strip() if extras.trace_state else value.strip()
    extras.trace_state = state if len(state) <= _MAX_STATE and _STATE_VALUE.fullmatch(state) else b""


class Tracer:
    """``ratio`` is the part of traces to sample, 0 to 1."""

    def __init__(self, ratio: float) -> None:
        self._salt: int = int.from_bytes(os.urandom(8), "big") | 1 << 63  # so that no span is all zeros
        self._threshold: int = round(ratio * (1 << 32))

    def line(self, call: Call) -> bytes:
        """Return the header lines that continue the trace at the provider."""
        extras = call.extras
        if extras is None or not extras.trace:
            trace = call.id_line[ID_AT:ID_END].replace(b"-", b"")
            if not call.attempts:
                # The first half of an id is its time and count: within a trace of our own nobody else has it.
                return b"traceparent: 00-" + trace + b"-" + trace[:16] + self._flags(trace)
            return b"traceparent: 00-%b-%016x" % (trace, self._span(call)) + self._flags(trace)
        line = b"traceparent: 00-%b-%016x" % (extras.trace, self._span(call)) + self._flags(extras.trace)
        return line + b"tracestate: %b\r\n" % extras.trace_state if extras.trace_state else line

    def _flags(self, trace: bytes) -> bytes:
        return _SAMPLED if self._threshold and zlib.crc32(trace) < self._threshold else _NOT_SAMPLED

    def _span(self, call: Call) -> int:
        return self._salt ^ call.number ^ call.attempts << 56

"""Spans of a call in the engine: its wait in the queue, and the batch it was in.

They are structured log lines, one JSON object each, of the logger ``haat.models.traces``, for calls whose caller's
``traceparent`` says that it is sampled. A batch is one span with links to the spans of all its callers.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import msgspec

_PARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SAMPLED = 1

current_trace: ContextVar[str] = ContextVar("current_trace", default="")
"""In a worker: the traceparent of the batch that runs, for runtimes that ask others."""

log = logging.getLogger(__name__)


def sampled(trace: str) -> tuple[str, str] | None:
    """Return the trace id and span id of a traceparent that is well-formed and sampled."""
    match = _PARENT.fullmatch(trace)
    if match is None or not int(match[3], 16) & _SAMPLED:
        return None
    return match[1], match[2]


def batch_parent(traces: Sequence[str]) -> str:
    """Return a traceparent for a batch: a new span in the trace of its first sampled caller, empty if none is."""
    for trace in traces:
        if found := sampled(trace):
            return f"00-{found[0]}-{os.urandom(8).hex()}-01"
    return ""


def log_batch(parent: str, model: str, calls: Sequence[tuple[str, str, float]], size: int, seconds: float) -> None:
    """Write the spans of a batch that has ended now.

    ``parent`` is its own traceparent, ``calls`` are the traceparent, request id and seconds in the queue of each call.
    """
    own = sampled(parent)
    if own is None:
        return
    ended = time.time()
    links = []
    for trace, request_id, queued in calls:
        found = sampled(trace)
        if found is None:
            continue
        links.append({"trace_id": found[0], "span_id": found[1]})
        began = ended - seconds - queued
        span: dict[str, Any] = {
            "span": "queue",
            "trace_id": found[0],
            "span_id": os.urandom(8).hex(),
            "parent_id": found[1],
        }
        _write({**span, "model": model, "request_id": request_id, "start": began, "seconds": queued})
    span = {"span": "batch", "trace_id": own[0], "span_id": own[1], "parent_id": links[0]["span_id"], "links": links}
    _write({**span, "model": model, "size": size, "start": ended - seconds, "seconds": seconds})


def _write(span: dict[str, Any]) -> None:
    log.info("%s", msgspec.json.encode(span).decode())

"""Which answer a call gets: by what its service's endpoint speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from haat.gateway.simulator import chat, task
from haat.gateway.simulator.marks import encode, mark
from haat.gateway.simulator.shapes import EVENTS, JSON, Simulated

if TYPE_CHECKING:
    from haat.gateway.call import Call


def answer_to(call: Call) -> Simulated:
    """Return the answer to a call whose body is here whole; raise what a provider would refuse."""
    route, grant = call.route, call.grant
    assert route is not None and grant is not None
    body = b"".join(call.body)
    dialect, path = route.executing.dialect, grant.tail.partition(b"?")[0]
    if route.executing.takes_tasks:
        return task.answer(route.service, body, streams=call.accepts_stream)
    found = chat.answer(dialect, path, body, route.service.unit) if dialect != "http" else None
    return echo(call, path, body, route.service.unit) if found is None else found


def echo(call: Call, path: bytes, body: bytes, unit: str) -> Simulated:
    """Answer a provider's own API, whose shapes only it knows: with what was asked."""
    members: dict[str, Any] = {
        "test": True,
        "id": mark(call.method + b" " + path + b" " + body),
        "method": call.method.decode("ascii"),
        "path": path.decode("ascii", "replace") or "/",
    }
    try:
        members["request"] = msgspec.json.decode(body) if body else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        members["request_bytes"] = len(body)
    usage = f"{unit}={max(1, len(body)) if unit == 'characters' else 1}" if unit != "bytes" else ""
    if call.accepts_stream:
        event = b"data: %b\n\n" % encode(members)
        return Simulated(EVENTS, usage.encode("ascii"), (event, b"data: [DONE]\n\n"))
    return Simulated(JSON, usage.encode("ascii"), (encode(members),))

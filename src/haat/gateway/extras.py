"""What few calls have: kept beside the call, so that all the others neither carry nor ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.http.streams import Rewriter
    from haat.gateway.rollout.shadow import Copy
    from haat.gateway.upstreams.endpoints import Endpoint
    from haat.plugins.api import Request


class Extras:
    """Made when the first of these is set."""

    __slots__ = (
        "asked_version",
        "chosen",
        "counted",
        "early",
        "has_parent",
        "origin",
        "preflight",
        "request",
        "rewriter",
        "shadow",
        "trace",
        "trace_state",
        "websocket",
    )

    def __init__(self) -> None:
        self.websocket: bool = False
        """It asks for a WebSocket session."""
        self.early: bytes = b""
        """What the client sent behind that request, before it was told that the session is open."""
        self.origin: bytes = b""
        """Where the page is from whose script makes this call (Fetch, 3.2)."""
        self.preflight: bool = False
        """It only asks whether a call would be allowed."""
        self.asked_version: bytes = b""
        """The version that headers ask for."""
        self.has_parent: bool = False
        """A ``traceparent`` was sent, valid or not."""
        self.trace: bytes = b""
        """The trace id that the caller sent, 32 hexadecimal digits."""
        self.trace_state: bytes = b""
        self.request: Request | None = None
        """The call as plugins see it."""
        self.chosen: Endpoint | None = None
        """Where a plugin wants it to be executed."""
        self.counted: bool = False
        """What it used was counted here, though it is kept as if its provider had reported it."""
        self.rewriter: Rewriter | None = None
        """Looks at each event of a streamed answer."""
        self.shadow: Copy | None = None
        """It is a copy of another call."""


def extras_of(call: Call) -> Extras:
    """Return a call's extras, made when there are none."""
    extras = call.extras
    if extras is None:
        extras = call.extras = Extras()
    return extras


def was_counted(call: Call) -> bool:
    """Tell whether what a call used was counted here, and not reported by its provider."""
    return call.extras is not None and call.extras.counted

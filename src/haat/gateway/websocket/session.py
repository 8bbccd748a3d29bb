"""What the gateway and the WebSocket process say to each other about one session, on a socket of this machine.

The gateway opens a connection for each session it has admitted and sends an opening handshake with an
`Admission` in headers of its own. After ``101`` the connection carries WebSocket frames and nothing else.
Beside it, ``GET /sessions/{id}`` tells how a session ended, and ``GET /sessions/{id}/end`` ends one.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable

import msgspec

HEADER = "X-Haat-Admission"
_PART = 4096
"""Characters of an admission in one header line: servers bound the length of lines, not their number."""


class Admission(msgspec.Struct, frozen=True, array_like=True):
    """Everything the WebSocket process needs to know of a session."""

    session: str
    """The call's id."""
    url: str
    headers: list[tuple[str, str]]
    networks: list[str]
    max_message_bytes: int
    connect_seconds: float


class Ended(msgspec.Struct, frozen=True):
    """How a session ended: ``outcome`` is that of the usage event, ``code`` the one the client was closed with."""

    outcome: str
    code: int


def header_lines(admission: Admission) -> bytes:
    """Return the admission as header lines."""
    text = base64.b64encode(msgspec.msgpack.encode(admission)).decode("ascii")
    parts = (text[at : at + _PART] for at in range(0, len(text), _PART))
    return "".join(f"{HEADER}: {part}\r\n" for part in parts).encode("ascii")


def read_admission(parts: Iterable[str]) -> Admission:
    """Read the values of an admission's headers; raise msgspec.MsgspecError or ValueError."""
    return msgspec.msgpack.decode(base64.b64decode("".join(parts), validate=True), type=Admission)

"""What the gateway and the WebSocket process say to each other about one session, on a socket of this machine.

The gateway opens a connection for each session it has admitted and sends an opening handshake with an
`Admission` in headers of its own. After ``101`` the connection carries WebSocket frames and nothing else.
Beside it, ``GET /sessions/{id}`` tells how a session ended, and ``GET /sessions/{id}/end`` ends one.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

HEADER = "X-Haat-Admission"
_DESCRIPTORS = Path("/proc/self/fd")
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


class Rendezvous:
    """Where the two meet: a socket in the data directory, however long that directory's name is."""

    def __init__(self, data_dir: Path) -> None:
        home = data_dir / "gateway"
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.socket = home / "websocket.sock"
        self._folder = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    @property
    def path(self) -> str:
        """A name for the socket that fits into the 108 bytes that an address has."""
        if not _DESCRIPTORS.is_dir():
            return str(self.socket)
        return f"{_DESCRIPTORS}/{self._folder}/{self.socket.name}"

    def close(self) -> None:
        folder, self._folder = self._folder, -1
        if folder >= 0:
            os.close(folder)

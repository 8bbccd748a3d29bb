"""Where the gateway meets the processes beside it that speak a protocol for it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

BACKLOG = 2048
_DESCRIPTORS = Path("/proc/self/fd")
WEBSOCKET, SPEECH, BRIDGE, FRONT = "websocket.sock", "speech.sock", "bridge.sock", "front.sock"
LISTENER = "HAAT_BRIDGE_LISTENER"
"""In the environment of the bridge: the descriptor of a socket that its parent has opened already."""


class Rendezvous:
    """A socket in the data directory, however long that directory's name is."""

    def __init__(self, data_dir: Path, name: str) -> None:
        home = data_dir / "gateway"
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.socket = home / name
        self._folder = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    @property
    def path(self) -> str:
        """A name for the socket that fits into the 108 bytes that an address has."""
        if not _DESCRIPTORS.is_dir():
            return str(self.socket)
        return f"{_DESCRIPTORS}/{self._folder}/{self.socket.name}"

    def listen(self) -> socket.socket:
        """Open the socket in place of one that somebody left behind, for our own account alone.

        Who comes from now on waits until he is taken.
        """
        self.socket.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o077)
        try:
            listener.bind(self.path)
            listener.listen(BACKLOG)
        finally:
            os.umask(before)
        return listener

    def close(self) -> None:
        folder, self._folder = self._folder, -1
        if folder >= 0:
            os.close(folder)

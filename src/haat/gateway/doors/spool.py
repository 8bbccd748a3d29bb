"""A request's body in a file: what must be seen to its end before it can go anywhere, and is too large for memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from haat.kernel.errors import Overloaded

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.upstreams.connection import UpstreamConnection

PIECE = 64 * 1024
"""Bytes that go on in one turn of the event loop."""
Piece = bytes | tuple[int, int]
"""What a body is put together from: bytes, or where they are in the file."""


class Spool:
    """A file without a name: it is gone with the last reference to it, whatever becomes of the call."""

    def __init__(self, folder: Path) -> None:
        try:
            self._file, name = tempfile.mkstemp(prefix="body-", dir=folder)
            Path(name).unlink()
        except OSError as error:
            raise Overloaded("There is no room on the gateway's disk for a request of this kind now.") from error
        self.size = 0
        self._pieces: list[Piece] = []
        self._waiting = False

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self._file)

    def write(self, data: bytes) -> None:
        """Append to the file; raise Overloaded when the disk doesn't take it."""
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            raise Overloaded("There is no room on the gateway's disk for a request of this kind now.") from error
        self.size += len(data)

    def read(self, start: int, end: int) -> bytes:
        """Return a part of the file."""
        return os.pread(self._file, end - start, start)

    def become_body(self, call: Call, pieces: list[Piece]) -> None:
        """Make this the body of a call: it goes to the provider piece by piece, and is not here whole."""
        self._pieces = pieces
        call.body, call.body_complete, call.chunked = [], False, False
        call.content_length = sum(len(one) if isinstance(one, bytes) else one[1] - one[0] for one in pieces)

    def pump(self, call: Call, upstream: UpstreamConnection) -> None:
        """Go on giving the body to the provider, as fast as it takes it."""
        if not self._waiting:
            self._give(call, upstream)

    def _give(self, call: Call, upstream: UpstreamConnection) -> None:
        self._waiting = False
        if call.upstream is not upstream or upstream.write_paused or not self._pieces:
            return
        upstream.send_body(self._next(), False)
        if self._pieces:
            self._waiting = True
            asyncio.get_running_loop().call_soon(self._give, call, upstream)
            return
        call.body_complete = True

    def _next(self) -> bytes:
        piece = self._pieces.pop(0)
        if isinstance(piece, bytes):
            return piece
        start, end = piece
        if end - start > PIECE:
            self._pieces.insert(0, (start + PIECE, end))
            end = start + PIECE
        return self.read(start, end)

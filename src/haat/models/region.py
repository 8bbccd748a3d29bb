"""Memory that an engine and one worker share: the large contents of a batch lie in it and need not be sent.

A worker does one batch at a time, so that its region is all for that batch, and begins anew with the next. Its size is
sealed: a model that shrank the file under us would end us by a signal.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from contextlib import suppress

SIZE = 32 * 1024 * 1024
"""Address space; memory is taken for what was ever laid into it."""
LEAST = 64 * 1024
"""Contents below that are as quickly sent."""


class Region:
    """A shared mapping. ``descriptor`` is what a child is given to open the same."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, SIZE)
        self._used = 0

    @classmethod
    def new(cls) -> Region | None:
        """Return a new one; None where the system has no such memory, and all is sent."""
        if not hasattr(os, "memfd_create"):
            return None
        descriptor = os.memfd_create("haat-batch", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, SIZE)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            return cls(descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def clear(self) -> None:
        """Begin anew."""
        self._used = 0

    def lay(self, content: bytes) -> tuple[int, int] | None:
        """Lay a content down and return where it is; None for one that is small, or finds no room."""
        size, at = len(content), self._used
        if size < LEAST or at + size > SIZE:
            return None
        self._memory[at : at + size] = content
        self._used += size
        return at, size

    def read(self, at: int, size: int) -> bytes:
        """Return a content that the other side has laid down."""
        return self._memory[at : at + size]

    def close(self) -> None:
        """Give it back."""
        self._memory.close()
        with suppress(OSError):
            os.close(self.descriptor)

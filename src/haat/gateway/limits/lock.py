"""A lock among processes that costs a third of a system call's price and outlives nobody.

A POSIX mutex in shared memory, process-shared and robust: when its holder is killed, the kernel gives it
to the next one. `docs/decisions/0008-limits-across-workers.md` has the measurements. Where the C library
has no such mutex (macOS), flock stands in.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
from collections.abc import Callable
from functools import partial

BYTES = 128
"""Room for a mutex; it takes 40 or 48."""
_SHARED = _ROBUST = 1
_SCRATCH = 64


class BrokenLock(OSError):
    """The mutex can't be used any more."""


class RobustMutex:
    """The mutex at ``offset`` of a shared mapping.

    It is called without letting go of the interpreter, because it is held for microseconds: so one
    thread of a process may use it, no more.
    """

    __slots__ = ("_address", "_library", "_memory", "let", "take")

    def __init__(self, memory: mmap.mmap, offset: int) -> None:
        self._library = ctypes.PyDLL(None)
        self._memory = memory  # an address alone doesn't keep a mapping where it is
        self._address = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(memory, offset)))
        self.take: Callable[[], int] = partial(self._library.pthread_mutex_lock, self._address)
        self.let: Callable[[], object] = partial(self._library.pthread_mutex_unlock, self._address)

    @staticmethod
    def exists() -> bool:
        """Tell whether this machine's C library has robust mutexes."""
        return hasattr(ctypes.PyDLL(None), "pthread_mutexattr_setrobust")

    def make(self) -> None:
        """Write a free mutex there. Nobody may be using it."""
        attributes = ctypes.create_string_buffer(_SCRATCH)
        library = self._library
        _check(library.pthread_mutexattr_init(attributes))
        _check(library.pthread_mutexattr_setpshared(attributes, _SHARED))
        _check(library.pthread_mutexattr_setrobust(attributes, _ROBUST))
        _check(library.pthread_mutex_init(self._address, attributes))

    def mend(self, code: int) -> None:
        if code == errno.EOWNERDEAD:
            code = self._library.pthread_mutex_consistent(self._address)
        _check(code)


class FileLock:
    """flock on a descriptor that this process alone uses."""

    __slots__ = ("_descriptor", "let")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.let: Callable[[], object] = partial(fcntl.flock, descriptor, fcntl.LOCK_UN)

    def take(self) -> int:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        return 0

    def mend(self, code: int) -> None:
        _check(code)


def _check(code: int) -> None:
    if code:
        raise BrokenLock(code, os.strerror(code))

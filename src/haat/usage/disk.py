"""The room a journal has left: how full its disk is, and a reserve for what is in flight when it is full.

The reserve is a file of allocated blocks. A write that finds no space gives a step of it back to the
file system and tries again, so that calls already taken can still be recorded and confirmed; from then
on new calls are to be refused, until there is space to make the reserve whole again.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

log = logging.getLogger(__name__)

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Also the limit on the size of a file that a process can be given: it ends in the same way."""
RESERVE_BYTES = 4 * 1024 * 1024
WARNING, CRITICAL = 0.70, 0.85
CROWDED = 0.95
"""From here on what has been shipped is not kept any longer."""
_BACK = 0.01  # a level is left this much below where it is entered, so that nothing flutters
_STEP = 256 * 1024  # given back at a time: whatever else writes to this disk would take the rest


class DiskState(StrEnum):
    HEALTHY = "healthy"
    WARNING = "warning"
    CRITICAL = "critical"
    FULL = "full"
    """Nothing new is to be taken: what is left belongs to what is in flight."""


@dataclass(frozen=True, slots=True)
class Disk:
    """How full it is: ``used`` of what there is, 0 to 1, by the file system or the journal's own bound."""

    used: float
    state: DiskState
    available: int
    """Bytes that can still be written."""


@dataclass(frozen=True, slots=True)
class Space:
    """What a file system says about itself, in bytes."""

    used: int
    available: int

    @property
    def share(self) -> float:
        """How much of it is used, 0 to 1."""
        there = self.used + self.available
        return self.used / there if there else 1.0


def space_of(folder: Path) -> Space:
    """Ask the file system that holds ``folder``, as ``df`` does: what is kept for root is nobody's."""
    said = os.statvfs(folder)
    return Space((said.f_blocks - said.f_bfree) * said.f_frsize, said.f_bavail * said.f_frsize)


class Reserve:
    """The allocated file. Given back by the thread that appends, made whole by the one that syncs."""

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size = path, size
        self._held = 0
        self._descriptor = -1
        self._lock = threading.Lock()

    @property
    def whole(self) -> bool:
        return self._held >= self._size

    @property
    def room_to_fill(self) -> int:
        """Bytes that must be free before it is worth filling it: as much again stays free then."""
        return 2 * self._size - self._held

    def adopt(self) -> None:
        """Take over what a predecessor left; raise OSError when there can't even be a file."""
        with self._lock:
            if self._descriptor < 0:
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            found = os.fstat(self._descriptor)
            self._held = min(found.st_size, found.st_blocks * 512)  # a hole holds nothing

    def fill(self) -> bool:
        """Allocate what is missing; tell whether the reserve is whole."""
        with self._lock:
            if self._descriptor >= 0 and not self.whole:
                try:
                    self._allocate()
                except OSError as error:
                    if error.errno not in NO_SPACE:
                        log.error("the journal's reserve can't be made: %s", error)
                    os.ftruncate(self._descriptor, self._held)  # a part of what is missing helps nobody
                else:
                    self._held = self._size
            return self.whole

    def _allocate(self) -> None:
        try:
            os.posix_fallocate(self._descriptor, 0, self._size)
        except OSError as error:
            if error.errno in NO_SPACE:
                raise
            for at in range(self._held, self._size, _STEP):  # a file system that can't allocate takes zeros
                os.pwrite(self._descriptor, bytes(min(_STEP, self._size - at)), at)

    def give_back(self) -> bool:
        """Return a step to the file system; False when there is none left."""
        with self._lock:
            if self._held <= 0:
                return False
            self._held = max(0, self._held - _STEP)
            os.ftruncate(self._descriptor, self._held)
            return True

    def close(self) -> None:
        """Let go of the file and leave it: a successor on a full disk needs it."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor, self._held = -1, 0


class Gauge:
    """Judges how full the disk is. ``ask`` is the file system's voice, another one in a test."""

    def __init__(self, worker: str, max_bytes: int, ask: Callable[[Path], Space]) -> None:
        self._worker, self._max_bytes, self._ask = worker, max_bytes, ask
        self.disk = Disk(0.0, DiskState.HEALTHY, 0)
        self.exhausted = False
        """The journal has reached its own bound."""

    def read(self, folder: Path) -> Space:
        """Return how much of the room is used: the file system's, or the journal's own when that ends sooner."""
        while not folder.exists():
            folder = folder.parent
        space = self._ask(folder)
        if self._max_bytes:
            own = sum(path.stat().st_size for path in folder.glob("*.log"))
            left = max(0, self._max_bytes - own)
            self.exhausted = left == 0
            if left < space.available:
                return Space(own, left)
        return space

    def judge(self, space: Space, full: bool) -> None:
        """Set `disk`, and log once when it crosses from one state to another."""
        used = space.share
        before = self.disk.state
        state = DiskState.FULL if full else _state(used)
        if state is not before and not full and _state(used + _BACK) is before:
            state = before
        self.disk = Disk(used, state, space.available)
        if state is before:
            return
        percent = round(used * 100)
        if state is DiskState.FULL:
            log.error("the journal of %s has no space left (%d %% used): new calls are refused", self._worker, percent)
        elif before is DiskState.FULL:
            log.warning("the journal of %s has space again (%d %% used): calls are taken", self._worker, percent)
        elif state is DiskState.HEALTHY:
            log.info("the disk of the journal of %s is at %d %% again", self._worker, percent)
        else:
            log.warning("the disk of the journal of %s is %d %% full (%s)", self._worker, percent, state.value)


def _state(used: float) -> DiskState:
    if used >= CRITICAL:
        return DiskState.CRITICAL
    return DiskState.WARNING if used >= WARNING else DiskState.HEALTHY

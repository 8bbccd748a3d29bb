"""The usage journal: append-only segments on the gateway's own disk, one directory a worker.

`haat.usage.frames` says what lies in a segment. A worker writes, at most one process at a time (a lock
file sees to it). It writes each frame with one ``os.write``, which survives SIGKILL; an fsync in the
background bounds what a power cut takes. When it starts it truncates a torn tail that its predecessor
left and seals that segment RECOVERED: ids still unconfirmed at a CLOSED or RECOVERED seal will never be
confirmed. A CONFIRM may lie in a later segment than its USAGE when the segment between was sealed
ROTATED.

A full disk stops nothing for good: see `JournalWriter.full`.

Whoever deletes shipped segments uses `JournalReader.shipped`: it never names the newest segment, so
that numbers go on where they were.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from haat.usage.disk import NO_SPACE, RESERVE_BYTES, Disk, DiskState, Gauge, Reserve, Space, space_of
from haat.usage.frames import (
    KIND_CRC,
    SEALED_BYTES,
    SEGMENT_HEADER,
    START,
    CorruptJournal,
    JournalError,
    JournalInUse,
    Kind,
    NoSpace,
    Position,
    SealReason,
    TooNew,
    confirmed_ids,
    encode_frame,
    is_sealed,
    pack_header,
    segment_path,
    segments,
    workers,
)
from haat.usage.reader import JournalReader
from haat.usage.scan import Frame, scan

__all__ = [
    "START",
    "CorruptJournal",
    "Frame",
    "JournalError",
    "JournalInUse",
    "JournalReader",
    "JournalWriter",
    "Kind",
    "NoSpace",
    "Position",
    "SealReason",
    "TooNew",
    "confirmed_ids",
    "encode_frame",
    "segment_path",
    "segments",
    "workers",
]

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often the disk is looked at."""
_WORKER = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
_SLOWLY = -1

_crc32 = zlib.crc32
_os_write = os.write


class JournalWriter:
    """Appends to one worker's journal. One thread appends; another one syncs and looks at the disk.

    ``sync_ms`` is what a power cut may lose, in milliseconds; 0 waits for the disk on each append.
    ``max_bytes`` bounds the worker's segments together, looked at once a second; 0 leaves it to the disk.
    ``ask`` tells how full the file system is. Raise JournalInUse when another process has this journal.

    A disk without space does not keep the writer from being made: it is `full` then, and opens the
    journal by itself when there is space.
    """

    def __init__(
        self,
        directory: Path,
        worker: str,
        segment_bytes: int,
        sync_ms: int,
        *,
        max_bytes: int = 0,
        reserve_bytes: int = RESERVE_BYTES,
        ask: Callable[[Path], Space] = space_of,
    ) -> None:
        if not _WORKER.match(worker):
            raise ValueError(f"{worker!r} can't name a worker: use letters, digits, dots and hyphens")
        self.directory, self.worker = directory, worker
        self._folder = directory / worker
        self._segment_bytes, self._sync_ms = segment_bytes, sync_ms
        # Of the segment being written. `_limit` is the size up to which a frame just goes there; whatever
        # needs more thought than that sets it to `_SLOWLY`.
        self._number, self._descriptor, self._size, self._begun = 0, -1, 0, 0
        self._limit = _SLOWLY
        self._sealed = True
        self._kept: list[bytes] = []
        """Frames that go to the file with the next `flush`."""
        self._kept_bytes = 0
        self._broken = False
        self._dirty = False
        self._lock = -1
        self._opened = False
        self._failure: OSError | None = None
        self._retired: deque[int] = deque()
        self._closing = threading.Event()
        self._reserve = Reserve(self._folder / "reserve", reserve_bytes)
        self._gauge = Gauge(worker, max_bytes, ask)
        try:
            self._open()
        except NoSpace as error:
            log.error("the journal of %s can't be opened yet: %s", worker, error)
        except JournalError:
            self._let_go()
            raise
        self._look_at_disk()
        self._syncer = threading.Thread(target=self._sync_forever, name=f"journal-{worker}", daemon=True)
        self._syncer.start()

    @property
    def full(self) -> bool:
        """No new call may be taken: what is left of the reserve belongs to those in flight."""
        return not self._reserve.whole or self._gauge.exhausted or not self._opened

    @property
    def disk(self) -> Disk:
        """How full the disk was when it was last looked at; that it is full is known at once."""
        disk = self._gauge.disk
        return replace(disk, state=DiskState.FULL) if self.full else disk

    @property
    def position(self) -> Position:
        """The place where the next frame will stand: after a seal, that is the next segment's beginning."""
        if self._sealed:
            return Position(self._number + 1, self._kept_bytes)
        return Position(self._number, self._size + self._kept_bytes)

    def keep(self, kind: int, payload: bytes) -> None:
        """Take one frame that is written with the next `flush`, or before whatever is appended until then."""
        frame = pack_header(len(payload) + 1, _crc32(payload, KIND_CRC[kind]), kind) + payload
        self._kept.append(frame)
        self._kept_bytes += len(frame)

    def flush(self) -> None:
        """Write all frames that were kept, or none; raise JournalError when the disk does not take them."""
        kept = self._kept
        if kept:
            self._kept, self._kept_bytes = [], 0
            self._put(kept[0] if len(kept) == 1 else b"".join(kept))

    def append(self, kind: int, payload: bytes) -> None:
        """Write one frame; raise JournalError when the disk does not take it."""
        if self._kept:
            self.flush()
        self._put(pack_header(len(payload) + 1, _crc32(payload, KIND_CRC[kind]), kind) + payload)

    def _put(self, frame: bytes) -> None:
        """Write a frame, or several, whole or not at all."""
        size = self._size + len(frame)
        if size > self._limit:
            self._append_slowly(frame)
            return
        try:
            written = _os_write(self._descriptor, frame)
        except OSError as error:
            self._try_again(frame, error)
            return
        if written == len(frame):
            self._size = size
            self._dirty = True
        else:
            self._broken = True
            self._limit = _SLOWLY
            self._try_again(frame, None)

    def confirm(self, identifiers: Iterable[bytes]) -> None:
        """Declare the USAGE frames of these ids (16 bytes each) final."""
        payload = b"".join(identifiers)
        if payload:
            self.append(Kind.CONFIRM, payload)

    def close(self, reason: SealReason = SealReason.CLOSED) -> None:
        """Seal the segment, bring everything to the disk and let the journal go."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._syncer.join()
        self._limit = _SLOWLY
        try:
            if self._failure is None and not self._sealed:
                self.flush()
                self._write(encode_frame(Kind.SEAL, bytes([reason])))
                self._sealed = True
            if self._descriptor >= 0:
                os.fsync(self._descriptor)
        except OSError as error:
            log.error("the journal of %s could not be closed in order: %s", self.worker, error)
        finally:
            self._failure = self._failure or JournalError("it is closed")
            self._let_go()

    def _let_go(self) -> None:
        self._reserve.close()
        for descriptor in (self._descriptor, *self._retired, self._lock):
            if descriptor >= 0:
                with contextlib.suppress(OSError):
                    os.close(descriptor)

    # --- opening --------------------------------------------------------------------------------

    def _open(self) -> None:
        """Take the journal over from a predecessor; raise JournalInUse, NoSpace, JournalError.

        Done again when the disk had no space: what was reached stays reached.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._lock < 0:
                self._lock = self._take_lock()
            self._reserve.adopt()
            self._sparing(self._take_over)
        except OSError as error:
            raise _journal_error(f"the journal of {self.worker} can't be opened", error) from error
        self._opened = True

    def _take_over(self) -> None:
        present = segments(self.directory, self.worker)
        if present:
            _recover(segment_path(self.directory, self.worker, present[-1]))
        self._begin(present[-1] + 1 if present else 1)

    def _take_lock(self) -> int:
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise JournalInUse(f"another process writes the journal of {self.worker}") from error
        return descriptor

    def _begin(self, number: int) -> None:
        """Begin a segment; the one before is sealed. Raise OSError and leave no trace."""
        path = segment_path(self.directory, self.worker, number)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        header = encode_frame(Kind.HEADER, SEGMENT_HEADER)
        descriptor = os.open(path, flags, 0o600)
        try:
            if _os_write(descriptor, header) != len(header):
                raise NoSpace("the disk has no room for another journal segment")
            _sync_folder(self._folder)
        except OSError:
            os.close(descriptor)
            path.unlink()
            raise
        self._number, self._descriptor = number, descriptor
        self._size = self._begun = len(header)
        self._sealed = False

    # --- writing, when it is not straightforward ------------------------------------------------

    def _append_slowly(self, frame: bytes) -> None:
        """Begin the next segment, wait for the disk, or say what is wrong."""
        if self._failure is not None:
            raise JournalError(f"the journal can't be written: {self._failure}") from self._failure
        if not self._opened:
            raise NoSpace("the disk has no room for the journal")
        full = self._size > self._begun and self._size + len(frame) + SEALED_BYTES > self._segment_bytes
        if self._sealed or full:
            self._rotate()
        self._write(frame)
        if self._sync_ms == 0:
            self._sync_now(self._descriptor)
            return
        self._dirty = True
        self._limit = self._segment_bytes - SEALED_BYTES
        if self._failure is not None:  # the syncing thread found it meanwhile, and its `_SLOWLY` must stand
            self._limit = _SLOWLY

    def _try_again(self, frame: bytes, error: OSError | None) -> None:
        """A write failed, or half of it did: with space from the reserve it may pass."""
        if error is not None and error.errno not in NO_SPACE:
            raise JournalError(f"the journal can't be written: {error}") from error
        self._write(frame)
        self._dirty = True

    def _rotate(self) -> None:
        """Seal the segment, then begin the next: a segment that has a successor is always sealed.

        When the disk refuses half-way, the next append goes on from there. The full segment's last
        bytes are synced by the background thread, which also closes it.
        """
        self._limit = _SLOWLY
        full = self._descriptor
        if not self._sealed:
            self._write(encode_frame(Kind.SEAL, bytes([SealReason.ROTATED])))
            self._sealed = True
        try:
            self._sparing(lambda: self._begin(self._number + 1))
        except OSError as error:
            raise _journal_error("a journal segment can't be begun", error) from error
        if self._sync_ms == 0:
            self._sync_now(full)
            os.close(full)
        else:
            self._retired.append(full)

    def _write(self, frame: bytes) -> None:
        """Write a frame whole or not at all, if need be with space from the reserve."""

        def write() -> None:
            if self._broken:  # half a frame lies at the end: nothing may follow it until it is cut away
                os.ftruncate(self._descriptor, self._size)
                self._broken = False
            written = _os_write(self._descriptor, frame)
            if written != len(frame):
                self._broken = True
                self._limit = _SLOWLY
                os.ftruncate(self._descriptor, self._size)
                self._broken = False
                raise NoSpace(f"the disk took {written} of {len(frame)} bytes: it is probably full")

        try:
            self._sparing(write)
        except OSError as error:
            raise _journal_error("the journal can't be written", error) from error
        self._size += len(frame)

    def _sparing(self, act: Callable[[], None]) -> None:
        """Do what needs space; as long as there is none, give back some of the reserve and do it again."""
        while True:
            try:
                act()
                return
            except OSError as error:
                if error.errno not in NO_SPACE and not isinstance(error, NoSpace):
                    raise
                if not self._reserve.give_back():
                    raise

    # --- the background -------------------------------------------------------------------------

    def _sync_now(self, descriptor: int) -> None:
        try:
            os.fdatasync(descriptor)
        except OSError as error:
            self._fail(error)
            raise JournalError(f"the disk failed: {error}") from error

    def _fail(self, error: OSError) -> None:
        """After a failed fsync nobody knows what the disk holds: nothing is taken any more."""
        self._failure = error
        self._limit = _SLOWLY

    def _sync_forever(self) -> None:
        pause = self._sync_ms / 1000 if self._sync_ms else LOOK_SECONDS
        looked = time.monotonic()
        while not self._closing.wait(min(pause, LOOK_SECONDS)):
            if self._sync_ms and self._failure is None:
                try:
                    self._sync()
                except OSError as error:
                    log.error("the journal of %s can't be brought to the disk: %s", self.worker, error)
                    self._fail(error)
            if time.monotonic() - looked >= LOOK_SECONDS:
                looked = time.monotonic()
                self._look_at_disk()

    def _sync(self) -> None:
        dirty, self._dirty = self._dirty, False
        if dirty:  # a segment retired at this moment stays open until this thread closes it below
            os.fdatasync(self._descriptor)
        while self._retired:
            os.fdatasync(self._retired[0])
            os.close(self._retired.popleft())

    def _look_at_disk(self) -> None:
        """Judge the disk; when there is space again, make the reserve whole and take calls again."""
        try:
            if not self._opened:
                with contextlib.suppress(NoSpace):
                    self._open()
            space = self._gauge.read(self._folder)
            if self._opened and not self._reserve.whole and space.available >= self._reserve.room_to_fill:
                self._reserve.fill()
            self._gauge.judge(space, self.full)
        except OSError as error:  # the next look may see more
            log.error("the disk of the journal of %s can't be looked at: %s", self.worker, error)


def _journal_error(what: str, error: OSError) -> JournalError:
    if isinstance(error, JournalError):
        return error
    kind = NoSpace if error.errno in NO_SPACE else JournalError
    return kind(f"{what}: {error}")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _recover(path: Path) -> None:
    """Cut a torn tail off the segment a dead worker left and seal it; raise OSError.

    A bad frame that is not torn is damage: whatever follows it is kept beside the segment.
    """
    if is_sealed(path):
        return
    data = path.read_bytes()
    good = len(data)
    _, bad = scan(data)
    if bad is not None:
        good = bad.offset
        if not bad.torn:
            saved = path.with_suffix(".damaged")
            saved.write_bytes(data[good:])
            log.error("%s is damaged at byte %d (%s): the rest is in %s", path, good, bad.reason, saved)
    seal = encode_frame(Kind.SEAL, bytes([SealReason.RECOVERED]))
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        os.ftruncate(descriptor, good)
        if os.write(descriptor, seal) != len(seal):
            os.ftruncate(descriptor, good)
            raise NoSpace(f"the disk has no room to seal {path}")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

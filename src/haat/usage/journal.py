"""The usage journal: append-only segments on the gateway's own disk, one directory a worker.

``<directory>/<worker>/00000001.log`` and so on; segments are numbered from 1. A frame is

    u32 length of kind and payload · u32 CRC-32 of kind and payload · u8 kind · payload   (little-endian)

    USAGE (1)       JSON of a `UsageEvent`. While its id is unconfirmed, a later USAGE frame with the
                    same id replaces it (the caller left before the kernel took the answer).
    CONFIRM (2)     ids, 16 bytes each: their USAGE frames, which always lie before, are final.
    OPEN (3)        JSON of a `UsageEvent` with outcome ``interrupted``: a stream about to be dispatched.
    CHECKPOINT (4)  JSON of a `Checkpoint`: how far that stream has come.
    SEAL (5)        one byte, a `SealReason`. The last frame of a segment.

A worker writes, at most one process at a time (a lock file sees to it). It writes each frame with
one ``os.write``, which survives SIGKILL; an fsync in the background bounds what a power cut takes.
When it starts it truncates a torn tail that its predecessor left and seals that segment RECOVERED:
ids still unconfirmed at a CLOSED or RECOVERED seal will never be confirmed. A CONFIRM may lie in a
later segment than its USAGE when the segment between was sealed ROTATED.

Whoever deletes shipped segments uses `JournalReader.shipped`: it never names the newest segment, so
that numbers go on where they were.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import struct
import threading
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger(__name__)

_HEADER = struct.Struct("<IIB")
_CHECKED = 1  # the kind byte counts towards the length and the checksum
_PREFIX = _HEADER.size - _CHECKED
MAX_FRAME_BYTES = 4 * 1024 * 1024
ID_BYTES = 16
_NAME = re.compile(r"^[0-9]{8,}\.log$")
_WORKER = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")


class Kind(IntEnum):
    USAGE = 1
    CONFIRM = 2
    OPEN = 3
    CHECKPOINT = 4
    SEAL = 5


class SealReason(IntEnum):
    ROTATED = 0
    """The segment was full; the same process goes on in the next one."""
    CLOSED = 1
    """The worker ended in order."""
    RECOVERED = 2
    """The worker died; its successor sealed what was there."""


_SEALED_BYTES = _HEADER.size + 1


class Position(NamedTuple):
    """A place between two frames: a segment's number and a byte offset in it."""

    segment: int
    offset: int


START = Position(0, 0)
"""Before the oldest segment there is."""


class Frame(NamedTuple):
    kind: int
    payload: bytes
    end: Position
    """The place after this frame: what a reader remembers once the frame is dealt with."""


class JournalError(OSError):
    """A record could not be written: serve nothing unmetered."""


class JournalInUse(JournalError):
    """Another process writes this worker's journal."""


class CorruptJournal(Exception):
    """A sealed segment can't be read on; the sentence says where and what to do."""

    def __init__(self, path: Path, offset: int, reason: str) -> None:
        self.path, self.offset = path, offset
        super().__init__(
            f"{path} is damaged at byte {offset}: {reason}. Restore the file from a backup, or move it away "
            "and accept that the records after that byte are lost."
        )


def segment_path(directory: Path, worker: str, segment: int) -> Path:
    return directory / worker / f"{segment:08d}.log"


def workers(directory: Path) -> list[str]:
    """Return the names of all workers that have written a journal below ``directory``."""
    if not directory.is_dir():
        return []
    return sorted(path.name for path in directory.iterdir() if path.is_dir() and segments(directory, path.name))


def segments(directory: Path, worker: str) -> list[int]:
    """Return the numbers of a worker's segments, ascending."""
    folder = directory / worker
    if not folder.is_dir():
        return []
    return sorted(int(path.stem) for path in folder.iterdir() if _NAME.match(path.name))


def encode_frame(kind: int, payload: bytes) -> bytes:
    return _HEADER.pack(len(payload) + _CHECKED, zlib.crc32(payload, _KIND_CRC[kind]), kind) + payload


_KIND_CRC = [zlib.crc32(bytes([kind])) for kind in range(256)]


def confirmed_ids(payload: bytes) -> list[bytes]:
    """Return the 16-byte ids in a CONFIRM payload."""
    return [payload[at : at + ID_BYTES] for at in range(0, len(payload) - ID_BYTES + 1, ID_BYTES)]


class _Bad(NamedTuple):
    offset: int
    reason: str
    torn: bool
    """The frame reaches beyond the end of the data: more may be on its way."""


def _scan(data: bytes, base: int = 0) -> Iterator[tuple[int, bytes, int] | _Bad]:
    """Yield (kind, payload, offset after it) for each good frame; end with a `_Bad` if bytes remain."""
    at, size = 0, len(data)
    while at < size:
        if size - at < _HEADER.size:
            yield _Bad(base + at, "a frame's header is cut short", torn=True)
            return
        length, checksum, kind = _HEADER.unpack_from(data, at)
        end = at + _PREFIX + length
        if not _CHECKED <= length <= MAX_FRAME_BYTES:
            yield _Bad(base + at, f"a frame claims {length} bytes", torn=False)
            return
        if end > size:
            yield _Bad(base + at, "a frame is cut short", torn=True)
            return
        payload = data[at + _HEADER.size : end]
        if zlib.crc32(payload, _KIND_CRC[kind]) != checksum:
            yield _Bad(base + at, "a frame's checksum is wrong", torn=False)
            return
        yield kind, payload, base + end
        at = end


def is_sealed(path: Path) -> bool:
    """Tell whether a segment ends with a SEAL frame."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _SEALED_BYTES))
        tail = file.read()
    return any(tail == encode_frame(Kind.SEAL, bytes([reason])) for reason in SealReason)


class JournalReader:
    """Reads one worker's journal, while it is being written or after."""

    def __init__(self, directory: Path, worker: str) -> None:
        self.directory, self.worker = directory, worker

    def read(self, position: Position = START, max_bytes: int = 1 << 20) -> list[Frame]:
        """Return the frames after ``position``, about ``max_bytes`` of them; none when none are there yet.

        Frames of one call lie in one segment; after a SEAL frame the next call reads the next one.
        Raise CorruptJournal for a bad frame in a sealed segment and for a segment that is missing. A
        bad or torn tail of the live segment is simply not there yet.
        """
        present = segments(self.directory, self.worker)
        if position == START:
            if not present:
                return []
            position = Position(present[0], 0)
        path = segment_path(self.directory, self.worker, position.segment)
        if position.segment not in present:
            last = present[-1] if present else 0
            if position.segment == last + 1:
                return []  # the segment before was sealed, this one is not begun yet
            raise CorruptJournal(path, position.offset, "the segment is missing")
        sealed = position.segment < present[-1] or is_sealed(path)
        while True:
            with path.open("rb") as file:
                file.seek(position.offset)
                data = file.read(max_bytes + _HEADER.size)
                whole = not file.read(1)
            frames = []
            for found in _scan(data, position.offset):
                if isinstance(found, _Bad):
                    if sealed and (whole or not found.torn):
                        raise CorruptJournal(path, found.offset, found.reason)
                    break
                kind, payload, end = found
                follows = Position(position.segment + 1, 0) if kind == Kind.SEAL else Position(position.segment, end)
                frames.append(Frame(kind, payload, follows))
                if kind == Kind.SEAL:
                    break
            if sealed and whole and not (frames and frames[-1].kind == Kind.SEAL):
                raise CorruptJournal(path, position.offset + len(data), "it ends without a seal")
            if frames or whole or max_bytes > MAX_FRAME_BYTES:
                return frames
            max_bytes = MAX_FRAME_BYTES + _HEADER.size  # one frame is larger than what was asked for

    def shipped(self, position: Position) -> list[Path]:
        """Return the segments that lie wholly before ``position`` and may be deleted."""
        present = segments(self.directory, self.worker)
        return [segment_path(self.directory, self.worker, n) for n in present[:-1] if n < position.segment]


@dataclass(slots=True)
class _Segment:
    number: int
    descriptor: int
    size: int
    sealed: bool = False


class JournalWriter:
    """Appends to one worker's journal. One thread appends; another one syncs to the disk.

    ``sync_ms`` is what a power cut may lose, in milliseconds; 0 waits for the disk on each append.
    Raise JournalInUse when another process has this worker's journal.
    """

    def __init__(self, directory: Path, worker: str, segment_bytes: int, sync_ms: int) -> None:
        if not _WORKER.match(worker):
            raise ValueError(f"{worker!r} can't name a worker: use letters, digits, dots and hyphens")
        self.directory, self.worker = directory, worker
        self._segment_bytes, self._sync_ms = segment_bytes, sync_ms
        self._folder = directory / worker
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = self._take_lock()
        self._failure: OSError | None = None
        self._broken = False
        self._dirty = False
        self._retired: deque[int] = deque()
        self._closing = threading.Event()
        present = segments(directory, worker)
        if present:
            _recover(segment_path(directory, worker, present[-1]))
        self._segment = self._begin(present[-1] + 1 if present else 1)
        self._syncer: threading.Thread | None = None
        if sync_ms > 0:
            self._syncer = threading.Thread(target=self._sync_forever, name=f"journal-{worker}", daemon=True)
            self._syncer.start()

    @property
    def position(self) -> Position:
        """The place where the next frame will stand: after a seal, that is the next segment's beginning."""
        if self._segment.sealed:
            return Position(self._segment.number + 1, 0)
        return Position(self._segment.number, self._segment.size)

    def append(self, kind: int, payload: bytes) -> None:
        """Write one frame; raise JournalError when the disk does not take it."""
        if self._failure is not None:
            raise JournalError(f"the journal can't be written: {self._failure}") from self._failure
        frame = encode_frame(kind, payload)
        segment = self._segment
        if segment.sealed or (segment.size and segment.size + len(frame) + _SEALED_BYTES > self._segment_bytes):
            self._rotate()
            segment = self._segment
        self._write(segment, frame)
        if self._sync_ms == 0:
            self._sync_now(segment.descriptor)
        else:
            self._dirty = True

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
        if self._syncer is not None:
            self._syncer.join()
        try:
            if self._failure is None and not self._segment.sealed:
                self._write(self._segment, encode_frame(Kind.SEAL, bytes([reason])))
                self._segment.sealed = True
            os.fsync(self._segment.descriptor)
        except OSError as error:
            log.error("the journal of %s could not be closed in order: %s", self.worker, error)
        finally:
            for descriptor in (self._segment.descriptor, *self._retired, self._lock):
                with contextlib.suppress(OSError):
                    os.close(descriptor)

    def _take_lock(self) -> int:
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise JournalInUse(f"another process writes the journal of {self.worker}") from error
        return descriptor

    def _begin(self, number: int) -> _Segment:
        path = segment_path(self.directory, self.worker, number)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise JournalError(f"a journal segment can't be begun: {error}") from error
        _sync_folder(self._folder)
        return _Segment(number, descriptor, 0)

    def _rotate(self) -> None:
        """Seal the segment, then begin the next: a segment that has a successor is always sealed.

        When the disk refuses half-way, the next append goes on from there. The full segment's last
        bytes are synced by the background thread, which also closes it.
        """
        full = self._segment
        if not full.sealed:
            self._write(full, encode_frame(Kind.SEAL, bytes([SealReason.ROTATED])))
            full.sealed = True
        self._segment = self._begin(full.number + 1)
        if self._sync_ms == 0:
            self._sync_now(full.descriptor)
            os.close(full.descriptor)
        else:
            self._retired.append(full.descriptor)

    def _write(self, segment: _Segment, frame: bytes) -> None:
        if self._broken:  # half a frame lies at the end: nothing may follow it until it is cut away
            self._cut(segment)
        try:
            written = os.write(segment.descriptor, frame)
        except OSError as error:
            raise JournalError(f"the journal can't be written: {error}") from error
        if written != len(frame):
            self._broken = True
            self._cut(segment)
            raise JournalError(f"the disk took {written} of {len(frame)} bytes: it is probably full")
        segment.size += written

    def _cut(self, segment: _Segment) -> None:
        try:
            os.ftruncate(segment.descriptor, segment.size)
        except OSError as error:
            raise JournalError(f"half a record can't be taken back: {error}") from error
        self._broken = False

    def _sync_now(self, descriptor: int) -> None:
        try:
            os.fdatasync(descriptor)
        except OSError as error:
            self._failure = error  # after a failed fsync nobody knows what the disk holds
            raise JournalError(f"the disk failed: {error}") from error

    def _sync_forever(self) -> None:
        while not self._closing.wait(self._sync_ms / 1000):
            dirty, self._dirty = self._dirty, False
            try:
                if dirty:  # a segment retired at this moment stays open until this thread closes it below
                    os.fdatasync(self._segment.descriptor)
                while self._retired:
                    os.fdatasync(self._retired[0])
                    os.close(self._retired.popleft())
            except OSError as error:
                log.error("the journal of %s can't be brought to the disk: %s", self.worker, error)
                self._failure = error
                return


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _recover(path: Path) -> None:
    """Cut a torn tail off the segment a dead worker left and seal it.

    A bad frame that is not torn is damage: whatever follows it is kept beside the segment.
    """
    if is_sealed(path):
        return
    data = path.read_bytes()
    good = len(data)
    for found in _scan(data):
        if isinstance(found, _Bad):
            good = found.offset
            if not found.torn:
                saved = path.with_suffix(".damaged")
                saved.write_bytes(data[good:])
                log.error("%s is damaged at byte %d (%s): the rest is in %s", path, good, found.reason, saved)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        os.ftruncate(descriptor, good)
        os.write(descriptor, encode_frame(Kind.SEAL, bytes([SealReason.RECOVERED])))
        os.fsync(descriptor)
    except OSError as error:
        raise JournalError(f"{path} can't be sealed: {error}") from error
    finally:
        os.close(descriptor)

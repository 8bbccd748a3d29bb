"""The counts of the limits in one file that all gateway processes of a machine map: ``limits.shm``.

    header: magic · boot · inode · slots · end · high · clock · ready · mutex · for each slot, where in its
            journal the life of its process began, and a place up to which everything is counted here
    records, one after the other (`haat.gateway.limits.counts`)

A record that outgrows its place is written anew at the end; the last one of a key is the good one.
Moving ``end`` is what makes a record be there, so that a process killed while it writes one leaves
nothing behind. The file is mapped and grown by regions of a megabyte, taken from the disk before they
are used: a full disk is an error here and no signal later.

What is in the file survives the death of processes, not that of the machine: it is never brought to the
disk on purpose, and a file of another boot is not believed.

Two lock files say who is there: ``limits.start`` is held by the one process that is starting,
``limits.use`` is shared by all that run. Who finds nobody else in ``limits.use`` may rebuild the file.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import mmap
import os
from pathlib import Path
from typing import Final

from haat.gateway.limits.counts import END, FLYING, SIGNALS, SLOT_CELLS, SLOTS, Counts, shape, size_of
from haat.gateway.limits.lock import BYTES, FileLock, RobustMutex
from haat.gateway.limits.windows import AREAS, FIRST, KEY_BYTES, RING, SIZE, TAT, history, replay

log = logging.getLogger(__name__)

_MAGIC: Final = int.from_bytes(b"HAATLIM\x01", "little")
_BOOT, _INODE, _SLOTS, _, _HIGH, _CLOCK, _READY = range(1, 8)
_MUTEX: Final = 8
_LIVES: Final = _MUTEX + BYTES // 8
MOST_SLOTS: Final = 64
_PLACES: Final = _LIVES + MOST_SLOTS
_SIGNALS: Final = _PLACES + 2 * MOST_SLOTS
_RECORDS: Final = 256
REGION: Final = 1 << 17
"""Cells in a region."""
_TOLERATED_US: Final = 10_000
"""A step of the wall clock between two starts that is not worth a rewriting of all times, in microseconds."""
_WASTE: Final = 4


class UnusableCounts(Exception):
    """The file is damaged, of another version, of another boot, or was not finished."""


class SharedCounts(Counts):
    """The records in an open file."""

    def __init__(self, descriptor: int, slot: int) -> None:
        super().__init__(slot=slot)
        self._descriptor = descriptor
        self._maps: list[mmap.mmap] = []
        self._regions: list[memoryview[int]] = []
        self._at: dict[str, int] = {}
        self.seen = self._next = _RECORDS
        self.header = self._region(0)
        self.slots = self.header[_SLOTS]

    @property
    def signals(self) -> memoryview[int]:
        return self.header[_SIGNALS : _SIGNALS + SIGNALS]

    def share(self, fresh: bool) -> None:
        """Lock from now on; ``fresh`` when nobody else has the file."""
        if not RobustMutex.exists():
            self.lock = FileLock(self._descriptor)
            return
        mutex = RobustMutex(self._maps[0], 8 * _MUTEX)
        if fresh:
            mutex.make()
        self.lock = mutex

    @property
    def clock(self) -> int:
        """Nanoseconds between the machine's steady clock and the time in the records."""
        return self.header[_CLOCK]

    def life(self, slot: int) -> int:
        """Return the journal segment with which the last process in a slot began, 0 for none."""
        return self.header[_LIVES + slot]

    def begin_life(self, segment: int) -> None:
        self.header[_LIVES + self.slot] = segment

    def note(self, position: tuple[int, int]) -> None:
        """Say that all that lies before this place of the own journal is counted."""
        at = _PLACES + 2 * self.slot
        self.header[at], self.header[at + 1] = position

    def noted(self) -> dict[int, tuple[int, int]]:
        """Return those places by slot, for the slots that have one."""
        places = [(self.header[at], self.header[at + 1]) for at in range(_PLACES, _PLACES + 2 * self.slots, 2)]
        return {slot: place for slot, place in enumerate(places) if place[0]}

    def mark_ready(self) -> None:
        """Say that the records tell the truth."""
        self.header[_READY] = 1

    def look(self) -> int:
        if self.header[END] != self.seen:
            self._learn()
        return self.version

    def find(self, key: str) -> memoryview[int] | None:
        at = self._at.get(key)
        return None if at is None else self._record(at)

    @property
    def number(self) -> int:
        return len(self._at)

    def keys(self) -> list[str]:
        return list(self._at)

    @property
    def wasteful(self) -> bool:
        """Whether most of the file is records that have moved on."""
        live = sum(self._record(at)[SIZE] for at in self._at.values())
        return self.seen > REGION and self.seen > _WASTE * live

    def close(self) -> None:
        os.close(self._descriptor)

    def _learn(self) -> None:
        at, end = self.seen, self.header[END]
        while at < end:
            region = self._region(at // REGION)
            size = region[at % REGION]
            if size > 0:
                key = _key(region[at % REGION : at % REGION + size])
                if key in self._at:
                    self.version += 1
                self._at[key] = at
            at += abs(size)
        self.seen = end

    def _record(self, at: int) -> memoryview[int]:
        region = self._region(at // REGION)
        return region[at % REGION : at % REGION + region[at % REGION]]

    def _room(self, key: str, ring: int, areas: int) -> memoryview[int]:
        name = key.encode()
        size, header, at = size_of(ring, areas, name, self.slots), self.header, self.header[END]
        rest = REGION - at % REGION
        self._next = at + size if size <= rest else at + rest + size
        region = self._region((self._next - 1) // REGION)
        if header[_HIGH] > at:  # somebody was killed while writing here
            for dirty in range(at, header[_HIGH]):
                self._region(dirty // REGION)[dirty % REGION] = 0
        header[_HIGH] = self._next
        if size > rest:
            self._region(at // REGION)[at % REGION] = -rest
            at += rest
        cells = region[at % REGION : at % REGION + size]
        shape(cells, ring, areas, name, self.slots)
        return cells

    def _put(self, key: str, cells: memoryview[int]) -> memoryview[int]:
        self.header[END] = self.seen = self._next
        if key in self._at:
            self.version += 1
        self._at[key] = self._next - cells[SIZE]
        return cells

    def _region(self, number: int) -> memoryview[int]:
        while len(self._regions) <= number:
            self._map(len(self._regions))
        return self._regions[number]

    def _map(self, number: int) -> None:
        size = 8 * REGION
        if os.fstat(self._descriptor).st_size < (number + 1) * size:
            os.posix_fallocate(self._descriptor, number * size, size)
        self._maps.append(mmap.mmap(self._descriptor, size, offset=number * size))
        self._regions.append(memoryview(self._maps[-1]).cast("q"))


def create(path: Path, slots: int, slot: int, clock: int) -> SharedCounts:
    """Put an empty file in the place of whatever is there; raise OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, 8 * REGION)
        with mmap.mmap(descriptor, 8 * REGION) as memory, memoryview(memory) as octets, octets.cast("q") as header:
            header[0], header[_BOOT], header[_INODE] = _MAGIC, boot(), os.fstat(descriptor).st_ino
            header[_SLOTS], header[END], header[_CLOCK] = slots, _RECORDS, clock
        fresh.replace(path)
        return SharedCounts(descriptor, slot)
    except OSError:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


def reopen(path: Path, slot: int) -> SharedCounts:
    """Open the file that is there; raise FileNotFoundError or UnusableCounts."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        _check(descriptor)
        counts = SharedCounts(descriptor, slot)
        counts.look()
        return counts
    except BaseException:
        os.close(descriptor)
        raise


def _check(descriptor: int) -> None:
    """Look at everything that a reader relies on, before it is mapped for good."""
    found = os.fstat(descriptor)
    if found.st_size < 8 * REGION or found.st_size % (8 * REGION):
        raise UnusableCounts("it has a wrong size")
    with mmap.mmap(descriptor, found.st_size, prot=mmap.PROT_READ) as memory, memoryview(memory) as octets:
        cells = octets.cast("q")
        try:
            if cells[0] != _MAGIC:
                raise UnusableCounts("it is of another version")
            if not boot() or cells[_BOOT] != boot():
                raise UnusableCounts("the machine was started anew since")
            if cells[_INODE] != found.st_ino:
                raise UnusableCounts("it is a copy")
            if not cells[_READY]:
                raise UnusableCounts("it was not finished")
            if not 1 <= cells[_SLOTS] <= MOST_SLOTS or not _RECORDS <= cells[END] <= len(cells):
                raise UnusableCounts("its header is damaged")
            _check_records(cells, cells[END], cells[_SLOTS])
        finally:
            cells.release()


def _check_records(cells: memoryview[int], end: int, slots: int) -> None:
    at = _RECORDS
    while at < end:
        size, rest = cells[at], REGION - at % REGION
        if size < 0 and -size == rest:
            at += rest
            continue
        if not SLOTS < size <= rest or at + size > end:
            raise UnusableCounts("a record is damaged")
        ring, areas, key = cells[at + RING], cells[at + AREAS], cells[at + KEY_BYTES]
        fits = 0 <= ring <= size and 0 <= areas < 16 and 0 < key <= 8 * size and not ring & (ring - 1)
        if not fits or size_of(ring, areas, bytes(key), slots) != size:
            raise UnusableCounts("a record is damaged")
        if cells[at + FIRST] != SLOTS + SLOT_CELLS * slots or cells[at + FLYING] < 0:
            raise UnusableCounts("a record is damaged")
        at += size


def rewrite(path: Path, old: SharedCounts, slots: int, slot: int, clock: int, now: int) -> SharedCounts:
    """Write all records into a new file with more slots, or with times by another clock; raise OSError."""
    counts = create(path, max(slots, old.slots), slot, clock)
    shift = (clock - old.clock) // 1000
    for key in old.keys():  # noqa: SIM118  # not a dictionary
        before = old.find(key)
        assert before is not None
        cells = counts._room(key, before[RING], before[AREAS])
        replay(cells, [(at + shift, count) for at, count in history(before)], now)
        cells[TAT : before[FIRST]] = before[TAT : before[FIRST]]
        if before[TAT]:
            cells[TAT] = before[TAT] + 1000 * shift
        counts._put(key, cells)
    counts.header[_LIVES : _LIVES + old.slots] = old.header[_LIVES : _LIVES + old.slots]
    counts.header[_SIGNALS : _SIGNALS + SIGNALS] = old.header[_SIGNALS : _SIGNALS + SIGNALS]
    return counts


def _key(cells: memoryview[int]) -> str:
    size = cells[KEY_BYTES]
    return bytes(cells[len(cells) - -(-size // 8) :].cast("B")[:size]).decode()


def boot() -> int:
    """Return a number of this run of the machine, 0 where none is known."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text().replace("-", "")
    except OSError:
        return 0
    return int(text[:15], 16) | 1


class Attachment:
    """One process's way into the file, and its being there.

    `begin` until it is True, `open`, then whatever recovery has to do, then `ready`.
    """

    def __init__(self, home: Path, slot: int, workers: int) -> None:
        if not 0 <= slot < workers <= MOST_SLOTS:
            raise ValueError(f"slot {slot} of {workers}: at most {MOST_SLOTS} gateway processes share their limits")
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = home / "limits.shm"
        self._slot, self._workers = slot, workers
        self._starting = _open(home / "limits.start")
        self._using = _open(home / "limits.use")

    def begin(self) -> bool:
        """Try to be the one that starts."""
        return _try(self._starting, fcntl.LOCK_EX)

    def open(self, clock: int, now: int) -> tuple[SharedCounts, bool, list[int]]:
        """Return the counts, whether they know what happened before, and the slots whose processes are dead.

        ``clock`` is what this process has read, in nanoseconds (`SharedCounts.clock`). Raise OSError,
        and UnusableCounts when others run and can't be joined.
        """
        alone = _try(self._using, fcntl.LOCK_EX)
        if not alone:
            if not _try(self._using, fcntl.LOCK_SH):
                raise UnusableCounts("a gateway runs there that shares its limits with nobody")
            counts = reopen(self._path, self._slot)
            if counts.slots < self._workers:
                raise UnusableCounts("the other gateway processes expect fewer workers: start all of them anew")
            counts.share(fresh=False)
            return counts, True, [self._slot]
        counts, known = self._alone(clock, now)
        if self._workers > 1:
            counts.share(fresh=True)
            fcntl.flock(self._using, fcntl.LOCK_SH)  # who comes between has to wait for limits.start
        return counts, known, list(range(counts.slots))

    def _alone(self, clock: int, now: int) -> tuple[SharedCounts, bool]:
        try:
            old = reopen(self._path, self._slot)
        except FileNotFoundError:
            return create(self._path, self._workers, self._slot, clock), False
        except (UnusableCounts, UnicodeDecodeError) as error:
            log.info("the limits' file is not used again, because %s", error)
            return create(self._path, self._workers, self._slot, clock), False
        if old.slots >= self._workers and abs(clock - old.clock) < 1000 * _TOLERATED_US and not old.wasteful:
            return old, True
        try:
            return rewrite(self._path, old, self._workers, self._slot, clock, now), True
        finally:
            old.close()

    def step_back(self) -> None:
        """Let others go first; `begin` anew."""
        fcntl.flock(self._using, fcntl.LOCK_UN)
        fcntl.flock(self._starting, fcntl.LOCK_UN)

    def ready(self, counts: SharedCounts) -> None:
        """Let the next one start."""
        counts.mark_ready()
        fcntl.flock(self._starting, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._using)
        os.close(self._starting)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _try(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

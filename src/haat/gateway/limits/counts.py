"""The records in which limits count, one an application and service, and one a service.

`Counts` keeps them in this process's memory. `haat.gateway.limits.shared` keeps them in a file that all
gateway processes of a machine map. The cells of a record, 64 bits each:

    size · bytes of key · ring · areas · first · count · tat · flying · end of month · end of day · period ·
    used of the month by unit · used of the day by unit ·
    for each slot: flying, reserved of the month, reserved of the day, unit of these ·
    areas · ring · key

``used`` has what calls in flight have reserved in it. A slot's share of flying and reserved is what its
process owes: the successor of a killed one takes it over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from haat.gateway.limits.windows import AREA_CELLS, AREAS, FIRST, KEY_BYTES, RING, SIZE, Rate, history, needs, replay
from haat.usage.model import UNITS

FLYING: Final = 7
MONTH_END: Final = 8
DAY_END: Final = 9
PERIOD: Final = 10
MONTH: Final = 11
DAY: Final = MONTH + 9
SLOTS: Final = DAY + 9
_ONCE: Final = 6  # the first cell that is no shape and no history: TAT and what follows

SIGNALS: Final = 8
END: Final = 4
"""In the header of all records: where the next one goes."""

SLOT_FLYING: Final = 0
SLOT_RESERVED_MONTH: Final = 1
SLOT_RESERVED_DAY: Final = 2
SLOT_UNIT: Final = 3
SLOT_CELLS: Final = 4

assert len(UNITS) == 9


class Lock(Protocol):
    """Excludes all other processes; let go by the kernel when its holder is killed."""

    @property
    def take(self) -> Callable[[], int]:
        """Wait for it; anything but 0 asks for `mend`."""
        ...

    @property
    def let(self) -> Callable[[], object]:
        """Let it go."""
        ...

    def mend(self, code: int) -> None:
        """Make the lock good again after such an answer; raise OSError when that can't be."""
        ...


def size_of(ring: int, areas: int, key: bytes, slots: int) -> int:
    """Return how many cells a record takes."""
    return SLOTS + SLOT_CELLS * slots + AREA_CELLS * areas.bit_count() + ring + -(-len(key) // 8)


def shape(cells: memoryview[int], ring: int, areas: int, key: bytes, slots: int) -> None:
    """Write the form of a record into cells that are all zero."""
    cells[SIZE], cells[KEY_BYTES], cells[RING], cells[AREAS] = len(cells), len(key), ring, areas
    cells[FIRST] = SLOTS + SLOT_CELLS * slots
    at = len(cells) - -(-len(key) // 8)
    cells[at:].cast("B")[: len(key)] = key


class Counts:
    """Records by key, in memory: of one process, gone with it."""

    def __init__(self, slots: int = 1, slot: int = 0, lock: Lock | None = None) -> None:
        self.slots, self.slot = slots, slot
        self.lock = lock
        """None when no other process uses these counts."""
        self.header: memoryview[int] = memoryview(bytearray(8 * (END + 1))).cast("q")
        self.seen = 0
        """Up to where in the file this process knows the records."""
        self.version = 0
        """Grows when a record has moved."""
        self._records: dict[str, memoryview[int]] = {}
        self._signals = memoryview(bytearray(8 * SIGNALS)).cast("q")

    @property
    def signals(self) -> memoryview[int]:
        """A few numbers that all processes share, for who has need of them (`haat.gateway.wallets`)."""
        return self._signals

    def acquire(self) -> None:
        """Keep all others from the counts until `release`. Not to be nested, and for one thread only."""
        if self.lock is not None and (code := self.lock.take()):
            self.mend(code)

    def release(self) -> None:
        if self.lock is not None:
            self.lock.let()

    def mend(self, code: int) -> None:
        """Deal with a lock whose holder died: what it left is on the safe side at each of its steps."""
        assert self.lock is not None
        self.lock.mend(code)

    def look(self) -> int:
        """Learn of records that others have made; return the version. Needs the lock."""
        return self.version

    def find(self, key: str) -> memoryview[int] | None:
        """Return the record of a key, as far as this process knows."""
        return self._records.get(key)

    @property
    def number(self) -> int:
        """How many records this process knows."""
        return len(self._records)

    def keys(self) -> list[str]:
        return list(self._records)

    def fitting(self, key: str, rates: Iterable[Rate], now: int) -> memoryview[int]:
        """Return the record of a key with all that these rates look at. Needs the lock; raise OSError."""
        ring, areas = needs(rates)
        present = self.find(key)
        if present is None:
            return self._put(key, self._room(key, ring, areas))
        if present[RING] >= ring and not areas & ~present[AREAS]:
            return present
        larger = self._room(key, max(ring, present[RING]), areas | present[AREAS])
        replay(larger, history(present), now)
        larger[_ONCE : present[FIRST]] = present[_ONCE : present[FIRST]]
        return self._put(key, larger)

    def _put(self, key: str, cells: memoryview[int]) -> memoryview[int]:
        """Make a finished record the one of its key, at once."""
        if key in self._records:
            self.version += 1
        self._records[key] = cells
        return cells

    def _room(self, key: str, ring: int, areas: int) -> memoryview[int]:
        name = key.encode()
        cells = memoryview(bytearray(8 * size_of(ring, areas, name, self.slots))).cast("q")
        shape(cells, ring, areas, name, self.slots)
        return cells

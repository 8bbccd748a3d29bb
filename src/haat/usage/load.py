"""A load: one batch as the shipper reads it, its rows made before the database asks for them.

Loads stand in a line. The first one is on its way into the store, the last one is open: what is read of the journals
goes there. A load that is closed says where the journals are to be read on once it is stored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from haat.usage.frames import Position
from haat.usage.record import Record
from haat.usage.sorting import Sorting

AT_ONCE = 128
"""Records of which rows are made at once. Meanwhile the database works on what lies in its socket."""


class Load:
    """One batch, of which rows are made for a batch number that was foreseen.

    ``read`` is how many records it holds, ``problems`` what stands still, by worker. ``resume`` are the journals'
    positions after it; None while it is open. ``usual``: most of its calls are expected to be.
    """

    def __init__(self, batch: int, *, usual: bool = True) -> None:
        self.found = Sorting(batch, None, usual=usual)
        self.records: list[Record] = []
        """Those of which no rows have been made."""
        self.read = self.size = 0
        self.problems: dict[str, str] = {}
        self.resume: Mapping[str, Position] | None = None
        self._rows: deque[bytes] = deque()

    def add(self, records: list[Record]) -> None:
        self.records += records
        self.read += len(records)

    def sort(self, now_ms: int) -> bool:
        """Make rows of some records; return False when there are none left."""
        some, self.records = self.records[:AT_ONCE], self.records[AT_ONCE:]
        if not some:
            return False
        self.found.now_ms = now_ms
        rows = self.found.data(some)
        self._rows.append(rows)
        self.size += len(rows)
        return True

    @property
    def is_usual(self) -> bool:
        """Tell whether most of its calls were usual ones: so will the next load's be."""
        return self.found.unusual_rows * 2 <= self.found.made

    def rows(self) -> bytes | None:
        """Return the oldest rows that were made, as COPY takes them, and let go of them; None when there are none."""
        if not self._rows:
            return None
        rows = self._rows.popleft()
        self.size -= len(rows)
        return rows

"""Records are sorted out: rows, each id once, and what can't be counted, with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from haat.usage.model import Misfit
from haat.usage.record import Record
from haat.usage.rollup import Rollup
from haat.usage.rows import Row, row_of


class Sorting:
    """Sorts one batch. ``records`` are those it has seen, ``misfits`` those it set aside."""

    __slots__ = ("_known", "batch", "misfits", "now_ms", "records", "rollup")

    def __init__(self, batch: int, now_ms: int | None) -> None:
        self.batch, self.now_ms = batch, now_ms
        self.records = 0
        self.misfits: list[tuple[Record, str]] = []
        self.rollup = Rollup()
        """Of what `data` has given; what `rows` gives may not all be new."""
        self._known: set[bytes] = set()

    @property
    def unique(self) -> int:
        """How many rows there were, each id once."""
        return len(self._known)

    def data(self, records: Iterable[Record]) -> Iterator[bytes]:
        """Yield the data of rows, and roll them up; nothing of them is kept."""
        rollup = self.rollup
        for record in records:
            row = self._row(record)
            if row is not None:
                rollup.add(row)
                yield row.data

    def rows(self, records: Iterable[Record]) -> Iterator[tuple[Row, Record]]:
        """Yield rows with the records that they were made of."""
        for record in records:
            row = self._row(record)
            if row is not None:
                yield row, record

    def _row(self, record: Record) -> Row | None:
        self.records += 1
        event = record.event
        if event is None:
            self.misfits.append((record, record.unreadable))
            return None
        try:
            row = row_of(event, self.batch, self.now_ms)
        except Misfit as reason:
            self.misfits.append((record, str(reason)))
            return None
        if row.id in self._known:
            return None
        self._known.add(row.id)
        return row

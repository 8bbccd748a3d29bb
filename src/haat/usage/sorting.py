"""Records are sorted out: rows, and what can't be counted, with the reason."""

from __future__ import annotations

from collections.abc import Iterable

from haat.usage.glance import row_in
from haat.usage.model import Misfit
from haat.usage.record import Record
from haat.usage.rollup import Rollup
from haat.usage.rows import Row, row_of


class Sorting:
    """Sorts one batch. ``records`` are those it has seen, ``made`` the rows, ``misfits`` what it set aside."""

    __slots__ = ("batch", "made", "misfits", "now_ms", "records", "rollup")

    def __init__(self, batch: int, now_ms: int | None) -> None:
        self.batch, self.now_ms = batch, now_ms
        self.records = self.made = 0
        self.misfits: list[tuple[Record, str]] = []
        self.rollup = Rollup()
        """Of what `data` has given; what `rows` gives may not all be new."""

    def data(self, records: Iterable[Record]) -> bytes:
        """Return the data of rows, and roll them up; nothing of them is kept."""
        found: list[bytes] = []
        rollup, made = self.rollup, 0
        for record in records:
            row = self._row(record)
            if row is not None:
                rollup.add(row)
                found.append(row.numbers)
                found.append(row.caller.data)
                found.append(row.counted.data)
                found.append(row.rest.data)
                made += 1
        self.made += made
        return b"".join(found)

    def rows(self, records: Iterable[Record]) -> list[tuple[Row, Record]]:
        """Return rows, each id once, with the records that they were made of."""
        found: dict[bytes, tuple[Row, Record]] = {}
        for record in records:
            row = self._row(record)
            if row is not None:
                found.setdefault(row.id, (row, record))
        self.made += len(found)
        return list(found.values())

    def _row(self, record: Record) -> Row | None:
        self.records += 1
        try:
            return self._row_of(record)
        except Misfit as reason:
            self.misfits.append((record, str(reason)))
            return None

    def _row_of(self, record: Record) -> Row:
        """Return a record's row, made at a glance if that will do; raise Misfit."""
        if record.id:
            row = row_in(record.payload, record.id, self.batch, self.now_ms)
            if row is not None:
                return row
        event = record.event
        if event is None:
            raise Misfit(record.unreadable)
        return row_of(event, self.batch, self.now_ms)

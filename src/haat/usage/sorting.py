"""Records are sorted out: rows, and what can't be counted, with the reason."""

from __future__ import annotations

from collections.abc import Iterable

from haat.usage.glance import row_in
from haat.usage.model import Misfit
from haat.usage.record import Record
from haat.usage.rollup import Rollup
from haat.usage.rows import USUAL_WIDTH, WIDTH, Row, row_of


class Sorting:
    """Sorts one batch. ``records`` are those it has seen, ``made`` the rows, ``misfits`` what it set aside.

    With ``usual``, `data` gives rows of the usual columns alone, and those that say more are kept in ``unusual``.
    """

    __slots__ = ("batch", "made", "misfits", "now_ms", "records", "rollup", "unusual", "unusual_rows", "usual")

    def __init__(self, batch: int, now_ms: int | None, *, usual: bool = False) -> None:
        self.batch, self.now_ms, self.usual = batch, now_ms, usual
        self.records = self.made = self.unusual_rows = 0
        self.unusual = bytearray()
        self.misfits: list[tuple[Record, str]] = []
        self.rollup = Rollup()
        """Of what `data` has given; what `rows` gives may not all be new."""

    def data(self, records: Iterable[Record]) -> bytes:
        """Return the data of rows, and roll them up; nothing of them is kept."""
        found: list[bytes] = []
        unusual: list[bytes] = []
        rollup, made = self.rollup, 0
        for record in records:
            row = self._row(record)
            if row is None:
                continue
            rollup.add(row)
            made += 1
            caller, counted, rest = row.caller, row.counted, row.rest
            one, two, three = caller.usual, counted.usual, rest.usual
            if one is None or two is None or three is None:
                self.unusual_rows += 1
                whole = unusual if self.usual else found
                whole += (WIDTH, row.numbers, caller.data, counted.data, rest.data)
            elif self.usual:
                found += (USUAL_WIDTH, row.numbers, one, two, three)
            else:
                found += (WIDTH, row.numbers, caller.data, counted.data, rest.data)
        self.made += made
        if unusual:
            self.unusual += b"".join(unusual)
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

"""Two logs on disk, sorted: any number of calls is held against each other in constant memory.

The sorting is SQLite's, in a file of its own that is gone afterwards. PostgreSQL could do it, but a transaction that
writes for minutes would keep every reader of the event log waiting for its end.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from uuid import UUID

from haat.kernel.money import total
from haat.settlement.dispute_model import Claim, Difference, Metered, reconcile

_CACHE_KIB = 16 * 1024
_SCHEMA = """
    CREATE TABLE ours (id BLOB NOT NULL, unit TEXT NOT NULL, quantity TEXT NOT NULL, line BLOB NOT NULL);
    CREATE TABLE theirs (id BLOB NOT NULL, unit TEXT NOT NULL, quantity TEXT NOT NULL, line TEXT NOT NULL);
    CREATE TABLE differences (id BLOB NOT NULL, unit TEXT NOT NULL, kind TEXT NOT NULL, ours TEXT, theirs TEXT);
"""


@dataclass(slots=True)
class Reconciled:
    """What two logs come to: calls counted, and on how many calls of each contested line we have what quantity more."""

    ours: int = 0
    theirs: int = 0
    only_ours: int = 0
    only_theirs: int = 0
    different: int = 0
    lines: dict[UUID, tuple[int, Decimal]] = field(default_factory=dict)


class Spool:
    """A folder of the operating system's temporary ones, as long as it is open. One task uses it at a time."""

    def __enter__(self) -> Spool:
        self._folder = tempfile.TemporaryDirectory(prefix="haat-dispute-")
        path = Path(self._folder.name) / "logs.db"
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.executescript(
            f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store = FILE;"
            f"PRAGMA cache_size = -{_CACHE_KIB}; {_SCHEMA}"
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()
        self._folder.cleanup()

    async def add_theirs(self, claims: Sequence[Claim]) -> None:
        rows = [(one.request_id.bytes, one.unit, str(one.quantity), one.line) for one in claims]
        await asyncio.to_thread(self._insert, "INSERT INTO theirs VALUES (?, ?, ?, ?)", rows)

    async def add_ours(self, calls: Sequence[Metered]) -> None:
        rows = [(one.request_id.bytes, one.unit, str(one.quantity), one.line.bytes) for one in calls]
        await asyncio.to_thread(self._insert, "INSERT INTO ours VALUES (?, ?, ?, ?)", rows)

    async def reconcile(self, *, by_unit: bool) -> Reconciled:
        """Hold the logs against each other and keep the differences; raise ValidationFailed as the model does."""
        return await asyncio.to_thread(self._reconcile, by_unit)

    async def differences(self, after: int, limit: int) -> list[tuple[UUID, str, str, str | None, str | None]]:
        """Return differences from a place on, in the order of request ids."""
        return await asyncio.to_thread(self._differences, after, limit)

    # --- in a thread ----------------------------------------------------------------------------

    def _insert(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        self._db.execute("BEGIN")
        self._db.executemany(statement, rows)
        self._db.execute("COMMIT")

    def _reconcile(self, by_unit: bool) -> Reconciled:
        found = Reconciled()
        for table in ("ours", "theirs"):
            (calls,) = self._db.execute(f"SELECT count(DISTINCT id) FROM {table}").fetchone()
            setattr(found, table, calls)
        waiting: list[tuple[bytes, str, str, str | None, str | None]] = []
        for one in reconcile(self._ours(), self._theirs(), by_unit=by_unit):
            setattr(found, one.kind, getattr(found, one.kind) + 1)
            for line, more in one.more.items():
                calls, quantity = found.lines.get(line, (0, Decimal(0)))
                found.lines[line] = (calls + 1, total((quantity, more)))
            waiting.append(_row(one))
            if len(waiting) == 1000:
                self._insert("INSERT INTO differences VALUES (?, ?, ?, ?, ?)", waiting)
                waiting.clear()
        self._insert("INSERT INTO differences VALUES (?, ?, ?, ?, ?)", waiting)
        return found

    def _ours(self) -> Iterator[Metered]:
        rows = self._db.execute("SELECT id, unit, quantity, line FROM ours ORDER BY id, unit, line")
        for identifier, unit, quantity, line in rows:
            yield Metered(UUID(bytes=identifier), unit, Decimal(quantity), UUID(bytes=line))

    def _theirs(self) -> Iterator[Claim]:
        rows = self._db.execute("SELECT id, unit, quantity, line FROM theirs ORDER BY id, unit")
        for identifier, unit, quantity, line in rows:
            yield Claim(UUID(bytes=identifier), unit, Decimal(quantity), line)

    def _differences(self, after: int, limit: int) -> list[tuple[UUID, str, str, str | None, str | None]]:
        rows = self._db.execute(
            "SELECT id, unit, kind, ours, theirs FROM differences WHERE rowid > ? ORDER BY rowid LIMIT ?",
            (after, limit),
        )
        return [(UUID(bytes=identifier), *rest) for identifier, *rest in rows]


def _row(one: Difference) -> tuple[bytes, str, str, str | None, str | None]:
    ours, theirs = (None if value is None else str(value) for value in (one.ours, one.theirs))
    return one.request_id.bytes, one.unit, one.kind, ours, theirs

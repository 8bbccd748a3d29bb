"""The evidence of a statement: every call behind every line, as CSV or Parquet, streamed in constant memory."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from haat.infra.parquet import Column, Kind, Writer
from haat.infra.postgres import PLATFORM_SCOPE, Database
from haat.invoices.evidence import batches_of_calls
from haat.kernel.errors import NotFound
from haat.kernel.permissions import Actor, Permission
from haat.language.messages import _
from haat.settlement import store
from haat.usage.model import Pseudonyms, csv_safe

Form = Literal["csv", "parquet"]
MEDIA_TYPES: dict[str, str] = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}

COLUMNS = (
    Column("line_id", Kind.TEXT),
    Column("request_id", Kind.TEXT),
    Column("at", Kind.TIME),
    Column("service", Kind.TEXT),
    Column("plan", Kind.TEXT),
    Column("customer", Kind.TEXT),
    Column("outcome", Kind.TEXT),
    Column("status", Kind.INTEGER),
    Column("quantity", Kind.DECIMAL),
    Column("unit", Kind.TEXT),
    Column("amount", Kind.FINE_DECIMAL),
)
"""One row a call and line; the customer is the pseudonym of the statement. ``amount`` is what the call bears of the
line's gross, in rupees before tax: those of a line sum to it."""

_PIECE_BYTES = 65_536


class Evidence:
    """Streams the calls behind statements to those who may read the statement."""

    def __init__(self, db: Database, pseudonyms: Pseudonyms) -> None:
        self._db, self._pseudonyms = db, pseudonyms

    async def stream(self, actor: Actor, settlement: UUID, form: Form) -> AsyncIterator[bytes]:
        """Yield a file with every call behind a statement's lines, line after line, each in order of time.

        Raise NotFound, before anything is yielded, for another provider's.
        """
        actor.require(Permission.SETTLEMENTS_READ)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            head = await store.settlement(connection, settlement)
            if head is None or not (actor.may(Permission.SETTLEMENTS_RUN) or head["org_id"] == actor.org_id):
                raise NotFound(_("There is no such settlement, or it is not yours."))
            lines = await store.lines(connection, settlement)
        async for piece in _parquet(self._rows(lines)) if form == "parquet" else _csv(self._rows(lines)):
            yield piece

    async def _rows(self, lines: Sequence[Mapping[str, Any]]) -> AsyncIterator[list[tuple[Any, ...]]]:
        for line in lines:
            customer = self._pseudonyms.of(line["org_id"], line["customer_org"])
            about = (line["description"], line["plan"] or "", customer)
            async for calls in batches_of_calls(self._db, line["invoice_line_id"]):
                yield [
                    (
                        str(line["id"]),
                        str(call.id),
                        call.at,
                        *about,
                        call.outcome,
                        call.status,
                        call.quantity,
                        line["unit"],
                        call.amount,
                    )
                    for call in calls
                ]


async def _csv(batches: AsyncIterator[list[tuple[Any, ...]]]) -> AsyncIterator[bytes]:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow([column.name for column in COLUMNS])
    async for rows in batches:
        for row in rows:
            writer.writerow([_cell(value) for value in row])
        if buffer.tell() > _PIECE_BYTES:
            yield buffer.getvalue().encode()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue().encode()


def _cell(value: Any) -> Any:
    """Return a value as CSV has it. A number may begin with a minus: only what is text could be taken for a formula."""
    if isinstance(value, datetime):
        return value.isoformat()
    return csv_safe(value) if isinstance(value, str) else value


async def _parquet(batches: AsyncIterator[list[tuple[Any, ...]]]) -> AsyncIterator[bytes]:
    writer = Writer(COLUMNS)
    async for rows in batches:
        for row in rows:
            if piece := writer.write(row):
                yield piece
    yield writer.close()

"""Invoices, notes and payments, as the projection of events that they are.

Events carry everything but the documents, which are kept for good in a table of their own and named by their hash.
An event's ``data`` has a row's columns by their names; ``lines``, ``state`` and ``allocation`` are rows of other
tables. What several transactions may touch in any order is only added to, or guarded by the version of its stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from haat.infra import events
from haat.infra.events import NewEvent
from haat.infra.postgres import Connection
from haat.infra.projections import Fold
from haat.kernel.events import DomainEvent

_ROWS = {"invoice.issued": "invoices", "credit_note.issued": "credit_notes", "payment.recorded": "payments"}
_LINES = {"invoice.issued": "invoice_lines", "credit_note.issued": "credit_note_lines"}
_MOVED = ("state", "total", "paid", "credited", "due_on", "reminders", "reason", "changed_at", "version")


async def record_all(connection: Connection, new: Sequence[NewEvent], *, actor: str, at: datetime) -> None:
    """Append events in their order and apply them, within the caller's transaction."""
    await apply_all(connection, await events.append_all(connection, new, actor=actor, at=at))


async def apply(connection: Connection, event: DomainEvent) -> None:
    await apply_all(connection, [event])


async def apply_all(connection: Connection, happened: Sequence[DomainEvent]) -> None:
    """Write what events say, reading them where they already are: in the database."""
    if not happened:
        return
    if unknown := [one for one in happened if one.type == "invoice.issued" and "lines" not in one.data]:
        raise ValueError(f"{unknown[0].stream} was issued by a version that did not keep its lines in its event")
    ids = [event.id for event in happened]
    types = {event.type for event in happened}
    for type_, table in _LINES.items():  # lines first: the head seals them
        if type_ in types:
            await _add(connection, table, type_, ids, "jsonb_populate_recordset", "data -> 'lines'")
    for type_, table in _ROWS.items():
        if type_ in types:
            await _add(connection, table, type_, ids, "jsonb_populate_record", "data")
    if any("allocation" in event.data for event in happened):
        await _add(connection, "allocations", None, ids, "jsonb_populate_record", "data -> 'allocation'")
    if any("state" in event.data and event.stream.startswith("invoice/") for event in happened):
        await _move(connection, "invoice_states", "invoice_id", "invoice/", "data -> 'state'", _MOVED, ids)
    if any(event.stream.startswith("payment-order/") for event in happened):
        await _move(connection, "payment_orders", "id", "payment-order/", "data", ("state", "at", "version"), ids)
    if any(event.stream.startswith("payment-return/") for event in happened):
        await _move(connection, "payment_returns", "id", "payment-return/", "data", ("state", "at", "version"), ids)


async def _add(
    connection: Connection, table: str, type_: str | None, ids: Sequence[UUID], make: str, source: str
) -> None:
    await connection.execute(
        f"""
        INSERT INTO {table}
        SELECT made.* FROM events, {make}(NULL::public.{table}, {source}) AS made
        WHERE events.id = ANY(%(ids)s) AND {source} IS NOT NULL AND (%(type)s::text IS NULL OR type = %(type)s)
        ORDER BY events.xid, events.seq
        """,
        {"ids": list(ids), "type": type_},
    )


async def _move(
    connection: Connection, table: str, key: str, stream: str, source: str, moved: Sequence[str], ids: Sequence[UUID]
) -> None:
    """Bring a row to what the newest of a stream's events says, unless a newer one was applied already."""
    await connection.execute(
        f"""
        INSERT INTO {table} AS present
        SELECT made.* FROM (
            SELECT DISTINCT ON (stream) {source} || jsonb_build_object('version', version) AS row FROM events
            WHERE id = ANY(%(ids)s) AND starts_with(stream, %(stream)s) AND {source} IS NOT NULL
            ORDER BY stream, version DESC) AS newest,
            jsonb_populate_record(NULL::public.{table}, newest.row) AS made
        ON CONFLICT ({key}) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in moved)}
        WHERE present.version < excluded.version
        """,
        {"ids": list(ids), "stream": stream},
    )


INVOICES = Fold(
    "invoices",
    (
        "invoices",
        "invoice_lines",
        "invoice_states",
        "credit_notes",
        "credit_note_lines",
        "payments",
        "allocations",
        "payment_orders",
        "payment_returns",
    ),
    ("invoice", "credit-note", "payment", "payment-order", "payment-return"),
    apply,
)

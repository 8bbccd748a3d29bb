"""All SQL that reads credit notes. Their rows are written by `projection` alone, from events."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID

from haat.infra.postgres import Connection
from haat.invoices.store import Row, fetch_all, fetch_one

_NOTE = """
    id, org_id, key, serial, reason, reference, issued_at, place_of_supply, net, tax, total, content_hash
"""


async def by_key(connection: Connection, key: str) -> Row | None:
    return await fetch_one(connection, f"SELECT {_NOTE} FROM credit_notes WHERE key = %s", key)


async def note(connection: Connection, identifier: UUID) -> Row | None:
    return await fetch_one(
        connection,
        f"SELECT {_NOTE}, document FROM credit_notes JOIN invoice_documents USING (content_hash, org_id) WHERE id = %s",
        identifier,
    )


async def page(connection: Connection, org: UUID | None, before: UUID | None, limit: int) -> list[Row]:
    rows = await connection.execute(
        f"""
        SELECT {_NOTE} FROM credit_notes
        WHERE (%(org)s::uuid IS NULL OR org_id = %(org)s) AND (%(before)s::uuid IS NULL OR id < %(before)s)
        ORDER BY id DESC LIMIT %(limit)s
        """,
        {"org": org, "before": before, "limit": limit},
    )
    return [row async for row in rows]


async def lines(connection: Connection, note: UUID) -> list[Row]:
    return await fetch_all(connection, "SELECT * FROM credit_note_lines WHERE credit_note_id = %s ORDER BY id", note)


async def lines_to_credit(connection: Connection, lines: Sequence[UUID]) -> list[Row]:
    """Return invoice lines with what was credited of each, in the order of invoices and positions."""
    return await fetch_all(
        connection,
        """
        SELECT line.*, coalesce((SELECT sum(taxable) FROM credit_note_lines WHERE invoice_line_id = line.id), 0)
                   AS credited
        FROM invoice_lines AS line WHERE line.id = ANY(%s) ORDER BY line.invoice_id, line.position
        """,
        list(lines),
    )


async def credited_of(connection: Connection, invoices: Sequence[UUID]) -> dict[UUID, Decimal]:
    """Return the taxable value that notes have credited of invoices."""
    rows = await fetch_all(
        connection,
        """
        SELECT line.invoice_id, sum(credit.taxable) AS taxable
        FROM credit_note_lines AS credit JOIN invoice_lines AS line ON line.id = credit.invoice_line_id
        WHERE line.invoice_id = ANY(%s) GROUP BY line.invoice_id
        """,
        list(invoices),
    )
    return {row["invoice_id"]: row["taxable"] for row in rows}

"""All SQL of disputes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from haat.infra.postgres import Connection
from haat.kernel.events import DomainEvent

Row = Mapping[str, Any]

_DISPUTE = """
    id, org_id, side, subject, period, status, log_hash, ours, theirs, only_ours, only_theirs, different, reason, note,
    credit_note_id, opened_at, ended_at
"""


# --- the projection: what events say --------------------------------------------------------------


async def apply_opened(connection: Connection, event: DomainEvent) -> None:
    data, identifier = event.data, _id_of(event)
    status = "open" if data["open"] else "agreed"
    counts = (data[name] for name in ("ours", "theirs", "only_ours", "only_theirs", "different"))
    await connection.execute(
        """
        INSERT INTO disputes (id, org_id, side, subject, period, status, log_hash, ours, theirs, only_ours, only_theirs,
            different, reason, opened_at, ended_at)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        """,
        (
            *(identifier, event.org, data["side"], data["subject"], data["period"], status, data["log_hash"]),
            *(*counts, data["reason"], event.at, None if data["open"] else event.at),
        ),
    )
    await connection.execute(
        """
        INSERT INTO dispute_lines (dispute_id, invoice_line_id, org_id, provider_org, calls, quantity, open)
        SELECT %s, (one->>0)::uuid, %s, (one->>1)::uuid, (one->>2)::bigint, (one->>3)::numeric, true
        FROM jsonb_array_elements(%s) AS one
        """,
        (identifier, event.org, Jsonb(data["lines"])),
    )


async def apply_ended(connection: Connection, event: DomainEvent) -> None:
    """Write what a dispute came to; its lines are contested no longer."""
    data, identifier = event.data, _id_of(event)
    await connection.execute(
        "UPDATE disputes SET status = %s, note = %s, credit_note_id = %s, ended_at = %s WHERE id = %s",
        (data["status"], data["note"], data["credit_note"], event.at, identifier),
    )
    await connection.execute("UPDATE dispute_lines SET open = false WHERE dispute_id = %s", (identifier,))
    await connection.execute(
        """
        UPDATE dispute_lines SET credited = (one->>1)::numeric, fault = one->>2
        FROM jsonb_array_elements(%s) AS one WHERE dispute_id = %s AND invoice_line_id = (one->>0)::uuid
        """,
        (Jsonb(data["credits"]), identifier),
    )


def _id_of(event: DomainEvent) -> UUID:
    return UUID(event.stream.partition("/")[2])


# --- what is contested ----------------------------------------------------------------------------


async def statement(connection: Connection, identifier: UUID) -> Row | None:
    """Return whose a settlement is, its month and when it was closed."""
    row = await (
        await connection.execute("SELECT org_id, period, closed_at AS at FROM settlements WHERE id = %s", (identifier,))
    ).fetchone()
    return row


async def invoice(connection: Connection, identifier: UUID) -> Row | None:
    """Return whose an invoice is, its month and when it was issued."""
    row = await (
        await connection.execute("SELECT org_id, period, issued_at AS at FROM invoices WHERE id = %s", (identifier,))
    ).fetchone()
    return row


async def lines_of_statement(connection: Connection, identifier: UUID) -> list[Row]:
    rows = await connection.execute(
        """
        SELECT line.id, line.provider_org, line.unit FROM settlement_lines AS settled
        JOIN invoice_lines AS line ON line.id = settled.invoice_line_id
        WHERE settled.settlement_id = %s ORDER BY line.id
        """,
        (identifier,),
    )
    return [row async for row in rows]


async def lines_of_invoice(connection: Connection, identifier: UUID) -> list[Row]:
    rows = await connection.execute(
        "SELECT id, provider_org, unit FROM invoice_lines WHERE invoice_id = %s ORDER BY id", (identifier,)
    )
    return [row async for row in rows]


async def open_about(connection: Connection, subject: str) -> UUID | None:
    row = await (
        await connection.execute("SELECT id FROM disputes WHERE subject = %s AND status = 'open'", (subject,))
    ).fetchone()
    return row["id"] if row else None


async def add_differences(
    connection: Connection, dispute: UUID, org: UUID, rows: Sequence[tuple[UUID, str, str, str | None, str | None]]
) -> None:
    await connection.execute(
        """
        INSERT INTO dispute_differences (dispute_id, org_id, request_id, unit, kind, ours, theirs)
        SELECT %s, %s, * FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::numeric[], %s::numeric[])
        """,
        (dispute, org, *(list(column) for column in zip(*rows, strict=True))),
    )


async def to_hold(connection: Connection, dispute: UUID) -> list[Row]:
    """Return what a dispute contests of each settlement: the providers' parts of its lines, less what was credited."""
    rows = await connection.execute(
        """
        SELECT settled.settlement_id, settled.org_id,
               sum(settled.provider_amount - coalesce((SELECT sum(provider_amount) FROM settlement_credits AS credited
                                                       WHERE credited.invoice_line_id = settled.invoice_line_id), 0))
                   AS amount
        FROM dispute_lines AS contested
        JOIN settlement_lines AS settled ON settled.invoice_line_id = contested.invoice_line_id
        WHERE contested.dispute_id = %s AND contested.open
        GROUP BY settled.settlement_id, settled.org_id ORDER BY settled.settlement_id
        """,
        (dispute,),
    )
    return [row async for row in rows]


# --- reading --------------------------------------------------------------------------------------


async def dispute(connection: Connection, identifier: UUID) -> Row | None:
    row = await (await connection.execute(f"SELECT {_DISPUTE} FROM disputes WHERE id = %s", (identifier,))).fetchone()
    return row


async def page(
    connection: Connection, org: UUID | None, status: str | None, side: str | None, before: UUID | None, limit: int
) -> list[Row]:
    """Return disputes, newest first; None for ``org`` returns everybody's, for ``status`` and ``side`` all."""
    rows = await connection.execute(
        f"""
        SELECT {_DISPUTE} FROM disputes
        WHERE (%(org)s::uuid IS NULL OR org_id = %(org)s) AND (%(status)s::text IS NULL OR status = %(status)s)
          AND (%(side)s::text IS NULL OR side = %(side)s) AND (%(before)s::uuid IS NULL OR id < %(before)s)
        ORDER BY id DESC LIMIT %(limit)s
        """,
        {"org": org, "status": status, "side": side, "before": before, "limit": limit},
    )
    return [row async for row in rows]


async def lines(connection: Connection, dispute: UUID) -> list[Row]:
    """Return the lines a dispute contests, as the invoice has them."""
    rows = await connection.execute(
        """
        SELECT contested.invoice_line_id, line.description, line.unit, line.taxable, contested.calls,
               contested.quantity, contested.open, contested.credited, contested.fault
        FROM dispute_lines AS contested JOIN invoice_lines AS line ON line.id = contested.invoice_line_id
        WHERE contested.dispute_id = %s ORDER BY contested.invoice_line_id
        """,
        (dispute,),
    )
    return [row async for row in rows]


async def providers(connection: Connection, dispute: UUID) -> list[UUID]:
    rows = await connection.execute(
        "SELECT DISTINCT provider_org FROM dispute_lines WHERE dispute_id = %s ORDER BY provider_org", (dispute,)
    )
    return [row["provider_org"] async for row in rows]


async def differences(connection: Connection, dispute: UUID, after: tuple[UUID, str] | None, limit: int) -> list[Row]:
    """Return the calls on which the logs differ, by request id."""
    identifier, unit = after or (None, None)
    rows = await connection.execute(
        """
        SELECT request_id, unit, kind, ours, theirs FROM dispute_differences
        WHERE dispute_id = %(dispute)s
          AND (%(id)s::uuid IS NULL OR (request_id, unit) > (%(id)s::uuid, %(unit)s::text))
        ORDER BY request_id, unit LIMIT %(limit)s
        """,
        {"dispute": dispute, "id": identifier, "unit": unit, "limit": limit},
    )
    return [row async for row in rows]

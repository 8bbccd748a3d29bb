"""All SQL of settlements. A closed one is never edited: the database would refuse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from haat.infra.postgres import Connection
from haat.kernel.ids import new_id
from haat.settlement.model import SettledLine, Totals

Row = Mapping[str, Any]

_SETTLEMENT = """
    id, org_id, period, part, closed_at, gross, provider_amount AS provider, platform_amount AS platform
"""


async def lock(connection: Connection, provider_org: UUID) -> None:
    """Let one transaction at a time settle a provider."""
    await connection.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended('settlement/' || %s, 0))", (str(provider_org),)
    )


async def unsettled(connection: Connection, provider_org: UUID, period: str) -> list[Row]:
    """Return lines of a period's invoices that no settlement has yet, in a fixed order."""
    rows = await connection.execute(
        """
        SELECT line.id, line.taxable, line.provider_share
        FROM invoice_lines AS line JOIN invoices ON invoices.id = line.invoice_id
        WHERE line.provider_org = %s AND invoices.period = %s
          AND NOT EXISTS (SELECT FROM settlement_lines WHERE invoice_line_id = line.id)
        ORDER BY invoices.serial, line.position
        """,
        (provider_org, period),
    )
    return [row async for row in rows]


async def providers_to_settle(connection: Connection, period: str) -> list[UUID]:
    """Return the providers with lines on a period's invoices."""
    rows = await connection.execute(
        """
        SELECT DISTINCT line.provider_org
        FROM invoice_lines AS line JOIN invoices ON invoices.id = line.invoice_id
        WHERE invoices.period = %s ORDER BY line.provider_org
        """,
        (period,),
    )
    return [row["provider_org"] async for row in rows]


async def settlements_of(connection: Connection, provider_org: UUID, period: str) -> list[Row]:
    rows = await connection.execute(
        f"SELECT {_SETTLEMENT} FROM settlements WHERE org_id = %s AND period = %s ORDER BY part",
        (provider_org, period),
    )
    return [row async for row in rows]


async def add(
    connection: Connection,
    *,
    id: UUID,
    provider_org: UUID,
    period: str,
    part: int,
    closed_at: datetime,
    totals: Totals,
    lines: Sequence[SettledLine],
) -> Row:
    """Write a settlement: its lines first, then the head, which seals them."""
    async with connection.cursor() as cursor:
        await cursor.executemany(
            """
            INSERT INTO settlement_lines (id, settlement_id, org_id, invoice_line_id, gross, share, provider_amount,
                platform_amount)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
            """,
            [
                (new_id(), id, provider_org, line.invoice_line, line.gross, line.rate, line.provider, line.platform)
                for line in lines
            ],
        )
    row = await (
        await connection.execute(
            f"""
            INSERT INTO settlements (id, org_id, period, part, closed_at, gross, provider_amount, platform_amount)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING {_SETTLEMENT}
            """,
            (id, provider_org, period, part, closed_at, totals.gross, totals.provider, totals.platform),
        )
    ).fetchone()
    assert row is not None
    return row


async def page(
    connection: Connection, provider_org: UUID | None, period: str | None, before: UUID | None, limit: int
) -> list[Row]:
    """Return settlements, newest first; ``provider_org`` None returns every provider's."""
    rows = await connection.execute(
        f"""
        SELECT {_SETTLEMENT} FROM settlements
        WHERE (%(org)s::uuid IS NULL OR org_id = %(org)s) AND (%(period)s::text IS NULL OR period = %(period)s)
          AND (%(before)s::uuid IS NULL OR id < %(before)s)
        ORDER BY id DESC LIMIT %(limit)s
        """,
        {"org": provider_org, "period": period, "before": before, "limit": limit},
    )
    return [row async for row in rows]


async def settlement(connection: Connection, identifier: UUID) -> Row | None:
    row = await (
        await connection.execute(f"SELECT {_SETTLEMENT} FROM settlements WHERE id = %s", (identifier,))
    ).fetchone()
    return row


_LINE = """
    SELECT settled.id, settled.settlement_id, settled.org_id, settled.invoice_line_id, settled.gross, settled.share,
           settled.provider_amount AS provider, settled.platform_amount AS platform, line.org_id AS customer_org,
           line.description, line.plan, line.unit, line.calls, line.quantity, line.free_units, line.unit_price,
           line.period
    FROM settlement_lines AS settled JOIN invoice_lines AS line ON line.id = settled.invoice_line_id
"""


async def lines(connection: Connection, settlement: UUID) -> list[Row]:
    """Return a settlement's lines with what the invoice lines say. It needs the platform's scope."""
    rows = await connection.execute(f"{_LINE} WHERE settled.settlement_id = %s ORDER BY settled.id", (settlement,))
    return [row async for row in rows]


async def line(connection: Connection, identifier: UUID) -> Row | None:
    row = await (await connection.execute(f"{_LINE} WHERE settled.id = %s", (identifier,))).fetchone()
    return row

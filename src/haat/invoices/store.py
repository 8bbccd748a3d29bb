"""All SQL of invoices. Nothing here updates an invoice: the database would refuse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from haat.infra.postgres import Connection
from haat.invoices.model import Draft, Line
from haat.kernel.clock import Period
from haat.kernel.ids import new_id
from haat.usage.model import ASKED, BILLED_VALUES, id_bound

Row = Mapping[str, Any]

_INVOICE = """
    id, org_id, period, part, closes, serial, issued_at, batch_to, place_of_supply, net, tax, total, content_hash
"""


async def lock(connection: Connection, org: UUID) -> None:
    """Let one transaction at a time bill an organisation."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('invoice/' || %s, 0))", (str(org),))


async def buyer(connection: Connection, org: UUID) -> Row | None:
    row = await (
        await connection.execute(
            "SELECT id, name, address, state_code, gstin, zone FROM organisations WHERE id = %s", (org,)
        )
    ).fetchone()
    return row


async def invoices_of(connection: Connection, org: UUID) -> list[Row]:
    """Return an organisation's invoices, oldest period and part first."""
    rows = await connection.execute(f"SELECT {_INVOICE} FROM invoices WHERE org_id = %s ORDER BY period, part", (org,))
    return [row async for row in rows]


async def billed_up_to(connection: Connection, org: UUID, period: str) -> int:
    """Return the batch up to which the usage of a period lies on issued lines."""
    row = await (
        await connection.execute(
            "SELECT coalesce(max(batch_to), 0) AS batch FROM invoice_lines WHERE org_id = %s AND period = %s",
            (org, period),
        )
    ).fetchone()
    assert row is not None
    return int(row["batch"])


async def free_used(connection: Connection, org: UUID, period: str) -> dict[tuple[UUID, str], Decimal]:
    """Return the free units that issued lines of a period have given, by (subscription, unit)."""
    rows = await connection.execute(
        """
        SELECT subscription_id, unit, sum(free_units) AS used FROM invoice_lines
        WHERE org_id = %s AND period = %s GROUP BY subscription_id, unit
        """,
        (org, period),
    )
    return {(row["subscription_id"], row["unit"]): row["used"] async for row in rows}


async def has_later_usage(connection: Connection, org: UUID, period: Period, batches: tuple[int, int]) -> bool:
    """Tell from the rollups whether billed usage of a period came in batches ``(from, to]``, or may have."""
    row = await (
        await connection.execute(
            """
            SELECT EXISTS (SELECT FROM usage_hourly WHERE org_id = %s AND hour >= %s - interval '1 hour' AND hour < %s
                           AND batch > %s AND outcome = ANY(%s)) AS found
            """,
            (org, period.start, period.end, batches[0], BILLED_VALUES),
        )
    ).fetchone()
    assert row is not None
    return bool(row["found"])


async def organisations_to_bill(connection: Connection, start: datetime, end: datetime) -> list[UUID]:
    """Return the organisations with billed usage between two instants, in order of their ids."""
    rows = await connection.execute(
        """
        SELECT DISTINCT org_id FROM usage_hourly
        WHERE hour >= %s AND hour < %s AND outcome = ANY(%s) AND org_id IS NOT NULL ORDER BY org_id
        """,
        (start, end, BILLED_VALUES),
    )
    return [row["org_id"] async for row in rows]


async def next_serial(connection: Connection, prefix: str, financial_year: str) -> int:
    """Take the next number of a financial year. The row stays locked to the commit, so no number is lost."""
    row = await (
        await connection.execute(
            """
            INSERT INTO invoice_serials (prefix, financial_year, last) VALUES (%s, %s, 1)
            ON CONFLICT (prefix, financial_year) DO UPDATE SET last = invoice_serials.last + 1 RETURNING last
            """,
            (prefix, financial_year),
        )
    ).fetchone()
    assert row is not None
    return int(row["last"])


async def add_lines(connection: Connection, invoice: UUID, org: UUID, lines: Sequence[Line]) -> None:
    """Write an invoice's lines; the invoice itself comes after them and seals them."""
    async with connection.cursor() as cursor:
        await cursor.executemany(
            """
            INSERT INTO invoice_lines (id, invoice_id, position, org_id, identity, period, subscription_id, service_id,
                provider_org, plan, rate_card_id, id_from, id_to, batch_from, batch_to, calls, unit, quantity,
                free_units, unit_price, taxable, provider_share, description, cached_share)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            """,
            [
                (
                    new_id(),
                    invoice,
                    position,
                    org,
                    line.identity,
                    line.period,
                    line.charge.subscription,
                    line.charge.service,
                    line.charge.provider_org,
                    line.charge.plan,
                    line.charge.card.id,
                    id_bound(line.charge.start),
                    id_bound(line.charge.end),
                    line.batch_from,
                    line.batch_to,
                    line.charge.calls,
                    line.charge.card.unit,
                    line.charge.quantity,
                    line.charge.free_units,
                    line.charge.card.unit_price,
                    line.taxable,
                    line.charge.card.provider_share,
                    line.description,
                    line.charge.cached_share,
                )
                for position, line in enumerate(lines, 1)
            ],
        )


async def add_invoice(
    connection: Connection,
    draft: Draft,
    *,
    id: UUID,
    org: UUID,
    period: str,
    part: int,
    closes: bool,
    serial: str,
    issued_at: datetime,
    batch_to: int,
    document: str,
    content_hash: bytes,
) -> Row:
    row = await (
        await connection.execute(
            f"""
            INSERT INTO invoices (id, org_id, period, part, closes, serial, issued_at, batch_to, place_of_supply,
                net, tax, total, document, content_hash)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING {_INVOICE}
            """,
            (
                id,
                org,
                period,
                part,
                closes,
                serial,
                issued_at,
                batch_to,
                draft.place_of_supply,
                draft.net,
                draft.tax,
                draft.total,
                document,
                content_hash,
            ),
        )
    ).fetchone()
    assert row is not None
    return row


async def page(
    connection: Connection, org: UUID | None, period: str | None, before: UUID | None, limit: int
) -> list[Row]:
    """Return invoices, newest first; ``org`` None returns every organisation's."""
    rows = await connection.execute(
        f"""
        SELECT {_INVOICE} FROM invoices
        WHERE (%(org)s::uuid IS NULL OR org_id = %(org)s) AND (%(period)s::text IS NULL OR period = %(period)s)
          AND (%(before)s::uuid IS NULL OR id < %(before)s)
        ORDER BY id DESC LIMIT %(limit)s
        """,
        {"org": org, "period": period, "before": before, "limit": limit},
    )
    return [row async for row in rows]


async def invoice(connection: Connection, identifier: UUID) -> Row | None:
    """Return an invoice with its document."""
    row = await (
        await connection.execute(f"SELECT {_INVOICE}, document FROM invoices WHERE id = %s", (identifier,))
    ).fetchone()
    return row


async def lines(connection: Connection, invoice: UUID) -> list[Row]:
    rows = await connection.execute("SELECT * FROM invoice_lines WHERE invoice_id = %s ORDER BY position", (invoice,))
    return [row async for row in rows]


async def line(connection: Connection, identifier: UUID) -> Row | None:
    row = await (await connection.execute("SELECT * FROM invoice_lines WHERE id = %s", (identifier,))).fetchone()
    return row


async def calls_of_line(connection: Connection, line: Row, after: UUID | None, limit: int) -> list[Row]:
    """Return the calls of a line in order of time: its frozen predicate, looked up."""
    part, quantity = ASKED, f"coalesce({line['unit']}, 0) - cached"
    if line["cached_share"] is not None:
        part, quantity = "cached_share = %(cached_share)s", "cached"
    rows = await connection.execute(
        f"""
        SELECT id, at, status, outcome, {quantity} AS quantity FROM usage
        WHERE org_id = %(org_id)s AND subscription_id = %(subscription_id)s AND plan IS NOT DISTINCT FROM %(plan)s
          AND service_id = %(service_id)s AND provider_org = %(provider_org)s
          AND id >= %(id_from)s AND id < %(id_to)s AND batch > %(batch_from)s AND batch <= %(batch_to)s
          AND {part} AND outcome = ANY(%(billed)s) AND mode = 'live' AND (%(after)s::uuid IS NULL OR id > %(after)s)
        ORDER BY id LIMIT %(limit)s
        """,
        {**line, "billed": BILLED_VALUES, "after": after, "limit": limit},
    )
    return [row async for row in rows]


async def language_chosen(connection: Connection, stream: str) -> str | None:
    """Return the language that an organisation chose last for its papers."""
    row = await (
        await connection.execute(
            """
            SELECT data->>'language' AS language FROM events
            WHERE stream = %s AND type = 'papers.language_chosen' ORDER BY version DESC LIMIT 1
            """,
            (stream,),
        )
    ).fetchone()
    return None if row is None else str(row["language"])

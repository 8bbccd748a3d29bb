"""All SQL of settlements. A closed one is never edited: the database would refuse."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from haat.infra.postgres import Connection
from haat.invoices.states import OWED_BY_NOBODY
from haat.kernel.events import DomainEvent
from haat.settlement.model import OWN_KINDS

Row = Mapping[str, Any]

_SETTLEMENT = """
    id, org_id, period, part, closed_at, gross, provider_amount AS provider, platform_amount AS platform, credited,
    credited_provider, credited_platform, adjusted, withheld, payable
"""


async def lock(connection: Connection, *providers: UUID) -> None:
    """Let one transaction at a time settle or pay a provider.

    Take it before anything is written: a transaction has its place in the event log by its first write, and events of
    one provider must be there in the order in which they were decided.
    """
    for provider in sorted(set(providers)):
        await connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('settlement/' || %s, 0))", (str(provider),)
        )


# --- what there is to settle ----------------------------------------------------------------------

_SOLD = """
    FROM invoice_lines AS line JOIN invoices ON invoices.id = line.invoice_id
        JOIN invoice_states AS standing ON standing.invoice_id = invoices.id
            AND standing.state <> ALL(%(owed_by_nobody)s)
"""
"""Lines that a provider earns by. Those of a void invoice are among them: its credit note takes them back."""

_BOOKED = """
    coalesce((SELECT bool_or(entry.account = 'supplies') FROM ledger_operations AS operation
              JOIN ledger_entries AS entry ON entry.operation_id = operation.id
              WHERE operation.key IN ('invoice/' || line.invoice_id, 'debit-note/' || line.invoice_id)),
        %(agent)s) AS agent
"""
"""How the line's invoice was booked; what the setting says now is for one that was not."""

_MOVEMENT = """
    FROM ledger_entries AS entry JOIN ledger_operations AS operation ON operation.id = entry.operation_id
    WHERE operation.kind <> ALL(%(own)s) AND entry.currency = 'INR'
      AND NOT EXISTS (SELECT FROM settlement_adjustments AS stated
                      WHERE stated.operation_id = operation.id AND stated.org_id = entry.org_id)
"""


async def unsettled(connection: Connection, provider_org: UUID, period: str, agent: bool) -> list[Row]:
    """Return lines of a period's invoices that no settlement has yet, in a fixed order."""
    rows = await connection.execute(
        f"""
        SELECT line.id, line.taxable, line.provider_share, {_BOOKED} {_SOLD}
        WHERE line.provider_org = %(provider)s AND invoices.period = %(period)s
          AND NOT EXISTS (SELECT FROM settlement_lines WHERE invoice_line_id = line.id)
        ORDER BY invoices.serial, line.position
        """,
        {"provider": provider_org, "period": period, "agent": agent, "owed_by_nobody": list(OWED_BY_NOBODY)},
    )
    return [row async for row in rows]


async def unsettled_sums(connection: Connection, period: str) -> Row:
    """Return how many ``providers`` have ``lines`` on a period's invoices that no settlement has yet, and their sum."""
    row = await (
        await connection.execute(
            f"""
            SELECT count(DISTINCT line.provider_org) AS providers, count(*) AS lines,
                   coalesce(sum(line.taxable), 0) AS gross {_SOLD}
            WHERE invoices.period = %(period)s
              AND NOT EXISTS (SELECT FROM settlement_lines WHERE invoice_line_id = line.id)
            """,
            {"period": period, "owed_by_nobody": list(OWED_BY_NOBODY)},
        )
    ).fetchone()
    assert row is not None
    return row


async def unsettled_credits(connection: Connection, provider_org: UUID, agent: bool) -> list[Row]:
    """Return credits on settled lines that no settlement has yet, with what was credited of the line before."""
    rows = await connection.execute(
        f"""
        SELECT credit.id, credit.invoice_line_id, credit.fault, credit.taxable, credit.provider_share,
               line.taxable AS gross,
               coalesce((SELECT sum(gross) FROM settlement_credits AS earlier
                         WHERE earlier.invoice_line_id = line.id AND earlier.fault = 'provider'), 0) AS before,
               EXISTS (SELECT FROM ledger_operations AS operation
                       JOIN ledger_entries AS entry ON entry.operation_id = operation.id
                       WHERE operation.key = 'credit-note/' || credit.credit_note_id AND entry.account = 'credits')
                   AS guarantee,
               {_BOOKED}
        FROM credit_note_lines AS credit JOIN invoice_lines AS line ON line.id = credit.invoice_line_id
        WHERE credit.provider_org = %(provider)s
          AND EXISTS (SELECT FROM settlement_lines WHERE invoice_line_id = line.id)
          AND NOT EXISTS (SELECT FROM settlement_credits WHERE credit_note_line_id = credit.id)
        ORDER BY credit.id
        """,
        {"provider": provider_org, "agent": agent},
    )
    return [row async for row in rows]


async def movements(connection: Connection, provider_org: UUID) -> list[Row]:
    """Return what others posted to a provider's account and no statement shows yet; above zero for the provider."""
    rows = await connection.execute(
        f"""
        SELECT operation.id, operation.kind, operation.reference, -sum(entry.amount) AS amount {_MOVEMENT}
          AND entry.account = %(account)s
        GROUP BY operation.id, operation.kind, operation.reference HAVING sum(entry.amount) <> 0 ORDER BY operation.id
        """,
        {"own": list(OWN_KINDS), "account": f"payable/{provider_org}"},
    )
    return [row async for row in rows]


async def providers_to_settle(connection: Connection, period: str) -> list[UUID]:
    """Return the providers with lines on a period's invoices, with credits to settle, or with others' postings."""
    rows = await connection.execute(
        f"""
        SELECT line.provider_org {_SOLD} WHERE invoices.period = %(period)s
        UNION
        SELECT credit.provider_org FROM credit_note_lines AS credit
        WHERE NOT EXISTS (SELECT FROM settlement_credits WHERE credit_note_line_id = credit.id)
        UNION
        SELECT entry.org_id {_MOVEMENT} AND starts_with(entry.account, 'payable/') AND entry.org_id IS NOT NULL
        ORDER BY provider_org
        """,
        {"period": period, "own": list(OWN_KINDS), "owed_by_nobody": list(OWED_BY_NOBODY)},
    )
    return [row["provider_org"] async for row in rows]


async def contested(connection: Connection, settlement: UUID) -> list[Row]:
    """Return what an open dispute contests of a settlement that has just been closed, by dispute."""
    rows = await connection.execute(
        """
        SELECT contested.dispute_id, sum(settled.provider_amount) AS amount
        FROM settlement_lines AS settled
        JOIN dispute_lines AS contested ON contested.invoice_line_id = settled.invoice_line_id AND contested.open
        WHERE settled.settlement_id = %s GROUP BY contested.dispute_id ORDER BY contested.dispute_id
        """,
        (settlement,),
    )
    return [row async for row in rows]


# --- the projection: what events say --------------------------------------------------------------


async def apply_lines(connection: Connection, event: DomainEvent) -> None:
    await connection.execute(
        """
        INSERT INTO settlement_lines (id, settlement_id, org_id, invoice_line_id, gross, share, provider_amount,
            platform_amount)
        SELECT (one->>0)::uuid, %s, %s, (one->>1)::uuid, (one->>2)::numeric, (one->>3)::numeric, (one->>4)::numeric,
               (one->>5)::numeric
        FROM jsonb_array_elements(%s) AS one
        """,
        (_id_of(event), event.org, Jsonb(event.data["lines"])),
    )


async def apply_closed(connection: Connection, event: DomainEvent) -> None:
    """Write what a statement says besides its lines, then its head, which seals them, then the earning it makes."""
    data, identifier = event.data, _id_of(event)
    if "payable" not in data:  # of before revision 0020, which says the same again
        return
    await connection.execute(
        """
        INSERT INTO settlement_credits (id, settlement_id, org_id, credit_note_line_id, invoice_line_id, fault, gross,
            share, provider_amount, platform_amount)
        SELECT (one->>0)::uuid, %s, %s, (one->>1)::uuid, (one->>2)::uuid, one->>3, (one->>4)::numeric,
               (one->>5)::numeric, (one->>6)::numeric, (one->>7)::numeric
        FROM jsonb_array_elements(%s) AS one
        """,
        (identifier, event.org, Jsonb(data["credits"])),
    )
    await connection.execute(
        """
        INSERT INTO settlement_withheld (id, settlement_id, org_id, name, section, base, rate, amount)
        SELECT (one->>0)::uuid, %s, %s, one->>1, one->>2, (one->>3)::numeric, (one->>4)::numeric, (one->>5)::numeric
        FROM jsonb_array_elements(%s) AS one
        """,
        (identifier, event.org, Jsonb(data["withheld_lines"])),
    )
    await connection.execute(
        """
        INSERT INTO settlement_adjustments (id, settlement_id, org_id, operation_id, kind, reference, amount)
        SELECT (one->>0)::uuid, %s, %s, (one->>1)::uuid, one->>2, one->>3, (one->>4)::numeric
        FROM jsonb_array_elements(%s) AS one
        """,
        (identifier, event.org, Jsonb(data["adjustments"])),
    )
    closed_at = datetime.fromisoformat(data["closed_at"])
    amounts = ("gross", "provider", "platform", "credited", "credited_provider", "credited_platform")
    await connection.execute(
        """
        INSERT INTO settlements (id, org_id, period, part, closed_at, gross, provider_amount, platform_amount, credited,
            credited_provider, credited_platform, adjusted, withheld, payable)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        """,
        (
            identifier,
            event.org,
            data["period"],
            data["part"],
            closed_at,
            *(Decimal(data[name]) for name in (*amounts, "adjusted", "withheld", "payable")),
        ),
    )
    if data["earning"]:
        payable = Decimal(data["payable"])
        await add_earning(
            connection,
            data["earning"],
            event.org,
            "settlement",
            identifier,
            payable,
            closed_at if payable > 0 else None,
        )


async def add_earning(
    connection: Connection,
    identifier: str,
    org: UUID | None,
    kind: str,
    reference: UUID,
    amount: Decimal,
    since: datetime | None,
) -> None:
    """Write one of the rows that payouts are made of; ``since`` None: it counts at once."""
    await connection.execute(
        "INSERT INTO earnings (id, org_id, kind, reference, amount, since) VALUES (%s, %s, %s, %s, %s, %s)",
        (identifier, org, kind, reference, amount, since),
    )


def _id_of(event: DomainEvent) -> UUID:
    return UUID(event.stream.partition("/")[2])


# --- reading --------------------------------------------------------------------------------------


async def settlements_of(connection: Connection, provider_org: UUID, period: str) -> list[Row]:
    rows = await connection.execute(
        f"SELECT {_SETTLEMENT} FROM settlements WHERE org_id = %s AND period = %s ORDER BY part",
        (provider_org, period),
    )
    return [row async for row in rows]


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


async def credits(connection: Connection, settlement: UUID) -> list[Row]:
    """Return what a settlement takes back, with what the invoice lines say. It needs the platform's scope."""
    rows = await connection.execute(
        """
        SELECT credited.id, credited.invoice_line_id, credited.fault, credited.gross, credited.share,
               credited.provider_amount AS provider, credited.platform_amount AS platform, credited.org_id,
               line.org_id AS customer_org, line.description, line.period,
               (SELECT id FROM settlement_lines WHERE invoice_line_id = line.id) AS line_id
        FROM settlement_credits AS credited JOIN invoice_lines AS line ON line.id = credited.invoice_line_id
        WHERE credited.settlement_id = %s ORDER BY credited.id
        """,
        (settlement,),
    )
    return [row async for row in rows]


async def withheld(connection: Connection, settlement: UUID) -> list[Row]:
    rows = await connection.execute(
        "SELECT name, section, base, rate, amount FROM settlement_withheld WHERE settlement_id = %s ORDER BY name",
        (settlement,),
    )
    return [row async for row in rows]


async def adjustments(connection: Connection, settlement: UUID) -> list[Row]:
    rows = await connection.execute(
        "SELECT kind, reference, amount FROM settlement_adjustments WHERE settlement_id = %s ORDER BY id",
        (settlement,),
    )
    return [row async for row in rows]


async def terms(connection: Connection, provider_org: UUID) -> Row | None:
    """Return what was agreed with a provider about its payouts, if anything was."""
    row = await (
        await connection.execute(
            """
            SELECT org_id, minimum, delay_days, withholdings, stopped, changed_at FROM payout_terms WHERE org_id = %s
            """,
            (provider_org,),
        )
    ).fetchone()
    return row

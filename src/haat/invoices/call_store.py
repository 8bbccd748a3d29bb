"""The SQL of calls behind invoice lines, in both directions: a line's calls, and the lines that a call lies on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from haat.infra.postgres import Connection
from haat.invoices.model import Line
from haat.invoices.portions import Spread, Weight
from haat.kernel.money import multiply, proportion
from haat.kernel.prices import ADDITIVE, MONTHS
from haat.rating.service import quantity_sql
from haat.usage.model import BILLED_VALUES, MEMBER, id_bound

Row = Mapping[str, Any]

_ON_LINE = f"""
    FROM usage AS call JOIN invoice_lines AS line ON line.id = %(id)s
        LEFT JOIN usage_corrections AS correction
            ON correction.call_id = call.id AND correction.batch <= %(batch_to)s,
        LATERAL (SELECT correction.call_id IS NOT NULL AS voided) AS void
    WHERE call.org_id = %(org_id)s AND call.subscription_id = %(subscription_id)s
      AND call.plan IS NOT DISTINCT FROM %(plan)s
      AND call.service_id = %(service_id)s AND call.provider_org = %(provider_org)s
      AND call.id >= %(id_from)s AND call.id < %(id_to)s
      AND CASE WHEN voided THEN call.batch <= %(batch_from)s AND correction.batch > %(batch_from)s
          ELSE call.batch > %(batch_from)s AND call.batch <= %(batch_to)s END
      AND {MEMBER} AND call.outcome = ANY(%(billed)s) AND call.mode = 'live'
"""
"""A line's calls: its frozen predicate, looked up. A call that was void before the line was made is not on it; one that
an earlier line has, and that was void by then, is on it with its quantity taken off."""


async def calls_of_line(connection: Connection, line: Row, after: UUID | None, limit: int) -> list[Row]:
    """Return the calls of a line in order of time."""
    if not _has_calls(line):
        return []
    rows = await connection.execute(
        f"""
        SELECT call.id, call.at, call.status, call.outcome, voided, {_signed(line)} AS quantity {_ON_LINE}
          AND (%(after)s::uuid IS NULL OR call.id > %(after)s)
        ORDER BY call.id LIMIT %(limit)s
        """,
        {**_predicate(line), "after": after, "limit": limit},
    )
    return [row async for row in rows]


async def was_corrected(connection: Connection, org: UUID, line: Line) -> bool:
    """Tell whether a call that is like those of a drafted line was corrected within the line's batches."""
    charge = line.charge
    rows = await connection.execute(
        f"""
        SELECT FROM usage_corrections AS correction JOIN usage AS call ON call.id = correction.call_id,
            (VALUES (%s::jsonb, %s::numeric)) AS line (members, cached_share)
        WHERE correction.org_id = %s AND correction.batch > %s AND correction.batch <= %s
          AND call_id >= %s AND call_id < %s AND subscription_id = %s AND plan IS NOT DISTINCT FROM %s
          AND service_id = %s AND provider_org = %s AND {MEMBER} LIMIT 1
        """,
        (
            *(Jsonb(dict(charge.members())), charge.cached_share),
            *(org, line.batch_from, line.batch_to, id_bound(charge.start), id_bound(charge.end)),
            *(charge.subscription, charge.plan, charge.service, charge.provider_org),
        ),
    )
    return await rows.fetchone() is not None


async def lines_about(connection: Connection, call: UUID) -> list[Row]:
    """Return the lines of invoices that stand which a call may lie on, oldest first: whether it does, `on_line` tells.

    They have their invoice's serial and, where one settled them, a settlement's id.
    """
    rows = await connection.execute(
        f"""
        SELECT line.*, invoices.serial, settled.settlement_id
        FROM usage AS call JOIN invoice_lines AS line ON line.subscription_id = call.subscription_id
            AND line.id_from <= call.id AND line.id_to > call.id AND line.unit <> '{MONTHS}'
        JOIN invoices ON invoices.id = line.invoice_id
        JOIN invoice_states ON invoice_states.invoice_id = line.invoice_id AND state <> 'void'
        LEFT JOIN settlement_lines AS settled ON settled.invoice_line_id = line.id
        WHERE call.id = %s ORDER BY line.id
        """,
        (call,),
    )
    return [row async for row in rows]


async def on_line(connection: Connection, line: Row, call: UUID) -> Row | None:
    """Return a call's quantity on a line, and whether it was voided; None when it doesn't lie on it."""
    rows = await connection.execute(
        f"SELECT voided, {_signed(line)} AS quantity {_ON_LINE} AND call.id = %(call)s",
        {**_predicate(line), "call": call},
    )
    return await rows.fetchone()


async def parties(connection: Connection, call: UUID) -> tuple[UUID | None, UUID | None]:
    """Return whose a call is, and who executed it; twice None when there is no such call."""
    rows = await connection.execute("SELECT org_id, provider_org FROM usage WHERE id = %s", (call,))
    row = await rows.fetchone()
    return (row["org_id"], row["provider_org"]) if row else (None, None)


async def weight(connection: Connection, line: Row, upto: UUID | None = None) -> Weight:
    """Return what a line's calls weigh, or those with smaller ids than one's."""
    row = await (
        await connection.execute(
            f"""
            SELECT count(*) AS calls, coalesce(sum(quantity), 0) AS quantity,
                   coalesce(sum(abs(quantity)), 0) AS absolute
            FROM (SELECT {_signed(line)} AS quantity {_ON_LINE} AND (%(upto)s::uuid IS NULL OR call.id < %(upto)s))
                AS calls
            """,
            {**_predicate(line), "upto": upto},
        )
    ).fetchone()
    assert row is not None
    return Weight(**row)


async def spread(connection: Connection, line: Row) -> Spread:
    """Return how a line's amount lies on its calls.

    What the calls weigh is what the line says, and isn't looked up, where it adds up what they have and takes none off.
    """
    if not _has_calls(line):
        return Spread(line["taxable"], Weight())
    rows = await connection.execute(
        """
        SELECT (SELECT (one ->> 'package_size')::numeric
                FROM rate_cards, jsonb_array_elements(components) AS one
                WHERE rate_cards.id = line.rate_card_id AND one ->> 'meter' = line.meter) AS package_size,
               EXISTS (SELECT FROM usage_corrections AS correction
                       WHERE correction.org_id = line.org_id AND batch > batch_from AND batch <= batch_to
                         AND call_id >= id_from AND call_id < id_to) AS corrected
        FROM invoice_lines AS line WHERE id = %s
        """,
        (line["id"],),
    )
    row = await rows.fetchone()
    assert row is not None
    if (line["members"] or {}).get("aggregation", "sum") in ADDITIVE and not row["corrected"]:
        return Spread(line["taxable"], Weight(line["calls"], line["quantity"], line["quantity"]))
    price = line["unit_price"] if line["cached_share"] is None else multiply(line["unit_price"], line["cached_share"])
    if row["package_size"]:
        price = proportion(price, 1, row["package_size"])
    return Spread(line["taxable"], await weight(connection, line), price)


def _has_calls(line: Row) -> bool:
    """Tell whether calls can lie on a line: none do on a fee, a minimum, what came without usage, a debit note's."""
    return bool(line["unit"] != MONTHS and line["batch_from"] != line["batch_to"])


def _predicate(line: Row) -> dict[str, Any]:
    return {**{name: value for name, value in line.items() if name != "members"}, "billed": BILLED_VALUES}


def _signed(line: Row) -> str:
    """Return what a call adds to a line, or takes off, as SQL."""
    quantity = _quantity(line)
    return f"CASE WHEN voided THEN -({quantity}) ELSE {quantity} END"


def _quantity(line: Row) -> str:
    """Return what a call adds to a line, or shows it, as SQL: a count and a number of users count it as one."""
    counted: Mapping[str, Any] = line["members"] or {"aggregation": "sum", "key": line["unit"], "sold": True}
    cached = line["cached_share"] is not None
    if counted["aggregation"] == "unique":
        return "1::numeric"
    if counted["aggregation"] == "count":
        return "(call.cache = 'hit')::integer::numeric" if cached else "1::numeric"
    quantity = f"coalesce({quantity_sql(counted['key'], 'call')}, 0)"
    if counted["aggregation"] != "sum" or not (cached or counted["sold"]):
        return quantity
    if not cached:
        return f"{quantity} - call.cached"
    return "call.cached" if counted["sold"] else f"CASE WHEN call.cache = 'hit' THEN {quantity} ELSE 0 END"

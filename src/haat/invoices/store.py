"""All SQL that reads invoices, and what is written before their events are: serials and documents.

Rows of invoices, notes and payments are written by `projection` alone, from events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from haat.infra.postgres import Connection
from haat.invoices.model import Billed
from haat.kernel.clock import Period
from haat.usage.model import BILLED_VALUES, id_bound

Row = Mapping[str, Any]

_INVOICE = """
    invoices.id, invoices.org_id, invoices.kind, invoices.against, invoices.period, part, closes, invoices.serial,
    issued_at, batch_to, place_of_supply, net, tax, invoices.total, content_hash, invoices.due_on, state, paid,
    credited
"""
_INVOICES = f"SELECT {_INVOICE} FROM invoices JOIN invoice_states ON invoice_id = invoices.id"
_STANDING = """
    invoice_id, org_id, kind, period, serial, state, total, paid, credited, due_on, reminders, reason, changed_at,
    version
"""


async def fetch_all(connection: Connection, query: str, *values: Any) -> list[Row]:
    return [row async for row in await connection.execute(query, values)]


async def fetch_one(connection: Connection, query: str, *values: Any) -> Row | None:
    row = await (await connection.execute(query, values)).fetchone()
    return row


# --- what is billed -------------------------------------------------------------------------------


async def lock(connection: Connection, *orgs: UUID) -> None:
    """Let one transaction at a time bill an organisation; of several they are taken in one order."""
    await connection.execute(
        """
        SELECT pg_advisory_xact_lock(hashtextextended('invoice/' || org, 0))
        FROM (SELECT unnest(%s::text[]) AS org ORDER BY 1) AS orgs
        """,
        ([str(org) for org in orgs],),
    )


async def lock_key(connection: Connection, key: str) -> None:
    """Let one transaction at a time decide what becomes of a key."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 1))", (key,))


async def buyers(connection: Connection, orgs: Sequence[UUID]) -> dict[UUID, Row]:
    rows = await fetch_all(
        connection,
        "SELECT id, name, address, state_code, gstin, zone FROM organisations WHERE id = ANY(%s)",
        list(orgs),
    )
    return {row["id"]: row for row in rows}


async def invoices_of(connection: Connection, orgs: Sequence[UUID]) -> list[Row]:
    """Return the organisations' invoices and statements, without notes, oldest period and part first."""
    return await fetch_all(
        connection,
        f"{_INVOICES} WHERE invoices.org_id = ANY(%s) AND invoices.kind <> 'debit_note' ORDER BY invoices.period, part",
        list(orgs),
    )


async def registering(connection: Connection, orgs: Sequence[UUID]) -> dict[UUID, str]:
    """Return the serials of the invoices that wait for their registration, by organisation."""
    rows = await fetch_all(
        connection,
        "SELECT org_id, serial FROM invoice_states WHERE org_id = ANY(%s) AND state = 'registering'",
        list(orgs),
    )
    return {row["org_id"]: row["serial"] for row in rows}


_BILLED = """
    FROM invoice_lines AS line JOIN invoices ON invoices.id = line.invoice_id
    JOIN invoice_states AS standing ON standing.invoice_id = line.invoice_id
    WHERE line.org_id = ANY(%s) AND standing.state <> 'void' AND invoices.kind <> 'debit_note'
"""


async def billed_up_to(connection: Connection, orgs: Sequence[UUID]) -> dict[tuple[UUID, str], int]:
    """Return the batch up to which usage lies on issued lines, by organisation and period."""
    rows = await fetch_all(
        connection,
        f"SELECT line.org_id, line.period, max(line.batch_to) AS batch {_BILLED} GROUP BY line.org_id, line.period",
        list(orgs),
    )
    return {(row["org_id"], row["period"]): int(row["batch"]) for row in rows}


async def billed(
    connection: Connection, asked: Sequence[tuple[UUID, str]]
) -> dict[tuple[UUID, str], dict[str, Billed]]:
    """Return what issued lines charge, by organisation and period as asked, and by what they charge for."""
    if not asked:
        return {}
    rows = await fetch_all(
        connection,
        f"""
        SELECT line.org_id, line.period, line.charge_key, sum(line.quantity) AS quantity,
               sum(line.free_units) AS free_units, sum(line.calls) AS calls, sum(line.taxable) AS taxable
        {_BILLED} AND (line.org_id, line.period) IN (SELECT * FROM unnest(%s::uuid[], %s::text[]))
        GROUP BY line.org_id, line.period, line.charge_key
        """,
        [org for org, _ in asked],
        [org for org, _ in asked],
        [period for _, period in asked],
    )
    found: dict[tuple[UUID, str], dict[str, Billed]] = {}
    for row in rows:
        one = Billed(row["quantity"], row["free_units"], int(row["calls"]), row["taxable"])
        found.setdefault((row["org_id"], row["period"]), {})[row["charge_key"]] = one
    return found


async def former_lines(connection: Connection, org: UUID, period: str, keys: Sequence[str]) -> list[Row]:
    """Return the last issued line of each charge, with its card's version."""
    return await fetch_all(
        connection,
        f"""
        SELECT DISTINCT ON (line.charge_key) line.*, rate_cards.version AS card_version
        {_BILLED.replace("WHERE", "JOIN rate_cards ON rate_cards.id = line.rate_card_id WHERE", 1)}
          AND line.period = %s AND line.charge_key = ANY(%s)
        ORDER BY line.charge_key, line.batch_to DESC
        """,
        [org],
        period,
        list(keys),
    )


async def with_later_usage(connection: Connection, asked: Sequence[tuple[UUID, Period, int]]) -> set[tuple[UUID, str]]:
    """Tell of which (organisation, period) billed usage, or a correction, came after a batch, or may have.

    A run bills many up to the same batch: what came after that is a few rows at the end of a month's, found together.
    Others' is looked for in the rollups, which know the batch that last added to an hour.
    """
    if not asked:
        return set()
    together: dict[tuple[Period, int], list[UUID]] = {}
    for org, period, after in asked:
        together.setdefault((period, after), []).append(org)
    found: set[tuple[UUID, str]] = set()
    for (period, after), orgs in together.items():
        if len(orgs) >= _MANY:
            found |= {(org, period.label) for org in await _called_later(connection, orgs, period, after)}
    alone = [one for one in asked if len(together[one[1], one[2]]) < _MANY]
    rows = await fetch_all(
        connection,
        """
        SELECT org, label FROM unnest(%s::uuid[], %s::text[], %s::timestamptz[], %s::timestamptz[], %s::bigint[])
            AS one (org, label, first, last, after)
        WHERE EXISTS (SELECT FROM usage_hourly WHERE org_id = org AND hour >= first - interval '1 hour' AND hour < last
                      AND batch > after AND outcome = ANY(%s))
        UNION
        SELECT org, label FROM unnest(%s::uuid[], %s::text[], %s::uuid[], %s::uuid[], %s::bigint[])
            AS one (org, label, id_from, id_to, after)
        WHERE EXISTS (SELECT FROM usage_corrections AS correction
                      WHERE correction.org_id = org AND batch > after AND call_id >= id_from AND call_id < id_to)
        """,
        [org for org, _, _ in alone],
        [period.label for _, period, _ in alone],
        [period.start for _, period, _ in alone],
        [period.end for _, period, _ in alone],
        [after for _, _, after in alone],
        BILLED_VALUES,
        [org for org, _, _ in asked],
        [period.label for _, period, _ in asked],
        [id_bound(period.start) for _, period, _ in asked],
        [id_bound(period.end) for _, period, _ in asked],
        [after for _, _, after in asked],
    )
    return found | {(row["org"], row["label"]) for row in rows}


_MANY = 20
"""From so many on, organisations billed up to the same batch are asked about together."""


async def _called_later(connection: Connection, orgs: Sequence[UUID], period: Period, after: int) -> list[UUID]:
    rows = await connection.execute(
        """
        SELECT DISTINCT org_id FROM usage
        WHERE id >= %s AND id < %s AND batch > %s AND org_id = ANY(%s) AND outcome = ANY(%s) AND mode = 'live'
        """,
        (id_bound(period.start), id_bound(period.end), after, list(orgs), BILLED_VALUES),
        prepare=False,  # only a plan that knows the batch finds its rows by it
    )
    return [row["org_id"] async for row in rows]


async def organisations_to_bill(connection: Connection, start: datetime, end: datetime) -> list[UUID]:
    """Return the organisations with billed usage or a subscription between two instants, in order of their ids.

    Organisations are found one after the other in the rollups' key: there are many rollups of each.
    """
    rows = await fetch_all(
        connection,
        """
        WITH RECURSIVE called AS (
            (SELECT org_id FROM usage_hourly ORDER BY org_id LIMIT 1)
            UNION ALL
            SELECT (SELECT org_id FROM usage_hourly WHERE org_id > called.org_id ORDER BY org_id LIMIT 1)
            FROM called WHERE called.org_id IS NOT NULL
        )
        SELECT org_id FROM called WHERE EXISTS (
            SELECT FROM usage_hourly
            WHERE org_id = called.org_id AND hour >= %s AND hour < %s AND outcome = ANY(%s))
        UNION
        SELECT org_id FROM subscriptions WHERE started_at < %s AND (ended_at IS NULL OR ended_at >= %s)
        ORDER BY org_id
        """,
        start,
        end,
        BILLED_VALUES,
        end,
        start,
    )
    return [row["org_id"] for row in rows]


# --- what is written before its event ------------------------------------------------------------


async def next_serials(connection: Connection, prefix: str, financial_year: str, count: int) -> range:
    """Take the next numbers of a financial year. The row stays locked to the commit, so no number is lost."""
    row = await fetch_one(
        connection,
        """
        INSERT INTO invoice_serials (prefix, financial_year, last) VALUES (%s, %s, %s)
        ON CONFLICT (prefix, financial_year) DO UPDATE SET last = invoice_serials.last + excluded.last RETURNING last
        """,
        prefix,
        financial_year,
        count,
    )
    assert row is not None
    return range(int(row["last"]) - count + 1, int(row["last"]) + 1)


async def keep_documents(connection: Connection, documents: Sequence[tuple[bytes, UUID, str]]) -> None:
    """Keep texts, as (hash, organisation, text), for good."""
    rows = [
        {"content_hash": f"\\x{digest.hex()}", "org_id": str(org), "document": text} for digest, org, text in documents
    ]
    await connection.execute(
        """
        INSERT INTO invoice_documents (content_hash, org_id, document)
        SELECT content_hash, org_id, document
        FROM jsonb_to_recordset(%s) AS one (content_hash bytea, org_id uuid, document text) ON CONFLICT DO NOTHING
        """,
        (Jsonb(rows),),
    )


async def document(connection: Connection, digest: bytes) -> str | None:
    row = await fetch_one(connection, "SELECT document FROM invoice_documents WHERE content_hash = %s", digest)
    return str(row["document"]) if row else None


# --- invoices and lines ---------------------------------------------------------------------------


async def page(
    connection: Connection,
    org: UUID | None,
    period: str | None,
    before: UUID | None,
    limit: int,
    state: str | None = None,
) -> list[Row]:
    """Return invoices, newest first; ``org`` None returns every organisation's."""
    rows = await connection.execute(
        f"""
        {_INVOICES}
        WHERE (%(org)s::uuid IS NULL OR invoices.org_id = %(org)s)
          AND (%(period)s::text IS NULL OR invoices.period = %(period)s)
          AND (%(state)s::text IS NULL OR state = %(state)s)
          AND (%(before)s::uuid IS NULL OR invoices.id < %(before)s)
        ORDER BY invoices.id DESC LIMIT %(limit)s
        """,
        {"org": org, "period": period, "before": before, "limit": limit, "state": state},
    )
    return [row async for row in rows]


async def invoices_named(connection: Connection, identifiers: Sequence[UUID]) -> list[Row]:
    return await fetch_all(
        connection, f"{_INVOICES} WHERE invoices.id = ANY(%s) ORDER BY invoices.id", list(identifiers)
    )


async def invoice(connection: Connection, identifier: UUID) -> Row | None:
    """Return an invoice with its document."""
    return await fetch_one(
        connection,
        f"""
        SELECT {_INVOICE}, document FROM invoices JOIN invoice_states ON invoice_id = invoices.id
        JOIN invoice_documents USING (content_hash) WHERE invoices.id = %s
        """,
        identifier,
    )


async def lines(connection: Connection, invoice: UUID) -> list[Row]:
    return await fetch_all(connection, "SELECT * FROM invoice_lines WHERE invoice_id = %s ORDER BY position", invoice)


async def line(connection: Connection, identifier: UUID) -> Row | None:
    return await fetch_one(connection, "SELECT * FROM invoice_lines WHERE id = %s", identifier)


# --- standing and money ---------------------------------------------------------------------------


async def standings(connection: Connection, identifiers: Sequence[UUID]) -> list[Row]:
    return await fetch_all(
        connection, f"SELECT {_STANDING} FROM invoice_states WHERE invoice_id = ANY(%s)", list(identifiers)
    )


async def standing(connection: Connection, identifier: UUID) -> Row | None:
    return await fetch_one(connection, f"SELECT {_STANDING} FROM invoice_states WHERE invoice_id = %s", identifier)


async def owing(connection: Connection, orgs: Sequence[UUID]) -> list[Row]:
    """Return the standings of what organisations owe, what is due first coming first."""
    return await fetch_all(
        connection,
        f"""
        SELECT {_STANDING} FROM invoice_states WHERE org_id = ANY(%s) AND state IN ('issued', 'overdue')
        ORDER BY due_on NULLS LAST, invoice_id
        """,
        list(orgs),
    )


async def waiting(connection: Connection) -> list[Row]:
    """Return the standings of invoices that wait for their registration, oldest first."""
    return await fetch_all(
        connection, f"SELECT {_STANDING} FROM invoice_states WHERE state = 'registering' ORDER BY invoice_id"
    )


async def due_before(connection: Connection, day: date, after: UUID | None, limit: int) -> list[Row]:
    """Return the standings of open invoices that were due before a day."""
    return await fetch_all(
        connection,
        f"""
        SELECT {_STANDING} FROM invoice_states
        WHERE state IN ('issued', 'overdue') AND due_on < %s AND (%s::uuid IS NULL OR invoice_id > %s)
        ORDER BY invoice_id LIMIT %s
        """,
        day,
        after,
        after,
        limit,
    )


async def unspent(connection: Connection, orgs: Sequence[UUID]) -> list[Row]:
    """Return payments and credit notes of which something paid no invoice yet, with what, oldest first."""
    return await fetch_all(
        connection,
        """
        SELECT source, org_id, rest FROM (
            SELECT source, org_id, id, amount - coalesce((SELECT sum(allocation.amount) FROM allocations AS allocation
                                                          WHERE allocation.source = given.source), 0) AS rest
            FROM (SELECT 'payment/' || id AS source, org_id, id, amount - coalesce(
                             (SELECT sum(gone.amount) FROM payment_returns AS gone
                              WHERE gone.payment_key = payments.key AND gone.state = 'gone'), 0) AS amount
                  FROM payments WHERE org_id = ANY(%s)
                  UNION ALL
                  SELECT 'credit-note/' || id, org_id, id, total FROM credit_notes WHERE org_id = ANY(%s)) AS given
        ) AS sources WHERE rest > 0 ORDER BY id
        """,
        list(orgs),
        list(orgs),
    )


async def allocations_of(connection: Connection, invoice: UUID) -> list[Row]:
    """Return what paid an invoice, oldest first."""
    return await fetch_all(
        connection, "SELECT source, amount, at FROM allocations WHERE invoice_id = %s ORDER BY at, id", invoice
    )


async def goes_on_from(connection: Connection, invoice: UUID) -> str | None:
    """Return the serial of the newest invoice that stands and has lines of later batches of an invoice's months."""
    row = await fetch_one(
        connection,
        """
        SELECT later.serial FROM invoice_lines AS own
        JOIN invoice_lines AS line ON line.org_id = own.org_id AND line.period = own.period
            AND line.batch_from >= own.batch_to AND line.invoice_id <> own.invoice_id
        JOIN invoices AS later ON later.id = line.invoice_id AND later.kind <> 'debit_note'
        JOIN invoice_states AS standing ON standing.invoice_id = later.id AND standing.state <> 'void'
        WHERE own.invoice_id = %s ORDER BY later.id DESC LIMIT 1
        """,
        invoice,
    )
    return str(row["serial"]) if row else None


# --- debit notes ----------------------------------------------------------------------------------


async def invoices_with_documents(connection: Connection, identifiers: Sequence[UUID]) -> list[Row]:
    return await fetch_all(
        connection,
        f"""
        SELECT {_INVOICE}, document FROM invoices JOIN invoice_states ON invoice_id = invoices.id
        JOIN invoice_documents USING (content_hash) WHERE invoices.id = ANY(%s) ORDER BY invoices.id
        """,
        list(identifiers),
    )


async def debit_note_by_key(connection: Connection, key: str) -> UUID | None:
    row = await fetch_one(connection, "SELECT id FROM invoices WHERE key = %s", key)
    return row["id"] if row else None


async def parts_of(connection: Connection, org: UUID, period: str, kind: str) -> int:
    """Return how many invoices of a kind an organisation has for a period."""
    row = await fetch_one(
        connection,
        "SELECT count(*) AS parts FROM invoices WHERE org_id = %s AND period = %s AND kind = %s",
        org,
        period,
        kind,
    )
    assert row is not None
    return int(row["parts"])


# --- paper ----------------------------------------------------------------------------------------


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

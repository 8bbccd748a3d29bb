"""All SQL of payments: what came in, what went back, what was begun at providers, and their messages.

Rows of payments, orders and returns are written by `projection` alone, from events.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from haat.infra.postgres import Connection

Row = Mapping[str, Any]

_RETURNED = """
    coalesce((SELECT sum(gone.amount) FROM payment_returns AS gone
              WHERE gone.payment_key = payments.key AND gone.state = 'gone'), 0)
"""
_SPENT = """
    coalesce((SELECT sum(allocation.amount) FROM allocations AS allocation
              WHERE allocation.source = 'payment/' || payments.id), 0)
"""
_PAYMENT = f"""
    id, org_id, key, method, reference, amount, received_at, {_RETURNED} AS returned,
    amount - {_RETURNED} - {_SPENT} AS unspent
"""
_ORDER = "id, org_id, invoice_id, provider, reference, amount, state, url, at, version"
_RETURN = "id, org_id, payment_key, kind, method, reference, amount, state, at, version"


async def _all(connection: Connection, query: str, *values: Any) -> list[Row]:
    return [row async for row in await connection.execute(query, values)]


async def _one(connection: Connection, query: str, *values: Any) -> Row | None:
    row = await (await connection.execute(query, values)).fetchone()
    return row


# --- what came in ---------------------------------------------------------------------------------


async def payment(connection: Connection, identifier: UUID) -> Row | None:
    return await _one(connection, f"SELECT {_PAYMENT} FROM payments WHERE id = %s", identifier)


async def payment_by_key(connection: Connection, key: str) -> Row | None:
    return await _one(connection, f"SELECT {_PAYMENT} FROM payments WHERE key = %s", key)


async def payments(connection: Connection, org: UUID | None, before: UUID | None, limit: int) -> list[Row]:
    rows = await connection.execute(
        f"""
        SELECT {_PAYMENT} FROM payments
        WHERE (%(org)s::uuid IS NULL OR org_id = %(org)s) AND (%(before)s::uuid IS NULL OR id < %(before)s)
        ORDER BY id DESC LIMIT %(limit)s
        """,
        {"org": org, "before": before, "limit": limit},
    )
    return [row async for row in rows]


async def paid_with(connection: Connection, payment: UUID) -> list[tuple[UUID, Decimal]]:
    """Return the invoices that a payment still pays, and with how much each, the one it paid last coming first."""
    rows = await _all(
        connection,
        """
        SELECT invoice_id, sum(amount) AS amount FROM allocations WHERE source = %s
        GROUP BY invoice_id HAVING sum(amount) > 0 ORDER BY max(id::text) DESC
        """,
        f"payment/{payment}",
    )
    return [(row["invoice_id"], row["amount"]) for row in rows]


async def organisation_exists(connection: Connection, org: UUID) -> bool:
    return await _one(connection, "SELECT id FROM organisations WHERE id = %s", org) is not None


# --- what was begun at a provider -----------------------------------------------------------------


async def order(connection: Connection, identifier: UUID) -> Row | None:
    return await _one(connection, f"SELECT {_ORDER} FROM payment_orders WHERE id = %s", identifier)


async def order_of(connection: Connection, provider: str, reference: str) -> Row | None:
    return await _one(
        connection,
        f"SELECT {_ORDER} FROM payment_orders WHERE provider = %s AND reference = %s",
        provider,
        reference,
    )


# --- what went back -------------------------------------------------------------------------------


async def return_of(connection: Connection, method: str, kind: str, reference: str) -> Row | None:
    return await _one(
        connection,
        f"SELECT {_RETURN} FROM payment_returns WHERE method = %s AND kind = %s AND reference = %s",
        method,
        kind,
        reference,
    )


async def returns_of(connection: Connection, payment_key: str) -> list[Row]:
    """Return the refunds and chargebacks of a payment, oldest first; it need not have been booked yet."""
    return await _all(
        connection, f"SELECT {_RETURN} FROM payment_returns WHERE payment_key = %s ORDER BY id", payment_key
    )


# --- providers' messages --------------------------------------------------------------------------


async def note_message(connection: Connection, provider: str, message: str, at: datetime) -> bool:
    """Remember a message of a payment provider; return False for one that was taken before."""
    taken = await connection.execute(
        """
        INSERT INTO payment_messages (provider, message_id, received_at) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING
        """,
        (provider, message, at),
    )
    return taken.rowcount == 1


async def forget_messages(connection: Connection, before: datetime) -> None:
    await connection.execute("DELETE FROM payment_messages WHERE received_at < %s", (before,))


async def keep_refused(
    connection: Connection, provider: str, message: str, reason: str, body: str, at: datetime
) -> None:
    """Keep a message that could not be booked, or count that it came once more."""
    await connection.execute(
        """
        INSERT INTO payment_refusals AS known (provider, message_id, reason, body, first_at, last_at)
        VALUES (%s, %s, %s, %s, %s, %s)
        ON CONFLICT (provider, message_id) DO UPDATE
        SET reason = excluded.reason, last_at = excluded.last_at, attempts = known.attempts + 1
        """,
        (provider, message, reason, body, at, at),
    )


async def drop_refused(connection: Connection, provider: str, message: str) -> None:
    """Forget that a message was refused: it has been booked since."""
    await connection.execute(
        "DELETE FROM payment_refusals WHERE provider = %s AND message_id = %s", (provider, message)
    )


async def refused(connection: Connection, limit: int) -> list[Row]:
    """Return the messages that could not be booked and that nobody has dealt with, oldest first."""
    return await _all(
        connection,
        """
        SELECT provider, message_id, reason, body, attempts, first_at, last_at FROM payment_refusals
        WHERE dealt_with_at IS NULL ORDER BY first_at, provider, message_id LIMIT %s
        """,
        limit,
    )


async def deal_with_refused(
    connection: Connection, provider: str, message: str, note: str, by: str, at: datetime
) -> bool:
    """Note that somebody has dealt with a refused message; return False when there is no such one."""
    noted = await connection.execute(
        """
        UPDATE payment_refusals SET dealt_with_at = %s, dealt_with_by = %s, note = %s
        WHERE provider = %s AND message_id = %s AND dealt_with_at IS NULL
        """,
        (at, by, note, provider, message),
    )
    return noted.rowcount == 1


async def invoice_named(connection: Connection, serial: str) -> Row | None:
    """Return the id and the organisation of the invoice with a number."""
    return await (await connection.execute("SELECT id, org_id FROM invoices WHERE serial = %s", (serial,))).fetchone()

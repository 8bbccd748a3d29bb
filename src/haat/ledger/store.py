"""All SQL of the ledger. Operations and entries are only ever added; balances follow in the same transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from haat.infra.postgres import Connection
from haat.kernel.errors import Conflict
from haat.kernel.ids import new_id
from haat.ledger.model import Operation, owner_of

Row = Mapping[str, Any]


async def post(connection: Connection, operations: Sequence[Operation]) -> list[bool]:
    """Post operations within the caller's transaction; return which are new.

    One whose key is known is not posted again; raise Conflict if it isn't the same one. Balances are locked until the
    transaction ends: post once, and late in it.
    """
    if not operations:
        return []
    keys = [operation.key for operation in operations]
    if len(set(keys)) < len(keys):
        raise ValueError("each of the operations posted together has a key of its own")
    identifiers = [new_id() for _ in operations]
    rows = await connection.execute(
        """
        INSERT INTO ledger_operations (id, key, kind, at, reference, currency, digest)
        SELECT * FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::timestamptz[], %s::text[], %s::text[], %s::bytea[])
        ON CONFLICT (key) DO NOTHING RETURNING key
        """,
        (
            identifiers,
            keys,
            [operation.kind for operation in operations],
            [operation.at for operation in operations],
            [operation.reference for operation in operations],
            [operation.currency for operation in operations],
            [operation.digest for operation in operations],
        ),
    )
    fresh = {row["key"] async for row in rows}
    await _check_known(connection, [operation for operation in operations if operation.key not in fresh])
    entries = [
        (identifier, position, entry.account, owner_of(entry.account), operation.currency, entry.amount)
        for identifier, operation in zip(identifiers, operations, strict=True)
        if operation.key in fresh
        for position, entry in enumerate(operation.entries)
    ]
    if entries:
        await connection.execute(
            """
            WITH added AS (
                INSERT INTO ledger_entries (operation_id, position, account, org_id, currency, amount)
                SELECT * FROM unnest(%s::uuid[], %s::smallint[], %s::text[], %s::uuid[], %s::text[], %s::numeric[])
                RETURNING account, org_id, currency, amount)
            INSERT INTO ledger_balances AS balance (account, currency, org_id, amount, entries)
            SELECT account, currency, org_id, sum(amount), count(*) FROM added
            GROUP BY account, currency, org_id ORDER BY account, currency
            ON CONFLICT (account, currency) DO UPDATE
                SET amount = balance.amount + excluded.amount, entries = balance.entries + excluded.entries
            """,
            tuple(list(column) for column in zip(*entries, strict=True)),
        )
    return [key in fresh for key in keys]


async def _check_known(connection: Connection, known: Sequence[Operation]) -> None:
    if not known:
        return
    rows = await connection.execute(
        "SELECT key, digest FROM ledger_operations WHERE key = ANY(%s)", ([operation.key for operation in known],)
    )
    digests = {row["key"]: bytes(row["digest"]) async for row in rows}
    for operation in known:
        if digests.get(operation.key) != operation.digest:
            raise Conflict(f"The operation {operation.key} was posted before with other entries.")


async def balances(connection: Connection, at: datetime | None, prefix: str = "") -> list[Row]:
    """Return what stands on the accounts whose names begin so; ``at`` a time, from the entries up to it."""
    if at is None:
        rows = await connection.execute(
            """
            SELECT account, currency, amount, entries FROM ledger_balances
            WHERE starts_with(account, %s) ORDER BY account COLLATE "C", currency
            """,
            (prefix,),
        )
    else:
        rows = await connection.execute(
            """
            SELECT account, entry.currency, sum(amount) AS amount, count(*) AS entries
            FROM ledger_entries AS entry JOIN ledger_operations AS operation ON operation.id = entry.operation_id
            WHERE starts_with(account, %s) AND operation.at <= %s
            GROUP BY account, entry.currency ORDER BY account COLLATE "C", entry.currency
            """,
            (prefix, at),
        )
    return [row async for row in rows]


async def balance(connection: Connection, account: str, currency: str) -> Decimal:
    """Return what stands on one account."""
    row = await (
        await connection.execute(
            "SELECT amount FROM ledger_balances WHERE account = %s AND currency = %s", (account, currency)
        )
    ).fetchone()
    return Decimal(row["amount"]) if row else Decimal(0)


async def entries(connection: Connection, account: str, before: UUID | None, limit: int) -> list[Row]:
    """Return an account's entries with their operations, newest first."""
    rows = await connection.execute(
        """
        SELECT operation.id, operation.key, operation.kind, operation.at, operation.reference, entry.currency,
               entry.amount
        FROM ledger_entries AS entry JOIN ledger_operations AS operation ON operation.id = entry.operation_id
        WHERE entry.account = %(account)s AND (%(before)s::uuid IS NULL OR entry.operation_id < %(before)s)
        ORDER BY entry.operation_id DESC, entry.position LIMIT %(limit)s
        """,
        {"account": account, "before": before, "limit": limit},
    )
    return [row async for row in rows]


async def operations_about(connection: Connection, reference: str) -> list[Row]:
    """Return the operations about something with all their entries, oldest first."""
    rows = await connection.execute(
        """
        SELECT operation.id, operation.key, operation.kind, operation.at, operation.reference, operation.currency,
               array_agg(entry.account ORDER BY position) AS accounts, array_agg(amount ORDER BY position) AS amounts
        FROM ledger_operations AS operation JOIN ledger_entries AS entry ON entry.operation_id = operation.id
        WHERE operation.reference = %s GROUP BY operation.id ORDER BY operation.id
        """,
        (reference,),
    )
    return [row async for row in rows]


async def fill_balances(connection: Connection, until: datetime | None) -> None:
    """Make the balances, of which there are none, from the entries up to a time."""
    await connection.execute(
        """
        INSERT INTO ledger_balances (account, currency, org_id, amount, entries)
        SELECT account, entry.currency, org_id, sum(amount), count(*)
        FROM ledger_entries AS entry JOIN ledger_operations AS operation ON operation.id = entry.operation_id
        WHERE %(until)s::timestamptz IS NULL OR operation.at <= %(until)s
        GROUP BY account, entry.currency, org_id
        """,
        {"until": until},
    )

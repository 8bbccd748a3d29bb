"""All SQL of holds, payouts and the accounts that they go to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from haat.infra.postgres import Connection
from haat.kernel.events import DomainEvent
from haat.settlement.store import add_earning

Row = Mapping[str, Any]

_PAYOUT = "id, org_id, status, amount, account, file_id, bank_reference, reason, created_at, changed_at"
_HOLD = "id, org_id, settlement_id, dispute_id, amount, reason, placed_at, released_at, release_reason"
_FREE = "NOT EXISTS (SELECT FROM payout_rows AS linked WHERE linked.earning_id = earnings.id AND linked.active)"


# --- the projection: what events say --------------------------------------------------------------


async def apply_placed(connection: Connection, event: DomainEvent) -> None:
    data, identifier = event.data, _id_of(event)
    await connection.execute(
        """
        INSERT INTO holds (id, org_id, settlement_id, dispute_id, amount, reason, placed_at)
        VALUES (%s, %s, %s, %s, %s, %s, %s)
        """,
        (identifier, event.org, data["settlement"], data["dispute"], data["amount"], data["reason"], event.at),
    )
    amount, since = Decimal(data["amount"]), _time(data["since"])
    await add_earning(connection, data["earning"], event.org, "hold", identifier, -amount, since)


async def apply_released(connection: Connection, event: DomainEvent) -> None:
    data, identifier = event.data, _id_of(event)
    await connection.execute(
        "UPDATE holds SET released_at = %s, release_reason = %s WHERE id = %s", (event.at, data["reason"], identifier)
    )
    amount, since = Decimal(data["amount"]), _time(data["since"])
    await add_earning(connection, data["earning"], event.org, "release", identifier, amount, since)


async def apply_drafted(connection: Connection, event: DomainEvent) -> None:
    data, identifier = event.data, _id_of(event)
    await connection.execute(
        """
        INSERT INTO payouts (id, org_id, status, amount, created_at, changed_at)
        VALUES (%s, %s, 'draft', %s, %s, %s)
        """,
        (identifier, event.org, data["amount"], event.at, event.at),
    )
    await connection.execute(
        """
        INSERT INTO payout_rows (payout_id, earning_id, org_id, amount, active)
        SELECT %s, (one->>0)::uuid, %s, (one->>1)::numeric, true FROM jsonb_array_elements(%s) AS one
        """,
        (identifier, event.org, Jsonb(data["rows"])),
    )


async def apply_moved(connection: Connection, event: DomainEvent) -> None:
    """Write a payout's new status and what came with it; one that is reversed lets its rows go."""
    data, identifier = event.data, _id_of(event)
    await connection.execute(
        """
        UPDATE payouts SET status = %(status)s, changed_at = %(at)s, reason = %(reason)s,
            account_id = coalesce(%(account_id)s, account_id), account = coalesce(%(account)s, account),
            file_id = coalesce(%(file)s, file_id), bank_reference = coalesce(%(bank_reference)s, bank_reference)
        WHERE id = %(id)s
        """,
        {
            "id": identifier,
            "at": event.at,
            "status": data["status"],
            "reason": data.get("reason", ""),
            "account_id": data.get("account_id"),
            "account": data.get("account"),
            "file": data.get("file"),
            "bank_reference": data.get("bank_reference"),
        },
    )
    if data.get("file"):
        await connection.execute(
            """
            INSERT INTO payout_sendings (file_id, payout_id, org_id, account_id, amount)
            SELECT file_id, id, org_id, account_id, amount FROM payouts WHERE id = %s
            """,
            (identifier,),
        )
    if data["status"] == "reversed":
        await connection.execute("UPDATE payout_rows SET active = false WHERE payout_id = %s", (identifier,))


async def apply_terms(connection: Connection, event: DomainEvent) -> None:
    data = event.data
    await connection.execute(
        """
        INSERT INTO payout_terms (org_id, minimum, delay_days, withholdings, stopped, changed_at)
        VALUES (%s, %s, %s, %s, %s, %s)
        ON CONFLICT (org_id) DO UPDATE SET minimum = excluded.minimum, delay_days = excluded.delay_days,
            withholdings = excluded.withholdings, stopped = excluded.stopped, changed_at = excluded.changed_at
        """,
        (event.org, data["minimum"], data["delay_days"], Jsonb(data["withholdings"]), data["stopped"], event.at),
    )


def _id_of(event: DomainEvent) -> UUID:
    return UUID(event.stream.partition("/")[2])


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


# --- what a payout is made of ---------------------------------------------------------------------


async def free_rows(connection: Connection, org: UUID, cutoff: datetime) -> list[Row]:
    """Return the rows that no payout settles and that count by now: since ``cutoff`` or earlier, or at once."""
    rows = await connection.execute(
        f"""
        SELECT id, amount FROM earnings
        WHERE org_id = %s AND (since IS NULL OR since <= %s) AND {_FREE} ORDER BY id
        """,
        (org, cutoff),
    )
    return [row async for row in rows]


async def owed_at_once(connection: Connection, org: UUID, cutoff: datetime) -> Decimal:
    """Return what was held or taken back and no payout counts yet: zero or below."""
    row = await (
        await connection.execute(
            f"""
            SELECT least(coalesce(sum(amount), 0), 0) AS owed FROM earnings
            WHERE org_id = %s AND (since IS NULL OR since <= %s) AND {_FREE}
            """,
            (org, cutoff),
        )
    ).fetchone()
    assert row is not None
    return Decimal(row["owed"])


async def providers_owed(connection: Connection) -> list[UUID]:
    """Return the providers with rows that no payout settles."""
    rows = await connection.execute(f"SELECT DISTINCT org_id FROM earnings WHERE {_FREE} ORDER BY org_id")
    return [row["org_id"] async for row in rows]


async def earning_of(connection: Connection, kind: str, reference: UUID) -> Row | None:
    """Return the row that a settlement or a hold made, and whether a payout settles it."""
    row = await (
        await connection.execute(
            f"SELECT id, amount, since, {_FREE} AS free FROM earnings WHERE kind = %s AND reference = %s",
            (kind, reference),
        )
    ).fetchone()
    return row


async def sums(connection: Connection, org: UUID, cutoff: datetime) -> Row:
    """Return a provider's money by where it is: all of it adds up to what its statements say."""
    row = await (
        await connection.execute(
            f"""
            SELECT
                (SELECT coalesce(sum(payable), 0) FROM settlements WHERE org_id = %(org)s) AS settled,
                (SELECT coalesce(sum(amount), 0) FROM earnings WHERE org_id = %(org)s AND {_FREE}
                 AND (since IS NULL OR since <= %(cutoff)s)) AS available,
                (SELECT coalesce(sum(amount), 0) FROM earnings WHERE org_id = %(org)s AND {_FREE}
                 AND since > %(cutoff)s) AS waiting,
                (SELECT coalesce(sum(amount), 0) FROM holds WHERE org_id = %(org)s AND released_at IS NULL)
                + (SELECT coalesce(sum(amount), 0) FROM payouts WHERE org_id = %(org)s AND status = 'held') AS held,
                (SELECT coalesce(sum(amount), 0) FROM payouts WHERE org_id = %(org)s
                 AND status IN ('draft', 'approved', 'sent', 'failed')) AS on_its_way,
                (SELECT coalesce(sum(amount), 0) FROM payouts WHERE org_id = %(org)s AND status = 'paid') AS paid
            """,
            {"org": org, "cutoff": cutoff},
        )
    ).fetchone()
    assert row is not None
    return row


# --- reading --------------------------------------------------------------------------------------


async def payout(connection: Connection, identifier: UUID) -> Row | None:
    row = await (await connection.execute(f"SELECT {_PAYOUT} FROM payouts WHERE id = %s", (identifier,))).fetchone()
    return row


async def named(connection: Connection, identifiers: Sequence[UUID]) -> list[Row]:
    rows = await connection.execute(f"SELECT {_PAYOUT} FROM payouts WHERE id = ANY(%s)", (list(identifiers),))
    return [row async for row in rows]


async def page(
    connection: Connection, org: UUID | None, status: str | None, before: UUID | None, limit: int
) -> list[Row]:
    """Return payouts, newest first; ``org`` None returns every provider's."""
    rows = await connection.execute(
        f"""
        SELECT {_PAYOUT} FROM payouts
        WHERE (%(org)s::uuid IS NULL OR org_id = %(org)s) AND (%(status)s::text IS NULL OR status = %(status)s)
          AND (%(before)s::uuid IS NULL OR id < %(before)s)
        ORDER BY id DESC LIMIT %(limit)s
        """,
        {"org": org, "status": status, "before": before, "limit": limit},
    )
    return [row async for row in rows]


async def unsent(connection: Connection, org: UUID) -> list[Row]:
    """Return a provider's payouts that nobody has sent or held yet."""
    rows = await connection.execute(
        f"SELECT {_PAYOUT} FROM payouts WHERE org_id = %s AND status IN ('draft', 'approved') ORDER BY id", (org,)
    )
    return [row async for row in rows]


async def with_status(connection: Connection, status: str) -> list[Row]:
    rows = await connection.execute(f"SELECT {_PAYOUT} FROM payouts WHERE status = %s ORDER BY id", (status,))
    return [row async for row in rows]


async def rows_of(connection: Connection, payout: UUID) -> list[Row]:
    """Return the rows of a payout with the periods of the settlements among them."""
    rows = await connection.execute(
        """
        SELECT earnings.id, earnings.kind, earnings.reference, settlements.period, linked.amount, linked.active
        FROM payout_rows AS linked JOIN earnings ON earnings.id = linked.earning_id
        LEFT JOIN settlements ON settlements.id = earnings.reference
        WHERE linked.payout_id = %s ORDER BY earnings.id
        """,
        (payout,),
    )
    return [row async for row in rows]


async def payouts_of(connection: Connection, settlement: UUID) -> list[Row]:
    """Return the payouts that settle, or settled until they were reversed, a settlement."""
    columns = ", ".join(f"payouts.{name}" for name in _PAYOUT.split(", "))
    rows = await connection.execute(
        f"""
        SELECT {columns} FROM earnings JOIN payout_rows AS linked ON linked.earning_id = earnings.id
        JOIN payouts ON payouts.id = linked.payout_id
        WHERE earnings.kind = 'settlement' AND earnings.reference = %s ORDER BY payouts.id
        """,
        (settlement,),
    )
    return [row async for row in rows]


async def file_rows(connection: Connection, file: UUID) -> list[Row]:
    """Return the payouts of a file with the accounts that they went to then."""
    rows = await connection.execute(
        """
        SELECT sent.payout_id AS id, sent.amount, account.id AS account_id, account.holder, account.number_encrypted,
               account.ifsc
        FROM payout_sendings AS sent JOIN bank_accounts AS account ON account.id = sent.account_id
        WHERE sent.file_id = %s ORDER BY sent.payout_id
        """,
        (file,),
    )
    return [row async for row in rows]


async def files(connection: Connection, limit: int) -> list[Row]:
    """Return the newest files, with how many payouts they hold and their sum."""
    rows = await connection.execute(
        """
        SELECT file_id AS id, count(*) AS payouts, sum(amount) AS total FROM payout_sendings
        GROUP BY file_id ORDER BY file_id DESC LIMIT %s
        """,
        (limit,),
    )
    return [row async for row in rows]


async def hold(connection: Connection, identifier: UUID) -> Row | None:
    row = await (await connection.execute(f"SELECT {_HOLD} FROM holds WHERE id = %s", (identifier,))).fetchone()
    return row


async def open_holds(
    connection: Connection, *, org: UUID | None = None, dispute: UUID | None = None, limit: int = 1000
) -> list[Row]:
    """Return holds that nobody has released, oldest first: a provider's, a dispute's, or all."""
    rows = await connection.execute(
        f"""
        SELECT {_HOLD} FROM holds
        WHERE released_at IS NULL AND (%(org)s::uuid IS NULL OR org_id = %(org)s)
          AND (%(dispute)s::uuid IS NULL OR dispute_id = %(dispute)s)
        ORDER BY id LIMIT %(limit)s
        """,
        {"org": org, "dispute": dispute, "limit": limit},
    )
    return [row async for row in rows]


async def held_of(connection: Connection, settlement: UUID) -> Decimal:
    """Return what is held of a settlement now."""
    row = await (
        await connection.execute(
            "SELECT coalesce(sum(amount), 0) AS held FROM holds WHERE settlement_id = %s AND released_at IS NULL",
            (settlement,),
        )
    ).fetchone()
    assert row is not None
    return Decimal(row["held"])


# --- accounts -------------------------------------------------------------------------------------


async def account(connection: Connection, org: UUID) -> Row | None:
    """Return a provider's present account."""
    row = await (
        await connection.execute(
            """
            SELECT id, holder, ifsc, last_four, added_at FROM bank_accounts
            WHERE org_id = %s AND replaced_at IS NULL
            """,
            (org,),
        )
    ).fetchone()
    return row


async def replace_account(
    connection: Connection,
    *,
    id: UUID,
    org: UUID,
    holder: str,
    number_encrypted: bytes,
    last_four: str,
    ifsc: str,
    at: datetime,
) -> None:
    """Write a provider's new account; the one before it stays, for the payouts that went there."""
    await connection.execute(
        "UPDATE bank_accounts SET replaced_at = %s WHERE org_id = %s AND replaced_at IS NULL", (at, org)
    )
    await connection.execute(
        """
        INSERT INTO bank_accounts (id, org_id, holder, number_encrypted, last_four, ifsc, added_at)
        VALUES (%s, %s, %s, %s, %s, %s, %s)
        """,
        (id, org, holder, number_encrypted, last_four, ifsc, at),
    )


async def names(connection: Connection, orgs: Sequence[UUID]) -> dict[UUID, str]:
    """Return organisations' names."""
    rows = await connection.execute("SELECT id, name FROM organisations WHERE id = ANY(%s)", (list(orgs),))
    return {row["id"]: row["name"] async for row in rows}

"""All SQL of wallets but that of the projection itself (`haat.wallet.projection`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from haat.infra.postgres import Connection
from haat.kernel.clock import Period
from haat.rating.service import quantity_sql
from haat.usage.model import BILLED_VALUES, UNITS, id_bound
from haat.wallet.model import Budget, Grant, GrantKind, Mode

Row = Mapping[str, Any]


async def lock(connection: Connection, org: UUID) -> None:
    """Let one transaction at a time change an organisation's wallet, its budgets and the leases on them."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('wallet/' || %s, 0))", (str(org),))


async def zone_of(connection: Connection, org: UUID) -> str | None:
    row = await (await connection.execute("SELECT zone FROM organisations WHERE id = %s", (org,))).fetchone()
    return row["zone"] if row else None


# --- grants and burns ------------------------------------------------------------------------------

_GRANT = """
    SELECT one.id, one.org_id, kind, one.amount, one.amount - coalesce(burnt.amount, 0) AS remaining, priority,
           granted_at, expires_at, key, note
    FROM wallet_grants AS one
    LEFT JOIN (SELECT grant_id, sum(amount) AS amount FROM wallet_burns WHERE org_id = %(org)s GROUP BY grant_id)
        AS burnt ON burnt.grant_id = one.id
    WHERE one.org_id = %(org)s
"""


async def grants(connection: Connection, org: UUID, *, all_of_them: bool = False) -> list[Grant]:
    """Return an organisation's grants of which something is left, or all of them; oldest first."""
    rows = await connection.execute(f"SELECT * FROM ({_GRANT}) AS found ORDER BY granted_at, id", {"org": org})
    found = [_grant(row) async for row in rows]
    return found if all_of_them else [grant for grant in found if grant.remaining > 0]


async def filled(connection: Connection, orgs: Sequence[UUID]) -> set[UUID]:
    """Return which of these organisations have grants of which something is left."""
    rows = await connection.execute(
        """
        SELECT DISTINCT org_id FROM wallet_grants AS one WHERE org_id = ANY(%s)
            AND amount > coalesce((SELECT sum(amount) FROM wallet_burns AS burnt
                                   WHERE burnt.org_id = one.org_id AND grant_id = one.id), 0)
        """,
        (list(orgs),),
    )
    return {row["org_id"] async for row in rows}


async def grant_by_key(connection: Connection, org: UUID, key: str) -> Grant | None:
    rows = await connection.execute(_GRANT + " AND one.key = %(key)s", {"org": org, "key": key})
    row = await rows.fetchone()
    return _grant(row) if row else None


async def over(connection: Connection, at: datetime) -> list[UUID]:
    """Return the organisations that have something left of a grant whose time is over."""
    rows = await connection.execute(
        """
        SELECT DISTINCT org_id FROM wallet_grants AS one WHERE expires_at <= %s
            AND amount > coalesce((SELECT sum(amount) FROM wallet_burns AS burnt
                                   WHERE burnt.org_id = one.org_id AND grant_id = one.id), 0)
        ORDER BY org_id
        """,
        (at,),
    )
    return [row["org_id"] async for row in rows]


async def movements(connection: Connection, org: UUID, before: UUID | None, limit: int) -> list[Row]:
    """Return what came into a wallet and what left it, newest first, each with what was there after it."""
    rows = await connection.execute(
        """
        WITH every AS (
            SELECT id, granted_at AS at, kind, amount, note AS reference FROM wallet_grants WHERE org_id = %(org)s
            UNION ALL
            SELECT id, at, reason, -sum(amount), reference FROM wallet_burns
            WHERE org_id = %(org)s GROUP BY id, at, reason, reference
        ), standing AS (SELECT *, sum(amount) OVER (ORDER BY id) AS balance FROM every)
        SELECT * FROM standing WHERE %(before)s::uuid IS NULL OR id < %(before)s ORDER BY id DESC LIMIT %(limit)s
        """,
        {"org": org, "before": before, "limit": limit},
    )
    return [row async for row in rows]


def _grant(row: Row) -> Grant:
    return Grant(**{**row, "kind": GrantKind(row["kind"])})


# --- modes -----------------------------------------------------------------------------------------


async def modes(connection: Connection, org: UUID) -> tuple[Mode, dict[UUID, Mode]]:
    """Return an organisation's mode, and that of each subscription that has one of its own."""
    row = await (await connection.execute("SELECT mode FROM wallets WHERE org_id = %s", (org,))).fetchone()
    rows = await connection.execute("SELECT subscription_id, mode FROM wallet_modes WHERE org_id = %s", (org,))
    own = {one["subscription_id"]: Mode(one["mode"]) async for one in rows}
    return Mode(row["mode"]) if row else Mode.POSTPAID, own


async def has_subscription(connection: Connection, org: UUID, subscription: UUID) -> bool:
    row = await connection.execute("SELECT FROM subscriptions WHERE id = %s AND org_id = %s", (subscription, org))
    return row.rowcount > 0


async def has_application(connection: Connection, org: UUID, application: UUID) -> bool:
    row = await connection.execute("SELECT FROM applications WHERE id = %s AND org_id = %s", (application, org))
    return row.rowcount > 0


async def names(connection: Connection, org: UUID) -> dict[UUID, str]:
    """Return what an organisation's applications and subscriptions are called."""
    rows = await connection.execute(
        """
        SELECT id, name FROM applications WHERE org_id = %(org)s
        UNION ALL
        SELECT subscriptions.id, services.name || ' · ' || applications.name
        FROM subscriptions JOIN services ON services.id = service_id
        JOIN applications ON applications.id = application_id
        WHERE subscriptions.org_id = %(org)s
        """,
        {"org": org},
    )
    return {row["id"]: row["name"] async for row in rows}


# --- usage -----------------------------------------------------------------------------------------

_WHOSE = "subscription_id, service_id, plan"
_SUMS = ", ".join(f"coalesce(sum({unit}), 0) AS {unit}" for unit in UNITS)
_COUNTED = """outcome = ANY(%(billed)s)
    AND subscription_id IS NOT NULL AND service_id IS NOT NULL AND provider_org IS NOT NULL"""


async def used(connection: Connection, org: UUID, period: Period) -> list[Row]:
    """Return what an organisation has used in a period, of what is billed: at least that, corrections included.

    It is summed up from the rollups, which say what was measured, and the calls that are counted in place of others.
    """
    units = ", ".join(UNITS)
    rows = await connection.execute(
        f"""
        SELECT {_WHOSE}, sum(calls)::numeric AS calls, {_SUMS} FROM (
            SELECT {_WHOSE}, calls, {units} FROM usage_hourly
            WHERE org_id = %(org)s AND hour >= %(start)s AND hour < %(end)s AND {_COUNTED}
            UNION ALL
            SELECT {_WHOSE}, 1, {units} FROM usage JOIN usage_corrections ON replaced_by = usage.id
            WHERE usage.org_id = %(org)s AND usage.id >= %(id_from)s AND usage.id < %(id_to)s AND mode = 'live'
              AND usage_corrections.org_id = %(org)s AND {_COUNTED}
        ) AS every GROUP BY {_WHOSE}
        """,
        _within(org, period),
    )
    return [row async for row in rows]


async def used_up_to(connection: Connection, org: UUID, period: Period, batch: int) -> list[Row]:
    """Return the same as `used` of what came up to a batch: it never changes after."""
    rows = await connection.execute(
        f"""
        SELECT {_WHOSE}, count(*)::numeric AS calls, {_SUMS} FROM usage
        WHERE org_id = %(org)s AND id >= %(id_from)s AND id < %(id_to)s AND batch <= %(batch)s AND mode = 'live'
          AND {_COUNTED}
        GROUP BY {_WHOSE}
        """,
        {**_within(org, period), "batch": batch},
    )
    return [row async for row in rows]


async def reported(
    connection: Connection, org: UUID, period: Period, services: Sequence[UUID], units: Sequence[str], after: int
) -> list[Row]:
    """Return what providers reported of units that rollups don't have, in calls that came after a batch."""
    sums = ", ".join(f"coalesce(sum({quantity_sql(unit)}), 0) AS {unit}" for unit in units)
    rows = await connection.execute(
        f"""
        SELECT {_WHOSE}, {sums} FROM usage
        WHERE org_id = %(org)s AND id >= %(id_from)s AND id < %(id_to)s AND batch > %(batch)s AND mode = 'live'
          AND service_id = ANY(%(services)s) AND {_COUNTED}
        GROUP BY {_WHOSE}
        """,
        {**_within(org, period), "batch": after, "services": list(services)},
    )
    return [row async for row in rows]


@dataclass(frozen=True, slots=True)
class Billed:
    """How much of a period is on invoices: usage up to a batch. ``later``: more came since. ``closed``: fees too, on
    the invoice that closes it or, where that would have been below zero, on one of a later period."""

    batch: int
    later: bool
    closed: bool


async def billed(connection: Connection, org: UUID, period: Period) -> Billed:
    """Return how much of a period is on issued invoices, those left out that are void or still to be registered."""
    row = await (
        await connection.execute(
            f"""
            WITH billed AS (
                SELECT coalesce(max(line.batch_to), 0) AS batch, bool_or(issued.period > line.period) AS afterwards
                FROM invoice_lines AS line JOIN ({_ISSUED}) AS issued ON issued.id = line.invoice_id
                WHERE line.org_id = %(org)s AND line.period = %(label)s)
            SELECT batch, EXISTS (
                SELECT FROM usage_hourly WHERE org_id = %(org)s AND hour >= %(start)s AND hour < %(end)s
                    AND usage_hourly.batch > billed.batch AND outcome = ANY(%(billed)s)
            ) OR EXISTS (
                SELECT FROM usage_corrections WHERE org_id = %(org)s AND usage_corrections.batch > billed.batch
                    AND replaced_by >= %(id_from)s AND replaced_by < %(id_to)s) AS later,
            coalesce(afterwards, FALSE)
                OR EXISTS (SELECT FROM ({_ISSUED}) AS issued WHERE period = %(label)s AND closes) AS closed
            FROM billed
            """,
            {**_within(org, period), "label": period.label},
        )
    ).fetchone()
    assert row is not None
    return Billed(int(row["batch"]), bool(row["later"]), bool(row["closed"]))


async def billed_amounts(connection: Connection, org: UUID, period: Period) -> dict[UUID, Decimal]:
    """Return what issued invoices say of a period's usage before tax, by subscription."""
    rows = await connection.execute(
        f"""
        SELECT subscription_id, sum(taxable) AS taxable
        FROM invoice_lines AS line JOIN ({_ISSUED}) AS issued ON issued.id = line.invoice_id
        WHERE line.org_id = %(org)s AND line.period = %(label)s GROUP BY subscription_id
        """,
        {"org": org, "label": period.label},
    )
    return {row["subscription_id"]: row["taxable"] async for row in rows}


async def billed_by(connection: Connection, org: UUID, invoice: UUID) -> dict[UUID, Decimal]:
    """Return what an invoice that is issued bills before tax, by subscription; nothing of one that doesn't bill now."""
    rows = await connection.execute(
        f"""
        SELECT subscription_id, sum(taxable) AS taxable
        FROM invoice_lines AS line JOIN ({_ISSUED}) AS issued ON issued.id = line.invoice_id
        WHERE line.invoice_id = %(invoice)s GROUP BY subscription_id
        """,
        {"org": org, "invoice": invoice},
    )
    return {row["subscription_id"]: row["taxable"] async for row in rows}


_ISSUED = """
    SELECT invoices.id, invoices.period, closes FROM invoices JOIN invoice_states ON invoice_id = invoices.id
    WHERE invoices.org_id = %(org)s AND invoices.kind <> 'debit_note' AND state NOT IN ('void', 'registering')
"""
"""Invoices and statements that bill usage, and do so now."""


async def is_invoiced(connection: Connection, invoice: UUID) -> bool:
    """Tell whether an invoice is issued, so that nothing is held any more for what it bills."""
    row = await connection.execute(
        "SELECT FROM invoice_states WHERE invoice_id = %s AND state NOT IN ('void', 'registering')", (invoice,)
    )
    return row.rowcount > 0


def _within(org: UUID, period: Period) -> dict[str, Any]:
    return {
        "org": org,
        "start": period.start,
        "end": period.end,
        "id_from": id_bound(period.start),
        "id_to": id_bound(period.end),
        "billed": BILLED_VALUES,
    }


# --- leases ----------------------------------------------------------------------------------------


async def count_shipped(connection: Connection, orgs: Sequence[UUID]) -> None:
    """Count what is in the usage store by now. To come before the usage is read: then nothing is in neither."""
    for _ in range(2):  # the mark, and what was said after it
        await connection.execute(
            """
            UPDATE wallet_leases AS lease
            SET counted = mark, mark = latest, mark_positions = latest_positions, latest = NULL
            WHERE org_id = ANY(%s) AND mark IS NOT NULL AND NOT EXISTS (
                SELECT FROM jsonb_each(mark_positions) AS place
                LEFT JOIN ship_positions AS shipped ON shipped.worker = place.key
                WHERE shipped.worker IS NULL OR (shipped.segment, shipped.byte_offset)
                    < ((place.value ->> 0)::bigint, (place.value ->> 1)::bigint))
            """,
            (list(orgs),),
        )


async def forget_leases(connection: Connection, now: datetime, uncountable: datetime) -> int:
    """Drop leases that are over and counted, and those whose calls can't be counted any more."""
    done = await connection.execute(
        """
        DELETE FROM wallet_leases
        WHERE expires_at < %s AND (counted = authorised AND mark IS NULL OR expires_at < %s)
        """,
        (now, uncountable),
    )
    return done.rowcount


async def leased(connection: Connection, org: UUID, fund: str) -> int:
    """Return how many billionths of a rupee of a fund are out, or were used and are not in the usage store yet."""
    row = await (
        await connection.execute(
            "SELECT coalesce(sum(authorised - counted), 0) AS out FROM wallet_leases WHERE org_id = %s AND fund = %s",
            (org, fund),
        )
    ).fetchone()
    assert row is not None
    return int(row["out"])


async def lease(connection: Connection, org: UUID, fund: str, gateway: str) -> Row | None:
    rows = await connection.execute(
        """
        SELECT authorised, counted, mark, mark_positions, latest, latest_positions FROM wallet_leases
        WHERE org_id = %s AND fund = %s AND gateway = %s
        """,
        (org, fund, gateway),
    )
    return await rows.fetchone()


async def put_lease(
    connection: Connection,
    org: UUID,
    fund: str,
    gateway: str,
    *,
    authorised: int,
    counted: int,
    mark: int | None,
    mark_positions: Mapping[str, tuple[int, int]],
    latest: int | None,
    latest_positions: Mapping[str, tuple[int, int]],
    expires_at: datetime,
) -> None:
    await connection.execute(
        """
        INSERT INTO wallet_leases (org_id, fund, gateway, authorised, counted, mark, mark_positions, latest,
            latest_positions, expires_at)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT (org_id, fund, gateway) DO UPDATE
            SET authorised = excluded.authorised, counted = excluded.counted, mark = excluded.mark,
                mark_positions = excluded.mark_positions, latest = excluded.latest,
                latest_positions = excluded.latest_positions, expires_at = excluded.expires_at, ended = false
        """,
        (
            org,
            fund,
            gateway,
            authorised,
            counted,
            mark,
            Jsonb(dict(mark_positions)),
            latest,
            Jsonb(dict(latest_positions)),
            expires_at,
        ),
    )


async def end_leases(connection: Connection, gateway: str, positions: Mapping[str, tuple[int, int]]) -> int:
    """Say that a gateway draws nothing any more, and that its calls lie before these places of the journals."""
    done = await connection.execute(
        """
        UPDATE wallet_leases SET ended = true, mark = authorised, mark_positions = %s, latest = NULL
        WHERE gateway = %s AND NOT ended
        """,
        (Jsonb(dict(positions)), gateway),
    )
    return done.rowcount


async def drop_leases(connection: Connection, gateway: str) -> int:
    done = await connection.execute("DELETE FROM wallet_leases WHERE gateway = %s", (gateway,))
    return done.rowcount


async def all_leases(connection: Connection) -> list[Row]:
    rows = await connection.execute(
        """
        SELECT org_id, fund, gateway, authorised - counted AS held, ended, expires_at FROM wallet_leases
        ORDER BY gateway, org_id, fund
        """
    )
    return [row async for row in rows]


# --- budgets ---------------------------------------------------------------------------------------

_BUDGET = "id, org_id, application_id, subscription_id, amount, hard_stop, set_at"


async def budgets(connection: Connection, org: UUID) -> list[Budget]:
    """Return an organisation's budgets: its own first, then those of applications and subscriptions."""
    rows = await connection.execute(
        f"""
        SELECT {_BUDGET} FROM wallet_budgets WHERE org_id = %s
        ORDER BY subscription_id NULLS FIRST, application_id NULLS FIRST, id
        """,
        (org,),
    )
    return [Budget(**row) async for row in rows]


async def budget(connection: Connection, org: UUID, identifier: UUID) -> Budget | None:
    rows = await connection.execute(
        f"SELECT {_BUDGET} FROM wallet_budgets WHERE org_id = %s AND id = %s", (org, identifier)
    )
    row = await rows.fetchone()
    return Budget(**row) if row else None


async def organisations_with_budgets(connection: Connection) -> list[UUID]:
    rows = await connection.execute("SELECT DISTINCT org_id FROM wallet_budgets ORDER BY org_id")
    return [row["org_id"] async for row in rows]


async def alerts(connection: Connection, org: UUID, period: str) -> dict[UUID, list[int]]:
    """Return which thresholds of which budgets were reached in a period."""
    rows = await connection.execute(
        "SELECT budget_id, array_agg(threshold::int) AS known FROM wallet_alerts WHERE org_id = %s AND period = %s "
        "GROUP BY budget_id",
        (org, period),
    )
    return {row["budget_id"]: row["known"] async for row in rows}


async def applications_of(connection: Connection, org: UUID) -> dict[UUID, UUID]:
    """Return the application of each subscription."""
    rows = await connection.execute("SELECT id, application_id FROM subscriptions WHERE org_id = %s", (org,))
    return {row["id"]: row["application_id"] async for row in rows}

"""All SQL of rating: rate cards, and billed usage summed up to where no price divides it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from haat.infra.postgres import Connection
from haat.kernel.clock import Period
from haat.rating.model import Measured, RateCard
from haat.usage.model import BILLED_VALUES, UNITS, id_bound


async def cards(connection: Connection, org: UUID, before: datetime) -> list[RateCard]:
    """Return all versions of the prices of services an organisation has ever subscribed to."""
    rows = await connection.execute(
        """
        SELECT id, service_id AS service, version, plan_code AS plan, unit, unit_price, free_units, provider_share,
               effective_from
        FROM rate_cards
        WHERE effective_from < %s AND service_id IN (SELECT service_id FROM subscriptions WHERE org_id = %s)
        ORDER BY service_id, plan_code NULLS FIRST, version
        """,
        (before, org),
    )
    return [RateCard(**row) async for row in rows]


async def measured(
    connection: Connection, org: UUID, period: Period, batches: tuple[int, int], prices: Sequence[RateCard]
) -> list[Measured]:
    """Return an organisation's billed usage of a period that came in batches ``(from, to]``.

    One scan: the ids at which any of the prices changes cut the period into slices.
    """
    changes = sorted({card.effective_from for card in prices if period.start < card.effective_from < period.end})
    rows = await connection.execute(
        f"""
        SELECT subscription_id, service_id, plan, provider_org, width_bucket(id, %(changes)s::uuid[]) AS slice,
               count(*) AS calls, {", ".join(f"sum({unit}) AS {unit}" for unit in UNITS)}
        FROM usage
        WHERE org_id = %(org)s AND id >= %(id_from)s AND id < %(id_to)s
          AND batch > %(batch_from)s AND batch <= %(batch_to)s AND outcome = ANY(%(billed)s)
          AND subscription_id IS NOT NULL AND service_id IS NOT NULL AND provider_org IS NOT NULL
        GROUP BY subscription_id, service_id, plan, provider_org, slice
        """,
        {
            "changes": [id_bound(change) for change in changes],
            "org": org,
            "id_from": id_bound(period.start),
            "id_to": id_bound(period.end),
            "batch_from": batches[0],
            "batch_to": batches[1],
            "billed": BILLED_VALUES,
        },
    )
    starts = [period.start, *changes]
    return [
        Measured(
            row["subscription_id"],
            row["service_id"],
            row["plan"],
            row["provider_org"],
            starts[row["slice"]],
            {unit: Decimal(row[unit]) for unit in UNITS if row[unit] is not None},
            row["calls"],
        )
        async for row in rows
    ]


async def zone_of(connection: Connection, org: UUID) -> str | None:
    row = await (await connection.execute("SELECT zone FROM organisations WHERE id = %s", (org,))).fetchone()
    return row["zone"] if row else None


async def service_names(connection: Connection, services: Sequence[UUID]) -> dict[UUID, str]:
    """Return names such as ``Transliteration (lipi/transliterate)``."""
    rows = await connection.execute(
        "SELECT id, name, provider_slug, slug FROM services WHERE id = ANY(%s)", (list(services),)
    )
    return {row["id"]: f"{row['name']} ({row['provider_slug']}/{row['slug']})" async for row in rows}

"""All SQL of rating: rate cards, and billed usage summed up to where no price divides it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from haat.infra.postgres import Connection
from haat.kernel.clock import Period
from haat.kernel.money import total
from haat.rating.model import Measured, RateCard
from haat.usage.corrections import VOID_CALLS
from haat.usage.model import ASKED, BILLED_VALUES, UNITS, id_bound


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

    One scan: the ids at which any of the prices changes cut the period into slices. What came out of the
    cache is told apart, because it may cost less: a call answered in part by the cache is in both.
    """
    changes = sorted({card.effective_from for card in prices if period.start < card.effective_from < period.end})
    rows = await connection.execute(
        f"""
        SELECT subscription_id, service_id, plan, provider_org, width_bucket(id, %(changes)s::uuid[]) AS slice,
               count(*) FILTER (WHERE {ASKED}) AS calls,
               {", ".join(f"sum({unit}) FILTER (WHERE {ASKED}) AS {unit}" for unit in UNITS)},
               cached_share, count(cached_share) AS cached_calls, sum(cached) AS cached,
               coalesce(sum(cached) FILTER (WHERE {ASKED}), 0) AS cached_of_asked
        FROM usage
        WHERE org_id = %(org)s AND id >= %(id_from)s AND id < %(id_to)s
          AND batch > %(batch_from)s AND batch <= %(batch_to)s AND outcome = ANY(%(billed)s) AND mode = 'live'
          AND subscription_id IS NOT NULL AND service_id IS NOT NULL AND provider_org IS NOT NULL
          AND NOT EXISTS ({VOID_CALLS})
        GROUP BY subscription_id, service_id, plan, provider_org, slice, cached_share
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
    sold_by = {card.service: card.unit for card in prices}
    found: list[Measured] = []
    async for row in rows:
        unit = sold_by.get(row["service_id"], "")
        place = (row["subscription_id"], row["service_id"], row["plan"], row["provider_org"], starts[row["slice"]])
        if row["calls"]:
            units = {name: Decimal(row[name]) for name in UNITS if row[name] is not None}
            if row["cached_of_asked"]:
                units[unit] = total((units.get(unit, Decimal(0)), -row["cached_of_asked"]))
            found.append(Measured(*place, units, row["calls"]))
        if row["cached_calls"]:
            found.append(Measured(*place, {unit: Decimal(row["cached"])}, row["cached_calls"], row["cached_share"]))
    return found


async def zone_of(connection: Connection, org: UUID) -> str | None:
    row = await (await connection.execute("SELECT zone FROM organisations WHERE id = %s", (org,))).fetchone()
    return row["zone"] if row else None


async def service_names(connection: Connection, services: Sequence[UUID]) -> dict[UUID, str]:
    """Return names such as ``Transliteration (lipi/transliterate)``."""
    rows = await connection.execute(
        "SELECT id, name, provider_slug, slug FROM services WHERE id = ANY(%s)", (list(services),)
    )
    return {row["id"]: f"{row['name']} ({row['provider_slug']}/{row['slug']})" async for row in rows}

"""All SQL of rating: rate cards, and billed usage summed up to where no price divides it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from haat.infra.postgres import Connection
from haat.kernel.clock import Period
from haat.kernel.money import total
from haat.kernel.prices import COUNTED_UNITS, REPORTED_UNITS, Meter, component, meter_of
from haat.rating.model import Held, Measured, RateCard
from haat.usage.model import ASKED, BILLED_VALUES, id_bound

Row = Mapping[str, Any]
Batches = tuple[int, int]
"""Batches ``(from, to]``."""

_CARD = """
    SELECT id, service_id AS service, version, plan_code AS plan, unit, unit_price, free_units, provider_share,
           effective_from, components, minimum, currency,
           CASE WHEN components = '[]' THEN '[]' ELSE (
               SELECT coalesce(jsonb_agg(jsonb_build_object('name', name, 'aggregation', aggregation,
                   'measure', measure, 'less', less, 'filter', filter)), '[]')
               FROM meters WHERE meters.service_id = rate_cards.service_id) END AS meters
    FROM rate_cards
"""
_DISTINCT_COLUMNS = {"end_user": "end_user", "application": "application_id::text", "language_pair": "language_pair"}
_TOLD_APART = ("language_pair", "version", "variant")


async def cards(connection: Connection, org: UUID, before: datetime) -> list[RateCard]:
    """Return all versions of the prices of services an organisation has ever subscribed to."""
    return await cards_of_many(connection, [org], before)


async def cards_of_many(connection: Connection, orgs: Sequence[UUID], before: datetime) -> list[RateCard]:
    """Return all versions of the prices of services that any of these organisations has ever subscribed to."""
    return await _cards(
        connection,
        "service_id IN (SELECT service_id FROM subscriptions WHERE org_id = ANY(%(orgs)s))",
        {"before": before, "orgs": list(orgs)},
    )


async def cards_of_service(connection: Connection, service: UUID, before: datetime) -> list[RateCard]:
    """Return all versions of a service's prices."""
    return await _cards(connection, "service_id = %(service)s", {"before": before, "service": service})


async def _cards(connection: Connection, which: str, values: Mapping[str, Any]) -> list[RateCard]:
    rows = await connection.execute(
        f"{_CARD} WHERE effective_from < %(before)s AND {which} ORDER BY service_id, plan_code NULLS FIRST, version",
        values,
    )
    return [_card(row) async for row in rows]


def _card(row: Row) -> RateCard:
    meters = {one["name"]: meter_of(one) for one in row["meters"]}
    members = {name: value for name, value in row.items() if name != "meters"}
    return RateCard(**{**members, "components": tuple(component(one, meters) for one in row["components"])})


async def meters_of(connection: Connection, service: UUID) -> dict[str, Meter]:
    """Return a listing's own meters by name."""
    rows = await connection.execute(
        "SELECT name, aggregation, measure, less, filter FROM meters WHERE service_id = %s ORDER BY name", (service,)
    )
    return {row["name"]: meter_of(row) async for row in rows}


# --- usage ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What meters read of a usage row, gathered from all cards: nothing that no card asks for is summed up."""

    sums: Sequence[str]
    hits: Sequence[str]
    """Sums of what came out of the cache whole: for cards that price more than the unit a service is sold by."""
    peaks: Sequence[str]
    lasts: Sequence[str]
    distinct: Sequence[str]
    divided: Sequence[UUID]
    """Services whose calls are told apart by language pair, version and variant."""
    whole: Sequence[UUID]
    """Services with meters that don't add up: their whole period is looked at again."""

    @classmethod
    def of(cls, prices: Sequence[RateCard]) -> _Wanted:
        sums = {card.unit for card in prices}
        kinds: dict[str, set[str]] = {"sum": set(), "max": set(), "last": set(), "unique": set(), "count": set()}
        divided, whole = set(), set()
        for card in prices:
            for meter in filter(None, (one.meter for one in card.components)):
                kinds[meter.aggregation].add(meter.measure if meter.aggregation == "unique" else meter.key)
                chosen = meter.filter
                if chosen.language_pairs or chosen.versions or chosen.variants:
                    divided.add(card.service)
                if not meter.additive:
                    whole.add(card.service)
        return cls(
            sorted(sums | kinds["sum"]),
            sorted(kinds["sum"]),
            sorted(kinds["max"]),
            sorted(kinds["last"]),
            sorted(kinds["unique"]),
            sorted(divided),
            sorted(whole),
        )

    def columns(self) -> list[str]:
        """Return the aggregates as SQL, each named by its kind and place."""
        found = [f"sum({quantity_sql(key)}) FILTER (WHERE {ASKED}) AS sum_{n}" for n, key in enumerate(self.sums)]
        found += [
            f"sum({quantity_sql(key)}) FILTER (WHERE NOT ({ASKED})) AS hit_{n}" for n, key in enumerate(self.hits)
        ]
        of_whole = "FILTER (WHERE service_id = ANY(%(whole)s))"
        found += [f"max({quantity_sql(key)}) {of_whole} AS max_{n}" for n, key in enumerate(self.peaks)]
        found += [  # an id orders calls by their time
            f"max(usage.id::text || '/' || coalesce({quantity_sql(key)}, 0)::text COLLATE \"C\") {of_whole} AS last_{n}"
            for n, key in enumerate(self.lasts)
        ]
        for n, name in enumerate(self.distinct):
            column = _DISTINCT_COLUMNS[name]
            found.append(
                f"array_agg(DISTINCT {column}) FILTER (WHERE service_id = ANY(%(whole)s) AND {column} <> '')"
                f" AS distinct_{n}"
            )
        return found


async def measured(
    connection: Connection, org: UUID, period: Period, batches: Batches, prices: Sequence[RateCard]
) -> list[Measured]:
    """Return an organisation's billed usage of a period that came in batches ``(from, to]``."""
    return (await measured_many(connection, [org], period, batches, prices))[org]


async def measured_many(
    connection: Connection,
    orgs: Sequence[UUID],
    period: Period,
    batches: Batches,
    prices: Sequence[RateCard],
    *,
    service: UUID | None = None,
) -> dict[UUID, list[Measured]]:
    """Return the billed usage of a period, of many organisations, or with ``service`` what they used of that one.

    One scan for all of them: the ids at which any of the prices changes cut the period into slices. What came out of
    the cache is told apart, because it may cost less: a call answered in part by the cache is in both.
    """
    found: dict[UUID, list[Measured]] = {org: [] for org in orgs}
    if not found:
        return found
    changes = sorted({card.effective_from for card in prices if period.start < card.effective_from < period.end})
    wanted = _Wanted.of(prices)
    apart = (
        [f"CASE WHEN service_id = ANY(%(divided)s) THEN {name} ELSE '' END AS {name}_of" for name in _TOLD_APART]
        if wanted.divided
        else []
    )
    before = ["batch <= %(first)s AS before"] if wanted.whole else []
    keys = ["subscription_id", "service_id", "plan", "provider_org", "slice", "cached_share"]
    keys += [f"{name}_of" for name in _TOLD_APART if apart] + ["before" for _ in before]
    again = " OR service_id = ANY(%(whole)s)" if wanted.whole else ""
    columns = "".join(f", {one}" for one in wanted.columns())
    rows = await connection.execute(
        f"""
        SELECT usage.org_id, subscription_id, service_id, plan, provider_org,
               width_bucket(usage.id, %(changes)s::uuid[]) AS slice, cached_share,
               {"".join(f"{one}, " for one in (*apart, *before))}
               count(*) FILTER (WHERE {ASKED}) AS calls, count(*) FILTER (WHERE NOT ({ASKED})) AS hits,
               count(cached_share) AS cached_calls, sum(cached) AS cached,
               coalesce(sum(cached) FILTER (WHERE {ASKED}), 0) AS cached_of_asked{columns}
        FROM usage
        WHERE usage.org_id = ANY(%(orgs)s) AND usage.id >= %(id_from)s AND usage.id < %(id_to)s
          AND batch > %(since)s AND batch <= %(last)s AND (batch > %(first)s{again})
          AND outcome = ANY(%(billed)s) AND mode = 'live'
          AND subscription_id IS NOT NULL AND service_id IS NOT NULL AND provider_org IS NOT NULL
          AND (%(service)s::uuid IS NULL OR service_id = %(service)s)
          AND NOT EXISTS (SELECT FROM usage_corrections AS void
                          WHERE void.call_id = usage.id AND void.batch <= %(last)s)
        GROUP BY usage.org_id, {", ".join(keys)}
        """,
        {
            "changes": [id_bound(change) for change in changes],
            "orgs": list(found),
            "since": -1 if wanted.whole else batches[0],
            "first": batches[0],
            "last": batches[1],
            "id_from": id_bound(period.start),
            "id_to": id_bound(period.end),
            "billed": BILLED_VALUES,
            "service": service,
            "divided": list(wanted.divided),
            "whole": list(wanted.whole),
        },
        prepare=False,  # one customer's calls are found by the index, a thousand's by reading all: planned each time
    )
    starts = [period.start, *changes]
    sold_by = {card.service: card.unit for card in prices}
    async for row in rows:
        found[row["org_id"]].extend(_measured(row, starts[row["slice"]], sold_by.get(row["service_id"], ""), wanted))
    return found


async def corrected_since(connection: Connection, org: UUID, period: Period, batch: int) -> bool:
    """Tell whether a call of a period was voided or corrected after a batch: what was read up to it is wrong then."""
    found = await connection.execute(
        """
        SELECT FROM usage_corrections WHERE org_id = %s AND batch > %s AND call_id >= %s AND call_id < %s LIMIT 1
        """,
        (org, batch, id_bound(period.start), id_bound(period.end)),
    )
    return found.rowcount > 0


def _measured(row: Row, at: datetime, unit: str, wanted: _Wanted) -> list[Measured]:
    """Return a row's usage: what the provider was asked for, and what the cache gave."""
    about: dict[str, Any] = {
        "subscription": row["subscription_id"],
        "service": row["service_id"],
        "plan": row["plan"],
        "provider_org": row["provider_org"],
        "at": at,
        "before": row.get("before", False),
        **{name: row.get(f"{name}_of", "") for name in _TOLD_APART},
    }
    found: list[Measured] = []
    gauges = _gauges(row, wanted)
    if row["calls"]:
        units = {key: Decimal(row[f"sum_{n}"]) for n, key in enumerate(wanted.sums) if row[f"sum_{n}"] is not None}
        if row["cached_of_asked"]:
            units[unit] = total((units.get(unit, Decimal(0)), -row["cached_of_asked"]))
        own = {name: {} for name in gauges} if row["cached_calls"] else gauges
        found.append(Measured(**about, **own, units=units, calls=row["calls"]))
    if row["cached_calls"]:
        units = {key: Decimal(row[f"hit_{n}"]) for n, key in enumerate(wanted.hits) if row[f"hit_{n}"] is not None}
        units[unit] = Decimal(row["cached"])
        share, calls, hits = row["cached_share"], row["cached_calls"], row["hits"]
        found.append(Measured(**about, **gauges, units=units, calls=calls, cached_share=share, counted=hits))
    return found


def _gauges(row: Row, wanted: _Wanted) -> dict[str, Any]:
    """Return a row's values of meters that don't add up; calls that the cache answered in part are among the cached."""
    found: dict[str, Any] = {}
    if wanted.whole:
        found["peaks"] = {
            key: Decimal(row[f"max_{n}"]) for n, key in enumerate(wanted.peaks) if row[f"max_{n}"] is not None
        }
        found["distinct"] = {name: frozenset(row[f"distinct_{n}"] or ()) for n, name in enumerate(wanted.distinct)}
        lasts = {key: row[f"last_{n}"] for n, key in enumerate(wanted.lasts) if row[f"last_{n}"] is not None}
        found["lasts"] = {key: (text.partition("/")[0], Decimal(text.partition("/")[2])) for key, text in lasts.items()}
    return found


def quantity_sql(key: str, row: str = "usage") -> str:
    """Return what a meter with this key reads of a usage row, as SQL; null where the row doesn't have the unit.

    Raise ValueError for a unit that there isn't: what is returned becomes a part of a statement.
    """
    unit, *less = (_column(one, row) for one in key.split("-"))
    return f"greatest({unit}{''.join(f' - coalesce({one}, 0)' for one in less)}, 0)" if less else unit


def _column(unit: str, row: str) -> str:
    if unit in COUNTED_UNITS:
        return f"{row}.{unit}"
    if unit not in REPORTED_UNITS:
        raise ValueError(f"{unit[:40]!r} is no unit that usage is counted in")
    return f"({row}.other_units ->> '{unit}')::numeric"


# --- subscriptions -------------------------------------------------------------------------------


async def held(
    connection: Connection, orgs: Sequence[UUID], period: Period, services: Sequence[UUID]
) -> dict[UUID, list[Held]]:
    """Return which plans the subscriptions to some services stood on in a period, and when, by organisation."""
    rows = await connection.execute(
        """
        SELECT one.id, one.org_id, one.service_id, one.started_at, one.ended_at, plans.code AS plan,
               services.org_id AS provider_org,
               (SELECT coalesce(json_agg(json_build_array(events.at, old.code)
                                         ORDER BY events.version), '[]')
                FROM events JOIN plans AS old ON old.id = (events.data ->> 'from')::uuid
                WHERE events.stream = 'subscription/' || one.id
                  AND events.type = 'subscription.plan_changed') AS left_at
        FROM subscriptions AS one JOIN plans ON plans.id = one.plan_id JOIN services ON services.id = one.service_id
        WHERE one.org_id = ANY(%(orgs)s) AND one.service_id = ANY(%(services)s)
          AND one.started_at < %(end)s AND (one.ended_at IS NULL OR one.ended_at > %(start)s)
        ORDER BY one.org_id, one.id
        """,
        {"orgs": list(orgs), "services": list(services), "start": period.start, "end": period.end},
    )
    found: dict[UUID, list[Held]] = {}
    async for row in rows:
        start = row["started_at"]
        spans = []
        for moment, plan in row["left_at"]:
            left = datetime.fromisoformat(moment)
            spans.append((start, left, plan))
            start = left
        spans.append((start, row["ended_at"] or period.end, row["plan"]))
        for begin, end, plan in spans:
            begin, end = max(begin, period.start), min(end, period.end)
            if begin < end:
                span = Held(row["id"], row["service_id"], plan, row["provider_org"], begin, end)
                found.setdefault(row["org_id"], []).append(span)
    return found


async def organisations_with_fees(connection: Connection, start: datetime, end: datetime) -> list[UUID]:
    """Return organisations subscribed between two instants to a service that has ever asked for a fee or a minimum."""
    rows = await connection.execute(
        """
        SELECT DISTINCT one.org_id FROM subscriptions AS one
        WHERE one.started_at < %s AND (one.ended_at IS NULL OR one.ended_at > %s) AND EXISTS (
            SELECT FROM rate_cards WHERE rate_cards.service_id = one.service_id AND effective_from < %s
              AND (minimum > 0 OR components @> '[{"model": "flat"}]'))
        ORDER BY one.org_id
        """,
        (end, start, end),
    )
    return [row["org_id"] async for row in rows]


async def listing(connection: Connection, service: UUID) -> Row | None:
    """Return whose a listing is, its name and unit, and its provider's zone."""
    return await (
        await connection.execute(
            """
            SELECT services.org_id, services.name, services.unit, organisations.zone
            FROM services JOIN organisations ON organisations.id = services.org_id WHERE services.id = %s
            """,
            (service,),
        )
    ).fetchone()


async def plans(connection: Connection, service: UUID) -> list[str]:
    """Return the codes of the plans that a service can be subscribed to on: its own and everybody's."""
    rows = await connection.execute(
        "SELECT DISTINCT code FROM plans WHERE service_id IS NULL OR service_id = %s ORDER BY code", (service,)
    )
    return [row["code"] async for row in rows]


async def subscribers(connection: Connection, service: UUID, org: UUID | None) -> dict[str, list[UUID]]:
    """Return the organisations that were ever subscribed to a service, by their zones: all, or one of them."""
    rows = await connection.execute(
        """
        SELECT DISTINCT organisations.zone, organisations.id
        FROM subscriptions JOIN organisations ON organisations.id = subscriptions.org_id
        WHERE service_id = %(service)s AND (%(org)s::uuid IS NULL OR org_id = %(org)s)
        ORDER BY organisations.zone, organisations.id
        """,
        {"service": service, "org": org},
    )
    found: dict[str, list[UUID]] = {}
    async for row in rows:
        found.setdefault(row["zone"], []).append(row["id"])
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

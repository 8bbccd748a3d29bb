"""All SQL that reads usage, and the shipper's positions. `intake` has the way in."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from haat.infra.postgres import Connection
from haat.kernel.clock import Period
from haat.kernel.prices import MONTHS
from haat.usage.model import ANSWERED, BILLED_VALUES, MEMBER, UNITS, CallFilter, id_bound
from haat.usage.subjects import EXECUTED, GOOD, SETTLED, SUBJECT, SUMS, WITHIN, calls_of_subjects

Row = Mapping[str, Any]
_ANSWERED_VALUES = [outcome.value for outcome in ANSWERED]


class StoredPosition(NamedTuple):
    segment: int
    offset: int


async def zone_of(connection: Connection, org: UUID) -> str | None:
    row = await (await connection.execute("SELECT zone FROM organisations WHERE id = %s", (org,))).fetchone()
    return row["zone"] if row else None


# --- rollups -------------------------------------------------------------------------------------


def _of(org: UUID | None, provider_org: UUID | None) -> tuple[str, dict[str, Any]]:
    """Say whose rollups: row-level security lets a provider see rows that aren't its own calls."""
    conditions = ["true"]
    if org is not None:
        conditions.append("org_id = %(org)s")
    if provider_org is not None:
        conditions.append("provider_org = %(provider_org)s")
    return " AND ".join(conditions), {"org": org, "provider_org": provider_org}


_COUNTS = """
    sum(calls) AS calls,
    coalesce(sum(calls) FILTER (WHERE outcome = 'completed'), 0) AS completed,
    coalesce(sum(calls) FILTER (WHERE outcome = 'client_left'), 0) AS client_left,
    coalesce(sum(calls) FILTER (WHERE outcome = 'refused'), 0) AS refused,
    coalesce(sum(calls) FILTER (WHERE outcome = 'provider_failed'), 0) AS failed,
    coalesce(sum(calls) FILTER (WHERE outcome IN ('interrupted', 'unconfirmed')), 0) AS in_doubt
"""
_BILLED_UNITS = ", ".join(
    f"coalesce(sum({unit}) FILTER (WHERE outcome = ANY(%(billed)s)), 0) AS {unit}" for unit in UNITS
)


_LATENCY = "numeric_send(sum(latency) FILTER (WHERE outcome = ANY(%(answered)s))) AS latency"
"""The merged sketches of the calls that reached a provider; null for none."""


async def by_service(
    connection: Connection,
    period: Period,
    *,
    org: UUID | None = None,
    provider_org: UUID | None = None,
    of: Collection[UUID] | None = None,
) -> list[Row]:
    """Return counts, billed units and the latency sketch for each service, the busiest first.

    ``of`` are the only services wanted, of all customers together: a row an hour, however many of them there are.
    """
    whose, values = _of(org, provider_org)
    rollups = "usage_hourly"
    if of is not None:
        rollups = "market_hourly"
        whose += " AND \"by\" = 'service' AND service_id = ANY(%(services)s)"
        values |= {"services": list(of)}
    query = f"""
        WITH counts AS (
            SELECT service_id, {_COUNTS}, {_BILLED_UNITS}, {_LATENCY} FROM {rollups}
            WHERE {whose} AND hour >= %(start)s AND hour < %(end)s GROUP BY service_id
        )
        SELECT counts.*, services.name, services.provider_slug, services.slug, services.unit
        FROM counts LEFT JOIN services ON services.id = counts.service_id
        ORDER BY counts.calls DESC, counts.service_id
        """
    return await _all(connection, query, {**values, **_period(period)})


async def by_hour(
    connection: Connection,
    period: Period,
    *,
    org: UUID | None = None,
    provider_org: UUID | None = None,
    service_id: UUID | None = None,
) -> list[Row]:
    """Return counts, bytes and the latency sketch of each hour that had a call."""
    whose, values = _of(org, provider_org)
    query = f"""
        SELECT hour, {_COUNTS}, sum(bytes_in) AS bytes_in, sum(bytes_out) AS bytes_out, {_LATENCY} FROM usage_hourly
        WHERE {whose} AND hour >= %(start)s AND hour < %(end)s
            AND (%(service_id)s::uuid IS NULL OR service_id = %(service_id)s)
        GROUP BY hour ORDER BY hour
        """
    return await _all(connection, query, {**values, **_period(period), "service_id": service_id})


async def top_customers(connection: Connection, period: Period, provider_org: UUID, limit: int) -> list[Row]:
    """Return a provider's customers by answered calls; the caller must not hand on ``org_id``."""
    return await _all(
        connection,
        f"""
            SELECT org_id, {_COUNTS} FROM usage_hourly
            WHERE provider_org = %(provider_org)s AND org_id IS NOT NULL
              AND hour >= %(start)s AND hour < %(end)s
            GROUP BY org_id ORDER BY sum(calls) DESC, org_id LIMIT %(limit)s
            """,
        {**_period(period), "provider_org": provider_org, "limit": limit},
    )


# --- calls ---------------------------------------------------------------------------------------


_CALL = f"""
    usage.id, usage.at, usage.batch, usage.org_id, usage.application_id, applications.name AS application,
    usage.credential_id, usage.subscription_id, usage.plan, usage.service_id, usage.provider, usage.provider_org,
    usage.service_slug, usage.version, usage.variant, usage.method, usage.path_template, usage.status,
    usage.outcome, usage.error_code, {", ".join(f"usage.{unit}" for unit in UNITS)}, usage.other_units,
    usage.units_source, usage.raw_usage, usage.admission_us, usage.queue_us, usage.connect_us, usage.first_byte_us,
    usage.total_us, usage.bytes_in, usage.bytes_out, usage.cache, usage.cached,
    usage.cached_share, usage.region,
    usage.language_pair, usage.gateway, usage.attempts, usage.executed_by, usage.trace, usage.mode,
    usage.rollout, usage.arm, usage.agreed,
    coalesce(called.provider_slug, usage.provider) AS called_provider,
    usage.end_user, usage.tags, usage.caller_request_id
"""
_CALLS = f"""
    SELECT {_CALL} FROM usage LEFT JOIN applications ON applications.id = usage.application_id
    LEFT JOIN services AS called ON called.id = usage.service_id
"""


def _where(chosen: CallFilter) -> tuple[str, dict[str, Any]]:
    conditions: list[str] = ["true"]
    values: dict[str, Any] = {}

    def add(condition: str, name: str, value: Any) -> None:
        if value is not None:
            conditions.append(condition)
            values[name] = value

    add("usage.org_id = %(org)s", "org", chosen.org)
    add("usage.provider_org = %(provider_org)s", "provider_org", chosen.provider_org)
    add("usage.id >= %(id_from)s", "id_from", id_bound(chosen.start) if chosen.start else None)
    add("usage.id < %(id_to)s", "id_to", id_bound(chosen.end) if chosen.end else None)
    add("usage.service_id = %(service_id)s", "service_id", chosen.service_id)
    add("usage.application_id = %(application_id)s", "application_id", chosen.application_id)
    add("usage.outcome = %(outcome)s", "outcome", chosen.outcome)
    add("usage.status / 100 = %(status_class)s", "status_class", chosen.status_class)
    add("usage.mode = %(mode)s", "mode", chosen.mode)
    add("usage.end_user = %(end_user)s", "end_user", chosen.end_user)
    if chosen.tag:
        conditions.append("usage.tags ->> %(tag_name)s = %(tag_value)s")
        values["tag_name"], values["tag_value"] = chosen.tag
    return " AND ".join(conditions), values


async def calls(connection: Connection, chosen: CallFilter, before: UUID | None, limit: int) -> list[Row]:
    """Return calls, newest first, that are older than ``before``."""
    where, values = _where(chosen)
    if before is not None:
        where, values = f"{where} AND usage.id < %(before)s", {**values, "before": before}
    return await _all(
        connection,
        f"{_CALLS} WHERE {where} ORDER BY usage.id DESC LIMIT %(limit)s",
        {**values, "limit": limit},
    )


async def count_of(connection: Connection, chosen: CallFilter) -> int:
    """Return how many calls there are."""
    where, values = _where(chosen)
    row = await (await connection.execute(f"SELECT count(*) AS calls FROM usage WHERE {where}", values)).fetchone()
    assert row is not None
    return int(row["calls"])


async def call(connection: Connection, identifier: UUID) -> Row | None:
    row = await (await connection.execute(f"{_CALLS} WHERE usage.id = %s", (identifier,))).fetchone()
    return row


def exported(selected: str, chosen: CallFilter) -> tuple[str, dict[str, Any]]:
    """Return the query that gives chosen calls, oldest first, what ``selected`` makes of them, and its values."""
    where, values = _where(chosen)
    called = "LEFT JOIN services AS called ON called.id = usage.service_id"
    return f"{selected} FROM usage {called} WHERE {where} ORDER BY usage.id", values


async def price_of(connection: Connection, service_id: UUID, plan: str | None, at: datetime) -> Row | None:
    """Return the rate card that holds for a call (see `haat.rating.model.windows`).

    ``plain``: it asks for a unit's price and no more, so that what one call costs can be told.
    """
    row = await (
        await connection.execute(
            """
            SELECT id, version, unit, unit_price, provider_share, components = '[]' AS plain FROM rate_cards
            WHERE service_id = %s AND (plan_code IS NULL OR plan_code = %s) AND effective_from <= %s
            ORDER BY plan_code IS NULL, effective_from DESC LIMIT 1
            """,
            (service_id, plan, at),
        )
    ).fetchone()
    return row


async def lines_of(connection: Connection, call: Row) -> list[Row]:
    """Return the invoice lines a call lies on, and their settlement lines where the scope may see them.

    That is one line of each meter that sees it, and for a call that the cache answered in part a second one, for that
    part; these come last.
    """
    return await _all(
        connection,
        f"""
            SELECT line.id AS line_id, line.identity, line.position, line.meter, line.cached_share AS line_share,
                   invoices.id AS invoice_id, invoices.serial,
                   settled.id AS settlement_line_id, settled.settlement_id
            FROM invoice_lines AS line
            JOIN invoices ON invoices.id = line.invoice_id
            LEFT JOIN settlement_lines AS settled ON settled.invoice_line_id = line.id
            CROSS JOIN (SELECT %(cache)s::text AS cache, %(cached_share)s::numeric AS cached_share,
                %(language_pair)s::text AS language_pair, %(version)s::text AS version,
                %(variant)s::text AS variant) AS call
            WHERE line.subscription_id = %(subscription_id)s AND line.plan IS NOT DISTINCT FROM %(plan)s
              AND line.service_id = %(service_id)s AND line.provider_org = %(provider_org)s
              AND line.id_from <= %(id)s AND line.id_to > %(id)s
              AND line.batch_from < %(batch)s AND line.batch_to >= %(batch)s AND line.unit <> '{MONTHS}' AND {MEMBER}
              AND NOT EXISTS (SELECT FROM invoice_states WHERE invoice_id = invoices.id AND state = 'void')
            ORDER BY line.cached_share NULLS FIRST, line.period, line.position
            """,
        call,
    )


# --- versions that are compared ------------------------------------------------------------------


async def by_variant(connection: Connection, rollout: UUID, start: datetime, end: datetime) -> list[Row]:
    """Count the calls that versions executed under a rollout, by variant and latency bucket."""
    return await _all(
        connection,
        f"""
            SELECT arm, latency_bucket(total_us) AS bucket, count(*) AS calls,
                   count(*) FILTER (WHERE outcome = 'provider_failed' OR executed_by IS NOT NULL) AS errors,
                   count(*) FILTER (WHERE agreed) AS agreed, count(agreed) AS compared
            FROM usage WHERE {EXECUTED} AND mode IN ('live', 'shadow') GROUP BY arm, bucket
            """,
        {"rollout": rollout, "id_from": id_bound(start), "id_to": id_bound(end)},
    )


async def by_subject(
    connection: Connection, rollout: UUID, start: datetime, until: datetime, settle_seconds: int, *, latency: bool
) -> list[Row]:
    """Return counts, sums and sums of squares of one value a subject, by variant."""
    value = "total_us / 1000.0" if latency else f"CASE WHEN {GOOD} THEN 1.0 ELSE 0.0 END"
    calls = calls_of_subjects(f"({value})::float8 AS value", GOOD if latency else "true")
    return await _all(
        connection,
        f"""
            WITH calls AS ({calls}), subjects AS (
                SELECT arm, avg(value) AS value, {SETTLED} AS settled FROM calls WHERE {WITHIN}
                GROUP BY {SUBJECT}, first
            )
            {SUMS}
            """,
        {
            "rollout": rollout,
            "id_from": id_bound(start),
            "id_to": id_bound(until),
            "settle": settle_seconds,
            "until": until,
        },
    )


# --- the shipper's own ---------------------------------------------------------------------------


async def positions(connection: Connection) -> dict[str, StoredPosition]:
    rows = await connection.execute("SELECT worker, segment, byte_offset FROM ship_positions")
    return {row["worker"]: StoredPosition(row["segment"], row["byte_offset"]) async for row in rows}


async def move(connection: Connection, worker: str, segment: int, offset: int, at: datetime) -> None:
    """Remember how far a worker's journal is shipped; a position never goes back."""
    await connection.execute(
        """
        INSERT INTO ship_positions (worker, segment, byte_offset, moved_at) VALUES (%s, %s, %s, %s)
        ON CONFLICT (worker) DO UPDATE
            SET segment = excluded.segment, byte_offset = excluded.byte_offset, moved_at = excluded.moved_at,
                problem = ''
            WHERE (excluded.segment, excluded.byte_offset) > (ship_positions.segment, ship_positions.byte_offset)
        """,
        (worker, segment, offset, at),
    )


async def report_problem(connection: Connection, worker: str, problem: str, at: datetime) -> None:
    await connection.execute(
        """
        INSERT INTO ship_positions (worker, segment, byte_offset, problem, moved_at) VALUES (%s, 0, 0, %s, %s)
        ON CONFLICT (worker) DO UPDATE SET problem = excluded.problem
        """,
        (worker, problem, at),
    )


async def shipping(connection: Connection) -> list[Row]:
    """Return each worker's position and problem."""
    query = "SELECT worker, segment, byte_offset, problem, moved_at FROM ship_positions ORDER BY worker"
    return await _all(connection, query, {})


async def quarantined(connection: Connection, limit: int, identifiers: Sequence[UUID] | None = None) -> list[Row]:
    """Return records set aside and not released, oldest first."""
    return await _all(
        connection,
        """
            SELECT id, worker, segment, byte_offset, outcome, payload, reason, set_aside_at FROM usage_quarantine
            WHERE released_at IS NULL AND (%(ids)s::uuid[] IS NULL OR id = ANY(%(ids)s))
            ORDER BY id LIMIT %(limit)s
            """,
        {"limit": limit, "ids": list(identifiers) if identifiers is not None else None},
    )


async def present(connection: Connection, identifiers: Sequence[UUID]) -> set[UUID]:
    """Return which of these calls are in the store."""
    rows = await connection.execute("SELECT id FROM usage WHERE id = ANY(%s)", (list(identifiers),))
    return {row["id"] async for row in rows}


async def mark_released(connection: Connection, identifiers: Sequence[UUID], at: datetime) -> None:
    await connection.execute("UPDATE usage_quarantine SET released_at = %s WHERE id = ANY(%s)", (at, list(identifiers)))


def _period(period: Period) -> dict[str, Any]:
    return {"start": period.start, "end": period.end, "billed": BILLED_VALUES, "answered": _ANSWERED_VALUES}


async def _all(connection: Connection, query: str, values: Mapping[str, Any]) -> list[Row]:
    return [row async for row in await connection.execute(query, values)]

"""The SQL of analytics: sums and sketches over rollups, by what one wants to see them divided by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from haat.infra.postgres import Connection
from haat.usage.model import ANSWERED, BILLED_VALUES, UNITS

Row = Mapping[str, Any]
DIMENSIONS = ("service_id", "application_id", "provider_org", "language_pair", "status_class", "when")
_OUTCOMES = {
    "completed": "outcome = 'completed'",
    "client_left": "outcome = 'client_left'",
    "refused": "outcome = 'refused'",
    "failed": "outcome = 'provider_failed'",
    "in_doubt": "outcome IN ('interrupted', 'unconfirmed')",
}
_COUNTS = ", ".join(
    (
        "sum(calls)::bigint AS calls",
        *(f"coalesce(sum(calls) FILTER (WHERE {which}), 0)::bigint AS {name}" for name, which in _OUTCOMES.items()),
    )
)
_UNITS = ", ".join(f"coalesce(sum({unit}) FILTER (WHERE outcome = ANY(%(billed)s)), 0) AS {unit}" for unit in UNITS)


@dataclass(frozen=True, slots=True)
class Spans:
    """A stretch of time as the rollups have it: whole days that are settled, and the hours beside them."""

    days: tuple[date, date] | None
    hours: tuple[tuple[datetime, datetime], ...]


def spans_of(start: datetime, end: datetime, zone: str, settled: date | None) -> Spans:
    """Divide ``[start, end)`` into what daily and what hourly rollups answer; days are those of ``zone``."""
    if settled is None:
        return Spans(None, ((start, end),))
    tz = ZoneInfo(zone)
    first, last = start.astimezone(tz), end.astimezone(tz)
    day_from = first.date() if first.time() == time() else first.date() + timedelta(days=1)
    day_to = min(last.date(), settled)
    if day_from >= day_to:
        return Spans(None, ((start, end),))
    edges = ((start, _midnight(day_from, tz)), (_midnight(day_to, tz), end))
    return Spans((day_from, day_to), tuple((one, other) for one, other in edges if one < other))


def _midnight(day: date, tz: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), tz).astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Question:
    """Whose calls, and of them which. A customer's are in ``usage``, a seller's and all in ``market``."""

    org: UUID | None = None
    provider_org: UUID | None = None
    service_id: UUID | None = None
    application_id: UUID | None = None

    def rollups(self, dimension: str | None) -> tuple[str, str]:
        """Return the rollups that answer, and the condition on their rows."""
        conditions = [
            f"{name} = %({name})s"
            for name, value in (
                ("org_id", self.org),
                ("provider_org", self.provider_org),
                ("service_id", self.service_id),
                ("application_id", self.application_id),
            )
            if value is not None
        ]
        if self.org is not None:
            return "usage", " AND ".join(conditions)
        by_service = self.service_id is not None or dimension == "service_id"
        by = ("both" if by_service else "pair") if dimension == "language_pair" else "service" if by_service else "all"
        return "market", " AND ".join((f"\"by\" = '{by}'", *conditions))

    def values(self) -> dict[str, Any]:
        return {
            "org_id": self.org,
            "provider_org": self.provider_org,
            "service_id": self.service_id,
            "application_id": self.application_id,
            "billed": BILLED_VALUES,
            "answered": [outcome.value for outcome in ANSWERED],
        }


async def divided(
    connection: Connection,
    question: Question,
    spans: Spans,
    dimension: str | None,
    *,
    step: str = "",
    zone: str = "UTC",
    units: bool = False,
    sketches: bool = True,
) -> list[Row]:
    """Return counts, and merged sketches of the calls that reached a provider, for each value of a dimension.

    ``when`` divides by time, into steps of an ``hour`` or a ``day`` of ``zone``. ``None`` divides by nothing.
    """
    key = f'"{dimension}"' if dimension else "true"
    values = {**question.values(), "zone": zone}
    picked = _picked(question, spans, dimension, step, values)
    counts = f"""
        SELECT {key} AS key, {_COUNTS}{f", {_UNITS}" if units else ""} FROM ({picked}) AS picked GROUP BY key
    """
    if not sketches:
        return await _all(connection, f"{counts} ORDER BY calls DESC, key", values)
    return await _all(
        connection,
        f"""
            WITH counts AS ({counts}), sketches AS (
                SELECT key, array_agg((bucket << 40) + calls) AS latency FROM (
                    SELECT key, one >> 40 AS bucket, sum(one & 1099511627775)::bigint AS calls
                    FROM (SELECT {key} AS key, unnest(latency) AS one FROM ({picked}) AS picked
                          WHERE outcome = ANY(%(answered)s)) AS elements
                    GROUP BY key, bucket) AS buckets
                GROUP BY key
            )
            SELECT counts.*, coalesce(latency, '{{}}') AS latency
            FROM counts LEFT JOIN sketches ON sketches.key IS NOT DISTINCT FROM counts.key
            ORDER BY counts.calls DESC, counts.key
            """,
        values,
    )


def _picked(question: Question, spans: Spans, dimension: str | None, step: str, values: dict[str, Any]) -> str:
    """Return a query of the rollups' rows, and bind its values."""
    table, where = question.rollups(dimension)
    columns, divides = _columns(table), dimension == "when"
    parts = []
    if spans.days is not None:
        values["day_from"], values["day_to"] = spans.days
        when = ', day::timestamp AS "when"' if divides else ""
        parts.append(
            f"SELECT {columns}{when} FROM {table}_daily WHERE {where} AND day >= %(day_from)s AND day < %(day_to)s"
        )
    for number, (start, end) in enumerate(spans.hours):
        values[f"from_{number}"], values[f"to_{number}"] = start, end
        when = f", date_trunc('{step}', hour AT TIME ZONE %(zone)s) AS \"when\"" if divides else ""
        parts.append(
            f"SELECT {columns}{when} FROM {table}_hourly WHERE {where}"
            f" AND hour >= %(from_{number})s AND hour < %(to_{number})s"
        )
    return " UNION ALL ".join(parts)


def _columns(table: str) -> str:
    own = "org_id, application_id, " if table == "usage" else ""
    return f"{own}provider_org, service_id, language_pair, status_class, outcome, calls, {', '.join(UNITS)}, latency"


async def customers(connection: Connection, provider_org: UUID, spans: Spans, limit: int) -> tuple[int, list[Row]]:
    """Return how many customers a provider had, and those with most calls; who asks must not learn their ids."""
    question = Question(provider_org=provider_org)
    values: dict[str, Any] = {**question.values(), "limit": limit}
    picked = _customers_of(spans, values)
    rows = await _all(
        connection,
        f"""
            SELECT org_id, {_COUNTS}, count(*) OVER () AS customers FROM ({picked}) AS picked
            GROUP BY org_id ORDER BY sum(calls) DESC, org_id LIMIT %(limit)s
            """,
        values,
    )
    return (int(rows[0]["customers"]) if rows else 0), rows


async def customers_of_pairs(
    connection: Connection, provider_org: UUID, spans: Spans, few: int
) -> dict[str, tuple[int, frozenset[UUID]]]:
    """Return how many customers called with each language pair, and who they are if fewer than ``few``."""
    values: dict[str, Any] = {**Question(provider_org=provider_org).values(), "few": few}
    picked = _customers_of(spans, values)
    rows = await _all(
        connection,
        f"""
            SELECT language_pair, count(*) AS customers,
                   CASE WHEN count(*) < %(few)s THEN array_agg(org_id) ELSE '{{}}' END AS who
            FROM (SELECT DISTINCT language_pair, org_id FROM ({picked}) AS picked) AS pairs GROUP BY language_pair
            """,
        values,
    )
    return {row["language_pair"]: (row["customers"], frozenset(row["who"])) for row in rows}


def _customers_of(spans: Spans, values: dict[str, Any]) -> str:
    """Return a query of the customers' rollups that name a provider. Customers' days are those of their own walls."""
    where = "provider_org = %(provider_org)s AND org_id IS NOT NULL"
    columns = "org_id, language_pair, outcome, calls"
    parts = []
    if spans.days is not None:
        values["day_from"], values["day_to"] = spans.days
        parts.append(f"SELECT {columns} FROM usage_daily WHERE {where} AND day >= %(day_from)s AND day < %(day_to)s")
    for number, (start, end) in enumerate(spans.hours):
        values[f"from_{number}"], values[f"to_{number}"] = start, end
        parts.append(
            f"SELECT {columns} FROM usage_hourly WHERE {where} AND hour >= %(from_{number})s AND hour < %(to_{number})s"
        )
    return " UNION ALL ".join(parts)


async def revenue(
    connection: Connection, period: str, *, org: UUID | None = None, provider_org: UUID | None = None
) -> list[Row]:
    """Return what issued lines of a month came to before tax, and the providers' shares of it, by service.

    What credit notes took back is taken off, which is all of an invoice that was voided; of the provider's share only
    what was taken back for the provider's fault, to the paisa that settlements take.
    """
    return await _all(
        connection,
        """
            SELECT service_id, sum(line.taxable - coalesce(credit.taxable, 0)) AS net,
                   sum(round((line.taxable - coalesce(credit.of_provider, 0)) * provider_share, 2)) AS provider_amount
            FROM invoice_lines AS line JOIN invoice_states USING (invoice_id)
            LEFT JOIN (SELECT invoice_line_id, sum(taxable) AS taxable,
                              sum(taxable) FILTER (WHERE fault = 'provider') AS of_provider
                       FROM credit_note_lines GROUP BY invoice_line_id) AS credit ON credit.invoice_line_id = line.id
            WHERE line.period = %(period)s AND state <> 'registering'
              AND (%(org)s::uuid IS NULL OR line.org_id = %(org)s)
              AND (%(provider_org)s::uuid IS NULL OR line.provider_org = %(provider_org)s)
            GROUP BY service_id
            """,
        {"period": period, "org": org, "provider_org": provider_org},
    )


async def names(
    connection: Connection, services: Sequence[UUID], applications: Sequence[UUID], providers: Sequence[UUID]
) -> dict[UUID, str]:
    """Return what services (as their path), applications and providers are called."""
    rows = await _all(
        connection,
        """
            SELECT id, provider_slug || '/' || slug AS name FROM services WHERE id = ANY(%(services)s)
            UNION ALL SELECT id, name FROM applications WHERE id = ANY(%(applications)s)
            UNION ALL SELECT id, name FROM organisations WHERE id = ANY(%(providers)s)
            """,
        {"services": list(services), "applications": list(applications), "providers": list(providers)},
    )
    return {row["id"]: row["name"] for row in rows}


async def latest(connection: Connection, org: UUID, after_batch: int, since: UUID, limit: int) -> list[Row]:
    """Return an organisation's newest calls that came in after a batch, with ids from ``since`` on, newest first."""
    return await _all(
        connection,
        """
            SELECT usage.id, usage.at, usage.batch, usage.provider, usage.service_slug, usage.version, usage.status,
                   usage.outcome, usage.error_code, usage.total_us, usage.language_pair, usage.mode,
                   applications.name AS application
            FROM usage LEFT JOIN applications ON applications.id = usage.application_id
            WHERE usage.org_id = %(org)s AND usage.id >= %(since)s AND usage.batch > %(batch)s
            ORDER BY usage.id DESC LIMIT %(limit)s
            """,
        {"org": org, "since": since, "batch": after_batch, "limit": limit},
    )


async def _all(connection: Connection, query: str, values: Mapping[str, Any]) -> list[Row]:
    return [row async for row in await connection.execute(query, values)]

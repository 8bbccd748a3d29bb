"""The SQL of analytics: sums and sketches over rollups, by what one wants to see them divided by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from haat.infra.postgres import Connection
from haat.usage.model import ANSWERED, BILLED_VALUES, UNITS, histogram_of

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
        if self.service_id is not None or dimension == "service_id":
            by = "both" if dimension == "language_pair" else "service"
        elif self.provider_org is not None or dimension == "provider_org":
            by = "pair" if dimension == "language_pair" else "all"
        else:
            by = "market_pair" if dimension == "language_pair" else "market"
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


async def expect_many_rows(connection: Connection) -> None:
    """Have this transaction's sums hashed, in memory, and by one process.

    Row-level security hides from the planner how many rows there are: it expects a hundred, and would sort thousands.
    Half-done sums of sketches take longer to hand from process to process than to make.
    """
    await connection.execute(
        """
        SELECT set_config('enable_sort', 'off', true), set_config('work_mem', '64MB', true),
               set_config('max_parallel_workers_per_gather', '0', true)
        """
    )


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
    """Return counts, and the ``latency`` of the calls that reached a provider by bucket, for each value of a dimension.

    ``when`` divides by time, into steps of an ``hour`` or a ``day`` of ``zone``. ``None`` divides by nothing.
    """
    key = f'"{dimension}"' if dimension else "true"
    values = {**question.values(), "zone": zone}
    picked = _picked(question, spans, dimension, step, values)
    # First plain sums by outcome: a condition for each sum would cost more, on every row, than the sum does.
    summed = ["calls", *(UNITS if units else ()), *(("latency",) if sketches else ())]
    latency = ", numeric_send(sum(latency) FILTER (WHERE outcome = ANY(%(answered)s))) AS latency" if sketches else ""
    rows = await _all(
        connection,
        f"""
            SELECT key, {_COUNTS}{f", {_UNITS}" if units else ""}{latency}
            FROM (SELECT {key} AS key, outcome, {", ".join(f"sum({name}) AS {name}" for name in summed)}
                  FROM ({picked}) AS picked GROUP BY 1, outcome) AS by_outcome
            GROUP BY key ORDER BY calls DESC, key
            """,
        values,
    )
    return [{**row, "latency": histogram_of(row.get("latency"))} for row in rows]


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


async def customers(connection: Connection, provider_org: UUID, spans: Spans) -> list[Row]:
    """Return what became of the calls of each customer of a provider, and their language ``pairs``, some twice.

    Who asks must not learn the customers' ids.
    """
    values = Question(provider_org=provider_org).values()
    picked = _customers_of(spans, values)
    return await _all(
        connection,
        f"""
            SELECT org_id, {_COUNTS}, array_agg(language_pair) AS pairs
            FROM (SELECT org_id, language_pair, outcome, sum(calls) AS calls FROM ({picked}) AS picked
                  GROUP BY org_id, language_pair, outcome) AS by_outcome
            GROUP BY org_id
            """,
        values,
    )


def _customers_of(spans: Spans, values: dict[str, Any]) -> str:
    """Return a query of the customers' rollups that name a provider. Customers' days are those of their own walls.

    The index holds these columns of a day, so that its rows needn't be fetched.
    """
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

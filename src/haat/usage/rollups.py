"""The rollups' SQL: a batch's cells go in, finished days are settled, everything is made anew from the rows.

`usage_hourly` and `usage_daily` belong to customers, `market_hourly` and `market_daily` to sellers. Hours and days are
those of their owner's wall. A day is settled once it is over in every zone: its hours are summed up into the daily
table, and questions about it are answered from there; usage that comes later goes into both, in the same
transaction. All of it follows from the rows of `usage` and can be made anew from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from haat.infra.postgres import Connection
from haat.usage.cells import HEADER, TRAILER
from haat.usage.model import UNITS
from haat.usage.rollup import MEASURES, Rollup

EARLIEST = timedelta(hours=14)
LATEST = timedelta(hours=12)
"""The first zone's day begins so long before the day in UTC, the last one's ends so long after it."""
_PIECE = 64 * 1024
_LOOSE = 32
"""A sketch of so many elements isn't worth packing: most days of most customers have fewer calls."""


@dataclass(frozen=True, slots=True)
class _Family:
    """A kind of rollup: whose it is (a column), and what else its rows are told apart by."""

    hourly: str
    daily: str
    cells: str
    owner: str
    key: tuple[str, ...]
    types: str
    batch: bool

    def to_hours(self) -> str:
        """Return the statement that adds cells of one ``minute`` to hours; its other parameter is the ``batch``.

        Two such quarters lie an hour or more apart, so each cell has a row of its own and nothing need be summed up.
        The index is walked in its order.
        """
        keys, measures = ", ".join(self.key), ", ".join(MEASURES)
        batch, number = (", batch", ", %(batch)s::bigint") if self.batch else ("", "")
        return f"""
            INSERT INTO {self.hourly} AS old (hour, {keys}, {measures}{batch})
            SELECT date_trunc('hour', quarter, {_ZONE}) AS hour, {keys}, {measures}{number}
            FROM {self.cells} AS cell {self._owners("cell")}
            WHERE extract(minute FROM quarter AT TIME ZONE 'UTC') = %(minute)s
            ORDER BY {self.owner}, hour
            ON CONFLICT (hour, {keys}) DO UPDATE SET {_added()}{", batch = excluded.batch" if self.batch else ""}
        """

    def to_days(self) -> str:
        """Return the statement that adds cells to the days that are settled already; its parameter is their end."""
        keys, measures = ", ".join(self.key), ", ".join(MEASURES)
        return f"""
            INSERT INTO {self.daily} AS old (day, {keys}, {measures})
            SELECT day, {keys}, {", ".join(f"sum({name})" for name in MEASURES[:-1])}, sketch_concat(latency)
            FROM (SELECT cell.*, (quarter AT TIME ZONE {_ZONE})::date AS day
                  FROM {self.cells} AS cell {self._owners("cell")}) AS cell
            WHERE day < %(settled)s
            GROUP BY {keys}, day
            ON CONFLICT (day, {keys}) DO UPDATE SET {_added()}
        """

    def settle(self) -> str:
        """Return the statement that sums the hours of days up, those from ``first`` to before ``until``."""
        keys, measures = ", ".join(self.key), ", ".join(MEASURES)
        return f"""
            INSERT INTO {self.daily} (day, {keys}, {measures})
            SELECT day, {keys}, {", ".join(MEASURES[:-1])},
                   CASE WHEN cardinality(latency) <= {_LOOSE} THEN latency ELSE sketch_pack(latency) END
            FROM (
                SELECT day, {keys}, {", ".join(f"sum({name}) AS {name}" for name in MEASURES[:-1])},
                       sketch_concat(latency) AS latency
                FROM (SELECT past.*, (hour AT TIME ZONE {_ZONE})::date AS day
                      FROM {self.hourly} AS past {self._owners("past")}
                      WHERE hour >= %(start)s AND hour < %(end)s) AS past
                WHERE day >= %(first)s AND day < %(until)s
                GROUP BY {keys}, day
            ) AS days
            ORDER BY provider_org, {self.owner}, day
        """

    def rebuild(self, counts: str) -> str:
        """Return the statement that makes the hours anew from ``counts``: the calls of `usage` by key and bucket."""
        keys, measures = ", ".join(self.key), ", ".join(MEASURES)
        batch = ", batch" if self.batch else ""
        sums = ", ".join(f"sum({name})" for name in MEASURES[:-1])
        return f"""
            INSERT INTO {self.hourly} (hour, {keys}, {measures}{batch})
            SELECT hour, {keys}, {sums}, array_agg((bucket << 40) + calls ORDER BY bucket)
                   {", max(batch)" if self.batch else ""}
            FROM ({counts}) AS counts GROUP BY hour, {keys}
        """

    def _owners(self, rows: str) -> str:
        return f"LEFT JOIN {_OWNERS} ON owners.id = {rows}.{self.owner}"


_OWNERS = "(SELECT id, zone FROM organisations) AS owners"
_ZONE = "coalesce(zone, 'UTC')"


def _added() -> str:
    sums = (f"{name} = old.{name} + excluded.{name}" for name in MEASURES[:-1])
    return ", ".join((*sums, "latency = sketch_add(old.latency, excluded.latency)"))


_MEASURE_TYPES = ", ".join(
    f"{name} {'numeric' if name in UNITS else 'bigint[]' if name == 'latency' else 'bigint'}" for name in MEASURES
)

CUSTOMERS = _Family(
    "usage_hourly",
    "usage_daily",
    "usage_cells",
    "org_id",
    (
        *("org_id", "application_id", "subscription_id", "service_id", "provider_org", "plan", "outcome"),
        *("language_pair", "status_class"),
    ),
    """org_id uuid, application_id uuid, subscription_id uuid, service_id uuid, provider_org uuid, plan text,
       outcome text, language_pair text, status_class smallint""",
    batch=True,
)
SELLERS = _Family(
    "market_hourly",
    "market_daily",
    "market_cells",
    "provider_org",
    ("provider_org", '"by"', "service_id", "language_pair", "status_class", "outcome"),
    'provider_org uuid, "by" text, service_id uuid, language_pair text, status_class smallint, outcome text',
    batch=False,
)
FAMILIES = (CUSTOMERS, SELLERS)
_CELLS: tuple[tuple[_Family, Callable[[Rollup], Iterator[bytes]]], ...] = (
    (CUSTOMERS, Rollup.customers),
    (SELLERS, Rollup.sellers),
)


async def roll(connection: Connection, rollup: Rollup, batch: int) -> None:
    """Add a batch's cells to the rollups."""
    if not rollup:
        return
    settled = await settled_until(connection)
    late = settled is not None and rollup.oldest_ms < _midnight(settled).timestamp() * 1000 + _ms(LATEST)
    for family, rows in _CELLS:
        await connection.execute(
            f"""
            CREATE TEMPORARY TABLE IF NOT EXISTS {family.cells} (quarter timestamptz, {family.types}, {_MEASURE_TYPES})
                ON COMMIT DELETE ROWS
            """
        )
        await connection.execute(f"TRUNCATE {family.cells}")
        async with (
            connection.cursor() as cursor,
            cursor.copy(f"COPY {family.cells} FROM STDIN (FORMAT binary)") as copy,
        ):
            for piece in pieces(rows(rollup)):
                await copy.write(piece)
        for minute in sorted(rollup.minutes):
            await connection.execute(family.to_hours(), {"batch": batch, "minute": minute})
        if late:
            await connection.execute(family.to_days(), {"settled": settled})


def pieces(rows: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a binary COPY in pieces of moderate size."""
    parts, size = [HEADER], 0
    for row in rows:
        parts.append(row)
        size += len(row)
        if size >= _PIECE:
            yield b"".join(parts)
            parts, size = [], 0
    parts.append(TRAILER)
    yield b"".join(parts)


async def settled_until(connection: Connection) -> date | None:
    """Return the day before which all days are in the daily tables; None when none are."""
    row = await (await connection.execute("SELECT until FROM usage_settled")).fetchone()
    return row["until"] if row else None


async def settle(connection: Connection, now: datetime) -> int:
    """Sum up the days that are over in every zone, and return how many.

    The caller holds the intake's lock: what comes in later finds them settled.
    """
    until = (now - LATEST).date()
    first = await settled_until(connection)
    if first is None:
        row = await (await connection.execute("SELECT min(hour) AS hour FROM usage_hourly")).fetchone()
        if row is None or row["hour"] is None:
            return 0
        first = (row["hour"] - LATEST).date()
    if first >= until:
        return 0
    await _settle(connection, first, until)
    return (until - first).days


async def _settle(connection: Connection, first: date, until: date) -> None:
    values = {
        "first": first,
        "until": until,
        "start": _midnight(first) - EARLIEST,
        "end": _midnight(until) + LATEST,
    }
    for family in FAMILIES:
        await connection.execute(family.settle(), values)
    await connection.execute(
        "INSERT INTO usage_settled (until) VALUES (%s) ON CONFLICT (one) DO UPDATE SET until = excluded.until",
        (until,),
    )


async def rebuild(connection: Connection) -> int:
    """Make all rollups anew from the rows, and return of how many calls. The caller holds the intake's lock."""
    settled = await settled_until(connection)
    for family in FAMILIES:
        await connection.execute(f"DELETE FROM {family.hourly}")
        await connection.execute(f"DELETE FROM {family.daily}")
    await connection.execute(CUSTOMERS.rebuild(_COUNTS_OF_CUSTOMERS))
    await connection.execute(SELLERS.rebuild(_COUNTS_OF_SELLERS))
    if settled is not None:
        await _settle(connection, date(1970, 1, 1), settled)
    row = await (await connection.execute("SELECT coalesce(sum(calls), 0) AS calls FROM usage_hourly")).fetchone()
    assert row is not None
    return int(row["calls"])


_COUNTED = ", ".join(
    (
        "count(*) AS calls",
        *(f"coalesce(sum({name}), 0) AS {name}" for name in MEASURES[1:-2]),
        "sum(total_us) AS latency_us",
        "latency_bucket(total_us)::bigint AS bucket",
        "max(batch) AS batch",
    )
)
_KEYS_OF_CUSTOMERS = """org_id, application_id, subscription_id, service_id, provider_org, plan, language_pair,
    status / 100 AS status_class, outcome"""
_COUNTS_OF_CUSTOMERS = f"""
    SELECT date_trunc('hour', at, {_ZONE}) AS hour, {_KEYS_OF_CUSTOMERS}, {_COUNTED}
    FROM usage LEFT JOIN {_OWNERS} ON owners.id = usage.org_id WHERE mode = 'live'
    GROUP BY hour, org_id, application_id, subscription_id, service_id, provider_org, plan, language_pair,
        status_class, outcome, bucket
"""
_SOLD = "hour, provider_org, status_class, outcome, bucket"
_COUNTS_OF_SELLERS = f"""
    WITH sold AS MATERIALIZED (
        SELECT date_trunc('hour', at, {_ZONE}) AS hour, provider_org, service_id, language_pair,
               status / 100 AS status_class, outcome, {_COUNTED}
        FROM usage LEFT JOIN {_OWNERS} ON owners.id = usage.provider_org WHERE mode = 'live'
        GROUP BY hour, provider_org, service_id, language_pair, status_class, outcome, bucket
    )
    SELECT CASE WHEN GROUPING(service_id) = 0 AND GROUPING(language_pair) = 0 THEN 'both'
                WHEN GROUPING(service_id) = 0 THEN 'service' WHEN GROUPING(language_pair) = 0 THEN 'pair'
                ELSE 'all' END AS "by",
           service_id, CASE WHEN GROUPING(language_pair) = 0 THEN language_pair ELSE '' END AS language_pair,
           {_SOLD}, sum(calls)::bigint AS calls, {", ".join(f"sum({name}) AS {name}" for name in MEASURES[1:-1])}
    FROM sold GROUP BY GROUPING SETS (({_SOLD}), ({_SOLD}, service_id), ({_SOLD}, language_pair),
        ({_SOLD}, service_id, language_pair))
"""


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _ms(span: timedelta) -> float:
    return span.total_seconds() * 1000

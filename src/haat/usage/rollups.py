"""The rollups' SQL: a batch's cells go in, finished days are settled.

`usage_hourly` and `usage_daily` belong to customers, `market_hourly` and `market_daily` to sellers, and of these the
whole market's to the operator. Hours and days are those of their owner's wall. A day is settled once it is over in
every zone: its hours are summed up into the daily table, and questions about it are answered from there; usage that
comes later goes into both, in the same transaction. All of it follows from the rows of `usage` and can be made anew
from them (`haat.usage.rebuild`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID

from haat.infra.postgres import Connection
from haat.usage.cells import HEADER, TRAILER, uuid_cell
from haat.usage.model import UNITS
from haat.usage.rollup import MEASURES, Rollup

EARLIEST = timedelta(hours=14)
LATEST = timedelta(hours=12)
"""The first zone's day begins so long before the day in UTC, the last one's ends so long after it."""
_PIECE = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Family:
    """A kind of rollup: whose it is (a column), and what else its rows are told apart by.

    Dashboards find rows of a day by ``read_by``: they lie in that order, so that few pages are read.
    """

    hourly: str
    daily: str
    cells: str
    owner: str
    key: tuple[str, ...]
    types: str
    read_by: str
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
            SELECT day, {keys}, {SUMS}
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
            SELECT day, {keys}, {SUMS}
            FROM (SELECT past.*, (hour AT TIME ZONE {_ZONE})::date AS day
                  FROM {self.hourly} AS past {self._owners("past")}
                  WHERE hour >= %(start)s AND hour < %(end)s) AS past
            WHERE day >= %(first)s AND day < %(until)s
            GROUP BY {keys}, day
            ORDER BY {self.read_by}, day
        """

    def _owners(self, rows: str) -> str:
        return f"LEFT JOIN {OWNERS} ON owners.id = {rows}.{self.owner}"


OWNERS = "(SELECT id, zone FROM organisations) AS owners"
_ZONE = "coalesce(zone, 'UTC')"
SUMS = ", ".join(f"{'sketch_sum' if name == 'latency' else 'sum'}({name})" for name in MEASURES)
"""The sums of rows of which few make up one."""


def _added() -> str:
    return ", ".join(f"{name} = old.{name} + excluded.{name}" for name in MEASURES)


_MEASURE_TYPES = ", ".join(f"{name} {'numeric' if name in (*UNITS, 'latency') else 'bigint'}" for name in MEASURES)

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
    "provider_org, org_id",
    batch=True,
)
SELLERS = _Family(
    "market_hourly",
    "market_daily",
    "market_cells",
    "provider_org",
    ("provider_org", '"by"', "service_id", "language_pair", "status_class", "outcome"),
    'provider_org uuid, "by" text, service_id uuid, language_pair text, status_class smallint, outcome text',
    '"by", provider_org',
    batch=False,
)
FAMILIES = (CUSTOMERS, SELLERS)


async def roll(connection: Connection, rollup: Rollup, batch: int) -> None:
    """Add a batch's cells to the rollups."""
    if not rollup:
        return
    settled = await settled_until(connection)
    late = settled is not None and rollup.oldest_ms < _midnight(settled).timestamp() * 1000 + _ms(LATEST)
    whole = await operator(connection)
    cells = (
        (CUSTOMERS, rollup.customers()),
        (SELLERS, rollup.sellers(uuid_cell(whole.bytes if whole else None))),
    )
    for family, rows in cells:
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
            for piece in pieces(rows):
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


async def operator(connection: Connection) -> UUID | None:
    """Return whose the whole market's rollups are, and so whose wall they lie on; None before a platform is set up."""
    row = await (
        await connection.execute("SELECT id FROM organisations WHERE kind = 'operator' ORDER BY created_at LIMIT 1")
    ).fetchone()
    return row["id"] if row else None


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
    await settle_days(connection, first, until)
    return (until - first).days


async def settle_days(connection: Connection, first: date, until: date) -> None:
    """Sum up the days from ``first`` to before ``until``, of which none is summed up yet."""
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


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _ms(span: timedelta) -> float:
    return span.total_seconds() * 1000

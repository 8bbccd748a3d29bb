"""Rollups made anew from the rows of `usage`.

A customer's hour has few calls, so customers' rollups are nearly as many as the rows: these are sorted, and come out in
the order of the index that they go into. A seller's hour has many: its rows are summed up a day of calls at a time,
which memory holds, and everything wider is summed up from that.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID

from haat.infra.postgres import Connection
from haat.usage.model import UNITS, id_bound
from haat.usage.rollup import MEASURES
from haat.usage.rollups import CUSTOMERS, FAMILIES, OWNERS, SELLERS, SUMS, operator, settle_days, settled_until

_FIRST = date(1970, 1, 1)
_DAY = timedelta(days=1)

# A sum that is given no row keeps no state, and of nine units a call has one or two.
_COUNTED = ", ".join(
    (
        "count(*) AS calls",
        *(f"coalesce(sum({unit}) FILTER (WHERE {unit} IS NOT NULL), 0) AS {unit}" for unit in UNITS),
        *(f"sum({name}) AS {name}" for name in ("bytes_in", "bytes_out")),
        "sum(total_us) AS latency_us",
        "sketch_sum(latency_sketch(total_us)) AS latency",
    )
)
_MEASURES = ", ".join(MEASURES)
_COUNTS = "mode = 'live' AND NOT EXISTS (SELECT FROM usage_corrections WHERE replaced_by = usage.id)"
"""Which rows count: each call once, as it came in. What a correction puts in its place is charged, but no call."""

_KEYS = ", ".join(CUSTOMERS.key)
_OF_CUSTOMERS = f"""
    INSERT INTO usage_hourly (hour, {_KEYS}, {_MEASURES}, batch)
    SELECT date_trunc('hour', at, coalesce(zone, 'UTC')) AS hour, {_KEYS.replace("status_class", "status / 100")},
           {_COUNTED}, max(batch)
    FROM usage LEFT JOIN {OWNERS} ON owners.id = usage.org_id
    WHERE {_COUNTS}
    GROUP BY org_id, hour, service_id, application_id, subscription_id, provider_org, plan, language_pair, status / 100,
             outcome
    ORDER BY org_id, hour
"""
_SOLD = "hour, market_hour, provider_org, service_id, language_pair, status_class, outcome"
_SOLD_TABLE = f"""
    CREATE TEMPORARY TABLE market_sold ON COMMIT DROP AS
    SELECT hour, hour AS market_hour, provider_org, service_id, language_pair, status_class, outcome, {_MEASURES}
    FROM market_hourly WITH NO DATA
"""
_OF_SELLERS = f"""
    INSERT INTO market_sold ({_SOLD}, {_MEASURES})
    SELECT date_trunc('hour', at, coalesce(zone, 'UTC')) AS hour, date_trunc('hour', at, %(zone)s) AS market_hour,
           provider_org, service_id, language_pair, status / 100 AS status_class, outcome, {_COUNTED}
    FROM usage LEFT JOIN {OWNERS} ON owners.id = usage.provider_org
    WHERE usage.id >= %(first)s AND usage.id < %(after)s AND {_COUNTS}
    GROUP BY {_SOLD}
"""


def _wider(by: str, source: str, hour: str, owner: str, service: str, pair: str) -> str:
    """Return the statement that sums sellers' rows up for ``by``, out of rows that are divided further."""
    return f"""
        INSERT INTO market_hourly (hour, {", ".join(SELLERS.key)}, {_MEASURES})
        SELECT {hour}, {owner}, '{by}', {service}, {pair}, status_class, outcome, {SUMS}
        FROM {source} GROUP BY 1, 2, 4, 5, status_class, outcome ORDER BY 1
    """


def _by(name: str) -> str:
    return f"market_hourly WHERE \"by\" = '{name}'"


_NO_SERVICE, _NO_PAIR, _OPERATOR = "NULL::uuid", "''::text", "%(operator)s::uuid"
_FROM_NARROW_TO_WIDE = (
    _wider("both", "market_sold", "hour", "provider_org", "service_id", "language_pair"),
    _wider("service", _by("both"), "hour", "provider_org", "service_id", _NO_PAIR),
    _wider("pair", _by("both"), "hour", "provider_org", _NO_SERVICE, "language_pair"),
    _wider("all", _by("pair"), "hour", "provider_org", _NO_SERVICE, _NO_PAIR),
    _wider("market_pair", "market_sold", "market_hour", _OPERATOR, _NO_SERVICE, "language_pair"),
    _wider("market", _by("market_pair"), "hour", "provider_org", _NO_SERVICE, _NO_PAIR),
)


async def rebuild(connection: Connection) -> int:
    """Make all rollups anew, and return of how many calls. The caller holds the intake's lock."""
    settled = await settled_until(connection)
    for family in FAMILIES:
        await connection.execute(f"DELETE FROM {family.hourly}")
        await connection.execute(f"DELETE FROM {family.daily}")
    await connection.execute("SET LOCAL work_mem = '256MB'")
    await connection.execute("SET LOCAL enable_hashagg = off")
    await connection.execute(_OF_CUSTOMERS)
    await connection.execute("SET LOCAL enable_hashagg = on")
    await _rebuild_sellers(connection)
    if settled is not None:
        await settle_days(connection, _FIRST, settled)
    row = await (await connection.execute("SELECT coalesce(sum(calls), 0) AS calls FROM usage_hourly")).fetchone()
    assert row is not None
    return int(row["calls"])


async def _rebuild_sellers(connection: Connection) -> None:
    whole = await operator(connection)
    found = await (await connection.execute("SELECT zone FROM organisations WHERE id = %s", (whole,))).fetchone()
    zone = found["zone"] if found else "UTC"
    await connection.execute(_SOLD_TABLE)
    after = UUID(int=0)
    while (day := await _next_day(connection, after)) is not None:
        first, after = id_bound(day), id_bound(day + _DAY)
        await connection.execute(_OF_SELLERS, {"zone": zone, "first": first, "after": after})
    await connection.execute("ANALYZE market_sold")
    for statement in _FROM_NARROW_TO_WIDE:
        await connection.execute(statement, {"operator": whole})


async def _next_day(connection: Connection, after: UUID) -> datetime | None:
    """Return the day (UTC) of the first call with an id from ``after`` on; None when there is none."""
    row = await (
        await connection.execute("SELECT id FROM usage WHERE id >= %s ORDER BY id LIMIT 1", (after,))
    ).fetchone()
    if row is None:
        return None
    at = datetime.fromtimestamp((row["id"].int >> 80) / 1000, UTC)
    return datetime.combine(at.date(), time(), UTC)

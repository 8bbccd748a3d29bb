"""Calls for the money benchmark, made in PostgreSQL: the rows and rollups that ingest would have made of them."""

from __future__ import annotations

import time
from datetime import datetime

import psycopg

from bench.money_market import PAIRS, Database
from bench.processes import say
from haat.infra.postgres import PLATFORM_SCOPE
from haat.infra.postgres import Database as Pool
from haat.kernel.clock import SystemClock
from haat.usage import intake, rebuild, rollups

PIECE = 1_000_000


def fill(made: Database, events: int, start: datetime, end: datetime) -> None:
    """Make calls between two instants, in order of time as they come in, a batch of each `PIECE` of them.

    The n-th of N subscriptions has its share of calls by the cube of a random number.
    """
    with psycopg.connect(made.dsn("owner"), autocommit=True) as connection:
        connection.execute("SET work_mem = '64MB'")
        connection.execute(
            """
            SELECT usage_partition(month::date)
            FROM generate_series(date_trunc('month', %s::timestamptz, 'UTC'), %s, interval '1 month') AS month
            """,
            (start, end),
        )
        for first in range(0, events, PIECE):
            last = min(first + PIECE, events)
            since, until = (start + (end - start) * place / events for place in (first, last))
            values = {"start": since, "end": until, "number": last - first, "batch": first // PIECE + 1}
            connection.execute(_CALLS, {**values, "pairs": list(PAIRS)})
            say(f"  {last:,} calls are there")
        connection.execute(
            "INSERT INTO usage_batches SELECT n, now(), 0, 0, 0 FROM generate_series(1, %s) AS n",
            (-(-events // PIECE),),
        )


async def roll_up(service: Pool) -> float:
    """Make all rollups of the calls and settle the days that are over; return how many seconds it took."""
    began = time.perf_counter()
    async with service.transaction(PLATFORM_SCOPE) as connection:
        await intake.lock(connection)
        await rebuild.rebuild(connection)
        await rollups.settle(connection, SystemClock().now())
    took = time.perf_counter() - began
    say(f"  rolled up in {took:.0f} s")
    return took


_CALLS = """
    INSERT INTO usage (id, at, batch, org_id, application_id, credential_id, subscription_id, service_id, provider_org,
        status, admission_us, queue_us, connect_us, first_byte_us, total_us, bytes_in, bytes_out, plan, outcome,
        requests, characters, units_source, provider, service_slug, version, method, path_template, gateway,
        language_pair)
    WITH bought AS MATERIALIZED (
        SELECT row_number() OVER (ORDER BY organisations.name) - 1 AS n, bought.org_id, bought.application_id,
               bought.id, bought.service_id, services.org_id AS provider_org, services.provider_slug, services.slug
        FROM subscriptions AS bought JOIN services ON services.id = bought.service_id
        JOIN organisations ON organisations.id = bought.org_id
    ), span AS MATERIALIZED (
        SELECT (extract(epoch FROM %(start)s::timestamptz) * 1000)::bigint AS first,
               extract(epoch FROM %(end)s::timestamptz - %(start)s::timestamptz)::float8 * 1000 AS length
    ), drawn AS MATERIALIZED (
        SELECT first + floor(random() * length)::bigint AS ms,
               floor((SELECT count(*) FROM bought) * power(random(), 3))::int AS n, random() AS fate,
               exp(10.8 + 0.6 * sqrt(-2 * ln(1 - random())) * cos(2 * pi() * random()))::int AS us,
               (%(pairs)s::text[])[1 + floor(cardinality(%(pairs)s::text[]) * power(random(), 2))::int] AS pair,
               gen_random_uuid()::text AS tail
        FROM span, generate_series(1, %(number)s::int)
    )
    SELECT (lpad(to_hex(ms), 12, '0') || '7' || substr(tail, 16, 3) || substr(tail, 20, 4) || substr(tail, 25))::uuid,
           to_timestamp(ms / 1000.0), %(batch)s, org_id, application_id, application_id, id, service_id, provider_org,
           CASE WHEN fate < 0.94 THEN 200 WHEN fate < 0.98 THEN 429 ELSE 502 END, 40, 0, 0, us, us, 1000, 1000, 'basic',
           CASE WHEN fate < 0.93 THEN 'completed' WHEN fate < 0.94 THEN 'client_left'
                WHEN fate < 0.98 THEN 'refused' ELSE 'provider_failed' END,
           CASE WHEN fate < 0.94 THEN 1 END, CASE WHEN fate < 0.94 THEN 20 + (fate * 2000)::int END,
           'counted', provider_slug, slug, '1', 'POST', '/invoke', 'gateway-0', pair
    FROM drawn JOIN bought USING (n) ORDER BY ms
"""

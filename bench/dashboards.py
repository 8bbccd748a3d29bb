"""How long dashboards take over millions of calls: every query of a page, from rollups.

The calls are made in PostgreSQL, over the thirty days that have gone; the rollups are made of them by the command
that makes them anew (`haat usage rebuild`), and finished days are settled. Then each view is asked for each window,
for the largest customer and provider and for others, through the application's own role, row-level security and all.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import psutil
import psycopg

from bench import money_market
from bench.money_market import PAIRS, SUBSCRIPTIONS, Bought
from bench.processes import say
from haat.infra import postgres
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.clock import SystemClock
from haat.kernel.ids import new_id
from haat.kernel.permissions import PLATFORM, Actor, Role
from haat.usage import intake, rollups
from haat.usage.analytics import Analytics, Dashboard
from haat.usage.model import Pseudonyms

WINDOWS = ("24h", "7d", "30d", "month")
PIECE = 1_000_000
DAYS = 30


@dataclass(frozen=True, slots=True)
class Asked:
    """How long one view took, in milliseconds, over all windows and askers. ``cpu_ms`` is the mean of what a page
    costs PostgreSQL and us together, which others on the machine disturb less."""

    view: str
    asked: int
    p50_ms: float
    p95_ms: float
    most_ms: float
    cpu_ms: float


@dataclass(frozen=True, slots=True)
class Seen:
    """``rebuild_seconds`` is what it took to make all rollups of the calls."""

    events: int
    rebuild_seconds: float
    hourly_rows: int
    daily_rows: int
    market_rows: int
    views: tuple[Asked, ...]


def dashboards(work: Path, events: int, times: int) -> Seen:
    """Measure in a fresh database."""
    with money_market.database(work / "dashboards") as made:
        bought = money_market.subscriptions(made)
        _fill(made.dsn("owner"), events)
        return asyncio.run(_measure(made, bought, events, times))


def _fill(dsn: str, events: int) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET work_mem = '64MB'")
        for months in (0, 1, 2):
            connection.execute("SELECT usage_partition((now() - make_interval(months => %s))::date)", (months,))
        for start in range(0, events, PIECE):
            connection.execute(_CALLS % {"number": min(PIECE, events - start), "batch": start // PIECE + 1})
            say(f"  {start + min(PIECE, events - start):,} calls are there")
        connection.execute(
            "INSERT INTO usage_batches SELECT n, now(), 0, 0, 0 FROM generate_series(1, %s) AS n",
            (-(-events // PIECE),),
        )


async def _measure(made: money_market.Database, bought: Sequence[Bought], events: int, times: int) -> Seen:
    async with (
        postgres.Database(made.dsn("service"), max_size=1) as service,
        postgres.Database(made.dsn("app"), max_size=1) as app,
    ):
        began = time.perf_counter()
        async with service.transaction(PLATFORM_SCOPE) as connection:
            await intake.lock(connection)
            await connection.execute("SET LOCAL work_mem = '256MB'")
            await rollups.rebuild(connection)
            await rollups.settle(connection, SystemClock().now())
        took = time.perf_counter() - began
        say(f"  rolled up in {took:.0f} s")
        with psycopg.connect(made.dsn("owner"), autocommit=True) as owner:
            owner.execute("VACUUM ANALYZE usage_hourly, usage_daily, market_hourly, market_daily")
            sizes = owner.execute(
                """SELECT (SELECT count(*) FROM usage_hourly), (SELECT count(*) FROM usage_daily),
                   (SELECT count(*) FROM market_hourly) + (SELECT count(*) FROM market_daily)"""
            ).fetchone()
        assert sizes is not None
        analytics = Analytics(app, SystemClock(), Pseudonyms(bytes(32)), "Asia/Kolkata")
        chance = random.Random(5)  # noqa: S311 - it chooses who asks
        consumers = [bought[0], *chance.choices(bought, k=times)]
        providers = chance.choices(bought, k=times)
        async with app.transaction(PLATFORM_SCOPE) as connection:
            backend = psutil.Process(connection.info.backend_pid)
        whose: tuple[tuple[str, list[UUID | None], Role, Callable[..., Awaitable[Dashboard]]], ...] = (
            ("consumer", [one.org for one in consumers], Role.API_CONSUMER, analytics.consumer),
            ("provider", [one.provider_org for one in providers], Role.PARTNER_ADMIN, analytics.provider),
            ("operator", [None] * times, Role.PLATFORM_ADMIN, analytics.operator),
        )
        views = [await _asked(*one, analytics, backend) for one in whose]
        return Seen(events, took, sizes[0], sizes[1], sizes[2], tuple(views))


async def _asked(
    view: str,
    orgs: Sequence[UUID | None],
    role: Role,
    ask: Callable[..., Awaitable[Dashboard]],
    analytics: Analytics,
    backend: psutil.Process,
) -> Asked:
    took: list[float] = []
    before = _cpu(backend)
    for org in orgs:
        actor = PLATFORM if org is None else Actor(new_id(), org, role)
        for name in WINDOWS:
            window = await analytics.window(actor, None if name == "month" else name)
            began = time.perf_counter()
            await ask(actor, window)
            took.append((time.perf_counter() - began) * 1000)
    spent = (_cpu(backend) - before) * 1000 / len(took)
    took.sort()
    return Asked(view, len(took), took[len(took) // 2], took[int(len(took) * 0.95)], took[-1], spent)


def _cpu(backend: psutil.Process) -> float:
    return sum(times.user + times.system for times in (backend.cpu_times(), psutil.Process().cpu_times()))


_CALLS = f"""
    INSERT INTO usage (id, at, batch, org_id, application_id, credential_id, subscription_id, service_id, provider_org,
        status, admission_us, queue_us, connect_us, first_byte_us, total_us, bytes_in, bytes_out, plan, outcome,
        requests, characters, units_source, provider, service_slug, version, method, path_template, gateway,
        language_pair)
    WITH bought AS MATERIALIZED (
        SELECT row_number() OVER (ORDER BY organisations.name) - 1 AS n, bought.org_id, bought.application_id,
               bought.id, bought.service_id, services.org_id AS provider_org, services.provider_slug, services.slug
        FROM subscriptions AS bought JOIN services ON services.id = bought.service_id
        JOIN organisations ON organisations.id = bought.org_id
    ), drawn AS MATERIALIZED (
        SELECT (extract(epoch FROM now()) * 1000)::bigint - 1000 - floor(random() * {DAYS} * 86400000)::bigint AS ms,
               floor({SUBSCRIPTIONS} * power(random(), 3))::int AS n, random() AS fate,
               exp(10.8 + 0.6 * sqrt(-2 * ln(1 - random())) * cos(2 * pi() * random()))::int AS us,
               (ARRAY{list(PAIRS)!r}::text[])[1 + floor({len(PAIRS)} * power(random(), 2))::int] AS pair,
               gen_random_uuid()::text AS tail
        FROM generate_series(1, %(number)s)
    )
    SELECT (lpad(to_hex(ms), 12, '0') || '7' || substr(tail, 16, 3) || substr(tail, 20, 4) || substr(tail, 25))::uuid,
           to_timestamp(ms / 1000.0), %(batch)s, org_id, application_id, application_id, id, service_id, provider_org,
           CASE WHEN fate < 0.94 THEN 200 WHEN fate < 0.98 THEN 429 ELSE 502 END, 40, 0, 0, us, us, 1000, 1000, 'basic',
           CASE WHEN fate < 0.93 THEN 'completed' WHEN fate < 0.94 THEN 'client_left'
                WHEN fate < 0.98 THEN 'refused' ELSE 'provider_failed' END,
           CASE WHEN fate < 0.94 THEN 1 END, CASE WHEN fate < 0.94 THEN 20 + (fate * 2000)::int END,
           'counted', provider_slug, slug, '1', 'POST', '/invoke', 'gateway-0', pair
    FROM drawn JOIN bought USING (n)
"""

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
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import psutil
import psycopg

from bench import money_calls, money_market
from bench.money_market import Bought
from haat.infra import postgres
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.clock import SystemClock
from haat.kernel.ids import new_id
from haat.kernel.permissions import PLATFORM, Actor, Role
from haat.usage.analytics import Analytics, Dashboard
from haat.usage.model import Pseudonyms

WINDOWS = ("24h", "7d", "30d", "month")
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
        now = SystemClock().now()
        money_calls.fill(made, events, now - timedelta(days=DAYS), now - timedelta(seconds=1))
        return asyncio.run(_measure(made, bought, events, times))


async def _measure(made: money_market.Database, bought: Sequence[Bought], events: int, times: int) -> Seen:
    async with (
        postgres.Database(made.dsn("service"), max_size=1) as service,
        postgres.Database(made.dsn("app"), max_size=1) as app,
    ):
        took = await money_calls.roll_up(service)
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

"""Quotas come back in the plan's unit, for the subscription's own month and day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from gateway.rig import ORG
from gateway.test_process import SERVICE, ZONE, usage_event
from haat.gateway.clock import GatewayClock
from haat.gateway.limits import recovery
from haat.gateway.limits.registry import MICRO, SECOND, Limits, PlanLimits
from haat.gateway.market.snapshot import Directory, Snapshot, Subscription
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.ids import id_at
from haat.usage import event as usage
from haat.usage import intake
from haat.usage.event import Checkpoint, Outcome, UsageEvent
from haat.usage.journal import JournalWriter, Kind


def event(at: datetime, outcome: Outcome, app: str, characters: str) -> UsageEvent:
    identifier = str(id_at(int(at.timestamp() * 1000)))
    made = usage_event(identifier[:-12] + uuid4().hex[:12], at, outcome, app)
    made.units = {"requests": "1", "characters": characters}
    return made


@pytest.mark.parametrize(
    ("plan", "month", "day"),
    [
        (PlanLimits(quota_per_month=1000, quota_unit="characters", quota_reset="anniversary"), "13.75", None),
        (
            PlanLimits(quota_per_month=1000, quota_per_day=90, quota_unit="characters", quota_reset="anniversary"),
            "13.75",
            "6.25",
        ),
        (PlanLimits(quota_per_month=1000, quota_reset="anniversary"), "3", None),
    ],
    ids=["characters", "characters by the day", "requests"],
)
async def test_a_quota_comes_back_for_the_subscriptions_own_month(
    database: Any, tmp_path: Path, plan: PlanLimits, month: str, day: str | None
) -> None:
    now_us = GatewayClock().now_us()
    now = datetime.fromtimestamp(now_us / SECOND, UTC)
    app = str(uuid4())
    async with database.app.transaction(PLATFORM_SCOPE) as connection:
        await connection.execute(
            "INSERT INTO organisations (id, name, kind, zone, created_at) VALUES (%s, 'c', 'consumer', %s, %s)",
            (ORG, ZONE, now),
        )
    shipped = [
        event(now - timedelta(days=5), Outcome.COMPLETED, app, "100"),  # in the month before
        event(now - timedelta(days=2), Outcome.COMPLETED, app, "7.5"),
        event(now, Outcome.UNCONFIRMED, app, "2"),
        event(now, Outcome.PROVIDER_FAILED, app, "50"),
    ]
    async with database.service.transaction(PLATFORM_SCOPE) as connection:
        await intake.take(connection, [intake.Record(one, "gateway-0", 1, 0) for one in shipped], now, any_time=True)
    writer = JournalWriter(tmp_path, "gateway-0", 1 << 20, 1000)
    opened = event(now, Outcome.INTERRUPTED, app, "0")
    writer.append(Kind.OPEN, usage.encode(opened))
    for characters in ("1", "4.25"):
        writer.append(Kind.CHECKPOINT, usage.encode(Checkpoint(opened.id, {"characters": characters}, 9)))
    writer.close()

    started_at = int((now - timedelta(days=3)).timestamp()) * SECOND
    subscription = Subscription("s", ORG, app, SERVICE, "own", plan, ZONE, started_at)
    limits = Limits()
    directory = Directory(Snapshot(subscriptions=[subscription]))
    await recovery.from_store(database.service.dsn, tmp_path, directory, limits, now_us, ZONE)
    allowance = limits.of(app, SERVICE, plan, ZONE, now_us, started_at)
    assert allowance._month_quota - allowance._cells[allowance._month] == 1000 * MICRO - _micro(month)
    if day is not None:
        assert allowance._cells[allowance._day] == _micro(day)


def _micro(text: str) -> int:
    whole, _, fraction = text.partition(".")
    return int(whole) * MICRO + int(fraction.ljust(6, "0"))

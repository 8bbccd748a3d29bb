"""Ten weeks of a market, minute by minute wrong in every way: what is measured is what a naive recount finds."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from bazaar import Service, Subscription
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.clock import month_period
from haat.kernel.permissions import PLATFORM
from haat.sla import counts
from haat.sla.evidence import Predicate
from haat.sla.faults import Verdict, verdict
from haat.sla.maintenance import Span
from haat.sla.model import Counts
from haat.usage.event import UsageEvent

from .rig import Level

pytestmark = pytest.mark.usefixtures("credit_notes")
WEEK, HOUR = timedelta(weeks=1), timedelta(hours=1)
ODD: tuple[dict[str, Any], ...] = (
    {},
    {},
    {},
    {"mode": "test"},
    {"mode": "shadow"},
    {"cache": "hit", "cached_share": "1"},
    {"cache": "partial", "cached_share": "0.5"},
)
FAILURES = (
    (503, ""),
    (500, ""),
    (404, ""),
    (429, ""),
    (200, "PROVIDER_FAILED"),
    (504, "PROVIDER_TIMEOUT"),
    (200, "PLUGIN_FAILED"),
)


def at_of(event: UsageEvent) -> datetime:
    return datetime.fromtimestamp(event.at / 1000, UTC)


def recounted(events: list[UsageEvent], service: Service, span: Span, windows: list[Span]) -> Counts:
    """Count calls the slow way: one by one, by the table."""
    found: Counter[Verdict] = Counter()
    for event in events:
        at = at_of(event)
        if (event.executed_by or event.service) != str(service.id) or not span.start <= at < span.end:
            continue
        if any(window.start <= at < window.end for window in windows):
            continue
        found[
            verdict(
                mode=event.mode,
                cache=event.cache,
                outcome=event.outcome.value,
                status=event.status,
                code=event.error_code,
            )
        ] += 1
    down = found[Verdict.DOWN]
    return Counts(found[Verdict.ANSWERED], found[Verdict.FAILED] + down, down)


async def week(
    level: Level, chance: random.Random, subscriptions: list[Subscription], other: Service
) -> list[UsageEvent]:
    """Return a week of calls, some of them odd, some executed by another service."""
    found: list[UsageEvent] = []
    for subscription in subscriptions:
        for _ in range(6):
            status, code = chance.choice(FAILURES)
            made = level.calls(
                subscription,
                chance.randrange(10, 40),
                failed=chance.choice([0, 0, 0, 3, 9]),
                status=status,
                code=code,
                over=timedelta(hours=chance.randrange(1, 160)),
                ms=chance.uniform(5, 900),
                **chance.choice(ODD),
            )
            if chance.random() < 0.1:
                made = [replace(event, executed_by=str(other.id), provider_org=str(other.org)) for event in made]
            found += made
    return found


@pytest.mark.parametrize("seed", [1, 2])
async def test_what_is_measured_over_weeks_is_what_a_recount_finds(level: Level, seed: int) -> None:
    chance = random.Random(seed)
    start = month_period(2026, 10, "Asia/Kolkata").start
    level.to(start - 5 * WEEK)
    services = [await level.bazaar.service(f"s{number}", price="0.01", unit="requests") for number in range(2)]
    tiers = [{"below": "99.5", "credit": "10"}, {"below": "97", "credit": "30"}]
    for service in services:
        await level.promise(service, availability="99.5", p95_ms=700, latency_credit="2", tiers=tiers)
    customers = [await level.bazaar.organisation() for _ in range(3)]
    subscriptions = [await level.bazaar.subscribe(org, service) for org in customers for service in services]
    level.to(start)
    events: list[UsageEvent] = []
    windows: list[Span] = []
    late: list[UsageEvent] = []
    for _ in range(10):
        opens = level.clock.now().replace(minute=15) + timedelta(hours=chance.randrange(50, 150))
        window = await level.sla.announce(PLATFORM, services[0].id, opens, opens + HOUR)
        windows.append(window.span)
        level.clock.advance(weeks=1)
        made = await week(level, chance, subscriptions, services[1])
        chance.shuffle(made)
        cut = len(made) // 5
        await level.bazaar.take([*made[cut:], *late, *chance.sample(made[cut:], 10)])  # some late, some twice
        events += made
        late = made[:cut]
        await asyncio.gather(level.watch.review(), level.watch.review())
    await level.bazaar.take(late)
    await level.watch.gather()
    async with level.db.transaction(PLATFORM_SCOPE) as connection:
        for service in services:
            own = windows if service is services[0] else []
            for label in (10, 11):
                month = month_period(2026, label, "Asia/Kolkata")
                span = Span(month.start, month.end)
                assert await counts.counts_of(connection, service.id, *span) == recounted(events, service, span, own)
    for label in ("2026-10", "2026-11"):
        await level.invoices.issue_all(PLATFORM, label)
        closed = await level.closing.close(PLATFORM, label)
        assert len(closed.judged) == 2 and closed.failed == []
        for row in closed.judged:
            if row["verdict"] != "breached":
                continue
            async with level.db.transaction(PLATFORM_SCOPE) as connection:
                predicate = Predicate.of(row["evidence"]["predicate"])
                broken = await counts.broken_calls(connection, predicate, None, None, 100_000)
                affected = await connection.execute(
                    "SELECT org_id, calls FROM sla_affected WHERE month_id = %s", (row["id"],)
                )
                told = {one["org_id"]: one["calls"] async for one in affected}
            assert Counter(call["org_id"] for call in broken) == told
            if "availability" in row["missed"]:
                by_fault = [call for call in broken if call["outcome"] == "provider_failed"]
                assert len(by_fault) == row["evidence"]["broken"] == row["evidence"]["counts"]["failed"]
            assert {one.org_id for one in closed.paid if one.month_id == row["id"]} <= set(told)
        assert (await level.closing.close(PLATFORM, label)).paid == []
    rows = await level.bazaar.rows(
        "SELECT invoice_line_id, count(*) AS times FROM port.credit_note_lines GROUP BY 1 HAVING count(*) > 1"
    )
    assert rows == [], "no line is credited twice"

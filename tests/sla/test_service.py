"""Promises and maintenance: who may, from when, and what everybody sees."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from bazaar import consumer, partner
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.clock import month_period
from haat.kernel.errors import Conflict, NotFound, PermissionDenied, ValidationFailed
from haat.kernel.permissions import PLATFORM
from haat.sla.model import ObjectiveDraft

from .rig import Level

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
DECEMBER = month_period(2026, 12, "Asia/Kolkata")


# --- objectives ---------------------------------------------------------------------------------------


async def test_the_first_promise_holds_from_the_next_quarter_hour_and_later_ones_from_the_next_month(
    level: Level,
) -> None:
    service = await level.bazaar.service()
    level.clock.advance(minutes=4)
    first = await level.promise(service, availability="99")
    second = await level.promise(service, availability="98")
    assert first.effective_from == datetime(2026, 11, 21, 6, 45, tzinfo=UTC)
    assert (second.version, second.effective_from) == (2, DECEMBER.start)
    with pytest.raises(ValidationFailed):
        await level.promise(service, availability="97")  # December is taken
    third = await level.promise(service, availability="97", effective_from=DECEMBER.end)
    assert third.version == 3
    report = await level.sla.report(None, service.id)
    assert (report.objective, report.coming) == (None, first)
    level.clock.advance(minutes=11)
    report = await level.sla.report(None, service.id)
    assert report.objective == first and report.coming == second


async def test_a_later_promise_begins_with_a_month_and_never_in_the_past(level: Level) -> None:
    service = await level.bazaar.service()
    await level.promise(service)
    for wrong in (DECEMBER.start + DAY, level.clock.now() - DAY, month_period(2026, 11, "Asia/Kolkata").start):
        with pytest.raises(ValidationFailed):
            await level.promise(service, effective_from=wrong)


async def test_only_its_provider_and_the_operator_promise_for_a_listing(level: Level) -> None:
    service, other = await level.bazaar.service(), await level.bazaar.service("say", "akshara")
    made = await level.sla.promise(partner(service.org), service.id, ObjectiveDraft())
    assert made.org_id == service.org
    with pytest.raises(NotFound):
        await level.sla.promise(partner(other.org), service.id, ObjectiveDraft())
    with pytest.raises(PermissionDenied):
        await level.sla.promise(consumer(service.org), service.id, ObjectiveDraft())


async def test_two_promises_at_once_are_two_versions_or_one_is_refused(level: Level) -> None:
    service = await level.bazaar.service()
    done = await asyncio.gather(*(level.promise(service) for _ in range(3)), return_exceptions=True)
    made = [one for one in done if not isinstance(one, BaseException)]
    assert [one.version for one in sorted(made, key=lambda one: one.version)] == [1, 2]
    assert [type(one) for one in done if isinstance(one, BaseException)] == [ValidationFailed]


# --- what everybody sees ------------------------------------------------------------------------------


async def test_a_report_has_the_budget_of_its_window_and_nothing_from_before_the_promise(level: Level) -> None:
    service = await level.bazaar.service()
    one = await level.bazaar.subscribe(await level.bazaar.organisation(), service)
    await level.use(one, 200, failed=200, over=HOUR)
    level.clock.advance(minutes=1)
    await level.promise(service, availability="99", p95_ms=500)
    level.clock.advance(days=1)
    await level.use(one, 1000, failed=5, over=HOUR, ms=80)
    await level.watch.gather()
    report = await level.sla.report(None, service.id)
    assert report.budget is not None
    assert (report.window.availability, report.window.source) == (Decimal("99.5"), "traffic")
    assert (report.budget.allowed, report.budget.used, report.budget.left, report.budget.spent) == (
        Decimal(10),
        5,
        Decimal(5),
        Decimal("50.0"),
    )
    assert report.month.counts.failed == 205, "the month has all of it"
    assert report.latency_ms["p95"] == pytest.approx(80, rel=0.03)
    standing = await level.sla.standing(None, service.id)
    assert (standing.objective, standing.days) == (Decimal("99.000"), 30)


async def test_what_was_measured_falls_out_of_a_rolling_window_after_its_days(level: Level) -> None:
    service = await level.bazaar.service()
    one = await level.bazaar.subscribe(await level.bazaar.organisation(), service)
    await level.promise(service, availability="99", window_days=7)
    for day in range(21):
        level.clock.advance(days=1)
        await level.use(one, 100, failed=50 if day < 7 else 0, over=12 * HOUR)
    await level.watch.gather()
    report = await level.sla.report(None, service.id)
    assert (report.window.counts.calls, report.window.availability) == (700, Decimal(100))


async def test_a_listing_that_is_hidden_has_no_level_for_strangers(level: Level) -> None:
    service = await level.bazaar.service()
    await level.bazaar.run("UPDATE services SET visibility = 'invited' WHERE id = %s", service.id)
    for nobody in (None, consumer(await level.bazaar.organisation())):
        for asked in (
            level.sla.report(nobody, service.id),
            level.sla.standing(nobody, service.id),
            level.sla.windows(nobody, service.id),
            level.sla.objectives(nobody, service.id),
        ):
            with pytest.raises(NotFound):
                await asked
    assert (await level.sla.report(partner(service.org), service.id)).service_id == service.id


async def test_probes_are_their_providers_and_the_operators(level: Level) -> None:
    service, other = await level.bazaar.service(), await level.bazaar.service("say", "akshara")
    await level.probed(service, good=True, times=3)
    assert len(await level.sla.probes(partner(service.org), service.id)) == 3
    assert len(await level.sla.probes(PLATFORM, service.id, limit=2)) == 2
    with pytest.raises(NotFound):
        await level.sla.probes(partner(other.org), service.id)
    with pytest.raises(PermissionDenied):
        await level.sla.probes(consumer(other.org), service.id)


# --- maintenance --------------------------------------------------------------------------------------


async def test_a_window_is_announced_told_and_cancelled(level: Level) -> None:
    service = await level.bazaar.service()
    start = level.clock.now() + 50 * HOUR
    window = await level.sla.announce(partner(service.org), service.id, start, start + HOUR, "a larger machine")
    assert (await level.sla.standing(None, service.id)).maintenance == window
    cancelled = await level.sla.cancel(partner(service.org), window.id)
    assert cancelled.cancelled_at == level.clock.now()
    assert (await level.sla.standing(None, service.id)).maintenance is None
    with pytest.raises(Conflict):
        await level.sla.cancel(PLATFORM, window.id)
    rows = await level.bazaar.rows("SELECT type FROM events WHERE stream = %s ORDER BY seq", f"service/{service.id}")
    assert [row["type"] for row in rows] == ["service.maintenance_announced", "service.maintenance_cancelled"]


async def test_a_window_that_has_begun_ends_at_the_next_quarter_hour(level: Level) -> None:
    service = await level.bazaar.service()
    start = level.clock.now() + 48 * HOUR
    window = await level.sla.announce(PLATFORM, service.id, start, start + 3 * HOUR)
    level.to(start + timedelta(minutes=50))
    ended = await level.sla.cancel(PLATFORM, window.id)
    assert (ended.ends_at, ended.cancelled_at) == (start + HOUR, None)
    level.to(start + HOUR)
    with pytest.raises(Conflict):
        await level.sla.cancel(PLATFORM, window.id)


async def test_maintenance_of_another_provider_is_not_there(level: Level) -> None:
    service, other = await level.bazaar.service(), await level.bazaar.service("say", "akshara")
    start = level.clock.now() + 50 * HOUR
    window = await level.sla.announce(PLATFORM, service.id, start, start + HOUR)
    for attempt in (
        level.sla.announce(partner(other.org), service.id, start + DAY, start + DAY + HOUR),
        level.sla.cancel(partner(other.org), window.id),
    ):
        with pytest.raises(NotFound):
            await attempt
    with pytest.raises(PermissionDenied):
        await level.sla.announce(consumer(service.org), service.id, start + DAY, start + DAY + HOUR)


async def test_two_announcements_at_once_never_overlap(level: Level) -> None:
    service = await level.bazaar.service()
    start = level.clock.now() + 50 * HOUR
    done = await asyncio.gather(
        *(level.sla.announce(PLATFORM, service.id, start, start + HOUR) for _ in range(3)), return_exceptions=True
    )
    assert sum(isinstance(one, Conflict) for one in done) == 2
    async with level.db.transaction(PLATFORM_SCOPE) as connection:
        rows = await (await connection.execute("SELECT FROM sla_maintenance")).fetchall()
    assert len(rows) == 1

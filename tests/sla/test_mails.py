"""Mails of service levels: the partner and the operator of what goes on, subscribers of maintenance, once each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from argon2 import PasswordHasher

from haat.app import Platform, build_platform
from haat.catalog.model import Listing
from haat.infra.jobs import RunningJob
from haat.infra.keyring import Keyring
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.clock import SetClock
from haat.kernel.permissions import PLATFORM
from haat.settings import Settings
from haat.sla import jobs
from haat.sla.access import Leveled
from market import Market
from office import PostBox

HOUR = timedelta(hours=1)


@pytest.fixture
async def platform(database: Any, clock: SetClock, keyring: Keyring, tmp_path: Path) -> Platform:
    settings = Settings(data_dir=tmp_path, public_url="http://portal.example.in", sla_probe_minutes=0)
    made = build_platform(settings, database.app, database.service, keyring, clock, PostBox())
    made.identity._hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    return made


@pytest.fixture
async def market(platform: Platform) -> AsyncIterator[Market]:
    yield Market(
        platform.db,
        platform.clock,  # type: ignore[arg-type]  # it is a set one
        platform.keyring,
        platform.identity,
        platform.partners,
        platform.catalog,
        platform.discovery,
        platform.subscriptions,
    )


@pytest.fixture
async def listing(market: Market) -> Listing:
    return await market.listing(await market.provider("bhasha"))


def sent(platform: Platform) -> list[dict[str, Any]]:
    box = platform.mail
    assert isinstance(box, PostBox)
    return box.sent


async def tell(platform: Platform, listing: Listing, type: str, **data: Any) -> None:
    """Write an event of a level and run its handlers, as the jobs do, twice."""
    level = Leveled(platform.db, platform.clock, platform.settings)
    async with platform.db.transaction(PLATFORM_SCOPE) as connection:
        await level._record(connection, {"id": listing.id, "org_id": listing.org_id}, type, data)
        rows = await connection.execute(
            "SELECT max(version) AS version FROM events WHERE stream = %s", (f"sla/{listing.id}",)
        )
        assert await rows.fetchone()
    from haat.infra import events

    async with platform.db.transaction(PLATFORM_SCOPE) as connection:
        event = (await events.read_stream(connection, f"sla/{listing.id}"))[-1]
    for _ in range(2):
        for handler in jobs.HANDLERS:
            if event.type in handler.types:
                await handler.run(platform, event)


RATES = {"short_minutes": 5, "long_minutes": 60, "short_rate": "99.00", "long_rate": "20.00", "factor": "14.40"}


@pytest.mark.parametrize(
    ("type", "data", "words"),
    [
        ("sla.alert_opened", {"signal": "availability", "pace": "fast", **RATES}, "20.00 times as fast"),
        ("sla.alert_closed", {"signal": "p95", "pace": "slow", **RATES}, "p95 latency of Anuvad is within"),
        (
            "sla.suspended",
            {"uptime": "80.000", "source": "traffic", "hold_minutes": 30},
            "80.000 % of the last 24 hours",
        ),
        ("sla.restored", {"probes": 20}, "its last 20 probes"),
        (
            "sla.breached",
            {
                "period": "2026-11",
                "availability": "98.5",
                "missed": ["availability", "p99"],
                "credit": "25",
                "affected": 3,
            },
            "Missed: availability, p99 latency",
        ),
    ],
)
async def test_the_partner_and_the_operators_members_are_told_what_goes_on(
    platform: Platform, market: Market, listing: Listing, type: str, data: dict[str, Any], words: str
) -> None:
    await market.operator()
    await tell(platform, listing, type, **data)
    mails = sent(platform)
    assert {mail["to"] for mail in mails} == {"office@bhasha.example.in", "user2@example.in"}
    assert all(words in " ".join(mail["text"].split()) for mail in mails)
    assert "http://portal.example.in/services/bhasha/anuvad/level" in mails[0]["text"]
    assert len({mail["message_id"] for mail in mails}) == 2 and len(mails) == 4, "the same two when a job runs again"


async def run_jobs(platform: Platform) -> None:
    """Run the mails that were deferred, as a worker does."""
    async with platform.db.transaction(PLATFORM_SCOPE) as connection:
        found = await platform.jobs.recent(connection, task=jobs.MAIL_SUBSCRIBER.name)
    for record in found:
        await jobs.mail_subscriber(platform, RunningJob(record.id, record.task, record.args, 1, platform.db))


async def dispatch(platform: Platform, listing: Listing) -> None:
    from haat.infra import events

    async with platform.db.transaction(PLATFORM_SCOPE) as connection:
        told = await events.read_stream(connection, f"service/{listing.id}")
    for event in told:
        if event.type in jobs.HANDLERS[1].types:
            for _ in range(2):
                await jobs.tell_subscribers(platform, event)


async def test_every_subscriber_is_told_of_maintenance_in_its_own_zone_and_once(
    platform: Platform, market: Market, listing: Listing
) -> None:
    for zone in ("Asia/Kolkata", "Europe/Berlin"):
        actor = await market.consumer()
        assert actor.org_id
        async with platform.db.transaction(PLATFORM_SCOPE) as connection:
            await connection.execute("UPDATE organisations SET zone = %s WHERE id = %s", (zone, actor.org_id))
        application = await platform.identity.create_application(actor, "Shop")
        await platform.subscriptions.subscribe(actor, application.id, listing.id, "basic")
    await market.consumer()  # who isn't subscribed
    start = platform.clock.now() + 48 * HOUR
    window = await platform.sla.announce(PLATFORM, listing.id, start, start + HOUR, "A larger machine.")
    await dispatch(platform, listing)
    await run_jobs(platform)
    mails = {mail["to"]: mail for mail in sent(platform)}
    assert len(mails) == len(sent(platform)) == 2
    texts = sorted(mail["text"] for mail in mails.values())
    assert "from 23.11.2026 07:30 to 23.11.2026 08:30 (Europe/Berlin)" in texts[0]
    assert "from 23.11.2026 12:00 to 23.11.2026 13:00 (Asia/Kolkata)" in texts[1]
    assert all("A larger machine." in text for text in texts)
    await platform.sla.cancel(PLATFORM, window.id)
    sent(platform).clear()
    await dispatch(platform, listing)
    await run_jobs(platform)
    assert sum("does not take place" in mail["text"] for mail in sent(platform)) == 2


async def test_the_hourly_job_judges_the_month_that_is_over(platform: Platform, listing: Listing) -> None:
    from haat.sla.model import ObjectiveDraft

    await platform.sla.promise(PLATFORM, listing.id, ObjectiveDraft())
    platform.clock.advance(days=9, hours=13)  # type: ignore[attr-defined]  # it is a set one
    async with platform.db.transaction(PLATFORM_SCOPE) as connection:
        identifier = await platform.jobs.defer(connection, jobs.CLOSE.name, {})
    job = RunningJob(identifier, jobs.CLOSE.name, {}, 1, platform.db)
    for _ in range(2):
        await jobs.close(platform, job)
    page = await platform.sla.breaches(PLATFORM, every_month=True)
    assert [(one.period, one.verdict) for one in page.items] == [("2026-11", "unmeasured")]
    await jobs.review(platform, job)
    await jobs.probe(platform, job)
    await jobs.forget(platform, job)
    assert isinstance(listing.id, UUID)

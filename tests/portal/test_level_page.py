"""A listing's service level in the portal: for visitors, its provider, its customers and the operator."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from haat.app import Platform
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.clock import SetClock
from haat.kernel.permissions import PLATFORM
from haat.sla.model import ObjectiveDraft
from haat.usage import intake
from haat.usage.event import VERSION, Outcome, Timings, UsageEvent
from haat.usage.intake import Record

from .conftest import Browser, faults_of
from .street import DEVELOPER, OPERATOR, PROVIDER, STRANGER, Street, _call_id

BrowserFor = Callable[[str | None], Awaitable[Browser]]


async def call(platform: Platform, street: Street, count: int, failed: int, at: datetime) -> None:
    """Put calls of the developer into the usage store, the failed ones first."""
    import random

    chance, listing = random.Random(count), street.listings[0]
    events = []
    for number in range(count):
        milliseconds = int(at.timestamp() * 1000) - number * 1000
        bad = number < failed
        events.append(
            UsageEvent(
                id=str(_call_id(milliseconds, chance)),
                at=milliseconds,
                outcome=Outcome.PROVIDER_FAILED if bad else Outcome.COMPLETED,
                v=VERSION,
                org=str(street.developer.org_id),
                application=str(street.application.id),
                service=str(listing.id),
                provider_org=str(listing.org_id),
                subscription=str(street.subscription.id),
                plan="basic",
                status=503 if bad else 200,
                units={} if bad else {"requests": "1", "characters": "1000"},
                timings_us=Timings(first_byte=40_000, total=41_000),
            )
        )
    async with platform.service_db.transaction(PLATFORM_SCOPE) as connection:
        records = [Record(event, "level", 1, place + 1) for place, event in enumerate(events)]
        await intake.take(connection, records, platform.clock.now(), any_time=True)


def address(street: Street) -> str:
    return f"/services/{street.listings[0].path}/level"


async def test_a_listing_shows_what_was_measured_and_leads_to_its_level(
    platform: Platform, street: Street, browser: Browser
) -> None:
    await call(platform, street, 200, 2, platform.clock.now())
    await platform.sla_watch.gather()
    page = await browser.get(f"/services/{street.listings[0].path}")
    assert "available, 30\xa0days, by traffic" in page.text and address(street) in page.text
    level = await browser.get(address(street))
    assert level.status_code == 200 and "promises nothing yet" in level.text and "None is announced" in level.text
    assert "Promise it" not in level.text, "a visitor sets nothing"
    assert faults_of(level.text) == []


async def test_a_provider_promises_announces_and_cancels_on_the_page(
    platform: Platform, street: Street, browser_for: BrowserFor, clock: SetClock
) -> None:
    browser, home = await browser_for(PROVIDER), address(street)
    answer = await browser.send(
        f"{home}/objective", home, availability="99.5", p95_ms="800", tiers="99.5:10, 95:50", probe="none"
    )
    assert "The objective is kept" in answer.text and "From " in answer.text
    clock.advance(minutes=15)
    await call(platform, street, 200, 1, clock.now())
    await platform.sla_watch.gather()
    page = await browser.get(home)
    assert "99.5" in page.text and "of the error budget used" in page.text and "50" in page.text
    assert faults_of(page.text) == []
    wrong = await browser.send(f"{home}/objective", home, availability="100", tiers="many")
    assert wrong.status_code == 422 and "Some fields need correcting" in wrong.text and faults_of(wrong.text) == []
    late = await browser.send(f"{home}/maintenance", home, starts_at="2026-11-21T18:00", ends_at="2026-11-21T19:00")
    assert late.status_code == 422 and "at least 48 hours ahead" in late.text
    odd = await browser.send(f"{home}/maintenance", home, starts_at="tomorrow", ends_at="2026-11-21T19:00")
    assert odd.status_code == 422 and "Choose a day and a time" in odd.text
    done = await browser.send(
        f"{home}/maintenance", home, starts_at="2026-11-25T02:00", ends_at="2026-11-25T03:30", note="A larger machine"
    )
    assert "The window is announced" in done.text and "A larger machine" in done.text and faults_of(done.text) == []
    [window] = await platform.sla.windows(PLATFORM, street.listings[0].id)
    assert window.starts_at == datetime(2026, 11, 24, 20, 30, tzinfo=UTC), "the provider's own wall clock"
    listing = await browser.get(f"/services/{street.listings[0].path}")
    assert "Maintenance from" in listing.text
    gone = await browser.send(f"{home}/maintenance/{window.id}/cancel", home)
    assert "None is announced" in gone.text
    again = await browser.send(f"{home}/maintenance/{window.id}/cancel", home)
    assert again.status_code == 409


async def test_a_stranger_changes_nothing(platform: Platform, street: Street, browser_for: BrowserFor) -> None:
    for email in (STRANGER, DEVELOPER):
        browser, home = await browser_for(email), address(street)
        for path, fields in (
            ("objective", {"availability": "99"}),
            ("maintenance", {"starts_at": "2026-11-25T02:00", "ends_at": "2026-11-25T03:00"}),
        ):
            answer = await browser.send(f"{home}/{path}", home, **fields)
            assert answer.status_code == 403
    assert await platform.sla.objectives(PLATFORM, street.listings[0].id) == []


async def test_a_broken_month_is_shown_to_each_as_far_as_it_is_theirs(
    platform: Platform, street: Street, browser_for: BrowserFor, clock: SetClock
) -> None:
    listing = street.listings[0]
    draft = ObjectiveDraft.model_validate({"tiers": [{"below": "99.5", "credit": "10"}]})
    await platform.sla.promise(PLATFORM, listing.id, draft)
    end = datetime(2026, 11, 30, 18, 30, tzinfo=UTC)
    clock.advance(seconds=(end - clock.now()).total_seconds())
    await call(platform, street, 200, 20, end - timedelta(hours=1))
    clock.advance(hours=2)
    [month] = (await platform.sla_closing.close(PLATFORM, "2026-11")).judged
    home = address(street)
    evidence = f"{home}/months/{month['id']}"
    for email, words in (
        (PROVIDER, "customer was affected"),
        (OPERATOR, "customer was affected"),
        (DEVELOPER, "Your calls that were affected"),
    ):
        browser = await browser_for(email)
        page = await browser.get(home)
        assert evidence in page.text and "November 2026" in page.text and faults_of(page.text) == []
        shown = await browser.get(evidence)
        assert shown.status_code == 200 and words in shown.text and faults_of(shown.text) == []
        assert shown.text.count("/account/calls/") == 20
    assert str(street.developer.org_id) not in (await (await browser_for(PROVIDER)).get(evidence)).text
    stranger = await browser_for(STRANGER)
    page = await stranger.get(home)
    assert "November 2026" in page.text and evidence not in page.text
    assert (await stranger.get(evidence)).status_code == 404

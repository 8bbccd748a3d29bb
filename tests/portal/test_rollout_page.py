"""A provider's rollout on its page: begun, moved, paused, promoted, rolled back, and what an experiment shows."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

from haat.app import Platform
from haat.catalog import store as catalog_store
from haat.catalog.drafts import VersionDraft
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.clock import SetClock
from haat.kernel.ids import id_at
from haat.rollouts.experiments import VariantResult
from haat.rollouts.model import ExperimentDraft
from haat.usage import intake
from haat.usage.event import VERSION, Outcome, Timings, UsageEvent
from haat.usage.intake import Record

from .conftest import Browser, faults_of
from .street import DEVELOPER, PROVIDER, Street

BrowserFor = Callable[[str | None], Awaitable[Browser]]


async def add_version(platform: Platform, street: Street, version: str = "2") -> None:
    """Put a second version beside the first, accepted."""
    listing = street.listings[0]
    async with platform.service_db.transaction(PLATFORM_SCOPE) as connection:
        first = (await catalog_store.versions(connection, listing.id))[-1]
    draft = VersionDraft.model_validate(
        {
            "version": version,
            "endpoint": first.endpoint,
            "dialect": first.dialect,
            "sample": dict(first.sample),
            "languages": list(first.languages),
            "language_pairs": list(first.language_pairs),
        }
    )
    identifier = await platform.catalog.versions.add(street.provider, listing.id, draft)
    async with platform.service_db.transaction(PLATFORM_SCOPE) as connection:
        await catalog_store.accept_version(connection, listing.id, identifier, platform.clock.now(), default=False)


async def use(platform: Platform, street: Street, rollout: UUID, arm: str, count: int, **members: Any) -> None:
    """Put calls of a variant into the usage store."""
    draw, records = random.Random(arm), []
    errors = members.pop("errors", 0)
    for number in range(count):
        at = platform.clock.now() - timedelta(milliseconds=1 + draw.randrange(30_000))
        milliseconds = int(at.timestamp() * 1000)
        event = UsageEvent(
            id=str(UUID(int=id_at(milliseconds).int | draw.getrandbits(60))),
            at=milliseconds,
            outcome=Outcome.PROVIDER_FAILED if number < errors else Outcome.COMPLETED,
            v=VERSION,
            org=str(street.developer.org_id),
            application=str(street.application.id),
            service=str(street.listings[0].id),
            status=500 if number < errors else 200,
            user=f"{arm}-{number}",
            timings_us=Timings(total=draw.randrange(20_000, 90_000)),
            rollout=str(rollout),
            arm=arm,
            **members,
        )
        records.append(Record(event, arm, 1, number + 1))
    async with platform.service_db.transaction(PLATFORM_SCOPE) as connection:
        await intake.take(connection, records, platform.clock.now(), any_time=True)


async def test_a_rollout_is_begun_moved_paused_and_rolled_back(
    street: Street, platform: Platform, browser_for: BrowserFor, clock: SetClock
) -> None:
    await add_version(platform, street)
    browser = await browser_for(PROVIDER)
    home = f"/partner/services/{street.listings[0].id}/rollout"
    page = await browser.send(f"{home}/start", home, candidate="2", pace="hand")
    assert page.status_code == 200 and "The rollout has begun" in page.text
    page = await browser.send(f"{home}/percent", home, percent="12.5")
    assert "12.5\u202f%" in page.text and 'width="125.0"' in page.text
    refused = await browser.send(f"{home}/percent", home, percent="12.555")
    assert refused.status_code == 422 and "at most two decimals" in refused.text
    page = await browser.send(f"{home}/pause", home)
    assert "paused" in page.text and "Go on" in page.text
    page = await browser.send(f"{home}/resume", home)
    [active] = await platform.rollouts.of_service(street.provider, street.listings[0].id)
    clock.advance(minutes=1)
    await use(platform, street, active.id, "candidate", 40, errors=4)
    await use(platform, street, active.id, "shadow", 10, mode="shadow", agreed=True)
    page = await browser.get(home)
    assert "4 (10\u202f%)" in page.text and "10 of 10" in page.text and not faults_of(page.text)
    page = await browser.send(f"{home}/back", home, reason="It translates names.")
    assert "All calls go to the old version again" in page.text and "It translates names." in page.text
    again = await browser.send(f"{home}/back", home)
    assert again.status_code == 409 and "No rollout is running any more" in again.text


async def test_a_rollout_is_promoted(street: Street, platform: Platform, browser_for: BrowserFor) -> None:
    await add_version(platform, street)
    browser = await browser_for(PROVIDER)
    home = f"/partner/services/{street.listings[0].id}/rollout"
    await browser.send(f"{home}/start", home, candidate="2", pace="hours")
    assert "next step not before" in (await browser.get(home)).text
    assert "The new version is the default one now" in (await browser.send(f"{home}/promote", home)).text


async def test_what_makes_no_sense_is_refused_and_nobody_else_comes_in(
    street: Street, platform: Platform, browser_for: BrowserFor
) -> None:
    await add_version(platform, street)
    browser = await browser_for(PROVIDER)
    home = f"/partner/services/{street.listings[0].id}/rollout"
    for candidate in ("9", "", "<b>"):
        refused = await browser.send(f"{home}/start", home, candidate=candidate, pace="hand")
        assert refused.status_code == 422 and "<b></" not in refused.text
    assert (await browser.get("/partner/services/nonsense/rollout")).status_code == 404
    other = street.listings[1].id  # another provider's
    assert (await browser.get(f"/partner/services/{other}/rollout")).status_code == 404
    stranger = await browser_for(DEVELOPER)
    assert (await stranger.get(home)).status_code in (403, 404)


async def test_an_experiment_is_shown_with_intervals_and_verdicts(
    street: Street, platform: Platform, browser_for: BrowserFor, clock: SetClock
) -> None:
    await add_version(platform, street)
    draft = ExperimentDraft.model_validate(
        {
            "name": "As reliable?",
            "metric": "success_rate",
            "minimum_effect": 0.02,
            "variants": [{"name": "new", "version": "2", "percent": 50}],
            "settle_minutes": 1,
            "ends_at": clock.now() + timedelta(days=1),
        }
    )
    experiment = await platform.experiments.register(street.provider, street.listings[0].id, draft)
    await platform.experiments.review()
    clock.advance(minutes=5)
    await use(platform, street, experiment.id, "control", 400, errors=80)
    await use(platform, street, experiment.id, "new", 400)
    clock.advance(minutes=2)
    page = (await (await browser_for(PROVIDER)).get(f"/partner/services/{street.listings[0].id}/rollout")).text
    for text in (
        "As reliable?",
        "+20.00 points",
        "better",
        "p &lt; 0.001",
        "95\u202f%",
        "An experiment divides the calls",
    ):
        assert text in page
    assert not faults_of(page)


def test_words_of_results() -> None:
    from haat.portal.pages_rollout import _row

    made = VariantResult("new", "2", 0.5, 10, 8, 120.0, None, None, None, 1.0, False)
    assert (_row("latency_ms", made).subjects, _row("latency_ms", made).verdict) == ("8 of 10", "too few yet")
    slower = VariantResult("new", "2", 0.5, 500, 500, 120.0, 20.0, 5.0, 35.0, 0.01, True)
    assert (_row("latency_ms", slower).verdict, _row("latency_ms", slower).p_value) == ("worse", "p 0.010")

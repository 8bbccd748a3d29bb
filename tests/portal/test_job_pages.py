"""Jobs and webhooks in the portal: seen by the organisation whose they are, and by nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID

import pytest

from haat.app import Platform
from haat.identity.model import Credential
from haat.infra.postgres import PLATFORM_SCOPE
from haat.jobs import store
from haat.jobs.model import Caller, Entry, Job, Options, Outcome
from haat.kernel.ids import new_id

from .conftest import Browser, faults_of
from .street import DEVELOPER, STRANGER, Street

BrowserFor = Callable[[str | None], Awaitable[Browser]]


@pytest.fixture
async def job(street: Street, platform: Platform) -> Job:
    """A job of the developer's application with one item done, one failed and one waiting."""
    actor = street.developer
    [application, *_] = await platform.identity.applications(actor)
    key: Credential = (await platform.identity.keys(actor, application.id))[0]
    assert actor.org_id is not None

    async def entries() -> AsyncIterator[Entry]:
        for n in range(3):
            yield Entry(b'{"n":%d}' % n)

    made = await platform.caller_jobs.submit(
        Caller(actor.org_id, application.id, key.id, True),
        entries(),
        kind="native",
        target="/v1/services/vani/hindi-urdu/invoke",
        options=Options(name="Evening edition"),
    )
    lease = new_id()
    async with platform.db.transaction(PLATFORM_SCOPE) as connection:
        await store.take(connection, made.id, lease, platform.clock.now())
        outcomes = [
            Outcome(0, "succeeded", 1, 0, http_status=200, request_id=str(street.call)),
            Outcome(1, "failed", 3, 0, http_status=502, error_code="PROVIDER_FAILED"),
        ]
        await store.keep(connection, made.id, lease, outcomes, platform.clock.now())
    return made


async def test_a_jobs_pages_show_how_far_it_is_and_what_became_of_each_item(job: Job, browser_for: BrowserFor) -> None:
    browser = await browser_for(DEVELOPER)
    for path, promised in (
        ("/account/jobs", ["Evening edition", "running", '<progress max="3" value="2"', "66 %"]),
        ("/account/jobs?status=expired", ["No job like that"]),
        (f"/account/jobs/{job.id}", ["PROVIDER_FAILED", "Cancel the job", "its story", "1 waiting"]),
        (f"/account/jobs/{job.id}?items=failed", ["PROVIDER_FAILED"]),
        ("/account/webhooks", ["Add an address"]),
    ):
        answer = await browser.get(path)
        assert answer.status_code == 200, path
        assert [text for text in promised if text not in answer.text] == [], path
        assert faults_of(answer.text) == [], path
    asked = await browser.send(f"/account/jobs/{job.id}/cancel")
    assert "The job is being stopped" in asked.text and "cancelling" in asked.text


async def test_a_strangers_pages_know_nothing_of_it(job: Job, browser_for: BrowserFor) -> None:
    browser = await browser_for(STRANGER)
    assert "No job yet" in (await browser.get("/account/jobs")).text
    assert (await browser.get(f"/account/jobs/{job.id}")).status_code == 404
    assert (await browser.send(f"/account/jobs/{job.id}/cancel")).status_code == 404
    assert (await browser.send(f"/account/deliveries/{UUID(int=1)}/resend")).status_code == 404


async def test_an_endpoints_secret_is_shown_once_and_a_forbidden_address_is_tied_to_its_field(
    job: Job, browser_for: BrowserFor
) -> None:
    browser = await browser_for(DEVELOPER)
    fields = {"application": str(job.application_id)}
    refused = await browser.send("/account/webhooks", url="http://10.0.0.1/", **fields)
    assert refused.status_code == 422 and 'id="url-error"' in refused.text and faults_of(refused.text) == []
    added = await browser.send("/account/webhooks", url="http://8.8.8.8/hook", **fields)
    assert "whsec_" in added.text and faults_of(added.text) == []
    page = (await browser.get("/account/webhooks")).text
    assert "http://8.8.8.8/hook" in page and "whsec_" not in page

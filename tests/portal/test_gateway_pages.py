"""What the operator sees of gateways, journals and queues is what they say; what it can do is done and kept."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.rig import Market, answer, close_market, open_market
from haat.app import Platform
from haat.infra import dead_letters, gateway_report
from haat.infra.gateway_report import GatewayReport, Health, ask
from haat.infra.keyring import Keyring
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.clock import SetClock
from haat.kernel.permissions import PLATFORM
from haat.portal import pages_gateways
from haat.portal.pages_gateways import _told
from haat.usage import store
from haat.usage.frames import Position
from haat.usage.journal import JournalWriter, Kind
from haat.usage.reader import JournalReader, backlogs

from .conftest import Browser, faults_of
from .street import DEVELOPER, OPERATOR, PROVIDER, Street

BrowserFor = Callable[[str | None], Awaitable[Browser]]
PAGE = "/operator/gateways"


@pytest.fixture
async def market(tmp_path: Path, keyring: Keyring, platform: Platform) -> AsyncIterator[Market]:
    """A gateway that runs, and that the portal knows."""
    folder = tmp_path / "market"
    folder.mkdir()
    made = await open_market(folder, keyring)
    platform.settings.gateway_url = f"http://127.0.0.1:{made.port}"
    yield made
    await close_market(made)


def row(html: str, *words: str) -> str:
    """Return the row of a table that holds all of these, as its texts."""
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    found = [" ".join(re.sub(r"<[^>]+>", " ", one).split()) for one in rows if all(word in one for word in words)]
    assert len(found) == 1, (words, found)
    return found[0]


async def test_a_gateway_that_is_away_is_said_to_be_and_the_rest_is_there(
    street: Street, browser_for: BrowserFor
) -> None:
    page = await (await browser_for(OPERATOR)).get(PAGE)
    assert page.status_code == 200 and faults_of(page.text) == []
    assert "The gateway does not answer" in page.text and "ConnectError" in page.text
    assert "Job queues" in page.text and "Endpoints and breakers" not in page.text


async def test_a_gateways_parts_breakers_and_cache_are_what_it_says(
    street: Street, browser_for: BrowserFor, market: Market, platform: Platform
) -> None:
    market.provider.behaviour = answer(503)
    for _ in range(2):
        await market.call("POST", "/v1/services/acme/echo/invoke", b"x")
    page = await (await browser_for(OPERATOR)).get(PAGE)
    assert page.status_code == 200 and faults_of(page.text) == []
    assert ">healthy</span>" in page.text and "The gateway does not answer" not in page.text
    seen = row(page.text, "acme/echo", "127.0.0.1")
    assert "version 1" in seen and "gateway-0" in seen and " closed " in seen
    market.provider.behaviour = answer(502)
    for _ in range(3):
        await market.call("POST", "/v1/services/acme/echo/invoke", b"x")
    page = await (await browser_for(OPERATOR)).get(PAGE)
    assert " open tried again in " in row(page.text, "acme/echo", "127.0.0.1")
    assert "1 endpoint has an open breaker." in page.text
    market.gateway.feed_connected = False
    page = await (await browser_for(OPERATOR)).get(PAGE)
    assert "degraded" in row(page.text, "What it knows") and "The change feed is cut off" in page.text


async def test_a_gateway_that_lags_is_said_to_lag(
    street: Street, browser_for: BrowserFor, market: Market, platform: Platform, clock: SetClock
) -> None:
    browser = await browser_for(OPERATOR)
    clock.advance(seconds=6)
    page = await browser.get(PAGE)
    assert "It lags behind" in page.text  # it has read nothing, and the street was furnished six seconds ago
    async with platform.db.transaction(PLATFORM_SCOPE) as connection:
        row = await (await connection.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS x")).fetchone()
    assert row is not None
    market.gateway.directory.position = type(market.gateway.directory.position)(int(row["x"]), 0)
    page = await browser.get(PAGE)
    assert "It knows every change up to now." in page.text and "It lags behind" not in page.text


@pytest.mark.parametrize(
    ("health", "status", "reason", "workers"),
    [
        ("oops", 200, "DecodeError", None),
        ('{"status": 1}', 200, "ValidationError", None),
        ('{"status": "healthy", "position": "x"}', 404, "", None),
        ('{"status": "healthy", "position": "1:2"}', 200, "", []),
    ],
)
async def test_what_answers_in_a_gateways_place_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, health: str, status: int, reason: str, workers: Any
) -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text=health) if request.url.path == "/health" else httpx.Response(status, text="{}")

    client = httpx.AsyncClient
    monkeypatch.setattr(
        gateway_report.httpx, "AsyncClient", lambda **given: client(transport=httpx.MockTransport(respond), **given)
    )
    report = await ask("http://gateway.test")
    assert (report.reason, report.workers) == (reason, workers)
    assert (report.health is None) == bool(reason)


async def test_a_gateway_that_names_no_place_in_the_log_is_not_said_to_know_all(
    street: Street, browser_for: BrowserFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def report(address: str) -> GatewayReport:
        return GatewayReport(address, Health("healthy", "x"), None)

    monkeypatch.setattr(pages_gateways, "ask", report)
    page = await (await browser_for(OPERATOR)).get(PAGE)
    assert page.status_code == 200 and "It knows every change" not in page.text and "status_networks" in page.text


def test_each_part_that_is_not_well_says_why() -> None:
    ill = {
        "snapshot": ({"credentials": 3, "services": 2}, "cut off"),
        "journal": ({"disk": {"used": 0.97}}, "97"),
        "wallets": ({"purses": 1}, "prepaid calls"),
        "certificate": ({"expires": "2026-12-01T00:00:00+00:00"}, "2026-12-01"),
        "workers": ({"away": 1, "expected": 3}, "1 of 3 are away."),
    }
    for name, (part, said) in ill.items():
        assert said in _told(name, {"status": "degraded", **part}), name
    assert "calls are refused" in _told("journal", {"status": "unhealthy", "disk": {"used": 1.0}})
    assert _told("newer", {"status": "degraded"}) == ""
    health = Health("degraded", "0:0", components={"a": {"status": "healthy"}, "b": {"status": "degraded"}})
    assert list(health.degraded) == ["b"]


async def test_a_services_answers_are_forgotten_and_it_is_kept_who_did_it(
    street: Street, browser_for: BrowserFor, platform: Platform
) -> None:
    browser = await browser_for(OPERATOR)
    done = await browser.send(f"{PAGE}/purge", PAGE, service="vani/speak")
    assert done.status_code == 200 and "The answers are forgotten" in done.text and faults_of(done.text) == []
    log = await browser.get("/operator/audit", type="service.cache_purged")
    assert f"user/{street.operator.user_id}" in log.text.replace("%2F", "/") and OPERATOR in log.text
    wrong = await browser.send(f"{PAGE}/purge", PAGE, service="nobody/nothing")
    assert wrong.status_code == 422 and 'id="service-error"' in wrong.text and faults_of(wrong.text) == []


async def test_a_journal_says_how_far_it_is_shipped(
    street: Street, browser_for: BrowserFor, platform: Platform
) -> None:
    journal = platform.settings.data_dir / "journal"
    writer = JournalWriter(journal, "gateway-7", 1 << 22, sync_ms=1000, reserve_bytes=1 << 16)
    for _ in range(3):
        writer.append(Kind.USAGE, b"x" * 400)
    begun, whole = Position(1, 0), writer.position
    async with platform.service_db.transaction(PLATFORM_SCOPE) as connection:
        await store.move(connection, "gateway-7", begun.segment, begun.offset, platform.clock.now())
        await store.report_problem(connection, "gateway-7", "segment 1 is damaged", platform.clock.now())
        await store.move(connection, "elsewhere-1", 4, 10, platform.clock.now())
    assert JournalReader(journal, "gateway-7").behind(begun) == whole.offset
    assert backlogs(journal, {"gateway-7": whole}) == {"gateway-7": 0}
    page = await (await browser_for(OPERATOR)).get(PAGE)
    writer.close()
    assert faults_of(page.text) == []
    assert "1.2 kB" in row(page.text, "gateway-7") and "segment 1 is damaged" in row(page.text, "gateway-7")
    assert "on another machine" in row(page.text, "elsewhere-1")


async def test_queues_show_what_waits_since_when_and_what_was_given_up(
    street: Street, browser_for: BrowserFor, platform: Platform
) -> None:
    later = platform.clock.now() + timedelta(days=3650)
    async with platform.db.transaction(PLATFORM_SCOPE) as connection:
        await connection.execute("DELETE FROM procrastinate_jobs")
        for run_at in (None, None, later):
            await platform.jobs.defer(connection, "jobs.purge", {}, queue="slow", run_at=run_at)
        await connection.execute("UPDATE procrastinate_jobs SET attempts = 2 WHERE scheduled_at IS NOT NULL")
        await connection.execute(
            "UPDATE procrastinate_jobs SET status = 'doing' WHERE id = (SELECT max(id) FROM procrastinate_jobs"
            " WHERE scheduled_at IS NULL)"
        )
        found = {one.queue: one for one in await platform.jobs.queues(connection)}
        letters = len(await dead_letters.find(connection))
    slow = found["slow"]
    assert (slow.due, slow.running, slow.sleeping, slow.retried, slow.given_up) == (1, 1, 1, 1, 0)
    assert slow.oldest_due is not None
    assert (found["default"].given_up, found["default"].due, found["default"].oldest_due) == (letters, 0, None)
    page = await (await browser_for(OPERATOR)).get(PAGE)
    assert faults_of(page.text) == [] and "No worker runs" in page.text
    assert re.search(r"slow 1 \d+ \w+ 2\d{3}, .* 1 1 1 0$", row(page.text, ">slow<"))
    async with platform.db.transaction(PLATFORM_SCOPE) as connection:
        await connection.execute("INSERT INTO procrastinate_workers (last_heartbeat) VALUES (%s)", (later,))
    page = await (await browser_for(OPERATOR)).get(PAGE)
    assert "No worker runs" not in page.text and "1 worker, last heard of" in page.text


async def test_the_page_and_its_switch_are_nobody_elses(
    street: Street, browser_for: BrowserFor, platform: Platform
) -> None:
    for who in (DEVELOPER, PROVIDER):
        browser = await browser_for(who)
        assert (await browser.get(PAGE)).status_code == 403
        assert (await browser.send(f"{PAGE}/purge", service="vani/speak")).status_code == 403
    listing = next(one for one in street.listings if one.path == "vani/speak")
    assert await platform.catalog.purge_cache(PLATFORM, listing.id) == 1, "nobody has purged it before"

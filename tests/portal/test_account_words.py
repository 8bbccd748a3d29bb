"""The account's pages speak the language of who asks, also where texts and dates come from the code."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from gettext import NullTranslations

import pytest

from haat.app import Platform
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.ids import id_at
from haat.language import messages
from haat.usage import intake
from haat.usage.event import Outcome, UsageEvent
from haat.usage.record import Record

from .conftest import Browser
from .street import DEVELOPER, Street

BrowserFor = Callable[[str | None], Awaitable[Browser]]


class _Bracketed(NullTranslations):
    """A language whose every text is the English one in brackets."""

    def gettext(self, message: str) -> str:
        return f"[{message}]"

    def ngettext(self, one: str, many: str, count: int) -> str:
        return f"[{one if count == 1 else many}]"


@pytest.fixture
def bracketed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "translations", lambda tag: _Bracketed())


async def test_texts_that_the_code_gives_to_a_page_are_translated(
    street: Street, browser_for: BrowserFor, bracketed: None
) -> None:
    browser = await browser_for(DEVELOPER)
    for path, promised in (
        ("/account/usage", ["[Calls per day]"]),
        (
            "/account/analytics?window=30d",
            [
                "[How your calls went]",
                "[Calls of your applications, whoever executed them.]",
                "[Last 24 hours]",
                "[Compared with the 30 days before.]",
                "[Calls per day]",
            ],
        ),
        ("/account/analytics?window=2026-10", ["[Compared with as much of September 2026.]"]),
        ("/account/calls", ["[provider failed]</option>"]),
        (f"/account/calls/{street.call}", ["[Admission]", "[key, subscription and limits were checked]"]),
        ("/account/jobs", ["[cancelling]</option>"]),
        (
            "/account/wallet",
            ["[The whole organisation]</option>", "[Application Storefront]", "[Hindi and Urdu by Storefront]"],
        ),
    ):
        page = await browser.get(path)
        assert [text for text in promised if text not in page.text] == [], path
    refused = await browser.send("/account/wallet/budgets", "/account/wallet", whose="", amount="much", at_end="stop")
    assert refused.status_code == 422 and "[Give rupees, such as 500.]" in refused.text


async def test_months_and_days_are_written_in_the_readers_language(street: Street, browser_for: BrowserFor) -> None:
    browser = await browser_for(DEVELOPER)
    usage = await browser.get("/hi/account/usage")
    assert "सितंबर 2026</option>" in usage.text and "September" not in usage.text and "नव॰</th>" in usage.text
    assert "सितंबर 2026" in (await browser.get("/hi/account/analytics", window="2026-10")).text


async def test_live_calls_come_in_the_readers_language(
    street: Street, platform: Platform, browser_for: BrowserFor, monkeypatch: pytest.MonkeyPatch, bracketed: None
) -> None:
    now = int(platform.clock.now().timestamp() * 1000)
    event = UsageEvent(
        id=str(id_at(now)), at=now, outcome=Outcome.CLIENT_LEFT, org=str(street.developer.org_id), status=499
    )

    async def come_in(seconds: float) -> None:
        async with platform.service_db.transaction(PLATFORM_SCOPE) as connection:
            await intake.take(connection, [Record(event, "street", 9, 1)], platform.clock.now())

    monkeypatch.setattr(platform.live, "feed", partial(platform.live.feed, steps=2, sleep=come_in))
    browser = await browser_for(DEVELOPER)
    newest = (await browser.get("/account/live/feed")).text.rpartition("event: call")[2]
    assert event.id in newest and "[caller left]" in newest and 'data-label="[Outcome]"' in newest

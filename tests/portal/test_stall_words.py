"""What the pages of a provider and of disputes offer in their menus is in the reader's language."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal
from gettext import NullTranslations

import pytest

from haat.app import Platform
from haat.kernel.clock import SetClock
from haat.kernel.permissions import PLATFORM
from haat.language import messages
from haat.portal.pages_rollout import _row
from haat.rollouts.experiments import VariantResult

from .conftest import Browser, faults_of
from .street import DEVELOPER, PROVIDER, Street
from .test_rollout_page import add_version

BrowserFor = Callable[[str | None], Awaitable[Browser]]


class _Marked(NullTranslations):
    """A language in which every text is the English one in «marks»."""

    def gettext(self, message: str) -> str:
        return f"«{message}»"

    def ngettext(self, one: str, many: str, count: int) -> str:
        return f"«{one if count == 1 else many}»"


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "translations", lambda tag: _Marked())


async def _says(browser: Browser, path: str, *promised: str) -> None:
    answer = await browser.get(path)
    assert answer.status_code == 200, (path, answer.text)
    assert [text for text in promised if text not in answer.text] == [], path
    assert faults_of(answer.text) == [], path


async def test_the_menus_of_a_stall_are_written_for_the_request(
    street: Street, platform: Platform, browser_for: BrowserFor, marked: None
) -> None:
    browser, service = await browser_for(PROVIDER), street.listings[0].id
    page = f"/partner/services/{service}"
    await _says(browser, "/partner/register", "«Limited liability partnership»", "«Open a stall» · Haat")
    await _says(
        browser, "/partner/new", ">«Translation»<", ">«characters» («per «1,000\xa0characters»»)<", "«Everybody»"
    )
    await _says(browser, page, "«every plan»", "«serves calls»", "«Sold by: «characters»»")
    await _says(browser, f"{page}/prices", "«by the package»", "«every plan»")
    await add_version(platform, street)
    await _says(browser, f"{page}/rollout", "«Version 2»", "«5, 25, 50 and 100 % of the users, a day each»")


async def test_the_words_of_a_refusal_and_of_a_payouts_way_are_the_readers(
    street: Street, platform: Platform, browser_for: BrowserFor, clock: SetClock, marked: None
) -> None:
    assert street.provider.org_id is not None
    await platform.payouts.set_terms(PLATFORM, street.provider.org_id, minimum=Decimal(100), delay_days=1)
    await platform.payouts.set_account(street.provider, "Vani Speech", "000123456789", "SBIN0001234")
    browser = await browser_for(PROVIDER)
    await _says(browser, "/partner/payouts", "account 1 day after their close.»", "«Less than ₹100.00 is carried on.»")
    await platform.payouts.set_terms(PLATFORM, street.provider.org_id, minimum=Decimal(0), delay_days=0)
    clock.advance(seconds=1)
    (payout,) = (await platform.payouts.draft_all(PLATFORM)).drafted
    await _says(browser, f"/partner/payouts/{payout.id}", "«drafted»", "«Payout of ₹", "«Statement»")
    await _says(browser, "/partner/statements", "October 2026")
    await _says(await browser_for(DEVELOPER), "/account/disputes", f"«Invoice {street.invoice.serial}»")
    await _says(browser, "/account/disputes", "«Statement of October 2026»")
    prices = f"/partner/services/{street.listings[0].id}/prices"
    refused = await browser.send(prices, page=prices, model="volume", tiers="cheap")
    assert "«Write a tier as" in refused.text


def test_the_words_of_results_are_the_readers(marked: None) -> None:
    better = VariantResult("new", "2", 0.5, 500, 400, 0.9, 0.2, 0.1, 0.3, 0.01, True)
    row = _row("success_rate", better)
    assert (row.difference, row.interval, row.verdict) == (
        "«+20.00 points»",
        "«+10.00 to «+30.00 points»»",
        "«better»",
    )

"""Payouts and disputes in the portal, from the provider's account to the operator's decision."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from decimal import Decimal

import pytest

from haat.app import Platform
from haat.kernel.clock import SetClock
from haat.kernel.permissions import PLATFORM

from .conftest import Browser, faults_of
from .street import DEVELOPER, OPERATOR, PROVIDER, STRANGER, Street

BrowserFor = Callable[[str | None], Awaitable[Browser]]
ACCOUNT = {"holder": "Vani Speech", "number": "000123456789", "ifsc": "sbin0001234"}


@pytest.fixture
async def owed(street: Street, platform: Platform, clock: SetClock) -> None:
    """The provider's terms let everything be paid at once, however little it is."""
    assert street.provider.org_id is not None
    await platform.payouts.set_terms(PLATFORM, street.provider.org_id, minimum=Decimal(0), delay_days=0)
    clock.advance(seconds=1)


async def _good(browser: Browser, path: str, *promised: str) -> str:
    answer = await browser.get(path)
    assert answer.status_code == 200, (path, answer.text)
    assert [text for text in promised if text not in answer.text] == [], path
    assert faults_of(answer.text) == [], path
    return answer.text


async def test_a_payout_is_drafted_approved_sent_and_paid_and_the_provider_sees_its_way(
    owed: None, browser_for: BrowserFor
) -> None:
    provider, operator = await browser_for(PROVIDER), await browser_for(OPERATOR)
    await _good(provider, "/partner/payouts", "There is no account to pay to", "No payout yet")
    drafted = await operator.send("/operator/payouts")
    assert "The provider enters its bank account" in drafted.text and faults_of(drafted.text) == []
    wrong = await provider.send("/partner/payouts/account", **{**ACCOUNT, "ifsc": "X"})
    assert wrong.status_code == 422 and 'id="ifsc-error"' in wrong.text and faults_of(wrong.text) == []
    assert "000123456789" not in wrong.text
    kept = await provider.send("/partner/payouts/account", **ACCOUNT)
    assert "SBIN0001234 …6789" in kept.text and "000123456789" not in kept.text
    drafted = await operator.send("/operator/payouts")
    assert "1 payout drafted" in drafted.text
    found = re.search(r"/operator/payouts/([0-9a-f-]{36})", drafted.text)
    assert found is not None
    page = f"/operator/payouts/{found[1]}"
    await _good(operator, page, "What it settles", "drafted", "Approve", "Hold…")
    held = await operator.send(f"{page}/hold", reason="Papers are missing")
    assert "Papers are missing" in held.text and faults_of(held.text) == []
    await operator.send(f"{page}/release")
    nothing = await operator.send("/operator/payouts/send")
    assert nothing.status_code == 409 and "nothing to send" in nothing.text
    await operator.send(f"{page}/approve")
    sent = await operator.send("/operator/payouts/send")
    file = re.search(r"/operator/payouts/files/[0-9a-f-]{36}", sent.text)
    assert file is not None
    text = await operator.get(file[0])
    assert "000123456789" in text.text and text.headers["content-type"].startswith("text/csv")
    refused = await operator.send(f"{page}/reverse", reason="Too late")
    assert refused.status_code == 409 and "Nothing was changed." in refused.text
    await _good(operator, page, "It has arrived")
    await operator.send(f"{page}/paid", bank_reference="UTR42")
    await _good(provider, f"/partner/payouts/{found[1]}", "UTR42", "sent to the bank", "Statement")
    await _good(provider, "/partner/payouts", "UTR42", "Paid so far")
    statements = await _good(provider, "/partner/statements", "Owed")
    link = re.search(r"/partner/statements/[0-9a-f-]{36}", statements)
    assert link is not None
    await _good(provider, link[0], "Evidence", "Contest it", "Payouts", "paid")
    evidence = await provider.get(f"{link[0]}/evidence?form=csv")
    assert evidence.text.startswith("line_id,request_id,at")
    assert (await provider.get(f"{link[0]}/evidence?form=parquet")).content[:4] == b"PAR1"
    assert (await provider.get(f"{link[0]}/evidence?form=xls")).status_code == 404


async def test_a_customer_contests_an_invoice_and_the_operator_decides(
    owed: None, street: Street, browser_for: BrowserFor
) -> None:
    developer, operator = await browser_for(DEVELOPER), await browser_for(OPERATOR)
    await _good(developer, f"/account/disputes?subject=invoice/{street.invoice.id}", "Contest", "Invoice HT/2627/")
    fields = {"form_token": await developer.token(), "subject": f"invoice/{street.invoice.id}", "reason": "Not ours"}
    missing = await developer.client.post("/account/disputes", data=fields)
    assert missing.status_code == 422 and 'id="log-error"' in missing.text and faults_of(missing.text) == []
    broken = await developer.client.post("/account/disputes", data=fields, files={"log": ("own.csv", b"id,count\n")})
    assert broken.status_code == 422 and "the columns have no" in broken.text and faults_of(broken.text) == []
    opened = await developer.client.post(
        "/account/disputes", data=fields, files={"log": ("own.csv", b"request_id,quantity\n")}
    )
    assert "Contested lines" in opened.text and "Withdraw" in opened.text and faults_of(opened.text) == []
    found = re.search(r"/account/disputes/([0-9a-f-]{36})/withdraw", opened.text)
    assert found is not None
    await _good(operator, "/operator/disputes", "Sabzi Mandi Software", "Invoice of October 2026")
    page = f"/operator/disputes/{found[1]}"
    await _good(operator, page, "Decide", "only ours", "Not ours")
    await _good(operator, "/operator/payouts", "Contested", "Dispute")
    line = re.search(r'name="credit-([0-9a-f-]{36})"', (await operator.get(page)).text)
    assert line is not None
    refused = await operator.send(page, **{f"credit-{line[1]}": "1000000", "note": "He is right"})
    assert refused.status_code == 422 and "at most" in refused.text and faults_of(refused.text) == []
    unread = await operator.send(page, **{f"credit-{line[1]}": "much", "note": "He is right"})
    assert unread.status_code == 422 and "enter rupees" in unread.text
    decided = await operator.send(page, note="The calls are in the journal")
    assert "The dispute is decided" in decided.text and faults_of(decided.text) == []
    await _good(developer, f"/account/disputes/{found[1]}", "The calls are in the journal", "decided")


async def test_a_stranger_finds_nobodys_payouts_and_disputes(
    owed: None, street: Street, platform: Platform, browser_for: BrowserFor
) -> None:
    assert street.provider.org_id is not None
    await platform.payouts.set_account(street.provider, **ACCOUNT)
    (payout,) = (await platform.payouts.draft_all(PLATFORM)).drafted
    stranger, developer = await browser_for(STRANGER), await browser_for(DEVELOPER)
    await _good(stranger, "/account/disputes", "Nothing to contest")
    for browser in (stranger, developer):
        assert (await browser.get("/partner/payouts")).status_code == 403
        assert (await browser.get("/operator/payouts")).status_code == 403
        assert (await browser.get("/operator/disputes")).status_code == 403
        assert (await browser.get(f"/operator/payouts/{payout.id}")).status_code == 403
        assert (await browser.send(f"/operator/payouts/{payout.id}/approve")).status_code == 403

"""The operator's boards and runs: service levels, plugins, statements, payments, the bank's answers."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from decimal import Decimal

import pytest

from haat.app import Platform
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.clock import SetClock
from haat.kernel.permissions import PLATFORM
from haat.plugins import switches
from haat.plugins.switches import Switch
from haat.sla.model import ObjectiveDraft

from .conftest import Browser, faults_of
from .street import DEVELOPER, OPERATOR, PROVIDER, Street

BrowserFor = Callable[[str | None], Awaitable[Browser]]
ACCOUNT = {"holder": "Vani Speech", "number": "000123456789", "ifsc": "SBIN0001234"}
PAGES = ("/operator/levels", "/operator/plugins", "/operator/settlements", "/operator/payments")


def said(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


async def events_of(platform: Platform, type_: str) -> list[tuple[str, str]]:
    async with platform.db.transaction(PLATFORM_SCOPE) as connection:
        rows = await connection.execute("SELECT stream, actor FROM events WHERE type = %s ORDER BY seq", (type_,))
        return [(row["stream"], row["actor"]) async for row in rows]


@pytest.mark.parametrize("path", PAGES)
async def test_nobody_else_gets_in(street: Street, browser_for: BrowserFor, path: str) -> None:
    for email in (DEVELOPER, PROVIDER):
        assert (await (await browser_for(email)).get(path)).status_code == 403
    page = await (await browser_for(OPERATOR)).get(path)
    assert page.status_code == 200 and faults_of(page.text) == []
    assert f'href="{path}" aria-current="page"' in page.text


# --- service levels -------------------------------------------------------------------------------


async def test_the_board_tells_of_promises_and_leads_to_each(
    platform: Platform, street: Street, browser_for: BrowserFor, clock: SetClock
) -> None:
    operator, listing = await browser_for(OPERATOR), street.listings[0]
    assert "No service promises anything yet" in (await operator.get("/operator/levels")).text
    await platform.sla.promise(PLATFORM, listing.id, ObjectiveDraft(availability=Decimal("99.5")))
    clock.advance(minutes=16)
    page = await operator.get("/operator/levels")
    assert f'href="/services/{listing.path}/level"' in page.text and faults_of(page.text) == []
    assert "99.5" in page.text and "too few calls" in page.text and "No alert is open" in page.text


# --- plugins --------------------------------------------------------------------------------------


async def test_a_plugin_is_switched_on_and_off_and_the_log_keeps_by_whom(
    platform: Platform, street: Street, browser_for: BrowserFor
) -> None:
    operator = await browser_for(OPERATOR)
    page = await operator.get("/operator/plugins")
    assert "No gateway runs on this machine" in page.text and "Switch on… profanity" in said(page.text)
    assert "Find the credential behind the call&#39;s API key" in page.text
    on = await operator.send("/operator/plugins/on", "/operator/plugins", name="profanity")
    assert "The plugin is switched on" in on.text and "Switch off… profanity" in said(on.text)
    path = switches.switches_path(platform.settings.data_dir)
    assert switches.read(path).plugins["profanity"].on
    off = await operator.send("/operator/plugins/off", "/operator/plugins", name="profanity")
    assert "The plugin is switched off" in off.text and not switches.read(path).plugins["profanity"].on
    await operator.send("/operator/plugins/reload", "/operator/plugins")
    by = f"user/{street.operator.user_id}"
    assert await events_of(platform, "plugin.switched_on") == [("plugin/profanity", by)]
    assert await events_of(platform, "plugin.switched_off") == [("plugin/profanity", by)]
    assert await events_of(platform, "plugin.reloaded") == [("plugin/all", by)]


async def test_a_plugin_that_is_not_there_or_broken_is_refused_with_the_reason(
    platform: Platform, street: Street, browser_for: BrowserFor
) -> None:
    operator = await browser_for(OPERATOR)
    missing = await operator.send("/operator/plugins/on", "/operator/plugins", name="nowhere")
    assert missing.status_code == 422 and "There is no plugin nowhere" in missing.text
    folder = platform.settings.data_dir / "plugins"
    folder.mkdir()
    (folder / "broken.py").write_text("raise RuntimeError('no')\n")
    broken = await operator.send("/operator/plugins/on", "/operator/plugins", name="broken")
    assert broken.status_code == 422 and "broken can&#39;t run" in broken.text and faults_of(broken.text) == []
    assert (await operator.send("/operator/plugins/eat", "/operator/plugins", name="broken")).status_code == 404
    assert await events_of(platform, "plugin.switched_on") == []


async def test_a_guard_that_has_gone_missing_is_shown_and_can_be_switched_off(
    platform: Platform, street: Street, browser_for: BrowserFor
) -> None:
    operator = await browser_for(OPERATOR)
    path = switches.switches_path(platform.settings.data_dir)
    switches.write(path, "watchman", Switch(True, closed=True))
    page = await operator.get("/operator/plugins")
    assert page.status_code == 200 and "refuses all calls" in page.text and "is not there" in page.text
    off = await operator.send("/operator/plugins/off", "/operator/plugins", name="watchman")
    assert "The plugin is switched off" in off.text and not switches.read(path).plugins["watchman"].on
    assert "watchman" not in (await operator.get("/operator/plugins")).text


async def test_switches_that_can_not_be_read_are_told(
    platform: Platform, street: Street, browser_for: BrowserFor
) -> None:
    operator = await browser_for(OPERATOR)
    await operator.get("/operator/plugins")
    path = switches.switches_path(platform.settings.data_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{")
    assert (await operator.get("/operator/plugins")).status_code == 409


# --- statements -----------------------------------------------------------------------------------


async def test_a_month_is_settled_once_and_its_statements_stand_there(
    platform: Platform, street: Street, browser_for: BrowserFor
) -> None:
    operator = await browser_for(OPERATOR)
    before = await operator.get("/operator/settlements?month=2026-10")
    written = before.text.count('href="/partner/statements/')
    assert written and "on no statement yet" not in before.text
    for odd in ("2026-²", "²026-01", "9" * 5000 + "-1", "-", "2026-13"):
        assert (await operator.get(f"/operator/settlements?month={odd}")).status_code == 200
    done = await operator.send("/operator/settlements", "/operator/settlements", month="2026-10")
    assert "The month is settled" in done.text and faults_of(done.text) == []
    assert done.text.count('href="/partner/statements/') == written, "there was nothing more to settle"
    refused = await operator.send("/operator/settlements", "/operator/settlements", month="October")
    assert refused.status_code == 400 and faults_of(refused.text) == []


# --- payments -------------------------------------------------------------------------------------


async def test_a_transfer_is_recorded_by_its_invoice_and_refunded(
    platform: Platform, street: Street, browser_for: BrowserFor
) -> None:
    operator, serial = await browser_for(OPERATOR), street.invoice.serial
    assert "No payment yet" in (await operator.get("/operator/payments")).text
    form = {"serial": serial, "amount": "1,00,000", "reference": "UTR7"}
    for field, wrong in (("serial", "HT/1"), ("amount", "much"), ("reference", "")):
        refused = await operator.send("/operator/payments", "/operator/payments", **{**form, field: wrong})
        assert refused.status_code == 422 and f'id="{field}-error"' in refused.text, field
        assert faults_of(refused.text) == []
    paid = await operator.send("/operator/payments", "/operator/payments", **form)
    assert "The payment is recorded" in paid.text and serial in paid.text and "₹1,00,000.00" in paid.text
    again = await operator.send("/operator/payments", "/operator/payments", **form)
    assert again.url == paid.url, "the same reference is the same payment"
    page = str(paid.url.path)
    more = await operator.send(f"{page}/refund", page, amount="200000", reference="UTR8")
    assert more.status_code == 409 and "Nothing was changed." in more.text and faults_of(more.text) == []
    back = await operator.send(f"{page}/refund", page, amount="99999", reference="UTR8")
    assert "The refund is recorded" in back.text and "UTR8" in back.text and "went back" in back.text
    listed = await operator.get("/operator/payments")
    assert "transfer/UTR7" in listed.text and "₹99,999.00" in listed.text


async def test_a_message_that_can_not_be_booked_is_dealt_with(
    platform: Platform, street: Street, browser_for: BrowserFor, clock: SetClock
) -> None:
    from haat.invoices import payment_store

    async with platform.db.transaction(PLATFORM_SCOPE) as connection:
        await payment_store.keep_refused(connection, "upi", "m-1", "No such order.", '{"<b>": 1}', clock.now())
    operator = await browser_for(OPERATOR)
    page = await operator.get("/operator/payments")
    assert "m-1" in page.text and "No such order." in page.text and "{&#34;&lt;b&gt;&#34;: 1}" in page.text
    fields = {"provider": "upi", "message": "m-1"}
    empty = await operator.send("/operator/payments/messages", "/operator/payments", **fields, note="")
    assert empty.status_code == 422 and "Say in 1 to 500 characters" in empty.text
    done = await operator.send("/operator/payments/messages", "/operator/payments", **fields, note="A test of theirs")
    assert "off this list" in done.text and "m-1" not in done.text
    gone = await operator.send("/operator/payments/messages", "/operator/payments", **fields, note="Once more")
    assert gone.status_code == 404


# --- the bank's answers ---------------------------------------------------------------------------


async def test_the_banks_file_is_taken_whole_or_refused_row_by_row(
    platform: Platform, street: Street, browser_for: BrowserFor, clock: SetClock
) -> None:
    org = street.provider.org_id
    assert org is not None
    await platform.payouts.set_terms(PLATFORM, org, minimum=Decimal(0), delay_days=0)
    clock.advance(seconds=1)
    await platform.payouts.set_account(street.provider, **ACCOUNT)
    (payout,) = (await platform.payouts.draft_all(PLATFORM)).drafted
    await platform.payouts.approve(PLATFORM, payout.id)
    await platform.payouts.send(PLATFORM)
    operator = await browser_for(OPERATOR)

    async def upload(text: str, **fields: str):  # type: ignore[no-untyped-def]  # httpx.Response
        data = {"form_token": await operator.token("/operator/payouts"), **fields}
        files = {"file": ("answers.csv", text.encode())} if text else {}
        return await operator.client.post("/operator/payouts/answers", data=data, files=files)

    head = "payout_id,status,amount,bank_reference,reason\n"
    good, bad = f"{payout.id},paid,{payout.amount},UTR9,\n", f"{payout.org_id},paid,1.00,UTR1,\n"
    nothing = await upload("")
    assert nothing.status_code == 422 and 'id="file-error"' in nothing.text
    unread = await upload("what\n")
    assert unread.status_code == 422 and faults_of(unread.text) == []
    mixed = await upload(head + good + bad)
    assert mixed.status_code == 422 and "row 3: We sent no such payout to a bank." in said(mixed.text)
    assert faults_of(mixed.text) == []
    taken = await upload(head + good + bad, skip_refused="yes")
    assert "Paid: 1. Came back: 0. Known before: 0." in said(taken.text) and "We sent no such payout" in taken.text
    again = await upload(head + good)
    assert "Paid: 0. Came back: 0. Known before: 1." in said(again.text) and faults_of(again.text) == []

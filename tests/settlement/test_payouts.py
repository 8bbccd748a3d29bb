"""Payouts: what is owed goes out once, to the right account, and comes back when it must."""

from __future__ import annotations

import asyncio
import csv
import io
from decimal import Decimal
from typing import Any

import pytest

from haat.infra.keyring import Keyring
from haat.infra.migrate import migrate
from haat.kernel.clock import SetClock
from haat.kernel.errors import Conflict, NoBankAccount, NotFound, PermissionDenied, ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.permissions import PLATFORM
from haat.settlement.payout_model import FILE_COLUMNS, check_account, next_status, payout_file

from .counting_house import ACCOUNT, MONTH, House, consumer, partner

BECAUSE = "Papers are missing"


async def _to(house: House, status: str) -> Any:
    """Return a payout of ₹70 that has come to a status."""
    sale = await house.settled("100.00")
    (payout,) = (await house.payouts.draft_all(PLATFORM)).drafted
    assert payout.org_id == sale.service.org
    if status in ("approved", "sent", "paid", "failed"):
        payout = await house.payouts.approve(PLATFORM, payout.id)
    if status in ("sent", "paid", "failed"):
        await house.payouts.send(PLATFORM)
    if status == "paid":
        payout = await house.payouts.pay(PLATFORM, payout.id, "UTR1")
    if status == "failed":
        payout = await house.payouts.fail(PLATFORM, payout.id, "The account is closed")
    return payout


# --- rules ------------------------------------------------------------------------------------------


def test_an_account_is_kept_in_its_usual_form() -> None:
    assert check_account("  Asha  Rao ", "0001-2345 6789", "sbin0001234") == ("Asha Rao", "000123456789", "SBIN0001234")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("number", "12345678"),
        ("number", "1" * 19),
        ("number", "12345678x"),
        ("number", "000000000"),
        ("number", "१२३४५६७८९"),
        ("ifsc", "SBIN1001234"),
        ("ifsc", "SBI00001234"),
        ("ifsc", "SBIN000123"),
        ("holder", "  "),
        ("holder", "A\u202eB"),
    ],
)
def test_an_account_that_can_not_be_one_is_refused_at_its_field(field: str, value: str) -> None:
    with pytest.raises(ValidationFailed) as refused:
        check_account(**{**ACCOUNT, field: value})
    assert [one["field"] for one in refused.value.extensions["errors"]] == [field]


def test_the_banks_file_holds_no_formula() -> None:
    rows = list(csv.reader(io.StringIO(payout_file([("1", '=HYPERLINK("x")', "000123", "SBIN0001234", "1.00")]))))
    assert rows[0] == list(FILE_COLUMNS)
    assert rows[1][1:3] == ['\'=HYPERLINK("x")', "000123"]


def test_a_step_that_a_payout_can_not_take_is_refused_with_those_it_can_take_it_from() -> None:
    with pytest.raises(Conflict, match="`draft`; `pay` asks for one that is `sent`"):
        next_status("draft", "pay")


# --- drafting ---------------------------------------------------------------------------------------


async def test_a_payout_links_every_settlement_it_settles_and_a_second_run_drafts_nothing(house: House) -> None:
    sale = await house.settled("100.00")
    await house.bazaar.take([house.bazaar.event(sale, "50.00")])
    house.clock.advance(days=32)
    await house.invoices.issue_all(PLATFORM, "2026-12")
    await house.settlements.close_all(PLATFORM, "2026-12")
    run = await house.payouts.draft_all(PLATFORM)
    assert [payout.amount for payout in run.drafted] == [Decimal("105.00")]
    story = await house.payouts.story(partner(sale.service.org), run.drafted[0].id)
    assert [(row.kind, row.period, row.amount) for row in story.rows] == [
        ("settlement", MONTH, Decimal("70.00")),
        ("settlement", "2026-12", Decimal("35.00")),
    ]
    assert (await house.payouts.draft_all(PLATFORM)).drafted == []
    (linked,) = await house.payouts.of_settlement(partner(sale.service.org), story.rows[0].reference)
    assert linked.id == story.payout.id
    await house.check_sums()
    await house.check_rebuild()


async def test_runs_at_once_draft_one_payout(house: House) -> None:
    await house.settled("100.00")
    runs = await asyncio.gather(*(house.payouts.draft_all(PLATFORM) for _ in range(5)))
    assert sum(len(run.drafted) for run in runs) == 1
    await house.check_sums()


async def test_what_is_too_little_or_too_young_waits(database: Any, clock: SetClock) -> None:
    house = House(database, clock, minimum=Decimal(100), delay_days=7)
    sale = await house.settled("100.00")
    org = sale.service.org
    assert (await house.payouts.balance(PLATFORM, org)).waiting == Decimal("70.00")
    assert (await house.payouts.draft_all(PLATFORM)).carried == []
    clock.advance(days=8)
    assert (await house.payouts.draft_all(PLATFORM)).carried == [(org, Decimal("70.00"))]
    await house.payouts.set_terms(PLATFORM, org, minimum=Decimal(50), delay_days=30)
    assert (await house.payouts.draft_all(PLATFORM)).drafted == []
    await house.payouts.set_terms(PLATFORM, org, minimum=Decimal(50))
    assert len((await house.payouts.draft_all(PLATFORM)).drafted) == 1
    await house.check_rebuild()


async def test_a_payout_without_an_account_is_refused_with_a_reason_and_stops_nobody_else(house: House) -> None:
    other = await house.bazaar.subscribe(
        await house.bazaar.organisation(), await house.bazaar.service("read", "akshara", price="1")
    )
    await house.bazaar.take([house.bazaar.event(other, "10.00")])
    await house.settled("100.00")
    run = await house.payouts.draft_all(PLATFORM)
    assert len(run.drafted) == 1
    assert run.refused == [(other.service.org, NoBankAccount.default_detail)]
    with pytest.raises(NoBankAccount):
        await house.payouts.draft(PLATFORM, other.service.org)


async def test_nothing_is_paid_to_a_provider_whose_payouts_are_stopped(house: House) -> None:
    payout = await _to(house, "draft")
    await house.payouts.set_terms(PLATFORM, payout.org_id, stopped="The police asked for it")
    with pytest.raises(Conflict, match="The police asked for it"):
        await house.payouts.approve(PLATFORM, payout.id)


async def test_a_negative_balance_is_carried_to_the_next_payout(house: House) -> None:
    payout = await _to(house, "paid")
    (line,) = await house.lines()
    await house.credit(line["id"], "50.00")
    await house.settlements.close_all(PLATFORM, MONTH)
    run = await house.payouts.draft_all(PLATFORM)
    assert (run.drafted, run.carried) == ([], [(payout.org_id, Decimal("-35.00"))])
    await house.sold("80.00")
    house.clock.advance(days=32)
    await house.invoices.issue_all(PLATFORM, "2026-12")
    await house.settlements.close_all(PLATFORM, "2026-12")
    (next_one,) = (await house.payouts.draft_all(PLATFORM)).drafted
    assert next_one.amount == Decimal("21.00")
    await house.check_sums()


# --- on the way -------------------------------------------------------------------------------------


async def test_money_goes_to_the_account_that_was_there_when_it_was_approved(house: House) -> None:
    payout = await _to(house, "approved")
    owner = partner(payout.org_id)
    await house.payouts.set_account(owner, "Somebody Else", "999999999999", "HDFC0000001")
    file = await house.payouts.send(PLATFORM)
    assert file is not None and (file.payouts, file.total) == (1, Decimal("70.00"))
    text = await house.payouts.file(PLATFORM, file.id)
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["account_number"], row["ifsc"], row["amount"]) == (ACCOUNT["number"], ACCOUNT["ifsc"], "70.00")
    assert row["beneficiary_name"] == ACCOUNT["holder"] and row["narration"].isalnum()
    assert await house.payouts.file(PLATFORM, file.id) == text
    assert await house.payouts.send(PLATFORM) is None
    assert [one.id for one in await house.payouts.files(PLATFORM)] == [file.id]


async def test_a_file_stays_what_was_sent_when_its_payout_is_sent_again_elsewhere(house: House) -> None:
    payout = await _to(house, "approved")
    first = await house.payouts.send(PLATFORM)
    assert first is not None
    text = await house.payouts.file(PLATFORM, first.id)
    await house.payouts.fail(PLATFORM, payout.id, "No such account")
    await house.payouts.set_account(partner(payout.org_id), "Somebody Else", "999999999999", "HDFC0000001")
    await house.payouts.approve(PLATFORM, payout.id)
    second = await house.payouts.send(PLATFORM)
    assert second is not None and "999999999999" in await house.payouts.file(PLATFORM, second.id)
    assert await house.payouts.file(PLATFORM, first.id) == text and "999999999999" not in text
    assert [(one.id, one.total) for one in await house.payouts.files(PLATFORM)] == [
        (second.id, Decimal("70.00")),
        (first.id, Decimal("70.00")),
    ]
    await house.check_rebuild()
    kept = "SELECT * FROM payout_sendings ORDER BY file_id"
    before = await house.bazaar.rows(kept)
    for revision in ("0031", "head"):  # what was sent before there was such a table is found in the events
        await asyncio.to_thread(migrate, house.database.owner_dsn, revision)
    assert await house.bazaar.rows(kept) == before and len(before) == 2


async def test_nothing_is_sent_when_an_account_can_not_be_read(house: House) -> None:
    payout = await _to(house, "approved")
    other_key = House(house.database, house.clock, keyring=Keyring(bytes(32)))
    with pytest.raises(Conflict, match="master key"):
        await other_key.payouts.send(PLATFORM)
    assert (await house.payouts.story(PLATFORM, payout.id)).payout.status == "approved"


async def test_an_accounts_number_is_kept_encrypted_and_out_of_the_events(house: House) -> None:
    await _to(house, "sent")
    (row,) = await house.bazaar.rows("SELECT * FROM bank_accounts")
    assert ACCOUNT["number"].encode() not in bytes(row["number_encrypted"])
    keyring = Keyring(bytes(range(32)))
    assert keyring.decrypt(bytes(row["number_encrypted"]), f"bank-account/{row['id']}") == ACCOUNT["number"]
    for event in await house.bazaar.rows("SELECT data::text AS data FROM events"):
        assert ACCOUNT["number"] not in event["data"] and ACCOUNT["holder"] not in event["data"]


async def test_what_is_paid_is_posted_once_and_its_reversal_gives_the_rows_back(house: House) -> None:
    payout = await _to(house, "paid")
    assert await house.books("bank") == Decimal("-70.00")
    assert await house.books(f"payable/{payout.org_id}") == 0
    with pytest.raises(Conflict):
        await house.payouts.pay(PLATFORM, payout.id, "UTR2")
    await house.payouts.reverse(PLATFORM, payout.id, "The bank sent it back")
    assert await house.books("bank") == 0
    (again,) = (await house.payouts.draft_all(PLATFORM)).drafted
    assert again.amount == payout.amount and again.id != payout.id
    story = await house.payouts.story(PLATFORM, payout.id)
    assert [row.active for row in story.rows] == [False], "what it once settled is still told"
    assert [one.type for one in story.history][-1] == "payout.reversed"
    await house.check_sums()
    await house.check_rebuild()


async def test_what_the_bank_refused_is_approved_again_to_the_new_account(house: House) -> None:
    payout = await _to(house, "failed")
    assert await house.books("bank") == 0
    await house.payouts.set_account(partner(payout.org_id), "Vani", "999999999999", "HDFC0000001")
    again = await house.payouts.approve(PLATFORM, payout.id)
    assert again.account == "HDFC0000001 …9999"
    file = await house.payouts.send(PLATFORM)
    assert file is not None
    await house.payouts.pay(PLATFORM, payout.id, "UTR2")
    assert await house.books("bank") == Decimal("-70.00")
    await house.check_sums()


async def test_a_held_payout_is_held_in_the_books_until_it_is_released(house: House) -> None:
    payout = await _to(house, "approved")
    for _ in range(2):
        await house.payouts.hold_payout(PLATFORM, payout.id, BECAUSE)
        assert await house.books(f"held/{payout.org_id}") == Decimal("-70.00")
        assert await house.payouts.send(PLATFORM) is None
        await house.check_sums()
        assert (await house.payouts.release_payout(PLATFORM, payout.id)).status == "draft"
        assert await house.books(f"held/{payout.org_id}") == 0
    await house.payouts.hold_payout(PLATFORM, payout.id, BECAUSE)
    await house.payouts.reverse(PLATFORM, payout.id, BECAUSE)
    assert await house.books(f"held/{payout.org_id}") == 0
    await house.check_sums()
    await house.check_rebuild()


# --- holds ------------------------------------------------------------------------------------------


async def test_what_is_held_of_a_settlement_is_not_paid_before_its_release(house: House) -> None:
    sale = await house.settled("100.00")
    (settlement,) = await house.settlements.close_all(PLATFORM, MONTH)
    held = await house.payouts.hold(PLATFORM, sale.service.org, Decimal("20.00"), BECAUSE, settlement=settlement.id)
    (payout,) = (await house.payouts.draft_all(PLATFORM)).drafted
    assert payout.amount == Decimal("50.00")
    await house.check_sums()
    await house.payouts.release_hold(PLATFORM, held.id)
    (rest,) = (await house.payouts.draft_all(PLATFORM)).drafted
    assert rest.amount == Decimal("20.00")
    with pytest.raises(Conflict, match="already"):
        await house.payouts.release_hold(PLATFORM, held.id)
    assert await house.payouts.holds(PLATFORM) == []
    await house.check_sums()
    await house.check_rebuild()


async def test_a_hold_waits_as_long_as_what_it_is_of(database: Any, clock: SetClock) -> None:
    house = House(database, clock, delay_days=7)
    sale = await house.settled("100.00")
    org = sale.service.org
    (settlement,) = await house.settlements.close_all(PLATFORM, MONTH)
    await house.payouts.hold(PLATFORM, org, None, BECAUSE, settlement=settlement.id)
    money = await house.payouts.balance(PLATFORM, org)
    assert (money.available, money.waiting, money.held) == (0, 0, 70)
    await house.check_sums()


async def test_a_hold_takes_back_what_is_drafted_or_approved_but_not_what_is_sent(house: House) -> None:
    payout = await _to(house, "approved")
    (settlement,) = await house.settlements.close_all(PLATFORM, MONTH)
    await house.payouts.hold(PLATFORM, payout.org_id, Decimal("30.00"), BECAUSE, settlement=settlement.id)
    assert (await house.payouts.story(PLATFORM, payout.id)).payout.status == "reversed"
    (again,) = (await house.payouts.draft_all(PLATFORM)).drafted
    assert again.amount == Decimal("40.00")
    await house.payouts.approve(PLATFORM, again.id)
    await house.payouts.send(PLATFORM)
    await house.payouts.hold(PLATFORM, payout.org_id, None, BECAUSE, settlement=settlement.id)
    assert (await house.payouts.story(PLATFORM, again.id)).payout.status == "sent"
    assert (await house.payouts.balance(PLATFORM, payout.org_id)).available == Decimal("-40.00")
    await house.check_sums()


async def test_more_than_there_is_can_not_be_held(house: House) -> None:
    sale = await house.settled("100.00")
    org = sale.service.org
    (settlement,) = await house.settlements.close_all(PLATFORM, MONTH)
    for amount, more in (("70.01", {"settlement": settlement.id}), ("70.01", {}), ("0", {}), ("0.001", {}), (None, {})):
        with pytest.raises(ValidationFailed):
            await house.payouts.hold(PLATFORM, org, Decimal(amount) if amount else None, BECAUSE, **more)
    with pytest.raises(NotFound):
        await house.payouts.hold(PLATFORM, new_id(), None, BECAUSE, settlement=settlement.id)
    await house.check_sums()


async def test_a_held_payout_is_not_approved_once_more_was_held_than_it_leaves(house: House) -> None:
    payout = await _to(house, "draft")
    await house.payouts.hold_payout(PLATFORM, payout.id, BECAUSE)
    (line,) = await house.lines()
    await house.credit(line["id"], "10.00")
    await house.settlements.close_all(PLATFORM, MONTH)
    await house.payouts.release_payout(PLATFORM, payout.id)
    with pytest.raises(Conflict, match=r"₹7\.00 were held or taken back"):
        await house.payouts.approve(PLATFORM, payout.id)


# --- who may ----------------------------------------------------------------------------------------


async def test_a_provider_sees_its_own_payouts_and_moves_none(house: House) -> None:
    payout = await _to(house, "draft")
    owner = partner(payout.org_id)
    assert [one.id for one in (await house.payouts.page(owner)).items] == [payout.id]
    stranger = partner(await house.bazaar.organisation("Stranger", kind="provider"))
    assert (await house.payouts.page(stranger)).items == []
    for attempt in (
        house.payouts.story(stranger, payout.id),
        house.payouts.balance(stranger, payout.org_id),
        house.payouts.page(stranger, provider_org=payout.org_id),
    ):
        with pytest.raises(NotFound):
            await attempt
    for attempt in (
        house.payouts.approve(owner, payout.id),
        house.payouts.send(owner),
        house.payouts.file(owner, new_id()),
        house.payouts.draft_all(owner),
        house.payouts.hold(owner, payout.org_id, Decimal(1), BECAUSE),
        house.payouts.set_terms(owner, payout.org_id),
        house.payouts.balance(consumer(payout.org_id)),
        house.payouts.set_account(consumer(payout.org_id), **ACCOUNT),
    ):
        with pytest.raises(PermissionDenied):
            await attempt

"""A breach in the books: the customer's credit note and the provider's debit, in one run, summing to zero, once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from haat.infra.keyring import Keyring
from haat.infra.postgres import PLATFORM_SCOPE
from haat.invoices import credits
from haat.invoices.credits import CreditItem
from haat.kernel.clock import SetClock
from haat.kernel.errors import Conflict
from haat.kernel.permissions import PLATFORM
from haat.settings import Settings
from haat.settlement.service import Settlements
from haat.sla.closing import Closing
from haat.usage.model import Pseudonyms

from .rig import Level, open_level

MONTH = "2026-11"
START, END = datetime(2026, 10, 31, 18, 30, tzinfo=UTC), datetime(2026, 11, 30, 18, 30, tzinfo=UTC)
DAY = timedelta(days=1)
TIERS = [{"below": "99.5", "credit": "10"}]


@pytest.fixture
def settlements(database: Any, clock: SetClock, level: Level) -> Settlements:
    return Settlements(database.app, clock, Pseudonyms(bytes(32)), level.invoices)


@pytest.fixture
def level(database: Any, clock: SetClock, keyring: Keyring) -> Level:
    level = open_level(database, clock, keyring)
    level.to(START - DAY)
    return level


@pytest.fixture
def closing(database: Any, clock: SetClock, level: Level, settlements: Settlements) -> Closing:
    return Closing(
        database.app, clock, level.settings, watch=level.watch, credit=credits.credit, settle=settlements.close
    )


async def broken(level: Level, price: str = "0.1") -> Any:
    """Return a subscription whose month was broken, an hour and more after its end; a call costs a rupee."""
    service = await level.bazaar.service(price=price, share="0.70", unit="requests")
    await level.promise(service, availability="99.5", tiers=TIERS)
    subscription = await level.bazaar.subscribe(await level.bazaar.organisation(), service)
    level.to(END)
    await level.use(subscription, 200, failed=20, over=DAY)
    level.to(END + timedelta(hours=2))
    return subscription


async def books(level: Level) -> dict[str, Decimal]:
    rows = await level.bazaar.rows("SELECT account, amount FROM ledger_balances WHERE amount <> 0")
    found = {row["account"]: row["amount"] for row in rows}
    assert sum(found.values()) == 0
    return found


async def give_back(level: Level, taxable: str) -> None:
    """Refund something of the one line that there is."""
    [line] = await level.bazaar.rows("SELECT id FROM invoice_lines")
    async with level.db.transaction(PLATFORM_SCOPE) as connection:
        items = [CreditItem(line["id"], Decimal(taxable), "provider")]
        at = level.clock.now()
        await credits.credit(connection, PLATFORM, items, key=taxable, reason="refund", reference="", at=at)


async def test_one_run_credits_the_customer_and_debits_the_provider_and_a_second_run_nothing(
    level: Level, closing: Closing, settlements: Settlements
) -> None:
    sale = await broken(level)
    await level.invoices.issue_all(PLATFORM, MONTH)
    await settlements.close_all(PLATFORM, MONTH)
    payable, owed = f"payable/{sale.service.org}", f"receivable/{sale.org}"
    before = await books(level)
    assert (before[payable], before[owed]) == (Decimal("-126.00"), Decimal("212.40")), "180 calls, and 18 % GST"
    closed = await closing.close(PLATFORM, MONTH)
    [paid] = closed.paid
    assert (paid.taxable, paid.debited, closed.failed) == (Decimal("18.00"), Decimal("12.60"), [])
    after = await books(level)
    assert after[payable] - before[payable] == Decimal("12.60")
    assert after["credits"] == Decimal("5.40"), "the platform's part of what the guarantee cost"
    assert after[owed] - before[owed] == Decimal("-21.24"), "₹18.00, and the GST on it"
    assert after["shares"] == before["shares"]
    [_, second] = await settlements.close_all(PLATFORM, MONTH)
    assert (second.credited_provider, second.payable) == (paid.debited, -paid.debited)
    statement = await settlements.statement(PLATFORM, second.id)
    assert [(one.fault, one.gross) for one in statement.credits] == [("provider", Decimal("18.00"))]
    runs = await asyncio.gather(*(closing.close(PLATFORM, MONTH) for _ in range(3)))
    assert [run.paid for run in runs] == [[], [], []] and await closing.pay(PLATFORM) == ([], [])
    assert await books(level) == after
    kinds = await level.bazaar.rows("SELECT kind FROM ledger_operations ORDER BY kind")
    assert [row["kind"] for row in kinds] == ["credit_note", "invoice", "settlement", "settlement-credit"]


async def test_a_run_that_ends_after_its_credit_notes_is_made_good_by_the_next(level: Level, closing: Closing) -> None:
    sale = await broken(level)
    await level.invoices.issue_all(PLATFORM, MONTH)
    settle, closing._settle = closing._settle, None
    await closing.close(PLATFORM, MONTH)
    assert f"payable/{sale.service.org}" not in await books(level)

    async def refuse(*_: Any) -> None:
        raise Conflict("Not now.")

    closing._settle = refuse
    assert await closing.pay(PLATFORM) == ([], [(sale.service.org, "Not now.")])
    closing._settle = settle
    assert await closing.pay(PLATFORM) == ([], [])
    assert (await books(level))[f"payable/{sale.service.org}"] == Decimal("-113.40"), "126.00 less 12.60"


async def test_the_debit_that_is_recorded_is_the_one_that_is_posted_to_the_last_paisa(
    level: Level, closing: Closing
) -> None:
    """The provider keeps its share of what is left of a line: that isn't always 70 % of the credit, rounded."""
    await broken(level, price="0.0999")
    await level.invoices.issue_all(PLATFORM, MONTH)
    await give_back(level, "0.03")
    [paid] = (await closing.close(PLATFORM, MONTH)).paid
    [row] = await level.bazaar.rows("SELECT provider_amount FROM settlement_credits WHERE gross = %s", paid.taxable)
    assert (paid.taxable, paid.debited, row["provider_amount"]) == (Decimal("17.98"), Decimal("12.58"), paid.debited)


async def test_what_was_given_back_already_is_not_credited_again(level: Level, closing: Closing) -> None:
    await broken(level)
    await level.invoices.issue_all(PLATFORM, MONTH)
    await give_back(level, "179.00")
    closed = await closing.close(PLATFORM, MONTH)
    assert ([one.taxable for one in closed.paid], closed.failed) == ([Decimal("1.00")], [])


async def test_a_void_invoice_is_credited_nothing_and_its_successor_is(level: Level, closing: Closing) -> None:
    sale = await broken(level)
    await level.invoices.issue_all(PLATFORM, MONTH)
    [invoice] = await level.bazaar.rows("SELECT id FROM invoices")
    async with level.db.transaction(PLATFORM_SCOPE) as connection:
        await credits.void(connection, PLATFORM, invoice["id"], "Wrong address", level.clock.now())
    closed = await closing.close(PLATFORM, MONTH)
    assert (closed.paid, closed.failed) == ([], [])
    assert f"payable/{sale.service.org}" not in await books(level), "its line and its note are settled to nothing"
    await level.invoices.issue_all(PLATFORM, MONTH)
    paid, failed = await closing.pay(PLATFORM)
    assert ([one.taxable for one in paid], failed) == ([Decimal("18.00")], [])
    assert (await books(level))[f"payable/{sale.service.org}"] == Decimal("-113.40")


async def test_what_is_only_shown_is_neither_credited_nor_settled(
    database: Any, clock: SetClock, keyring: Keyring
) -> None:
    level = open_level(database, clock, keyring, billing="showback")
    level.to(START - DAY)
    settlements = Settlements(database.app, clock, Pseudonyms(bytes(32)), level.invoices)
    closing = Closing(
        database.app, clock, Settings(), watch=level.watch, credit=credits.credit, settle=settlements.close
    )
    await broken(level)
    await level.invoices.issue_all(PLATFORM, MONTH)
    [state] = await level.bazaar.rows("SELECT kind, state FROM invoice_states")
    assert state == {"kind": "statement", "state": "shown"}
    closed = await closing.close(PLATFORM, MONTH)
    assert (len(closed.judged), closed.paid, closed.failed) == (1, [], [])
    assert await settlements.close_all(PLATFORM, MONTH) == []
    assert await books(level) == {}

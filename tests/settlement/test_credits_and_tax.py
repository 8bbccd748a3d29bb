"""What a customer gets back is taken back from who earned it, and tax is withheld by its date."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.infra.postgres import PLATFORM_SCOPE
from haat.invoices.credits import DebitItem, debit
from haat.kernel.clock import SetClock
from haat.kernel.ids import new_id
from haat.kernel.permissions import PLATFORM
from haat.ledger.model import Operation, account, moved
from haat.ledger.service import post
from haat.settlement.model import reversed_share, settle_line
from haat.settlement.withholding import parse, withhold

from .counting_house import MONTH, House, partner

TDS = {"name": "TDS", "section": "194-O", "rate": "0.001", "starts": "2024-10-01"}
TCS = {"name": "TCS", "section": "52", "rate": "0.005", "starts": "2024-07-10", "day": "period"}


# --- rules ------------------------------------------------------------------------------------------


@given(
    st.integers(1, 10_000_000),
    st.decimals(min_value=0, max_value=1, places=5),
    st.lists(st.integers(1, 5000), max_size=12),
)
def test_credits_in_any_pieces_take_back_what_was_earned_and_never_more(
    paise: int, rate: Decimal, cuts: list[int]
) -> None:
    gross, before, provider, platform = Decimal(paise) / 100, Decimal(0), Decimal(0), Decimal(0)
    line = settle_line(new_id(), gross, rate)
    for cut in [*cuts, paise]:
        amount = min(Decimal(cut) / 100, gross - before)
        if not amount:
            break
        one, other = reversed_share(gross, rate, before, amount)
        assert one >= 0 and other >= 0 and one + other == amount
        before, provider, platform = before + amount, provider + one, platform + other
        assert provider <= line.provider and platform <= line.platform
    assert (provider, platform) == (line.provider, line.platform)


def _withheld(rules: list[dict[str, Any]], gross: str = "1000.00", **more: Any) -> dict[str, Decimal]:
    days = {"closed": date(2026, 12, 1), "period_end": date(2026, 11, 30), "rates": {}, "provider": Decimal(700)}
    found = withhold(parse(rules), gross=Decimal(gross), **{**days, **more})
    return {one.name: one.amount for one in found}


def test_the_newest_rate_that_holds_on_its_day_counts() -> None:
    newer = {**TDS, "rate": "0.01", "starts": "2026-12-01"}
    assert _withheld([newer, TDS, TCS]) == {"TDS": Decimal("10.00"), "TCS": Decimal("5.00")}
    assert _withheld([newer, TDS], closed=date(2026, 11, 30)) == {"TDS": Decimal("1.00")}
    assert _withheld([{**TCS, "starts": "2026-12-01"}]) == {}, "its period's last day decides"
    assert _withheld([{**TDS, "ends": "2026-11-30"}]) == {}


def test_tax_is_taken_of_the_base_that_the_rule_names_and_at_the_providers_own_rate() -> None:
    assert _withheld([{**TDS, "base": "provider"}]) == {"TDS": Decimal("0.70")}
    assert _withheld([TDS, TCS], rates={"TDS": Decimal("0.05"), "TCS": Decimal(0)}) == {"TDS": Decimal("50.00")}


def test_a_statement_that_gives_back_more_than_it_earns_withholds_nothing() -> None:
    assert _withheld([TDS], gross="-1000.00") == {}


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({**TDS, "rate": 0.001}, "as text"),
        ({**TDS, "rate": "1.5"}, "between 0 and 1"),
        ({**TDS, "rate": "much"}, "not a number"),
        ({**TDS, "base": "net"}, "gross or provider"),
        ({**TDS, "day": "today"}, "closed or period"),
        ({**TDS, "starts": "soon"}, "isoformat"),
        ({**TDS, "ends": "2020-01-01"}, "before starts"),
        ({**TDS, "name": "a/b"}, "letters"),
        ({**TDS, "form": "26Q"}, "no form"),
        ({"name": "TDS"}, "it needs rate, starts"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_with_its_place(rule: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=r"entry 1: .*" + says):
        parse([rule])


def test_two_rates_from_one_day_are_refused() -> None:
    with pytest.raises(ValueError, match="two rates of TDS"):
        parse([TDS, {**TDS, "rate": "0.01"}])


# --- on statements ----------------------------------------------------------------------------------


async def test_a_settlement_is_posted_once_and_can_be_made_anew(house: House) -> None:
    sale = await house.settled("100.00")
    assert await house.books(f"payable/{sale.service.org}") == Decimal("-70.00")
    assert await house.books("shares") == Decimal("70.00")
    await house.settlements.close_all(PLATFORM, MONTH)
    assert await house.books("shares") == Decimal("70.00")
    await house.check_sums()
    await house.check_rebuild()


async def test_an_agent_owes_the_provider_out_of_what_it_sold_for_it(database: Any, clock: SetClock) -> None:
    house = House(database, clock, agent=True)
    sale = await house.settled("100.00")
    assert await house.books("supplies") == 0, "what the invoice credited is divided"
    assert await house.books("revenue") == Decimal("-30.00")
    (line,) = await house.lines()
    await house.credit(line["id"], "10.00")
    await house.settlements.close_all(PLATFORM, MONTH)
    assert await house.books("supplies") == 0
    assert await house.books("revenue") == Decimal("-27.00")
    assert await house.books(f"payable/{sale.service.org}") == Decimal("-63.00")
    await house.check_sums()


async def test_an_invoice_and_its_debit_note_are_settled_as_they_were_booked_whatever_the_setting_says_now(
    database: Any, clock: SetClock
) -> None:
    agent, principal = House(database, clock, agent=True), House(database, clock)
    sale = await agent.sold("100.00")
    agent.close_month()
    await agent.invoices.issue_all(PLATFORM, MONTH)
    (line,) = await agent.lines()
    async with database.app.transaction(PLATFORM_SCOPE) as connection:
        added = [DebitItem(line["id"], Decimal("10.00"))]
        await debit(connection, PLATFORM, added, key="more", reason="correction", payment_days=30, at=clock.now())
    await principal.settlements.close_all(PLATFORM, MONTH)
    assert await principal.books("supplies") == 0
    assert await principal.books("revenue") == Decimal("-33.00")
    assert await principal.books("shares") == 0
    assert await principal.books(f"payable/{sale.service.org}") == Decimal("-77.00")
    await principal.check_sums()


async def test_a_refund_takes_back_the_providers_share_and_one_for_the_platforms_fault_does_not(house: House) -> None:
    sale = await house.settled("100.00")
    (line,) = await house.lines()
    await house.credit(line["id"], "10.00")
    await house.credit(line["id"], "20.00", "platform")
    first, second = await house.settlements.close_all(PLATFORM, MONTH)
    assert (second.credited, second.credited_provider, second.credited_platform) == (30, 7, 23)
    assert (first.payable, second.payable) == (Decimal("70.00"), Decimal("-7.00"))
    statement = await house.settlements.statement(partner(sale.service.org), second.id)
    assert {(one.fault, one.gross, one.provider) for one in statement.credits} == {
        ("provider", Decimal(10), Decimal(7)),
        ("platform", Decimal(20), Decimal(0)),
    }
    assert statement.credits[0].customer.startswith("customer-")
    assert await house.settlements.close_all(PLATFORM, MONTH) == [first, second]
    await house.check_sums()
    await house.check_rebuild()


async def test_credits_of_a_few_paise_never_take_back_more_than_was_earned(house: House) -> None:
    await house.settled("0.05")
    (line,) = await house.lines()
    for _ in range(5):
        await house.credit(line["id"], "0.01")
        await house.settlements.close_all(PLATFORM, MONTH)
    done = await house.settlements.close_all(PLATFORM, MONTH)
    assert sum(one.credited_provider for one in done) == Decimal("0.04") == done[0].provider
    assert sum(one.payable for one in done) == 0
    await house.check_sums()


async def test_a_credit_waits_for_its_line(house: House) -> None:
    await house.sold("100.00")
    house.close_month()
    await house.invoices.issue_all(PLATFORM, MONTH)
    (line,) = await house.lines()
    await house.credit(line["id"], "10.00")
    assert await house.settlements.close_all(PLATFORM, "2026-10") == []
    (done,) = await house.settlements.close_all(PLATFORM, MONTH)
    assert (done.provider, done.credited_provider, done.payable) == (70, 7, 63)


async def test_a_guarantees_credit_is_debited_to_the_provider_as_its_cost(house: House) -> None:
    sale = await house.settled("100.00")
    (line,) = await house.lines()
    await house.credit(line["id"], "10.00", reason="sla")
    assert await house.books("credits") == Decimal("10.00")
    await house.settlements.close_all(PLATFORM, MONTH)
    assert await house.books(f"payable/{sale.service.org}") == Decimal("-63.00")
    assert await house.books("credits") == Decimal("3.00"), "the platform's part of it"
    assert await house.books("shares") == Decimal("70.00")


async def test_what_others_post_to_a_providers_account_is_on_its_next_statement(house: House) -> None:
    sale = await house.settled("100.00")
    payable = account("payable", sale.service.org)
    async with house.database.app.transaction(PLATFORM_SCOPE) as connection:
        debit = Operation("sla/1", "sla", house.clock.now(), moved(payable, "credits", Decimal("5.00")), "breach/1")
        await post(connection, [debit])
    _, second = await house.settlements.close_all(PLATFORM, MONTH)
    assert (second.adjusted, second.payable) == (Decimal("-5.00"), Decimal("-5.00"))
    statement = await house.settlements.statement(PLATFORM, second.id)
    assert [(one.kind, one.reference, one.amount) for one in statement.adjustments] == [("sla", "breach/1", -5)]
    assert len(await house.settlements.close_all(PLATFORM, MONTH)) == 2
    await house.check_sums()
    await house.check_rebuild()


async def test_tax_is_withheld_on_lines_of_its_own_and_owed_to_the_state(database: Any, clock: SetClock) -> None:
    house = House(database, clock, rules=parse([TDS, TCS]))
    sale = await house.settled("1000.00")
    await house.payouts.set_terms(PLATFORM, sale.service.org, withholdings={"TDS": "0.05"})
    (done,) = await house.settlements.close_all(PLATFORM, MONTH)
    assert (done.withheld, done.payable) == (Decimal("6.00"), Decimal("694.00"))
    statement = await house.settlements.statement(partner(sale.service.org), done.id)
    assert [(one.name, one.section, one.base, one.rate, one.amount) for one in statement.withheld] == [
        ("TCS", "52", Decimal("1000.00"), Decimal("0.00500"), Decimal("5.00")),
        ("TDS", "194-O", Decimal("1000.00"), Decimal("0.00100"), Decimal("1.00")),
    ]
    assert await house.books("withheld/TDS") == Decimal("-1.00")
    await house.sold("100.00", slug="speak")
    clock.advance(days=40)
    await house.invoices.issue_all(PLATFORM, "2026-12")
    (later,) = await house.settlements.close_all(PLATFORM, "2026-12")
    assert later.withheld == Decimal("5.50"), "from then on at the provider's own rate"
    await house.check_sums()
    await house.check_rebuild()

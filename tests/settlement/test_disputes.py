"""Disputes: two logs are held against each other, and what is contested is kept until it is decided."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bazaar import Subscription, call_id
from haat.kernel.errors import Conflict, InvalidRequest, NotFound, PermissionDenied, ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.permissions import PLATFORM
from haat.settlement.dispute_model import Claim, LogReader, Metered, reconcile
from haat.settlement.disputes import Disputes, Verdict
from haat.settlement.spool import Spool

from .counting_house import MONTH, House, consumer, partner, pieces

HEADER = b"request_id,quantity\n"
CALL = b"01a22e60-9002-7354-abec-be91941d51e3"


# --- reading a log ----------------------------------------------------------------------------------


def _read(form: Any, *given_pieces: bytes) -> list[Claim]:
    reader = LogReader(form)
    return [claim for piece in given_pieces for claim in reader.feed(piece)] + reader.end()


def test_a_log_is_the_same_however_it_is_cut_and_in_either_form() -> None:
    one, two = new_id(), new_id()
    text = f"\ufeffat,Request_ID,quantity\r\nx,{one},1.5\r\n\r\nx,{two}, 2 \n".encode()
    lines = (
        f'{{"request_id": "{one}", "quantity": 1.5}}\n{{"request_id": "{two}", "quantity": "2", "at": null}}'.encode()
    )
    expected = [Claim(one, "", Decimal("1.5")), Claim(two, "", Decimal(2))]
    assert _read("csv", text) == _read("csv", *(text[place : place + 1] for place in range(len(text)))) == expected
    assert _read("jsonl", lines) == expected


@pytest.mark.parametrize(
    ("form", "log", "says"),
    [
        ("csv", b"", "empty"),
        ("csv", b"id,quantity\n", "line 1: the columns have no request_id"),
        ("csv", HEADER + b"x,1\n", "line 2: its request_id"),
        ("csv", HEADER + b"%s,1,2\n" % CALL, "line 2: it has 3 cells"),
        ("csv", HEADER + b"%s,-1\n" % CALL, "line 2: its quantity is negative"),
        ("csv", HEADER + b"%s,NaN\n" % CALL, "negative, or too large"),
        ("csv", HEADER + b"%s,1e30\n" % CALL, "too large"),
        ("csv", HEADER + b"%s,\n" % CALL, "not a number"),
        ("csv", HEADER + b"\xff\xfe,1\n", "line 2: "),
        ("csv", HEADER + b'"%s,1\n' % CALL, "line 2: "),
        ("csv", b"x" * 9000, "longer than 8192 bytes"),
        ("jsonl", b"[1]\n", "no JSON object"),
        ("jsonl", b"{\n", "line 1: "),
        ("jsonl", b'{"request_id": "%s", "quantity": true}\n' % CALL, "no quantity"),
        ("jsonl", b"[" * 5000 + b"\n", "line 1: "),
    ],
)
def test_a_log_that_can_not_be_read_is_refused_with_the_line(form: Any, log: bytes, says: str) -> None:
    with pytest.raises(ValidationFailed) as refused:
        _read(form, log)
    assert says in refused.value.extensions["errors"][0]["message"]


def test_a_log_names_its_units_everywhere_or_nowhere() -> None:
    with pytest.raises(ValidationFailed):
        _read(
            "csv", b"request_id,quantity,unit\n%b,1,pages\n%b,1,\n" % (str(new_id()).encode(), str(new_id()).encode())
        )


# --- holding logs against each other ----------------------------------------------------------------

quantities = st.integers(0, 3).map(Decimal)
logs = st.dictionaries(st.integers(1, 12).map(lambda n: UUID(int=n)), quantities, max_size=12)


@given(logs, logs, st.data())
def test_every_difference_is_found_and_nothing_else(ours: Any, theirs: Any, data: st.DataObject) -> None:
    metered = []
    for identifier, quantity in sorted(ours.items()):
        first = Decimal(data.draw(st.integers(0, int(quantity))))
        metered.append(Metered(identifier, "pages", first, UUID(int=1)))
        metered.append(Metered(identifier, "pages", quantity - first, UUID(int=2)))
    claims = [Claim(identifier, "", quantity) for identifier, quantity in sorted(theirs.items()) for _ in range(2)]
    found = {one.request_id: one for one in reconcile(metered, claims, by_unit=False)}
    for identifier in {*ours, *theirs}:
        mine, other = ours.get(identifier), theirs.get(identifier)
        if mine == other:
            assert identifier not in found
            continue
        one = found.pop(identifier)
        assert (one.ours, one.theirs) == (mine, other)
        assert one.kind == ("only_theirs" if mine is None else "only_ours" if other is None else "different")
        assert sum(one.more.values()) == max((mine or Decimal(0)) - (other or Decimal(0)), Decimal(0))
    assert found == {}


def test_units_are_held_apart_where_the_log_names_them() -> None:
    call = UUID(int=1)
    ours = [Metered(call, "pages", Decimal(1), UUID(int=7)), Metered(call, "tokens", Decimal(5), UUID(int=8))]
    theirs = [Claim(call, "pages", Decimal(1)), Claim(call, "tokens", Decimal(4))]
    (one,) = reconcile(ours, theirs, by_unit=True)
    assert (one.unit, one.ours, one.theirs, one.more) == ("tokens", 5, 4, {UUID(int=8): Decimal(1)})
    with pytest.raises(ValidationFailed):
        list(reconcile(ours, [Claim(call, "", Decimal(1))], by_unit=False))


def test_one_call_with_two_quantities_is_refused() -> None:
    twice = [Claim(UUID(int=1), "", Decimal(1)), Claim(UUID(int=1), "", Decimal(2))]
    with pytest.raises(ValidationFailed):
        list(reconcile([], twice, by_unit=False))


async def test_logs_in_any_order_are_held_against_each_other_in_constant_memory() -> None:
    async def peak(calls: int) -> int:
        tracemalloc.start()
        with Spool() as spool:
            for start in range(0, calls, 1000):
                numbers = [(start + step) * 7919 % calls for step in range(1000)]
                await spool.add_theirs([Claim(UUID(int=n), "", Decimal(1)) for n in numbers if n % 100])
                await spool.add_ours(
                    [Metered(UUID(int=n), "pages", Decimal(1), UUID(int=1)) for n in reversed(numbers)]
                )
            found = await spool.reconcile(by_unit=False)
            assert (found.ours, found.only_ours, found.only_theirs) == (calls, calls // 100, 0)
            assert found.lines == {UUID(int=1): (calls // 100, Decimal(calls // 100))}
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    await peak(1000)
    assert await peak(40_000) < await peak(10_000) * 1.5


# --- disputes ---------------------------------------------------------------------------------------


async def _calls(house: House) -> list[tuple[UUID, Decimal]]:
    rows = await house.bazaar.rows("SELECT id, characters FROM usage ORDER BY id")
    return [(row["id"], row["characters"]) for row in rows]


def _log(calls: list[tuple[UUID, Decimal]]) -> AsyncIterator[bytes]:
    return pieces(HEADER, *(f"{identifier},{quantity}\n".encode() for identifier, quantity in calls))


async def _invoice(house: House) -> UUID:
    (row,) = await house.bazaar.rows("SELECT id FROM invoices")
    identifier: UUID = row["id"]
    return identifier


async def _contested(house: House, *, settle: bool = True) -> tuple[Subscription, Any]:
    """Return a sale of 100 units in three calls, of which the customer contests 30."""
    sale = await house.sold("50.00", "30.00", "20.00")
    await house.payouts.set_account(partner(sale.service.org), "Vani", "000123456789", "SBIN0001234")
    house.close_month()
    await house.invoices.issue_all(PLATFORM, MONTH)
    if settle:
        await house.settlements.close_all(PLATFORM, MONTH)
    calls = [(identifier, quantity) for identifier, quantity in await _calls(house) if quantity != 30]
    subject = f"invoice/{await _invoice(house)}"
    return sale, await house.disputes.open(consumer(sale.org), subject, _log(calls), "csv", "We never called")


async def test_a_log_that_agrees_holds_nothing(house: House) -> None:
    sale = await house.settled("50.00", "30.00")
    (settlement,) = await house.settlements.close_all(PLATFORM, MONTH)
    owner = partner(sale.service.org)
    log = b"".join([piece async for piece in house.evidence.stream(owner, settlement.id, "csv")])
    done = await house.disputes.open(owner, f"settlement/{settlement.id}", pieces(log), "csv")
    assert (done.status, done.ours, done.theirs, done.side) == ("agreed", 2, 2, "provider")
    assert await house.payouts.holds(PLATFORM) == []


async def test_contested_lines_are_held_out_of_payouts_and_every_difference_is_told(house: House) -> None:
    sale, dispute = await _contested(house)
    assert (dispute.status, dispute.only_ours, dispute.only_theirs, dispute.different) == ("open", 1, 0, 0)
    (difference,) = (await house.disputes.differences(consumer(sale.org), dispute.id)).items
    assert (difference.kind, difference.ours, difference.theirs) == ("only_ours", Decimal(30), None)
    (line,) = (await house.disputes.story(PLATFORM, dispute.id)).lines
    assert (line.calls, line.quantity, line.open) == (1, Decimal(30), True)
    assert (await house.payouts.balance(PLATFORM, sale.service.org)).held == Decimal("70.00")
    assert (await house.payouts.draft_all(PLATFORM)).drafted == []
    (hold,) = await house.payouts.holds(partner(sale.service.org))
    with pytest.raises(Conflict, match="dispute"):
        await house.payouts.release_hold(PLATFORM, hold.id)
    await house.check_sums()
    await house.check_rebuild()


async def test_a_line_contested_before_it_is_settled_is_held_when_it_is(house: House) -> None:
    sale, _ = await _contested(house, settle=False)
    assert await house.payouts.holds(PLATFORM) == []
    await house.settlements.close_all(PLATFORM, MONTH)
    assert (await house.payouts.balance(PLATFORM, sale.service.org)).held == Decimal("70.00")
    await house.check_sums()
    await house.check_rebuild()


async def test_a_decision_for_the_customer_is_a_credit_that_no_payout_carries_away(house: House) -> None:
    sale, dispute = await _contested(house)
    (line,) = await house.lines()
    done = await house.disputes.decide(PLATFORM, dispute.id, {line["id"]: Verdict(Decimal("30.00"))}, "He is right")
    assert done.status == "decided" and done.credit_note_id is not None
    assert [one.credited for one in (await house.disputes.story(PLATFORM, dispute.id)).lines] == [Decimal("30.00")]
    money = await house.payouts.balance(PLATFORM, sale.service.org)
    assert (money.held, money.available) == (0, Decimal("49.00"))
    assert (await house.payouts.draft_all(PLATFORM)).drafted[0].amount == Decimal("49.00")
    with pytest.raises(Conflict, match="decided"):
        await house.disputes.decide(PLATFORM, dispute.id, {}, "Again")
    await house.check_sums()
    await house.check_rebuild()


async def test_a_decision_for_the_provider_releases_all_of_it(house: House) -> None:
    sale, dispute = await _contested(house)
    await house.disputes.decide(PLATFORM, dispute.id, {}, "The calls are in the journal")
    assert (await house.payouts.balance(PLATFORM, sale.service.org)).available == Decimal("70.00")
    assert await house.bazaar.rows("SELECT * FROM credit_note_lines") == []
    await house.check_sums()
    await house.check_rebuild()


async def test_a_dispute_decided_before_the_line_is_settled_leaves_nothing_held(house: House) -> None:
    sale, dispute = await _contested(house, settle=False)
    (line,) = await house.lines()
    verdict = Verdict(Decimal("30.00"), "platform")
    await house.disputes.decide(PLATFORM, dispute.id, {line["id"]: verdict}, "Our mistake")
    await house.settlements.close_all(PLATFORM, MONTH)
    money = await house.payouts.balance(PLATFORM, sale.service.org)
    assert (money.held, money.available) == (0, Decimal("70.00")), "the platform bears it"
    await house.check_sums()


async def test_who_opened_a_dispute_may_give_it_up(house: House) -> None:
    sale, dispute = await _contested(house)
    with pytest.raises(NotFound):
        await house.disputes.withdraw(partner(sale.service.org), dispute.id)
    done = await house.disputes.withdraw(consumer(sale.org), dispute.id)
    assert done.status == "withdrawn"
    assert (await house.payouts.balance(PLATFORM, sale.service.org)).available == Decimal("70.00")


async def test_one_dispute_at_a_time_is_open_about_a_thing(house: House) -> None:
    sale, dispute = await _contested(house)
    again = house.disputes.open(consumer(sale.org), dispute.subject, pieces(HEADER), "csv")
    with pytest.raises(Conflict, match="open"):
        await again
    await house.disputes.withdraw(PLATFORM, dispute.id)
    results = await asyncio.gather(
        *(house.disputes.open(consumer(sale.org), dispute.subject, pieces(HEADER), "csv") for _ in range(3)),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in results) == ["Conflict", "Conflict", "Dispute"]
    await house.check_sums()


async def test_what_is_wrong_with_a_decision_is_refused_and_nothing_is_done(house: House) -> None:
    _, dispute = await _contested(house)
    (line,) = await house.lines()
    for verdicts in (
        {new_id(): Verdict(Decimal(1))},
        {line["id"]: Verdict(Decimal(0))},
        {line["id"]: Verdict(Decimal("100.01"))},
        {line["id"]: Verdict(Decimal("0.001"))},
    ):
        with pytest.raises(ValidationFailed):
            await house.disputes.decide(PLATFORM, dispute.id, verdicts, "Wrong")
    without = Disputes(house.database.app, house.clock, house.settlements, days=60)
    with pytest.raises(Conflict, match="credit notes"):
        await without.decide(PLATFORM, dispute.id, {line["id"]: Verdict(Decimal(1))}, "No")
    assert (await house.disputes.story(PLATFORM, dispute.id)).dispute.status == "open"


async def test_what_is_too_old_or_not_ones_own_is_not_contested(house: House) -> None:
    sale = await house.settled("50.00")
    invoice = f"invoice/{await _invoice(house)}"
    stranger = consumer(await house.bazaar.organisation("Stranger"))
    with pytest.raises(NotFound):
        await house.disputes.open(stranger, invoice, pieces(HEADER), "csv")
    with pytest.raises(PermissionDenied):
        await house.disputes.open(consumer(sale.org), f"settlement/{new_id()}", pieces(HEADER), "csv")
    for subject in ("invoice/1", f"call/{new_id()}", ""):
        with pytest.raises(InvalidRequest):
            await house.disputes.open(stranger, subject, pieces(HEADER), "csv")
    house.clock.advance(days=61)
    with pytest.raises(Conflict, match="60 days"):
        await house.disputes.open(consumer(sale.org), invoice, pieces(HEADER), "csv")
    assert (await house.disputes.page(consumer(sale.org))).items == []


async def test_differences_come_in_pages(house: House) -> None:
    sale = await house.settled("10.00")
    chance = house.bazaar.chance
    strange = sorted(call_id(1_790_000_000_000 + number, chance) for number in range(5))
    log = pieces(*(json.dumps({"request_id": str(one), "quantity": 1}).encode() + b"\n" for one in strange))
    dispute = await house.disputes.open(consumer(sale.org), f"invoice/{await _invoice(house)}", log, "jsonl")
    assert (dispute.only_theirs, dispute.only_ours) == (5, 1)
    first = await house.disputes.differences(PLATFORM, dispute.id, limit=4)
    rest = await house.disputes.differences(PLATFORM, dispute.id, cursor=first.next, limit=4)
    seen = [one.request_id for one in (*first.items, *rest.items)]
    assert len(seen) == 6 and seen == sorted(seen) and rest.next is None

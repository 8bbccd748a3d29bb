"""Usage that came late, was voided or corrected: a difference on the next invoice, and the record as it was."""

from __future__ import annotations

import random
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from bazaar import Subscription, consumer
from desk import MONTH, Desk
from haat.infra.postgres import PLATFORM_SCOPE
from haat.invoices import store
from haat.invoices.service import Invoice
from haat.kernel.errors import Conflict, NotFound, PermissionDenied, ValidationFailed
from haat.kernel.permissions import PLATFORM
from haat.rating.service import Rating
from haat.settlement.service import Settlements
from haat.usage.event import Outcome, UsageEvent
from haat.usage.model import Pseudonyms, month_named

NEXT = "2026-12"


async def next_invoice(desk: Desk, subscription: Subscription) -> Invoice | None:
    desk.clock.advance(days=31)
    return await desk.invoices.issue(PLATFORM, NEXT, subscription.org)


async def a_billed_month(
    desk: Desk, *quantities: str, **service: str
) -> tuple[Subscription, Invoice, list[UsageEvent]]:
    subscription = await desk.subscription(**service)
    events = [desk.bazaar.event(subscription, quantity) for quantity in quantities]
    await desk.bazaar.take(events)
    desk.close_month()
    invoice = await desk.invoices.issue(PLATFORM, MONTH, subscription.org)
    assert invoice is not None
    return subscription, invoice, events


async def test_a_voided_call_is_taken_off_the_next_invoice_and_its_record_stays(desk: Desk) -> None:
    subscription, invoice, events = await a_billed_month(desk, "10", "5")
    before = await desk.bazaar.rows("SELECT * FROM usage ORDER BY id")
    text = await desk.invoices.document_text(PLATFORM, invoice.id)
    await desk.invoices.correct_call(PLATFORM, UUID(events[0].id), units=None, reason="our own test")
    await desk.bazaar.take([desk.bazaar.event(subscription, "100")])
    second = await next_invoice(desk, subscription)
    assert second is not None and second.net == Decimal("90.00")
    adjustment, usage = await desk.invoices.lines(PLATFORM, second.id)
    assert (adjustment["kind"], adjustment["period"], adjustment["quantity"], adjustment["calls"]) == (
        "adjustment",
        MONTH,
        -10,
        -1,
    )
    assert (usage["kind"], usage["taxable"]) == ("usage", Decimal("100.00"))
    (call,) = (await desk.invoices.calls(consumer(subscription.org), adjustment["id"])).items
    assert (str(call.id), call.voided, call.quantity) == (events[0].id, True, -10)
    (line,) = await desk.lines(invoice)
    assert len((await desk.invoices.calls(PLATFORM, line)).items) == 2, "the first invoice has it as before"
    assert [row for row in await desk.bazaar.rows("SELECT * FROM usage ORDER BY id") if row in before] == before
    assert await desk.invoices.document_text(PLATFORM, invoice.id) == text
    assert await desk.made_anew() == []


async def test_what_came_late_is_found_for_many_together_as_for_each_alone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await desk.bazaar.service()
    street = [await desk.bazaar.subscribe(await desk.bazaar.organisation(f"No {n}"), service) for n in range(5)]
    events = [desk.bazaar.event(one, "10") for one in street]
    taken = await desk.bazaar.take(events)
    late, refused, voided, newer, _ = street
    await desk.bazaar.take([desk.bazaar.event(late, "1"), desk.bazaar.event(refused, "1", outcome=Outcome.REFUSED)])
    await desk.invoices.correct_call(PLATFORM, UUID(events[2].id), units=None, reason="a mistake")
    month = month_named(MONTH, "Asia/Kolkata")
    desk.clock.advance(days=31)
    await desk.bazaar.take([desk.bazaar.event(newer, "1")])
    asked = [(one.org, month, taken.batch) for one in street]
    for many in (1, 5, 6):
        monkeypatch.setattr(store, "_MANY", many)
        async with desk.database.app.transaction(PLATFORM_SCOPE) as connection:
            found = await store.with_later_usage(connection, asked)
        assert found == {(late.org, MONTH), (voided.org, MONTH)}


async def test_a_corrected_call_is_counted_anew_in_its_own_month_and_at_its_own_price(desk: Desk) -> None:
    subscription, _, events = await a_billed_month(desk, "10", free="4")
    made = await desk.invoices.correct_call(
        PLATFORM, UUID(events[0].id), units={"characters": Decimal("250")}, reason="counted in words"
    )
    assert made.replaced_by is not None
    second = await next_invoice(desk, subscription)
    assert second is not None and second.net == Decimal("240.00")
    (line,) = await desk.invoices.lines(PLATFORM, second.id)
    assert (line["period"], line["quantity"], line["free_units"], line["calls"]) == (MONTH, 240, 0, 0)
    calls = (await desk.invoices.calls(PLATFORM, line["id"])).items
    assert sorted((call.voided, call.quantity) for call in calls) == [(False, 250), (True, -10)]
    assert sum(call.quantity for call in calls) == line["quantity"]


async def test_before_the_invoice_a_correction_makes_no_line_of_its_own(desk: Desk) -> None:
    subscription = await desk.subscription()
    event, other = desk.bazaar.event(subscription, "10"), desk.bazaar.event(subscription, "3")
    await desk.bazaar.take([event, other])
    await desk.invoices.correct_call(PLATFORM, UUID(event.id), units={"characters": Decimal(7)}, reason="recount")
    await desk.invoices.correct_call(PLATFORM, UUID(other.id), units=None, reason="a mistake")
    live = await Rating(desk.database.app, desk.clock).live(consumer(subscription.org))
    assert live.total == 7
    desk.close_month()
    invoice = await desk.invoices.issue(PLATFORM, MONTH, subscription.org)
    assert invoice is not None and invoice.net == 7
    (line,) = await desk.lines(invoice)
    calls = (await desk.invoices.calls(PLATFORM, line)).items
    assert [(call.voided, call.quantity) for call in calls] == [(False, 7)]


async def test_the_same_correction_again_changes_nothing_and_another_one_is_refused(desk: Desk) -> None:
    _, _, events = await a_billed_month(desk, "10")
    call = UUID(events[0].id)
    first = await desk.invoices.correct_call(PLATFORM, call, units={"characters": Decimal(7)}, reason="recount")
    again = await desk.invoices.correct_call(PLATFORM, call, units={"characters": Decimal(7)}, reason="recount")
    assert first == again
    for units in (None, {"characters": Decimal(8)}):
        with pytest.raises(Conflict, match=str(first.replaced_by)):
            await desk.invoices.correct_call(PLATFORM, call, units=units, reason="no, this")
    assert first.replaced_by is not None
    await desk.invoices.correct_call(PLATFORM, first.replaced_by, units=None, reason="it never happened")


async def test_a_month_of_which_every_call_was_voided_is_taken_back_whole(desk: Desk) -> None:
    subscription, invoice, events = await a_billed_month(desk, "10", "20")
    for event in events:
        await desk.invoices.correct_call(PLATFORM, UUID(event.id), units=None, reason="fraud")
    await desk.bazaar.take([desk.bazaar.event(subscription, "100")])
    second = await next_invoice(desk, subscription)
    assert second is not None and second.net == Decimal("70.00")
    (adjustment, _) = await desk.invoices.lines(PLATFORM, second.id)
    assert (adjustment["taxable"], adjustment["calls"], adjustment["quantity"]) == (-invoice.net, -2, -30)


async def test_what_would_bring_an_invoice_below_zero_waits_for_the_next_one(desk: Desk) -> None:
    subscription, _, events = await a_billed_month(desk, "50")
    await desk.invoices.correct_call(PLATFORM, UUID(events[0].id), units=None, reason="fraud")
    await desk.bazaar.take([desk.bazaar.event(subscription, "20")])
    second = await next_invoice(desk, subscription)
    assert second is not None and second.net == 20
    await desk.bazaar.take([desk.bazaar.event(subscription, "60")])
    desk.clock.advance(days=31)
    third = await desk.invoices.issue(PLATFORM, "2027-01", subscription.org)
    assert third is not None and third.net == 10
    assert await desk.made_anew() == []


async def test_providers_share_what_an_adjustment_takes_back(desk: Desk) -> None:
    subscription, _, events = await a_billed_month(desk, "10", "90")
    settlements = Settlements(desk.database.app, desk.clock, Pseudonyms(bytes(32)), desk.invoices)
    (first,) = await settlements.close_all(PLATFORM, MONTH)
    await desk.invoices.correct_call(PLATFORM, UUID(events[1].id), units=None, reason="fraud")
    await desk.bazaar.take([desk.bazaar.event(subscription, "100")])
    assert await next_invoice(desk, subscription) is not None
    (second,) = await settlements.close_all(PLATFORM, NEXT)
    assert (first.provider, second.gross, second.provider) == (70, 10, 7)


@pytest.mark.parametrize("seed", range(3))
async def test_months_of_late_voided_and_corrected_usage_come_to_what_it_costs_in_the_end(
    desk: Desk, seed: int
) -> None:
    chance = random.Random(seed)
    subscription = await desk.subscription(price="0.37", free="100")
    counted: dict[str, Decimal] = {}
    start = desk.clock.now()
    for period in (MONTH, NEXT, "2027-01"):
        for _ in range(12):
            at = start if chance.random() < 0.3 and desk.clock.now() - start < timedelta(days=30) else desk.clock.now()
            event = desk.bazaar.event(subscription, str(chance.randint(1, 90)), at=at)
            await desk.bazaar.take([event])
            counted[event.id] = Decimal(event.units["characters"])
        for call in chance.sample(sorted(counted), 3):
            units = None if chance.random() < 0.5 else {"characters": Decimal(chance.randint(1, 90))}
            made = await desk.invoices.correct_call(PLATFORM, UUID(call), units=units, reason="so it is")
            del counted[call]
            if units is not None:
                counted[str(made.replaced_by)] = units["characters"]
        desk.clock.advance(days=31)
        await desk.invoices.issue(PLATFORM, period, subscription.org)
    invoices = (await desk.invoices.page(PLATFORM, org=subscription.org)).items
    found: dict[str, Decimal] = {}
    for invoice in invoices:
        for line in await desk.lines(invoice):
            for one in (await desk.invoices.calls(PLATFORM, line)).items:
                found[str(one.id)] = found.get(str(one.id), Decimal(0)) + one.quantity
    assert {call: quantity for call, quantity in found.items() if quantity} == counted
    lines = [line for one in invoices for line in await desk.invoices.lines(PLATFORM, one.id)]
    for period in {line["period"] for line in lines}:
        own = [line for line in lines if line["period"] == period]
        quantity = sum(line["quantity"] for line in own)
        assert sum(line["free_units"] for line in own) == min(quantity, 100)
        exact = (quantity - min(quantity, 100)) * Decimal("0.37")
        assert sum(line["taxable"] for line in own) == exact.quantize(Decimal("0.01"), rounding="ROUND_HALF_UP")
    assert await desk.made_anew() == []


@pytest.mark.parametrize(
    "units", [{}, {"words": Decimal(1)}, {"characters": Decimal(-1)}, {"characters": Decimal("NaN")}]
)
async def test_what_is_no_correction_is_refused(desk: Desk, units: dict[str, Decimal]) -> None:
    _, _, events = await a_billed_month(desk, "10")
    with pytest.raises(ValidationFailed):
        await desk.invoices.correct_call(PLATFORM, UUID(events[0].id), units=units, reason="so it is")
    assert await desk.bazaar.rows("SELECT call_id FROM usage_corrections") == []


async def test_only_the_operator_corrects_and_only_what_there_is(desk: Desk) -> None:
    subscription, _, events = await a_billed_month(desk, "10")
    with pytest.raises(PermissionDenied):
        await desk.invoices.correct_call(consumer(subscription.org), UUID(events[0].id), units=None, reason="no")
    with pytest.raises(NotFound):
        await desk.invoices.correct_call(PLATFORM, subscription.id, units=None, reason="no")
    with pytest.raises(ValidationFailed):
        await desk.invoices.correct_call(PLATFORM, UUID(events[0].id), units=None, reason=" ")

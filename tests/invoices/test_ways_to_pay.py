"""What every way to pay keeps to: the built-in bank transfer, and a provider that a plugin brings."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from typing import Protocol
from uuid import UUID

import pytest

from bazaar import consumer
from desk import Desk
from haat.invoices.payments import Payments
from haat.invoices.ports import Notice, PaymentProvider, Return
from haat.invoices.service import Invoice
from haat.kernel.ids import new_id
from haat.kernel.permissions import PLATFORM
from till import Card, Till, open_till


class Way(Protocol):
    """How money of an amount comes in for an invoice, and goes back; the same name is the same movement."""

    async def pay(self, invoice: Invoice, amount: Decimal, name: str) -> None: ...

    async def send_back(self, invoice: Invoice, amount: Decimal, name: str, back: str) -> None: ...


class ByTransfer:
    def __init__(self, desk: Desk, payments: Payments) -> None:
        self.payments = payments
        self.paid: dict[str, UUID] = {}

    async def pay(self, invoice: Invoice, amount: Decimal, name: str) -> None:
        payment = await self.payments.record(PLATFORM, invoice.org_id, amount, name, invoice=invoice.id)
        self.paid[name] = payment.id

    async def send_back(self, invoice: Invoice, amount: Decimal, name: str, back: str) -> None:
        await self.payments.refund(PLATFORM, self.paid[name], amount, back)


class ByCard:
    def __init__(self, desk: Desk, payments: Payments, till: Till) -> None:
        self.desk, self.payments, self.till = desk, payments, till
        self.begun: dict[str, str] = {}

    async def pay(self, invoice: Invoice, amount: Decimal, name: str) -> None:
        if name not in self.begun:
            self.begun[name] = (await self.payments.begin(consumer(invoice.org_id), invoice.id, "card")).reference
        reference, now = self.begun[name], self.desk.clock.now()
        await self.payments.hear(
            "card", *self.till.message(reference, "payment.captured", now, amount=int(amount * 100))
        )

    async def send_back(self, invoice: Invoice, amount: Decimal, name: str, back: str) -> None:
        message = self.till.back(
            self.begun[name], "refund.processed", back, self.desk.clock.now(), amount=int(amount * 100)
        )
        await self.payments.hear("card", *message)


@pytest.fixture
def till() -> Iterator[Till]:
    with open_till() as one:
        yield one


@pytest.fixture
def cards(desk: Desk, till: Till) -> Payments:
    return Payments(desk.database.app, desk.clock, lambda: {"card": Card(till)})


@pytest.fixture(params=["transfer", "card"])
def way(request: pytest.FixtureRequest, desk: Desk, cards: Payments, till: Till) -> Way:
    return ByTransfer(desk, cards) if request.param == "transfer" else ByCard(desk, cards, till)


async def test_what_comes_in_pays_and_is_booked_once(desk: Desk, way: Way) -> None:
    _, invoice = await desk.billed("100")
    for _ in range(3):
        await way.pay(invoice, Decimal(118), "one")
    assert (await desk.again(invoice)).state == "paid"
    assert await desk.books() == {"bank": 118, "revenue": -100, "tax/IGST": -18}
    assert await desk.made_anew() == []


async def test_a_part_leaves_the_rest_owed_and_a_second_part_pays_it(desk: Desk, way: Way) -> None:
    _, invoice = await desk.billed("100")
    await way.pay(invoice, Decimal("100.50"), "one")
    after = await desk.again(invoice)
    assert (after.state, after.owed) == ("issued", Decimal("17.50"))
    await way.pay(invoice, Decimal("17.50"), "two")
    assert (await desk.again(invoice)).state == "paid"


async def test_too_much_stays_as_credit(desk: Desk, cards: Payments, way: Way) -> None:
    subscription, invoice = await desk.billed("100")
    await way.pay(invoice, Decimal(200), "one")
    assert (await desk.again(invoice)).paid == 118
    assert (await desk.books())[f"receivable/{subscription.org}"] == -82
    assert (await cards.page(consumer(subscription.org))).items[0].unspent == 82


async def test_what_goes_back_is_due_again_and_booked_once(desk: Desk, way: Way) -> None:
    subscription, invoice = await desk.billed("100")
    await way.pay(invoice, Decimal(118), "one")
    await asyncio.gather(*[way.send_back(invoice, Decimal(18), "one", "back") for _ in range(3)])
    after = await desk.again(invoice)
    assert (after.state, after.owed) == ("issued", 18)
    books = await desk.books()
    assert (books["bank"], books[f"receivable/{subscription.org}"]) == (100, 18)
    await way.pay(invoice, Decimal(18), "two")
    assert (await desk.again(invoice)).state == "paid"
    assert await desk.made_anew() == []


async def test_what_was_too_much_goes_back_and_the_invoice_stays_paid(desk: Desk, way: Way) -> None:
    _, invoice = await desk.billed("100")
    await way.pay(invoice, Decimal(200), "one")
    await way.send_back(invoice, Decimal(82), "one", "back")
    assert (await desk.again(invoice)).state == "paid"
    assert await desk.books() == {"bank": 118, "revenue": -100, "tax/IGST": -18}


async def test_what_comes_for_a_void_invoice_is_kept_as_credit(desk: Desk, way: Way) -> None:
    subscription, invoice = await desk.billed("100")
    await way.pay(invoice, Decimal(1), "one")
    await way.send_back(invoice, Decimal(1), "one", "back")
    await desk.invoices.void(PLATFORM, invoice.id, "the wrong buyer")
    await way.pay(invoice, Decimal(1), "one")
    assert (await desk.again(invoice)).state == "void"
    assert await desk.books() == {}
    successor = await desk.invoices.issue(PLATFORM, invoice.period, subscription.org)
    assert successor is not None and successor.owed == 118
    await way.pay(successor, Decimal(118), "two")
    assert (await desk.again(successor)).state == "paid"
    assert await desk.made_anew() == []


async def test_a_provider_asks_once_for_an_order_and_says_nothing_of_what_is_not_money(till: Till) -> None:
    card = Card(till)
    assert isinstance(card, PaymentProvider)
    order = new_id()
    asked = [await card.begin(order=order, amount=Decimal("1.50"), description="Invoice 1") for _ in range(2)]
    assert asked[0] == asked[1] != await card.begin(order=new_id(), amount=Decimal(1), description="Invoice 1")
    reference = asked[0].reference
    assert card.read({"event": "customer.updated"}) is None
    told = {"order": reference, "amount": 150, "currency": "INR", "id": "r"}
    assert card.read({"event": "payment.captured", **told}) == Notice(reference, "succeeded", Decimal("1.5"))
    taken = Return("chargeback", reference, "r", "gone", Decimal("1.5"))
    assert card.read({"event": "dispute.created", **told}) == taken

"""Payments: recorded once, put to what is due, and told of by a provider whose messages come twice and in any order."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from bazaar import Subscription, consumer
from desk import MONTH, Desk
from haat.invoices.messages import NotTheirs
from haat.invoices.payments import Payments
from haat.invoices.service import Invoice, Invoices
from haat.kernel.errors import (
    Conflict,
    IdempotencyMismatch,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    ValidationFailed,
)
from haat.kernel.permissions import PLATFORM
from haat.ledger import service as ledger
from haat.ledger.model import Operation, account, moved
from haat.settings import Settings
from till import Card, Till, open_till


@pytest.fixture
def till() -> Iterator[Till]:
    with open_till() as one:
        yield one


@pytest.fixture
def cards(desk: Desk, till: Till) -> Payments:
    return Payments(desk.database.app, desk.clock, lambda: {"card": Card(till)})


async def test_a_transfer_pays_the_invoice_and_is_booked_once(desk: Desk, payments: Payments) -> None:
    subscription, invoice = await desk.billed("100")
    paid = [await payments.record(PLATFORM, subscription.org, Decimal(118), "UTR 1") for _ in range(3)]
    assert len({one.id for one in paid}) == 1
    after = await desk.again(invoice)
    assert (after.state, after.paid, after.owed) == ("paid", Decimal("118.00"), 0)
    assert await desk.books() == {
        "bank": Decimal("118.00"),
        "revenue": Decimal("-100.00"),
        "tax/IGST": Decimal("-18.00"),
    }
    assert await desk.types(f"invoice/{invoice.id}") == ["invoice.issued", "invoice.paid"]
    assert await desk.made_anew() == []


async def test_the_same_transfer_at_once_is_booked_once(desk: Desk, payments: Payments) -> None:
    subscription, _ = await desk.billed("100")
    await asyncio.gather(*[payments.record(PLATFORM, subscription.org, Decimal(118), "UTR 1") for _ in range(5)])
    assert (await desk.books())["bank"] == 118


async def test_a_partial_payment_leaves_the_rest_owed(desk: Desk, payments: Payments) -> None:
    subscription, invoice = await desk.billed("100")
    await payments.record(PLATFORM, subscription.org, Decimal("100.50"), "UTR 1")
    after = await desk.again(invoice)
    assert (after.state, after.owed) == ("issued", Decimal("17.50"))
    await payments.record(PLATFORM, subscription.org, Decimal("17.50"), "UTR 2")
    assert (await desk.again(invoice)).state == "paid"
    assert await desk.types(f"invoice/{invoice.id}") == ["invoice.issued", "invoice.paid_in_part", "invoice.paid"]


async def test_what_is_paid_too_much_stays_as_credit_and_pays_the_next_invoice(desk: Desk, payments: Payments) -> None:
    subscription, _ = await desk.billed("100")
    await payments.record(PLATFORM, subscription.org, Decimal(200), "UTR 1")
    assert (await desk.books())[f"receivable/{subscription.org}"] == Decimal("-82.00")
    ((payment),) = (await payments.page(consumer(subscription.org))).items
    assert payment.unspent == Decimal("82.00")
    await desk.bazaar.take([desk.bazaar.event(subscription, "100")])
    desk.clock.advance(days=31)
    second = await desk.invoices.issue(PLATFORM, "2026-12", subscription.org)
    assert second is not None and (second.paid, second.owed) == (Decimal("82.00"), Decimal("36.00"))
    ((source),) = await desk.invoices.allocations(consumer(subscription.org), second.id)
    assert source["source"] == f"payment/{payment.id}"
    assert (await payments.page(PLATFORM, org=subscription.org)).items[0].unspent == 0
    assert await desk.made_anew() == []


async def test_what_is_due_first_is_paid_first_unless_an_invoice_is_named(desk: Desk, payments: Payments) -> None:
    subscription, first = await desk.billed("100")
    await desk.bazaar.take([desk.bazaar.event(subscription, "100")])
    desk.clock.advance(days=31)
    second = await desk.invoices.issue(PLATFORM, "2026-12", subscription.org)
    assert second is not None
    await payments.record(PLATFORM, subscription.org, Decimal(10), "UTR 1")
    await payments.record(PLATFORM, subscription.org, Decimal(20), "UTR 2", invoice=second.id)
    assert [(await desk.again(one)).paid for one in (first, second)] == [10, 20]


async def test_a_known_reference_with_another_amount_is_refused(desk: Desk, payments: Payments) -> None:
    subscription, _ = await desk.billed("100")
    await payments.record(PLATFORM, subscription.org, Decimal(10), "UTR 1")
    with pytest.raises(IdempotencyMismatch):
        await payments.record(PLATFORM, subscription.org, Decimal(11), "UTR 1")
    assert (await desk.books())["bank"] == 10


@pytest.mark.parametrize("amount", ["0", "-5", "0.001", "1e30", "NaN"])
async def test_what_is_no_amount_is_refused(desk: Desk, payments: Payments, amount: str) -> None:
    subscription, _ = await desk.billed("100")
    with pytest.raises(ValidationFailed):
        await payments.record(PLATFORM, subscription.org, Decimal(amount), "UTR 1")
    assert "bank" not in await desk.books()


async def test_payments_are_the_operators_to_record_and_their_owners_to_see(desk: Desk, payments: Payments) -> None:
    subscription, invoice = await desk.billed("100")
    with pytest.raises(PermissionDenied):
        await payments.record(consumer(subscription.org), subscription.org, Decimal(1), "UTR 1")
    await payments.record(PLATFORM, subscription.org, Decimal(1), "UTR 1")
    stranger = consumer(await desk.bazaar.organisation("Other"))
    assert (await payments.page(stranger)).items == []
    with pytest.raises(NotFound):
        await payments.page(stranger, org=subscription.org)
    with pytest.raises(NotFound):
        await payments.record(PLATFORM, stranger.org_id, Decimal(1), "UTR 2", invoice=invoice.id)  # type: ignore[arg-type]


# --- a provider's messages ------------------------------------------------------------------------


async def ordered(desk: Desk, cards: Payments) -> tuple[Subscription, Invoice, str]:
    subscription, invoice = await desk.billed("100")
    order = await cards.begin(consumer(subscription.org), invoice.id, "card")
    return subscription, invoice, order.reference


async def test_a_card_payment_is_begun_there_and_booked_when_its_message_comes(
    desk: Desk, cards: Payments, till: Till
) -> None:
    _, invoice, reference = await ordered(desk, cards)
    assert till.orders[reference]["amount"] == 11800 and invoice.serial in till.orders[reference]["description"]
    assert (await desk.again(invoice)).state == "issued", "nothing is believed before the message"
    assert await cards.hear("card", *till.message(reference, "payment.captured", desk.clock.now()))
    assert (await desk.again(invoice)).state == "paid"
    assert (await desk.books())["bank"] == 118
    assert await desk.made_anew() == []


async def test_a_message_that_comes_twice_or_a_hundred_times_at_once_is_booked_once(
    desk: Desk, cards: Payments, till: Till
) -> None:
    _, _, reference = await ordered(desk, cards)
    message = till.message(reference, "payment.captured", desk.clock.now())
    other = till.message(reference, "payment.captured", desk.clock.now())
    changed = await asyncio.gather(*[cards.hear("card", *one) for one in [message] * 4 + [other] * 4])
    assert sum(changed) == 1
    assert (await desk.books())["bank"] == 118


@pytest.mark.parametrize("order", [*itertools.permutations(["payment.pending", "payment.failed", "payment.captured"])])
async def test_messages_in_any_order_come_to_the_same(
    desk: Desk, cards: Payments, till: Till, order: tuple[str, ...]
) -> None:
    _, invoice, reference = await ordered(desk, cards)
    for event in order:
        await cards.hear("card", *till.message(reference, event, desk.clock.now()))
    assert (await desk.again(invoice)).state == "paid"
    assert (await desk.books())["bank"] == 118
    (row,) = await desk.bazaar.rows("SELECT state FROM payment_orders")
    assert row["state"] == "succeeded"
    assert await desk.made_anew() == []


async def test_a_payment_that_only_failed_pays_nothing(desk: Desk, cards: Payments, till: Till) -> None:
    _, invoice, reference = await ordered(desk, cards)
    await cards.hear("card", *till.message(reference, "payment.failed", desk.clock.now()))
    assert (await desk.again(invoice)).state == "issued" and "bank" not in await desk.books()


async def test_what_the_provider_took_is_booked_even_if_it_was_asked_for_more(
    desk: Desk, cards: Payments, till: Till
) -> None:
    _, invoice, reference = await ordered(desk, cards)
    await cards.hear("card", *till.message(reference, "payment.captured", desk.clock.now(), amount=5000))
    assert (await desk.again(invoice)).owed == Decimal("68.00")


async def test_messages_about_something_else_change_nothing(desk: Desk, cards: Payments, till: Till) -> None:
    _, _, reference = await ordered(desk, cards)
    assert not await cards.hear("card", *till.message(reference, "customer.updated", desk.clock.now()))


async def test_a_forged_changed_or_replayed_message_is_not_believed(desk: Desk, cards: Payments, till: Till) -> None:
    _, invoice, reference = await ordered(desk, cards)
    headers, body = till.message(reference, "payment.captured", desk.clock.now())
    other = Till(orders=till.orders)
    attempts: list[tuple[dict[str, str], bytes]] = [
        (headers, body.replace(b"11800", b"11801")),
        ({**headers, "webhook-id": "msg_9"}, body),
        ({**headers, "webhook-signature": "v1,AAAA"}, body),
        ({**headers, "webhook-signature": "v1,é"}, body),
        ({**headers, "webhook-signature": headers["webhook-signature"].replace("v1,", "v2,")}, body),
        ({**headers, "webhook-timestamp": "soon"}, body),
        ({}, body),
        other.message(reference, "payment.captured", desk.clock.now()),
        till.message(reference, "payment.captured", desk.clock.now() - timedelta(minutes=6)),
        till.message(reference, "payment.captured", desk.clock.now() + timedelta(minutes=6)),
    ]
    for attempt in attempts:
        with pytest.raises(NotTheirs):
            await cards.hear("card", *attempt)
    assert (await desk.again(invoice)).state == "issued"
    assert await cards.hear("card", headers, body)


async def test_a_message_that_could_not_be_booked_is_taken_when_it_comes_again(
    desk: Desk, cards: Payments, till: Till
) -> None:
    _, _, reference = await ordered(desk, cards)
    till.orders["order_9999"] = {"key": "-", "amount": 1}
    with pytest.raises(NotFound):
        await cards.hear("card", *till.message("order_9999", "payment.captured", desk.clock.now()))
    message = till.message(reference, "payment.captured", desk.clock.now(), currency="EUR")
    for _ in range(2):
        with pytest.raises(ValidationFailed):
            await cards.hear("card", *message)
    assert "bank" not in await desk.books()


async def test_what_cant_be_paid_is_refused_with_a_reason(desk: Desk, cards: Payments, payments: Payments) -> None:
    subscription, invoice = await desk.billed("100")
    with pytest.raises(NotFound, match="no payment provider"):
        await cards.begin(consumer(subscription.org), invoice.id, "cheque")
    stranger = consumer(await desk.bazaar.organisation("Other"))
    with pytest.raises(NotFound):
        await cards.begin(stranger, invoice.id, "card")
    await payments.record(PLATFORM, subscription.org, Decimal(118), "UTR 1")
    with pytest.raises(Conflict, match="nothing to pay"):
        await cards.begin(consumer(subscription.org), invoice.id, "card")
    with pytest.raises(InvalidRequest):
        await cards.hear("card", {}, b"{}")


# --- a wallet -------------------------------------------------------------------------------------


class Purse:
    """A wallet with a fixed sum, which posts as the wallet domain does."""

    def __init__(self, holds: Decimal) -> None:
        self.holds = holds

    async def filled(self, connection: Any, orgs: Sequence[UUID]) -> set[UUID]:
        return set(orgs) if self.holds else set()

    async def pay(self, connection: Any, org: UUID, *, invoice: UUID, amount: Decimal, at: Any) -> Decimal:
        drawn = min(self.holds, amount)
        self.holds -= drawn
        entries = moved(account("wallet", org), account("receivable", org), drawn)
        if drawn:
            await ledger.post(connection, [Operation(f"wallet/{invoice}", "payment", at, entries)])
        return drawn


@pytest.mark.parametrize(
    ("holds", "state", "owed"), [("0", "issued", "118.00"), ("18", "issued", "100.00"), ("500", "paid", "0")]
)
async def test_a_wallet_pays_what_it_can_when_the_invoice_is_issued(
    desk: Desk, holds: str, state: str, owed: str
) -> None:
    purse = Purse(Decimal(holds))
    desk.invoices = Invoices(desk.database.app, desk.clock, Settings(), wallets=purse)
    subscription, invoice = await desk.billed("100")
    assert (invoice.state, invoice.owed) == (state, Decimal(owed))
    assert (await desk.books()).get(f"receivable/{subscription.org}", 0) == Decimal(owed)
    assert await desk.invoices.issue(PLATFORM, MONTH, subscription.org) == invoice
    assert await desk.made_anew() == []

"""Money that goes back: refunds, and chargebacks that are lost or won, told of twice and in any order."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from bazaar import Subscription, consumer
from desk import Desk
from haat.invoices.credits import CreditItem
from haat.invoices.messages import NotTheirs
from haat.invoices.payments import Payments
from haat.invoices.service import Invoice
from haat.kernel.errors import Conflict, HaatError, IdempotencyMismatch, NotFound, PermissionDenied, ValidationFailed
from haat.kernel.permissions import PLATFORM
from till import Card, Till, open_till


@pytest.fixture
def till() -> Iterator[Till]:
    with open_till() as one:
        yield one


@pytest.fixture
def cards(desk: Desk, till: Till) -> Payments:
    return Payments(desk.database.app, desk.clock, lambda: {"card": Card(till)})


async def ordered(desk: Desk, cards: Payments) -> tuple[Subscription, Invoice, str]:
    subscription, invoice = await desk.billed("100")
    order = await cards.begin(consumer(subscription.org), invoice.id, "card")
    return subscription, invoice, order.reference


async def paid(desk: Desk, cards: Payments, till: Till) -> tuple[Subscription, Invoice, str]:
    subscription, invoice, reference = await ordered(desk, cards)
    await cards.hear("card", *till.message(reference, "payment.captured", desk.clock.now()))
    return subscription, invoice, reference


async def test_a_refunded_payment_is_due_again_and_the_books_say_both(desk: Desk, cards: Payments, till: Till) -> None:
    subscription, invoice, reference = await paid(desk, cards, till)
    assert await cards.hear("card", *till.back(reference, "refund.processed", "rfd_1", desk.clock.now(), amount=1800))
    after = await desk.again(invoice)
    assert (after.state, after.paid, after.owed) == ("issued", Decimal("100.00"), Decimal("18.00"))
    books = await desk.books()
    assert (books["bank"], books[f"receivable/{subscription.org}"]) == (Decimal("100.00"), Decimal("18.00"))
    assert await desk.types(f"invoice/{invoice.id}") == ["invoice.issued", "invoice.paid", "invoice.reopened"]
    (payment,) = (await cards.page(consumer(subscription.org))).items
    assert (payment.returned, payment.unspent) == (Decimal("18.00"), 0)
    (refund,) = await cards.returns(consumer(subscription.org), payment.id)
    assert (refund.kind, refund.state, refund.amount) == ("refund", "gone", Decimal("18.00"))
    assert await desk.made_anew() == []


async def test_a_refund_that_is_only_asked_for_moves_nothing(desk: Desk, cards: Payments, till: Till) -> None:
    _, invoice, reference = await paid(desk, cards, till)
    assert await cards.hear("card", *till.back(reference, "refund.created", "rfd_1", desk.clock.now()))
    assert (await desk.again(invoice)).state == "paid" and (await desk.books())["bank"] == 118
    assert await cards.hear("card", *till.back(reference, "refund.failed", "rfd_1", desk.clock.now()))
    assert (await desk.again(invoice)).state == "paid" and (await desk.books())["bank"] == 118


async def test_a_chargeback_makes_an_old_invoice_overdue_and_a_won_one_pays_it_again(
    desk: Desk, cards: Payments, till: Till
) -> None:
    _, invoice, reference = await paid(desk, cards, till)
    desk.clock.advance(days=60)
    await cards.hear("card", *till.back(reference, "dispute.created", "dsp_1", desk.clock.now()))
    after = await desk.again(invoice)
    assert (after.state, after.owed) == ("overdue", Decimal("118.00")) and "bank" not in await desk.books()
    assert not await cards.hear("card", *till.back(reference, "dispute.lost", "dsp_1", desk.clock.now()))
    await cards.hear("card", *till.back(reference, "dispute.won", "dsp_1", desk.clock.now()))
    assert (await desk.again(invoice)).state == "paid" and (await desk.books())["bank"] == 118
    assert await desk.made_anew() == []


@pytest.mark.parametrize(
    "order", [*itertools.permutations([("payment.captured", ""), ("refund.processed", "r"), ("dispute.created", "d")])]
)
async def test_a_chargeback_after_a_refund_is_owed_beside_the_invoice_in_whatever_order_they_are_told(
    desk: Desk, cards: Payments, till: Till, order: Sequence[tuple[str, str]]
) -> None:
    subscription, invoice, reference = await ordered(desk, cards)
    for event, name in order:
        now = desk.clock.now()
        await cards.hear(
            "card", *(till.back(reference, event, name, now) if name else till.message(reference, event, now))
        )
    assert (await desk.again(invoice)).owed == 118
    books = await desk.books()
    assert (books["bank"], books[f"receivable/{subscription.org}"]) == (-118, 236)
    (payment,) = (await cards.page(consumer(subscription.org))).items
    assert (payment.returned, payment.unspent) == (236, -118)
    assert await desk.made_anew() == []


async def test_a_refund_before_its_payment_waits_for_it(desk: Desk, cards: Payments, till: Till) -> None:
    _, invoice, reference = await ordered(desk, cards)
    await cards.hear("card", *till.back(reference, "refund.processed", "rfd_1", desk.clock.now(), amount=1800))
    assert "bank" not in await desk.books(), "what was never here can't go"
    await cards.hear("card", *till.message(reference, "payment.captured", desk.clock.now()))
    assert (await desk.again(invoice)).owed == 18 and (await desk.books())["bank"] == 100


async def test_what_was_credited_pays_an_invoice_whose_payment_went_back(
    desk: Desk, cards: Payments, till: Till
) -> None:
    _, invoice, reference = await paid(desk, cards, till)
    (line,) = await desk.lines(invoice)
    items = [CreditItem(line, Decimal("100.00"), "platform")]
    await desk.invoices.credit(PLATFORM, items, key="k", reason="goodwill")
    await cards.hear("card", *till.back(reference, "refund.processed", "rfd_1", desk.clock.now()))
    after = await desk.again(invoice)
    assert (after.state, after.paid, after.credited) == ("paid", 0, 118)
    assert await desk.books() == {}
    assert await desk.made_anew() == []


async def test_a_payment_for_an_invoice_that_was_voided_stays_and_pays_its_successor(
    desk: Desk, cards: Payments, till: Till
) -> None:
    subscription, invoice, reference = await ordered(desk, cards)
    await desk.invoices.void(PLATFORM, invoice.id, "the wrong buyer")
    await cards.hear("card", *till.message(reference, "payment.captured", desk.clock.now()))
    assert (await desk.again(invoice)).state == "void"
    assert (await desk.books())[f"receivable/{subscription.org}"] == -118
    successor = await desk.invoices.issue(PLATFORM, invoice.period, subscription.org)
    assert successor is not None and successor.id != invoice.id and successor.state == "paid"
    assert await desk.made_anew() == []


async def test_an_invoice_whose_payment_went_back_can_be_voided(desk: Desk, cards: Payments, till: Till) -> None:
    _, invoice, reference = await paid(desk, cards, till)
    with pytest.raises(Conflict):
        await desk.invoices.void(PLATFORM, invoice.id, "the wrong buyer")
    await cards.hear("card", *till.back(reference, "refund.processed", "rfd_1", desk.clock.now()))
    assert (await desk.invoices.void(PLATFORM, invoice.id, "the wrong buyer")).state == "void"
    assert await desk.books() == {}
    assert await desk.made_anew() == []


# --- what is not believed, and what is not lost ---------------------------------------------------


async def test_a_forged_refund_is_not_believed(desk: Desk, cards: Payments, till: Till) -> None:
    _, invoice, reference = await paid(desk, cards, till)
    headers, body = till.back(reference, "refund.processed", "rfd_1", desk.clock.now(), amount=100)
    with pytest.raises(NotTheirs):
        await cards.hear("card", headers, body.replace(b"100", b"900"))
    with pytest.raises(NotTheirs):
        await cards.hear("card", *till.back(reference, "refund.processed", "r", desk.clock.now() - timedelta(hours=1)))
    assert (await desk.again(invoice)).state == "paid" and await cards.refused(PLATFORM) == []


async def test_a_refund_told_of_many_times_at_once_is_booked_once(desk: Desk, cards: Payments, till: Till) -> None:
    _, _, reference = await paid(desk, cards, till)
    said = [till.back(reference, "refund.processed", "rfd_1", desk.clock.now(), amount=1800) for _ in range(4)]
    changed = await asyncio.gather(*[cards.hear("card", *one) for one in said * 2])
    assert sum(changed) == 1 and (await desk.books())["bank"] == 100


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            {"event": "payment.captured", "amount": 11800, "currency": "EUR"},
            "currency: Only rupees are booked, not EUR",
        ),
        ({"event": "payment.captured", "amount": "0.5", "currency": "INR"}, "amount: Give rupees above 0"),
        ({"event": "payment.captured", "amount": "NaN", "currency": "INR"}, "amount: Give rupees above 0"),
        ({"event": "payment.captured", "amount": 11800, "currency": "INR", "order": "order_9"}, "No payment order_9"),
        ({"event": "payment.captured", "amount": "much", "currency": "INR"}, "can't read this message"),
        ({"event": "refund.processed", "id": "r", "amount": 0, "currency": "INR"}, "amount: Give rupees above 0"),
        ({"event": "refund.processed", "id": "r", "amount": 1, "currency": "USD"}, "currency: Only rupees"),
        ({"event": "dispute.created", "amount": 1, "currency": "INR"}, "can't read this message (KeyError)"),
    ],
)
async def test_what_cant_be_booked_is_refused_with_its_reason_and_kept_for_the_operator(
    desk: Desk, cards: Payments, till: Till, message: dict[str, Any], reason: str
) -> None:
    _, _, reference = await ordered(desk, cards)
    books = await desk.books()
    headers, body = till.signed({"order": reference, **message}, desk.clock.now())
    for _ in range(2):
        with pytest.raises(HaatError):
            await cards.hear("card", headers, body)
    (kept,) = await cards.refused(PLATFORM)
    assert reason in kept.reason and (kept.attempts, kept.body) == (2, body.decode())
    assert await desk.books() == books
    await cards.deal_with(PLATFORM, "card", kept.message_id, "sent back by hand")
    assert await cards.refused(PLATFORM) == []
    with pytest.raises(NotFound):
        await cards.deal_with(PLATFORM, "card", kept.message_id, "again")


async def test_another_amount_for_what_is_booked_is_refused_and_kept(desk: Desk, cards: Payments, till: Till) -> None:
    _, _, reference = await paid(desk, cards, till)
    await cards.hear("card", *till.back(reference, "dispute.created", "dsp_1", desk.clock.now(), amount=5000))
    for message in (
        till.message(reference, "payment.captured", desk.clock.now(), amount=5000),
        till.back(reference, "dispute.won", "dsp_1", desk.clock.now(), amount=4000),
    ):
        with pytest.raises(Conflict):
            await cards.hear("card", *message)
    assert [one.reason.rpartition(" is known")[0] for one in await cards.refused(PLATFORM)] == [
        f"card/{reference}",
        "The chargeback dsp_1",
    ]
    assert (await desk.books())["bank"] == 68


async def test_a_message_that_can_be_booked_after_all_is_kept_no_longer(
    desk: Desk, cards: Payments, till: Till
) -> None:
    _, invoice, reference = await ordered(desk, cards)
    message = till.message(reference, "payment.captured", desk.clock.now())
    async with desk.owner() as connection:
        await connection.execute("ALTER TABLE payment_orders DISABLE TRIGGER ALL")
        await connection.execute("UPDATE payment_orders SET reference = 'elsewhere'")
    with pytest.raises(NotFound):
        await cards.hear("card", *message)
    async with desk.owner() as connection:
        await connection.execute("UPDATE payment_orders SET reference = %s", (reference,))
    assert len(await cards.refused(PLATFORM)) == 1
    assert await cards.hear("card", *message)
    assert await cards.refused(PLATFORM) == [] and (await desk.again(invoice)).state == "paid"


# --- transfers ------------------------------------------------------------------------------------


async def test_what_was_paid_too_much_is_sent_back_by_transfer_once(desk: Desk, payments: Payments) -> None:
    subscription, invoice = await desk.billed("100")
    payment = await payments.record(PLATFORM, subscription.org, Decimal(200), "UTR 1")
    assert payment.unspent == 82
    sent = [await payments.refund(PLATFORM, payment.id, Decimal(82), "UTR 2") for _ in range(3)]
    assert len({one.id for one in sent}) == 1
    assert (await desk.again(invoice)).state == "paid", "what pays the invoice is still here"
    assert (await desk.books())["bank"] == 118
    assert f"receivable/{subscription.org}" not in await desk.books()
    assert await desk.made_anew() == []


async def test_no_more_is_sent_back_than_came_in_even_at_once(desk: Desk, payments: Payments) -> None:
    subscription, invoice = await desk.billed("100")
    payment = await payments.record(PLATFORM, subscription.org, Decimal(118), "UTR 1")
    attempts = [payments.refund(PLATFORM, payment.id, Decimal(50), f"UTR {one}") for one in range(2, 6)]
    done = await asyncio.gather(*attempts, return_exceptions=True)
    assert sorted(type(one).__name__ for one in done) == ["Conflict", "Conflict", "Returned", "Returned"]
    assert (await desk.books())["bank"] == 18 and (await desk.again(invoice)).owed == 100


async def test_refunds_by_transfer_are_the_operators_and_held_against_what_is_known(
    desk: Desk, payments: Payments
) -> None:
    subscription, _ = await desk.billed("100")
    payment = await payments.record(PLATFORM, subscription.org, Decimal(118), "UTR 1")
    other = await payments.record(PLATFORM, subscription.org, Decimal(10), "UTR 2")
    await payments.refund(PLATFORM, payment.id, Decimal(8), "UTR 3")
    for wrong, amount in ((payment.id, "9"), (other.id, "8")):
        with pytest.raises(IdempotencyMismatch):
            await payments.refund(PLATFORM, wrong, Decimal(amount), "UTR 3")
    for amount in ("0", "-1", "0.001", "NaN", "1e30"):
        with pytest.raises(ValidationFailed):
            await payments.refund(PLATFORM, payment.id, Decimal(amount), "UTR 4")
    with pytest.raises(NotFound):
        await payments.refund(PLATFORM, subscription.org, Decimal(1), "UTR 4")
    asha, stranger = consumer(subscription.org), consumer(await desk.bazaar.organisation("Other"))
    with pytest.raises(PermissionDenied):
        await payments.refund(asha, payment.id, Decimal(1), "UTR 4")
    with pytest.raises(PermissionDenied):
        await payments.refused(asha)
    with pytest.raises(PermissionDenied):
        await payments.deal_with(asha, "card", "msg_1", "done")
    with pytest.raises(NotFound):
        await payments.returns(stranger, payment.id)
    assert len(await payments.returns(asha, payment.id)) == 1


# --- in any order ---------------------------------------------------------------------------------

Told = tuple[str, str, int, str]
"""An event, its order or transfer, paise, and the name of a refund or dispute."""


def story(chance: random.Random) -> list[Told]:
    """Return what happens to two card payments and a transfer for one invoice of ₹118, in its order."""
    told: list[Told] = []
    for order in ("first", "second"):
        amount = chance.choice([5000, 11800, 20000])
        told += [(event, order, amount, "") for event in ("payment.pending", "payment.failed") if chance.random() < 0.5]
        if chance.random() < 0.85:
            told.append(("payment.captured", order, amount, ""))
        for number in range(chance.randrange(3)):
            part = chance.choice([amount, amount // 2, 1])
            steps = ["refund.created", "refund.processed", "refund.failed"][: chance.randrange(1, 4)]
            told += [(event, order, part, f"{order}-rfd-{number}") for event in steps]
        if chance.random() < 0.6:
            steps = ["dispute.created", *chance.choice([[], ["dispute.lost"], ["dispute.won"]])]
            told += [(event, order, amount, f"{order}-dsp") for event in steps]
    if chance.random() < 0.5:
        told.append(("transfer", "UTR", chance.choice([100, 11800]), ""))
    return told


async def live(desk: Desk, cards: Payments, till: Till, told: Sequence[Told], slug: str) -> Any:
    """Let a story happen to a new customer with an invoice; return how everything of it stands then."""
    service = await desk.bazaar.service(slug, price="1")
    subscription = await desk.bazaar.subscribe(await desk.bazaar.organisation(), service)
    await desk.bazaar.take([desk.bazaar.event(subscription, "100")])
    period = f"{desk.clock.now():%Y-%m}"
    desk.clock.advance(days=31)
    org = subscription.org
    invoice = await desk.invoices.issue(PLATFORM, period, org)
    assert invoice is not None
    orders = {name: (await cards.begin(consumer(org), invoice.id, "card")).reference for name in ("first", "second")}
    for event, name, amount, back in told:
        now = desk.clock.now()
        if event == "transfer":
            await cards.record(PLATFORM, org, Decimal(amount) / 100, f"{name} {slug}")
        elif back:
            await cards.hear("card", *till.back(orders[name], event, f"{back} {slug}", now, amount=amount))
        else:
            await cards.hear("card", *till.message(orders[name], event, now, amount=amount))
    after = await desk.again(invoice)
    payments = (await cards.page(PLATFORM, org=org)).items
    owed = (await desk.books()).get(f"receivable/{org}", Decimal(0))
    assert owed == after.owed - sum(one.unspent for one in payments), "the books and the invoices say the same"
    ordered = await desk.bazaar.rows("SELECT state FROM payment_orders WHERE org_id = %s ORDER BY id", org)
    returned = await desk.bazaar.rows(
        """SELECT split_part(reference, ' ', 1) AS name, state, amount FROM payment_returns
           WHERE org_id = %s ORDER BY name""",
        org,
    )
    return (after.state, after.paid, after.owed), owed, ordered, returned


@pytest.mark.parametrize("seed", range(6))
async def test_a_story_told_twice_over_in_any_order_ends_as_it_does_in_its_own(
    desk: Desk, cards: Payments, till: Till, seed: int
) -> None:
    chance = random.Random(seed)
    for number in range(2):
        told = story(chance)
        shuffled = told + [one for one in told if chance.random() < 0.5]
        chance.shuffle(shuffled)
        in_order = await live(desk, cards, till, told, f"a{number}")
        anyhow = await live(desk, cards, till, shuffled, f"b{number}")
        assert anyhow == in_order, (told, shuffled)
    assert await cards.refused(PLATFORM) == []
    await desk.books()
    assert await desk.made_anew() == []

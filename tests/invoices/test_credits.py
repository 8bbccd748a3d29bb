"""Credit notes, debit notes and voiding: nothing issued is changed, and nothing is given back twice."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bazaar import consumer
from desk import MONTH, Desk
from haat.invoices.credits import CreditItem, CreditNote, DebitItem
from haat.invoices.model import content_hash
from haat.invoices.service import Invoices
from haat.kernel.errors import Conflict, NotFound, PermissionDenied, ValidationFailed
from haat.kernel.money import multiply, to_paisa, total
from haat.kernel.permissions import PLATFORM
from haat.settings import Settings

RATE = Decimal("0.18")


async def credit(desk: Desk, line: object, amount: str, key: str = "k1", reason: str = "goodwill") -> CreditNote:
    item = CreditItem(line, Decimal(amount), "provider")  # type: ignore[arg-type]
    return await desk.invoices.credit(PLATFORM, [item], key=key, reason=reason, reference="ticket 7")


async def test_an_invoice_is_posted_when_it_is_issued(desk: Desk) -> None:
    subscription, invoice = await desk.billed("100")
    assert await desk.books() == {
        f"receivable/{subscription.org}": invoice.total,
        "revenue": Decimal("-100.00"),
        "tax/IGST": Decimal("-18.00"),
    }
    assert (invoice.state, invoice.owed, str(invoice.due_on)) == ("issued", Decimal("118.00"), "2026-12-16")
    assert await desk.made_anew() == []


async def test_an_agent_owes_what_it_billed_to_those_it_sold_for(desk: Desk, database: object) -> None:
    desk.invoices = Invoices(database.app, desk.clock, Settings(supply="agent"))  # type: ignore[attr-defined]
    _, invoice = await desk.billed("100")
    assert (await desk.books())["supplies"] == Decimal("-100.00")
    assert (await desk.invoices.document(PLATFORM, invoice.id))["supply"] == "agent"


async def test_an_invoice_of_nothing_is_paid_and_posts_nothing(desk: Desk) -> None:
    _, invoice = await desk.billed("5", free="10")
    assert (invoice.total, invoice.state) == (0, "paid")
    assert await desk.books() == {}


async def test_a_credit_note_takes_back_value_and_tax_and_lowers_what_is_owed(desk: Desk) -> None:
    subscription, invoice = await desk.billed("100")
    (line,) = await desk.lines(invoice)
    note = await credit(desk, line, "10.00")
    assert (note.serial, note.net, note.tax, note.total) == (
        "HTC/2627/000001",
        Decimal("10.00"),
        Decimal("1.80"),
        Decimal("11.80"),
    )
    assert await desk.books() == {
        f"receivable/{subscription.org}": Decimal("106.20"),
        "revenue": Decimal("-90.00"),
        "tax/IGST": Decimal("-16.20"),
    }
    after = await desk.again(invoice)
    assert (after.state, after.credited, after.owed) == ("issued", Decimal("11.80"), Decimal("106.20"))
    assert after.content_hash == invoice.content_hash
    (row,) = await desk.invoices.credit_note_lines(consumer(subscription.org), note.id)
    assert (row["invoice_line_id"], row["taxable"], row["fault"]) == (line, Decimal("10.00"), "provider")
    body = await desk.invoices.credit_note_document(consumer(subscription.org), note.id)
    assert body["against"] == [{"id": str(invoice.id), "serial": invoice.serial, "date": "2026-12-01"}]
    assert body["taxes"] == [{"name": "IGST", "rate": "0.18", "amount": "1.80"}]
    assert await desk.made_anew() == []


async def test_what_an_sla_costs_is_a_cost_and_not_less_revenue(desk: Desk) -> None:
    _, invoice = await desk.billed("100")
    (line,) = await desk.lines(invoice)
    await credit(desk, line, "10.00", reason="sla")
    books = await desk.books()
    assert (books["credits"], books["revenue"]) == (Decimal("10.00"), Decimal("-100.00"))


async def test_the_same_key_gives_the_same_note(desk: Desk) -> None:
    _, invoice = await desk.billed("100")
    (line,) = await desk.lines(invoice)
    notes = await asyncio.gather(*[credit(desk, line, "60.00") for _ in range(4)])
    assert len({note.id for note in notes}) == 1
    assert (await desk.books())["revenue"] == Decimal("-40.00")


async def test_never_more_than_a_line_has_left_is_credited_whoever_asks_at_once(desk: Desk) -> None:
    _, invoice = await desk.billed("100")
    (line,) = await desk.lines(invoice)
    results = await asyncio.gather(
        *[credit(desk, line, "30.00", key=f"k{n}") for n in range(6)], return_exceptions=True
    )
    notes = [one for one in results if isinstance(one, CreditNote)]
    assert len(notes) == 3 and sum(isinstance(one, ValidationFailed) for one in results) == 3
    assert sorted(note.serial for note in notes) == [f"HTC/2627/{n:06d}" for n in (1, 2, 3)]
    with pytest.raises(ValidationFailed, match="fields"):
        await credit(desk, line, "10.01", key="more")
    assert (await credit(desk, line, "10.00", key="rest")).tax == Decimal("1.80")
    assert (await desk.again(invoice)).state == "paid"


async def test_an_invoice_credited_in_any_parts_gives_back_exactly_its_tax(desk: Desk) -> None:
    _, invoice = await desk.billed("0.37")
    (line,) = await desk.lines(invoice)
    notes = [await credit(desk, line, "0.01", key=f"k{n}") for n in range(37)]
    assert total(note.tax for note in notes) == invoice.tax
    assert await desk.books() == {}


@given(st.lists(st.decimals(min_value="0.01", max_value=10**6, places=2), min_size=1, max_size=30))
@settings(max_examples=200, deadline=None)
def test_taxes_of_parts_rounded_on_the_way_add_up_to_the_tax_of_the_whole(parts: list[Decimal]) -> None:
    """The rule that `haat.invoices.credits` rounds by, on its own."""
    gone = [total(parts[:n]) for n in range(len(parts) + 1)]
    taxes = [to_paisa(multiply(after, RATE)) - to_paisa(multiply(before, RATE)) for before, after in pairwise(gone)]
    assert sum(taxes) == to_paisa(multiply(total(parts), RATE)) and min(taxes) >= 0


@pytest.mark.parametrize("amount", ["0", "-1", "0.001", "100.01"])
async def test_what_is_no_credit_is_refused_and_nothing_is_half_done(desk: Desk, amount: str) -> None:
    _, invoice = await desk.billed("100")
    (line,) = await desk.lines(invoice)
    with pytest.raises(ValidationFailed):
        await credit(desk, line, amount)
    assert await desk.bazaar.rows("SELECT id FROM credit_notes") == []
    assert (await desk.bazaar.rows("SELECT last FROM invoice_serials WHERE prefix = 'HTC'")) == []


async def test_nobody_but_the_operator_credits_and_nobody_sees_anothers_note(desk: Desk) -> None:
    subscription, invoice = await desk.billed("100")
    (line,) = await desk.lines(invoice)
    item = CreditItem(line, Decimal("1.00"), "platform")
    with pytest.raises(PermissionDenied):
        await desk.invoices.credit(consumer(subscription.org), [item], key="k", reason="goodwill")
    note = await credit(desk, line, "1.00")
    stranger = consumer(await desk.bazaar.organisation("Other"))
    for attempt in (
        desk.invoices.credit_note(stranger, note.id),
        desk.invoices.credit_note_document(stranger, note.id),
        desk.invoices.credit_note_lines(stranger, note.id),
        desk.invoices.credit_notes(stranger, org=subscription.org),
    ):
        with pytest.raises(NotFound):
            await attempt
    assert (await desk.invoices.credit_notes(consumer(subscription.org))).items == [note]


async def test_lines_of_two_organisations_are_not_credited_together(desk: Desk) -> None:
    _, first = await desk.billed("100")
    other = await desk.subscription(slug="read")
    await desk.bazaar.take([desk.bazaar.event(other, "5")])
    second = await desk.invoices.issue(PLATFORM, "2026-12", other.org, until=2)
    assert second is not None
    items = [CreditItem((await desk.lines(one))[0], Decimal("1.00"), "platform") for one in (first, second)]
    with pytest.raises(ValidationFailed):
        await desk.invoices.credit(PLATFORM, items, key="k", reason="goodwill")


async def test_a_debit_note_adds_to_a_line_and_is_paid_like_an_invoice(desk: Desk) -> None:
    subscription, invoice = await desk.billed("100")
    (line,) = await desk.lines(invoice)
    note = await desk.invoices.debit(PLATFORM, [DebitItem(line, Decimal("20.00"))], key="d1", reason="undercharged")
    assert (note.kind, note.serial, note.against, note.total) == (
        "debit_note",
        "HTD/2627/000001",
        invoice.id,
        Decimal("23.60"),
    )
    again = await desk.invoices.debit(PLATFORM, [DebitItem(line, Decimal("20.00"))], key="d1", reason="undercharged")
    assert again == note
    assert await desk.books() == {
        f"receivable/{subscription.org}": Decimal("141.60"),
        "revenue": Decimal("-120.00"),
        "tax/IGST": Decimal("-21.60"),
    }
    assert await desk.invoices.issue(PLATFORM, MONTH, subscription.org) == invoice
    assert await desk.made_anew() == []
    # what a debit note added can be credited again
    (own,) = await desk.lines(note)
    back = await credit(desk, own, "20.00")
    assert (back.serial, back.tax) == ("HTC/2627/000001", Decimal("3.60"))


async def test_a_voided_invoice_is_taken_back_whole_and_its_usage_is_billed_again(desk: Desk) -> None:
    subscription, invoice = await desk.billed("100")
    after = await desk.invoices.void(PLATFORM, invoice.id, "wrong address")
    assert (after.state, after.owed, after.content_hash) == ("void", 0, invoice.content_hash)
    assert await desk.books() == {}
    second = await desk.invoices.issue(PLATFORM, MONTH, subscription.org)
    assert second is not None and (second.serial, second.net, second.closes) == ("HT/2627/000002", invoice.net, True)
    assert await desk.invoices.issue(PLATFORM, MONTH, subscription.org) == second
    (line,) = await desk.lines(second)
    assert len((await desk.invoices.calls(PLATFORM, line)).items) == 1
    assert await desk.made_anew() == []
    with pytest.raises(Conflict):
        await desk.invoices.void(PLATFORM, invoice.id, "once more")


async def test_an_invoice_of_which_something_was_credited_is_not_voided(desk: Desk) -> None:
    _, invoice = await desk.billed("100")
    (line,) = await desk.lines(invoice)
    await credit(desk, line, "1.00")
    with pytest.raises(Conflict, match="credit what remains"):
        await desk.invoices.void(PLATFORM, invoice.id, "too late")


async def test_an_invoice_that_a_later_one_goes_on_from_is_withdrawn_after_that_one(desk: Desk) -> None:
    subscription, first = await desk.billed("100")
    late = desk.bazaar.event(subscription, "7", at=desk.clock.now() - timedelta(days=2))
    await desk.bazaar.take([late])
    desk.clock.advance(days=31)
    second = await desk.invoices.issue(PLATFORM, "2026-12", subscription.org)
    assert second is not None and second.net == 7
    with pytest.raises(Conflict, match=second.serial):
        await desk.invoices.void(PLATFORM, first.id, "wrong address")
    await desk.invoices.void(PLATFORM, second.id, "wrong address")
    await desk.invoices.void(PLATFORM, first.id, "wrong address")
    again = await desk.invoices.issue(PLATFORM, MONTH, subscription.org)
    assert again is not None and again.net == 107
    (line,) = await desk.lines(again)
    assert sum(call.quantity for call in (await desk.invoices.calls(PLATFORM, line)).items) == 107


async def test_no_call_is_behind_what_a_debit_note_adds_whatever_its_line_counts(desk: Desk) -> None:
    service = await desk.bazaar.service(price=None)
    await desk.bazaar.run(
        """INSERT INTO meters (id, service_id, name, aggregation, measure, less, filter, created_at)
           VALUES (gen_random_uuid(), %s, 'people', 'unique', 'end_user', '{}', '{}', now())""",
        service.id,
    )
    await desk.bazaar.run(
        """INSERT INTO rate_cards (id, service_id, version, unit, unit_price, free_units, provider_share,
               effective_from, created_at, components)
           VALUES (gen_random_uuid(), %s, 1, 'characters', 3, 0, 0.7, %s, now(),
               '[{"model": "unit", "meter": "people", "unit_price": "3", "free_units": "0"}]')""",
        *(service.id, desk.clock.now() - timedelta(days=300)),
    )
    subscription = await desk.bazaar.subscribe(await desk.bazaar.organisation(), service)
    await desk.bazaar.take([desk.bazaar.event(subscription, user="asha")])
    desk.close_month()
    invoice = await desk.invoices.issue(PLATFORM, MONTH, subscription.org)
    assert invoice is not None and invoice.net == 3
    (line,) = await desk.lines(invoice)
    note = await desk.invoices.debit(PLATFORM, [DebitItem(line, Decimal("2.00"))], key="d1", reason="undercharged")
    (added,) = await desk.lines(note)
    assert (await desk.invoices.calls(PLATFORM, added)).items == []
    assert len((await desk.invoices.calls(PLATFORM, line)).items) == 1


async def test_a_damaged_or_lost_projection_is_made_anew_to_the_byte(desk: Desk) -> None:
    from haat.infra.projections import rebuild
    from haat.invoices.projection import INVOICES

    _, invoice = await desk.billed("100")
    (line,) = await desk.lines(invoice)
    await credit(desk, line, "10.00")
    before = await desk.invoices.document_text(PLATFORM, invoice.id)
    async with desk.owner() as connection:
        for table in INVOICES.tables:
            await connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        await connection.execute("UPDATE invoice_lines SET taxable = 1")
        await connection.execute("UPDATE invoices SET part = 9")
        await connection.execute("DELETE FROM credit_note_lines")
        await connection.execute("UPDATE invoice_states SET paid = 5, state = 'paid'")
        for table in INVOICES.tables:
            await connection.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
    assert {one.table for one in await desk.made_anew()} == {
        "invoices",
        "invoice_lines",
        "invoice_states",
        "credit_note_lines",
    }
    async with desk.owner() as connection:
        await rebuild(connection, [INVOICES], repair=True)
    assert await desk.made_anew() == []
    assert await desk.invoices.document_text(PLATFORM, invoice.id) == before
    assert content_hash(before) == (await desk.again(invoice)).content_hash

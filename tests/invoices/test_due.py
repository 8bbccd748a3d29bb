"""What is due: overdue and reminded once, and the registration, the settings and the states around it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bazaar import consumer
from desk import MONTH, Desk
from haat.invoices.payments import Payments
from haat.invoices.ports import RegistrarRefused, Registration
from haat.invoices.service import Invoices, due_events
from haat.invoices.states import OPEN, Standing, State, begun, settled, voided
from haat.kernel.errors import Conflict, ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.permissions import PLATFORM
from haat.settings import Settings

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
amounts = st.decimals(min_value="0.01", max_value=10**9, places=2)


def standing(total: Decimal = Decimal("100.00"), state: State = State.ISSUED) -> Standing:
    return begun(new_id(), new_id(), "invoice", MONTH, "HT/2627/000001", total, date(2026, 12, 16), NOW, state)


@given(amounts, st.lists(st.tuples(amounts, st.booleans()), max_size=20))
def test_payments_and_credits_never_come_to_more_than_is_owed(
    total: Decimal, parts: list[tuple[Decimal, bool]]
) -> None:
    one = standing(total)
    for part, is_credit in parts:
        if part > one.owed:
            with pytest.raises(ValueError, match="owes"):
                settled(one, part, NOW, credit=is_credit)
        else:
            one = settled(one, part, NOW, credit=is_credit)
        assert one.owed == total - one.paid - one.credited >= 0
        assert (one.state == State.PAID) == (one.owed == 0)


def test_only_what_nobody_paid_is_voided() -> None:
    assert voided(standing(), "why", NOW).owed == 0
    with pytest.raises(Conflict):
        voided(settled(standing(), Decimal(1), NOW), "why", NOW)
    for state in (State.REGISTERING, State.SHOWN):
        with pytest.raises(Conflict):
            voided(standing(state=state), "why", NOW)


def test_what_is_not_open_owes_nothing() -> None:
    assert {state for state in State if standing(state=state).owed} == set(OPEN)


def test_reminders_that_were_missed_make_one() -> None:
    one = standing()
    days = [-3, 1, 7]
    assert due_events(one, date(2026, 12, 12), days, NOW) == []
    assert [event.type for event in due_events(one, date(2026, 12, 13), days, NOW)] == ["invoice.reminded"]
    both = due_events(one, date(2026, 12, 30), days, NOW)
    assert [event.type for event in both] == ["invoice.overdue", "invoice.reminded"]
    assert both[1].data["state"]["reminders"] == 3


async def test_an_unpaid_invoice_is_overdue_and_reminded_of_once_a_day_set(desk: Desk, payments: Payments) -> None:
    subscription, invoice = await desk.billed("100")
    said = []
    for _ in range(40):
        desk.clock.advance(days=1)
        for _ in range(2):
            await desk.invoices.watch_due()
        said.append((await desk.again(invoice)).state)
    assert said.index("overdue") == 15, "the day after the sixteenth"
    types = await desk.types(f"invoice/{invoice.id}")
    assert types.count("invoice.reminded") == 4 and types.count("invoice.overdue") == 1
    await payments.record(PLATFORM, subscription.org, Decimal(118), "UTR 1")
    assert (await desk.again(invoice)).state == "paid"
    assert await desk.invoices.watch_due() == 0
    assert await desk.made_anew() == []


# --- registration ---------------------------------------------------------------------------------


class Portal:
    """A registrar that gives the same document the same number, and fails as it is told."""

    name = "portal"

    def __init__(self) -> None:
        self.given: dict[str, str] = {}
        self.failures: list[Exception] = []

    async def register(self, document: Mapping[str, Any]) -> Registration:
        if self.failures:
            raise self.failures.pop(0)
        irn = self.given.setdefault(document["serial"], f"{len(self.given) + 1:064x}")
        return Registration(irn, f"qr of {irn}", NOW)


@pytest.fixture
def portal(desk: Desk) -> Portal:
    portal = Portal()
    desk.invoices = Invoices(desk.database.app, desk.clock, Settings(), registrar=lambda: portal)
    return portal


async def test_an_invoice_waits_for_its_number_and_is_issued_with_it(desk: Desk, portal: Portal) -> None:
    subscription = await desk.subscription()
    await desk.bazaar.take([desk.bazaar.event(subscription, "100")])
    desk.close_month()
    for _ in range(2):
        assert await desk.invoices.issue(PLATFORM, MONTH, subscription.org) is None
    (waiting,) = await desk.invoices.registering(PLATFORM)
    assert (waiting.state, waiting.serial) == ("registering", "HT/2627/000001")
    assert await desk.books() == {} and (await desk.invoices.page(PLATFORM)).items == []
    portal.failures = [ConnectionError("the portal is down")]
    with pytest.raises(ConnectionError):
        await desk.invoices.register(waiting.invoice_id)
    invoice = await desk.invoices.register(waiting.invoice_id)
    assert invoice is not None and (invoice.serial, invoice.state) == (waiting.serial, "issued")
    assert await desk.invoices.register(waiting.invoice_id) is None
    body = await desk.invoices.document(consumer(subscription.org), invoice.id)
    assert (body["irn"], body["irn_qr"]) == (f"{1:064x}", f"qr of {1:064x}")
    assert (await desk.books())["revenue"] == -100
    assert await desk.invoices.issue(PLATFORM, MONTH, subscription.org) == invoice
    assert await desk.types(f"invoice/{invoice.id}") == ["invoice.registering", "invoice.issued"]
    assert await desk.made_anew() == []


async def test_a_buyer_who_was_refused_is_corrected_before_the_invoice_is_issued(desk: Desk, portal: Portal) -> None:
    subscription = await desk.subscription()
    await desk.bazaar.take([desk.bazaar.event(subscription, "100")])
    desk.close_month()
    await desk.invoices.issue(PLATFORM, MONTH, subscription.org)
    (waiting,) = await desk.invoices.registering(PLATFORM)
    portal.failures = [RegistrarRefused("the address is too short")]
    with pytest.raises(Conflict, match="address is too short"):
        await desk.invoices.register(waiting.invoice_id)
    await desk.bazaar.run(
        "UPDATE organisations SET address = '1 Long Road', state_code = '07' WHERE id = %s", subscription.org
    )
    invoice = await desk.invoices.register(waiting.invoice_id)
    assert invoice is not None and invoice.place_of_supply == "07"
    body = await desk.invoices.document(PLATFORM, invoice.id)
    assert body["recipient"]["address"] == "1 Long Road"
    assert [tax["name"] for tax in body["taxes"]] == ["CGST", "SGST"]
    assert await desk.made_anew() == []


# --- what the operator chose ----------------------------------------------------------------------


async def test_who_doesnt_bill_bills_nobody(desk: Desk) -> None:
    desk.invoices = Invoices(desk.database.app, desk.clock, Settings(billing="off"))
    subscription = await desk.subscription()
    await desk.bazaar.take([desk.bazaar.event(subscription, "100")])
    desk.close_month()
    for attempt in (
        desk.invoices.issue(PLATFORM, MONTH, subscription.org),
        desk.invoices.issue_all(PLATFORM, MONTH),
        desk.invoices.preview(consumer(subscription.org), MONTH),
    ):
        with pytest.raises(Conflict, match="doesn't bill"):
            await attempt


async def test_who_shows_back_makes_statements_that_nobody_owes(desk: Desk) -> None:
    desk.invoices = Invoices(desk.database.app, desk.clock, Settings(billing="showback"))
    _, shown = await desk.billed("100")
    assert (shown.kind, shown.serial, shown.state, shown.owed, shown.due_on) == (
        "statement",
        "HTS/2627/000001",
        "shown",
        0,
        None,
    )
    assert (shown.net, shown.tax, shown.total) == (Decimal("100.00"), 0, Decimal("100.00"))
    assert await desk.books() == {}
    (line,) = await desk.lines(shown)
    assert len((await desk.invoices.calls(PLATFORM, line)).items) == 1
    desk.clock.advance(days=60)
    assert await desk.invoices.watch_due() == 0
    assert await desk.made_anew() == []


async def test_a_buyer_with_a_wrong_gstin_is_not_billed_and_told_why(desk: Desk) -> None:
    org = await desk.bazaar.organisation("Wrong", gstin="29AAACH0000H1ZX")
    subscription = await desk.bazaar.subscribe(org, await desk.bazaar.service(price="1"))
    await desk.bazaar.take([desk.bazaar.event(subscription, "100")])
    desk.close_month()
    with pytest.raises(ValidationFailed) as refused:
        await desk.invoices.issue(PLATFORM, MONTH, org)
    assert refused.value.extensions["errors"][0]["field"] == "gstin"
    assert await desk.bazaar.rows("SELECT last FROM invoice_serials") == []


def test_an_operator_with_a_wrong_gstin_does_not_start() -> None:
    with pytest.raises(ValidationError, match="check letter"):
        Settings(operator_gstin="07AAACH0000H1ZX")


async def test_a_preview_says_where_the_month_is(desk: Desk) -> None:
    subscription = await desk.subscription()
    await desk.bazaar.take([desk.bazaar.event(subscription, "1")])
    asha = consumer(subscription.org)
    said = [(await desk.invoices.preview(asha, MONTH)).state]
    end = datetime(2026, 11, 30, 18, 30, tzinfo=UTC)  # midnight in Kolkata
    for at in (end, end + timedelta(hours=1)):
        desk.clock.advance(seconds=(at - desk.clock.now()).total_seconds())
        said.append((await desk.invoices.preview(asha, MONTH)).state)
    await desk.invoices.issue(PLATFORM, MONTH, subscription.org)
    said.append((await desk.invoices.preview(asha, MONTH)).state)
    assert said == ["draft", "grace", "ready", "closed"]


async def test_a_document_is_kept_once_and_never_changed(desk: Desk) -> None:
    _, invoice = await desk.billed("1")
    text = await desk.invoices.document_text(PLATFORM, invoice.id)
    assert json.loads(text)["serial"] == invoice.serial
    for statement in ("UPDATE invoice_documents SET document = '{}'", "DELETE FROM invoice_documents"):
        async with desk.owner() as connection:
            with pytest.raises(Exception, match="never edited"):
                await connection.execute(statement)

"""Issuing: what is billed, once, with serials without a gap, and never changed after."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest

from bazaar import Bazaar, Subscription, consumer, partner
from haat.infra import events
from haat.infra.postgres import PLATFORM_SCOPE, tenant
from haat.invoices.model import content_hash
from haat.invoices.service import Invoices
from haat.kernel.clock import SetClock
from haat.kernel.errors import Conflict, InvalidRequest, NotFound, PermissionDenied, ValidationFailed
from haat.kernel.permissions import PLATFORM
from haat.rating.service import Rating
from haat.settings import Settings
from haat.usage.event import Outcome

MONTH = "2026-11"
OVER = datetime(2026, 12, 1, 12, tzinfo=UTC)


@pytest.fixture
def bazaar(database: Any, clock: SetClock) -> Bazaar:
    return Bazaar(database.service, clock)


@pytest.fixture
def invoices(database: Any, clock: SetClock) -> Invoices:
    return Invoices(database.app, clock, Settings())


def close_month(clock: SetClock) -> None:
    clock.advance(seconds=(OVER - clock.now()).total_seconds())


async def a_subscription(bazaar: Bazaar, **service: Any) -> Subscription:
    return await bazaar.subscribe(await bazaar.organisation(), await bazaar.service(**service))


async def test_a_month_becomes_an_invoice_with_gst_and_a_serial(
    bazaar: Bazaar, invoices: Invoices, clock: SetClock
) -> None:
    subscription = await a_subscription(bazaar, price="0.033333333333", free="20")
    await bazaar.take([bazaar.event(subscription, "7.5") for _ in range(11)])
    close_month(clock)
    invoice = await invoices.issue(PLATFORM, MONTH, subscription.org)
    assert invoice is not None and invoice.serial == "HT/2627/000001" and invoice.closes
    # 82.5 characters, 20 free: 62.5 × 0.033333333333 = 2.0833333333125
    assert (invoice.net, invoice.tax, invoice.total) == (Decimal("2.08"), Decimal("0.37"), Decimal("2.45"))
    data = await invoices.document(consumer(subscription.org), invoice.id)
    assert data["taxes"] == [{"name": "IGST", "rate": "0.18", "amount": "0.37"}]
    assert data["place_of_supply"] == {"state_code": "29", "state": "Karnataka"}
    assert data["date"] == "2026-12-01" and data["reverse_charge"] is False
    (line,) = data["lines"]
    assert (line["quantity"], line["free_units"], line["billable"]) == ("82.5", "20", "62.5")
    assert (line["unit_price"], line["calls"], line["sac"]) == ("0.033333333333", 11, "998439")


async def test_only_completed_and_delivered_calls_are_billed(
    bazaar: Bazaar, invoices: Invoices, clock: SetClock
) -> None:
    subscription = await a_subscription(bazaar, price="1")
    billed = [bazaar.event(subscription, "1", outcome=one) for one in (Outcome.COMPLETED, Outcome.CLIENT_LEFT)]
    await bazaar.take([*billed, *[bazaar.event(subscription, "1", outcome=one) for one in list(Outcome)[2:]]])
    close_month(clock)
    invoice = await invoices.issue(PLATFORM, MONTH, subscription.org)
    assert invoice is not None and invoice.net == 2
    (line,) = await invoices.lines(PLATFORM, invoice.id)
    page = await invoices.calls(consumer(subscription.org), line["id"])
    assert {str(call.id) for call in page.items} == {event.id for event in billed}


async def test_issuing_twice_changes_nothing(bazaar: Bazaar, invoices: Invoices, clock: SetClock) -> None:
    subscription = await a_subscription(bazaar)
    await bazaar.take([bazaar.event(subscription)])
    close_month(clock)
    first = await invoices.issue(PLATFORM, MONTH, subscription.org)
    assert await invoices.issue(PLATFORM, MONTH, subscription.org) == first
    run = await invoices.issue_all(PLATFORM, MONTH)
    assert (list(run.issued), run.unchanged, list(run.failed)) == ([], 1, [])
    assert len(await bazaar.rows("SELECT id FROM invoices")) == 1
    issued = await bazaar.rows("SELECT data FROM events WHERE type = 'invoice.issued'")
    assert [row["data"]["serial"] for row in issued] == ["HT/2627/000001"]


async def test_a_running_month_is_billed_in_parts_that_add_up_and_share_no_call(
    bazaar: Bazaar, invoices: Invoices, clock: SetClock
) -> None:
    subscription = await a_subscription(bazaar, price="0.25", free="35")
    chance = random.Random(5)
    events_ = [bazaar.event(subscription, str(chance.randint(0, 40))) for _ in range(60)]
    with pytest.raises(Conflict):
        await invoices.issue(PLATFORM, MONTH, subscription.org)
    issued = []
    for at in range(0, 60, 20):
        taken = await bazaar.take(events_[at : at + 20])
        part = await invoices.issue(PLATFORM, MONTH, subscription.org, until=taken.batch)
        assert part is not None and part == await invoices.issue(PLATFORM, MONTH, subscription.org, until=taken.batch)
        issued.append(part)
    assert [(part.part, part.closes) for part in issued] == [(1, False), (2, False), (3, False)]
    quantity = sum(Decimal(event.units["characters"]) for event in events_)
    assert sum(part.net for part in issued) == (quantity - 35) * Decimal("0.25")
    found: list[UUID] = []
    for part in issued:
        for line in await invoices.lines(PLATFORM, part.id):
            found += [call.id for call in (await invoices.calls(PLATFORM, line["id"])).items]
    assert sorted(map(str, found)) == sorted(event.id for event in events_)
    close_month(clock)
    assert await invoices.issue(PLATFORM, MONTH, subscription.org) == issued[-1]  # nothing was left


async def test_usage_that_comes_after_the_close_goes_on_the_next_invoice(
    bazaar: Bazaar, invoices: Invoices, clock: SetClock
) -> None:
    subscription = await a_subscription(bazaar, price="1", free="15")
    at = clock.now()
    await bazaar.take([bazaar.event(subscription, "10")])
    close_month(clock)
    first = await invoices.issue(PLATFORM, MONTH, subscription.org)
    assert first is not None and first.net == 0
    await bazaar.take([bazaar.event(subscription, "10", at=at), bazaar.event(subscription, "20")])
    assert await invoices.issue(PLATFORM, MONTH, subscription.org) == first
    clock.advance(days=31)
    second = await invoices.issue(PLATFORM, "2026-12", subscription.org)
    assert second is not None
    lines = await invoices.lines(PLATFORM, second.id)
    # November had 5 free units left; December has its own 15.
    assert [(line["period"], line["free_units"], line["taxable"]) for line in lines] == [
        (MONTH, 5, 5),
        ("2026-12", 15, 5),
    ]


async def test_a_price_change_and_a_plan_of_its_own_make_lines_of_their_own(
    bazaar: Bazaar, invoices: Invoices, clock: SetClock
) -> None:
    service = await bazaar.service(price="1")
    org = await bazaar.organisation()
    basic, free = await bazaar.subscribe(org, service), await bazaar.subscribe(org, service, "free")
    change = clock.now() - timedelta(days=3)
    await bazaar.card(service, price="2", start=change)
    await bazaar.card(service, price="0", plan="free")
    before, after = change - timedelta(milliseconds=1), change
    await bazaar.take([bazaar.event(one, "1", at=at) for one in (basic, free) for at in (before, after)])
    close_month(clock)
    invoice = await invoices.issue(PLATFORM, MONTH, org)
    assert invoice is not None and invoice.net == 3
    assert sorted(
        (line["plan"], line["calls"], line["taxable"]) for line in await invoices.lines(PLATFORM, invoice.id)
    ) == [("basic", 1, 1), ("basic", 1, 2), ("free", 2, 0)]
    for line in await invoices.lines(PLATFORM, invoice.id):
        assert len((await invoices.calls(PLATFORM, line["id"])).items) == line["calls"]


async def test_the_month_is_the_one_of_the_customers_zone(bazaar: Bazaar, invoices: Invoices, clock: SetClock) -> None:
    subscription = await a_subscription(bazaar, price="1")
    edge = datetime(2026, 11, 30, 18, 30, tzinfo=UTC)  # midnight in Kolkata
    clock.advance(seconds=(edge + timedelta(hours=2) - clock.now()).total_seconds())
    await bazaar.take(
        [bazaar.event(subscription, "1", at=edge - timedelta(milliseconds=1)), bazaar.event(subscription, "4", at=edge)]
    )
    invoice = await invoices.issue(PLATFORM, MONTH, subscription.org)
    assert invoice is not None and invoice.net == 1


async def test_twenty_invoices_at_once_leave_no_gap_in_the_serials(
    bazaar: Bazaar, invoices: Invoices, clock: SetClock
) -> None:
    service = await bazaar.service()
    subscriptions = [await bazaar.subscribe(await bazaar.organisation(f"No {n}"), service) for n in range(20)]
    nowhere = await bazaar.subscribe(await bazaar.organisation("Nowhere", state="77"), service)
    await bazaar.take([bazaar.event(one) for one in (*subscriptions, nowhere)])
    close_month(clock)
    organisations = [one.org for one in (*subscriptions, nowhere)] * 2
    results = await asyncio.gather(
        *[invoices.issue(PLATFORM, MONTH, org) for org in organisations], return_exceptions=True
    )
    assert sum(isinstance(result, ValidationFailed) for result in results) == 2
    serials = await bazaar.rows("SELECT serial FROM invoices ORDER BY serial")
    assert [row["serial"] for row in serials] == [f"HT/2627/{number:06d}" for number in range(1, 21)]
    run = await invoices.issue_all(PLATFORM, MONTH)
    assert (len(run.issued), run.unchanged, [org for org, _ in run.failed]) == (0, 20, [nowhere.org])


async def test_a_failed_issue_gives_its_serial_back(
    bazaar: Bazaar, invoices: Invoices, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = await a_subscription(bazaar)
    await bazaar.take([bazaar.event(subscription)])
    close_month(clock)

    async def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the power went")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(events, "append_all", fail)
        await invoices.issue(PLATFORM, MONTH, subscription.org)
    assert await bazaar.rows("SELECT id FROM invoice_lines") == []
    invoice = await invoices.issue(PLATFORM, MONTH, subscription.org)
    assert invoice is not None and invoice.serial.endswith("/000001")


async def test_an_issued_invoice_cannot_be_changed_even_by_the_owner_of_the_tables(
    bazaar: Bazaar, invoices: Invoices, clock: SetClock, database: Any
) -> None:
    subscription = await a_subscription(bazaar)
    await bazaar.take([bazaar.event(subscription)])
    close_month(clock)
    invoice = await invoices.issue(PLATFORM, MONTH, subscription.org)
    assert invoice is not None
    for statement in (
        "UPDATE invoices SET net = 0, total = tax",
        "DELETE FROM invoices",
        "UPDATE invoice_lines SET taxable = 0",
        "DELETE FROM invoice_lines",
    ):
        with psycopg.connect(database.owner_dsn) as owner, pytest.raises(psycopg.Error, match="never edited"):
            owner.execute(statement)
        with pytest.raises(psycopg.Error, match="permission denied"):
            await bazaar.run(statement)
    with psycopg.connect(database.owner_dsn) as owner, pytest.raises(psycopg.Error, match="no line is added"):
        owner.execute(
            """INSERT INTO invoice_lines SELECT another.* FROM invoice_lines AS line, jsonb_populate_record(line,
                   jsonb_build_object('id', gen_random_uuid(), 'position', 2, 'identity', 'another')) AS another"""
        )
    text = await invoices.document_text(consumer(subscription.org), invoice.id)
    assert content_hash(text) == invoice.content_hash


async def test_a_line_without_its_invoice_does_not_commit(bazaar: Bazaar, invoices: Invoices, clock: SetClock) -> None:
    subscription = await a_subscription(bazaar)
    await bazaar.take([bazaar.event(subscription)])
    close_month(clock)
    await invoices.issue(PLATFORM, MONTH, subscription.org)
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        await bazaar.run(
            """INSERT INTO invoice_lines SELECT orphan.* FROM invoice_lines AS line, jsonb_populate_record(line,
                   jsonb_build_object('id', gen_random_uuid(), 'invoice_id', gen_random_uuid(), 'identity', 'orphan'))
                   AS orphan"""
        )


async def test_preview_and_live_cost_say_what_the_invoice_will_say(
    bazaar: Bazaar, invoices: Invoices, clock: SetClock, database: Any
) -> None:
    subscription = await a_subscription(bazaar, price="0.017", free="3")
    await bazaar.take([bazaar.event(subscription, str(n)) for n in range(30)])
    asha = consumer(subscription.org)
    preview = await invoices.preview(asha, MONTH)
    live = await Rating(database.app, clock).live(asha)
    invoice = await invoices.issue(PLATFORM, MONTH, subscription.org, until=preview.until)
    assert invoice is not None
    assert (preview.draft.net, preview.draft.total) == (invoice.net, invoice.total)
    assert live.total == invoice.net and live.period == MONTH
    assert preview.data()["lines"] == (await invoices.document(asha, invoice.id))["lines"]
    assert (await invoices.preview(asha, MONTH)).draft.net == 0


async def test_usage_without_a_price_is_shown_and_not_billed(
    bazaar: Bazaar, invoices: Invoices, clock: SetClock
) -> None:
    subscription = await a_subscription(bazaar, price=None)
    await bazaar.take([bazaar.event(subscription)])
    preview = await invoices.preview(consumer(subscription.org), MONTH)
    assert not preview.draft.lines and preview.unpriced[0].calls == 1
    close_month(clock)
    assert await invoices.issue(PLATFORM, MONTH, subscription.org) is None


async def test_a_watermark_that_does_not_exist_yet_is_refused(bazaar: Bazaar, invoices: Invoices) -> None:
    subscription = await a_subscription(bazaar)
    taken = await bazaar.take([bazaar.event(subscription)])
    with pytest.raises(ValidationFailed):
        await invoices.issue(PLATFORM, MONTH, subscription.org, until=taken.batch + 1)


@pytest.mark.parametrize("label", ["2026-13", "2026-1", "november", "2026-00", "२०२६-11", "0000-01"])
async def test_what_is_no_month_is_refused(bazaar: Bazaar, invoices: Invoices, label: str) -> None:
    with pytest.raises(InvalidRequest):
        await invoices.issue(PLATFORM, label, await bazaar.organisation())


async def test_one_tenant_finds_nothing_of_anothers_invoice(
    bazaar: Bazaar, invoices: Invoices, clock: SetClock, database: Any
) -> None:
    subscription = await a_subscription(bazaar)
    await bazaar.take([bazaar.event(subscription)])
    close_month(clock)
    invoice = await invoices.issue(PLATFORM, MONTH, subscription.org)
    assert invoice is not None
    (line,) = await invoices.lines(PLATFORM, invoice.id)
    for stranger in (consumer(await bazaar.organisation("Other")), partner(subscription.service.org)):
        for attempt in (
            invoices.get(stranger, invoice.id),
            invoices.document(stranger, invoice.id),
            invoices.lines(stranger, invoice.id),
            invoices.calls(stranger, line["id"]),
            invoices.preview(stranger, MONTH, subscription.org),
            invoices.page(stranger, org=subscription.org),
        ):
            with pytest.raises(NotFound):
                await attempt
        assert (await invoices.page(stranger)).items == []
        with pytest.raises(PermissionDenied):
            await invoices.issue(stranger, MONTH, subscription.org)
        with pytest.raises(PermissionDenied):
            await invoices.issue_all(stranger, MONTH)
        async with database.app.transaction(tenant(stranger.org_id)) as connection:
            for table in ("invoices", "invoice_lines"):
                assert await (await connection.execute(f"SELECT FROM {table}")).fetchall() == []
    assert (await invoices.page(consumer(subscription.org))).items == [invoice]
    async with database.app.transaction(PLATFORM_SCOPE) as connection:
        assert await events.verify_chain(connection, f"invoice/{invoice.id}") is None


async def test_answers_out_of_the_cache_are_a_line_of_their_own_at_the_plans_share_of_the_price(
    bazaar: Bazaar, invoices: Invoices, clock: SetClock
) -> None:
    subscription = await a_subscription(bazaar, price="0.333333333333", free="2")
    share = "0.125"
    whole = bazaar.event(subscription, "10", cache="hit", cached_units={"characters": "10"}, cached_share=share)
    part = bazaar.event(subscription, "10", cache="partial", cached_units={"characters": "6"}, cached_share=share)
    asked = [bazaar.event(subscription, "5", cache=cache) for cache in ("", "miss", "bypass")]
    await bazaar.take([whole, part, *asked])
    close_month(clock)
    invoice = await invoices.issue(PLATFORM, MONTH, subscription.org)
    assert invoice is not None
    full, cached = (await invoices.document(consumer(subscription.org), invoice.id))["lines"]
    assert (full["quantity"], full["free_units"], full["calls"], full["taxable_value"]) == ("19", "2", 4, "5.67")
    assert (cached["quantity"], cached["free_units"], cached["calls"]) == ("16", "0", 2)
    # 16 × 0.333333333333 × 0.125, exact to its fifteenth decimal and rounded once
    assert (cached["unit_price"], cached["cached_share"], cached["taxable_value"]) == (
        "0.333333333333",
        "0.125",
        "0.67",
    )
    assert cached["description"] == f"{full['description']}, answered from the cache" and "cached_share" not in full
    assert invoice.net == Decimal("6.34")
    behind = []
    for line in await invoices.lines(PLATFORM, invoice.id):
        page = await invoices.calls(consumer(subscription.org), line["id"])
        behind.append({str(call.id): call.quantity for call in page.items})
    assert behind == [{part.id: 4, **dict.fromkeys((one.id for one in asked), 5)}, {whole.id: 10, part.id: 6}]


async def test_a_call_answered_whole_by_the_cache_makes_no_line_of_what_was_asked(
    bazaar: Bazaar, invoices: Invoices, clock: SetClock
) -> None:
    subscription = await a_subscription(bazaar, price="1")
    units = {"characters": "3"}
    for share in ("", "0.5"):  # the plan's share was changed between the two
        await bazaar.take([bazaar.event(subscription, "3", cache="hit", cached_units=units, cached_share=share)])
    live = await Rating(invoices._db, clock).live(consumer(subscription.org))
    assert [(charge.cached_share, charge.amount) for charge in live.charges] == [
        (1, 3),
        (Decimal("0.5"), Decimal("1.5")),
    ]

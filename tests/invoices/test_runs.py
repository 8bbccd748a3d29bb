"""The run that closes a month: once, whoever asks how often, and whole, whoever dies on the way."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from bazaar import Subscription, consumer
from desk import MONTH, Desk
from haat.infra.handlers import handler_task
from haat.infra.job_worker import JobWorker, Pace
from haat.infra.jobs import Jobs
from haat.infra.postgres import Database
from haat.invoices import issuing, projection, run_store, store
from haat.invoices.jobs import HANDLERS, TASKS
from haat.invoices.runs import WORK, BillingRuns
from haat.kernel.errors import Conflict, InvalidRequest, NotFound, PermissionDenied
from haat.kernel.permissions import PLATFORM
from haat.settlement.service import Settlements
from haat.usage.model import Pseudonyms


@pytest.fixture
def settlements(desk: Desk) -> Settlements:
    return Settlements(desk.database.app, desk.clock, Pseudonyms(bytes(32)), desk.invoices)


@pytest.fixture
def billing(desk: Desk, settlements: Settlements) -> BillingRuns:
    return runs_on(desk, settlements)


def runs_on(desk: Desk, settlements: Settlements | None = None, batch: int = 3) -> BillingRuns:
    app: Database = desk.database.app
    settle = settlements.close_all if settlements else None
    return BillingRuns(
        app, desk.clock, Jobs(app, TASKS), desk.invoices, zone="Asia/Kolkata", settle=settle, batch=batch
    )


async def a_street(desk: Desk, customers: int) -> list[Subscription]:
    """Return subscriptions of so many customers with usage of a month that is over."""
    service = await desk.bazaar.service(price="0.37")
    found = [await desk.bazaar.subscribe(await desk.bazaar.organisation(f"No {n}"), service) for n in range(customers)]
    await desk.bazaar.take([desk.bazaar.event(one, str(n + 1)) for n, one in enumerate(found)])
    desk.close_month()
    return found


async def check_whole(desk: Desk, customers: int) -> None:
    """Everybody has one invoice with its lines, event, standing and postings; serials have no gap; nothing differs."""
    rows = await desk.bazaar.rows("SELECT id, org_id, serial, net, total FROM invoices ORDER BY serial")
    assert [row["serial"] for row in rows] == [f"HT/2627/{n:06d}" for n in range(1, customers + 1)]
    assert len({row["org_id"] for row in rows}) == customers
    books = await desk.books()
    for row in rows:
        assert books[f"receivable/{row['org_id']}"] == row["total"]
    assert books["revenue"] == -sum(row["net"] for row in rows)
    lines = await desk.bazaar.rows("SELECT sum(taxable) AS net, count(*) AS lines FROM invoice_lines")
    assert lines == [{"net": -books["revenue"], "lines": customers}]
    operations = await desk.bazaar.rows("SELECT key FROM ledger_operations WHERE kind = 'invoice'")
    assert len(operations) == customers
    assert await desk.made_anew() == []


async def test_a_month_is_closed_in_batches_and_providers_are_settled(desk: Desk, billing: BillingRuns) -> None:
    await a_street(desk, 8)
    begun = await billing.start(PLATFORM, MONTH)
    assert (begun.state, begun.batches, begun.done, begun.progress) == ("billing", 3, 0, 0.0)
    await billing.work(MONTH)
    done = await billing.status(PLATFORM, MONTH)
    assert (done.state, done.done, done.issued, done.unchanged, list(done.failed)) == ("done", 3, 8, 0, [])
    assert done.progress == 1.0 and done.ended_at is not None
    await check_whole(desk, 8)
    (settled,) = await desk.bazaar.rows("SELECT gross FROM settlements")
    assert settled["gross"] == sum(Decimal(n) * 37 / 100 for n in range(1, 9))
    assert await desk.types(f"billing-run/{MONTH}") == ["billing_run.started", "billing_run.completed"]


async def test_a_period_closed_twice_or_at_once_is_closed_once(desk: Desk, billing: BillingRuns) -> None:
    await a_street(desk, 7)
    begun = await asyncio.gather(*[billing.start(PLATFORM, MONTH) for _ in range(4)])
    assert {one.passes for one in begun} == {1}
    await asyncio.gather(*[billing.work(MONTH) for _ in range(3)])
    first = await billing.status(PLATFORM, MONTH)
    again = await billing.start(PLATFORM, MONTH)
    assert again == first and first.state == "done"
    await billing.start(PLATFORM, MONTH, again=True)
    await billing.work(MONTH)
    second = await billing.status(PLATFORM, MONTH)
    assert (second.passes, second.issued, second.unchanged) == (2, 0, 7)
    await check_whole(desk, 7)
    jobs = await desk.bazaar.rows("SELECT task_name FROM procrastinate_jobs")
    assert {job["task_name"] for job in jobs} == {WORK}


async def test_two_workers_share_a_run_and_a_run_at_once_with_single_issues_bills_nobody_twice(
    desk: Desk, billing: BillingRuns
) -> None:
    street = await a_street(desk, 9)
    await billing.start(PLATFORM, MONTH)
    await asyncio.gather(
        billing.work(MONTH),
        billing.work(MONTH),
        *[desk.invoices.issue(PLATFORM, MONTH, one.org) for one in street[::2]],
    )
    await check_whole(desk, 9)


async def test_who_cant_be_billed_is_named_and_is_billed_when_it_can(desk: Desk, billing: BillingRuns) -> None:
    street = await a_street(desk, 4)
    await desk.bazaar.run("UPDATE organisations SET state_code = '77' WHERE id = %s", street[1].org)
    await billing.start(PLATFORM, MONTH)
    await billing.work(MONTH)
    first = await billing.status(PLATFORM, MONTH)
    assert (first.issued, [one["org_id"] for one in first.failed]) == (3, [str(street[1].org)])
    assert first.failed[0]["reason"]
    await desk.bazaar.run("UPDATE organisations SET state_code = '29' WHERE id = %s", street[1].org)
    await billing.start(PLATFORM, MONTH, again=True)
    await billing.work(MONTH)
    second = await billing.status(PLATFORM, MONTH)
    assert (second.issued, second.unchanged, list(second.failed)) == (1, 3, [])
    await check_whole(desk, 4)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (store, "next_serials"),
        (store, "keep_documents"),
        (issuing, "record_all"),
        (projection, "apply_all"),
        (issuing.ledger, "post"),
        (run_store, "end_batch"),
        (run_store, "end_billing"),
        (run_store, "end_run"),
    ],
)
async def test_what_dies_at_any_step_leaves_nothing_half_done_and_the_next_one_goes_on(
    desk: Desk, billing: BillingRuns, monkeypatch: pytest.MonkeyPatch, place: Any, name: str
) -> None:
    await a_street(desk, 7)
    await billing.start(PLATFORM, MONTH)
    real, calls = getattr(place, name), 0

    async def dies(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        done = await real(*arguments, **keywords)
        if calls == 2 or name in ("end_billing", "end_run"):
            raise RuntimeError("the power went")
        return done

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(place, name, dies)
        await billing.work(MONTH)
    invoices = len(await desk.bazaar.rows("SELECT id FROM invoices"))
    assert invoices % 3 in (0, 1) and len(await desk.bazaar.rows("SELECT id FROM invoice_lines")) == invoices
    await billing.work(MONTH)
    assert (await billing.status(PLATFORM, MONTH)).state == "done"
    await check_whole(desk, 7)
    assert len(await desk.bazaar.rows("SELECT id FROM settlements")) == 1


_WORKER = """
import asyncio, sys
from datetime import datetime
from haat.infra.handlers import handler_task
from haat.infra.job_worker import JobWorker, Pace
from haat.infra.jobs import Jobs
from haat.infra.postgres import Database
from haat.invoices.jobs import HANDLERS, TASKS
from haat.invoices.runs import BillingRuns
from haat.invoices.service import Invoices
from haat.kernel.clock import SetClock
from haat.settings import Settings

async def main():
    clock = SetClock(datetime.fromisoformat(sys.argv[2]))
    async with Database(sys.argv[1], max_size=3) as db:
        invoices = Invoices(db, clock, Settings())
        await BillingRuns(db, clock, Jobs(db, TASKS), invoices, zone="Asia/Kolkata").work("2026-11")

asyncio.run(main())
"""


async def test_a_worker_killed_in_the_middle_of_a_run_leaves_whole_batches_for_the_next_one(
    desk: Desk, settlements: Settlements
) -> None:
    customers = 60
    await a_street(desk, customers)
    billing = runs_on(desk, settlements, batch=1)
    await billing.start(PLATFORM, MONTH)
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WORKER, desk.database.app.dsn, desk.clock.now().isoformat()
    )
    try:
        deadline = time.monotonic() + 120
        while (await billing.status(PLATFORM, MONTH)).done < 3:
            assert worker.returncode is None and time.monotonic() < deadline
    finally:
        worker.send_signal(signal.SIGKILL)
        await worker.wait()
    left = await billing.status(PLATFORM, MONTH)
    assert left.state == "billing" and 3 <= left.done < customers
    await billing.work(MONTH)
    done = await billing.status(PLATFORM, MONTH)
    assert (done.state, done.issued, done.unchanged) == ("done", customers, 0)
    await check_whole(desk, customers)


async def test_workers_close_a_month_that_was_begun(desk: Desk, settlements: Settlements) -> None:
    await a_street(desk, 5)
    jobs = Jobs(desk.database.app, [*TASKS, *(handler_task(one) for one in HANDLERS)])
    billing = runs_on(desk, settlements, batch=2)
    platform = SimpleNamespace(billing=billing, invoices=desk.invoices, clock=desk.clock)
    stop = asyncio.Event()
    pace = Pace(heartbeat=0.5, dead_after=5, poll=0.05)
    workers = [asyncio.create_task(JobWorker(jobs, platform, pace=pace).run(stop, 5)) for _ in range(2)]
    try:
        await billing.start(PLATFORM, MONTH)
        async with asyncio.timeout(120):
            while (await billing.status(PLATFORM, MONTH)).state != "done":
                pass
    finally:
        stop.set()
        await asyncio.gather(*workers)
    await check_whole(desk, 5)


async def test_a_month_that_runs_is_not_closed_nor_by_anybody_but_the_operator(
    desk: Desk, billing: BillingRuns
) -> None:
    with pytest.raises(Conflict, match="not over"):
        await billing.start(PLATFORM, MONTH)
    with pytest.raises(NotFound):
        await billing.status(PLATFORM, MONTH)
    with pytest.raises(InvalidRequest):
        await billing.start(PLATFORM, "2026-13")
    nobody = consumer(await desk.bazaar.organisation())
    for attempt in (billing.start(nobody, MONTH), billing.status(nobody, MONTH), billing.recent(nobody)):
        with pytest.raises(PermissionDenied):
            await attempt


async def test_usage_that_comes_while_the_run_is_on_waits_for_the_next_month(desk: Desk, billing: BillingRuns) -> None:
    street = await a_street(desk, 2)
    at = desk.clock.now()
    begun = await billing.start(PLATFORM, MONTH)
    await desk.bazaar.take([desk.bazaar.event(street[0], "1000", at=at.replace(month=11, day=29))])
    await billing.work(MONTH)
    invoices = (await desk.invoices.page(PLATFORM)).items
    assert {one.batch_to for one in invoices} == {begun.until} and all(one.closes for one in invoices)
    desk.clock.advance(days=31)
    late = await desk.invoices.issue(PLATFORM, "2026-12", street[0].org)
    assert late is not None and late.net == 370


async def test_usage_that_comes_late_to_a_month_in_which_its_customer_had_none_is_billed_too(
    desk: Desk, billing: BillingRuns
) -> None:
    street = await a_street(desk, 1)
    quiet = await desk.bazaar.subscribe(await desk.bazaar.organisation("Quiet"), street[0].service)
    await billing.start(PLATFORM, MONTH)
    await billing.work(MONTH)
    await desk.bazaar.take([desk.bazaar.event(quiet, "100", at=desk.clock.now().replace(month=11, day=29))])
    desk.clock.advance(days=31)
    await billing.start(PLATFORM, "2026-12")
    await billing.work("2026-12")
    (invoice,) = (await desk.invoices.page(PLATFORM, org=quiet.org)).items
    (line,) = await desk.invoices.lines(PLATFORM, invoice.id)
    assert (invoice.period, line["period"], line["kind"], invoice.net) == ("2026-12", MONTH, "adjustment", 37)


async def test_a_month_that_is_only_on_a_later_invoice_is_corrected_however_late(
    desk: Desk, billing: BillingRuns
) -> None:
    street = await a_street(desk, 1)
    quiet = await desk.bazaar.subscribe(await desk.bazaar.organisation("Quiet"), street[0].service)
    await billing.start(PLATFORM, MONTH)
    await billing.work(MONTH)
    late = desk.bazaar.event(quiet, "100", at=desk.clock.now().replace(month=11, day=29))
    await desk.bazaar.take([late])
    for period in ("2026-12", "2027-01"):
        desk.clock.advance(days=31)
        await billing.start(PLATFORM, period)
        await billing.work(period)
    await desk.invoices.correct_call(PLATFORM, UUID(late.id), units=None, reason="fraud")
    desk.clock.advance(days=31)
    await desk.bazaar.take([desk.bazaar.event(quiet, "1000", at=desk.clock.now().replace(month=2, day=2))])
    await billing.start(PLATFORM, "2027-02")
    await billing.work("2027-02")
    newest, first = (await desk.invoices.page(PLATFORM, org=quiet.org)).items
    assert (first.period, first.net, newest.period, newest.net) == ("2026-12", 37, "2027-02", 333)


async def test_a_call_that_takes_a_voided_ones_place_is_found_behind_a_line_of_nothing(
    desk: Desk, billing: BillingRuns
) -> None:
    service = await desk.bazaar.service(price="0.37")
    one = await desk.bazaar.subscribe(await desk.bazaar.organisation("Swap"), service)
    gone = desk.bazaar.event(one, "100")
    await desk.bazaar.take([gone])
    desk.close_month()
    await billing.start(PLATFORM, MONTH)
    await billing.work(MONTH)
    come = desk.bazaar.event(one, "100", at=desk.clock.now().replace(month=11, day=29))
    await desk.bazaar.take([come])
    await desk.invoices.correct_call(PLATFORM, UUID(gone.id), units=None, reason="fraud")
    desk.clock.advance(days=31)
    await billing.start(PLATFORM, "2026-12")
    await billing.work("2026-12")
    assert [invoice.period for invoice in (await desk.invoices.page(PLATFORM, org=one.org)).items] == [MONTH]
    desk.clock.advance(days=31)
    await desk.bazaar.take([desk.bazaar.event(one, "1000", at=desk.clock.now().replace(month=1, day=2))])
    await billing.start(PLATFORM, "2027-01")
    await billing.work("2027-01")
    newest, _ = (await desk.invoices.page(PLATFORM, org=one.org)).items
    lines = await desk.invoices.lines(PLATFORM, newest.id)
    assert [(line["period"], line["calls"], line["taxable"]) for line in lines] == [(MONTH, 0, 0), ("2027-01", 1, 370)]
    calls = (await desk.invoices.calls(PLATFORM, lines[0]["id"])).items
    assert {(call.id, call.voided, call.quantity) for call in calls} == {
        (UUID(gone.id), True, -100),
        (UUID(come.id), False, 100),
    }


async def test_a_month_without_anybody_is_closed_at_once(desk: Desk, billing: BillingRuns) -> None:
    desk.close_month()
    begun = await billing.start(PLATFORM, MONTH)
    assert (begun.batches, begun.progress) == (0, 1.0)
    await billing.work(MONTH)
    assert (await billing.status(PLATFORM, MONTH)).state == "done"
    assert [one.period for one in await billing.recent(PLATFORM)] == [MONTH]

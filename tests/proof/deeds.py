"""What is done in a season, each deed by the code that does it in earnest.

A deed may die anywhere and is done again by whoever comes next: doing it twice is doing it once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

from bazaar import consumer, partner
from haat.app import Platform
from haat.infra.job_worker import JobWorker, Pace
from haat.infra.jobs import Jobs
from haat.infra.postgres import PLATFORM_SCOPE
from haat.invoices.credits import CreditItem, DebitItem
from haat.invoices.jobs import TASKS
from haat.kernel.errors import HaatError
from haat.kernel.permissions import PLATFORM
from haat.settlement.disputes import Verdict
from haat.sla.model import ObjectiveDraft, Tier
from haat.usage import intake
from haat.usage.journal import JournalWriter, Kind
from haat.usage.shipper import Shipper

from .journals import written

SEGMENT_BYTES = 64 * 1024


async def meter(platform: Platform, batches: Sequence[tuple[str, bool, Sequence[tuple[str, bytes]]]]) -> None:
    """Write and confirm the records of calls as gateways' workers do: of each (worker, whether again, calls).

    A call whose record is on disk when its worker dies is not metered by another one; ``again`` writes it once more all
    the same, as a backup that is played in does.
    """
    folder = platform.settings.data_dir / "journal"
    known = written(folder)
    for worker, again, calls in batches:
        writer = JournalWriter(folder, worker, SEGMENT_BYTES, 1000)
        for identifier, payload in calls:
            if again or identifier not in known:
                writer.append(Kind.USAGE, payload)
                writer.append(Kind.CONFIRM, UUID(identifier).bytes)
        writer.close()


async def ship(platform: Platform) -> None:
    """Carry all that journals hold into the store."""
    shipper = Shipper(platform.service_db, platform.settings.data_dir / "journal", platform.clock)
    await shipper.keep_house()
    while await shipper.ship_once():
        pass


async def bill_part(platform: Platform, period: str, org: UUID) -> None:
    """Bill a part of a month that still runs."""
    async with platform.db.transaction(PLATFORM_SCOPE) as connection:
        until = await intake.watermark(connection)
    await platform.invoices.issue(PLATFORM, period, org, until=until)


async def close(platform: Platform, period: str, *, again: bool = False) -> None:
    """Close a month here and now: bill everybody, settle providers."""
    await platform.billing.start(PLATFORM, period, again=again)
    await platform.billing.work(period)
    run = await platform.billing.status(PLATFORM, period)
    assert not run.failed, run.failed


async def close_by_jobs(platform: Platform, period: str) -> None:
    """Close a month as the worker's durable job does."""
    await platform.billing.start(PLATFORM, period)
    stop = asyncio.Event()
    pace = Pace(heartbeat=0.3, dead_after=2, poll=0.05)
    worker = asyncio.create_task(JobWorker(Jobs(platform.db, TASKS), platform, pace=pace).run(stop, 5))
    try:
        async with asyncio.timeout(120):
            while not await _is_closed(platform, period):
                pass
    finally:
        stop.set()
        await worker


async def _is_closed(platform: Platform, period: str) -> bool:
    await asyncio.sleep(0.02)
    return (await platform.billing.status(PLATFORM, period)).state == "done"


async def settle(platform: Platform, period: str) -> None:
    await platform.settlements.close_all(PLATFORM, period)


async def correct(platform: Platform, call: UUID, units: dict[str, Decimal] | None) -> None:
    await platform.invoices.correct_call(PLATFORM, call, units=units, reason="It was counted wrongly")


async def credit(platform: Platform, line: UUID, amount: Decimal, fault: str, key: str) -> None:
    item = CreditItem(line, amount, "provider" if fault == "provider" else "platform")
    await platform.invoices.credit(PLATFORM, [item], key=key, reason="goodwill")


async def debit(platform: Platform, line: UUID, amount: Decimal, key: str) -> None:
    await platform.invoices.debit(PLATFORM, [DebitItem(line, amount)], key=key, reason="undercharged")


async def void(platform: Platform, invoice: UUID) -> None:
    if (await platform.invoices.get(PLATFORM, invoice)).state != "void":
        await platform.invoices.void(PLATFORM, invoice, "It went to the wrong office")


async def pay(platform: Platform, org: UUID, amount: Decimal, reference: str) -> None:
    await platform.payments.record(PLATFORM, org, amount, reference)


async def top_up(platform: Platform, org: UUID, amount: Decimal, free: bool, key: str) -> None:
    grant = platform.wallets.credit if free else platform.wallets.top_up
    await grant(PLATFORM, org, amount, key=key)


async def change_plan(platform: Platform, org: UUID, subscription: UUID, plan: str) -> None:
    await platform.subscriptions.change_plan(consumer(org), subscription, plan)


async def promise(platform: Platform, service: UUID) -> None:
    """Let a listing promise something, unless it does."""
    tiers = [Tier(below=Decimal("99.5"), credit=Decimal(10)), Tier(below=Decimal(95), credit=Decimal("33.3"))]
    report = await platform.sla.report(PLATFORM, service)
    if report.objective is None and report.coming is None:
        await platform.sla.promise(PLATFORM, service, ObjectiveDraft(tiers=tiers, probe="none"))


async def judge(platform: Platform, period: str) -> int:
    """Judge what was promised for a month, and credit who was affected; return how many breaches there were."""
    closed = await platform.sla_closing.close(PLATFORM, period)
    assert not closed.failed, closed.failed
    return sum(one["credit"] > 0 for one in closed.judged)


async def contest(platform: Platform, invoice: UUID, org: UUID, log: bytes) -> None:
    """Hold a customer's own log against its invoice, and decide each contested line for the customer, in part."""

    async def pieces() -> AsyncIterator[bytes]:
        yield log

    subject = f"invoice/{invoice}"
    known = [one for one in (await platform.disputes.page(PLATFORM)).items if one.subject == subject]
    dispute = known[0] if known else await platform.disputes.open(consumer(org), subject, pieces(), "csv")
    if dispute.status == "open":
        lines = (await platform.disputes.story(PLATFORM, dispute.id)).lines
        verdicts = {
            one.invoice_line_id: Verdict(Decimal("0.01"), "provider") for one in lines if one.taxable >= Decimal("0.01")
        }
        await platform.disputes.decide(PLATFORM, dispute.id, verdicts, "The log is right")


async def bank_account(platform: Platform, org: UUID) -> None:
    """Say where a provider is paid to."""
    await platform.payouts.set_account(partner(org), "Vani Speech Private Limited", "000123456789", "SBIN0001234")


async def pay_out(platform: Platform) -> None:
    """Draft, approve, send and pay what providers are owed."""
    payouts = platform.payouts
    await payouts.draft_all(PLATFORM)
    for one in (await payouts.page(PLATFORM, status="draft", limit=200)).items:
        await payouts.approve(PLATFORM, one.id)
    await payouts.send(PLATFORM)
    for one in (await payouts.page(PLATFORM, status="sent", limit=200)).items:
        await payouts.pay(PLATFORM, one.id, f"UTR {one.id}")


DEEDS: dict[str, Callable[..., Awaitable[Any]]] = {
    one.__name__: one
    for one in (
        meter, ship, bill_part, close, close_by_jobs, settle, correct, credit, debit, void, pay, top_up, change_plan,
        promise, judge, contest, bank_account, pay_out,
    )
}  # fmt: skip


class Refused(Exception):
    """Haat refused a deed, with its reason."""


async def do(platform: Platform, name: str, arguments: dict[str, Any]) -> Any:
    """Do a deed; raise Refused where it may not be done, when nothing of it is done."""
    try:
        return await DEEDS[name](platform, **arguments)
    except HaatError as error:
        raise Refused(f"{name}: {error.detail} {error.extensions or ''}") from error

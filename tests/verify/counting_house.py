"""A street whose October is closed, with everything that money can go through, served on loopback.

Its clock stands still, so that pages show the same in every run; its people and services have long names too.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import uvicorn
from argon2 import PasswordHasher
from msgspec import structs

from haat.app import Platform, build_platform
from haat.control.api import build_app
from haat.infra.keyring import Keyring
from haat.infra.mail import mail_for
from haat.infra.postgres import PLATFORM_SCOPE, Database
from haat.invoices import payment_store
from haat.invoices.credits import CreditItem, DebitItem
from haat.kernel.clock import SetClock
from haat.kernel.permissions import PLATFORM
from haat.settings import Settings
from haat.sla.model import ObjectiveDraft
from haat.usage import intake
from haat.usage.event import Outcome
from haat.usage.intake import Record
from portal import street as stalls
from portal.street import Street

Result = TypeVar("Result")

NEWCOMER = "hello@nowhere.example"
"""An account whose organisation made calls and can't be billed: its State is none that GST knows."""
NEIGHBOUR = "desk@akshara.example"
"""The other provider's account."""
NOON = datetime(2026, 11, 21, 6, 30, tzinfo=UTC)
MIDNIGHT = datetime(2026, 11, 30, 18, 30, tzinfo=UTC)
"""The end of November in Kolkata."""


@dataclass(frozen=True, slots=True)
class House:
    """Where the street is served, what stands on it, and the ids that lead to pages about one thing."""

    address: str
    street: Street
    platform: Platform
    loop: asyncio.AbstractEventLoop
    invoice_line: UUID
    statement: UUID
    statement_line: UUID
    payouts: list[UUID]
    disputes: list[UUID]
    month: UUID
    payment: UUID

    def do(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run something of the platform's where the platform runs, and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)


@contextmanager
def open_house(app_dsn: str, service_dsn: str, folder: Path) -> Iterator[House]:
    """Furnish a migrated, empty database, and serve the portal on it until the block ends."""
    ready: Future[House] = Future()
    closing = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(app_dsn, service_dsn, folder, ready, closing)))
    thread.start()
    try:
        yield ready.result(120)
    finally:
        closing.set()
        thread.join(60)


async def _serve(app_dsn: str, service_dsn: str, folder: Path, ready: Future[House], closing: threading.Event) -> None:
    try:
        async with Database(app_dsn, max_size=8) as db, Database(service_dsn, max_size=4) as service_db:
            settings = Settings(data_dir=folder, gateway_url="http://127.0.0.1:1")  # where nobody listens
            clock = SetClock(NOON)
            platform = build_platform(settings, db, service_db, Keyring(bytes(range(32))), clock, mail_for(settings))
            platform.identity._hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)  # speed, not safety
            with socket.create_server(("127.0.0.1", 0)) as listening:
                house = await _furnished(platform, clock, f"http://127.0.0.1:{listening.getsockname()[1]}")
                config = uvicorn.Config(
                    build_app(platform), log_level="warning", lifespan="off", timeout_graceful_shutdown=1
                )
                server = uvicorn.Server(config)
                serving = asyncio.create_task(server.serve(sockets=[listening]))
                ready.set_result(house)
                await asyncio.to_thread(closing.wait)
                server.should_exit = True
                await serving
    except BaseException as error:
        if not ready.done():
            ready.set_exception(error)
        raise


async def _furnished(platform: Platform, clock: SetClock, address: str) -> House:
    street = await stalls.furnish(platform)
    await _newcomer(platform, street)
    await platform.billing.start(PLATFORM, "2026-10")
    await platform.billing.work("2026-10")
    (statement, *_) = (await platform.settlements.page(street.provider)).items
    lines = await platform.invoices.lines(street.developer, street.invoice.id)
    statement_lines = (await platform.settlements.statement(street.provider, statement.id)).lines
    payment = await _papers(platform, street, lines[0]["id"])
    payouts = await _payouts(platform, street, clock)
    disputes = await _disputes(platform, street, statement.id)
    month = await _level(platform, street, clock)
    return House(
        address, street, platform, asyncio.get_running_loop(), lines[0]["id"], statement.id, statement_lines[0].id,
        payouts, disputes, month, payment,
    )  # fmt: skip


async def _newcomer(platform: Platform, street: Street) -> None:
    """Let somebody with a long name call in October, and give a State that GST doesn't know."""
    name = "Nowhere Agricultural Produce Marketing and Logistics Cooperative Federation Limited"
    actor = await platform.identity.create_organisation(
        email=NEWCOMER, password=stalls.PASSWORD, name="Asha", organisation=name, kind="consumer", state_code="29"
    )
    application = await platform.identity.create_application(actor, "Storefront")
    listing = street.listings[0]
    subscription = await platform.subscriptions.subscribe(actor, application.id, listing.id, "basic")
    chance, at = random.Random(7), datetime(2026, 10, 25, 6, 30, tzinfo=UTC)
    events = [
        stalls._call(chance, subscription, {listing.id: listing}, at + timedelta(minutes=count)) for count in range(20)
    ]
    async with platform.service_db.transaction(PLATFORM_SCOPE) as connection:
        records = [Record(event, "newcomer", 1, place + 1) for place, event in enumerate(events)]
        await intake.take(connection, records, platform.clock.now(), any_time=True)
        await connection.execute("UPDATE organisations SET state_code = '00' WHERE id = %s", (actor.org_id,))


async def _papers(platform: Platform, street: Street, line: UUID) -> UUID:
    """Pay October's invoice in part, send a part of that back, and correct the invoice both ways; return the payment.

    One message of a payment provider can't be booked.
    """
    invoice = street.invoice
    paid = await platform.payments.record(
        PLATFORM, invoice.org_id, Decimal("5.00"), "NEFT-2611-0042", invoice=invoice.id
    )
    await platform.payments.refund(PLATFORM, paid.id, Decimal("1.00"), "NEFT-2611-0043")
    async with platform.db.transaction(PLATFORM_SCOPE) as connection:
        body, at = '{"type": "payment.succeeded", "amount": "5.00", "currency": "EUR"}', platform.clock.now()
        await payment_store.keep_refused(connection, "upi", "msg_4711", "It is in EUR: only INR is booked.", body, at)
    credit = CreditItem(line, Decimal("1.50"), "provider")
    await platform.invoices.credit(
        PLATFORM, [credit], key="slow-day", reason="goodwill", reference="Slow on 19 October"
    )
    debit = DebitItem(line, Decimal("0.75"), "Counted too low on 20 October")
    await platform.invoices.debit(PLATFORM, [debit], key="low-day", reason="undercharged")
    return paid.id


async def _payouts(platform: Platform, street: Street, clock: SetClock) -> list[UUID]:
    """Pay one provider, and hold the other's payout."""
    session = await platform.identity.sign_in(NEIGHBOUR, stalls.PASSWORD)
    neighbour = await platform.identity.actor_of(session.token)
    for actor, holder in ((street.provider, "Vani Speech and Translation Private Limited"), (neighbour, "Akshara")):
        assert actor.org_id is not None
        await platform.payouts.set_account(actor, holder, "000123456789", "SBIN0001234")
        await platform.payouts.set_terms(PLATFORM, actor.org_id, minimum=Decimal(0), delay_days=0)
    clock.advance(minutes=1)
    drafted = (await platform.payouts.draft_all(PLATFORM)).drafted
    own = next(one for one in drafted if one.org_id == street.provider.org_id)
    other = next(one for one in drafted if one.org_id != street.provider.org_id)
    await platform.payouts.approve(PLATFORM, own.id)
    await platform.payouts.send(PLATFORM)
    await platform.payouts.pay(PLATFORM, own.id, "SBIN426112100000042")
    await platform.payouts.hold_payout(PLATFORM, other.id, "The account's holder is somebody else: papers are awaited")
    return [own.id, other.id]


async def _disputes(platform: Platform, street: Street, statement: UUID) -> list[UUID]:
    """Have one dispute opened by the customer, and one of the provider's decided."""

    async def log(*lines: str) -> AsyncIterator[bytes]:
        yield "\n".join(("request_id,quantity", *lines, "")).encode()

    theirs = await platform.disputes.open(
        street.provider, f"settlement/{statement}", log(f"{street.call},17"), "csv", "Our log has fewer characters"
    )
    await platform.disputes.decide(PLATFORM, theirs.id, {}, "The gateway's journal holds every one of these calls")
    ours = await platform.disputes.open(
        street.developer, f"invoice/{street.invoice.id}", log(), "csv", "We made no calls on these days"
    )
    return [ours.id, theirs.id]


async def _level(platform: Platform, street: Street, clock: SetClock) -> UUID:
    """Promise, break the promise, be judged for it; announce maintenance. It is two in the morning then."""
    listing = street.listings[0]
    draft = ObjectiveDraft.model_validate(
        {"availability": "99.5", "p95_ms": 800, "tiers": [{"below": "99.5", "credit": "10"}], "probe": "none"}
    )
    await platform.sla.promise(street.provider, listing.id, draft)
    clock.advance(seconds=(MIDNIGHT - clock.now()).total_seconds())
    await _busy_hour(platform, street)
    await platform.sla_watch.review()
    clock.advance(hours=2)
    await platform.sla_watch.review()
    (month,) = (await platform.sla_closing.close(PLATFORM, "2026-11")).judged
    start = clock.now() + timedelta(days=4)
    start -= timedelta(minutes=start.minute % 15, seconds=start.second, microseconds=start.microsecond)
    await platform.sla.announce(street.provider, listing.id, start, start + timedelta(hours=1), "A larger machine")
    identifier: UUID = month["id"]
    return identifier


async def _busy_hour(platform: Platform, street: Street) -> None:
    """Call the first service 400 times in November's last hour, often in vain, and a few times two hours later."""
    chance, listing = random.Random(5), street.listings[0]
    moments = [MIDNIGHT - timedelta(seconds=9 * count + 1) for count in range(400)]
    moments += [MIDNIGHT + timedelta(hours=2, seconds=-20 * count - 1) for count in range(12)]
    events = [stalls._call(chance, street.subscription, {listing.id: listing}, at) for at in moments]
    events = [
        structs.replace(one, status=503, error_code="") if one.outcome is Outcome.PROVIDER_FAILED else one
        for one in events
    ]
    async with platform.service_db.transaction(PLATFORM_SCOPE) as connection:
        records = [Record(event, "busy", 1, place + 1) for place, event in enumerate(events)]
        await intake.take(connection, records, platform.clock.now(), any_time=True)

"""What tests of settlement share: a month with its invoices and credit notes, and the services of settlement."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from bazaar import Bazaar, Service, Subscription, consumer, partner
from haat.control.context import current_actor
from haat.infra.keyring import Keyring
from haat.infra.postgres import PLATFORM_SCOPE, Connection
from haat.infra.projections import rebuild
from haat.invoices.credits import CreditItem, credit
from haat.invoices.service import Invoices
from haat.kernel.clock import SetClock
from haat.kernel.ids import new_id
from haat.kernel.permissions import PLATFORM, Actor
from haat.ledger.projection import BALANCES
from haat.ledger.service import balance
from haat.settings import Settings
from haat.settlement.bank_answers import BankAnswers
from haat.settlement.disputes import Disputes
from haat.settlement.evidence import Evidence
from haat.settlement.payouts import Payouts
from haat.settlement.projection import SETTLEMENTS
from haat.settlement.service import Settlements
from haat.settlement.shares import Shares
from haat.settlement.withholding import Rule
from haat.usage.model import Pseudonyms

MONTH = "2026-11"
ACCOUNT = {"holder": "Vani Speech Private Limited", "number": "000123456789", "ifsc": "SBIN0001234"}


@dataclass
class House:
    """The services of settlement on a test's database."""

    database: Any
    clock: SetClock
    rules: Sequence[Rule] = ()
    agent: bool = False
    minimum: Decimal = Decimal(0)
    delay_days: int = 0
    keyring: Keyring = field(default_factory=lambda: Keyring(bytes(range(32))))
    bazaar: Bazaar = field(init=False)
    invoices: Invoices = field(init=False)
    settlements: Settlements = field(init=False)
    payouts: Payouts = field(init=False)
    bank_answers: BankAnswers = field(init=False)
    disputes: Disputes = field(init=False)
    evidence: Evidence = field(init=False)
    shares: Shares = field(init=False)

    def __post_init__(self) -> None:
        db, clock = self.database.app, self.clock
        pseudonyms = Pseudonyms(bytes(32))
        self.bazaar = Bazaar(self.database.service, clock)
        self.invoices = Invoices(db, clock, Settings(supply="agent" if self.agent else "principal"))
        self.settlements = Settlements(db, clock, pseudonyms, self.invoices, withholdings=self.rules, agent=self.agent)
        self.payouts = Payouts(db, clock, self.keyring, minimum=self.minimum, delay_days=self.delay_days)
        self.bank_answers = BankAnswers(db, clock)
        self.disputes = Disputes(db, clock, self.settlements, days=60, credit=credit)
        self.evidence = Evidence(db, pseudonyms)
        self.shares = Shares(db, clock)

    def close_month(self) -> None:
        self.clock.advance(seconds=(datetime(2026, 12, 1, 12, tzinfo=UTC) - self.clock.now()).total_seconds())

    async def sold(self, *quantities: str, price: str = "1", share: str = "0.70", slug: str = "speak") -> Subscription:
        """Sell calls of one service to one customer."""
        found = await self.bazaar.rows("SELECT id, org_id FROM services WHERE slug = %s", slug)
        service = (
            Service(found[0]["id"], found[0]["org_id"], "vani", slug, "characters")
            if found
            else await self.bazaar.service(slug, price=price, share=share)
        )
        subscription = await self.bazaar.subscribe(await self.bazaar.organisation(), service)
        await self.bazaar.take([self.bazaar.event(subscription, quantity) for quantity in quantities])
        return subscription

    async def settled(self, *quantities: str, account: bool = True, **more: str) -> Subscription:
        """Sell calls, and invoice and settle the month; the provider has an account."""
        subscription = await self.sold(*quantities, **more)
        if account:
            await self.payouts.set_account(partner(subscription.service.org), **ACCOUNT)
        self.close_month()
        await self.invoices.issue_all(PLATFORM, MONTH)
        await self.settlements.close_all(PLATFORM, MONTH)
        return subscription

    async def credit(self, line: UUID, taxable: str, fault: Any = "provider", reason: str = "refund") -> UUID:
        """Give a customer some of a line back by a credit note."""
        async with self.database.app.transaction(PLATFORM_SCOPE) as connection:
            note = await credit(
                connection,
                PLATFORM,
                [CreditItem(line, Decimal(taxable), fault)],
                key=str(new_id()),
                reason=reason,
                reference="",
                at=self.clock.now(),
            )
        return note.id

    async def lines(self) -> list[dict[str, Any]]:
        return await self.bazaar.rows("SELECT * FROM invoice_lines ORDER BY id")

    async def books(self, account: str) -> Decimal:
        async with self.database.app.transaction(PLATFORM_SCOPE) as connection:
            return await balance(connection, account)

    async def check_rebuild(self) -> None:
        """See that tables made anew from their events are the same to the byte."""
        connection: Connection
        async with await AsyncConnection.connect(self.database.owner_dsn, row_factory=dict_row) as connection:
            for one in await rebuild(connection, [BALANCES, SETTLEMENTS], repair=False):
                assert (one.missing, one.surplus) == (0, 0), one

    async def check_sums(self) -> None:
        """See that every paisa is somebody's, and that the books say what statements and payouts say."""
        statements = await self.bazaar.rows("SELECT * FROM settlements")
        lines = await self.bazaar.rows("SELECT sum(gross) AS gross FROM settlement_lines")
        credits = await self.bazaar.rows("SELECT coalesce(sum(gross), 0) AS gross FROM settlement_credits")
        provider = sum(one["provider_amount"] - one["credited_provider"] for one in statements)
        platform = sum(one["platform_amount"] - one["credited_platform"] for one in statements)
        assert provider + platform == (lines[0]["gross"] or 0) - credits[0]["gross"]
        for org in {one["org_id"] for one in statements}:
            money = await self.payouts.balance(PLATFORM, org)
            parts = money.available + money.waiting + money.held + money.on_its_way + money.paid
            assert money.settled == sum(one["payable"] for one in statements if one["org_id"] == org) == parts
            assert -(await self.books(f"payable/{org}")) == money.available + money.waiting + money.on_its_way
            assert -(await self.books(f"held/{org}")) == money.held
        accounts = await self.bazaar.rows("SELECT sum(amount) AS sum FROM ledger_balances")
        assert not accounts[0]["sum"]


@asynccontextmanager
async def signed_in(app: Any, actor: Actor) -> AsyncIterator[httpx.AsyncClient]:
    app.dependency_overrides[current_actor] = lambda: actor
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://haat.test/api/v1") as client:
        yield client


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    for piece in given:
        yield piece


__all__ = ["ACCOUNT", "MONTH", "House", "consumer", "partner", "pieces", "signed_in"]

"""The billing desk for tests: a customer with usage, a closed month, and what the books and projections say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from bazaar import Bazaar, Subscription
from haat.infra.postgres import PLATFORM_SCOPE, Connection
from haat.infra.projections import Difference, rebuild
from haat.invoices.projection import INVOICES
from haat.invoices.service import Invoice, Invoices
from haat.kernel.clock import SetClock
from haat.kernel.permissions import PLATFORM
from haat.ledger.projection import BALANCES

MONTH = "2026-11"
OVER = datetime(2026, 12, 1, 12, tzinfo=UTC)


@dataclass
class Desk:
    """One test's market and the invoices of it."""

    database: Any
    bazaar: Bazaar
    invoices: Invoices
    clock: SetClock

    def close_month(self) -> None:
        self.clock.advance(seconds=max(0, (OVER - self.clock.now()).total_seconds()))

    async def subscription(self, **service: Any) -> Subscription:
        """Return a subscription of a new customer to a new service at ₹1 a character."""
        made = await self.bazaar.service(**{"price": "1", **service})
        return await self.bazaar.subscribe(await self.bazaar.organisation(), made)

    async def billed(self, *quantities: str, **service: Any) -> tuple[Subscription, Invoice]:
        """Return a subscription and the invoice of its closed month."""
        subscription = await self.subscription(**service)
        await self.bazaar.take([self.bazaar.event(subscription, quantity) for quantity in quantities])
        self.close_month()
        invoice = await self.invoices.issue(PLATFORM, MONTH, subscription.org)
        assert invoice is not None
        return subscription, invoice

    async def lines(self, invoice: Invoice) -> list[UUID]:
        return [line["id"] for line in await self.invoices.lines(PLATFORM, invoice.id)]

    async def again(self, invoice: Invoice) -> Invoice:
        return await self.invoices.get(PLATFORM, invoice.id)

    async def books(self) -> dict[str, Decimal]:
        """Return what stands on each account that isn't at zero; raise unless they sum to zero."""
        rows = await self.bazaar.rows("SELECT account, amount FROM ledger_balances WHERE amount <> 0")
        found = {row["account"]: row["amount"] for row in rows}
        assert sum(found.values()) == 0
        return found

    async def made_anew(self) -> list[Difference]:
        """Make the projections anew beside what is there and return what differs."""
        async with self.owner() as connection:
            return [one for one in await rebuild(connection, (BALANCES, INVOICES), repair=False) if _differs(one)]

    @asynccontextmanager
    async def owner(self) -> AsyncIterator[Connection]:
        connection: Connection
        async with await AsyncConnection.connect(self.database.owner_dsn, row_factory=dict_row) as connection:
            yield connection

    async def types(self, stream: str) -> Sequence[str]:
        """Return the types of a stream's events, in order."""
        rows = await self.bazaar.rows("SELECT type FROM events WHERE stream = %s ORDER BY version", stream)
        return [row["type"] for row in rows]

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        async with self.database.app.transaction(PLATFORM_SCOPE) as connection:
            yield connection


def _differs(one: Difference) -> bool:
    return bool(one.missing or one.surplus)

"""Use cases of settlement: close a provider's month, read the statement, and find the calls behind a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from haat.infra import events
from haat.infra.postgres import PLATFORM_SCOPE, Database, Scope, tenant
from haat.invoices.service import BilledCall, Invoices
from haat.kernel.clock import Clock
from haat.kernel.errors import NotFound
from haat.kernel.ids import new_id
from haat.kernel.pages import MAX_PAGE, Page, decode_id_cursor, page_of
from haat.kernel.permissions import PLATFORM, Actor, Permission
from haat.settlement import store
from haat.settlement.model import settle_line, totals
from haat.usage.model import Pseudonyms, month_named


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a provider earned in a period; amounts in rupees and whole paise, before tax."""

    id: UUID
    org_id: UUID
    period: str
    part: int
    closed_at: datetime
    gross: Decimal
    provider: Decimal
    platform: Decimal


@dataclass(frozen=True, slots=True)
class StatementLine:
    """A settlement line as its provider may see it: the customer is a pseudonym."""

    id: UUID
    customer: str
    description: str
    plan: str | None
    period: str
    calls: int
    unit: str
    quantity: Decimal
    free_units: Decimal
    unit_price: Decimal
    gross: Decimal
    share: Decimal
    provider: Decimal
    platform: Decimal


@dataclass(frozen=True, slots=True)
class Statement:
    settlement: Settlement
    lines: Sequence[StatementLine]


class Settlements:
    """Shares invoice lines' net values between providers and the platform."""

    def __init__(self, db: Database, clock: Clock, pseudonyms: Pseudonyms, invoices: Invoices) -> None:
        self._db, self._clock, self._pseudonyms, self._invoices = db, clock, pseudonyms, invoices

    async def close(self, actor: Actor, period: str, provider_org: UUID) -> Settlement | None:
        """Settle the lines of a period's invoices that aren't settled yet.

        Doing it again changes nothing and returns the newest settlement; invoices issued since make a
        further part. Return None when there is nothing to settle.
        """
        actor.require(Permission.SETTLEMENTS_RUN)
        month_named(period, "UTC")
        now = self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await store.lock(connection, provider_org)
            present = await store.settlements_of(connection, provider_org, period)
            found = await store.unsettled(connection, provider_org, period)
            if not found:
                return Settlement(**present[-1]) if present else None
            lines = [settle_line(row["id"], row["taxable"], row["provider_share"]) for row in found]
            sums = totals(lines)
            identifier = new_id()
            row = await store.add(
                connection,
                id=identifier,
                provider_org=provider_org,
                period=period,
                part=len(present) + 1,
                closed_at=now,
                totals=sums,
                lines=lines,
            )
            await events.append(
                connection,
                stream=f"settlement/{identifier}",
                type="settlement.closed",
                data={
                    "period": period,
                    "part": len(present) + 1,
                    "lines": len(lines),
                    "gross": str(sums.gross),
                    "provider": str(sums.provider),
                    "platform": str(sums.platform),
                },
                actor=actor.label,
                org=provider_org,
                at=now,
            )
        return Settlement(**row)

    async def close_all(self, actor: Actor, period: str) -> list[Settlement]:
        """Settle every provider with lines on a period's invoices; return all settlements of the period."""
        actor.require(Permission.SETTLEMENTS_RUN)
        month_named(period, "UTC")
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            providers = await store.providers_to_settle(connection, period)
        for provider in providers:
            await self.close(actor, period, provider)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            found = [await store.settlements_of(connection, provider, period) for provider in providers]
        return [Settlement(**row) for rows in found for row in rows]

    async def page(
        self,
        actor: Actor,
        *,
        provider_org: UUID | None = None,
        period: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[Settlement]:
        """Return settlements, newest first: one's own, or for the operator anybody's."""
        scope, whose = self._whose(actor, provider_org)
        limit = max(1, min(limit, MAX_PAGE))
        before = decode_id_cursor(cursor)
        async with self._db.transaction(scope) as connection:
            rows = await store.page(connection, whose, period, before, limit + 1)
        return page_of([Settlement(**row) for row in rows], limit, lambda settlement: (settlement.id,))

    async def statement(self, actor: Actor, identifier: UUID) -> Statement:
        """Return a settlement with its lines; raise NotFound for another provider's."""
        _, whose = self._whose(actor, None)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            row = await store.settlement(connection, identifier)
            if row is None or (whose is not None and row["org_id"] != whose):
                raise NotFound("There is no such settlement, or it is not yours.")
            lines = await store.lines(connection, identifier)
        return Statement(Settlement(**row), [self._line(line) for line in lines])

    async def calls(
        self, actor: Actor, line_id: UUID, *, cursor: str | None = None, limit: int = 100
    ) -> Page[BilledCall]:
        """Return the calls behind a settlement line: the same ones as behind its invoice line."""
        _, whose = self._whose(actor, None)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            line = await store.line(connection, line_id)
        if line is None or (whose is not None and line["org_id"] != whose):
            raise NotFound("There is no such line on a settlement of yours.")
        return await self._invoices.calls(PLATFORM, line["invoice_line_id"], cursor=cursor, limit=limit)

    def _line(self, row: Mapping[str, Any]) -> StatementLine:
        return StatementLine(
            row["id"],
            self._pseudonyms.of(row["org_id"], row["customer_org"]),
            row["description"],
            row["plan"],
            row["period"],
            row["calls"],
            row["unit"],
            row["quantity"],
            row["free_units"],
            row["unit_price"],
            row["gross"],
            row["share"],
            row["provider"],
            row["platform"],
        )

    @staticmethod
    def _whose(actor: Actor, provider_org: UUID | None) -> tuple[Scope, UUID | None]:
        actor.require(Permission.SETTLEMENTS_READ)
        if actor.may(Permission.SETTLEMENTS_RUN):
            return PLATFORM_SCOPE, provider_org
        if provider_org not in (None, actor.org_id):
            raise NotFound
        return tenant(actor.org_id), actor.org_id

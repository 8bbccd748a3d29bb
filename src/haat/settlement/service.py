"""Use cases of settlement: close a provider's month, read the statement, and find the calls behind a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database, Scope, tenant
from haat.infra.projections import record
from haat.invoices.service import BilledCall, Invoices
from haat.kernel.clock import Clock
from haat.kernel.errors import NotFound
from haat.kernel.ids import new_id
from haat.kernel.money import total
from haat.kernel.pages import MAX_PAGE, Page, decode_id_cursor, page_of
from haat.kernel.permissions import PLATFORM, Actor, Permission
from haat.ledger.model import Entry, Operation
from haat.ledger.service import post
from haat.settlement import steps, store
from haat.settlement.model import (
    Adjustment,
    CreditedLine,
    SettledLine,
    Sums,
    credited_entries,
    earned_entries,
    reversed_share,
    settle_line,
    totals,
    withheld_entries,
)
from haat.settlement.projection import SETTLEMENTS
from haat.settlement.withholding import Rule, Withheld, rates_of, withhold
from haat.usage.model import Pseudonyms, month_named

LINES_AN_EVENT = 2000
"""So many lines are written with one event: a statement may have any number of them."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a provider earned in a period; amounts in rupees and whole paise, before tax.

    ``gross`` is divided into ``provider`` and ``platform``, and what was ``credited`` to customers is taken back from
    both in the same way. ``adjusted`` is what else was posted to the provider's account, below zero for a debit.
    ``payable`` is what the provider is owed: ``provider - credited_provider + adjusted - withheld``.
    """

    id: UUID
    org_id: UUID
    period: str
    part: int
    closed_at: datetime
    gross: Decimal
    provider: Decimal
    platform: Decimal
    credited: Decimal
    credited_provider: Decimal
    credited_platform: Decimal
    adjusted: Decimal
    withheld: Decimal
    payable: Decimal


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
class StatementCredit:
    """What a customer got back of a line, and who bears it. ``line_id`` is the line on its own statement."""

    id: UUID
    line_id: UUID | None
    customer: str
    description: str
    period: str
    fault: str
    gross: Decimal
    share: Decimal
    provider: Decimal
    platform: Decimal


@dataclass(frozen=True, slots=True)
class StatementAdjustment:
    """Something else that was posted to the provider's account; ``reference`` says what it was about."""

    kind: str
    reference: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Statement:
    settlement: Settlement
    lines: Sequence[StatementLine]
    credits: Sequence[StatementCredit]
    withheld: Sequence[Withheld]
    adjustments: Sequence[StatementAdjustment]


class Settlements:
    """Shares invoice lines' net values between providers and the platform.

    ``agent``: how invoices are taken to be booked that the ledger doesn't know. ``zone`` is the operator's: its days
    decide which rates of withheld tax hold.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        pseudonyms: Pseudonyms,
        invoices: Invoices,
        *,
        withholdings: Sequence[Rule] = (),
        agent: bool = False,
        zone: str = "Asia/Kolkata",
    ) -> None:
        self._db, self._clock, self._pseudonyms, self._invoices = db, clock, pseudonyms, invoices
        self._rules, self._agent, self._zone = withholdings, agent, zone

    async def close(self, actor: Actor, period: str, provider_org: UUID) -> Settlement | None:
        """Settle the lines of a period's invoices that aren't settled yet, and what was credited since.

        Doing it again changes nothing and returns the newest settlement; invoices issued since make a
        further part. Return None when there is nothing to settle.
        """
        actor.require(Permission.SETTLEMENTS_RUN)
        month_named(period, "UTC")
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await store.lock(connection, provider_org)
            operations = await self.settle(connection, actor, period, provider_org)
            found = await store.settlements_of(connection, provider_org, period)
            await post(connection, operations)
        return Settlement(**found[-1]) if found else None

    async def settle(self, connection: Connection, actor: Actor, period: str, provider_org: UUID) -> list[Operation]:
        """Close what there is to settle within the caller's transaction, which holds the provider's lock.

        Return what is to be posted, late in that transaction.
        """
        now, by = self._clock.now(), actor.label
        rows = await store.unsettled(connection, provider_org, period, self._agent)
        identifier = new_id()
        lines = [settle_line(row["id"], row["taxable"], row["provider_share"], row["agent"]) for row in rows]
        await self._write_lines(connection, by, identifier, provider_org, lines, now)
        credits = credited_lines(await store.unsettled_credits(connection, provider_org, self._agent))
        adjustments = [Adjustment(**_named(row)) for row in await store.movements(connection, provider_org)]
        if not (lines or credits or adjustments):
            return []
        earned, credited = totals(lines), totals(credits)
        withheld = await self._withhold(connection, period, provider_org, earned.gross, earned.provider, credits, now)
        sums = Sums(earned, credited, total(one.amount for one in adjustments), total(one.amount for one in withheld))
        part = len(await store.settlements_of(connection, provider_org, period)) + 1
        await record(
            connection,
            SETTLEMENTS,
            stream=f"settlement/{identifier}",
            type="settlement.closed",
            data=_head(period, part, now, len(lines), sums, credits, withheld, adjustments),
            actor=by,
            org=provider_org,
            at=now,
        )
        if sums.payable < 0:
            await steps.withdraw(connection, by, provider_org, "A later statement takes something back.", now)
        operations = [
            *_operation(f"settlement/{identifier}", "settlement", now, earned_entries(provider_org, lines), identifier),
            *_operation(
                f"settlement-credit/{identifier}",
                "settlement-credit",
                now,
                credited_entries(provider_org, credits),
                identifier,
            ),
            *_operation(
                f"withheld/{identifier}", "withheld", now, withheld_entries(provider_org, withheld), identifier
            ),
        ]
        for contested in await store.contested(connection, identifier):
            if contested["amount"] > 0:
                _, held = await steps.place_hold(
                    connection,
                    by,
                    provider_org,
                    contested["amount"],
                    reason="Contested before it was settled",
                    at=now,
                    settlement=identifier,
                    dispute=contested["dispute_id"],
                )
                operations += held
        return operations

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
            credits = await store.credits(connection, identifier)
            withheld = await store.withheld(connection, identifier)
            adjustments = await store.adjustments(connection, identifier)
        return Statement(
            Settlement(**row),
            [self._line(line) for line in lines],
            [self._credit(credit) for credit in credits],
            [Withheld(**one) for one in withheld],
            [StatementAdjustment(**one) for one in adjustments],
        )

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

    # --- within ---------------------------------------------------------------------------------

    async def _write_lines(
        self, connection: Connection, by: str, settlement: UUID, org: UUID, lines: Sequence[SettledLine], now: datetime
    ) -> None:
        for start in range(0, len(lines), LINES_AN_EVENT):
            written = [
                [
                    str(new_id()),
                    str(line.invoice_line),
                    *map(str, (line.gross, line.rate, line.provider, line.platform)),
                ]
                for line in lines[start : start + LINES_AN_EVENT]
            ]
            await record(
                connection,
                SETTLEMENTS,
                stream=f"settlement/{settlement}",
                type="settlement.lines",
                data={"lines": written},
                actor=by,
                org=org,
                at=now,
            )

    async def _withhold(
        self,
        connection: Connection,
        period: str,
        org: UUID,
        gross: Decimal,
        provider: Decimal,
        credits: Sequence[CreditedLine],
        now: datetime,
    ) -> list[Withheld]:
        if not self._rules:
            return []
        terms = await store.terms(connection, org)
        returned = totals(credit for credit in credits if not credit.guarantee)  # nothing less was supplied for those
        return withhold(
            self._rules,
            closed=now.astimezone(ZoneInfo(self._zone)).date(),
            period_end=(month_named(period, "UTC").end - timedelta(days=1)).date(),
            gross=total((gross, -returned.gross)),
            provider=total((provider, -returned.provider)),
            rates=rates_of(terms["withholdings"]) if terms else {},
        )

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

    def _credit(self, row: Mapping[str, Any]) -> StatementCredit:
        return StatementCredit(
            row["id"],
            row["line_id"],
            self._pseudonyms.of(row["org_id"], row["customer_org"]),
            row["description"],
            row["period"],
            row["fault"],
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


def credited_lines(rows: Sequence[Mapping[str, Any]]) -> list[CreditedLine]:
    """Return credits with their parts; several of one line count after each other."""
    before: dict[UUID, Decimal] = {}
    credits = []
    for row in rows:
        line, fault = row["invoice_line_id"], row["fault"]
        provider, platform = Decimal(0), row["taxable"]
        if fault == "provider":
            gone = before.get(line, row["before"])
            provider, platform = reversed_share(row["gross"], row["provider_share"], gone, row["taxable"])
            before[line] = total((gone, row["taxable"]))
        credits.append(
            CreditedLine(
                row["id"],
                line,
                fault,
                row["taxable"],
                row["provider_share"],
                provider,
                platform,
                row["agent"],
                row["guarantee"],
            )
        )
    return credits


def _named(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"operation": row["id"], "kind": row["kind"], "reference": row["reference"], "amount": row["amount"]}


def _head(
    period: str,
    part: int,
    now: datetime,
    lines: int,
    sums: Sums,
    credits: Sequence[CreditedLine],
    withheld: Sequence[Withheld],
    adjustments: Sequence[Adjustment],
) -> dict[str, Any]:
    """Return all that a statement says besides its lines, as its event has it."""
    return {
        "period": period,
        "part": part,
        "closed_at": now.isoformat(),
        "lines": lines,
        "gross": str(sums.earned.gross),
        "provider": str(sums.earned.provider),
        "platform": str(sums.earned.platform),
        "credited": str(sums.credited.gross),
        "credited_provider": str(sums.credited.provider),
        "credited_platform": str(sums.credited.platform),
        "adjusted": str(sums.adjusted),
        "withheld": str(sums.withheld),
        "payable": str(sums.payable),
        "earning": str(new_id()) if sums.payable else None,
        "credits": [
            [
                *map(str, (new_id(), one.credit_line, one.invoice_line, one.fault)),
                *map(str, (one.gross, one.rate, one.provider, one.platform)),
            ]
            for one in credits
        ],
        "withheld_lines": [
            [*map(str, (new_id(), one.name, one.section, one.base, one.rate, one.amount))] for one in withheld
        ],
        "adjustments": [
            [*map(str, (new_id(), one.operation, one.kind, one.reference, one.amount))] for one in adjustments
        ],
    }


def _operation(key: str, kind: str, at: datetime, entries: tuple[Entry, ...], settlement: UUID) -> list[Operation]:
    """Return the operation of some entries, none for none."""
    return [Operation(key, kind, at, entries, f"settlement/{settlement}")] if entries else []

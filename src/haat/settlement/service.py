"""Use cases of settlement: close a provider's month."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database
from haat.infra.projections import record
from haat.invoices.service import Invoices
from haat.kernel.clock import Clock
from haat.kernel.ids import new_id
from haat.kernel.money import total
from haat.kernel.permissions import Actor, Permission
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
from haat.settlement.statements import Settlement, Statements, Waiting
from haat.settlement.withholding import Rule, Withheld, rates_of, withhold
from haat.usage.model import Pseudonyms, month_named

LINES_AN_EVENT = 2000
"""So many lines are written with one event: a statement may have any number of them."""


class Settlements(Statements):
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
        super().__init__(db, pseudonyms, invoices)
        self._clock, self._rules, self._agent, self._zone = clock, withholdings, agent, zone

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

    async def waiting(self, actor: Actor, period: str) -> Waiting:
        """Return what of a period's invoices no statement has yet (operator)."""
        actor.require(Permission.SETTLEMENTS_RUN)
        month_named(period, "UTC")
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return Waiting(**await store.unsettled_sums(connection, period))

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

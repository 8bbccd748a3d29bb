"""Reading settlements: statements with their lines, and the calls behind each line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from haat.infra.postgres import PLATFORM_SCOPE, Database, Scope, tenant
from haat.invoices.service import BilledCall, Invoices
from haat.kernel.errors import NotFound
from haat.kernel.pages import MAX_PAGE, Page, decode_id_cursor, page_of
from haat.kernel.permissions import PLATFORM, Actor, Permission
from haat.language.messages import _
from haat.settlement import store
from haat.settlement.withholding import Withheld
from haat.usage.model import Pseudonyms


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
class Waiting:
    """Lines on a period's invoices that no statement has yet: of how many providers, and what they come to."""

    providers: int
    lines: int
    gross: Decimal


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


class Statements:
    """Shows providers their own statements, and the operator everybody's; customers are pseudonyms."""

    def __init__(self, db: Database, pseudonyms: Pseudonyms, invoices: Invoices) -> None:
        self._db, self._pseudonyms, self._invoices = db, pseudonyms, invoices

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
        _scope, whose = self._whose(actor, None)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            row = await store.settlement(connection, identifier)
            if row is None or (whose is not None and row["org_id"] != whose):
                raise NotFound(_("There is no such settlement, or it is not yours."))
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
        _scope, whose = self._whose(actor, None)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            line = await store.line(connection, line_id)
        if line is None or (whose is not None and line["org_id"] != whose):
            raise NotFound(_("There is no such line on a settlement of yours."))
        return await self._invoices.calls(PLATFORM, line["invoice_line_id"], cursor=cursor, limit=limit)

    # --- within ---------------------------------------------------------------------------------

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

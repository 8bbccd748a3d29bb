"""Use cases of the ledger: post within a transaction, and read the books."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database
from haat.kernel.errors import NotFound
from haat.kernel.pages import MAX_PAGE, Page, decode_id_cursor, page_of
from haat.kernel.permissions import Actor, Permission
from haat.ledger import store
from haat.ledger.model import Balance, Entry, Operation, TrialBalance, owner_of


@dataclass(frozen=True, slots=True)
class Posted:
    """An entry as its account shows it, with what it is about."""

    id: UUID
    key: str
    kind: str
    at: datetime
    reference: str
    currency: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Booked:
    """An operation as it was posted."""

    id: UUID
    key: str
    kind: str
    at: datetime
    reference: str
    currency: str
    entries: Sequence[Entry]


async def post(connection: Connection, operations: Sequence[Operation]) -> list[bool]:
    """Post operations within the caller's transaction, as `haat.ledger.store.post` does."""
    return await store.post(connection, operations)


async def balance(connection: Connection, account: str, currency: str = "INR") -> Decimal:
    """Return what stands on one account, within the caller's transaction."""
    return await store.balance(connection, account, currency)


class Ledger:
    """The books, for the operator; an organisation sees the accounts that bear its name."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def trial_balance(self, actor: Actor, at: datetime | None = None) -> TrialBalance:
        """Return what stands on every account, now or as it stood at a time."""
        actor.require(Permission.LEDGER_READ)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            rows = await store.balances(connection, at)
        return TrialBalance(at, [Balance(**row) for row in rows])

    async def entries(self, actor: Actor, account: str, *, cursor: str | None = None, limit: int = 50) -> Page[Posted]:
        """Return an account's entries, newest first; raise NotFound for another organisation's."""
        if not actor.may(Permission.LEDGER_READ) and (actor.org_id is None or owner_of(account) != actor.org_id):
            raise NotFound
        actor.require(Permission.INVOICES_READ)
        limit = max(1, min(limit, MAX_PAGE))
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            rows = await store.entries(connection, account, decode_id_cursor(cursor), limit + 1)
        return page_of([Posted(**row) for row in rows], limit, lambda posted: (posted.id,))

    async def about(self, actor: Actor, reference: str) -> list[Booked]:
        """Return every operation about something, such as ``invoice/{id}``."""
        actor.require(Permission.LEDGER_READ)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            rows = await store.operations_about(connection, reference)
        return [
            Booked(
                row["id"],
                row["key"],
                row["kind"],
                row["at"],
                row["reference"],
                row["currency"],
                [Entry(name, amount) for name, amount in zip(row["accounts"], row["amounts"], strict=True)],
            )
            for row in rows
        ]

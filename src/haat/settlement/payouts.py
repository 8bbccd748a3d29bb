"""Use cases of payouts: from what a provider is owed to its bank, and back when it must be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidTag

from haat.infra import events
from haat.infra.postgres import PLATFORM_SCOPE, Connection
from haat.infra.projections import record
from haat.kernel.errors import Conflict, NotFound
from haat.kernel.ids import new_id
from haat.kernel.money import total
from haat.kernel.pages import MAX_PAGE, Page, decode_id_cursor, page_of
from haat.kernel.permissions import Actor, Permission
from haat.kernel.text import check_name
from haat.language.messages import _
from haat.ledger.service import post
from haat.settlement import payout_store, steps, store
from haat.settlement.balances import Balances, account_context
from haat.settlement.payout_model import Payout, PayoutRow, Status, narration, next_status, payout_file
from haat.settlement.projection import SETTLEMENTS

Check = Callable[[Connection, Mapping[str, Any]], Awaitable[dict[str, str]]]
"""Looks whether a step may be taken with a payout, and returns what is to be written with it."""


@dataclass(frozen=True, slots=True)
class Step:
    """One event of a payout, as its history shows it."""

    type: str
    at: datetime
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class PayoutStory:
    payout: Payout
    rows: Sequence[PayoutRow]
    history: Sequence[Step]


@dataclass(frozen=True, slots=True)
class PayoutRun:
    """What drafting for everybody came to. ``refused`` names providers and reasons; ``carried`` what waits for more."""

    drafted: Sequence[Payout]
    carried: Sequence[tuple[UUID, Decimal]]
    refused: Sequence[tuple[UUID, str]]


@dataclass(frozen=True, slots=True)
class PayoutFile:
    id: UUID
    payouts: int
    total: Decimal


class Payouts(Balances):
    """Pays providers what their statements say, less what is held."""

    # --- step by step ---------------------------------------------------------------------------

    async def draft(self, actor: Actor, org: UUID) -> Payout | None:
        """Draft a payout of all that a provider is owed by now (operator); None where that is too little.

        Doing it again drafts nothing more. Raise NoBankAccount where there is nowhere to pay to, Conflict where payouts
        to the provider are stopped.
        """
        actor.require(Permission.SETTLEMENTS_RUN)
        now = self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await store.lock(connection, org)
            terms = await self._terms(connection, org)
            rows = await payout_store.free_rows(connection, org, self._cutoff(terms))
            amount = total(row["amount"] for row in rows)
            if amount <= 0 or amount < terms.minimum:
                return None
            await self._check_payable(connection, org, terms)
            identifier = new_id()
            await record(
                connection,
                SETTLEMENTS,
                stream=f"payout/{identifier}",
                type="payout.drafted",
                data={"amount": str(amount), "rows": [[str(row["id"]), str(row["amount"])] for row in rows]},
                actor=actor.label,
                org=org,
                at=now,
            )
            row = await payout_store.payout(connection, identifier)
        assert row is not None
        return Payout(**row)

    async def draft_all(self, actor: Actor) -> PayoutRun:
        """Draft payouts for every provider that is owed something; one that can't be paid stops nobody else."""
        actor.require(Permission.SETTLEMENTS_RUN)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            providers = await payout_store.providers_owed(connection)
        drafted: list[Payout] = []
        carried: list[tuple[UUID, Decimal]] = []
        refused: list[tuple[UUID, str]] = []
        for org in providers:
            try:
                payout = await self.draft(actor, org)
            except Conflict as error:
                refused.append((org, error.detail))
                continue
            if payout is not None:
                drafted.append(payout)
            elif left := (await self.balance(actor, org)).available:
                carried.append((org, left))
        return PayoutRun(drafted, carried, refused)

    async def approve(self, actor: Actor, identifier: UUID) -> Payout:
        """Let a payout go into the next file, to the account that the provider has now."""

        async def check(connection: Connection, payout: Mapping[str, Any]) -> dict[str, str]:
            org = payout["org_id"]
            terms = await self._terms(connection, org)
            account = await self._check_payable(connection, org, terms)
            if owed := await payout_store.owed_at_once(connection, org, self._cutoff(terms)):
                raise Conflict(
                    _(
                        "Since it was drafted, ₹%(short)s were held or taken back: reverse it and draft again.",
                        short=f"{-owed:.2f}",
                    )
                )
            return {"account_id": str(account.id), "account": account.label}

        return await self._step(actor, identifier, "approve", check)

    async def hold_payout(self, actor: Actor, identifier: UUID, reason: str) -> Payout:
        """Stop a payout that isn't sent yet, until it is released."""
        return await self._step(actor, identifier, "hold", reason=check_name(reason, "reason", 300))

    async def release_payout(self, actor: Actor, identifier: UUID) -> Payout:
        """Let a held payout go on; it is approved anew."""
        return await self._step(actor, identifier, "release")

    async def send(self, actor: Actor) -> PayoutFile | None:
        """Put all approved payouts into a file for the bank; None when there is none. See `file`."""
        actor.require(Permission.SETTLEMENTS_RUN)
        now, identifier = self._clock.now(), new_id()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            found = await payout_store.with_status(connection, Status.APPROVED)
            await store.lock(connection, *(row["org_id"] for row in found))
            approved = await payout_store.with_status(connection, Status.APPROVED)
            locked = {row["org_id"] for row in found}
            approved = [row for row in approved if row["org_id"] in locked]  # others came since: the next file's
            for row in approved:
                await steps.move_payout(connection, actor.label, row, "send", now, file=str(identifier))
            self._file(await payout_store.file_rows(connection, identifier))  # nothing is sent that can't be written
        if not approved:
            return None
        return PayoutFile(identifier, len(approved), total(row["amount"] for row in approved))

    async def file(self, actor: Actor, identifier: UUID) -> str:
        """Return a file for the bank's bulk upload (see `payout_file`): the same one, however often it is asked for."""
        actor.require(Permission.SETTLEMENTS_RUN)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            rows = await payout_store.file_rows(connection, identifier)
        if not rows:
            raise NotFound(_("There is no such file."))
        return self._file(rows)

    async def files(self, actor: Actor) -> list[PayoutFile]:
        """Return the newest files, 20 at most."""
        actor.require(Permission.SETTLEMENTS_RUN)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return [PayoutFile(**row) for row in await payout_store.files(connection, 20)]

    async def pay(self, actor: Actor, identifier: UUID, bank_reference: str) -> Payout:
        """Record that a payout has arrived, with the bank's reference (UTR)."""
        return await self._step(
            actor, identifier, "pay", bank_reference=check_name(bank_reference, "bank_reference", 60)
        )

    async def fail(self, actor: Actor, identifier: UUID, reason: str) -> Payout:
        """Record that the bank refused a payout: approve it again once the account is right, or reverse it."""
        return await self._step(actor, identifier, "fail", reason=check_name(reason, "reason", 300))

    async def reverse(self, actor: Actor, identifier: UUID, reason: str) -> Payout:
        """Let go of the rows that a payout settles, also of a paid one that came back; the next draft has them."""
        return await self._step(actor, identifier, "reverse", reason=check_name(reason, "reason", 300))

    # --- reading --------------------------------------------------------------------------------

    async def page(
        self,
        actor: Actor,
        *,
        provider_org: UUID | None = None,
        status: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[Payout]:
        """Return payouts, newest first: one's own, or for the operator anybody's."""
        whose = self._whose(actor, provider_org)
        limit = max(1, min(limit, MAX_PAGE))
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            rows = await payout_store.page(connection, whose, status, decode_id_cursor(cursor), limit + 1)
        return page_of([Payout(**row) for row in rows], limit, lambda payout: (payout.id,))

    async def story(self, actor: Actor, identifier: UUID) -> PayoutStory:
        """Return a payout with the rows it settles and what was done with it; raise NotFound for another's."""
        whose = self._whose(actor, None)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            row = await payout_store.payout(connection, identifier)
            if row is None or (whose is not None and row["org_id"] != whose):
                raise NotFound(_("There is no such payout, or it is not yours."))
            rows = await payout_store.rows_of(connection, identifier)
            history = await events.read_stream(connection, f"payout/{identifier}")
        return PayoutStory(
            Payout(**row),
            [PayoutRow(**one) for one in rows],
            [Step(event.type, event.at, event.actor, event.data.get("reason", "")) for event in history],
        )

    async def of_settlement(self, actor: Actor, settlement: UUID) -> list[Payout]:
        """Return the payouts that settle a statement, reversed ones among them; the caller may see the statement."""
        actor.require(Permission.SETTLEMENTS_READ)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            rows = await payout_store.payouts_of(connection, settlement)
        return [Payout(**row) for row in rows if actor.may(Permission.SETTLEMENTS_RUN) or row["org_id"] == actor.org_id]

    # --- within ---------------------------------------------------------------------------------

    def _file(self, rows: Sequence[Mapping[str, Any]]) -> str:
        try:
            return payout_file(
                (
                    row["id"],
                    row["holder"],
                    self._keyring.decrypt(bytes(row["number_encrypted"]), account_context(row["account_id"])),
                    row["ifsc"],
                    f"{row['amount']:.2f}",
                    "INR",
                    narration(row["id"]),
                )
                for row in rows
            )
        except InvalidTag as error:
            raise Conflict(
                _("An account can't be read: the master key isn't the one that it was kept with.")
            ) from error

    async def _step(self, actor: Actor, identifier: UUID, step: str, check: Check | None = None, **data: str) -> Payout:
        actor.require(Permission.SETTLEMENTS_RUN)
        now = self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            row = await payout_store.payout(connection, identifier)
            if row is None:
                raise NotFound(_("There is no such payout."))
            await store.lock(connection, row["org_id"])
            row = await payout_store.payout(connection, identifier)
            assert row is not None
            if check is not None:
                next_status(row["status"], step)  # whether it may be taken at all, before the reasons
                data |= await check(connection, row)
            operations = await steps.move_payout(connection, actor.label, row, step, now, **data)
            row = await payout_store.payout(connection, identifier)
            await post(connection, operations)
        assert row is not None
        return Payout(**row)

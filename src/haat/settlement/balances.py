"""Use cases of what providers are owed: their accounts and terms, where their money is, and what of it is held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from haat.infra import events
from haat.infra.keyring import Keyring
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database
from haat.infra.projections import record
from haat.kernel.clock import Clock
from haat.kernel.errors import Conflict, NoBankAccount, NotFound, ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.money import PAISA, total
from haat.kernel.permissions import Actor, Permission
from haat.kernel.text import check_name
from haat.language.messages import _
from haat.ledger.service import post
from haat.settlement import payout_store, steps, store
from haat.settlement.payout_model import Account, Hold, Terms, check_account
from haat.settlement.projection import SETTLEMENTS
from haat.settlement.withholding import rates_of


@dataclass(frozen=True, slots=True)
class Balance:
    """A provider's money by where it is: the parts from ``available`` to ``paid`` add up to ``settled``.

    ``settled`` is the sum of its statements. ``available`` may be below zero: then more was given back than earned, and
    the next statements make up for it.
    """

    org_id: UUID
    settled: Decimal
    available: Decimal
    waiting: Decimal
    held: Decimal
    on_its_way: Decimal
    paid: Decimal
    terms: Terms
    account: Account | None


class Balances:
    """What providers are owed, where it goes, and what of it waits.

    ``minimum`` and ``delay_days`` hold for providers without terms of their own.
    """

    def __init__(self, db: Database, clock: Clock, keyring: Keyring, *, minimum: Decimal, delay_days: int) -> None:
        self._db, self._clock, self._keyring = db, clock, keyring
        self._minimum, self._delay_days = minimum, delay_days

    # --- accounts and terms ---------------------------------------------------------------------

    async def set_account(self, actor: Actor, holder: str, number: str, ifsc: str) -> Account:
        """Keep the account that the actor's organisation is paid to; what is approved already goes to the old one."""
        actor.require(Permission.SETTLEMENTS_READ)
        actor.require(Permission.PARTNER_EDIT)
        if actor.org_id is None:
            raise NotFound
        holder, number, ifsc = check_account(holder, number, ifsc)
        identifier, now = new_id(), self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await store.lock(connection, actor.org_id)
            await payout_store.replace_account(
                connection,
                id=identifier,
                org=actor.org_id,
                holder=holder,
                number_encrypted=self._keyring.encrypt(number, account_context(identifier)),
                last_four=number[-4:],
                ifsc=ifsc,
                at=now,
            )
            await events.append(
                connection,
                stream=f"bank-account/{actor.org_id}",
                type="bank-account.set",
                data={"account": str(identifier)},
                actor=actor.label,
                org=actor.org_id,
                at=now,
            )
        return Account(identifier, holder, ifsc, number[-4:], now)

    async def balance(self, actor: Actor, provider_org: UUID | None = None) -> Balance:
        """Return where a provider's money is: one's own, or for the operator anybody's."""
        org = self._one(actor, provider_org)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            terms = await self._terms(connection, org)
            sums = await payout_store.sums(connection, org, self._cutoff(terms))
            account = await payout_store.account(connection, org)
        return Balance(org_id=org, **sums, terms=terms, account=Account(**account) if account else None)

    async def set_terms(
        self,
        actor: Actor,
        org: UUID,
        *,
        minimum: Decimal | None = None,
        delay_days: int | None = None,
        withholdings: Mapping[str, str] | None = None,
        stopped: str = "",
    ) -> Terms:
        """Say what holds for a provider's payouts from now on (operator).

        ``minimum`` and ``delay_days`` None: as the settings say. ``withholdings`` are its own rates by the tax's name.
        ``stopped`` is a reason for which nothing is paid to it at all, empty for none.
        """
        actor.require(Permission.SETTLEMENTS_RUN)
        wrong = []
        if minimum is not None and not (0 <= minimum < Decimal(10) ** 12 and minimum == minimum.quantize(PAISA)):
            wrong.append({"field": "minimum", "message": _("Enter rupees with two decimals, zero or more.")})
        if delay_days is not None and not 0 <= delay_days <= 365:
            wrong.append({"field": "delay_days", "message": _("Enter 0 to 365 days.")})
        try:
            rates = {name: str(rate) for name, rate in rates_of(withholdings or {}).items()}
        except ValueError as error:
            wrong.append({"field": "withholdings", "message": str(error)})
        if wrong:
            raise ValidationFailed(errors=wrong)
        stopped = check_name(stopped, "stopped", 300) if stopped.strip() else ""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await store.lock(connection, org)
            if not await payout_store.names(connection, [org]):
                raise NotFound(_("There is no such organisation."))
            await record(
                connection,
                SETTLEMENTS,
                stream=f"payout-terms/{org}",
                type="payout-terms.set",
                data={
                    "minimum": None if minimum is None else str(minimum),
                    "delay_days": delay_days,
                    "withholdings": rates,
                    "stopped": stopped,
                },
                actor=actor.label,
                org=org,
                at=self._clock.now(),
            )
            return await self._terms(connection, org)

    # --- holds ----------------------------------------------------------------------------------

    async def hold(
        self, actor: Actor, org: UUID, amount: Decimal | None, reason: str, *, settlement: UUID | None = None
    ) -> Hold:
        """Keep an amount of a provider's back until it is released (operator); None: all of the ``settlement``.

        At most what there is: of the settlement what isn't held yet, else of the balance what isn't paid or on its way.
        """
        actor.require(Permission.SETTLEMENTS_RUN)
        reason, now = check_name(reason, "reason", 300), self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await store.lock(connection, org)
            most = await self._holdable(connection, org, settlement)
            amount = most if amount is None and settlement is not None else amount
            if amount is None or not 0 < amount <= most or amount != amount.quantize(PAISA):
                message = _(
                    "Enter rupees with two decimals, at most the %(most)s that there are to hold.",
                    most=f"{max(most, Decimal(0)):.2f}",
                )
                raise ValidationFailed(errors=[{"field": "amount", "message": message}])
            identifier, operations = await steps.place_hold(
                connection, actor.label, org, amount, reason=reason, at=now, settlement=settlement
            )
            row = await payout_store.hold(connection, identifier)
            await post(connection, operations)
        assert row is not None
        return Hold(**row)

    async def release_hold(self, actor: Actor, identifier: UUID, reason: str = "") -> Hold:
        """Give back what the operator held; what a dispute holds is given back by its decision."""
        actor.require(Permission.SETTLEMENTS_RUN)
        reason, now = check_name(reason, "reason", 300) if reason.strip() else "", self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            row = await payout_store.hold(connection, identifier)
            if row is None:
                raise NotFound(_("There is no such hold."))
            await store.lock(connection, row["org_id"])
            row = await payout_store.hold(connection, identifier)
            assert row is not None
            if row["dispute_id"] is not None:
                raise Conflict(_("A dispute holds it: decide that, and it is released."))
            if row["released_at"] is not None:
                raise Conflict(_("It is released already."))
            operations = await steps.release_hold(connection, actor.label, row, reason, now)
            row = await payout_store.hold(connection, identifier)
            await post(connection, operations)
        assert row is not None
        return Hold(**row)

    async def holds(self, actor: Actor, provider_org: UUID | None = None) -> list[Hold]:
        """Return what is held now: of oneself, or for the operator of anybody."""
        whose = self._whose(actor, provider_org)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return [Hold(**row) for row in await payout_store.open_holds(connection, org=whose)]

    # --- within ---------------------------------------------------------------------------------

    async def _check_payable(self, connection: Connection, org: UUID, terms: Terms) -> Account:
        if terms.stopped:
            raise Conflict(_("Payouts to this provider are stopped: %(stopped)s", stopped=terms.stopped))
        row = await payout_store.account(connection, org)
        if row is None:
            raise NoBankAccount
        return Account(**row)

    async def _holdable(self, connection: Connection, org: UUID, settlement: UUID | None) -> Decimal:
        if settlement is None:
            sums = await payout_store.sums(connection, org, self._clock.now())
            unsent = await payout_store.unsent(connection, org)
            return total((sums["available"], sums["waiting"], *(row["amount"] for row in unsent)))
        row = await store.settlement(connection, settlement)
        if row is None or row["org_id"] != org:
            raise NotFound(_("There is no such settlement of that provider."))
        return total((row["payable"], -(await payout_store.held_of(connection, settlement))))

    async def _terms(self, connection: Connection, org: UUID) -> Terms:
        row = await store.terms(connection, org)
        if row is None:
            return Terms(self._minimum, self._delay_days, {}, "")
        return Terms(
            self._minimum if row["minimum"] is None else row["minimum"],
            self._delay_days if row["delay_days"] is None else row["delay_days"],
            row["withholdings"],
            row["stopped"],
        )

    def _cutoff(self, terms: Terms) -> datetime:
        return self._clock.now() - timedelta(days=terms.delay_days)

    @staticmethod
    def _whose(actor: Actor, provider_org: UUID | None) -> UUID | None:
        actor.require(Permission.SETTLEMENTS_READ)
        if actor.may(Permission.SETTLEMENTS_RUN):
            return provider_org
        if provider_org not in (None, actor.org_id):
            raise NotFound
        return actor.org_id

    def _one(self, actor: Actor, provider_org: UUID | None) -> UUID:
        org = self._whose(actor, provider_org) or actor.org_id
        if org is None:
            raise NotFound(_("Say which provider's."))
        return org


def account_context(account: UUID) -> str:
    """Return what an account's number is bound to when it is encrypted."""
    return f"bank-account/{account}"

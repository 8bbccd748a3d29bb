"""Use cases of budgets: what may be spent a month, who is told of it, and who is stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from uuid import UUID

from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database
from haat.infra.projections import record
from haat.kernel.clock import Clock, Period, month_of
from haat.kernel.errors import NotFound, ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.money import PAISA, exact, total
from haat.kernel.permissions import PLATFORM, Actor, Permission
from haat.language.messages import _
from haat.rating import service as rating
from haat.usage import intake
from haat.wallet import holds, store
from haat.wallet.model import Budget, reached
from haat.wallet.projection import WALLETS
from haat.wallet.service import MOST

LATE = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class BudgetStanding:
    """A budget and the running month: rupees before tax, as rating has them now. ``told`` are percentages."""

    budget: Budget
    name: str
    period: str
    spent: Decimal
    told: Sequence[int]


class Budgets:
    """Budgets of organisations; each looks after its own."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db, self._clock = db, clock

    async def standing(self, actor: Actor, org: UUID | None = None) -> list[BudgetStanding]:
        """Return an organisation's budgets with what the running month has cost: one's own, or for the operator any."""
        actor.require(Permission.INVOICES_READ)
        whose = org or actor.org_id
        if whose is None or (whose != actor.org_id and not actor.may(Permission.INVOICES_RUN)):
            raise NotFound
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            period = await _month(connection, whose, self._clock.now())
            budgets = await store.budgets(connection, whose)
            spent = await _rated(connection, whose, period, budgets)
            told = await store.alerts(connection, whose, period.label)
            names = await store.names(connection, whose)
        return [
            BudgetStanding(
                budget,
                _name(budget, names),
                period.label,
                spent[budget.id],
                sorted(told.get(budget.id, [])),
            )
            for budget in budgets
        ]

    async def set(
        self,
        actor: Actor,
        amount: Decimal,
        *,
        hard_stop: bool,
        application: UUID | None = None,
        subscription: UUID | None = None,
        org: UUID | None = None,
    ) -> Budget:
        """Set what the organisation, an application or a subscription of it may spend a month, before tax.

        With ``hard_stop`` calls that it does not cover are refused; else it only tells. One that is there is changed.
        """
        whose = _owner(actor, org)
        if not 0 < exact(amount) <= MOST or amount != amount.quantize(PAISA):
            message = _("Give rupees and whole paise, more than 0, at most %(most)s.", most=MOST)
            raise ValidationFailed(errors=[{"field": "amount", "message": message}])
        if application is not None and subscription is not None:
            raise ValidationFailed(errors=[{"field": "subscription", "message": _("Name one of the two, or neither.")}])
        now = self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            if application is not None and not await store.has_application(connection, whose, application):
                raise NotFound(_("The organisation has no such application."))
            if subscription is not None and not await store.has_subscription(connection, whose, subscription):
                raise NotFound(_("The organisation has no such subscription."))
            await store.lock(connection, whose)
            present = next(
                (
                    one
                    for one in await store.budgets(connection, whose)
                    if (one.application_id, one.subscription_id) == (application, subscription)
                ),
                None,
            )
            identifier = present.id if present else new_id()
            if present is not None and (present.amount, present.hard_stop) == (amount, hard_stop):
                return present
            await record(
                connection,
                WALLETS,
                stream=f"wallet/{whose}",
                type="budget.set",
                data={
                    "budget": str(identifier),
                    "application": str(application) if application else None,
                    "subscription": str(subscription) if subscription else None,
                    "amount": str(amount.quantize(PAISA)),
                    "hard_stop": hard_stop,
                },
                actor=actor.label,
                org=whose,
                at=now,
            )
        return Budget(identifier, whose, application, subscription, amount, hard_stop, now)

    async def remove(self, actor: Actor, identifier: UUID, org: UUID | None = None) -> None:
        """Remove a budget; raise NotFound for one that isn't the organisation's."""
        whose = _owner(actor, org)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await store.lock(connection, whose)
            if await store.budget(connection, whose, identifier) is None:
                raise NotFound(_("The organisation has no such budget."))
            await record(
                connection,
                WALLETS,
                stream=f"wallet/{whose}",
                type="budget.removed",
                data={"budget": str(identifier)},
                actor=actor.label,
                org=whose,
                at=self._clock.now(),
            )

    async def review(self) -> int:
        """Write down which thresholds were reached, each once a month; return how many.

        The running month is looked at, and in its first two days the one before, too: usage comes late.
        """
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            orgs = await store.organisations_with_budgets(connection)
        now, found = self._clock.now(), 0
        for org in orgs:
            async with self._db.transaction(PLATFORM_SCOPE) as connection:
                found += await self._review(connection, org, now)
        return found

    async def _review(self, connection: Connection, org: UUID, now: datetime) -> int:
        await store.lock(connection, org)
        running = await _month(connection, org, now)
        before = await _month(connection, org, running.start - timedelta(days=1))
        periods = [before, running] if now < running.start + LATE else [running]
        return sum([await self._review_month(connection, org, period, now) for period in periods])

    async def _review_month(self, connection: Connection, org: UUID, period: Period, now: datetime) -> int:
        budgets = [one for one in await store.budgets(connection, org) if one.set_at < period.end]
        # The most it can have cost is looked up in the rollups; only where that matters is everything rated.
        most = await holds.spent(connection, org, period, budgets)
        known = await store.alerts(connection, org, period.label)
        near = [one for one in budgets if reached(one, most[one.id], known.get(one.id, []))]
        if not near:
            return 0
        spent, found = await _rated(connection, org, period, near), 0
        names = await store.names(connection, org)
        for budget in near:
            for threshold in reached(budget, spent[budget.id], known.get(budget.id, [])):
                await record(
                    connection,
                    WALLETS,
                    stream=f"wallet/{org}",
                    type="budget.reached",
                    data={
                        "budget": str(budget.id),
                        "period": period.label,
                        "threshold": threshold,
                        "spent": str(spent[budget.id].quantize(PAISA, rounding=ROUND_DOWN)),
                        "amount": str(budget.amount),
                        "hard_stop": budget.hard_stop,
                        "name": _name(budget, names),
                    },
                    actor=PLATFORM.label,
                    org=org,
                    at=now,
                )
                found += 1
        return found


async def _rated(connection: Connection, org: UUID, period: Period, budgets: Sequence[Budget]) -> dict[UUID, Decimal]:
    """Return what a period has cost so far by the budgets that it counts for: exactly, as a bill would have it."""
    if not budgets:
        return {}
    rated = await rating.charges(connection, org, period, (0, await intake.watermark(connection)))
    applications = await store.applications_of(connection, org)
    return {
        budget.id: total(
            charge.amount
            for charge in rated.charges
            if budget.covers(applications.get(charge.subscription), charge.subscription)
        )
        for budget in budgets
    }


async def _month(connection: Connection, org: UUID, at: datetime) -> Period:
    zone = await store.zone_of(connection, org)
    if zone is None:
        raise NotFound(_("There is no such organisation."))
    return month_of(at, zone)


def _owner(actor: Actor, org: UUID | None) -> UUID:
    actor.require(Permission.SUBSCRIPTIONS_EDIT)
    whose = org or actor.org_id
    if whose is None or (whose != actor.org_id and not actor.may(Permission.INVOICES_RUN)):
        raise NotFound
    return whose


def _name(budget: Budget, names: dict[UUID, str]) -> str:
    whose = budget.application_id or budget.subscription_id
    return names.get(whose, str(whose)) if whose else "the whole organisation"

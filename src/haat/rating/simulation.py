"""What a past or running month would have cost on another card, or on another plan: nothing is stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from haat.catalog.drafts import PriceDraft
from haat.catalog.pricing import headline
from haat.catalog.service import components_of
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database
from haat.kernel.clock import Clock, Period, month_of
from haat.kernel.errors import NotFound, ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.money import to_paisa, total
from haat.kernel.permissions import Actor, Permission
from haat.kernel.prices import text
from haat.language.messages import _
from haat.rating import store
from haat.rating.model import Charge, Held, Measured, RateCard, Rated, rate
from haat.usage import intake
from haat.usage.model import Pseudonyms, month_named


@dataclass(frozen=True, slots=True)
class Compared:
    """One customer's month on the present cards and on the simulated one, in rupees and whole paise before tax.

    ``customer`` is an organisation's id, or to a provider its pseudonym. Each line is rounded as an invoice's is.
    """

    customer: str
    calls: int
    present: Decimal
    simulated: Decimal
    charges: Sequence[Charge]
    """What the simulated amount is made of."""

    @property
    def difference(self) -> Decimal:
        return total((self.simulated, -self.present))


@dataclass(frozen=True, slots=True)
class Simulation:
    """A listing's month on another card; the customers whose cost changes most come first."""

    service: UUID
    name: str
    period: str
    card: RateCard | None
    plan: str | None
    customers: Sequence[Compared]
    present: Decimal
    simulated: Decimal
    unpriced: int
    """Calls that would have had no price."""

    @property
    def difference(self) -> Decimal:
        return total((self.simulated, -self.present))


class Simulator:
    """Rates the usage there was on cards that there are not."""

    def __init__(self, db: Database, clock: Clock, pseudonyms: Pseudonyms) -> None:
        self._db, self._clock, self._pseudonyms = db, clock, pseudonyms

    async def simulate(
        self,
        actor: Actor,
        service: UUID,
        *,
        period: str | None = None,
        draft: PriceDraft | None = None,
        plan: str | None = None,
        org: UUID | None = None,
    ) -> Simulation:
        """Return what a month of a listing would have cost.

        ``draft`` takes the place of the card that it would replace: the common one, or its plan's. ``plan`` moves all
        subscriptions to that plan. ``period`` is the month before the present one when it isn't named. A provider sees
        all customers of its listing by their pseudonyms, the operator anybody's, everybody else oneself. Raise
        NotFound for what isn't the actor's, ValidationFailed for a card that can't be charged, a plan that there isn't
        and a month that has not begun.
        """
        if draft is None and plan is None:
            message = _("Name a card, or a plan that is there: otherwise the month costs what it did.")
            raise ValidationFailed(errors=[{"field": "card", "message": message}])
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            listing = await store.listing(connection, service)
            if listing is None:
                raise NotFound(_("There is no such service."))
            named, only = self._whose(actor, listing["org_id"], org)
            zones = await store.subscribers(connection, service, only)
            if only is not None and not zones:
                raise NotFound(_("That organisation has never been subscribed to the service."))
            await self._check_plans(
                connection, service, {"plan": plan, "card.plan_code": draft.plan_code if draft else None}
            )
            label = period or self._last_month(listing["zone"])
            if month_named(label, listing["zone"]).start > self._clock.now():
                raise ValidationFailed(
                    errors=[{"field": "period", "message": _("%(label)s has not begun.", label=label)}]
                )
            newest = await intake.watermark(connection)
            compared: list[Compared] = []
            unpriced = 0
            card = None
            for zone, orgs in zones.items() if zones else [(listing["zone"], [])]:
                month = month_named(label, zone)
                present = await store.cards_of_service(connection, service, month.end)
                card = await self._card(connection, draft, service, listing["unit"], month, present) if draft else None
                both = [*present, card] if card else present
                usage = await store.measured_many(connection, orgs, month, (0, newest), both, service=service)
                held = await store.held(connection, orgs, month, [service])
                wanted = _replaced(present, card, month.start)
                for one in orgs:
                    spans = held.get(one, [])
                    if not usage[one] and not spans:
                        continue
                    was = rate(usage[one], present, month, None, spans)
                    would = rate(_moved(usage[one], plan), wanted, month, None, _moved_spans(spans, plan))
                    if not (was.charges or would.charges or would.unpriced):
                        continue
                    unpriced += sum(calls.calls for calls in would.unpriced)
                    name = self._pseudonyms.of(listing["org_id"], one) if named else str(one)
                    compared.append(_compared(name, usage[one], was, would))
        compared.sort(key=lambda one: (-abs(one.difference), one.customer))
        return Simulation(
            service,
            listing["name"],
            label,
            card,
            plan,
            compared,
            total(one.present for one in compared),
            total(one.simulated for one in compared),
            unpriced,
        )

    @staticmethod
    def _whose(actor: Actor, provider: UUID, org: UUID | None) -> tuple[bool, UUID | None]:
        """Return whether customers are pseudonyms, and the one organisation that is asked about (None: all)."""
        if actor.may(Permission.PLATFORM_WATCH):
            return False, org
        if actor.org_id == provider and actor.may(Permission.SERVICES_READ_OWN) and org in (None, provider):
            return True, org
        actor.require(Permission.USAGE_READ)
        if actor.org_id is None or org not in (None, actor.org_id):
            raise NotFound(_("That organisation is not yours."))
        return False, actor.org_id

    def _last_month(self, zone: str) -> str:
        present = month_of(self._clock.now(), zone)
        year, month = int(present.label[:4]), int(present.label[5:])
        return f"{year - 1:04d}-12" if month == 1 else f"{year:04d}-{month - 1:02d}"

    @staticmethod
    async def _check_plans(connection: Connection, service: UUID, asked: Mapping[str, str | None]) -> None:
        """Raise ValidationFailed for plans that the service can't be subscribed to on, by the fields that name them."""
        known = await store.plans(connection, service)
        for field, plan in asked.items():
            if plan is not None and plan not in known:
                message = _(
                    "There is no plan %(plan)s of this service; there are %(known)s.",
                    plan=plan[:40],
                    known=", ".join(known),
                )
                raise ValidationFailed(errors=[{"field": field, "message": message}])

    @staticmethod
    async def _card(
        connection: Connection,
        draft: PriceDraft,
        service: UUID,
        unit: str,
        month: Period,
        present: Sequence[RateCard],
    ) -> RateCard:
        if draft.effective_from is not None:
            message = _("A simulated price holds for the whole month: leave this out.")
            raise ValidationFailed(errors=[{"field": "card.effective_from", "message": message}])
        parts = await components_of(connection, service, draft)
        price, free = headline(parts, unit) if parts else (draft.unit_price, draft.free_units)
        share = present[-1].provider_share if present else Decimal(0)
        try:
            return RateCard(
                new_id(),
                service,
                max((card.version for card in present), default=0) + 1,
                draft.plan_code,
                unit,
                price,
                free,
                share,
                month.start,
                parts,
                draft.minimum,
                draft.currency,
            )
        except ValueError as error:
            raise ValidationFailed(errors=[{"field": "card", "message": str(error)}]) from error


def _replaced(present: Iterable[RateCard], card: RateCard | None, start: datetime) -> list[RateCard]:
    """Return the cards with one in the place of all that it would replace."""
    if card is None:
        return list(present)
    return [*(one for one in present if one.plan != card.plan), replace(card, effective_from=start)]


def _moved(usage: Sequence[Measured], plan: str | None) -> Sequence[Measured]:
    return usage if plan is None else [replace(one, plan=plan) for one in usage]


def _moved_spans(spans: Sequence[Held], plan: str | None) -> Sequence[Held]:
    return spans if plan is None else [replace(one, plan=plan) for one in spans]


def _compared(customer: str, usage: Iterable[Measured], was: Rated, would: Rated) -> Compared:
    return Compared(
        customer,
        sum(one.calls if one.counted is None else one.counted for one in usage),
        total(to_paisa(charge.amount) for charge in was.charges),
        total(to_paisa(charge.amount) for charge in would.charges),
        would.charges,
    )


def charge_data(charge: Charge) -> dict[str, Any]:
    """Return a charge with its steps as plain data; numbers are decimal texts, amounts exact."""
    return {
        "kind": charge.kind,
        "meter": charge.meter or charge.card.unit,
        "plan": charge.plan,
        "unit": charge.card.unit,
        "calls": charge.calls,
        "quantity": text(charge.quantity),
        "free_units": text(charge.free_units),
        "cached_share": None if charge.cached_share is None else text(charge.cached_share),
        "amount": text(charge.amount),
        "steps": [
            {
                "label": step.label,
                "quantity": text(step.quantity),
                "price": text(step.price),
                "amount": text(step.amount),
            }
            for step in charge.steps or ()
        ],
    }

"""What is held of wallets and budgets: calls that were admitted, until they are paid for or known not to cost.

A call is held twice for a moment and never not at all: by the lease of its gateway until the gateway has said that it
is used and it is in the usage store, and as unbilled usage from its storing on until it is on an invoice. So the leases
are looked at first, and the usage after them. What is unbilled, what gateways may still draw and what they have drawn
for calls that are not stored never come to more than the wallet has, by leases, calls and invoices; what is unbilled
and leased may, by the calls that are in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from haat.infra.postgres import Connection
from haat.kernel.clock import Period, month_of
from haat.kernel.money import multiply, proportion, total
from haat.rating import service as rating
from haat.rating.model import RateCard
from haat.wallet import store
from haat.wallet.model import Budget, Mode, from_nano
from haat.wallet.prices import Used, cost, reported_units

WALLET = "wallet"
"""The fund that is an organisation's wallet."""
STANDARD_TAX = Decimal("0.18")
_MONTHS = 3
"""How many months, the running one included, may have usage that is on no invoice: it comes at most 35 days late."""


def budget_fund(budget: UUID | str, period: str) -> str:
    """Return the fund that is a budget's month."""
    return f"budget/{budget}/{period}"


@dataclass(frozen=True, slots=True)
class Held:
    """Rupees. ``used`` is stored usage that is on no invoice, ``due`` the fees and minimums of months that are not
    closed, both with tax; ``leased`` is what gateways may still draw, or have drawn for calls that are not stored."""

    used: Decimal
    due: Decimal
    leased: Decimal

    @property
    def unbilled(self) -> Decimal:
        return total((self.used, self.due))

    @property
    def total(self) -> Decimal:
        return total((self.used, self.due, self.leased))


async def held(connection: Connection, org: UUID, at: datetime, tax: Decimal) -> Held:
    """Return what is held of an organisation's wallet. Call it with the wallet locked."""
    await store.count_shipped(connection, [org])
    leased = from_nano(await store.leased(connection, org, WALLET))
    used, due = await _unbilled(connection, org, at)
    return Held(multiply(used, 1 + tax), multiply(due, 1 + tax), leased)


async def covered(connection: Connection, org: UUID, invoice: UUID, amount: Decimal) -> Decimal:
    """Return how much of an amount, of what an issued invoice owes, is prepaid: that was unbilled and held before."""
    mode, own = await store.modes(connection, org)
    billed = await store.billed_by(connection, org, invoice)
    prepaid = total(part for one, part in billed.items() if own.get(one, mode) is Mode.PREPAID)
    return proportion(amount, prepaid, total(billed.values())) if prepaid > 0 else Decimal(0)


async def _unbilled(connection: Connection, org: UUID, at: datetime) -> tuple[Decimal, Decimal]:
    """Return what prepaid subscriptions cost at most that is on no invoice yet: their usage, and the rest."""
    mode, own = await store.modes(connection, org)
    zone = await store.zone_of(connection, org)
    if zone is None or (mode is Mode.POSTPAID and Mode.PREPAID not in own.values()):
        return Decimal(0), Decimal(0)
    months = _months(at, zone)
    cards = await rating.cards(connection, org, months[0].end)
    usage: list[Decimal] = []
    whole: list[Decimal] = []
    for period in months:
        billed = await store.billed(connection, org, period)
        used, held = await _open(connection, org, period, cards, billed)
        paid = await store.billed_amounts(connection, org, period) if held and billed.batch else {}
        for sums, found in ((usage, cost(used, cards, period)), (whole, cost(used, cards, period, held, paid))):
            sums += [amount for one, amount in found.items() if own.get(one, mode) is Mode.PREPAID]
    return total(usage), total((*whole, total(usage).copy_negate()))


async def spent(connection: Connection, org: UUID, period: Period, budgets: Sequence[Budget]) -> dict[UUID, Decimal]:
    """Return what a period, billed or not, costs at most before tax, by the budgets that it counts for."""
    if not budgets:
        return {}
    cards = await rating.cards(connection, org, period.end)
    used, held = await _open(connection, org, period, cards, store.Billed(0, later=True, closed=False))
    found = cost(used, cards, period, held)
    applications = await store.applications_of(connection, org)
    return {
        budget.id: total(amount for one, amount in found.items() if budget.covers(applications.get(one), one))
        for budget in budgets
    }


async def _open(
    connection: Connection, org: UUID, period: Period, cards: Sequence[RateCard], billed: store.Billed
) -> tuple[list[Used], list[rating.Held]]:
    """Return what isn't billed of a period: usage, and the subscriptions that may owe fees and minimums."""
    used: list[Used] = []
    if billed.later or (billed.batch and not billed.closed):
        before = await store.used_up_to(connection, org, period, billed.batch) if billed.batch else []
        known = {_whose(row): row for row in before}
        used = [
            Used(*_whose(row), row, known.get(_whose(row), {})) for row in await store.used(connection, org, period)
        ]
        if units := reported_units(cards):
            services = [card.service for card in cards if reported_units([card])]
            rows = await store.reported(connection, org, period, services, units, billed.batch)
            used += [Used(*_whose(row), row) for row in rows]
    return used, [] if billed.closed else await rating.stood(connection, org, period, cards)


def _whose(row: store.Row) -> tuple[UUID, UUID, str | None]:
    return row["subscription_id"], row["service_id"], row["plan"]


def _months(at: datetime, zone: str) -> list[Period]:
    months = [month_of(at, zone)]
    while len(months) < _MONTHS:
        months.append(month_of(months[-1].start - timedelta(days=1), zone))
    return months

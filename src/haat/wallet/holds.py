"""What is held of wallets and budgets: calls that were admitted, until they are paid for or known not to cost.

A call is held twice for a moment and never not at all: by the lease of its gateway until it is in the usage store, and
as unbilled usage from then on until it is on an invoice. So the leases are looked at first, and the usage after them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from haat.infra.postgres import Connection
from haat.kernel.clock import Period, month_of
from haat.kernel.money import multiply, total
from haat.wallet import store
from haat.wallet.model import Budget, Mode, from_nano
from haat.wallet.prices import cost

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
    """Rupees. ``unbilled`` is stored usage that is on no invoice, with tax; ``leased`` what gateways may still draw, or
    have drawn for calls that are not stored yet."""

    unbilled: Decimal
    leased: Decimal

    @property
    def total(self) -> Decimal:
        return total((self.unbilled, self.leased))


async def held(connection: Connection, org: UUID, at: datetime, tax: Decimal) -> Held:
    """Return what is held of an organisation's wallet. Call it with the wallet locked."""
    await store.count_shipped(connection, [org])
    leased = from_nano(await store.leased(connection, org, WALLET))
    return Held(await unbilled(connection, org, at, tax), leased)


async def unbilled(connection: Connection, org: UUID, at: datetime, tax: Decimal) -> Decimal:
    """Return what an organisation's prepaid usage that is on no invoice costs at most, with tax."""
    mode, own = await store.modes(connection, org)
    if mode is Mode.POSTPAID and Mode.PREPAID not in own.values():
        return Decimal(0)
    zone = await store.zone_of(connection, org)
    if zone is None:
        return Decimal(0)
    sums = []
    for period in _months(at, zone):
        batch, later = await store.invoiced_up_to(connection, org, period)
        if not later:
            continue
        prepaid = _Prepaid(mode, own)
        sums.append(await _cost(connection, await store.used(connection, org, period), period, prepaid))
        if batch:
            billed = await store.used_up_to(connection, org, period, batch)
            sums.append(-await _cost(connection, billed, period, prepaid))
    return multiply(total(sums), 1 + tax)


async def spent(connection: Connection, org: UUID, period: Period, budgets: Iterable[Budget]) -> dict[UUID, Decimal]:
    """Return what usage of a period, billed or not, costs at most before tax, by the budgets that it counts for."""
    rows = await store.used(connection, org, period)
    found = {}
    for budget in budgets:
        covers = budget.covers
        mine = [row for row in rows if covers(row["application_id"], row["subscription_id"])]
        found[budget.id] = await _cost(connection, mine, period, lambda _: True)
    return found


class _Prepaid:
    """Tells whether a subscription is paid from the wallet."""

    def __init__(self, mode: Mode, own: dict[UUID, Mode]) -> None:
        self._mode, self._own = mode, own

    def __call__(self, subscription: UUID) -> bool:
        return self._own.get(subscription, self._mode) is Mode.PREPAID


async def _cost(
    connection: Connection, rows: Iterable[store.Row], period: Period, counts: Callable[[UUID], bool]
) -> Decimal:
    mine = [row for row in rows if counts(row["subscription_id"])]
    if not mine:
        return Decimal(0)
    cards = await store.cards(connection, list({row["service_id"] for row in mine}), period.end)
    return total(cost(store.units_of(row), cards, row["service_id"], row["plan"], period) for row in mine)


def _months(at: datetime, zone: str) -> list[Period]:
    months = [month_of(at, zone)]
    while len(months) < _MONTHS:
        months.append(month_of(months[-1].start - timedelta(days=1), zone))
    return months

"""What must cover a call before it is made: the purses it draws from, and what a unit costs of each.

A wallet covers calls with tax, budgets without. The most that a call can cost is the price of a unit times the units
that it reserves (`haat.gateway.limits.reservations`); what its provider reports beyond those is neither counted nor
billed.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, NamedTuple

from haat.gateway.charge import FOREVER
from haat.gateway.dialects.asking import DEFAULT_ANSWER_TOKENS
from haat.gateway.limits.plan import MICRO, to_micro
from haat.gateway.limits.reservations import GENERATING, bound, declared_most
from haat.gateway.limits.windows import FAR
from haat.kernel.errors import BudgetSpent, HaatError, WalletEmpty, WalletUnavailable
from haat.usage.event import Outcome
from haat.wallet.holds import WALLET, budget_fund
from haat.wallet.leases import period_label
from haat.wallet.model import from_nano
from haat.wallet.prices import UnitPrice, unit_price

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.market.snapshot import Price, Service, Subscription
    from haat.gateway.wallets.purse import Purse

_PICO = Decimal(10**12)
_BILLED = (Outcome.COMPLETED, Outcome.CLIENT_LEFT)


class Lacking(Exception):
    """A purse has not enough for a call. It may have in a moment: `haat.gateway.wallets.purses.Purses.park`."""

    def __init__(self, purse: Purse, amount: int) -> None:
        super().__init__(purse.fund)
        self.purse, self.amount = purse, amount


class Part(NamedTuple):
    """One purse, and a unit's price in millionths of a millionth of a rupee, rounded up."""

    purse: Purse
    price: int

    def cost(self, micro_units: int) -> int:
        """Return billionths of a rupee, rounded up."""
        return -(-micro_units * self.price // 1_000_000_000)


class Cover:
    """All purses of a grant. ``unit`` is what its calls are priced by. A call holds from all of them or from none."""

    __slots__ = ("parts", "unit")

    def __init__(self, unit: str, parts: tuple[Part, ...]) -> None:
        self.unit, self.parts = unit, parts

    def hold(self, call: Call) -> None:
        """Hold the most that a call can cost; raise Lacking, or InvalidRequest for what can't be read."""
        call.held = most = self._most(call)
        self._take(most)

    def extend(self, call: Call) -> None:
        """Hold more, now that a call's body is here and says what it can use; raise what refuses it."""
        if self.unit != "tokens" or (wanted := bound(call, "tokens")) <= call.held:
            return
        try:
            self._take(wanted, call.held)
        except Lacking as lack:
            raise refused(lack.purse, lack.amount, lack.purse.denial()[1]) from None
        call.held = wanted

    def release(self, call: Call) -> None:
        """Give back what a call holds: it was not made."""
        self._settle(call.held, 0)

    def settle(self, call: Call, outcome: Outcome) -> None:
        """Turn what a call holds into what it has used. Its record is in the journal: whoever counts that counts it."""
        self._settle(call.held, min(call.held, self._used(call)) if outcome in _BILLED and call.dispatched else 0)

    def _take(self, micro_units: int, before: int = 0) -> None:
        taken: list[tuple[Part, int]] = []
        for part in self.parts:
            amount = part.cost(micro_units) - part.cost(before)
            if not part.purse.hold(amount):
                for other, held in taken:
                    other.purse.settle(held, 0)
                raise Lacking(part.purse, amount)
            taken.append((part, amount))

    def _settle(self, held: int, used: int) -> None:
        for part in self.parts:
            part.purse.settle(part.cost(held), part.cost(used))

    def _most(self, call: Call) -> int:
        if self.unit == "requests":
            return MICRO
        most = bound(call, self.unit)
        if self.unit == "tokens" and not call.body_complete:
            route = call.route
            assert route is not None
            said = route.max_micro_units or declared_most(call.lines, "tokens") < FAR
            if route.executing.dialect in GENERATING and not said:
                most += DEFAULT_ANSWER_TOKENS * MICRO  # its body will say so
        return most

    def _used(self, call: Call) -> int:
        """Return the priced units of a call; where nobody has counted them, what was held."""
        if self.unit == "requests":
            return MICRO
        quantity = call.units.get(self.unit)
        if quantity is None and self.unit == "bytes":
            return call.body_size * MICRO
        return call.held if quantity is None else to_micro(quantity)


class _Card(NamedTuple):
    """A price of the snapshot as `haat.wallet.prices` asks for it."""

    plan: str | None
    unit: str
    unit_price: Decimal
    effective_from: datetime


def cover_of(gateway: Gateway, service: Service, subscription: Subscription, at: int) -> tuple[Cover | None, int]:
    """Return what must cover a subscription's calls at a time, None for nothing, and until when that is so."""
    found = unit_price(_cards(service.prices), subscription.plan, datetime.fromtimestamp(at / 1_000_000, UTC))
    if found is None or not found.price:
        return None, FOREVER
    label, until = period_label(at, subscription.zone)
    parts = tuple(_parts(gateway, subscription, found, label))
    return Cover(found.unit, parts), until if subscription.stops else FOREVER


def _parts(gateway: Gateway, subscription: Subscription, price: UnitPrice, period: str) -> Iterator[Part]:
    plain = int((price.price * _PICO).to_integral_value(ROUND_CEILING))
    for budget in subscription.stops:
        yield Part(gateway.purses.of(budget_fund(budget, period), subscription.org), plain)
    if subscription.prepaid:
        taxed = int((price.price * (1 + gateway.settings.gst_rate) * _PICO).to_integral_value(ROUND_CEILING))
        yield Part(gateway.purses.of(WALLET, subscription.org), taxed)


def _cards(prices: tuple[Price, ...]) -> Iterator[_Card]:
    for price in prices:
        begins = datetime.fromtimestamp(price.effective_from / 1_000_000, UTC)
        yield _Card(price.plan or None, price.unit, Decimal(price.unit_price), begins)


def refused(purse: Purse, amount: int, left: int) -> HaatError:
    """Return the problem that tells a caller what does not cover its call, and what to do."""
    need, rest = from_nano(amount), from_nano(left)
    members = {"needed": f"{need:f}", "left": f"{rest:f}", "currency": "INR"}
    says = f"This call may cost ₹{need.normalize():f}, and ₹{rest.normalize():f} are left"
    if purse.fund == WALLET:
        return WalletEmpty(
            f"{says} in the wallet for new calls. Top it up, or say in X-Haat-Max-Units that the call needs less.",
            **members,
        )
    return BudgetSpent(
        f"{says} of a month's budget. Wait for the next month, raise the budget, or say in X-Haat-Max-Units that the "
        "call needs less.",
        **members,
        budget=purse.fund.split("/")[1],
    )


def unavailable() -> HaatError:
    """Return the problem of a call that may be covered, but nobody can be asked."""
    return WalletUnavailable()

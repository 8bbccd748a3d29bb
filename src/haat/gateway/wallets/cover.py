"""What must cover a call before it is made: the purses it draws from, and what its units cost of each.

A wallet covers calls with tax, budgets without. The most that a call can cost is what the units that it reserves
(`haat.gateway.limits.reservations`) cost at most (`haat.wallet.prices`): of a card with several components, of each
the unit that it is about. What its provider reports beyond those is neither counted nor billed.
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
from haat.kernel.money import multiply
from haat.kernel.prices import REPORTED_UNITS
from haat.usage.event import Outcome
from haat.wallet.holds import WALLET, budget_fund
from haat.wallet.leases import period_label
from haat.wallet.model import from_nano
from haat.wallet.prices import CALLS, Most, in_force

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.market.snapshot import Price, Service, Subscription
    from haat.gateway.wallets.purse import Purse

_PICO, _NANO = Decimal(10**12), Decimal(10**9)
_ONE_A_CALL = ("requests", CALLS)
_BILLED = (Outcome.COMPLETED, Outcome.CLIENT_LEFT)


class Lacking(Exception):
    """A purse has not enough for a call. It may have in a moment: `haat.gateway.wallets.purses.Purses.park`."""

    def __init__(self, purse: Purse, amount: int) -> None:
        super().__init__(purse.fund)
        self.purse, self.amount = purse, amount


class Rate(NamedTuple):
    """What one of a cover's units costs a purse at most, rounded up; ``unit`` is its place among them.

    ``price`` is in millionths of a millionth of a rupee, for a unit, or for a package of ``size`` millionths of a unit;
    ``begun``, in billionths, is due besides where there are any.
    """

    unit: int
    price: int
    size: int = 0
    begun: int = 0

    def cost(self, micro_units: int) -> int:
        """Return billionths of a rupee, rounded up."""
        if not micro_units:
            return 0
        if self.size:
            return -(-micro_units // self.size) * -(-self.price // 1000) + self.begun
        return -(-micro_units * self.price // 1_000_000_000) + self.begun


Quantities = tuple[int, ...]
"""Millionths of each of a cover's units, in their order."""


class Part(NamedTuple):
    """One purse, and what calls cost of it."""

    purse: Purse
    rates: tuple[Rate, ...]

    def cost(self, quantities: Quantities) -> int:
        """Return billionths of a rupee, rounded up."""
        return sum([rate.cost(quantities[rate.unit]) for rate in self.rates])


class Cover:
    """All purses of a grant. ``units`` are what its calls are priced by. A call holds from all of them or from none."""

    __slots__ = ("counts_tokens", "parts", "units")

    def __init__(self, units: tuple[str, ...], parts: tuple[Part, ...]) -> None:
        self.units, self.parts = units, parts
        self.counts_tokens: bool = any(_bounding(unit) == "tokens" for unit in units)

    def hold(self, call: Call) -> None:
        """Hold the most that a call can cost; raise Lacking, or InvalidRequest for what can't be read."""
        call.held = most = tuple([self._most(call, unit) for unit in self.units])
        self._take(most)

    def extend(self, call: Call) -> None:
        """Hold more, now that a call's body is here and says what it can use; raise what refuses it."""
        if not self.counts_tokens:
            return
        tokens = bound(call, "tokens")
        wanted = tuple(
            [
                max(held, tokens) if _bounding(unit) == "tokens" else held
                for unit, held in zip(self.units, call.held, strict=True)
            ]
        )
        if wanted == call.held:
            return
        try:
            self._take(wanted, call.held)
        except Lacking as lack:
            raise refused(lack.purse, lack.amount, lack.purse.denial()[1]) from None
        call.held = wanted

    def cap(self, call: Call, unit: str) -> int:
        """Return the most of a unit that a provider's report counts for, in millionths: what is held for it."""
        return call.held[self.units.index(unit)] if unit in self.units else FAR

    def release(self, call: Call) -> None:
        """Give back what a call holds: it was not made."""
        self._settle(call.held, None)

    def settle(self, call: Call, outcome: Outcome) -> None:
        """Turn what a call holds into what it has used. Its record is in the journal: whoever counts that counts it."""
        self._settle(call.held, self._used(call) if outcome in _BILLED and call.dispatched else None)

    def _take(self, wanted: Quantities, before: Quantities | None = None) -> None:
        taken: list[tuple[Part, int]] = []
        for part in self.parts:
            amount = part.cost(wanted) - (part.cost(before) if before else 0)
            if not part.purse.hold(amount):
                for other, held in taken:
                    other.purse.settle(held, 0)
                raise Lacking(part.purse, amount)
            taken.append((part, amount))

    def _settle(self, held: Quantities, used: Quantities | None) -> None:
        for part in self.parts:
            part.purse.settle(part.cost(held), part.cost(used) if used else 0)

    def _most(self, call: Call, unit: str) -> int:
        if unit in _ONE_A_CALL:
            return MICRO
        unit = _bounding(unit)
        most = bound(call, unit)
        if unit == "tokens" and not call.body_complete:
            route = call.route
            assert route is not None
            said = route.max_micro_units or declared_most(call.lines, "tokens") < FAR
            if route.executing.dialect in GENERATING and not said:
                most += DEFAULT_ANSWER_TOKENS * MICRO  # its body will say so
        return most

    def _used(self, call: Call) -> Quantities:
        """Return the priced units of a call; where nobody has counted them, what was held."""
        return tuple([min(held, _used(call, unit, held)) for unit, held in zip(self.units, call.held, strict=True)])


def _used(call: Call, unit: str, held: int) -> int:
    if unit in _ONE_A_CALL:
        return MICRO
    quantity = call.units.get(unit)
    if quantity is not None:
        return to_micro(quantity)
    if unit in REPORTED_UNITS:
        return 0  # a part of the tokens that its provider doesn't tell apart
    return call.body_size * MICRO if unit == "bytes" else held


def _bounding(unit: str) -> str:
    """Return the unit that bounds another: parts of tokens are no more than tokens."""
    return "tokens" if unit in REPORTED_UNITS else unit


class _Card(NamedTuple):
    """A price of the snapshot as `haat.wallet.prices` asks for it."""

    plan: str | None
    effective_from: datetime
    most: tuple[Most, ...]


def cover_of(gateway: Gateway, service: Service, subscription: Subscription, at: int) -> tuple[Cover | None, int]:
    """Return what must cover a subscription's calls at a time, None for nothing, and until when that is so."""
    card = in_force(_cards(service.prices), subscription.plan, datetime.fromtimestamp(at / 1_000_000, UTC))
    most = [one for one in card.most if one.price or one.begun] if card else []
    if not most:
        return None, FOREVER
    label, until = period_label(at, subscription.zone)
    units = tuple(dict.fromkeys(one.unit for one in most))
    parts = tuple(_parts(gateway, subscription, units, most, label))
    return Cover(units, parts), until if subscription.stops else FOREVER


def _parts(
    gateway: Gateway, subscription: Subscription, units: tuple[str, ...], most: list[Most], period: str
) -> Iterator[Part]:
    for budget in subscription.stops:
        purse = gateway.purses.of(budget_fund(budget, period), subscription.org)
        yield Part(purse, tuple(_rate(units, one, Decimal(1)) for one in most))
    if subscription.prepaid:
        with_tax = 1 + gateway.settings.gst_rate
        purse = gateway.purses.of(WALLET, subscription.org)
        yield Part(purse, tuple(_rate(units, one, with_tax) for one in most))


def _rate(units: tuple[str, ...], most: Most, times: Decimal) -> Rate:
    price, begun = (
        int(multiply(multiply(amount, times), per).to_integral_value(ROUND_CEILING))
        for amount, per in ((most.price, _PICO), (most.begun, _NANO))
    )
    return Rate(units.index(most.unit), price, int(most.size * MICRO), begun)


def _cards(prices: tuple[Price, ...]) -> Iterator[_Card]:
    for price in prices:
        begins = datetime.fromtimestamp(price.effective_from / 1_000_000, UTC)
        most = [Most(unit, *map(Decimal, numbers)) for unit, *numbers in price.most]
        if price.plain:
            most = [Most(price.unit, Decimal(price.unit_price))]
        yield _Card(price.plan or None, begins, tuple(most))


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

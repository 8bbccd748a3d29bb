"""What each call bears of an invoice line: portions that sum to the line's amount, to the last decimal. Pure.

A line's amount is divided among its calls in the order of their ids, by their quantities, to twelve decimals: a call
bears the difference between what the calls up to it and those before it bear together. So no remainder is left over,
and every decimal has one place, whoever asks in whatever order. This holds whatever the amount was made of: units,
packages, tiers, what free units took off, and the rounding of the line. A call that was voided after it was billed is
on the next line with its quantity taken off, and bears less than nothing of that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from haat.kernel.money import multiply, proportion, total

_NONE = Decimal(0)


@dataclass(frozen=True, slots=True)
class Weight:
    """What some calls of a line weigh: their number, the sum of their quantities, and of these without their signs."""

    calls: int = 0
    quantity: Decimal = _NONE
    absolute: Decimal = _NONE

    def plus(self, quantity: Decimal) -> Weight:
        """Return what they weigh with one more call."""
        return Weight(self.calls + 1, total((self.quantity, quantity)), total((self.absolute, abs(quantity))))


@dataclass(frozen=True, slots=True)
class Spread:
    """A line's amount and what all its calls weigh.

    ``price`` is what a unit is charged at, where some calls are taken off and others are not: the amount says what
    they come to together, and not what each adds. Quantities of nothing all bear the same.
    """

    amount: Decimal
    whole: Weight
    price: Decimal = _NONE

    def borne(self, by: Weight) -> Decimal:
        """Return what the first calls of the line bear together."""
        if by == self.whole:
            return self.amount
        if not self.whole.absolute:
            return proportion(self.amount, by.calls, self.whole.calls)
        listed = multiply(self.whole.quantity, self.price)
        rest = proportion(total((self.amount, listed.copy_negate())), by.absolute, self.whole.absolute)
        return total((proportion(multiply(by.quantity, self.price), 1, 1), rest))

    def portions(self, before: Weight, quantities: Iterable[Decimal]) -> Iterator[Decimal]:
        """Yield what each of some consecutive calls bears; ``before`` is what those ahead of them weigh."""
        borne = self.borne(before) if before.calls else _NONE
        for quantity in quantities:
            before = before.plus(quantity)
            upto = self.borne(before)
            yield total((upto, borne.copy_negate()))
            borne = upto

"""Money: Decimal only, INR by default, rounded half-up to the paisa once per invoice line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import ROUND_CEILING, ROUND_HALF_UP, Context, Decimal, InvalidOperation, localcontext
from functools import reduce

PAISA = Decimal("0.01")
PRICE_STEP = Decimal("0.000000000001")  # a price keeps twelve decimals
_NOTHING = Decimal(0)
_EXACT = Context(prec=60, rounding=ROUND_HALF_UP)
"""Its methods are called where a sum or a product is all there is: entering it costs three times as much."""


def exact(value: str | int | Decimal) -> Decimal:
    """Return a Decimal of a string or an integer; a float is refused, it has already lost money.

    Raise ValueError for a text that is no finite number.
    """
    if isinstance(value, (float, bool)):
        raise TypeError(f"money is never a {type(value).__name__}")
    try:
        number = Decimal(value)
    except InvalidOperation as error:
        raise ValueError("this is not a number") from error
    if not number.is_finite():
        raise ValueError(f"money is never {number}")
    return number


_GROUPED = re.compile(r"[0-9]{1,3}(,[0-9]{2,3})*,[0-9]{3}(\.[0-9]*)?")


def rupees(text: str) -> Decimal:
    """Return what somebody has typed as an amount: ``1,00,000.50``, ``₹500``; raise ValueError for what is none.

    A comma parts thousands, lakhs or crores. Elsewhere it is no amount: ``5,50`` may be meant for five and a half.
    """
    text = text.strip().removeprefix("₹").strip()
    if "," in text and not _GROUPED.fullmatch(text.removeprefix("-")):
        raise ValueError("its commas part no thousands")
    return exact(text.replace(",", ""))


def multiply(quantity: Decimal | int, price: Decimal) -> Decimal:
    """Return ``quantity × price`` without rounding (60 significant digits are enough for any bill)."""
    return _EXACT.multiply(Decimal(quantity), price)


def total(amounts: Iterable[Decimal]) -> Decimal:
    """Return the exact sum of amounts."""
    return reduce(_EXACT.add, amounts, _NOTHING)


def holders(quantity: Decimal, size: Decimal) -> Decimal:
    """Return how many packages of a size hold a quantity: one that was begun counts whole."""
    with localcontext(_EXACT):
        whole, rest = divmod(quantity, size)
        return whole + 1 if rest else whole


def spread(price: Decimal, size: Decimal) -> Decimal:
    """Return what a unit costs of a package, rounded up to a price's twelve decimals."""
    with localcontext(_EXACT):
        return (price / size).quantize(PRICE_STEP, rounding=ROUND_CEILING)


def proportion(amount: Decimal, part: int | Decimal, whole: int | Decimal) -> Decimal:
    """Return ``amount × part / whole`` rounded half-up to a price's twelve decimals.

    Parts that follow each other are charged as the difference of two of these, so that together they are ``amount``.
    """
    with localcontext(_EXACT):
        return (amount * part / whole).quantize(PRICE_STEP, rounding=ROUND_HALF_UP)


def to_paisa(amount: Decimal) -> Decimal:
    """Round an amount in rupees half-up to two decimals."""
    return amount.quantize(PAISA, rounding=ROUND_HALF_UP, context=_EXACT)


def share(amount: Decimal, rate: Decimal) -> tuple[Decimal, Decimal]:
    """Split an amount of whole paise by a rate in 0..1 into (share, remainder).

    The share is rounded half-up and the rest stays with the other side, so both always add up.
    """
    if not 0 <= rate <= 1:
        raise ValueError("a share is between 0 and 1")
    part = to_paisa(multiply(amount, rate))
    return part, total((amount, -part))

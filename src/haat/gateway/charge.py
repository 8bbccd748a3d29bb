"""What an answer says it costs: ``X-Haat-Charge: 0.0125 INR``, exact and before tax.

Said only when it is certain as the head leaves: one price a unit is all that applies, the units are known, and no
free units may be left to use. It follows `haat.rating`, which makes the bill: the card of the caller's plan
before the common one, and of those the one in force when the call came.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING

from haat.kernel.money import PRICE_STEP, exact, multiply, total

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.market.snapshot import Service, Subscription

FOREVER = (1 << 62) - 1
_ONE = Decimal(1)


class Tariff:
    """What a unit costs one subscription. ``unit_price`` is None when a call's cost can't be told alone."""

    __slots__ = ("cached_share", "unit", "unit_price", "until")

    def __init__(self, unit: str, unit_price: Decimal | None, cached_share: Decimal, until: int) -> None:
        self.unit = unit
        self.unit_price = unit_price
        self.cached_share = cached_share
        """Part of the price that an answer out of the cache costs."""
        self.until = until
        """When another price may apply, in microseconds since the epoch."""

    def line(self, quantity: Decimal, cached: Decimal = Decimal(0)) -> bytes:
        """Return the header line for a quantity, of which ``cached`` came out of the cache."""
        if self.unit_price is None:
            return b""
        asked = multiply(total((quantity, -cached)), self.unit_price)
        amount = total((asked, multiply(multiply(cached, self.unit_price), self.cached_share)))
        return f"X-Haat-Charge: {amount_text(amount)} INR\r\n".encode("ascii")


def tariff_of(service: Service, subscription: Subscription, at: int) -> Tariff | None:
    """Return what applies at an instant, in microseconds since the epoch; None when nothing has a price yet."""
    cards = [price for price in service.prices if price.plan in ("", subscription.plan)]
    begun = sorted((price for price in cards if price.effective_from <= at), key=lambda price: price.effective_from)
    until = min((price.effective_from for price in cards if price.effective_from > at), default=FOREVER)
    if not begun:
        return Tariff(service.unit, None, _ONE, until) if cards else None
    card = ([price for price in begun if price.plan] or begun)[-1]
    certain = card.plain and card.unit == service.unit and exact(card.free_units) == 0
    return Tariff(card.unit, exact(card.unit_price) if certain else None, exact(subscription.cached_share), until)


def charge_line(call: Call, tariff: Tariff, quantity: str) -> bytes:
    """Return the header line for a call whose units are known."""
    if call.cache == "hit":
        return tariff.line(exact(quantity), exact(quantity))
    if call.cache == "partial":
        return tariff.line(exact(quantity), exact(call.cached_units.get(tariff.unit, "0")))
    return tariff.line(exact(quantity))


def amount_text(amount: Decimal) -> str:
    """Return an amount without needless zeros, and not beyond the twelve decimals that a price has."""
    exponent = amount.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -12:
        amount = amount.quantize(PRICE_STEP, rounding=ROUND_HALF_UP)
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text

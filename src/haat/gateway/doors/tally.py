"""What several calls came to: their units and charges together, and who executed them."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from haat.gateway.charge import amount_text
from haat.gateway.relay import served_by
from haat.gateway.units import unit_header
from haat.kernel.money import exact, total

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.market.routes import Route

_SERVED_BY = "X-Haat-Served-By: "


def charge_of(call: Call, route: Route) -> str:
    """Return what a call that has ended costs, ``0.24 INR``; empty where that isn't certain of it alone."""
    return unit_header(call, route).partition(b"X-Haat-Charge: ")[2].strip().decode("ascii")


class Tally:
    """Sums by the units that the services are sold by. What one call leaves open, the sum leaves open too."""

    __slots__ = ("charge", "served_by", "units")

    def __init__(self) -> None:
        self.units: dict[str, Decimal] | None = {}
        """None when a call didn't say how many it used."""
        self.charge: Decimal | None = Decimal(0)
        """In rupees before tax; None when one of the charges isn't certain."""
        self.served_by: list[str] = []
        """Services, in the order in which they were first asked, each once."""

    def add(self, call: Call, route: Route) -> None:
        """Add a call that ended well."""
        said = unit_header(call, route).decode("ascii")
        unit, _, quantity = said.partition("\r\n")[0].partition(": ")[2].partition("=")
        if not unit:
            self.units = None
        elif self.units is not None:
            self.units[unit] = total((self.units.get(unit, Decimal(0)), exact(quantity)))
        amount = said.partition("X-Haat-Charge: ")[2].partition(" ")[0]
        self.charge = total((self.charge, exact(amount))) if amount and self.charge is not None else None
        line = served_by(call).decode("ascii")
        if line.startswith(_SERVED_BY):
            name = line[len(_SERVED_BY) :].strip()
            if name not in self.served_by:
                self.served_by.append(name)

    def summary(self) -> dict[str, Any]:
        """Return the same as members of an answer's body."""
        said: dict[str, Any] = {"served_by": self.served_by}
        if self.units is not None:
            said["units"] = {unit: amount_text(quantity) for unit, quantity in self.units.items()}
        charge = self.charge_text()
        return {**said, "charge": charge} if charge else said

    def charge_text(self) -> str:
        """Return the charge as headers have it; empty where it isn't certain."""
        return "" if self.charge is None else f"{amount_text(self.charge)} INR"

    def lines(self) -> bytes:
        """Return the header lines: the sum of each unit, the charge where it is certain, the services."""
        text = ""
        if self.units:
            sums = ", ".join(f"{unit}={amount_text(quantity)}" for unit, quantity in self.units.items())
            text = f"X-Haat-Units: {sums}\r\n"
        charge = self.charge_text()
        if charge:
            text += f"X-Haat-Charge: {charge}\r\n"
        return text.encode("ascii") + b"".join(self.served_lines())

    def served_lines(self) -> tuple[bytes, ...]:
        """Return the line that names the services, or none."""
        if not self.served_by:
            return ()
        return (f"{_SERVED_BY}{', '.join(self.served_by)}\r\n".encode("ascii"),)

"""What the tour sold: the count of every service's calls, the charges, and how they were shared."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx
from babel.numbers import format_currency
from rich.console import Console
from rich.table import Table


@dataclass(slots=True)
class Tally:
    """What came back from one service."""

    calls: int = 0
    ok: int = 0
    refused: int = 0
    failed: int = 0
    units: Decimal = Decimal(0)
    unit: str = ""

    def add(self, response: httpx.Response) -> None:
        """Count one answer."""
        self.calls += 1
        if response.is_success:
            self.ok += 1
            self.unit, _, quantity = response.headers["X-Haat-Units"].partition("=")
            self.units += Decimal(quantity)
        elif response.status_code == 429:
            self.refused += 1
        else:
            self.failed += 1


@dataclass(slots=True)
class Result:
    """What the tour did and what became of it; money in rupees."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    charges: dict[str, Decimal] = field(default_factory=dict)
    """Taxable value of the developer's invoice lines, by service."""
    usage_events: int = 0
    billed_calls: int = 0
    serials: list[str] = field(default_factory=list)
    net: Decimal = Decimal(0)
    tax: Decimal = Decimal(0)
    settlement: Decimal = Decimal(0)
    platform: Decimal = Decimal(0)
    seconds: float = 0.0

    @property
    def calls(self) -> int:
        return sum(tally.calls for tally in self.tallies.values())

    @property
    def ok(self) -> int:
        return sum(tally.ok for tally in self.tallies.values())

    def as_json(self) -> dict[str, Any]:
        """The last line of ``haat demo --once``. ``invoice_total`` is net of GST: what is shared out."""
        return {
            "calls": self.calls,
            "ok": self.ok,
            "usage_events": self.usage_events,
            "billed_calls": self.billed_calls,
            "invoice_total": str(self.net),
            "settlement_total": str(self.settlement),
            "platform_total": str(self.platform),
            "seconds": round(self.seconds, 1),
        }


def print_sale(console: Console, result: Result) -> None:
    """Show the sale, from the calls to the two shares."""
    tallies = result.tallies
    table = Table(title="The sale", title_justify="left", title_style="bold", show_footer=True)
    table.add_column("service", footer="all", no_wrap=True)
    table.add_column("calls", footer=str(result.calls), justify="right")
    table.add_column("refused", footer=str(sum(tally.refused for tally in tallies.values())), justify="right")
    table.add_column("units", justify="right", no_wrap=True)
    table.add_column("charge", footer=rupees(result.net), justify="right")
    for service, tally in sorted(tallies.items()):
        charge = result.charges.get(service, Decimal(0))
        units = f"{tally.units:,f} {tally.unit.replace('_', ' ')}"
        table.add_row(service, str(tally.calls), str(tally.refused), units, rupees(charge))
    console.print()
    console.print(table, highlight=False)
    money = Table(box=None, padding=(0, 2, 0, 0), show_header=False, title_justify="left", title_style="bold")
    money.title = f"Invoice {', '.join(result.serials)}"
    money.add_column()
    money.add_column(justify="right")
    money.add_row("taxable value", rupees(result.net))
    money.add_row("GST", rupees(result.tax))
    money.add_row("to pay", rupees(result.net + result.tax), style="bold")
    money.add_row("of the taxable value, to the providers", rupees(result.settlement))
    money.add_row("of the taxable value, to the platform", rupees(result.platform))
    console.print(money, highlight=False)
    failed = sum(tally.failed for tally in tallies.values())
    if failed:
        console.print(f"[yellow]·[/yellow] {failed} calls failed; they are metered and not billed.")
    console.print()


def rupees(amount: Decimal) -> str:
    """Return an amount as it is written in India, in whole paise."""
    return format_currency(amount, "INR", locale="en_IN")

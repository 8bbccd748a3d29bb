"""`haat price`: what a month would have cost on another card."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from haat.app import Platform
from haat.catalog.drafts import PriceDraft
from haat.cli.console import as_json_text, json_option, on_platform, print_table
from haat.cli.main import with_settings
from haat.kernel.permissions import PLATFORM
from haat.kernel.prices import text
from haat.rating.charge import Charge
from haat.rating.simulation import Simulation, charge_data
from haat.settings import Settings


@click.command()
@click.argument("service")
@click.option("--month", metavar="2026-11", help="Which month; the one before this one by default.")
@click.option(
    "--card",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="A file with the card as JSON, as POST /api/v1/services/{service}/prices takes it; - reads it from stdin.",
)
@click.option("--unit-price", metavar="₹", help="Instead of a file: the price of one unit.")
@click.option("--free-units", metavar="N", help="With --unit-price: units that are free each month.")
@click.option("--plan", help="As if every subscription had stood on this plan.")
@click.option("--org", type=click.UUID, help="One organisation; all that were subscribed by default.")
@click.option("--limit", "-n", default=20, show_default=True, type=click.IntRange(0, 1000), help="Customers to list.")
@json_option
@with_settings()
def price(
    settings: Settings,
    service: str,
    month: str | None,
    card: Path | None,
    unit_price: str | None,
    free_units: str | None,
    plan: str | None,
    org: UUID | None,
    limit: int,
    as_json: bool,
) -> None:
    """Tell what a month of SERVICE (provider/service, or its id) would have cost on another card.

    Nothing is stored. Each line is rounded as an invoice's is; amounts are before GST. With --org it says how that
    customer's amount comes together.

    \b
    haat price vani/translate --unit-price 0.00018 --free-units 5000
    haat price vani/translate --card card.json --month 2026-11
    haat price vani/translate --plan professional --org 01a22c2d-…
    """
    if free_units is not None and card is None and unit_price is None:
        raise click.UsageError("--free-units goes with a --unit-price; a --card has free units of its own.")
    if card is None and unit_price is None and plan is None:
        raise click.UsageError("Say on what: a --card, a --unit-price, or a --plan that is there.")
    found = _simulated(settings, service, month, _draft(card, unit_price, free_units), plan, org)
    if as_json:
        click.echo(as_json_text(_data(found, limit)))
        return
    if not found.customers:
        click.echo(f"Nobody used {found.name} in {found.period}, and nobody would have owed anything.")
        return
    click.echo(f"{found.name}, {found.period}")
    print_table(
        ("Customer", "Calls", "Was", "Would have been", "Difference"),
        [
            *((one.customer, one.calls, *_amounts(one)) for one in found.customers[:limit]),
            (f"all {len(found.customers)}", sum(one.calls for one in found.customers), *_amounts(found)),
        ],
        nothing="",
    )
    if org is not None:
        for charge in found.customers[0].charges:
            click.echo(_how(charge))
    if found.unpriced:
        click.echo(f"{found.unpriced:,} calls would have had no price, and not be billed.")


def _how(charge: Charge) -> str:
    """Return how a charge comes together: ``characters: 100 × 0.05 (tier 1) + 20 × 0.02 (tier 2) = 5.4``."""
    name = charge.meter or charge.card.unit
    steps = []
    for step in charge.steps or ():
        factors = [step.quantity, step.price, *([] if step.share is None else [step.share])]
        steps.append(f"{' × '.join(map(text, factors))} ({step.label})")
    free = f", {text(charge.free_units)} free" if charge.free_units else ""
    return f"{name}{free}: {' + '.join(steps) or 'nothing'} = {text(charge.amount)}"


def _simulated(
    settings: Settings, service: str, month: str | None, draft: PriceDraft | None, plan: str | None, org: UUID | None
) -> Simulation:
    async def run(platform: Platform) -> Simulation:
        provider, _, slug = service.partition("/")
        identifier = (await platform.discovery.listing(PLATFORM, provider, slug)).id if slug else _id(service)
        return await platform.simulator.simulate(PLATFORM, identifier, period=month, draft=draft, plan=plan, org=org)

    return on_platform(settings, run)


def _draft(card: Path | None, unit_price: str | None, free_units: str | None) -> PriceDraft | None:
    if card is not None and (unit_price is not None or free_units is not None):
        raise click.UsageError("Give a card in a file, or a --unit-price: not both.")
    data: dict[str, Any] = {}
    if card is not None:
        with click.open_file(str(card)) as file:
            try:
                data = json.load(file)
            except ValueError as error:
                raise click.UsageError(f"The card is not JSON: {error}.") from error
        if not isinstance(data, dict):
            raise click.UsageError("The card is a JSON object.")
    if unit_price is not None:
        data["unit_price"] = unit_price
    if free_units is not None:
        data["free_units"] = free_units
    if not data:
        return None
    draft: PriceDraft = PriceDraft.parse(data)
    return draft


def _id(service: str) -> UUID:
    try:
        return UUID(service)
    except ValueError:
        raise click.UsageError("Name the service as provider/service, or by its id.") from None


def _amounts(one: Any) -> tuple[str, str, str]:
    values: tuple[Decimal, ...] = (one.present, one.simulated, one.difference)
    return f"{values[0]:,.2f}", f"{values[1]:,.2f}", f"{values[2]:+,.2f}"


def _data(found: Simulation, limit: int) -> dict[str, Any]:
    return {
        "service": found.name,
        "period": found.period,
        "present": str(found.present),
        "simulated": str(found.simulated),
        "difference": str(found.difference),
        "unpriced": found.unpriced,
        "customers": [
            {
                "customer": one.customer,
                "calls": one.calls,
                "present": str(one.present),
                "simulated": str(one.simulated),
                "difference": str(one.difference),
                "charges": [charge_data(charge) for charge in one.charges],
            }
            for one in found.customers[:limit]
        ],
    }

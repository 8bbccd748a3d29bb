"""`haat trace`: from a request id to the last paisa."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import click

from haat.app import Platform
from haat.cli.console import as_json_text, json_option, on_platform, print_table
from haat.cli.main import with_settings
from haat.invoices.evidence import Portion, portions
from haat.kernel.money import total
from haat.kernel.permissions import PLATFORM
from haat.kernel.prices import text
from haat.settings import Settings
from haat.usage.service import CallStory


@click.command()
@click.argument("request_id", type=click.UUID)
@json_option
@with_settings()
def trace(settings: Settings, request_id: UUID, as_json: bool) -> None:
    """Tell what the call REQUEST_ID (X-Request-ID of its answer) used, and what it bears of which invoice lines."""

    async def look(platform: Platform) -> tuple[CallStory, list[Portion]]:
        story = await platform.usage.call(PLATFORM, request_id)
        return story, await portions(platform.db, PLATFORM, request_id)

    story, found = on_platform(settings, look)
    if as_json:
        click.echo(as_json_text({"call": story.call, "units": story.units, "billed": story.billed, "portions": found}))
        return
    call = story.call
    service = f"{call['called_provider']}/{call['service_slug']}" if call["service_slug"] else "no service"
    click.echo(f"{call['at'].isoformat()}  {service}, {call['plan'] or 'no plan'}: {call['outcome']}, {call['status']}")
    click.echo("Used: " + (", ".join(f"{text(amount)} {unit}" for unit, amount in story.units.items()) or "nothing"))
    if not story.billed:
        click.echo("It is not billed.")
        return
    print_table(
        ("Meter", "Month", "Quantity", "Bears ₹", "Of the line's ₹", "Invoice", "Line", "Settlement"),
        _rows(found),
        nothing="It is on no invoice yet.",
    )


def _rows(found: Sequence[Portion]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [
        (
            one.meter + (", cached" if one.cached_share is not None else "") + (", voided" if one.voided else ""),
            one.period,
            f"{text(one.quantity)} {one.unit}",
            text(one.amount),
            f"{one.line_amount:,.2f}",
            one.serial or "",
            one.position or "",
            one.settlement_id or "not settled",
        )
        for one in found
    ]
    if len(rows) > 1:
        rows.append(("together", "", "", text(total(one.amount for one in found)), "", "", "", ""))
    return rows

"""`haat trace`: from a request id to the last paisa."""

from __future__ import annotations

from dataclasses import asdict
from decimal import Decimal
from uuid import UUID

import click

from haat.app import Platform
from haat.cli.console import as_json_text, json_option, on_platform
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
        told = {"call": story.call, "units": story.units, "billed": story.billed}
        click.echo(as_json_text({**told, "portions": [asdict(one) for one in found]}))
        return
    call = story.call
    service = f"{call['called_provider']}/{call['service_slug']}" if call["service_slug"] else "no service"
    click.echo(f"{call['at'].isoformat()}  {service}, {call['plan'] or 'no plan'}: {call['outcome']}, {call['status']}")
    click.echo("Used: " + (", ".join(_counted(amount, unit) for unit, amount in story.units.items()) or "nothing"))
    if not story.billed:
        click.echo("It is not billed.")
        return
    for one in found:
        click.echo(_sentence(one))
    if not found:
        click.echo("It is on no invoice yet.")
    elif len(found) > 1:
        click.echo(f"Together ₹{text(total(one.amount for one in found))}, before GST.")


def _sentence(one: Portion) -> str:
    """Return ``2026-11 calls: 1 request, ₹0.25 of the line's ₹21.00: HT/2627/000001 line 2, not settled``."""
    marks = [word for word, holds in (("cached", one.cached_share is not None), ("voided", one.voided)) if holds]
    which = f"{one.period} {one.meter}{''.join(f', {mark}' for mark in marks)}"
    bears = f"{_counted(one.quantity, one.unit)}, ₹{text(one.amount)} of the line's ₹{one.line_amount:,.2f}"
    settled = f"settlement {one.settlement_id}" if one.settlement_id else "not settled"
    return f"{which}: {bears}: {one.serial} line {one.position}, {settled}"


def _counted(quantity: Decimal, unit: str) -> str:
    return f"{text(quantity)} {unit.removesuffix('s') if quantity == 1 else unit}"

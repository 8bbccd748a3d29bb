"""`haat billing …`: close a month, see how far it is, read what was issued, correct it; payments are in `payments`."""

from __future__ import annotations

import asyncio
import sys
from decimal import Decimal
from uuid import UUID

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from haat.app import Platform
from haat.cli.console import amount_argument, as_json_text, json_option, limit_option, on_platform, print_table
from haat.cli.main import with_settings
from haat.cli.payments import dealt_with, pay, payments, refund, refused
from haat.invoices.credits import CreditItem, CreditNote, DebitItem
from haat.invoices.runs import Run
from haat.invoices.service import Invoice
from haat.invoices.states import State
from haat.kernel.money import exact
from haat.kernel.permissions import PLATFORM
from haat.settings import Settings
from haat.usage.model import month_named

LOOK_SECONDS = 0.2


period_argument = click.argument("period", metavar="PERIOD")


@click.group()
def billing() -> None:
    """Close a month, see how far it is, record payments, correct what was issued."""


@billing.command()
@period_argument
@click.option("--wait", is_flag=True, help="Work along until it is done; ends with status 1 if somebody wasn't billed.")
@click.option("--again", is_flag=True, help="Pass once more over a closed month, for those who could not be billed.")
@json_option
@with_settings()
def run(settings: Settings, period: str, wait: bool, again: bool, as_json: bool) -> None:
    """Close a month such as 2026-10.

    Everybody is billed and providers are settled. Doing it twice changes nothing.
    """

    async def close(platform: Platform) -> Run:
        begun = await platform.billing.start(PLATFORM, period, again=again)
        if not wait:
            return begun
        work = asyncio.create_task(platform.billing.work(period))
        try:
            return await _watch(platform, period, work, quiet=as_json)
        finally:
            work.cancel()

    found = on_platform(settings, close)
    _print(found, as_json)
    sys.exit(1 if wait and found.failed else 0)


@billing.command()
@click.argument("period", required=False)
@json_option
@with_settings()
def status(settings: Settings, period: str | None, as_json: bool) -> None:
    """Print how far the closing of months is."""
    if period:
        _print(on_platform(settings, lambda platform: platform.billing.status(PLATFORM, period)), as_json)
        return
    found = on_platform(settings, lambda platform: platform.billing.recent(PLATFORM))
    if as_json:
        click.echo(as_json_text(found))
        return
    print_table(
        ("Month", "State", "Batches", "Issued", "Unchanged", "Failed", "Started", "Ended"),
        (
            (
                one.period,
                one.state,
                f"{one.done}/{one.batches}",
                one.issued,
                one.unchanged,
                len(one.failed),
                one.started_at,
                one.ended_at,
            )
            for one in found
        ),
        nothing="No month was closed yet: haat billing run PERIOD.",
    )


@billing.command()
@click.option("--organisation", type=click.UUID, help="One organisation's; everybody's by default.")
@click.option("--month", metavar="2026-10", help="Of one month.")
@click.option("--state", type=click.Choice([state.value for state in State]), help="In one state only.")
@limit_option
@json_option
@with_settings()
def invoices(
    settings: Settings, organisation: UUID | None, month: str | None, state: str | None, limit: int, as_json: bool
) -> None:
    """Print invoices and debit notes, newest first."""
    if month is not None:
        month_named(month, "UTC")
    found = on_platform(
        settings,
        lambda platform: platform.invoices.page(PLATFORM, org=organisation, period=month, state=state, limit=limit),
    )
    if as_json:
        click.echo(as_json_text(found.items))
        return
    print_table(
        ("Serial", "Month", "State", "Total", "Owed", "Due on", "Organisation", "Id"),
        (
            (
                one.serial,
                one.period,
                one.state,
                f"{one.total:,.2f}",
                f"{one.owed:,.2f}",
                one.due_on,
                one.org_id,
                one.id,
            )
            for one in found.items
        ),
        nothing="There is no such invoice.",
    )


@billing.command()
@click.argument("invoice", type=click.UUID)
@json_option
@with_settings()
def lines(settings: Settings, invoice: UUID, as_json: bool) -> None:
    """Print the lines of an INVOICE.

    Their ids are what `haat billing credit` and `haat billing debit` ask for.
    """
    found = on_platform(settings, lambda platform: platform.invoices.lines(PLATFORM, invoice))
    if as_json:
        click.echo(as_json_text(found))
        return
    print_table(
        ("Line", "Of", "What", "Calls", "Quantity", "Before GST"),
        (
            (
                one["id"],
                one["period"],
                one["description"],
                f"{one['calls']:,}",
                f"{one['quantity'].normalize():,f} {one['unit']}",
                f"{one['taxable']:,.2f}",
            )
            for one in found
        ),
        nothing="The invoice has no lines.",
    )


@billing.command()
@click.argument("invoice", type=click.UUID)
@click.option("--reason", required=True, help="Why; it stays with the invoice.")
@json_option
@with_settings()
def void(settings: Settings, invoice: UUID, reason: str, as_json: bool) -> None:
    """Withdraw an INVOICE of which nothing is paid.

    A credit note takes back all of it, and the next invoice of its month bills its usage again.
    """
    found = on_platform(settings, lambda platform: platform.invoices.void(PLATFORM, invoice, reason))
    click.echo(
        as_json_text(found)
        if as_json
        else f"{found.serial} is void: the next invoice of {found.period} bills its usage again."
    )


@billing.command()
@click.argument("line", type=click.UUID)
@amount_argument
@click.option("--key", required=True, help="Names the note: the same key gives the same note.")
@click.option("--reason", default="goodwill", show_default=True, help="One word in small letters.")
@click.option(
    "--fault",
    type=click.Choice(["provider", "platform"]),
    default="platform",
    show_default=True,
    help="Who bears it: with provider, the line's provider loses its part.",
)
@json_option
@with_settings()
def credit(settings: Settings, line: UUID, amount: Decimal, key: str, reason: str, fault: str, as_json: bool) -> None:
    """Take back AMOUNT (before GST) of an invoice LINE.

    The credit note pays its invoice, then others; the ids of lines are in `haat billing lines`.
    """
    item = CreditItem(line, amount, "provider" if fault == "provider" else "platform")
    note = on_platform(settings, lambda platform: platform.invoices.credit(PLATFORM, [item], key=key, reason=reason))
    _print_note(note, as_json)


@billing.command()
@click.argument("line", type=click.UUID)
@amount_argument
@click.option("--key", required=True, help="Names the note: the same key gives the same note.")
@click.option("--reason", default="undercharged", show_default=True, help="One word in small letters.")
@json_option
@with_settings()
def debit(settings: Settings, line: UUID, amount: Decimal, key: str, reason: str, as_json: bool) -> None:
    """Add AMOUNT (before GST) to an invoice LINE.

    The debit note is paid like an invoice; the ids of lines are in `haat billing lines`.
    """
    item = DebitItem(line, amount)
    note = on_platform(settings, lambda platform: platform.invoices.debit(PLATFORM, [item], key=key, reason=reason))
    _print_note(note, as_json)


@billing.command("correct")
@click.argument("call", type=click.UUID)
@click.option("--reason", required=True, help="Why; it stays with the correction.")
@click.option("--void", "voids", is_flag=True, help="It doesn't count at all.")
@click.option("--unit", "units", multiple=True, metavar="UNIT=QUANTITY", help="The right quantity. May be repeated.")
@json_option
@with_settings()
def correct_call(
    settings: Settings, call: UUID, reason: str, voids: bool, units: tuple[str, ...], as_json: bool
) -> None:
    """Correct what a CALL counted.

    The next invoice has the difference; the call's record stays as it is.
    """
    if voids == bool(units):
        raise click.UsageError("Give either --void or the right quantities with --unit.")
    quantities = {name: _quantity(unit, value) for unit in units for name, _, value in [unit.partition("=")]}
    made = on_platform(
        settings,
        lambda platform: platform.invoices.correct_call(
            PLATFORM, call, units=None if voids else quantities, reason=reason
        ),
    )
    if as_json:
        click.echo(as_json_text(made))
        return
    click.echo(f"{call} is void" + (f"; {made.replaced_by} is counted in its place." if made.replaced_by else "."))


def _quantity(given: str, value: str) -> Decimal:
    try:
        return exact(value)
    except ValueError:
        raise click.BadParameter(f"{given} is no quantity: write it like characters=250") from None


for command in (pay, refund, payments, refused, dealt_with):
    billing.add_command(command)


def _print_note(note: CreditNote | Invoice, as_json: bool) -> None:
    if as_json:
        click.echo(as_json_text(note))
        return
    click.echo(f"{note.serial}: {note.net:,.2f} + GST {note.tax:,.2f} = {note.total:,.2f} INR ({note.id})")


async def _watch(platform: Platform, period: str, work: asyncio.Task[None], *, quiet: bool) -> Run:
    """Show a bar until the run is done: by our work, or by that of workers."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet, transient=True) as bar:
        task = bar.add_task(period, total=None)
        while True:
            now = await platform.billing.status(PLATFORM, period)
            bar.update(task, completed=now.done, total=max(now.batches, 1), description=f"{period} {now.state}")
            if now.state == "done":
                return now
            if work.done():
                work.result()  # what it failed with is what there is to say
                await platform.billing.finish(period)
            await asyncio.sleep(LOOK_SECONDS)


def _print(found: Run, as_json: bool) -> None:
    if as_json:
        click.echo(as_json_text(found))
        return
    click.echo(
        f"{found.period} {found.state}: {found.done} of {found.batches} batches, {found.issued} issued, "
        f"{found.unchanged} unchanged, {len(found.failed)} failed."
    )
    for one in found.failed:
        click.echo(f"  {one['org_id']}: {one['reason']}", err=True)

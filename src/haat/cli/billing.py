"""`haat billing …`: close a month, see how far it is, record payments, correct what was issued."""

from __future__ import annotations

import asyncio
import sys
from decimal import Decimal, InvalidOperation
from uuid import UUID

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from haat.app import Platform
from haat.cli.console import as_json_text, json_option, on_platform, print_table
from haat.cli.main import with_settings
from haat.invoices.credits import CreditItem, DebitItem
from haat.invoices.runs import Run
from haat.kernel.permissions import PLATFORM
from haat.settings import Settings

LOOK_SECONDS = 0.2


def _rupees(_: click.Context, __: click.Parameter, given: str) -> Decimal:
    try:
        return Decimal(given)
    except InvalidOperation:
        raise click.BadParameter(f"{given} is no amount: write it like 1180.00") from None


amount_argument = click.argument("amount", callback=_rupees)
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
    """Close a month such as 2026-10: bill everybody and settle providers. Doing it twice changes nothing."""

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
    """Print how far the closing of a month is, or of all newest ones."""
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
@click.argument("organisation", type=click.UUID)
@amount_argument
@click.argument("reference")
@click.option("--invoice", type=click.UUID, help="What it is for; otherwise what is due first.")
@json_option
@with_settings()
def pay(
    settings: Settings, organisation: UUID, amount: Decimal, reference: str, invoice: UUID | None, as_json: bool
) -> None:
    """Record a bank transfer by its REFERENCE; the same one again changes nothing."""
    payment = on_platform(
        settings,
        lambda platform: platform.payments.record(PLATFORM, organisation, amount, reference, invoice=invoice),
    )
    click.echo(
        as_json_text(payment) if as_json else f"{payment.amount:,.2f} INR received, {payment.key} ({payment.id})"
    )


@billing.command()
@click.argument("invoice", type=click.UUID)
@click.option("--reason", required=True, help="Why; it stays with the invoice.")
@with_settings()
def void(settings: Settings, invoice: UUID, reason: str) -> None:
    """Withdraw an invoice of which nothing was paid; its usage is billed again."""
    found = on_platform(settings, lambda platform: platform.invoices.void(PLATFORM, invoice, reason))
    click.echo(f"{found.serial} is {found.state}.")


@billing.command()
@click.argument("line", type=click.UUID)
@amount_argument
@click.option("--key", required=True, help="Names the note: the same key gives the same note.")
@click.option("--reason", default="goodwill", show_default=True, help="One word in small letters.")
@click.option("--fault", type=click.Choice(["provider", "platform"]), default="platform", show_default=True)
@with_settings()
def credit(settings: Settings, line: UUID, amount: Decimal, key: str, reason: str, fault: str) -> None:
    """Take back AMOUNT (before GST) of an invoice LINE by a credit note."""
    item = CreditItem(line, amount, "provider" if fault == "provider" else "platform")
    note = on_platform(settings, lambda platform: platform.invoices.credit(PLATFORM, [item], key=key, reason=reason))
    click.echo(f"{note.serial}: {note.net:,.2f} + GST {note.tax:,.2f} = {note.total:,.2f} INR ({note.id})")


@billing.command()
@click.argument("line", type=click.UUID)
@amount_argument
@click.option("--key", required=True, help="Names the note: the same key gives the same note.")
@click.option("--reason", default="undercharged", show_default=True, help="One word in small letters.")
@with_settings()
def debit(settings: Settings, line: UUID, amount: Decimal, key: str, reason: str) -> None:
    """Add AMOUNT (before GST) to an invoice LINE by a debit note."""
    item = DebitItem(line, amount)
    note = on_platform(settings, lambda platform: platform.invoices.debit(PLATFORM, [item], key=key, reason=reason))
    click.echo(f"{note.serial}: {note.net:,.2f} + GST {note.tax:,.2f} = {note.total:,.2f} INR ({note.id})")


@billing.command("correct")
@click.argument("call", type=click.UUID)
@click.option("--reason", required=True, help="Why; it stays with the correction.")
@click.option("--void", "voids", is_flag=True, help="It doesn't count at all.")
@click.option("--unit", "units", multiple=True, metavar="UNIT=QUANTITY", help="The right quantity. May be repeated.")
@with_settings()
def correct_call(settings: Settings, call: UUID, reason: str, voids: bool, units: tuple[str, ...]) -> None:
    """Correct what a CALL counted; the next invoice has the difference, the call's record stays as it is."""
    if voids == bool(units):
        raise click.UsageError("Give either --void or the right quantities with --unit.")
    quantities = {name: _quantity(unit, value) for unit in units for name, _, value in [unit.partition("=")]}
    made = on_platform(
        settings,
        lambda platform: platform.invoices.correct_call(
            PLATFORM, call, units=None if voids else quantities, reason=reason
        ),
    )
    click.echo(f"{call} is void" + (f"; {made.replaced_by} is counted in its place." if made.replaced_by else "."))


def _quantity(given: str, value: str) -> Decimal:
    try:
        return Decimal(value)
    except InvalidOperation:
        raise click.BadParameter(f"{given} is no quantity: write it like characters=250") from None


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

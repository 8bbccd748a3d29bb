"""`haat settlement …` for the operator of this machine: statements, disputes, and the payouts of `payouts`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from haat.app import Platform
from haat.cli.console import as_json_text, json_option, on_platform, print_table, time_option
from haat.cli.main import with_settings
from haat.cli.payouts import COMMANDS, done, identifier, provider_option, rupees
from haat.kernel.permissions import PLATFORM
from haat.settings import Settings
from haat.settlement.disputes import Verdict

_PIECE = 1024 * 1024

month = click.argument("month", metavar="MONTH")


@click.group()
def settlement() -> None:
    """Settle months, pay providers, decide disputes."""


for command in COMMANDS:
    settlement.add_command(command)


# --- statements -----------------------------------------------------------------------------------


@settlement.command()
@month
@json_option
@with_settings()
def run(settings: Settings, month: str, as_json: bool) -> None:
    """Settle a month's invoices, such as 2026-11; doing it again changes nothing."""
    _print_statements(on_platform(settings, lambda platform: platform.settlements.close_all(PLATFORM, month)), as_json)


@settlement.command("list")
@click.option("--month", help="Only this month's, such as 2026-11.")
@provider_option
@click.option("--limit", "-n", default=50, show_default=True, type=click.IntRange(1, 100))
@json_option
@with_settings()
def list_them(settings: Settings, month: str | None, provider: UUID | None, limit: int, as_json: bool) -> None:
    """List statements, newest first."""
    page = on_platform(
        settings,
        lambda platform: platform.settlements.page(PLATFORM, provider_org=provider, period=month, limit=limit),
    )
    _print_statements(list(page.items), as_json)


def _print_statements(found: list[Any], as_json: bool) -> None:
    if as_json:
        click.echo(as_json_text(found))
        return
    print_table(
        ("Month", "Part", "Provider", "Billed", "Provider's", "Credited", "Withheld", "Payable", "Id"),
        (
            (
                *(one.period, one.part, one.org_id),
                *(f"{amount:,.2f}" for amount in (one.gross, one.provider, one.credited, one.withheld, one.payable)),
                one.id,
            )
            for one in found
        ),
        nothing="Nothing was settled.",
    )


@settlement.command()
@identifier
@json_option
@with_settings()
def show(settings: Settings, identifier: UUID, as_json: bool) -> None:
    """Print a statement with its lines."""
    found = on_platform(settings, lambda platform: platform.settlements.statement(PLATFORM, identifier))
    if as_json:
        click.echo(as_json_text(found))
        return
    rows: list[tuple[Any, ...]] = [
        ("line", one.description, one.customer, one.calls, one.gross, one.provider) for one in found.lines
    ]
    rows += [("credit", one.description, one.customer, "", -one.gross, -one.provider) for one in found.credits]
    rows += [("posted", one.kind, one.reference, "", "", one.amount) for one in found.adjustments]
    rows += [("withheld", one.name, one.section, "", one.base, -one.amount) for one in found.withheld]
    rows += [("payable", "", "", "", "", found.settlement.payable)]
    print_table(("Kind", "What", "Customer", "Calls", "Billed", "Provider's"), rows, nothing="")


@settlement.command()
@identifier
@click.option("--form", type=click.Choice(["csv", "parquet"]), default="csv", show_default=True)
@click.argument("file", type=click.Path(dir_okay=False, writable=True, path_type=Path))
@with_settings()
def evidence(settings: Settings, identifier: UUID, form: Any, file: Path) -> None:
    """Write every call behind a statement into a file."""

    async def write(platform: Platform) -> int:
        written = 0
        pieces = platform.evidence.stream(PLATFORM, identifier, form)
        first = await anext(pieces)  # a refusal comes before there is a file
        with file.open("wb") as target:
            written += target.write(first)
            async for piece in pieces:
                written += target.write(piece)
        return written

    click.echo(f"{on_platform(settings, write):,} bytes written to {file}.")


@settlement.command()
@click.argument("service", type=click.UUID)
@click.argument("share", type=rupees, required=False)
@time_option(help="From when it holds; now by default, and never earlier.")
@json_option
@with_settings()
def share(settings: Settings, service: UUID, share: Decimal | None, at: datetime | None, as_json: bool) -> None:
    """Print the versions of a listing's split, or with SHARE (such as 0.7) change it from a time on."""

    async def use(platform: Platform) -> list[Any]:
        if share is not None:
            await platform.shares.change(PLATFORM, service, share, at)
        return await platform.shares.of(PLATFORM, service)

    found = on_platform(settings, use)
    if as_json:
        click.echo(as_json_text(found))
        return
    print_table(
        ("From", "Provider's share", "Plan", "Version"),
        ((one.effective_from, one.share, one.plan or "every other", one.version) for one in found),
        nothing="This listing has no rate card.",
    )


# --- disputes -------------------------------------------------------------------------------------


@settlement.command()
@click.argument("subject", metavar="settlement/ID|invoice/ID")
@click.argument("log", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--form", type=click.Choice(["csv", "jsonl"]), default="csv", show_default=True)
@click.option("--reason", default="", help="What whoever sent it says.")
@json_option
@with_settings()
def dispute(settings: Settings, subject: str, log: Path, form: Any, reason: str, as_json: bool) -> None:
    """Hold somebody's own log of calls against a statement or an invoice, and contest where they differ."""

    async def pieces() -> AsyncIterator[bytes]:
        with log.open("rb") as file:
            while piece := await asyncio.to_thread(file.read, _PIECE):
                yield piece

    found = on_platform(settings, lambda platform: platform.disputes.open(PLATFORM, subject, pieces(), form, reason))
    if as_json:
        click.echo(as_json_text(found))
        return
    click.echo(
        f"{found.status}: {found.ours:,} calls of ours, {found.theirs:,} of theirs; {found.only_ours:,} only ours, "
        f"{found.only_theirs:,} only theirs, {found.different:,} with another quantity. Dispute {found.id}."
    )


@settlement.command()
@click.option("--status", type=click.Choice(["agreed", "open", "decided", "withdrawn"]))
@json_option
@with_settings()
def disputes(settings: Settings, status: str | None, as_json: bool) -> None:
    """List disputes, newest first."""
    page = on_platform(settings, lambda platform: platform.disputes.page(PLATFORM, status=status, limit=100))
    if as_json:
        click.echo(as_json_text(page.items))
        return
    print_table(
        ("Opened", "Status", "About", "Only ours", "Only theirs", "Different", "Id"),
        (
            (one.opened_at, one.status, one.subject, one.only_ours, one.only_theirs, one.different, one.id)
            for one in page.items
        ),
        nothing="There is no dispute.",
    )


@settlement.command()
@identifier
@click.option(
    "--credit",
    "credits",
    multiple=True,
    metavar="LINE=RUPEES",
    help="What the customer gets back of a line; may repeat.",
)
@click.option("--fault", type=click.Choice(["provider", "platform"]), default="provider", show_default=True)
@click.option("--note", required=True, help="The decision in a sentence.")
@json_option
@with_settings()
def decide(
    settings: Settings, identifier: UUID, credits: tuple[str, ...], fault: Any, note: str, as_json: bool
) -> None:
    """Decide a dispute: lines that aren't named go for the provider, and all it holds is released."""
    verdicts = {}
    for one in credits:
        line, _, amount = one.partition("=")
        try:
            verdicts[UUID(line)] = Verdict(Decimal(amount), fault)
        except (ValueError, InvalidOperation):
            raise click.BadParameter("give --credit as LINE=RUPEES, the line being its id") from None
    done(
        settings,
        lambda platform: platform.disputes.decide(PLATFORM, identifier, verdicts, note),
        as_json,
        "It is decided.",
    )

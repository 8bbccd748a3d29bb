"""`haat ledger …`: read the books."""

from __future__ import annotations

import sys
from datetime import datetime

import click

from haat.app import Platform
from haat.cli.console import as_json_text, json_option, on_platform, print_table, time_option
from haat.cli.main import with_settings
from haat.kernel.permissions import PLATFORM
from haat.settings import Settings


@click.group()
def ledger() -> None:
    """Read the books: the trial balance, an account, what was posted about a thing."""


@ledger.command("trial-balance")
@time_option(help="As the books stood then; now by default.")
@json_option
@with_settings()
def trial_balance(settings: Settings, at: datetime | None, as_json: bool) -> None:
    """Print what stands on every account; ends with status 1 when the books aren't zero in sum."""
    found = on_platform(settings, lambda platform: platform.ledger.trial_balance(PLATFORM, at))
    if as_json:
        click.echo(as_json_text(found))
    else:
        print_table(
            ("Account", "Debit", "Credit", "Currency", "Entries"),
            (
                (
                    one.account,
                    f"{one.amount:,.2f}" if one.amount > 0 else "",
                    f"{-one.amount:,.2f}" if one.amount < 0 else "",
                    one.currency,
                    one.entries,
                )
                for one in found.balances
            ),
            nothing="Nothing was posted yet.",
        )
    wrong = {currency: rest for currency, rest in found.sums.items() if rest}
    for currency, rest in wrong.items():
        click.echo(f"The {currency} entries sum to {rest}, not to zero: the books are damaged.", err=True)
    sys.exit(1 if wrong else 0)


@ledger.command()
@click.argument("name")
@click.option("--limit", "-n", default=20, show_default=True, type=click.IntRange(1, 100))
@json_option
@with_settings()
def account(settings: Settings, name: str, limit: int, as_json: bool) -> None:
    """Print an account's newest entries, such as those of receivable/ORGANISATION."""

    found = on_platform(settings, lambda platform: platform.ledger.entries(PLATFORM, name, limit=limit))
    if as_json:
        click.echo(as_json_text(found.items))
        return
    print_table(
        ("At", "Amount", "Currency", "Kind", "About", "Key"),
        ((one.at, f"{one.amount:,.2f}", one.currency, one.kind, one.reference, one.key) for one in found.items),
        nothing="Nothing was posted to this account.",
    )


@ledger.command()
@click.argument("reference")
@json_option
@with_settings()
def about(settings: Settings, reference: str, as_json: bool) -> None:
    """Print what was posted about something, such as invoice/ID."""

    async def read(platform: Platform) -> None:
        found = await platform.ledger.about(PLATFORM, reference)
        if as_json:
            click.echo(as_json_text(found))
            return
        print_table(
            ("At", "Kind", "Account", "Amount", "Currency"),
            (
                (booked.at, booked.kind, entry.account, f"{entry.amount:,.2f}", booked.currency)
                for booked in found
                for entry in booked.entries
            ),
            nothing="Nothing was posted about it.",
        )

    on_platform(settings, read)

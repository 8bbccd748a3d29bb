"""`haat ledger …`: read the books."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

import click

from haat.app import Platform
from haat.cli.console import as_json_text, json_option, limit_option, on_platform, print_table, time_option
from haat.cli.main import with_settings
from haat.kernel.money import total
from haat.kernel.permissions import PLATFORM
from haat.ledger.model import Balance
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
            [_sides(one.account, [one]) for one in found.balances]
            + [_sides("Sum", [one for one in found.balances if one.currency == currency]) for currency in found.sums],
            nothing="Nothing was posted yet.",
        )
    wrong = {currency: rest for currency, rest in found.sums.items() if rest}
    for currency, rest in wrong.items():
        click.echo(f"The {currency} entries sum to {rest}, not to zero: the books are damaged.", err=True)
    sys.exit(1 if wrong else 0)


@ledger.command()
@click.argument("name")
@limit_option
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


def _sides(name: str, balances: Sequence[Balance]) -> tuple[str, str, str, str, int]:
    """Return a line of the trial balance: accounts of one currency, debits and credits."""
    debit = total(one.amount for one in balances if one.amount > 0)
    credit = -total(one.amount for one in balances if one.amount < 0)
    entries = sum(one.entries for one in balances)
    return name, _shown(debit), _shown(credit), balances[0].currency, entries


def _shown(amount: Decimal) -> str:
    return f"{amount:,.2f}" if amount else ""

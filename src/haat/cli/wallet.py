"""`haat wallet …`: what organisations have paid ahead, and what they may spend."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

import click

from haat.app import Platform
from haat.cli.console import (
    amount_argument,
    as_json_text,
    json_option,
    limit_option,
    on_platform,
    print_table,
    time_option,
)
from haat.cli.main import with_settings
from haat.kernel.errors import ValidationFailed
from haat.kernel.permissions import PLATFORM
from haat.settings import Settings
from haat.wallet.model import Mode
from haat.wallet.service import DEFAULT_PRIORITY


def _terms(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what a grant is told."""
    for option in (
        json_option,
        click.option("--note", default="", help="What the statement says about it."),
        time_option("--expires", "expires_at", help="When it expires; never by default."),
        click.option("--priority", default=DEFAULT_PRIORITY, show_default=True, help="The lowest burns first."),
        click.option("--key", required=True, help="Names this grant: the same key again does nothing."),
        amount_argument,
        click.argument("organisation", type=click.UUID),
    ):
        command = option(command)
    return command


@click.group()
def wallet() -> None:
    """See what organisations have paid ahead, top up, give credits, set budgets."""


@wallet.command()
@click.argument("organisation", type=click.UUID)
@json_option
@with_settings()
def show(settings: Settings, organisation: UUID, as_json: bool) -> None:
    """Print an organisation's wallet: the balance, what of it is held, and the grants in the order they burn."""
    found = on_platform(settings, lambda platform: platform.wallets.standing(PLATFORM, organisation))
    if as_json:
        click.echo(as_json_text(found))
        return
    click.echo(f"{found.mode}, balance ₹{found.balance:,.2f}")
    click.echo(f"used and not billed ₹{found.unbilled:,.4f}, with gateways ₹{found.leased:,.4f}")
    click.echo(f"for new calls ₹{found.available:,.4f}\n")
    print_table(
        ("Grant", "Kind", "Amount", "Remaining", "Priority", "Expires", "Note"),
        (
            (one.id, one.kind, f"{one.amount:,.2f}", f"{one.remaining:,.2f}", one.priority, one.expires_at, one.note)
            for one in found.grants
        ),
        nothing="Nothing is left of any grant.",
    )


@wallet.command()
@click.argument("organisation", type=click.UUID)
@limit_option
@json_option
@with_settings()
def statement(settings: Settings, organisation: UUID, limit: int, as_json: bool) -> None:
    """Print what came into a wallet and what left it, newest first."""
    page = on_platform(settings, lambda platform: platform.wallets.movements(PLATFORM, organisation, limit=limit))
    if as_json:
        click.echo(as_json_text(page.items))
        return
    print_table(
        ("At", "What", "Amount", "Balance", "About"),
        ((one.at, one.kind, f"{one.amount:+,.2f}", f"{one.balance:,.2f}", one.reference) for one in page.items),
        nothing="Nothing came into this wallet yet.",
    )


@wallet.command("top-up")
@_terms
@with_settings()
def top_up(settings: Settings, organisation: UUID, amount: Decimal, as_json: bool, **terms: Any) -> None:
    """Take note of money that has arrived."""
    _grant(settings, "top_up", organisation, amount, as_json, terms)


@wallet.command()
@_terms
@with_settings()
def credit(settings: Settings, organisation: UUID, amount: Decimal, as_json: bool, **terms: Any) -> None:
    """Give an organisation credits for nothing."""
    _grant(settings, "credit", organisation, amount, as_json, terms)


def _grant(
    settings: Settings, how: str, organisation: UUID, amount: Decimal, as_json: bool, terms: dict[str, Any]
) -> None:
    async def give(platform: Platform) -> Any:
        return await getattr(platform.wallets, how)(PLATFORM, organisation, amount, **terms)

    made = on_platform(settings, give)
    click.echo(as_json_text(made) if as_json else f"₹{made.amount:,.2f} are in the wallet: grant {made.id}")


@wallet.command()
@click.argument("organisation", type=click.UUID)
@click.argument("mode", type=click.Choice([mode.value for mode in Mode]))
@click.option("--subscription", type=click.UUID, help="One subscription only.")
@with_settings()
def mode(settings: Settings, organisation: UUID, mode: str, subscription: UUID | None) -> None:
    """Say how an organisation pays: afterwards by invoice, or from its wallet."""
    on_platform(settings, lambda platform: platform.wallets.set_mode(PLATFORM, organisation, Mode(mode), subscription))
    click.echo(f"{'The subscription' if subscription else 'The organisation'} is {mode} from now on.")


@wallet.command()
@click.argument("organisation", type=click.UUID)
@json_option
@with_settings()
def budgets(settings: Settings, organisation: UUID, as_json: bool) -> None:
    """Print an organisation's budgets and what the running month has cost of them."""
    found = on_platform(settings, lambda platform: platform.budgets.standing(PLATFORM, organisation))
    if as_json:
        click.echo(as_json_text(found))
        return
    print_table(
        ("Budget", "For", "Month", "Amount", "Spent", "At its end", "Told at"),
        (
            (
                one.budget.id,
                one.name,
                one.period,
                f"{one.budget.amount:,.2f}",
                f"{one.spent:,.2f}",
                "calls are refused" if one.budget.hard_stop else "calls go on",
                ", ".join(f"{threshold} %" for threshold in one.told),
            )
            for one in found
        ),
        nothing="The organisation has no budget.",
    )


@wallet.command()
@click.argument("organisation", type=click.UUID)
@amount_argument
@click.option("--application", type=click.UUID, help="Of one application only.")
@click.option("--subscription", type=click.UUID, help="Of one subscription only.")
@click.option("--hard-stop", is_flag=True, help="Refuse calls that it does not cover.")
@with_settings()
def budget(settings: Settings, organisation: UUID, amount: Decimal, **terms: Any) -> None:
    """Set what an organisation may spend a month, before tax; 0 removes the budget."""

    async def change(platform: Platform) -> str:
        if amount:
            made = await platform.budgets.set(PLATFORM, amount, org=organisation, **terms)
            return f"₹{made.amount:,.2f} a month: budget {made.id}"
        whose = (terms["application"], terms["subscription"])
        for one in await platform.budgets.standing(PLATFORM, organisation):
            if (one.budget.application_id, one.budget.subscription_id) == whose:
                await platform.budgets.remove(PLATFORM, one.budget.id, organisation)
                return "The budget is removed."
        raise ValidationFailed("There is no such budget to remove.")

    click.echo(on_platform(settings, change))


@wallet.command()
@json_option
@with_settings()
def leases(settings: Settings, as_json: bool) -> None:
    """Print what of wallets and budgets is with gateways, or used by calls that are not in the usage store."""
    found = on_platform(settings, lambda platform: platform.wallets.leases(PLATFORM))
    if as_json:
        click.echo(as_json_text(found))
        return
    print_table(
        ("Gateway", "Organisation", "Fund", "Held", "Until", "Ended"),
        (
            (one.gateway, one.org_id, one.fund, f"{one.held:,.4f}", one.expires_at, "yes" if one.ended else "")
            for one in found
        ),
        nothing="No gateway has a lease.",
    )


@wallet.command("forget-gateway")
@click.argument("gateway")
@with_settings()
def forget_gateway(settings: Settings, gateway: str) -> None:
    """Take back the leases of a gateway that is gone for good, and its journals with it."""
    gone = on_platform(settings, lambda platform: platform.wallets.forget_gateway(PLATFORM, gateway))
    click.echo(f"{gone} leases are back.")

"""Payouts in `haat settlement …`: balances and terms, drafts, the bank's files and answers, holds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from haat.app import Platform
from haat.cli.console import as_json_text, json_option, on_platform, print_table
from haat.cli.main import with_settings
from haat.kernel.errors import ValidationFailed
from haat.kernel.permissions import PLATFORM
from haat.settings import Settings
from haat.settlement.bank_answers import Answered


def rupees(text: str) -> Decimal:
    """Return an amount as it was typed; the name is what help shows for it."""
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text} is no number") from None


provider_option = click.option("--provider", type=click.UUID, help="Only this provider's: its organisation.")
reason_option = click.option("--reason", required=True, help="Why; whom it concerns reads it.")
identifier = click.argument("identifier", metavar="ID", type=click.UUID)


def done(settings: Settings, use: Callable[[Platform], Awaitable[Any]], as_json: bool, said: str) -> None:
    """Do something and say so, or print what came of it."""
    found = on_platform(settings, use)
    click.echo(as_json_text(found) if as_json else said)


@click.command()
@click.argument("provider", type=click.UUID)
@json_option
@with_settings()
def balance(settings: Settings, provider: UUID, as_json: bool) -> None:
    """Print where a provider's money is."""
    found = on_platform(settings, lambda platform: platform.payouts.balance(PLATFORM, provider))
    if as_json:
        click.echo(as_json_text(found))
        return
    names = ("settled", "available", "waiting", "held", "on_its_way", "paid")
    rows = [(name.replace("_", " "), f"{getattr(found, name):,.2f}") for name in names]
    rows.append(("account", found.account.label if found.account else "none"))
    print_table(("What", "Rupees"), rows, nothing="")


@click.command()
@click.option("--minimum", type=rupees, help="Rupees below which its balance is carried on.")
@click.option("--delay-days", type=click.IntRange(0, 365), help="Days from a statement's close until it may be paid.")
@click.option("--withhold", "withhold", multiple=True, metavar="NAME=RATE", help="Its own rate of a tax; may repeat.")
@click.option("--stop", default="", help="A reason for which nothing is paid to it at all.")
@click.argument("provider", type=click.UUID)
@json_option
@with_settings()
def terms(
    settings: Settings,
    provider: UUID,
    minimum: Decimal | None,
    delay_days: int | None,
    withhold: tuple[str, ...],
    stop: str,
    as_json: bool,
) -> None:
    """Set what holds for one provider's payouts; what isn't given is as the settings say."""
    rates = dict(_pair(one) for one in withhold)
    done(
        settings,
        lambda platform: platform.payouts.set_terms(
            PLATFORM, provider, minimum=minimum, delay_days=delay_days, withholdings=rates, stopped=stop
        ),
        as_json,
        "The terms are set.",
    )


def _pair(text: str) -> tuple[str, str]:
    name, equals, rate = text.partition("=")
    if not equals:
        raise click.BadParameter("give --withhold as NAME=RATE, such as TDS=0.05")
    return name, rate


@click.command("payout-run")
@json_option
@with_settings()
def payout_run(settings: Settings, as_json: bool) -> None:
    """Draft payouts for all that providers are owed by now; doing it again drafts nothing more."""
    run = on_platform(settings, lambda platform: platform.payouts.draft_all(PLATFORM))
    if as_json:
        click.echo(as_json_text(run))
        return
    rows = [("drafted", one.org_id, f"{one.amount:,.2f}", str(one.id)) for one in run.drafted]
    rows += [("carried", org, f"{amount:,.2f}", "") for org, amount in run.carried]
    rows += [("refused", org, "", reason) for org, reason in run.refused]
    print_table(("What", "Provider", "Rupees", "Payout, or why not"), rows, nothing="Nobody is owed anything yet.")


@click.command()
@click.option("--status", help="Only those with this status.")
@provider_option
@click.option("--limit", "-n", default=50, show_default=True, type=click.IntRange(1, 100))
@json_option
@with_settings()
def payouts(settings: Settings, status: str | None, provider: UUID | None, limit: int, as_json: bool) -> None:
    """List payouts, newest first."""
    page = on_platform(
        settings,
        lambda platform: platform.payouts.page(PLATFORM, provider_org=provider, status=status, limit=limit),
    )
    if as_json:
        click.echo(as_json_text(page.items))
        return
    print_table(
        ("Changed", "Status", "Provider", "Rupees", "Account", "Reason", "Id"),
        (
            (one.changed_at, one.status, one.org_id, f"{one.amount:,.2f}", one.account, one.reason, one.id)
            for one in page.items
        ),
        nothing="There is no such payout.",
    )


@click.command()
@identifier
@json_option
@with_settings()
def payout(settings: Settings, identifier: UUID, as_json: bool) -> None:
    """Print a payout with the rows it settles and what was done with it."""
    found = on_platform(settings, lambda platform: platform.payouts.story(PLATFORM, identifier))
    if as_json:
        click.echo(as_json_text(found))
        return
    print_table(
        ("Row", "Month", "Rupees", "Of"),
        ((row.kind, row.period, f"{row.amount:,.2f}", row.reference) for row in found.rows),
        nothing="",
    )
    print_table(
        ("At", "What", "By", "Why"), ((one.at, one.type, one.by, one.reason) for one in found.history), nothing=""
    )


@click.command()
@identifier
@json_option
@with_settings()
def approve(settings: Settings, identifier: UUID, as_json: bool) -> None:
    """Let a payout go into the next file."""
    done(settings, lambda platform: platform.payouts.approve(PLATFORM, identifier), as_json, "It is approved.")


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, writable=True, path_type=Path))
@click.option("--again", type=click.UUID, help="Write a file anew that was sent before.")
@with_settings()
def send(settings: Settings, file: Path, again: UUID | None) -> None:
    """Put all approved payouts into a file for the bank's bulk upload (docs/settlement.md describes it)."""

    async def use(platform: Platform) -> tuple[UUID, str] | None:
        sent = again or (made.id if (made := await platform.payouts.send(PLATFORM)) else None)
        return (sent, await platform.payouts.file(PLATFORM, sent)) if sent else None

    found = on_platform(settings, use)
    if found is None:
        raise click.ClickException("No payout is approved: there is nothing to send.")
    file.touch(mode=0o600)  # it holds account numbers
    file.write_text(found[1], newline="")
    click.echo(f"{file} is written: file {found[0]}.")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--skip-refused", is_flag=True, help="Take the other rows where some are refused; else nothing is taken.")
@json_option
@with_settings()
def answers(settings: Settings, file: Path, skip_refused: bool, as_json: bool) -> None:
    """Take the bank's answers to what was sent: a CSV of what is paid and what came back; again does nothing more."""
    text = file.read_bytes()

    async def take(platform: Platform) -> Answered:
        try:
            return await platform.bank_answers.take(PLATFORM, text, skip_refused=skip_refused)
        except ValidationFailed as error:
            for one in error.extensions.get("errors", []):
                click.echo(f"{one['field']}: {one['message']}", err=True)
            raise

    found = on_platform(settings, take)
    if as_json:
        click.echo(as_json_text(found))
        return
    for one in found.refused:
        click.echo(f"row {one.row}: {one.reason}", err=True)
    click.echo(
        f"{len(found.paid):,} paid, {len(found.returned):,} returned, {found.known:,} known already, "
        f"{len(found.refused):,} refused."
    )


@click.command()
@identifier
@click.argument("bank_reference")
@json_option
@with_settings()
def paid(settings: Settings, identifier: UUID, bank_reference: str, as_json: bool) -> None:
    """Record that a payout has arrived, with the bank's reference."""
    done(settings, lambda platform: platform.payouts.pay(PLATFORM, identifier, bank_reference), as_json, "It is paid.")


@click.command()
@identifier
@reason_option
@json_option
@with_settings()
def failed(settings: Settings, identifier: UUID, reason: str, as_json: bool) -> None:
    """Record that the bank refused a payout."""
    done(settings, lambda platform: platform.payouts.fail(PLATFORM, identifier, reason), as_json, "It has failed.")


@click.command()
@identifier
@reason_option
@json_option
@with_settings()
def reverse(settings: Settings, identifier: UUID, reason: str, as_json: bool) -> None:
    """Let go of the rows that a payout settles; the next run drafts them anew."""
    done(settings, lambda platform: platform.payouts.reverse(PLATFORM, identifier, reason), as_json, "It is reversed.")


@click.command()
@click.option("--payout", type=click.UUID, help="A payout that isn't sent yet.")
@click.option("--settlement", "statement", type=click.UUID, help="A statement, or a part of it.")
@click.option("--provider", type=click.UUID, help="Whose, unless it is a payout.")
@click.option("--amount", type=rupees, help="How much; of a statement all by default.")
@reason_option
@json_option
@with_settings()
def hold(
    settings: Settings,
    payout: UUID | None,
    statement: UUID | None,
    provider: UUID | None,
    amount: Decimal | None,
    reason: str,
    as_json: bool,
) -> None:
    """Keep a payout, a statement or an amount back."""
    if (payout is None) == (provider is None):
        raise click.UsageError("Give either --payout, or --provider with --settlement or --amount.")

    async def use(platform: Platform) -> Any:
        if payout is not None:
            return await platform.payouts.hold_payout(PLATFORM, payout, reason)
        assert provider is not None
        return await platform.payouts.hold(PLATFORM, provider, amount, reason, settlement=statement)

    done(settings, use, as_json, "It is held.")


@click.command()
@click.option("--payout", type=click.UUID, help="A payout that is held.")
@click.option("--hold", "held", type=click.UUID, help="What the operator holds.")
@json_option
@with_settings()
def release(settings: Settings, payout: UUID | None, held: UUID | None, as_json: bool) -> None:
    """Release what is held."""
    if (payout is None) == (held is None):
        raise click.UsageError("Give either --payout or --hold.")

    async def use(platform: Platform) -> Any:
        if payout is not None:
            return await platform.payouts.release_payout(PLATFORM, payout)
        assert held is not None
        return await platform.payouts.release_hold(PLATFORM, held)

    done(settings, use, as_json, "It is released.")


@click.command()
@provider_option
@json_option
@with_settings()
def holds(settings: Settings, provider: UUID | None, as_json: bool) -> None:
    """List what is held now."""
    found = on_platform(settings, lambda platform: platform.payouts.holds(PLATFORM, provider))
    if as_json:
        click.echo(as_json_text(found))
        return
    print_table(
        ("Since", "Provider", "Rupees", "Reason", "Dispute", "Id"),
        ((one.placed_at, one.org_id, f"{one.amount:,.2f}", one.reason, one.dispute_id, one.id) for one in found),
        nothing="Nothing is held.",
    )


COMMANDS = (
    balance,
    terms,
    payout_run,
    payouts,
    payout,
    approve,
    send,
    answers,
    paid,
    failed,
    reverse,
    hold,
    release,
    holds,
)
"""All of them, as `haat settlement` has them."""

"""`haat settlement …`: statements, payouts, holds and disputes, for the operator of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from haat.app import Platform
from haat.cli.console import as_json_text, json_option, on_platform, print_table, time_option
from haat.cli.main import with_settings
from haat.kernel.errors import ValidationFailed
from haat.kernel.permissions import PLATFORM
from haat.settings import Settings
from haat.settlement.bank_answers import Answered
from haat.settlement.disputes import Verdict

_PIECE = 1024 * 1024


def rupees(text: str) -> Decimal:
    """Return an amount as it was typed; the name is what help shows for it."""
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text} is no number") from None


provider_option = click.option("--provider", type=click.UUID, help="Only this provider's: its organisation.")
reason_option = click.option("--reason", required=True, help="Why; whom it concerns reads it.")
month = click.argument("month", metavar="MONTH")
identifier = click.argument("identifier", metavar="ID", type=click.UUID)


@click.group()
def settlement() -> None:
    """Settle months, pay providers, decide disputes."""


def _done(settings: Settings, use: Callable[[Platform], Awaitable[Any]], as_json: bool, said: str) -> None:
    """Do something and say so, or print what came of it."""
    found = on_platform(settings, use)
    click.echo(as_json_text(found) if as_json else said)


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


# --- payouts --------------------------------------------------------------------------------------


@settlement.command()
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


@settlement.command()
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
    _done(
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


@settlement.command("payout-run")
@json_option
@with_settings()
def payout_run(settings: Settings, as_json: bool) -> None:
    """Draft payouts for all that providers are owed by now; doing it again drafts nothing more."""
    done = on_platform(settings, lambda platform: platform.payouts.draft_all(PLATFORM))
    if as_json:
        click.echo(as_json_text(done))
        return
    rows = [("drafted", one.org_id, f"{one.amount:,.2f}", str(one.id)) for one in done.drafted]
    rows += [("carried", org, f"{amount:,.2f}", "") for org, amount in done.carried]
    rows += [("refused", org, "", reason) for org, reason in done.refused]
    print_table(("What", "Provider", "Rupees", "Payout, or why not"), rows, nothing="Nobody is owed anything yet.")


@settlement.command()
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


@settlement.command()
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


@settlement.command()
@identifier
@json_option
@with_settings()
def approve(settings: Settings, identifier: UUID, as_json: bool) -> None:
    """Let a payout go into the next file."""
    _done(settings, lambda platform: platform.payouts.approve(PLATFORM, identifier), as_json, "It is approved.")


@settlement.command()
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


@settlement.command()
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


@settlement.command()
@identifier
@click.argument("bank_reference")
@json_option
@with_settings()
def paid(settings: Settings, identifier: UUID, bank_reference: str, as_json: bool) -> None:
    """Record that a payout has arrived, with the bank's reference."""
    _done(settings, lambda platform: platform.payouts.pay(PLATFORM, identifier, bank_reference), as_json, "It is paid.")


@settlement.command()
@identifier
@reason_option
@json_option
@with_settings()
def failed(settings: Settings, identifier: UUID, reason: str, as_json: bool) -> None:
    """Record that the bank refused a payout."""
    _done(settings, lambda platform: platform.payouts.fail(PLATFORM, identifier, reason), as_json, "It has failed.")


@settlement.command()
@identifier
@reason_option
@json_option
@with_settings()
def reverse(settings: Settings, identifier: UUID, reason: str, as_json: bool) -> None:
    """Let go of the rows that a payout settles; the next run drafts them anew."""
    _done(settings, lambda platform: platform.payouts.reverse(PLATFORM, identifier, reason), as_json, "It is reversed.")


@settlement.command()
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

    _done(settings, use, as_json, "It is held.")


@settlement.command()
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

    _done(settings, use, as_json, "It is released.")


@settlement.command()
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
    _done(
        settings,
        lambda platform: platform.disputes.decide(PLATFORM, identifier, verdicts, note),
        as_json,
        "It is decided.",
    )

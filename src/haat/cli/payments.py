"""`haat billing pay`, `refund`, `payments`, `refused`, `dealt-with`: money that came in, and that went back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

import click

from haat.app import Platform
from haat.cli.console import amount_argument, as_json_text, json_option, limit_option, on_platform, print_table
from haat.cli.main import with_settings
from haat.invoices.booking import Payment, Returned
from haat.kernel.permissions import PLATFORM
from haat.settings import Settings


@click.command()
@click.argument("organisation", type=click.UUID)
@amount_argument
@click.argument("reference")
@click.option("--invoice", type=click.UUID, help="What it is for; otherwise what is due first.")
@json_option
@with_settings()
def pay(
    settings: Settings, organisation: UUID, amount: Decimal, reference: str, invoice: UUID | None, as_json: bool
) -> None:
    """Record a bank transfer by its REFERENCE.

    That is such as its UTR; the same one again changes nothing.
    """

    async def record(platform: Platform) -> tuple[Payment, Sequence[Mapping[str, Any]]]:
        payment = await platform.payments.record(PLATFORM, organisation, amount, reference, invoice=invoice)
        return payment, await platform.payments.paid_with(PLATFORM, payment.id)

    payment, paid = on_platform(settings, record)
    if as_json:
        click.echo(as_json_text(payment))
        return
    click.echo(f"{payment.amount:,.2f} INR received: {payment.key} ({payment.id})")
    for one in paid:
        click.echo(f"  {one['amount']:,.2f} of it pay {one['serial']}, which is {one['state']}.")
    if payment.unspent > 0:
        click.echo(f"  {payment.unspent:,.2f} of it stay as credit for the next invoice.")


@click.command()
@click.argument("payment", type=click.UUID)
@amount_argument
@click.argument("reference")
@json_option
@with_settings()
def refund(settings: Settings, payment: UUID, amount: Decimal, reference: str, as_json: bool) -> None:
    """Record that AMOUNT of a PAYMENT was sent back.

    REFERENCE is that of the transfer: the same one again changes nothing. What pays no invoice goes first, then
    invoices that it had paid are due again. The ids of payments are in `haat billing payments`.
    """
    done: Returned = on_platform(
        settings, lambda platform: platform.payments.refund(PLATFORM, payment, amount, reference)
    )
    click.echo(as_json_text(done) if as_json else f"{done.amount:,.2f} INR of {done.payment_key} sent back ({done.id})")


@click.command()
@click.option("--organisation", type=click.UUID, help="One organisation's; everybody's by default.")
@limit_option
@json_option
@with_settings()
def payments(settings: Settings, organisation: UUID | None, limit: int, as_json: bool) -> None:
    """Print payments, newest first.

    With what of each went back, and what of it pays no invoice (unspent).
    """
    found = on_platform(settings, lambda platform: platform.payments.page(PLATFORM, org=organisation, limit=limit))
    if as_json:
        click.echo(as_json_text(found.items))
        return
    print_table(
        ("Received", "Payment", "Amount", "Went back", "Unspent", "Organisation", "Id"),
        (
            (
                one.received_at,
                one.key,
                f"{one.amount:,.2f}",
                f"{one.returned:,.2f}",
                f"{one.unspent:,.2f}",
                one.org_id,
                one.id,
            )
            for one in found.items
        ),
        nothing="No payment was recorded yet.",
    )


@click.command()
@json_option
@with_settings()
def refused(settings: Settings, as_json: bool) -> None:
    """Print providers' messages that could not be booked.

    Ends with status 1 if there is one. They are booked when they can be; one that never can is taken off the list with
    `haat billing dealt-with`.
    """
    found = on_platform(settings, lambda platform: platform.payments.refused(PLATFORM))
    if as_json:
        click.echo(as_json_text(found))
    else:
        print_table(
            ("Since", "Provider", "Message", "Attempts", "Why", "What it says"),
            ((one.first_at, one.provider, one.message_id, one.attempts, one.reason, one.body) for one in found),
            nothing="Every message was booked.",
        )
    raise SystemExit(1 if found else 0)


@click.command("dealt-with")
@click.argument("provider")
@click.argument("message")
@click.option("--note", required=True, help="What was done about it; it stays with the message.")
@with_settings()
def dealt_with(settings: Settings, provider: str, message: str, note: str) -> None:
    """Take a MESSAGE off the list of those refused."""
    on_platform(settings, lambda platform: platform.payments.deal_with(PLATFORM, provider, message, note))
    click.echo(f"{message} of {provider} is dealt with.")

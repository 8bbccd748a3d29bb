"""The mails that follow a payout: that it is made, that the bank refused it, that it came back."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from haat.kernel.events import DomainEvent, EventHandler
from haat.kernel.permissions import PLATFORM

if TYPE_CHECKING:
    from haat.app import Platform

_PAID = (
    "Your payout of ₹{amount} is made",
    "₹{amount} went to {account}. The bank's reference is {bank_reference}.\n",
)
_RETURNED = (
    "Your payout of ₹{amount} did not arrive",
    "The payout of ₹{amount} to {account} came back: {reason}\n\nThe amount is yours as before and goes out again with "
    "a later payout. Please see whether your account is right.\n",
)


async def mail_provider(platform: Platform, event: DomainEvent) -> None:
    """Tell a provider's members what became of their payout; what the operator takes back itself needs no mail."""
    if event.org is None or (event.type == "payout.reversed" and event.data.get("was") != "paid"):
        return
    payout = (await platform.payouts.story(PLATFORM, UUID(event.stream.removeprefix("payout/")))).payout
    subject, text = _PAID if event.type == "payout.paid" else _RETURNED
    words = {
        "amount": f"{payout.amount:,.2f}",
        "account": payout.account,
        "bank_reference": event.data.get("bank_reference", ""),
        "reason": event.data.get("reason", ""),
    }
    for address in await platform.identity.member_emails(event.org):
        await platform.mail.send(
            to=address,
            subject=subject.format_map(words),
            text=f"{text.format_map(words)}\nLook at it here: "
            f"{platform.settings.portal_address}/partner/payouts/{payout.id}\n",
            message_id=f"{event.id}.{address.replace('@', '.at.')}",
        )


HANDLERS = [
    EventHandler(
        "settlement.mail_provider", frozenset({"payout.paid", "payout.failed", "payout.reversed"}), mail_provider
    )
]

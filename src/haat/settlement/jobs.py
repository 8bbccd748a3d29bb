"""The mails that follow a payout: that it is made, that the bank refused it, that it came back."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from haat.infra.letters import MailTemplate, in_line, post, rupees
from haat.kernel.events import DomainEvent, EventHandler
from haat.kernel.permissions import PLATFORM
from haat.language.messages import N_

if TYPE_CHECKING:
    from haat.app import Platform

_PAID = MailTemplate(
    "payout.paid",
    N_("Your payout of {amount} is made"),
    N_("{amount} went to {account}. The bank's reference is {bank_reference}.\n\nLook at it here: {link}\n"),
)
_RETURNED = MailTemplate(
    "payout.returned",
    N_("Your payout of {amount} did not arrive"),
    N_(
        "The payout of {amount} to {account} came back: {reason}\n\nThe amount is yours as before and goes out again "
        "with a later payout. Please see whether your account is right.\n\nLook at it here: {link}\n"
    ),
)
MAILS = (_PAID, _RETURNED)


async def mail_provider(platform: Platform, event: DomainEvent) -> None:
    """Tell a provider's members what became of their payout; what the operator takes back itself needs no mail."""
    if event.org is None or (event.type == "payout.reversed" and event.data.get("was") != "paid"):
        return
    payout = (await platform.payouts.story(PLATFORM, UUID(event.stream.removeprefix("payout/")))).payout
    tag = await platform.papers.language(PLATFORM, event.org)
    await post(
        platform,
        _PAID if event.type == "payout.paid" else _RETURNED,
        tag,
        await platform.identity.member_emails(event.org),
        event.id,
        amount=rupees(payout.amount, tag),
        account=in_line(payout.account, tag),
        bank_reference=in_line(event.data.get("bank_reference", ""), tag),
        reason=event.data.get("reason", ""),
        link=f"{platform.settings.portal_address}/partner/payouts/{payout.id}",
    )


HANDLERS = [
    EventHandler(
        "settlement.mail_provider", frozenset({"payout.paid", "payout.failed", "payout.reversed"}), mail_provider
    )
]

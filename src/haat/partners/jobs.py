"""Mails that follow a partner's registration and the operator's decision."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from haat.kernel.events import DomainEvent, EventHandler
from haat.kernel.permissions import PLATFORM

if TYPE_CHECKING:
    from haat.app import Platform


async def mail_operator(platform: Platform, event: DomainEvent) -> None:
    """Tell the operator's members that a partner waits for a decision."""
    operator = await platform.identity.operator()
    if operator is None:
        return
    partner = await platform.partners.get(PLATFORM, UUID(event.stream.removeprefix("partner/")))
    for address in await platform.identity.member_emails(operator.id):
        await platform.mail.send(
            to=address,
            subject=f"{partner.company_name} wants to offer services",
            text=(
                f"{partner.company_name} ({partner.slug}) has registered as a provider.\n\n"
                f"Decide here: {platform.settings.portal_address}/operator/partners\n"
            ),
            message_id=f"{event.id}.{address.replace('@', '.at.')}",
        )


_TEXTS = {
    "partner.registered": (
        "We have your registration",
        "Thank you for registering {company}. The operator looks at it and you get a mail with the decision.\n",
    ),
    "partner.approved": (
        "Welcome to the market",
        "{company} is approved. Register your first service here: {portal}/partner\n",
    ),
    "partner.rejected": (
        "Your registration was not accepted",
        "The operator has not accepted {company}, for this reason:\n\n{reason}\n\n"
        "When it is mended, register again: {portal}/partner\n",
    ),
    "partner.suspended": (
        "Your services are suspended",
        "The operator has suspended {company}, for this reason:\n\n{reason}\n",
    ),
}


async def mail_partner(platform: Platform, event: DomainEvent) -> None:
    """Tell the partner where its registration stands."""
    partner = await platform.partners.get(PLATFORM, UUID(event.stream.removeprefix("partner/")))
    subject, text = _TEXTS[event.type]
    await platform.mail.send(
        to=partner.email,
        subject=subject,
        text=text.format(
            company=partner.company_name, portal=platform.settings.portal_address, reason=event.data.get("reason", "")
        ),
        message_id=str(event.id),
    )


HANDLERS = [
    EventHandler("partners.mail_operator", frozenset({"partner.registered"}), mail_operator),
    EventHandler("partners.mail_partner", frozenset(_TEXTS), mail_partner),
]

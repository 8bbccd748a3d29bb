"""Mails that follow a partner's registration and the operator's decision."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from haat.infra.letters import MailTemplate, post
from haat.kernel.events import DomainEvent, EventHandler
from haat.kernel.permissions import PLATFORM
from haat.language.messages import N_

if TYPE_CHECKING:
    from haat.app import Platform


_WAITING = MailTemplate(
    "partner.waiting",
    N_("{company} wants to offer services"),
    N_("{company} ({slug}) has registered as a provider.\n\nDecide here: {portal}/operator/partners\n"),
)
_DECIDED = {
    "partner.registered": MailTemplate(
        "partner.registered",
        N_("We have your registration"),
        N_("Thank you for registering {company}. The operator looks at it and you get a mail with the decision.\n"),
        optional=frozenset({"portal"}),
    ),
    "partner.approved": MailTemplate(
        "partner.approved",
        N_("Welcome to the market"),
        N_("{company} is approved. Register your first service here: {portal}/partner\n"),
    ),
    "partner.rejected": MailTemplate(
        "partner.rejected",
        N_("Your registration was not accepted"),
        N_(
            "The operator has not accepted {company}, for this reason:\n\n{reason}\n\n"
            "When it is mended, register again: {portal}/partner\n"
        ),
    ),
    "partner.suspended": MailTemplate(
        "partner.suspended",
        N_("Your services are suspended"),
        N_("The operator has suspended {company}, for this reason:\n\n{reason}\n"),
        optional=frozenset({"portal"}),
    ),
}
MAILS = (_WAITING, *_DECIDED.values())
"""The mails whose words the operator may write (`haat.content`)."""


async def mail_operator(platform: Platform, event: DomainEvent) -> None:
    """Tell the operator's members that a partner waits for a decision."""
    operator = await platform.identity.operator()
    if operator is None:
        return
    partner = await platform.partners.get(PLATFORM, UUID(event.stream.removeprefix("partner/")))
    await post(
        platform,
        _WAITING,
        await platform.papers.language(PLATFORM, operator.id),
        await platform.identity.member_emails(operator.id),
        event.id,
        company=partner.company_name,
        slug=partner.slug,
        portal=platform.settings.portal_address,
    )


async def mail_partner(platform: Platform, event: DomainEvent) -> None:
    """Tell the partner where its registration stands, in the language its organisation gets its papers in."""
    partner = await platform.partners.get(PLATFORM, UUID(event.stream.removeprefix("partner/")))
    await post(
        platform,
        _DECIDED[event.type],
        await platform.papers.language(PLATFORM, partner.org_id),
        [partner.email],
        event.id,
        company=partner.company_name,
        portal=platform.settings.portal_address,
        reason=event.data.get("reason", ""),
    )


HANDLERS = [
    EventHandler("partners.mail_operator", frozenset({"partner.registered"}), mail_operator),
    EventHandler("partners.mail_partner", frozenset(_DECIDED), mail_partner),
]

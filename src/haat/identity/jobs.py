"""Mails to people about their account, each in the language its reader chose."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from haat.infra.letters import MailTemplate, post
from haat.kernel.errors import NotFound
from haat.kernel.events import DomainEvent, EventHandler
from haat.language import ENGLISH
from haat.language.messages import N_

if TYPE_CHECKING:
    from haat.app import Platform
    from haat.identity.model import User

INVITATION = MailTemplate(
    "person.invited",
    N_("{organisation} invites you"),
    N_(
        "{name} invites you to work with {organisation} on Haat.\n\n"
        "Accept within seven days: {link}\n\n"
        "If you don't know them, do nothing.\n"
    ),
)
RESET = MailTemplate(
    "person.reset",
    N_("Choose a new password"),
    N_(
        "Choose a new password within the hour: {link}\n\n"
        "If you did not ask for this, do nothing: your password stays as it is.\n"
    ),
)
PASSWORD_CHANGED = MailTemplate(
    "person.password_changed",
    N_("Your password was changed"),
    N_(
        "The password of your account was changed, and you are signed out everywhere else.\n\n"
        "If it wasn't you, choose a new one: {link}\n"
    ),
)
MAILS = (INVITATION, RESET, PASSWORD_CHANGED)


async def mail_invitation(platform: Platform, event: DomainEvent) -> None:
    """Send an invitation's link to whom it invites, unless it was revoked or sent anew meanwhile."""
    if event.org is None:
        return
    invitation = await platform.members.waiting(event.org, UUID(event.stream.removeprefix("invitation/")))
    if invitation is None or invitation.mailed != event.data["mailed"]:
        return
    token = platform.members.token_of(invitation)
    invited = await platform.members.invited(token)
    inviter = await _person(platform, invitation.invited_by)
    languages = [who.language for who in (invited.account, inviter) if who is not None]
    await post(
        platform,
        INVITATION,
        next(filter(None, languages), ENGLISH),  # who chose none probably reads what the colleague reads
        [invitation.email],
        event.id,
        organisation=invited.organisation,
        name=inviter.name if inviter else invited.organisation,
        link=f"{platform.settings.portal_address}/invitation/{token}",
    )


async def mail_reset(platform: Platform, event: DomainEvent) -> None:
    """Send the link to choose a new password, if the address has an account; else nothing."""
    asked = await platform.access.asked_reset(UUID(event.stream.removeprefix("password-reset/")))
    if asked is None:
        return
    user, token = asked
    link = f"{platform.settings.portal_address}/reset/{token}"
    await post(platform, RESET, user.language or ENGLISH, [user.email], event.id, link=link)


async def mail_password_changed(platform: Platform, event: DomainEvent) -> None:
    """Tell a person that their password was changed, in case somebody else did it."""
    user = await _person(platform, UUID(event.stream.removeprefix("user/")))
    if user is None:
        return
    link = f"{platform.settings.portal_address}/forgot"
    await post(platform, PASSWORD_CHANGED, user.language or ENGLISH, [user.email], event.id, link=link)


async def _person(platform: Platform, identifier: UUID | None) -> User | None:
    if identifier is None:
        return None
    try:
        return await platform.access.user(identifier)
    except NotFound:
        return None


HANDLERS = [
    EventHandler("identity.mail_invitation", frozenset({"invitation.sent"}), mail_invitation),
    EventHandler("identity.mail_reset", frozenset({"password_reset.asked"}), mail_reset),
    EventHandler("identity.mail_password_changed", frozenset({"user.password_changed"}), mail_password_changed),
]

"""Mails to people about their account, each in the language its reader chose."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from haat.kernel.errors import NotFound
from haat.kernel.events import DomainEvent, EventHandler
from haat.language import ENGLISH
from haat.language.messages import _, speaking

if TYPE_CHECKING:
    from haat.app import Platform
    from haat.identity.model import User


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
    with speaking(next(filter(None, languages), ENGLISH)):  # who chose none probably reads what the colleague reads
        values = {
            "organisation": invited.organisation,
            "link": f"{platform.settings.portal_address}/invitation/{token}",
            "name": inviter.name if inviter else invited.organisation,
        }
        text = _(
            "%(name)s invites you to work with %(organisation)s on Haat.\n\n"
            "Accept within seven days: %(link)s\n\n"
            "If you don't know them, do nothing.\n",
            **values,
        )
        subject = _("%(organisation)s invites you", **values)
    await platform.mail.send(to=invitation.email, subject=subject, text=text, message_id=str(event.id))


async def mail_reset(platform: Platform, event: DomainEvent) -> None:
    """Send the link to choose a new password, if the address has an account; else nothing."""
    asked = await platform.access.asked_reset(UUID(event.stream.removeprefix("password-reset/")))
    if asked is None:
        return
    user, token = asked
    with speaking(user.language or ENGLISH):
        text = _(
            "Choose a new password within the hour: %(link)s\n\n"
            "If you did not ask for this, do nothing: your password stays as it is.\n",
            link=f"{platform.settings.portal_address}/reset/{token}",
        )
        subject = _("Choose a new password")
    await platform.mail.send(to=user.email, subject=subject, text=text, message_id=str(event.id))


async def mail_password_changed(platform: Platform, event: DomainEvent) -> None:
    """Tell a person that their password was changed, in case somebody else did it."""
    user = await _person(platform, UUID(event.stream.removeprefix("user/")))
    if user is None:
        return
    with speaking(user.language or ENGLISH):
        text = _(
            "The password of your account was changed, and you are signed out everywhere else.\n\n"
            "If it wasn't you, choose a new one: %(link)s\n",
            link=f"{platform.settings.portal_address}/forgot",
        )
        subject = _("Your password was changed")
    await platform.mail.send(to=user.email, subject=subject, text=text, message_id=str(event.id))


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

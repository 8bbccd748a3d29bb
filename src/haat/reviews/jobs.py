"""Mails that follow a review: to its author when the operator hides it or the provider answers, to the provider
when it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from haat.kernel.events import DomainEvent, EventHandler
from haat.kernel.permissions import PLATFORM
from haat.language.messages import N_, gettext

if TYPE_CHECKING:
    from haat.app import Platform

_TO_AUTHOR = {
    "review.hidden": (
        N_("Your review of %(service)s is hidden"),
        N_(
            "The operator has hidden your review of %(service)s, for this reason:\n\n%(reason)s\n\n"
            "You can change it or withdraw it here: %(page)s\n"
        ),
    ),
    "review.shown": (
        N_("Your review of %(service)s is shown again"),
        N_("The operator shows your review of %(service)s again: %(page)s\n"),
    ),
    "review.replied": (
        N_("The provider has answered your review of %(service)s"),
        N_("Read the answer here: %(page)s\n\nYou can change your review or withdraw it there.\n"),
    ),
}


async def mail_author(platform: Platform, event: DomainEvent) -> None:
    """Tell the members of the organisation that wrote a review what became of it."""
    assert event.org is not None, "a review's events are its author's"
    listing = await platform.discovery.listing_by_id(PLATFORM, UUID(event.data["service"]))
    words = {
        "service": listing.name,
        "reason": event.data.get("reason", ""),
        "page": f"{platform.settings.portal_address}/services/{listing.path}#reviews",
    }
    subject, text = _TO_AUTHOR[event.type]
    for address in await platform.identity.member_emails(event.org):
        await platform.mail.send(
            to=address,
            subject=gettext(subject) % words,
            text=gettext(text) % words,
            message_id=f"{event.id}.{address.replace('@', '.at.')}",
        )


async def mail_provider(platform: Platform, event: DomainEvent) -> None:
    """Tell the provider that somebody has reviewed one of its listings."""
    listing = await platform.discovery.listing_by_id(PLATFORM, UUID(event.data["service"]))
    partner = await platform.partners.get(PLATFORM, listing.org_id)
    words = {"service": listing.name, "page": f"{platform.settings.portal_address}/partner/reviews"}
    await platform.mail.send(
        to=partner.email,
        subject=gettext(N_("A buyer has reviewed %(service)s")) % words,
        text=gettext(N_("Read it and answer it here: %(page)s\n")) % words,
        message_id=str(event.id),
    )


HANDLERS = [
    EventHandler("reviews.mail_author", frozenset(_TO_AUTHOR), mail_author),
    EventHandler("reviews.mail_provider", frozenset({"review.written"}), mail_provider),
]

"""Mails that follow a review: to its author when the operator hides it or the provider answers, to the provider
when it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from haat.infra.letters import MailTemplate, post
from haat.kernel.events import DomainEvent, EventHandler
from haat.kernel.permissions import PLATFORM
from haat.language.messages import N_

if TYPE_CHECKING:
    from haat.app import Platform

_TO_AUTHOR = {
    "review.hidden": MailTemplate(
        "review.hidden",
        N_("Your review of {service} is hidden"),
        N_(
            "The operator has hidden your review of {service}, for this reason:\n\n{reason}\n\n"
            "You can change it or withdraw it here: {page}\n"
        ),
    ),
    "review.shown": MailTemplate(
        "review.shown",
        N_("Your review of {service} is shown again"),
        N_("The operator shows your review of {service} again: {page}\n"),
    ),
    "review.replied": MailTemplate(
        "review.replied",
        N_("The provider has answered your review of {service}"),
        N_("Read the answer here: {page}\n\nYou can change your review or withdraw it there.\n"),
    ),
}
_TO_PROVIDER = MailTemplate(
    "review.written", N_("A buyer has reviewed {service}"), N_("Read it and answer it here: {page}\n")
)
MAILS = (*_TO_AUTHOR.values(), _TO_PROVIDER)


async def mail_author(platform: Platform, event: DomainEvent) -> None:
    """Tell the members of the organisation that wrote a review what became of it."""
    assert event.org is not None, "a review's events are its author's"
    listing = await platform.discovery.listing_by_id(PLATFORM, UUID(event.data["service"]))
    await post(
        platform,
        _TO_AUTHOR[event.type],
        await platform.papers.language(PLATFORM, event.org),
        await platform.identity.member_emails(event.org),
        event.id,
        service=listing.name,
        reason=event.data.get("reason", ""),
        page=f"{platform.settings.portal_address}/services/{listing.path}#reviews",
    )


async def mail_provider(platform: Platform, event: DomainEvent) -> None:
    """Tell the provider that somebody has reviewed one of its listings."""
    listing = await platform.discovery.listing_by_id(PLATFORM, UUID(event.data["service"]))
    partner = await platform.partners.get(PLATFORM, listing.org_id)
    await post(
        platform,
        _TO_PROVIDER,
        await platform.papers.language(PLATFORM, listing.org_id),
        [partner.email],
        event.id,
        service=listing.name,
        page=f"{platform.settings.portal_address}/partner/reviews",
    )


HANDLERS = [
    EventHandler("reviews.mail_author", frozenset(_TO_AUTHOR), mail_author),
    EventHandler("reviews.mail_provider", frozenset({"review.written"}), mail_provider),
]

"""The mail that brings an invoice to its customer."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

from haat.infra.mail import Attachment
from haat.invoices.paper.labels import labels_for
from haat.invoices.paper.words import amount_in_words
from haat.invoices.pdf import kind_of
from haat.kernel.events import DomainEvent, EventHandler
from haat.kernel.permissions import PLATFORM
from haat.language import ENGLISH, format_currency, isolate

if TYPE_CHECKING:
    from haat.app import Platform


async def mail_invoice(platform: Platform, event: DomainEvent) -> None:
    """Send an invoice to the members of its organisation, in the organisation's language.

    A font that is not installed fails the job, which is tried again and then listed: no customer gets half an invoice.
    """
    invoice = await platform.invoices.get(PLATFORM, UUID(event.stream.removeprefix("invoice/")))
    addresses = await platform.identity.member_emails(invoice.org_id)
    if not addresses:
        return
    labels = labels_for(await platform.papers.language(PLATFORM, invoice.org_id))
    title = labels[kind_of(await platform.invoices.document(PLATFORM, invoice.id))]
    file = await platform.papers.pdf(PLATFORM, invoice.id)
    total = Decimal(invoice.total)
    figures = format_currency(total, ENGLISH)
    serial = invoice.serial
    if labels.tag.direction == "rtl":  # in a line of text nothing else keeps digits and slashes in their order
        serial, figures = isolate(serial, "ltr"), isolate(figures, "ltr")
    attached = labels.mail["attached"].format(
        title=title, serial=serial, supplier=isolate(platform.settings.operator_name)
    )
    link = f"{platform.settings.portal_address}/account/invoices/{invoice.id}"
    for address in addresses:
        await platform.mail.send(
            to=address,
            subject=f"{title} {serial}: {figures}",
            text=(
                f"{attached}\n\n{labels['total']}: {figures}\n{amount_in_words(total, labels)}\n\n"
                f"{labels.mail['calls'].format(link=link)}\n"
            ),
            message_id=f"{event.id}.{address.replace('@', '.at.')}",
            attachments=[Attachment(file.name, file.media_type, file.content)],
        )


HANDLERS = [EventHandler("invoices.mail_invoice", frozenset({"invoice.issued"}), mail_invoice)]

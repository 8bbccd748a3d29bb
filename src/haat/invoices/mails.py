"""The mail that brings an invoice or a note to its customer."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from haat.infra.mail import Attachment
from haat.invoices.paper.labels import labels_for
from haat.invoices.paper.words import amount_in_words
from haat.invoices.papers import Kind
from haat.invoices.pdf import kind_of
from haat.kernel.events import DomainEvent, EventHandler
from haat.kernel.permissions import PLATFORM
from haat.language import ENGLISH, format_currency, isolate

if TYPE_CHECKING:
    from haat.app import Platform


async def mail_invoice(platform: Platform, event: DomainEvent) -> None:
    """Send an invoice, or a debit note or statement, to the members of its organisation."""
    invoice = await platform.invoices.get(PLATFORM, UUID(event.stream.removeprefix("invoice/")))
    document = await platform.invoices.document(PLATFORM, invoice.id)
    await _mail(platform, event, invoice.org_id, document, invoice.id, "invoice")


async def mail_credit_note(platform: Platform, event: DomainEvent) -> None:
    """Send a credit note to the members of its organisation."""
    note = await platform.invoices.credit_note(PLATFORM, UUID(event.stream.removeprefix("credit-note/")))
    document = await platform.invoices.credit_note_document(PLATFORM, note.id)
    await _mail(platform, event, note.org_id, document, note.id, "credit_note")


async def _mail(
    platform: Platform, event: DomainEvent, org: UUID, document: Mapping[str, Any], identifier: UUID, of: Kind
) -> None:
    """Send a paper in its organisation's language; its link opens the invoice whose lines lead to their calls.

    A font that is not installed fails the job, which is tried again and then listed: no customer gets half an invoice.
    """
    addresses = await platform.identity.member_emails(org)
    if not addresses:
        return
    labels = labels_for(await platform.papers.language(PLATFORM, org))
    title, serial = labels[kind_of(document)], document["serial"]
    file = await platform.papers.pdf(PLATFORM, identifier, of=of)
    total = Decimal(document["total"])
    figures = format_currency(total, ENGLISH)
    if labels.tag.direction == "rtl":  # in a line of text nothing else keeps digits and slashes in their order
        serial, figures = isolate(serial, "ltr"), isolate(figures, "ltr")
    attached = labels.mail["attached"].format(
        title=title, serial=serial, supplier=isolate(platform.settings.operator_name)
    )
    opened = document["against"][0]["id"] if of == "credit_note" else identifier
    link = f"{platform.settings.portal_address}/account/invoices/{opened}"
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


HANDLERS = [
    EventHandler("invoices.mail_invoice", frozenset({"invoice.issued"}), mail_invoice),
    EventHandler("invoices.mail_credit_note", frozenset({"credit_note.issued"}), mail_credit_note),
]

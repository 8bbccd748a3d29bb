"""The mail that brings an invoice or a note to its customer."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from haat.infra.letters import MailTemplate, in_line, post
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

ISSUED = MailTemplate(
    "paper.issued",
    "{title} {serial}: {total}",
    "{title} {serial} of {supplier} is attached.\n\nTotal: {total}\n{total_in_words}\n\nEvery call behind it: {link}\n",
)
"""Where the operator writes no words of its own, the paper's labels say it in each of their 23 languages."""
MAILS = (ISSUED,)


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
    file = await platform.papers.pdf(PLATFORM, identifier, of=of)
    total = Decimal(document["total"])
    opened = document["against"][0]["id"] if of == "credit_note" else identifier
    said = f"{labels.mail['attached']}\n\n{labels['total']}: {{total}}\n{{total_in_words}}\n\n{labels.mail['calls']}\n"
    await post(
        platform,
        ISSUED,
        labels.tag,
        addresses,
        event.id,
        default=(ISSUED.subject, said),
        attachments=[Attachment(file.name, file.media_type, file.content)],
        title=labels[kind_of(document)],
        serial=in_line(document["serial"], labels.tag),
        supplier=isolate(platform.settings.operator_name),
        total=in_line(format_currency(total, ENGLISH), labels.tag),
        total_in_words=amount_in_words(total, labels),
        link=f"{platform.settings.portal_address}/account/invoices/{opened}",
    )


HANDLERS = [
    EventHandler("invoices.mail_invoice", frozenset({"invoice.issued"}), mail_invoice),
    EventHandler("invoices.mail_credit_note", frozenset({"credit_note.issued"}), mail_credit_note),
]

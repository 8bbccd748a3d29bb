"""Mails whose words the operator may write: what each says by default, which placeholders it has, and its posting.

``{company}`` in a subject or a text stands for a value that the sender gives. A text that lacks one that the default
has is not published, nor one with a placeholder that nobody fills (see `haat.content`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from haat.infra.mail import Attachment
from haat.kernel.errors import ValidationFailed
from haat.language import ENGLISH, Tag, format_currency, isolate
from haat.language.messages import translations

if TYPE_CHECKING:
    from haat.app import Platform

_PLACE = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class MailTemplate:
    """A mail by its name, such as ``partner.approved``; its texts are English and their own key in the catalogs.

    ``optional`` names values that are there and that the default doesn't use.
    """

    name: str
    subject: str
    text: str
    optional: frozenset[str] = frozenset()

    @property
    def required(self) -> frozenset[str]:
        return frozenset(_PLACE.findall(f"{self.subject}\n{self.text}"))

    def check(self, subject: str, text: str) -> None:
        """Raise ValidationFailed for words without a required placeholder, with an unknown one, or a stray brace."""
        used = frozenset(_PLACE.findall(f"{subject}\n{text}"))
        errors = []
        for name in sorted(self.required - used):
            errors.append(f"{{{name}}} is missing: this mail has to say it.")
        for name in sorted(used - self.required - self.optional):
            known = ", ".join(f"{{{one}}}" for one in sorted(self.required | self.optional)) or "none"
            errors.append(f"{{{name}}} is no placeholder of this mail; there are: {known}.")
        if set("{}") & set(_PLACE.sub("", f"{subject}{text}")):
            errors.append("A brace stands for itself nowhere: write placeholders such as {company}, and no other.")
        if errors:
            raise ValidationFailed(errors=[{"field": "body", "message": " ".join(errors)}])

    def in_catalog(self, tag: Tag) -> tuple[str, str] | None:
        """Return subject and text as the interface's catalogs have them for a language, None where they don't."""
        catalog = translations(tag)
        subject, text = catalog.gettext(self.subject), catalog.gettext(self.text)
        return None if tag == ENGLISH or text == self.text else (subject, text)


@dataclass(frozen=True, slots=True)
class Letter:
    """What a mail says, ready to be sent."""

    subject: str
    text: str


def fill(subject: str, text: str, values: Mapping[str, str]) -> Letter:
    """Return a mail with its placeholders filled in, each once: braces within a value stay what they are."""

    def value(place: re.Match[str]) -> str:
        return values.get(place[1], place[0])

    return Letter(" ".join(_PLACE.sub(value, subject).split()), _PLACE.sub(value, text).rstrip("\n") + "\n")


async def post(
    platform: Platform,
    mail: MailTemplate,
    tag: Tag,
    addresses: Iterable[str],
    occasion: UUID,
    *,
    default: tuple[str, str] | None = None,
    attachments: Sequence[Attachment] = (),
    **values: Any,
) -> None:
    """Send a mail to each address, in a language.

    ``occasion`` is the event that it follows: a job that runs again names the same one, so its mails don't look new.
    ``default`` are words of the sender's own, in place of the template's, where the operator has written none.
    """
    letter = await platform.library.letter(mail, tag, default=default, **values)
    for address in addresses:
        await platform.mail.send(
            to=address,
            subject=letter.subject,
            text=letter.text,
            message_id=f"{occasion}.{address.replace('@', '.at.')}",
            attachments=attachments,
        )


def rupees(amount: Decimal, tag: Tag) -> str:
    """Return an amount for a line of a mail: nothing else keeps its figures in order on a line from right to left."""
    return in_line(format_currency(amount, tag), tag)


def in_line(text: str, tag: Tag) -> str:
    """Return figures, a serial or an address that keep their order on a line of the language."""
    return isolate(text, "ltr") if tag.direction == "rtl" else text

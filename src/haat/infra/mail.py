"""Mail: a port, SMTP behind it, and a folder of .eml files where no server is configured."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import smtplib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from pathlib import Path
from typing import Literal, Protocol

from haat.kernel.clock import Clock, SystemClock
from haat.kernel.errors import MailUndelivered, ValidationFailed
from haat.kernel.ids import new_id
from haat.settings import Settings

_TIMEOUT_SECONDS = 15
_PLAIN_ID = re.compile(r"[A-Za-z0-9_+=-]+(\.[A-Za-z0-9_+=-]+)*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that goes with a mail; ``media_type`` is such as ``application/pdf``."""

    name: str
    media_type: str
    content: bytes


class Mail(Protocol):
    """Sends one mail to one person."""

    async def send(
        self,
        to: str,
        subject: str,
        text: str,
        html: str | None = None,
        message_id: str | None = None,
        attachments: Sequence[Attachment] = (),
    ) -> None:
        """Hand a mail over for delivery.

        ``message_id`` names the occasion: a job that runs again gives the same one, so its mail does
        not look like a new one. Raise ValidationFailed for an address or a subject that can't stand
        in a header, MailUndelivered when the server does not take the mail.
        """
        ...


def mail_for(settings: Settings, clock: Clock | None = None) -> Mail:
    """Return the mail of these settings: SMTP, or with ``smtp_port`` 0 a folder in ``data_dir``."""
    if settings.smtp_port == 0:
        return FolderMail(settings.data_dir / "mail", settings.mail_from, clock)
    return SmtpMail(
        settings.smtp_host,
        settings.smtp_port,
        settings.mail_from,
        tls=settings.smtp_tls,
        user=settings.smtp_user,
        password=settings.smtp_password.get_secret_value() if settings.smtp_password else None,
        clock=clock,
    )


def compose(
    *,
    sender: Address,
    to: str,
    subject: str,
    text: str,
    html: str | None,
    message_id: str | None,
    clock: Clock,
    attachments: Sequence[Attachment] = (),
) -> EmailMessage:
    """Build an RFC 5322 message; raise ValidationFailed for what can't stand in its headers."""
    if not subject.strip() or _CONTROL.search(subject):
        raise ValidationFailed(errors=[{"field": "subject", "message": "Write one line of text."}])
    message = EmailMessage(policy=SMTP)
    message["From"] = sender
    message["To"] = address(to)
    message["Subject"] = subject
    message["Date"] = format_datetime(clock.now())
    message["Message-ID"] = f"<{_local_id(message_id)}@{sender.domain}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: out-of-office replies stay away
    message.set_content(text, cte="quoted-printable" if not text.isascii() else None)
    if html is not None:
        message.add_alternative(html, subtype="html")
    for file in attachments:
        kind, _, subtype = file.media_type.partition("/")
        message.add_attachment(file.content, maintype=kind, subtype=subtype, filename=file.name)
    if attachments:
        # The same mail is the same text: its boundary, else drawn by chance, comes from the occasion.
        message.set_boundary(hashlib.sha256(str(message["Message-ID"]).encode()).hexdigest()[:32])
    return message


def address(text: str, field: str = "to") -> Address:
    """Return one bare address such as ``name@example.in``; raise ValidationFailed for anything else.

    A domain in another script goes out in its ASCII form; a name before the @ must be ASCII.
    """
    name, _, domain = text.strip().rpartition("@")
    try:
        if _CONTROL.search(text) or not name or not name.isascii():
            raise ValueError("not one line of ASCII before the @")
        parsed = Address(addr_spec=f"{name}@{domain.encode('idna').decode('ascii')}")
    except (ValueError, IndexError, HeaderParseError) as error:
        raise ValidationFailed(
            errors=[{"field": field, "message": "Give one e-mail address such as name@example.in."}]
        ) from error
    return parsed


def sender_of(text: str) -> Address:
    """Return the sender that ``Name <name@example.in>`` or a bare address stands for."""
    name, bare = parseaddr(text)
    found = address(bare, "mail_from")
    return Address(name, found.username, found.domain)


def _local_id(message_id: str | None) -> str:
    """Return what stands before the @ of a Message-ID; an id with other characters is hashed."""
    if message_id is None:
        return str(new_id())
    if _PLAIN_ID.fullmatch(message_id) and len(message_id) <= 120:
        return message_id
    return hashlib.sha256(message_id.encode()).hexdigest()


class SmtpMail:
    """Mail through an SMTP server; each mail opens its own connection in a thread."""

    def __init__(
        self,
        host: str,
        port: int,
        sender: str,
        *,
        tls: Literal["none", "starttls", "implicit"] = "none",
        user: str | None = None,
        password: str | None = None,
        clock: Clock | None = None,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._user, self._password = user, password
        self._sender, self._clock = sender_of(sender), clock or SystemClock()
        self._trust = trust

    async def send(
        self,
        to: str,
        subject: str,
        text: str,
        html: str | None = None,
        message_id: str | None = None,
        attachments: Sequence[Attachment] = (),
    ) -> None:
        message = compose(
            sender=self._sender,
            to=to,
            subject=subject,
            text=text,
            html=html,
            message_id=message_id,
            clock=self._clock,
            attachments=attachments,
        )
        try:
            await asyncio.to_thread(self._deliver, message)
        except (smtplib.SMTPException, OSError) as error:
            raise MailUndelivered(f"{self._host}:{self._port} did not take the mail: {error}") from error

    def _deliver(self, message: EmailMessage) -> None:
        with self._connect() as server:
            if self._tls == "starttls":
                server.starttls(context=self._trust or ssl.create_default_context())
            if self._user is not None:
                server.login(self._user, self._password or "")
            server.send_message(message)

    def _connect(self) -> smtplib.SMTP:
        me = self._sender.domain  # given, because looking up our own name can take many seconds
        if self._tls == "implicit":
            trust = self._trust or ssl.create_default_context()
            return smtplib.SMTP_SSL(self._host, self._port, me, timeout=_TIMEOUT_SECONDS, context=trust)
        return smtplib.SMTP(self._host, self._port, me, timeout=_TIMEOUT_SECONDS)


class FolderMail:
    """Mail kept as .eml files, one a Message-ID: a mail sent again replaces itself."""

    def __init__(self, folder: Path, sender: str, clock: Clock | None = None) -> None:
        self._folder, self._sender, self._clock = folder, sender_of(sender), clock or SystemClock()

    async def send(
        self,
        to: str,
        subject: str,
        text: str,
        html: str | None = None,
        message_id: str | None = None,
        attachments: Sequence[Attachment] = (),
    ) -> None:
        message = compose(
            sender=self._sender,
            to=to,
            subject=subject,
            text=text,
            html=html,
            message_id=message_id,
            clock=self._clock,
            attachments=attachments,
        )
        await asyncio.to_thread(self._keep, message)

    def _keep(self, message: EmailMessage) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = message["Message-ID"].strip("<>").rpartition("@")[0]
        fresh = self._folder / f".{name}.{os.getpid()}"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(message.as_bytes())
        fresh.replace(self._folder / f"{name}.eml")

"""A mail server that delivers nothing: it keeps what it is given, for tests and rehearsals."""

from __future__ import annotations

import asyncio
import ssl
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any, Literal

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


class SmtpCatcher:
    """Listens on a loopback port of its own while used as ``async with``; caught mails are in ``messages``.

    ``refuse`` is the reply to every message instead of taking it, such as ``451 Come back later``.
    """

    def __init__(
        self,
        *,
        tls: Literal["none", "starttls", "implicit"] = "none",
        certificate: ssl.SSLContext | None = None,
        login: tuple[str, str] | None = None,
        refuse: str | None = None,
    ) -> None:
        self.messages: list[EmailMessage] = []
        self.port = 0
        self.refuse = refuse
        self._tls, self._certificate, self._login = tls, certificate, login
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> SmtpCatcher:
        self._server = await asyncio.get_running_loop().create_server(
            self._session, "127.0.0.1", 0, ssl=self._certificate if self._tls == "implicit" else None
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: Any) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    def _session(self) -> SMTP:
        starttls = self._tls == "starttls"
        return SMTP(
            self,
            hostname="catcher.localhost",
            tls_context=self._certificate if starttls else None,
            require_starttls=starttls,
            authenticator=self._authenticate,
            auth_required=self._login is not None and starttls,
            auth_require_tls=starttls,  # aiosmtpd means STARTTLS and knows no other
        )

    def _authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        given = (data.login.decode(), data.password.decode()) if isinstance(data, LoginPassword) else None
        return AuthResult(success=given == self._login, handled=False)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self._login is not None and not session.authenticated:
            return "530 5.7.0 Sign in first"
        if self.refuse is not None:
            return self.refuse
        content = envelope.content
        assert isinstance(content, bytes)
        self.messages.append(message_from_bytes(content, policy=default))
        return "250 Caught"

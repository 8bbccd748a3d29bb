"""TLS at the gateway's own port: a certificate and its key from two files, read again when they change.

New connections are met with the newest pair that was good; those that are open go on as they are. A pair
that can't be used, because only one of its files has been replaced yet, say, changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from haat.settings import Settings

log = logging.getLogger(__name__)

LOOK_SECONDS = 3.0
EXPIRES_SOON = timedelta(days=14)
HANDSHAKE_SECONDS = 10.0


class UnusableCertificate(Exception):
    """The pair can't be used; the sentence says why."""


class Certificate:
    """``context`` is what a server is given, for good; ``expires`` is the end of the certificate in use."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raise UnusableCertificate."""
        self._files = (certificate, key)
        self._seen = self._look()
        self.context, self.expires = self._read()
        self._present = self.context
        self.context.sni_callback = self._meet  # also called for clients that name no server
        self._again = asyncio.Event()

    def reload(self) -> None:
        """Read the files at the next opportunity, whether they have changed or not."""
        self._seen = ()
        self._again.set()

    async def watch(self) -> None:
        """Read the files again whenever they change, until cancelled."""
        while True:
            self._again.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._again.wait(), LOOK_SECONDS)
            if (seen := self._look()) != self._seen:
                self._seen = seen
                self.renew()

    def renew(self) -> bool:
        """Go over to what the files hold now; return False when that is unusable and the old pair stays."""
        try:
            self._present, self.expires = self._read()
        except UnusableCertificate as error:
            log.error("the new certificate is not taken, the old one goes on: %s", error)
            return False
        log.info("new connections get the certificate that is good until %s", self.expires.isoformat())
        return True

    def expires_soon(self, now: datetime) -> bool:
        return self.expires - now < EXPIRES_SOON

    def _meet(self, connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._present

    def _look(self) -> tuple[tuple[int, int, int], ...]:
        """Return what tells a file from the one that was there before."""
        with contextlib.suppress(OSError):
            return tuple((s.st_mtime_ns, s.st_ino, s.st_size) for s in (file.stat() for file in self._files))
        return ()

    def _read(self) -> tuple[ssl.SSLContext, datetime]:
        certificate, key = self._files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.options |= ssl.OP_NO_RENEGOTIATION
        try:
            context.load_cert_chain(certificate, key, password=_no_password)
            expires = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise UnusableCertificate(f"{certificate} with {key}: {error}") from error
        if expires <= datetime.now(UTC):
            raise UnusableCertificate(f"{certificate} expired on {expires.isoformat()}")
        return context, expires


def _no_password() -> bytes:
    raise ValueError("the key is encrypted: leave it without a passphrase, readable for its owner alone")


def certificate_of(settings: Settings) -> Certificate | None:
    """Return the certificate that the settings name, if any; raise UnusableCertificate."""
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise UnusableCertificate("HAAT_TLS_CERTIFICATE and HAAT_TLS_KEY belong together: set both or neither")
    return Certificate(certificate, key)

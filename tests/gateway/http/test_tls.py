"""TLS at the gateway's own port: met, renewed under open connections, and a bad pair refused."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.rig import Client, Market
from haat.gateway.http import tls
from haat.gateway.http.tls import Certificate, UnusableCertificate, certificate_of
from haat.gateway.workers.place import open_listeners
from haat.settings import Settings

A_YEAR = timedelta(days=365)


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = _signed("Test authority", self.key, self.key, "Test authority", A_YEAR, is_authority=True)

    def issue(self, lasts: timedelta = A_YEAR) -> tuple[bytes, bytes]:
        """Return a certificate for this machine, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _signed("127.0.0.1", key, self.key, "Test authority", lasts, is_authority=False)
        return (
            certificate.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )

    def client(self) -> ssl.SSLContext:
        """Return a context that trusts nobody else."""
        return ssl.create_default_context(
            cadata=self.certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")
        )


def _signed(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    issuer: str,
    lasts: timedelta,
    *,
    is_authority: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 2 * A_YEAR)
        .not_valid_after(now + lasts)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if is_authority:
        builder = builder.add_extension(
            x509.KeyUsage(
                digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
                key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )  # fmt: skip
    else:
        addresses = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        builder = builder.add_extension(addresses, critical=False)
    return builder.sign(signer, hashes.SHA256())


class Secured(NamedTuple):
    """A gateway's encrypted port, and the files its certificate comes from."""

    market: Market
    authority: Authority
    certificate: Certificate
    folder: Path
    port: int

    def put(self, certificate: bytes, key: bytes) -> None:
        put(self.folder, certificate, key)

    async def connect(self, context: ssl.SSLContext | None = None) -> Client:
        return await Client.connect(self.port, ssl=context or self.authority.client())

    async def serial(self, client: Client) -> int:
        met: ssl.SSLObject = client.writer.get_extra_info("ssl_object")
        return x509.load_der_x509_certificate(met.getpeercert(binary_form=True) or b"").serial_number


def put(folder: Path, certificate: bytes, key: bytes) -> None:
    (folder / "cert.pem").write_bytes(certificate)
    (folder / "key.pem").write_bytes(key)


Secure = Callable[..., Awaitable[Secured]]


@pytest.fixture
async def secure(market: Market, tmp_path: Path) -> AsyncIterator[Secure]:
    servers: list[asyncio.Server] = []

    async def make(lasts: timedelta = A_YEAR) -> Secured:
        authority = Authority()
        put(tmp_path, *authority.issue(lasts))
        certificate = Certificate(tmp_path / "cert.pem", tmp_path / "key.pem")
        market.gateway.certificate = certificate
        [listener] = open_listeners("127.0.0.1", 0, 1)
        port = listener.getsockname()[1]
        servers.append(await market.gateway.accept(listener))
        return Secured(market, authority, certificate, tmp_path, port)

    yield make
    for server in servers:
        server.close()


async def call(client: Client, market: Market) -> int:
    await client.send(market.raw(body=b"{}"))
    response = await client.receive()
    assert response is not None
    return response.status


async def test_calls_are_made_over_tls_and_metered(secure: Secure) -> None:
    secured = await secure()
    client = await secured.connect()
    met = client.writer.get_extra_info("ssl_object")
    assert await call(client, secured.market) == 200
    assert met.version() in ("TLSv1.2", "TLSv1.3")
    client.close()
    event = await secured.market.settled_event()
    assert event.status == 200


async def test_only_http_1_1_is_agreed_on_and_nothing_older_than_tls_1_2(secure: Secure) -> None:
    secured = await secure()
    modern = secured.authority.client()
    modern.set_alpn_protocols(["h2", "http/1.1"])
    client = await secured.connect(modern)
    assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
    client.close()
    assert secured.certificate.context.minimum_version is ssl.TLSVersion.TLSv1_2


async def test_a_renewed_certificate_meets_new_connections_and_open_ones_go_on(
    secure: Secure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "LOOK_SECONDS", 0.02)
    secured = await secure()
    watching = asyncio.create_task(secured.certificate.watch())
    old = await secured.connect()
    first, before = await secured.serial(old), secured.certificate.expires
    secured.put(*secured.authority.issue(2 * A_YEAR))
    await secured.market.until(lambda: secured.certificate.expires != before)
    fresh = await secured.connect()
    assert await secured.serial(fresh) != first
    assert await call(old, secured.market) == 200
    assert await call(fresh, secured.market) == 200
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    old.close()
    fresh.close()


async def test_a_pair_that_does_not_fit_is_refused_and_the_old_one_goes_on(
    secure: Secure, caplog: pytest.LogCaptureFixture
) -> None:
    secured = await secure()
    one, other = secured.authority.issue(), secured.authority.issue()
    for certificate, key in ((one[0], other[1]), (b"nothing", one[1]), secured.authority.issue(timedelta(days=-1))):
        secured.put(certificate, key)
        caplog.clear()
        assert not secured.certificate.renew()
        assert "the old one goes on" in caplog.text
        client = await secured.connect()
        assert await call(client, secured.market) == 200
        client.close()
    secured.put(*one)
    assert secured.certificate.renew()


async def test_health_warns_two_weeks_before_the_certificate_ends(secure: Secure) -> None:
    secured = await secure(timedelta(days=13))
    client = await secured.connect()
    await client.send(b"GET /health HTTP/1.1\r\nHost: g\r\n\r\n")
    response = await client.receive()
    assert response is not None
    report = response.json()
    assert report["status"] == report["components"]["certificate"]["status"] == "degraded"
    client.close()


async def test_plain_http_at_the_encrypted_port_gets_no_answer(secure: Secure) -> None:
    secured = await secure()
    client = await Client.connect(secured.port)
    await client.send(secured.market.raw())
    assert await client.receive() is None
    client.close()
    assert secured.market.provider.requests == []


def test_a_certificate_needs_its_key_and_the_key_no_passphrase(tmp_path: Path) -> None:
    put(tmp_path, *Authority().issue())
    with pytest.raises(UnusableCertificate, match="belong together"):
        certificate_of(Settings(tls_certificate=tmp_path / "cert.pem"))
    sealed = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"passphrase"),
    )
    (tmp_path / "key.pem").write_bytes(sealed)
    with pytest.raises(UnusableCertificate, match="passphrase"):
        Certificate(tmp_path / "cert.pem", tmp_path / "key.pem")
    assert certificate_of(Settings()) is None

"""Mail: one contract for SMTP and for the folder, headers nobody can break into, encrypted transports."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from haat.infra.mail import Attachment, FolderMail, Mail, SmtpMail, address, compose, mail_for, sender_of
from haat.infra.smtp_catcher import SmtpCatcher
from haat.kernel.clock import SetClock
from haat.kernel.errors import MailUndelivered, ValidationFailed
from haat.settings import Settings

SENDER = "Haat बाज़ार <haat@market.example>"
CLOCK = SetClock(datetime(2026, 11, 21, 6, 30, tzinfo=UTC))


class Post(NamedTuple):
    """A mail adapter and what arrived through it."""

    mail: Mail
    arrived: Callable[[], list[EmailMessage]]


@pytest.fixture(params=["smtp", "folder"])
async def post(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Post]:
    if request.param == "folder":
        folder = tmp_path / "mail"
        yield Post(
            FolderMail(folder, SENDER, CLOCK),
            lambda: [message_from_bytes(file.read_bytes(), policy=default) for file in sorted(folder.glob("*.eml"))],
        )
        return
    async with SmtpCatcher() as catcher:
        yield Post(SmtpMail("127.0.0.1", catcher.port, SENDER, clock=CLOCK), lambda: catcher.messages)


async def test_a_mail_arrives_with_its_headers_and_text(post: Post) -> None:
    text = "नमस्ते अनु,\n\n.a line that begins with a dot\nDecide here: https://market.example/" + "x" * 1200 + "\n"
    await post.mail.send("anu@example.in", "Bhāṣā has registered — decide", text, message_id="0193.anu.at.example.in")
    (mail,) = post.arrived()
    assert str(mail["From"]) == SENDER
    assert str(mail["To"]) == "anu@example.in"
    assert str(mail["Subject"]) == "Bhāṣā has registered — decide"
    assert mail["Message-ID"] == "<0193.anu.at.example.in@market.example>"
    assert mail["Date"].datetime == CLOCK.now()
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail.get_content().replace("\r\n", "\n") == text


async def test_a_mail_with_html_carries_the_text_beside_it(post: Post) -> None:
    await post.mail.send("anu@example.in", "Invoice", "plain", html="<p>rich</p>")
    (mail,) = post.arrived()
    plain, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert plain is not None and plain.get_content().strip() == "plain"
    assert html is not None and html.get_content().strip() == "<p>rich</p>"


async def test_files_go_with_a_mail_and_the_same_mail_is_the_same_bytes(post: Post) -> None:
    page = Attachment("HT-2627-000042.pdf", "application/pdf", bytes(range(256)) * 40)
    for _ in range(2):
        await post.mail.send("anu@example.in", "बीजक", "संलग्न है।\n", message_id="once", attachments=[page])
    arrived = post.arrived()
    assert len({bytes(mail) for mail in arrived}) == 1
    (file,) = arrived[0].iter_attachments()
    assert (file.get_filename(), file.get_content_type()) == (page.name, page.media_type)
    assert file.get_content() == page.content
    text = arrived[0].get_body(("plain",))
    assert text is not None and text.get_content().strip() == "संलग्न है।"


async def test_the_same_occasion_has_the_same_message_id_and_others_have_their_own(post: Post) -> None:
    odd = "event/1 <anu@example.in>\r\nBcc: eve@example.in"
    for message_id in (odd, odd, None, None):
        await post.mail.send("anu@example.in", "Once", "text", message_id=message_id)
    ids = [str(mail["Message-ID"]) for mail in post.arrived()]
    assert len(set(ids)) == 3
    assert all(identifier.endswith("@market.example>") and "Bcc" not in identifier for identifier in ids)


async def test_an_address_in_another_script_goes_to_its_ascii_domain(post: Post) -> None:
    await post.mail.send("anu@बाज़ार.भारत", "Hello", "text")
    (mail,) = post.arrived()
    assert str(mail["To"]).startswith("anu@xn--")


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "anu",
        "@example.in",
        "anu@",
        "a b@example.in",
        "anu@example.in, eve@example.in",
        "Anu <anu@example.in>",
        "anu@example.in\r\nBcc: eve@example.in",
        "anu\n@example.in",
        "anu@exa\x00mple.in",
        "anu@-.in..",
        "anu@" + "x" * 64 + ".in",
        "अनु@example.in",
    ],
)
async def test_what_is_not_one_plain_address_is_refused(post: Post, bad: str) -> None:
    with pytest.raises(ValidationFailed):
        await post.mail.send(bad, "Hello", "text")
    assert post.arrived() == []


@pytest.mark.parametrize("bad", ["", "  ", "Hello\r\nBcc: eve@example.in", "Hello\nthere", "Hello\x00", "Hello\u2028x"])
async def test_a_subject_of_several_lines_is_refused(post: Post, bad: str) -> None:
    with pytest.raises(ValidationFailed):
        await post.mail.send("anu@example.in", bad, "text")
    assert post.arrived() == []


@given(to=st.text(max_size=40), subject=st.text(max_size=60), message_id=st.none() | st.text(max_size=60))
def test_no_text_breaks_into_the_headers(to: str, subject: str, message_id: str | None) -> None:
    try:
        message = compose(
            sender=sender_of(SENDER),
            to=to,
            subject=subject,
            text="the body",
            html=None,
            message_id=message_id,
            clock=CLOCK,
        )
    except ValidationFailed:
        return
    read = message_from_bytes(message.as_bytes(), policy=default)
    expected = {"From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted"}
    assert set(read.keys()) - {"Content-Type", "Content-Transfer-Encoding", "MIME-Version"} == expected
    assert read.get_content().strip() == "the body"
    assert len(read["To"].addresses) == 1


def test_a_sender_is_a_bare_address_or_one_with_a_name() -> None:
    assert str(sender_of("haat@localhost")) == "haat@localhost"
    assert sender_of("Haat <haat@localhost>").display_name == "Haat"
    with pytest.raises(ValidationFailed):
        sender_of("nobody")


def test_an_address_keeps_its_plus_and_dots() -> None:
    assert address("anu.k+haat@mail.example.in").addr_spec == "anu.k+haat@mail.example.in"


def test_kept_mails_are_for_the_owners_eyes_only(tmp_path: Path) -> None:
    mail = FolderMail(tmp_path / "mail", SENDER, CLOCK)
    mail._keep(
        compose(
            sender=sender_of(SENDER),
            to="anu@example.in",
            subject="Hello",
            text="text",
            html=None,
            message_id="1",
            clock=CLOCK,
        )
    )
    assert (tmp_path / "mail").stat().st_mode & 0o777 == 0o700
    assert [file.name for file in (tmp_path / "mail").iterdir()] == ["1.eml"]
    assert (tmp_path / "mail" / "1.eml").stat().st_mode & 0o777 == 0o600


# --- SMTP's own ---------------------------------------------------------------------------------


class Certificate(NamedTuple):
    server: ssl.SSLContext
    trust: ssl.SSLContext


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for 127.0.0.1 that signs itself, and a client that trusts it alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "catcher.localhost")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(file)
    return Certificate(server, ssl.create_default_context(cafile=str(file)))


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_mail_travels_encrypted_and_signed_in(tls: str, certificate: Certificate) -> None:
    async with SmtpCatcher(tls=tls, certificate=certificate.server, login=("haat", "geheim")) as catcher:  # type: ignore[arg-type]  # parametrised text
        mail = SmtpMail(
            "127.0.0.1",
            catcher.port,
            SENDER,
            tls=tls,
            user="haat",
            password="geheim",
            trust=certificate.trust,  # type: ignore[arg-type]  # parametrised text
        )
        await mail.send("anu@example.in", "Hello", "text")
    assert [str(message["Subject"]) for message in catcher.messages] == ["Hello"]


async def test_a_server_with_an_unknown_certificate_gets_no_mail(certificate: Certificate) -> None:
    async with SmtpCatcher(tls="starttls", certificate=certificate.server) as catcher:
        with pytest.raises(MailUndelivered, match="certificate"):
            await SmtpMail("127.0.0.1", catcher.port, SENDER, tls="starttls").send("anu@example.in", "Hello", "text")
    assert catcher.messages == []


async def test_a_wrong_password_is_an_undelivered_mail(certificate: Certificate) -> None:
    async with SmtpCatcher(tls="starttls", certificate=certificate.server, login=("haat", "geheim")) as catcher:
        mail = SmtpMail(
            "127.0.0.1", catcher.port, SENDER, tls="starttls", user="haat", password="falsch", trust=certificate.trust
        )
        with pytest.raises(MailUndelivered):
            await mail.send("anu@example.in", "Hello", "text")
    assert catcher.messages == []


async def test_a_refused_mail_is_undelivered_and_says_what_the_server_said() -> None:
    async with SmtpCatcher(refuse="451 Come back later") as catcher:
        with pytest.raises(MailUndelivered, match="Come back later"):
            await SmtpMail("127.0.0.1", catcher.port, SENDER).send("anu@example.in", "Hello", "text")


async def test_no_server_at_all_is_an_undelivered_mail(unused_tcp_port: int) -> None:
    with pytest.raises(MailUndelivered):
        await SmtpMail("127.0.0.1", unused_tcp_port, SENDER).send("anu@example.in", "Hello", "text")


async def test_the_settings_choose_between_the_folder_and_a_server(tmp_path: Path) -> None:
    mail = mail_for(Settings(data_dir=tmp_path, smtp_port=0))
    await mail.send("anu@example.in", "Hello", "text", message_id="1")
    assert (tmp_path / "mail" / "1.eml").is_file()
    async with SmtpCatcher() as catcher:
        settings = Settings(data_dir=tmp_path, smtp_port=catcher.port, smtp_password=SecretStr("unused without a user"))
        await mail_for(settings).send("anu@example.in", "Hello", "text")
    assert len(catcher.messages) == 1

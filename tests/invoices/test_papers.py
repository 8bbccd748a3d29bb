"""Papers: the language an organisation chose, its files, the mail that brings them, and nothing for strangers."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from bazaar import Bazaar, consumer
from frontage import app_on
from haat.app import Platform, build_platform
from haat.cli.main import haat
from haat.control.context import current_actor
from haat.infra import events
from haat.infra.keyring import Keyring
from haat.infra.mail import mail_for
from haat.infra.postgres import PLATFORM_SCOPE, Database
from haat.invoices.credits import CreditItem, CreditNote
from haat.invoices.mails import HANDLERS
from haat.invoices.service import Invoice, Invoices
from haat.kernel.clock import SetClock
from haat.kernel.errors import FontMissing, NotFound, PermissionDenied, ValidationFailed
from haat.kernel.permissions import PLATFORM, Actor, Role
from haat.settings import Settings

from .papers import attached_to, links_of, says

MONTH = "2026-11"


@pytest.fixture
def platform(database: Any, clock: SetClock, keyring: Keyring, tmp_path: Path) -> Platform:
    settings = Settings(data_dir=tmp_path, invoice_language="hi", public_url="https://market.example")
    return build_platform(settings, database.app, database.service, keyring, clock, mail_for(settings, clock))


@pytest.fixture
async def asha(platform: Platform) -> Actor:
    return await platform.identity.create_organisation(
        email="asha@sabzi.example",
        password="a street with many stalls",
        name="Asha",
        organisation="Sabzi Mandi",
        kind="consumer",
        state_code="29",
        address="4 Bazaar Road",
    )


@pytest.fixture
async def invoice(platform: Platform, asha: Actor, database: Any, clock: SetClock) -> Invoice:
    bazaar = Bazaar(database.service, clock)
    assert asha.org_id is not None
    subscription = await bazaar.subscribe(asha.org_id, await bazaar.service(price="0.25"))
    await bazaar.take([bazaar.event(subscription, "7") for _ in range(3)])
    clock.advance(seconds=(datetime(2026, 12, 1, 12, tzinfo=UTC) - clock.now()).total_seconds())
    issued = await platform.invoices.issue(PLATFORM, MONTH, asha.org_id)
    assert issued is not None
    return issued


@pytest.fixture
async def note(platform: Platform, invoice: Invoice) -> CreditNote:
    (line,) = await platform.invoices.lines(PLATFORM, invoice.id)
    item = CreditItem(line["id"], Decimal("1.00"), "platform")
    return await platform.invoices.credit(PLATFORM, [item], key="sorry", reason="goodwill")


@pytest.fixture
async def client(platform: Platform, asha: Actor) -> AsyncIterator[httpx.AsyncClient]:
    app = app_on(platform)
    app.dependency_overrides[current_actor] = lambda: asha
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://haat.test/api/v1") as client:
        yield client


async def test_papers_are_in_the_language_that_the_organisation_chose(
    platform: Platform, asha: Actor, invoice: Invoice
) -> None:
    assert str(await platform.papers.language(asha)) == "hi-Deva"
    assert says((await platform.papers.pdf(asha, invoice.id)).content, "कर बीजक")
    assert str(await platform.papers.choose_language(asha, "ta")) == "ta-Taml"
    assert says((await platform.papers.pdf(PLATFORM, invoice.id)).content, "வரி விலைப்பட்டியல்")
    assert says((await platform.papers.pdf(asha, invoice.id, "bn-IN")).content, "কর চালান")


async def test_choosing_the_same_language_again_is_no_event(platform: Platform, asha: Actor) -> None:
    for language in ("ta", "ta-Taml", "ur", "ur", "hi"):
        await platform.papers.choose_language(asha, language)
    async with platform.db.transaction(PLATFORM_SCOPE) as connection:
        chosen = await events.read_stream(connection, f"papers/{asha.org_id}")
    assert [event.data["language"] for event in chosen] == ["ta-Taml", "ur-Arab", "hi-Deva"]
    assert str(await platform.papers.language(asha)) == "hi-Deva"


async def test_a_language_that_is_none_of_ours_is_refused_with_the_field(
    platform: Platform, asha: Actor, invoice: Invoice
) -> None:
    for attempt in (platform.papers.choose_language(asha, "xx"), platform.papers.pdf(asha, invoice.id, "fr")):
        with pytest.raises(ValidationFailed) as refused:
            await attempt
        assert refused.value.extensions["errors"][0]["field"] == "language"


async def test_a_partners_developer_may_not_choose_for_the_organisation(platform: Platform, asha: Actor) -> None:
    developer = Actor(asha.user_id, asha.org_id, Role.PARTNER_DEVELOPER)
    with pytest.raises(PermissionDenied):
        await platform.papers.choose_language(developer, "ta")


async def test_the_files_are_what_was_issued(client: httpx.AsyncClient, invoice: Invoice) -> None:
    path = f"/invoices/{invoice.id}"
    as_json = await client.get(f"{path}.json")
    assert hashlib.sha256(as_json.content).digest() == invoice.content_hash
    assert as_json.headers["content-disposition"] == 'attachment; filename="HT-2627-000001.json"'
    pdf = await client.get(f"{path}.pdf", params={"language": "en"})
    assert pdf.headers["content-type"] == "application/pdf" and says(
        pdf.content, "Tax invoice", invoice.content_hash.hex()
    )
    assert attached_to(pdf.content) == {"HT-2627-000001.json": as_json.content}
    plain, marked = await client.get(f"{path}.csv"), await client.get(f"{path}.csv", params={"bom": True})
    assert plain.headers["content-type"] == "text/csv; charset=utf-8"
    assert marked.content == b"\xef\xbb\xbf" + plain.content and b",5.25\r\n" in plain.content


async def test_the_language_is_chosen_and_read_over_the_api(client: httpx.AsyncClient, invoice: Invoice) -> None:
    assert (await client.get("/invoices/language")).json() == {"language": "hi-Deva"}
    assert (await client.put("/invoices/language", json={"language": "ur"})).json() == {"language": "ur-Arab"}
    assert (await client.get("/invoices/language")).json() == {"language": "ur-Arab"}
    for answer in (
        await client.put("/invoices/language", json={"language": "xx"}),
        await client.get(f"/invoices/{invoice.id}.pdf", params={"language": "xx"}),
        await client.get("/invoices/none.pdf"),
    ):
        assert answer.status_code == 422 and answer.json()["code"] == "VALIDATION_FAILED"


async def test_each_line_on_paper_opens_the_list_of_its_calls(
    platform: Platform, asha: Actor, invoice: Invoice, note: CreditNote
) -> None:
    (line,) = await platform.invoices.lines(asha, invoice.id)
    address = f"https://market.example/account/invoices/{invoice.id}/lines/{line['id']}"
    assert links_of((await platform.papers.pdf(asha, invoice.id)).content) == [address]
    assert links_of((await platform.papers.pdf(asha, note.id, of="credit_note")).content) == [address]


async def test_a_credit_note_is_had_in_each_form(client: httpx.AsyncClient, note: CreditNote) -> None:
    path = f"/credit-notes/{note.id}"
    as_json = await client.get(f"{path}.json")
    assert hashlib.sha256(as_json.content).digest() == note.content_hash
    pdf = await client.get(f"{path}.pdf", params={"language": "en"})
    assert says(pdf.content, "Credit note", "HTC/2627/000001", "Against invoice HT/2627/000001", "₹1.00")
    assert attached_to(pdf.content) == {"HTC-2627-000001.json": as_json.content}
    assert b",1.00\r\n" in (await client.get(f"{path}.csv")).content


async def test_a_credit_note_is_mailed_once_and_leads_to_its_invoice(
    platform: Platform, invoice: Invoice, note: CreditNote, tmp_path: Path
) -> None:
    (mail,) = await _mails(platform, f"credit-note/{note.id}", tmp_path)
    assert "HTC/2627/000001" in mail["Subject"] and "₹1.18" in mail["Subject"]
    body = mail.get_body(("plain",))
    assert body is not None and f"https://market.example/account/invoices/{invoice.id}" in body.get_content()
    (page,) = mail.iter_attachments()
    assert page.get_filename() == "HTC-2627-000001.pdf"
    assert len(await _mails(platform, f"credit-note/{note.id}", tmp_path)) == 1


async def test_a_stranger_gets_no_file(
    platform: Platform, invoice: Invoice, note: CreditNote, database: Any, clock: SetClock
) -> None:
    stranger = consumer(await Bazaar(database.service, clock).organisation("Other"))
    for attempt in (
        platform.papers.pdf(stranger, invoice.id),
        platform.papers.csv(stranger, invoice.id),
        platform.papers.json(stranger, invoice.id),
        platform.papers.pdf(stranger, note.id, of="credit_note"),
        platform.papers.json(stranger, note.id, of="credit_note"),
        platform.papers.language(stranger, invoice.org_id),
    ):
        with pytest.raises(NotFound):
            await attempt


async def test_an_issued_invoice_is_mailed_with_its_page_in_the_organisations_language(
    platform: Platform, asha: Actor, invoice: Invoice, tmp_path: Path
) -> None:
    await platform.papers.choose_language(asha, "ur")
    first = await _mails(platform, f"invoice/{invoice.id}", tmp_path)
    (mail,) = first
    assert mail["To"] == "asha@sabzi.example"
    assert "ٹیکس انوائس" in mail["Subject"] and "HT/2627/000001" in mail["Subject"] and "₹6.20" in mail["Subject"]
    body = mail.get_body(("plain",))
    assert body is not None
    text = body.get_content()
    assert "صرف چھے روپے بیس پیسے" in text and f"https://market.example/account/invoices/{invoice.id}" in text
    (page,) = mail.iter_attachments()
    assert page.get_filename() == "HT-2627-000001.pdf" and page.get_content_type() == "application/pdf"
    assert page.get_content() == (await platform.papers.pdf(asha, invoice.id)).content
    assert [bytes(one) for one in await _mails(platform, f"invoice/{invoice.id}", tmp_path)] == [
        bytes(one) for one in first
    ]


async def test_an_invoice_of_an_organisation_without_members_is_mailed_to_nobody(
    platform: Platform, database: Any, clock: SetClock, tmp_path: Path
) -> None:
    bazaar = Bazaar(database.service, clock)
    subscription = await bazaar.subscribe(await bazaar.organisation(), await bazaar.service())
    await bazaar.take([bazaar.event(subscription)])
    clock.advance(seconds=(datetime(2026, 12, 1, 12, tzinfo=UTC) - clock.now()).total_seconds())
    invoice = await platform.invoices.issue(PLATFORM, MONTH, subscription.org)
    assert invoice is not None and await _mails(platform, f"invoice/{invoice.id}", tmp_path) == []


async def test_a_mail_waits_for_a_missing_font(
    database: Any, clock: SetClock, keyring: Keyring, invoice: Invoice, tmp_path: Path
) -> None:
    settings = Settings(data_dir=tmp_path, fonts_dir=tmp_path)
    bare = build_platform(settings, database.app, database.service, keyring, clock, mail_for(settings, clock))
    with pytest.raises(FontMissing, match="make fonts"):
        await _mails(bare, f"invoice/{invoice.id}", tmp_path)
    assert _arrived(tmp_path) == []


def test_a_language_of_the_settings_that_is_none_of_ours_is_refused() -> None:
    with pytest.raises(ValueError, match="not one of the 23"):
        Settings(invoice_language="klingon")


def test_the_command_writes_each_file(
    cluster: Any, database_name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, invoice_id: str
) -> None:
    monkeypatch.setenv("HAAT_DATA_DIR", str(cluster.settings.data_dir))
    monkeypatch.setenv("HAAT_DATABASE_URL", cluster.dsn("owner", database_name))
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Any:
        return CliRunner().invoke(haat, ["invoice", *words])

    done = run("pdf", invoice_id, "--language", "sat", "--out", "page.pdf")
    assert done.exit_code == 0, done.output
    assert says((tmp_path / "page.pdf").read_bytes(), "ᱴᱮᱠᱥ ᱤᱱᱵᱷᱚᱭᱮᱥ")
    assert run("csv", invoice_id).exit_code == 0 and (tmp_path / "HT-2627-000001.csv").is_file()
    printed = run("json", invoice_id, "--out", "-")
    assert attached_to((tmp_path / "page.pdf").read_bytes()) == {"HT-2627-000001.json": printed.stdout_bytes}
    refused = run("pdf", invoice_id, "--language", "xx")
    assert refused.exit_code == 1 and "Traceback" not in refused.output


@pytest.fixture
def invoice_id(database_name: str, cluster: Any, clock: SetClock) -> str:
    """An invoice made outside any running event loop, as a command finds it."""

    async def issue() -> str:
        async with (
            Database(cluster.dsn("app", database_name)) as app,
            Database(cluster.dsn("service", database_name)) as service,
        ):
            bazaar = Bazaar(service, clock)
            subscription = await bazaar.subscribe(await bazaar.organisation(), await bazaar.service())
            await bazaar.take([bazaar.event(subscription)])
            clock.advance(seconds=(datetime(2026, 12, 1, 12, tzinfo=UTC) - clock.now()).total_seconds())
            issued = await Invoices(app, clock, Settings()).issue(PLATFORM, MONTH, subscription.org)
            assert issued is not None
            return str(issued.id)

    return asyncio.run(issue())


async def _mails(platform: Platform, stream: str, folder: Path) -> list[EmailMessage]:
    """Run what follows the events of an invoice or a note, and return the mails that lie there."""
    async with platform.db.transaction(PLATFORM_SCOPE) as connection:
        happened = await events.read_stream(connection, stream)
    for event in happened:
        for handler in HANDLERS:
            if event.type in handler.types:
                await handler.run(platform, event)
    return _arrived(folder)


def _arrived(folder: Path) -> list[EmailMessage]:
    return [message_from_bytes(file.read_bytes(), policy=default) for file in sorted(folder.glob("mail/*.eml"))]

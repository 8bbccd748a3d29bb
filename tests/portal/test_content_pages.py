"""Long texts on the portal: help and search for readers, announcements, the operator's editor, reports of phrases."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from fastapi import FastAPI
from jinja2 import BaseLoader, ChoiceLoader, DictLoader, Environment

from haat.app import Platform
from haat.bootstrap import ensure_help_pages
from haat.content.translator import Translated
from haat.identity import store as identity_store
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.clock import SetClock
from haat.kernel.errors import UnsupportedLanguage
from haat.kernel.permissions import Actor, Role
from haat.language import ENGLISH, Tag, parse_tag
from haat.portal.announcements import seen_in, with_seen

from .conftest import Browser, faults_of
from .street import DEVELOPER, OPERATOR, PASSWORD

BrowserFor = Callable[[str | None], Awaitable[Browser]]
COLLEAGUE = "second@operator.example"
HINDI = parse_tag("hi")
DESK = "/operator/content"


@pytest.fixture
async def operator(platform: Platform) -> Actor:
    return await platform.identity.create_organisation(
        email=OPERATOR, password=PASSWORD, name="Meera Kulkarni", organisation="Haat Operator", kind="operator"
    )


@pytest.fixture
async def colleague(platform: Platform, operator: Actor) -> Actor:
    """A second member of the operator's."""
    other = await platform.identity.create_organisation(
        email=COLLEAGUE, password=PASSWORD, name="Arif Khan", organisation="Elsewhere", kind="consumer"
    )
    assert other.user_id and operator.org_id and other.org_id
    async with platform.db.transaction(PLATFORM_SCOPE) as connection:
        await connection.execute("DELETE FROM memberships WHERE user_id = %s", (other.user_id,))
        await identity_store.add_membership(
            connection, other.user_id, operator.org_id, Role.PLATFORM_ADMIN, platform.clock.now()
        )
    return Actor(other.user_id, operator.org_id, Role.PLATFORM_ADMIN, "Arif Khan")


async def publish(platform: Platform, operator: Actor, key: str, tag: Tag, title: str, body: str, **page: Any) -> None:
    if page:
        await platform.content.create(operator, key, **page)
    await platform.content.save(operator, key, tag, title, body)
    await platform.content.ask_review(operator, key, tag)
    await platform.content.publish(operator, key, tag)


# --- readers ----------------------------------------------------------------------------------------


async def test_help_is_read_in_the_readers_language_or_said_to_be_in_another(
    platform: Platform, browser_for: BrowserFor
) -> None:
    await ensure_help_pages(platform)
    browser = await browser_for(None)
    for path, promised in (
        ("/help", ["Help", '<a href="/help/first-call">Your first call</a>']),
        ("/help/first-call", ['<article lang="en-IN" dir="ltr">', "<h1>Your first call</h1>", "/hi/help/first-call"]),
        ("/hi/help", ["आपकी पहली कॉल"]),
        ("/hi/help/first-call", ['<article lang="hi-IN" dir="ltr">', "आपकी पहली कॉल"]),
        ("/ur/help/first-call", ['<html lang="ur-IN" dir="rtl"', '<article lang="en-IN" dir="ltr">', "آپ اسے <bdi>"]),
        ("/mai/help/first-call", ['<article lang="hi-IN"', "आपकी पहली कॉल"]),
    ):
        answer = await browser.get(path)
        assert answer.status_code == 200, path
        assert [text for text in promised if text not in answer.text] == [], path
        assert faults_of(answer.text) == [], path
    assert (await browser.get("/help/nothing")).status_code == 404
    assert (await browser.get("/pages/first-call")).status_code == 404


async def test_help_is_searched_in_its_script(platform: Platform, browser_for: BrowserFor) -> None:
    await ensure_help_pages(platform)
    browser = await browser_for(None)
    found = await browser.get("/hi/help", q="जीएसटी GSTIN इनवॉइस")
    assert "कोई" in found.text or "No page has all" in found.text
    found = await browser.get("/hi/help", q="वॉलेट")
    [listed, *_] = re.findall(r'<li lang="hi-IN" dir="ltr"><a href="([^"]+)">', found.text)
    assert listed == "/help/prices-and-invoices" and faults_of(found.text) == []
    strange = await browser.get("/en/help", q="<script>zzz")
    assert "&lt;script&gt;zzz" in strange.text and "<script>zzz" not in strange.text


async def test_nothing_is_on_the_help_shelf_before_it_is_published(browser: Browser) -> None:
    page = await browser.get("/help")
    assert "No help page yet" in page.text and faults_of(page.text) == []


# --- announcements ----------------------------------------------------------------------------------

LINE = '{% include "announcements.html" %}'


@pytest.fixture
def on_every_page(app: FastAPI) -> None:
    """The line of base.html that shows what is announced, put there if it isn't yet."""
    environment: Environment = app.state.portal.environment
    loader = environment.loader
    assert isinstance(loader, BaseLoader)
    source = loader.get_source(environment, "base.html")[0]
    if LINE not in source:
        place = '<main id="matter">\n  <div class="wide">\n'
        assert place in source
        environment.loader = ChoiceLoader(
            [DictLoader({"base.html": source.replace(place, place + LINE + "\n")}), loader]
        )


@pytest.mark.usefixtures("on_every_page")
async def test_an_announcement_is_on_every_page_until_its_reader_puts_it_away(
    platform: Platform, operator: Actor, clock: SetClock, browser_for: BrowserFor
) -> None:
    browser, other = await browser_for(None), await browser_for(None)
    assert "Closed tomorrow" not in (await browser.get("/help")).text
    await publish(
        platform, operator, "closed", ENGLISH, "Closed tomorrow", "See [why](/help).", kind="announcement",
        source=ENGLISH,
    )  # fmt: skip
    await publish(platform, operator, "closed", HINDI, "कल बंद", "[कारण](/help) देखें।")
    clock.advance(seconds=6)
    for path in ("/help", "/sign-in", "/catalog", "/nowhere"):
        page = await browser.get(path)
        assert 'See <a href="/help">why</a>.' in page.text and faults_of(page.text) == [], path
    assert "कल बंद" in (await browser.get("/hi/help")).text
    urdu = (await browser.get("/ur/help")).text
    assert '<div class="prose" lang="en-IN" dir="ltr">' in urdu and "Closed tomorrow" in urdu
    [name] = re.findall(r'name="name" value="([0-9a-f]{8})"', (await browser.get("/en/help")).text)
    away = await browser.send("/announcements/dismiss", page="/help", name=name, back="/help?q=a")
    assert away.url.path == "/help" and "Closed tomorrow" not in away.text
    assert "Closed tomorrow" in (await other.get("/en/help")).text
    await publish(platform, operator, "closed", ENGLISH, "Closed tomorrow, really", "Yes.")
    clock.advance(seconds=6)
    assert "Closed tomorrow, really" in (await browser.get("/en/help")).text  # it says something new
    await platform.content.set_window(operator, "closed", None, clock.now())
    clock.advance(seconds=6)
    assert "really" not in (await other.get("/en/help")).text
    assert "really" in (await other.get("/en/announcements/closed")).text  # its own page stays


@pytest.mark.usefixtures("on_every_page")
async def test_announcements_are_read_once_in_a_few_seconds(
    platform: Platform, operator: Actor, clock: SetClock, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    announced = platform.library.announced

    async def counted() -> Any:
        nonlocal reads
        reads += 1
        return await announced()

    monkeypatch.setattr(type(platform.library), "announced", lambda self: counted())
    for _ in range(5):
        await browser.get("/help")
    assert reads == 1
    clock.advance(seconds=5)
    await browser.get("/help")
    assert reads == 2


def test_what_was_put_away_is_kept_in_a_small_cookie_and_nothing_else_is_read_from_it() -> None:
    cookie = ""
    for number in range(60):
        cookie = with_seen(cookie, f"{number:08x}")
    assert seen_in(cookie) == [f"{number:08x}" for number in range(20, 60)] and len(cookie) < 400
    assert with_seen(cookie, "0000003b") == cookie
    assert seen_in("x.<script>.00000000.&;=.१२३४५६७८") == ["00000000"]
    assert with_seen("", "../../etc") == ""


# --- reports of phrases -------------------------------------------------------------------------------


async def test_a_reader_reports_a_phrase_and_the_operator_closes_it(
    platform: Platform, operator: Actor, browser_for: BrowserFor
) -> None:
    reader, desk = await browser_for(None), await browser_for(OPERATOR)
    form = await reader.get("/hi/words/report", page="/catalog")
    assert 'value="/catalog"' in form.text and faults_of(form.text) == []
    sent = await reader.send("/words/report", page="/words/report", phrase="दाम", better="मूल्य")
    assert sent.status_code == 422 and 'value="दाम"' in sent.text and faults_of(sent.text) == []  # no page is named
    fields = {"phrase": "<b>दाम</b>", "better": "मूल्य"}
    token = await reader.token("/words/report")
    sent = await reader.client.post("/words/report", data={"form_token": token, "page": "/catalog", **fields})
    assert sent.url.query == b"done=reported"
    listed = await desk.get(f"{DESK}/reports")
    assert "&lt;b&gt;दाम&lt;/b&gt;" in listed.text and "हिन्दी" in listed.text and faults_of(listed.text) == []
    [identifier] = re.findall(rf"{DESK}/reports/([0-9a-f-]+)/close", listed.text)
    empty = await desk.send(f"{DESK}/reports/{identifier}/close", page=f"{DESK}/reports")
    assert empty.status_code == 422
    closed = await desk.send(
        f"{DESK}/reports/{identifier}/close", page=f"{DESK}/reports", **{f"note-{identifier}": "Changed it"}
    )
    assert closed.status_code == 200 and "No report here" in closed.text
    history = await desk.get(f"{DESK}/reports", closed="yes")
    assert "Changed it" in history.text and "Meera Kulkarni" in history.text and faults_of(history.text) == []


# --- the operator's desk --------------------------------------------------------------------------------


async def test_only_the_operator_sees_the_desk(platform: Platform, operator: Actor, browser_for: BrowserFor) -> None:
    await platform.identity.create_organisation(
        email=DEVELOPER, password=PASSWORD, name="Dev", organisation="Sabzi", kind="consumer"
    )
    await platform.content.create(operator, "keys", "help", ENGLISH)
    for who, status in ((None, 200), (DEVELOPER, 403)):
        browser = await browser_for(who)
        for path in (DESK, f"{DESK}/reports", f"{DESK}/keys", f"{DESK}/keys/hi"):
            answer = await browser.get(path)
            assert answer.status_code == status, path
            assert who is not None or answer.url.path == "/sign-in"
        if who:
            sent = await browser.send(f"{DESK}/keys/en-Latn/save", title="A", body="a")
            assert sent.status_code == 403
    assert (await platform.content.desk(operator, "keys", ENGLISH)).versions == []


async def test_a_text_is_written_reviewed_sent_back_and_published_without_a_script(
    platform: Platform, operator: Actor, colleague: Actor, browser_for: BrowserFor
) -> None:
    writer, reviewer = await browser_for(OPERATOR), await browser_for(COLLEAGUE)
    made = await writer.send(DESK, page=DESK, kind="help", key="keys", source="en-Latn")
    assert made.url.path == f"{DESK}/keys/en-Latn" and faults_of(made.text) == []
    editor = f"{DESK}/keys/en-Latn"

    async def send(browser: Browser, change: str, **fields: str) -> Any:
        answer = await browser.send(f"{editor}/{change}", page=editor, **fields)
        assert faults_of(answer.text) == []
        return answer

    first = {"title": "Keys", "body": "Make a key.\n\n<b>Keep</b> it secret."}
    kept = await send(writer, "save", revision="0", **first)
    assert "The draft is kept" in kept.text and "&lt;b&gt;Keep&lt;/b&gt;" in kept.text and "<b>Keep" not in kept.text
    late = await send(reviewer, "save", revision="0", title="Mine", body="Mine")
    assert late.status_code == 409 and 'value="Mine"' in late.text  # what was typed is not lost
    sent = await send(writer, "save", revision="1", then="review", **first)
    assert "waits for review" in sent.text and "You saved it last" in sent.text
    assert (await send(writer, "publish", revision="2")).status_code == 409
    back = await send(reviewer, "send-back", reason="Say where")
    assert "It was sent back" in back.text and "Say where" in back.text
    await send(writer, "save", revision="2", then="review", title="Keys", body="Make a key here.")
    assert (await send(reviewer, "publish", revision="2")).status_code == 409  # it was read before the last change
    shown = await send(reviewer, "publish", revision="3")
    assert "The text is published" in shown.text and "Arif Khan" in shown.text
    assert "Make a key here." in (await writer.get("/help/keys")).text
    await send(writer, "save", revision="0", title="Keys", body="Make a key there.")
    changes = await writer.get(editor)
    assert "<del>Make a key here.</del>" in changes.text and "<ins>Make a key there.</ins>" in changes.text
    await send(writer, "give-up")
    gone = await send(writer, "take-away")
    assert "archived" in gone.text
    assert (await writer.get("/help/keys")).status_code == 404


class _Shouter:
    async def translate(self, actor: Actor, texts: Sequence[str], source: Tag, target: Tag) -> Translated:
        if target != HINDI:
            raise UnsupportedLanguage(f"No service on the market translates from {source} to {target}.")
        return Translated(tuple(text.upper() for text in texts), ("acme/shouter",))


async def test_the_editor_has_source_and_translation_side_by_side_with_suggestions(
    platform: Platform, operator: Actor, browser_for: BrowserFor
) -> None:
    platform.content._translator = _Shouter()
    await publish(
        platform, operator, "keys", ENGLISH, "Keys", "Make a key. Keep it secret.", kind="help", source=ENGLISH
    )
    await publish(platform, operator, "keys", HINDI, "कुंजियाँ", "कुंजी बनाएँ। उसे गुप्त रखें।")
    await publish(platform, operator, "more", ENGLISH, "More", "Keep it very secret.", kind="help", source=ENGLISH)
    desk, editor = await browser_for(OPERATOR), f"{DESK}/more/hi-Deva"
    page = await desk.get(editor)
    assert "Keep it very secret." in page.text and "उसे गुप्त रखें।" in page.text and faults_of(page.text) == []
    assert 'lang="hi-IN" dir="ltr"' in page.text
    assert 'id="suggestions"' not in (await desk.get(f"{DESK}/keys/hi-Deva")).text  # it all stands in the text already
    offered = await desk.send(f"{editor}/services", page=editor, source="en-Latn")
    assert "KEEP IT VERY SECRET." in offered.text and "acme/shouter" in offered.text
    assert (await platform.content.desk(operator, "more", HINDI)).working is None  # nothing is saved
    drafted = await desk.send(f"{editor}/translate", page=editor, source="en-Latn")
    assert "A machine made this draft" in drafted.text and faults_of(drafted.text) == []
    refused = await desk.send(f"{DESK}/more/ur-Arab/translate", page=f"{DESK}/more/ur-Arab", source="en-Latn")
    assert refused.status_code == 422 and "from en-Latn to ur-Arab" in refused.text
    assert 'dir="rtl"' in refused.text and faults_of(refused.text) == []
    missing = await desk.get(f"{DESK}/more/ta-Taml", **{"from": "hi-Deva"})
    assert missing.status_code == 200 and "Nothing to translate from" in missing.text


async def test_the_list_shows_how_far_each_language_is(
    platform: Platform, operator: Actor, browser_for: BrowserFor
) -> None:
    await ensure_help_pages(platform)
    desk = await browser_for(OPERATOR)
    await publish(platform, operator, "first-call", ENGLISH, "Your first call", "Another text.")
    page = await desk.get(DESK)
    assert "published, the source has moved on" in page.text and faults_of(page.text) == []
    total = len({page.key for page, _ in await platform.content.pages(operator)})
    assert f"{total} of {total}" in page.text and f"0 of {total}" in page.text
    hindi = await desk.get(DESK, language="hi-Deva")
    assert f'href="{DESK}/first-call/hi-Deva"' in hindi.text and faults_of(hindi.text) == []
    one = await desk.get(f"{DESK}/first-call")
    assert "has moved on" in one.text and faults_of(one.text) == []
    begun = await desk.get(f"{DESK}/first-call", language="ta-Taml")
    assert begun.url.path == f"{DESK}/first-call/ta-Taml"
    assert (await desk.get(DESK, language="xx")).status_code == 422
    assert (await desk.get(f"{DESK}/first-call/xx")).status_code == 404
    assert (await desk.get(f"{DESK}/nothing")).status_code == 404


async def test_an_announcements_time_is_set_in_the_visitors_zone(
    platform: Platform, operator: Actor, browser_for: BrowserFor
) -> None:
    desk = await browser_for(OPERATOR)
    made = await desk.send(
        DESK, page=DESK, kind="announcement", key="closed", source="en-Latn", shown_from="2026-12-01T09:00",
        shown_until="2026-12-02T09:00",
    )  # fmt: skip
    assert made.status_code == 200
    page, _ = await platform.content.get(operator, "closed")
    assert page.shown_from is not None and page.shown_from.isoformat() == "2026-12-01T03:30:00+00:00"
    wrong = await desk.send(
        f"{DESK}/closed/window", page=f"{DESK}/closed", shown_from="2026-12-03T09:00", shown_until="2026-12-02T09:00"
    )
    assert wrong.status_code == 422 and "Choose an end after the beginning" in wrong.text
    assert faults_of(wrong.text) == []
    nonsense = await desk.send(f"{DESK}/closed/window", page=f"{DESK}/closed", shown_from="soon")
    assert nonsense.status_code == 422
    refused = await desk.send(DESK, page=DESK, kind="help", key="Bad Key", source="en-Latn")
    assert refused.status_code == 422 and 'value="Bad Key"' in refused.text and faults_of(refused.text) == []


async def test_a_mails_words_are_written_with_its_placeholders_beside(
    platform: Platform, operator: Actor, browser_for: BrowserFor
) -> None:
    desk, editor = await browser_for(OPERATOR), f"{DESK}/partner.approved/en-Latn"
    made = await desk.send(DESK, page=DESK, kind="mail", key="partner.approved", source="en-Latn")
    assert "{company} is approved" in made.text and "<code>{portal}</code>" in made.text
    wrong = await desk.send(
        f"{editor}/save", page=editor, revision="0", then="review", title="Hello", body="{company} {nonsense}"
    )
    assert wrong.status_code == 422 and "{portal} is missing" in wrong.text and "{nonsense} is no" in wrong.text
    assert faults_of(wrong.text) == []

"""A page speaks the language of its address, of an earlier choice or of the browser, and says what it lacks."""

from __future__ import annotations

import re
from importlib import resources
from io import BytesIO
from typing import get_args

import httpx
import pytest
from babel.messages.pofile import read_po

from haat.catalog.model import Status
from haat.identity.model import KeyMode
from haat.invoices.model import STATES
from haat.jobs.model import JobStatus
from haat.language import LANGUAGES, messages
from haat.language.messages import INTERFACE
from haat.partners.model import PartnerStatus
from haat.portal import language_names, pages_sign, words
from haat.portal.tongue import LANGUAGE_COOKIE, code_of
from haat.rollouts.model import ExperimentStatus
from haat.rollouts.model import Status as RolloutStatus
from haat.sla.faults import Verdict
from haat.sla.model import MonthVerdict

from .conftest import Browser, faults_of
from .street import Street


def spoken(answer: httpx.Response) -> tuple[str, str, str]:
    """Return the language and direction that a page declares, and the language its headers do."""
    found = re.search(r'<html lang="([^"]*)" dir="([^"]*)"', answer.text)
    assert found is not None
    return found.group(1), found.group(2), answer.headers["content-language"]


async def test_an_address_says_the_language_and_it_stays(street: Street, browser: Browser) -> None:
    page = await browser.get("/hi/catalog")
    assert page.status_code == 200 and spoken(page) == ("hi-IN", "ltr", "hi-IN")
    assert browser.client.cookies[LANGUAGE_COOKIE] == "hi-Deva"
    assert "Max-Age" in page.headers["set-cookie"]
    after = await browser.get("/catalog", q="translation")
    assert spoken(after) == ("hi-IN", "ltr", "hi-IN") and LANGUAGE_COOKIE not in after.headers.get("set-cookie", "")
    other = await browser.get("/ta")
    assert spoken(other)[0] == "ta-IN" and browser.client.cookies[LANGUAGE_COOKIE] == "ta-Taml"


@pytest.mark.parametrize("code", ["ur", "sd", "ks"])
async def test_a_language_written_from_the_right_turns_the_page(browser: Browser, code: str) -> None:
    page = await browser.get(f"/{code}/sign-in")
    direction = LANGUAGES[code].tag.direction
    assert spoken(page) == (f"{code}-IN", direction, f"{code}-IN") and faults_of(page.text) == []
    assert code != "ur" or direction == "rtl"


async def test_every_language_has_its_pages(browser: Browser) -> None:
    for tag in INTERFACE:
        page = await browser.get(f"/{tag.language}/sign-up")
        assert page.status_code == 200 and spoken(page) == (code_of(tag), tag.direction, code_of(tag))
        assert faults_of(page.text) == []


@pytest.mark.parametrize(
    ("cookie", "code"),
    [
        ("ur-Arab", "ur-IN"),
        ("hi", "hi-IN"),
        ("xx", "en-IN"),
        ("../../hi", "en-IN"),
        ("hi-Latn", "en-IN"),
        ("-", "en-IN"),
    ],
)
async def test_an_earlier_choice_counts_and_nonsense_does_not(browser: Browser, cookie: str, code: str) -> None:
    browser.client.cookies.set(LANGUAGE_COOKIE, cookie)
    assert spoken(await browser.get("/sign-in"))[0] == code


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("ta", "ta-IN"),
        ("HI-in", "hi-IN"),
        ("bn-Beng-IN,en;q=0.1", "bn-IN"),
        ("fr, hi;q=0.5, ta;q=0.8", "ta-IN"),
        ("hi;q=0.8, ta;q=0.8", "hi-IN"),
        ("hi;q=0, ta;q=0.1", "ta-IN"),
        ("fr-FR, de;q=0.7", "en-IN"),
        ("*", "en-IN"),
        ("", "en-IN"),
        (";;,,;q=", "en-IN"),
        ("hi;q=many, ta;q=-1", "en-IN"),
        ("hi;q=nan", "en-IN"),
        ("hi;level=1", "en-IN"),
        ("x," * 5000, "en-IN"),
    ],
)
async def test_the_browsers_first_language_of_ours_is_taken(browser: Browser, header: str, code: str) -> None:
    page = await browser.client.get("/sign-in", headers={"accept-language": header})
    assert page.status_code == 200 and spoken(page)[0] == code
    assert "Accept-Language" in page.headers["vary"]
    assert LANGUAGE_COOKIE not in browser.client.cookies, "only who chose keeps a language"


async def test_an_address_goes_before_a_choice_and_a_choice_before_the_browser(browser: Browser) -> None:
    browser.client.cookies.set(LANGUAGE_COOKIE, "ta-Taml")
    chosen = await browser.client.get("/sign-in", headers={"accept-language": "bn"})
    named = await browser.client.get("/ur/sign-in", headers={"accept-language": "bn"})
    assert (spoken(chosen)[0], spoken(named)[0]) == ("ta-IN", "ur-IN")


@pytest.mark.parametrize("prefix", ["fr", "xx", "HI", "hi-Deva", "hi-IN", "catalog"])
async def test_what_is_no_language_is_no_address(browser: Browser, prefix: str) -> None:
    assert (await browser.get(f"/{prefix}/catalog")).status_code == 404


async def test_a_page_not_there_says_so_in_the_language_of_its_address(browser: Browser) -> None:
    page = await browser.get("/ur/nowhere")
    assert page.status_code == 404 and spoken(page) == ("ur-IN", "rtl", "ur-IN")


async def test_a_page_leads_to_itself_in_every_other_language(street: Street, browser: Browser) -> None:
    page = await browser.get("/hi/catalog", q="text")
    others = {tag for tag in INTERFACE if tag.language != "hi"}
    links = re.findall(r'<link rel="alternate" hreflang="([^"]*)" href="([^"]*)">', page.text)
    assert set(links) == {(code_of(tag), f"/{tag.language}/catalog?q=text") for tag in others}
    assert len(links) == len(others) == 22
    choices = re.findall(r'<li><a href="(/[^"]*)" lang="([^"]*)" hreflang="([^"]*)"', page.text)
    assert {(href, code, code) for href, code, _ in choices} == {
        (f"/{tag.language}/catalog?q=text", code_of(tag), code_of(tag)) for tag in INTERFACE
    }


async def test_a_page_says_when_a_text_is_in_another_language(browser: Browser) -> None:
    note = "borrowed"
    assert note not in (await browser.get("/en/sign-in")).text
    assert note not in (await browser.get("/hi/sign-in")).text
    assert note in (await browser.get("/sat/sign-in")).text


# --- words ------------------------------------------------------------------------------------------


def test_every_state_of_the_domains_has_a_word() -> None:
    kinds = (Status, KeyMode, JobStatus, PartnerStatus, RolloutStatus, ExperimentStatus, MonthVerdict)
    states = {state for kind in kinds for state in get_args(kind)}
    assert states - words.STATES.keys() == set()
    assert {verdict.value for verdict in Verdict} == words.VERDICTS.keys()


def test_a_states_word_is_the_readers_and_a_pages_own_word_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "gettext", {"rolled back": "वापस", "broken": "टूटा", "availability": "उपलब्धता"}.get)
    assert (words.state_name("rolled_back"), words.state_name("breached")) == ("वापस", "टूटा")
    monkeypatch.undo()
    assert words.state_name("चालू") == "चालू"
    assert words.signal_names(["availability", "p95"]) == "availability, p95"


async def test_states_of_india_are_named_for_the_reader_and_not_for_invoices(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages_sign, "gettext", lambda text: f"~{text}~")
    assert '<option value="29">~Karnataka~</option>' in (await browser.get("/sign-up")).text
    monkeypatch.undo()
    assert '<option value="29">Karnataka</option>' in (await browser.get("/sign-up")).text
    assert STATES["29"] == "Karnataka"


def test_a_language_is_named_for_its_reader() -> None:
    with messages.speaking(LANGUAGES["hi"].tag):
        assert language_names.language("ta-Taml").name == "तमिल" and language_names.language("hi").name == "हिन्दी"
    assert language_names.language("ta-Taml").name == "Tamil"
    assert language_names.language("ta-Taml").own == "தமிழ்"
    assert language_names.language("sd-Deva").name == "Sindhi (Devanagari)"


async def test_the_script_says_only_what_the_page_gives_it(browser: Browser) -> None:
    script = resources.files("haat.portal").joinpath("static", "portal.js").read_text(encoding="utf-8")
    assert re.findall(r'"[A-Z][^"\n]*"|textContent = "[^"\n]+"', script) == []
    body = re.search(r"<body[^>]*>", (await browser.get("/")).text)
    assert body is not None
    said = {name.replace("say", "data-say-").lower() for name in re.findall(r"words\.(say\w+)", script)}
    assert said == set(re.findall(r"data-say-\w+", body.group(0))) != set()


def test_a_plural_that_a_catalog_lacks_keeps_the_forms_of_english(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = b"""
msgid ""
msgstr "Content-Type: text/plain; charset=utf-8\\nPlural-Forms: nplurals=1; plural=0;\\n"

msgid "one call"
msgid_plural "many calls"
msgstr[0] ""
"""
    monkeypatch.setattr(messages, "catalog_of", lambda tag: read_po(BytesIO(lacking)))
    found = messages._translations(LANGUAGES["mni"].tag)
    assert found is not None
    assert [found.ngettext("one call", "many calls", count) for count in (1, 2)] == ["one call", "many calls"]

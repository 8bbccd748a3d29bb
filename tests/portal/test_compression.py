"""Pages go out compressed, and nothing secret in them is the same twice (BREACH)."""

from __future__ import annotations

import gzip
import re

import pytest

from haat.infra.keyring import Keyring
from haat.portal import csrf

from .conftest import Browser
from .street import Street

_TOKEN = re.compile(r'name="form_token" value="([^"]+)"')


async def test_pages_and_static_files_come_compressed_for_who_takes_it(street: Street, browser: Browser) -> None:
    for path in ("/", "/catalog", "/sign-in", "/static/portal.css", "/static/htmx.min.js"):
        packed = await browser.get(path)
        plain = await browser.client.get(path, headers={"Accept-Encoding": "identity"})
        assert packed.headers["content-encoding"] == "gzip" and "content-encoding" not in plain.headers, path
        assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 2, path
        assert "Accept-Encoding" in packed.headers["vary"] and "Accept-Encoding" in plain.headers["vary"], path
        assert _TOKEN.sub("", packed.text) == _TOKEN.sub("", plain.text), path


async def test_static_files_are_kept_for_a_year_and_have_their_type_compressed_or_not(browser: Browser) -> None:
    for encoding in ("gzip", "identity"):
        answer = await browser.client.get("/static/portal.css", headers={"Accept-Encoding": encoding})
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["content-type"].startswith("text/css")
    assert (await browser.client.head("/static/portal.css")).status_code == 200
    assert (await browser.get("/static/nothing.css")).status_code == 404


async def test_a_page_carries_its_token_in_other_letters_each_time(street: Street, browser: Browser) -> None:
    tokens = [await browser.token("/sign-in") for _ in range(8)]
    shared = {text[start : start + 6] for text in tokens[:1] for start in range(len(text) - 5)}
    assert not any(part in token for part in shared for token in tokens[1:]), "a part that could be guessed at"
    for token in tokens:
        answer = await browser.client.post("/theme", data={"form_token": token, "theme": "dark", "back": "/"})
        assert answer.status_code < 400


def test_a_token_fits_its_holder_alone(keyring: Keyring) -> None:
    token = csrf.form_token(keyring, "session")
    assert csrf.fits(keyring, "session", token)
    assert not csrf.fits(keyring, "another", token)
    assert not csrf.fits(keyring, "", csrf.form_token(keyring, ""))
    assert not csrf.fits(Keyring(bytes(32)), "session", token)


@pytest.mark.parametrize("token", ["", "x", "====", "a" * 64, "é" * 64, "AAAA" * 8, "AAAA" * 17, "\udc00"])
def test_what_is_no_token_fits_nobody(keyring: Keyring, token: str) -> None:
    assert not csrf.fits(keyring, "session", token)


def test_every_letter_of_a_token_counts(keyring: Keyring) -> None:
    token = csrf.form_token(keyring, "session")
    for place in range(len(token)):
        other = "A" if token[place] != "A" else "B"
        assert not csrf.fits(keyring, "session", token[:place] + other + token[place + 1 :])


def test_static_files_are_small(pytestconfig: pytest.Config) -> None:
    """The first page is to come with styles and scripts in 60 KB: these take half of it."""
    folder = pytestconfig.rootpath / "src" / "haat" / "portal" / "static"
    elsewhere = {"design.css", "try.js", "htmx.LICENSE"}
    files = [file for file in folder.iterdir() if file.name not in elsewhere]
    packed = {file.name: len(gzip.compress(file.read_bytes(), 9)) for file in files}
    assert sum(packed.values()) < 30_000, packed

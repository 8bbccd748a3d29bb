"""The first calls that a listing's page offers: run as they stand, against the gateway that answers test keys."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from haat.app import Platform
from haat.catalog.model import Listing, Version
from haat.cli.mock import serve, shelves
from haat.portal import snippets

from .conftest import Browser
from .street import Street

KEY = "haat_test_anything"


@pytest.fixture
async def mock(street: Street) -> AsyncIterator[str]:
    """The address of a mock that has the street's services."""
    named = [f"{listing.path}={listing.category}" for listing in street.listings]
    known = {f"{shelf.provider}/{shelf.slug}" for shelf in shelves(())}
    found = shelves(name for name in named if name.partition("=")[0] not in known)
    stop, address = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve("127.0.0.1", 0, found, stop, address.set_result))
    try:
        yield await asyncio.wait_for(address, 10)
    finally:
        stop.set()
        await task


async def every(platform: Platform, street: Street) -> list[tuple[Listing, Version]]:
    return [(one, (await platform.discovery.versions(None, one.id))[0]) for one in street.listings]


async def run(program: str) -> str:
    """Run a Python program with the key in its environment; return what it prints."""
    environment = {"PATH": os.environ.get("PATH", ""), "HAAT_KEY": KEY, "PYTHONIOENCODING": "utf-8"}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, errors = await child.communicate()
    assert child.returncode == 0, errors.decode()
    return out.decode()


@pytest.mark.parametrize("name", ["python", "client"])
async def test_the_python_ones_run_as_they_stand(platform: Platform, street: Street, mock: str, name: str) -> None:
    for listing, version in (await every(platform, street))[:3]:
        [snippet] = [one for one in snippets.all_of(mock, listing, version) if one.name == name]
        assert "[test " in await run(snippet.text), listing.path


async def test_what_curl_and_javascript_send_is_answered(platform: Platform, street: Street, mock: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        for listing, version in await every(platform, street):
            texts = {one.name: one.text for one in snippets.all_of(mock, listing, version)}
            words = shlex.split(texts["curl"].replace("\\\n", " ").replace("$HAAT_KEY", KEY))
            headers = dict(words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H")
            body: str = words[words.index("--data") + 1]
            answer = await client.post(
                next(word for word in words if word.startswith("http")), headers=headers, content=body
            )
            assert answer.status_code == 200, answer.text
            sent = re.search(r"JSON\.stringify\((.*)\),\n}\);", texts["javascript"], re.DOTALL)
            assert sent is not None and json.loads(sent[1]) == json.loads(body)
            assert f'fetch("{answer.request.url}"' in texts["javascript"] and 'method: "POST"' in texts["javascript"]


async def test_an_api_of_its_own_has_a_call_by_the_client_too(street: Street) -> None:
    version: Any = type("V", (), {"dialect": "http", "sample": {"method": "GET", "path": "/v2/words"}})()
    text = snippets.client("http://gw", street.listings[0], version)
    compile(text, "snippet", "exec")
    assert f'services.request("{street.listings[0].path}", "/v2/words", method="GET")' in text


async def test_every_listing_shows_all_of_them_each_behind_a_labelled_choice(browser: Browser, street: Street) -> None:
    for listing in street.listings:
        page = (await browser.get(f"/services/{listing.path}")).text
        for name, title in (
            ("curl", "curl"),
            ("python", "Python"),
            ("client", "Python, haat_client"),
            ("javascript", "JavaScript"),
        ):
            assert re.search(rf'<label><input type="radio" name="as" id="as-{name}"[^>]*> {title}</label>', page), name
            assert f'aria-label="First call in {title}"' in page

"""The control process on a furnished street, and a browser without a screen to walk it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI

from frontage import app_on
from haat.app import Platform, build_platform
from haat.infra.keyring import Keyring
from haat.infra.mail import mail_for
from haat.kernel.clock import SetClock
from haat.settings import Settings

from .street import PASSWORD, Street, furnish


class Browser:
    """Keeps cookies, follows redirects, and sends forms with the token of the page they stand on."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def get(self, path: str, **params: str) -> httpx.Response:
        return await self.client.get(path, params=params or None)

    async def token(self, path: str = "/") -> str:
        """Return the form token of a page."""
        found = re.search(r'name="form_token" value="([^"]+)"', (await self.client.get(path)).text)
        assert found is not None
        return found.group(1)

    async def send(self, path: str, page: str = "/", **fields: str) -> httpx.Response:
        """Send a form as a browser on ``page`` would."""
        return await self.client.post(path, data={"form_token": await self.token(page), **fields})

    async def sign_in(self, email: str, password: str = PASSWORD) -> httpx.Response:
        return await self.send("/sign-in", page="/sign-in", email=email, password=password)


class _Checker(HTMLParser):
    """Collects what a well-made page must not have."""

    def __init__(self) -> None:
        super().__init__()
        self.identifiers: list[str] = []
        self.references: list[str] = []
        self.faults: list[str] = []
        self._script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.identifiers.append(given["id"] or "")
        for name in ("for", "aria-describedby", "aria-labelledby"):
            self.references += (given.get(name) or "").split()
        self.faults += [f"<{tag} {name}>" for name in given if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and not given.get("src")):
            self.faults.append(f"inline <{tag}>")
        if tag == "img" and given.get("alt") is None:
            self.faults.append("<img> without alt")


def faults_of(html: str) -> list[str]:
    """Return inline code, doubled ids and references that lead nowhere."""
    checker = _Checker()
    checker.feed(html)
    known = set(checker.identifiers)
    doubled = [f"id {name} twice" for name in known if checker.identifiers.count(name) > 1]
    return checker.faults + doubled + [f"no id {name}" for name in checker.references if name not in known]


@pytest.fixture
async def platform(database, keyring: Keyring, clock: SetClock, tmp_path: Path) -> Platform:  # type: ignore[no-untyped-def]  # a NamedTuple of the root conftest
    settings = Settings(data_dir=tmp_path, gateway_url="http://127.0.0.1:1")  # where nobody listens
    built = build_platform(settings, database.app, database.service, keyring, clock, mail_for(settings))
    built.identity._hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)  # speed, not safety
    return built


@pytest.fixture
async def street(platform: Platform) -> Street:
    return await furnish(platform, calls=60)


@pytest.fixture
def app(platform: Platform) -> FastAPI:
    return app_on(platform)


@pytest.fixture
async def browser_for(app: FastAPI) -> AsyncIterator[Callable[[str | None], Awaitable[Browser]]]:
    """A browser for each person: ``await browser_for(email)``, or for a visitor with None."""
    clients: list[httpx.AsyncClient] = []

    async def open_browser(email: str | None = None) -> Browser:
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app, raise_app_exceptions=False),
            base_url="http://haat.test",
            headers={"accept": "text/html,*/*"},
            follow_redirects=True,
        )
        clients.append(client)
        browser = Browser(client)
        if email:
            answer = await browser.sign_in(email)
            assert answer.status_code == 200, answer.text
        return browser

    yield open_browser
    for client in clients:
        await client.aclose()


@pytest.fixture
async def browser(browser_for: Callable[[str | None], Awaitable[Browser]]) -> Browser:
    return await browser_for(None)

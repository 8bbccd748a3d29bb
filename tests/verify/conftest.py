"""One platform for all the long tests of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext
from running import RunningPlatform
from trade import Market, open_market
from walking import Walk, open_chromium


@pytest.fixture(scope="session")
def platform_process(short_tmp: Path) -> Iterator[RunningPlatform]:
    data_dir = short_tmp / "platform"
    data_dir.mkdir()
    platform = RunningPlatform(data_dir)
    try:
        platform.start()
        yield platform
    finally:
        platform.stop()


@pytest.fixture(scope="module")
def market(platform_process: RunningPlatform) -> Iterator[Market]:
    """A buyer, a provider and the operator on it."""
    with open_market(platform_process) as market:
        yield market


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with open_chromium() as browser:
        yield browser


@pytest.fixture
def walk(chromium: Browser, platform_process: RunningPlatform) -> Iterator[Callable[..., Walk]]:
    """``walk()`` opens a browser of its own; keywords are those of a browser context."""
    contexts: list[BrowserContext] = []

    def open_walk(**options: Any) -> Walk:
        context = chromium.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
        context.set_default_timeout(15_000)
        contexts.append(context)
        return Walk(context, platform_process.control_url)

    yield open_walk
    for context in contexts:
        context.close()

"""One platform for all the long tests of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from running import RunningPlatform
from trade import Market, open_market
from walking import open_chromium


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

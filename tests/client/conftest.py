"""A mock gateway on a loopback port, as `haat mock` serves it, for clients that run beside it in threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from haat.cli.mock import serve, shelves


@pytest.fixture
async def mock() -> AsyncIterator[str]:
    """The address of the mock."""
    stop, address = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve("127.0.0.1", 0, shelves(()), stop, address.set_result))
    try:
        yield await asyncio.wait_for(address, 10)
    finally:
        stop.set()
        await task


@pytest.fixture(autouse=True)
def nothing_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine on which the tests run reaches the client."""
    for name in (
        "HAAT_API_KEY",
        "HAAT_KEY",
        "HAAT_BASE_URL",
        "HAAT_CONTROL_URL",
        "HAAT_TOKEN",
        "HTTP_PROXY",
        "http_proxy",
    ):
        monkeypatch.delenv(name, raising=False)

"""Fixtures of the gateway's tests. They run on uvloop, as the gateway does."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway.rig import Market, Provider, close_market, open_market
from haat.infra.keyring import Keyring


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], Any]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def market(tmp_path: Path, keyring: Keyring) -> AsyncIterator[Market]:
    """A gateway with default settings and one service, ``acme/echo``."""
    made = await open_market(tmp_path, keyring)
    yield made
    await close_market(made)


@pytest.fixture
async def make_market(tmp_path: Path, keyring: Keyring) -> AsyncIterator[Callable[..., Awaitable[Market]]]:
    """Makes a gateway with other settings."""
    async with AsyncExitStack() as stack:

        async def make(**options: Any) -> Market:
            made = await open_market(tmp_path, keyring, **options)
            stack.push_async_callback(close_market, made)
            return made

        yield make


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    """A provider for gateways that run as processes of their own, which know no market of the test's."""
    server = await Provider().start()
    yield server
    await server.stop()


@pytest.fixture
async def second() -> AsyncIterator[Provider]:
    """Another server: a further endpoint, or another provider."""
    server = await Provider().start()
    yield server
    await server.stop()


@pytest.fixture
def refused() -> int:
    """A port where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port

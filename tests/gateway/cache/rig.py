"""What the tests of the cache share: a service whose answers are kept, and a provider that waits to be let."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec

from gateway.rig import Market, Request, Response, answer
from haat.gateway.market.policy import CachePolicy, ServicePolicy

PATH = "/v1/services/acme/echo/invoke"
JSON = "Content-Type: application/json"


def keep(market: Market, slug: str = "echo", *, generation: int = 0, status: str = "published", **policy: Any) -> None:
    """Have a service's answers kept; without a policy no more."""
    directory = market.gateway.directory
    service = directory.services[f"acme/{slug}"]
    said = ServicePolicy(cache=CachePolicy(**policy), cache_generation=generation) if policy else ServicePolicy()
    directory.put_service(service.id, msgspec.structs.replace(service, policy=said, status=status))


async def ask(market: Market, body: object = None, *headers: str, path: str = PATH, method: str = "POST") -> Response:
    content = json.dumps(body).encode() if body is not None else b""
    return await market.call(method, path, content, JSON, *headers)


def stats(market: Market) -> dict[str, Any]:
    return market.gateway.cache.stats()


class Gate:
    """A provider that answers when it is let."""

    def __init__(self, market: Market, body: bytes = b'{"n":1}', *headers: str, status: int = 200) -> None:
        self._market, self._answer = market, answer(status, body, *headers)
        self._open = asyncio.Event()
        market.provider.behaviour = self.behave

    async def behave(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await self._open.wait()
        writer.write(self._answer)
        return True

    def open(self) -> None:
        self._open.set()

    async def reached(self, calls: int) -> None:
        await self._market.until(lambda: len(self._market.provider.requests) == calls)

    async def waited_for(self, calls: int) -> None:
        await self._market.until(lambda: stats(self._market)["coalesced"] == calls)

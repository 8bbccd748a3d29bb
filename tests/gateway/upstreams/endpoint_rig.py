"""Ways to set up and watch endpoints, for the tests of where calls go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from gateway.rig import Market, Request, answer
from haat.gateway.market.policy import VersionPolicy
from haat.gateway.upstreams.breaker import THRESHOLD
from haat.gateway.upstreams.endpoints import Endpoint

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
PATH = "/v1/services/acme/echo/invoke"
UNAVAILABLE = answer(503, b'{"busy":true}')


def change(market: Market, *, endpoints: tuple[str, ...] | None = None, health_path: str = "", **changes: Any) -> None:
    """Change the one service: its policy, or the first and the further endpoints of its version."""
    service = market.gateway.directory.services["acme/echo"]
    if endpoints is not None:
        version = replace(
            service.versions[0],
            endpoint=endpoints[0],
            policy=VersionPolicy(endpoints=endpoints[1:]),
            health_path=health_path,
        )
        service = replace(service, versions=(version,))
    market.gateway.directory.put_service(service.id, replace(service, **changes))


def url(port: int, path: str = "/base") -> str:
    return f"http://127.0.0.1:{port}{path}"


def endpoints(market: Market) -> tuple[Endpoint, ...]:
    route = market.gateway.routes.find(b"acme/echo")
    return route.endpoints or (route.endpoint,)


def pass_time(market: Market, microseconds: int) -> None:
    market.gateway.clock._anchor += microseconds * 1000
    market.gateway.clock.tick()


def one_after_another(*answers: bytes) -> Callable[[Request, Reader, Writer], Any]:
    left = list(answers)

    async def behave(request: Request, reader: Reader, writer: Writer) -> bool:
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        await writer.drain()
        return True

    return behave


async def silent(request: Request, reader: Reader, writer: Writer) -> bool:
    await reader.read()
    return False


async def hang_up(request: Request, reader: Reader, writer: Writer) -> bool:
    return False


async def break_it(market: Market) -> None:
    """Let calls fail until the breaker of the only endpoint opens."""
    market.provider.behaviour = hang_up
    for _ in range(THRESHOLD):
        assert (await market.call("POST", PATH, b"x")).status == 502
    market.provider.requests.clear()


def nothing_is_held(market: Market) -> None:
    assert not market.gateway.calls
    for allowance in market.gateway.limits._allowances.values():
        assert (allowance.in_flight, allowance.reserved) == (0, 0)

"""The route of a test key's calls: the same service, with nothing behind it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from msgspec import structs

from haat.gateway.market.routes import Route
from haat.gateway.simulator.step import simulate
from haat.gateway.steps import prepare
from haat.gateway.upstreams.endpoints import Endpoint
from haat.gateway.upstreams.origin import Origin
from haat.gateway.upstreams.pool import Pool
from haat.gateway.upstreams.traffic import Traffic

if TYPE_CHECKING:
    from haat.gateway.gateway import Gateway

MODE = b"X-Haat-Mode: test\r\n"
SERVED_BY = b"X-Haat-Served-By: haat/simulator\r\n"
_NOWHERE = Origin("http", "simulator.invalid", 9)
"""A name that never resolves (RFC 6761, 6.4). Nothing dials it: the step before it takes every call over."""


def simulated(gateway: Gateway, route: Route) -> Route:
    """Return what a test key's calls of a route go through; made once a route.

    Its answers are kept in no cache, because live callers share that; nobody stands in for it; and its counts and
    its breaker are its own, so that a failure made on purpose says nothing about the provider.
    """
    if route.simulated is None:
        service = structs.replace(
            route.service,
            policy=structs.replace(route.service.policy, cache=None, capability="", repeatable=False),
            max_per_second=0,
            credential_header="",
            credential=b"",
        )
        pool = Pool(_NOWHERE, (), 0, 0, gateway.clock, gateway.outbox)
        endpoint = Endpoint("http://simulator.invalid:9", deque(maxlen=1), pool)
        endpoint.service, endpoint.version, endpoint.served_by = service, route.executing, SERVED_BY
        made = Route(service, route.version, route.executing, (endpoint,), Traffic(gateway.clock.lately))
        prepare(gateway, made, asks_endpoint=False)
        made.steps = (*made.steps, simulate)
        made.passes_parts = False
        made.lines += MODE
        route.simulated = made
    return route.simulated

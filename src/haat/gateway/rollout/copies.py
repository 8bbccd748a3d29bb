"""Sends the copies of calls that `haat.gateway.rollout.shadow` has noted."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from msgspec import structs

from haat.gateway.call import Call
from haat.gateway.doors.inner import InnerClient
from haat.gateway.extras import extras_of
from haat.gateway.http.headers import without
from haat.gateway.limits.plan import PlanLimits
from haat.gateway.market.grants import Grant
from haat.gateway.market.snapshot import Credential, Service, Subscription
from haat.gateway.rollout.shadow import MOST, Asked, Copy
from haat.gateway.upstreams import dispatch
from haat.gateway.upstreams.endpoints import Endpoint
from haat.gateway.upstreams.origin import Origin
from haat.gateway.upstreams.pool import Pools
from haat.gateway.upstreams.traffic import Traffic
from haat.kernel.errors import HaatError, ServiceNotFound

if TYPE_CHECKING:
    from haat.gateway.gateway import Gateway
    from haat.gateway.http.answers import Whole
    from haat.gateway.market.policy import ShadowPolicy
    from haat.gateway.market.routes import Route

_FREE = PlanLimits()


class Shadows:
    """Sends copies, over connections that carry nothing else."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.flying: set[Call] = set()
        self.sent = 0
        self.dropped = 0
        """Copies that were not made: too many were in flight, or their version can't be called."""
        self.pools = Pools(
            MOST,
            gateway.settings.upstream_wait_seconds,
            gateway.clock,
            gateway.outbox,
            gateway.bridge_rendezvous.path,
        )
        self._routes: dict[str, Route] = {}
        self._generation = -1

    def send(self, asked: Asked) -> None:
        """Ask the other version; drop the copy when it can't be asked, or too many are being asked."""
        gateway = self._gateway
        if len(self.flying) >= MOST or gateway.draining or gateway.meter.failing:
            self.dropped += 1
            return
        assert asked.division.shadow is not None
        try:
            route = self._route(asked.service, asked.division.shadow)
            self._begin(asked, route)
        except HaatError:
            self.dropped += 1

    def expire(self, now: int) -> None:
        """Give up connections that won't be used again, and those that nobody has made in time."""
        self.pools.expire(now)
        if self._routes and self._generation != self._gateway.directory.services_generation:
            self._routes.clear()
            self.pools.keep(set())

    async def close(self) -> None:
        await self.pools.close()

    def _begin(self, asked: Asked, route: Route) -> None:
        gateway, service = self._gateway, route.service
        client = InnerClient(gateway, self._ended)
        call = Call(client)
        client.active = call
        call.started = gateway.clock.now_us()
        call.number = gateway.ids.next(call.started)
        call.id_line = gateway.ids.line(call.number)
        call.method, call.hosts, call.tail = asked.method, 1, asked.tail
        call.target = route.target + asked.tail
        call.lines = without(asked.lines, (route.credential_name,)) if route.credential_name else asked.lines
        call.body = asked.body
        call.body_size = call.content_length = sum(len(part) for part in asked.body)
        call.body_complete = call.dispatched = call.labelled = True
        call.language_pair = asked.language_pair
        call.credential = Credential("", service.provider_org, "", b"", 0, 0)
        call.route = route
        call.subscription = Subscription("", service.provider_org, f"shadow {service.id}", service.id, "", _FREE, "UTC")
        call.grant = Grant(gateway, call)
        copy = Copy(asked)
        extras_of(call).shadow = copy
        call.on_answer = [client, copy]
        call.deadline = call.started + route.timeout_us
        gateway.calls.add(call)
        self.flying.add(call)
        self.sent += 1
        dispatch.resume(gateway, call)

    def _ended(self, call: Call, answer: Whole | None, error: HaatError | None) -> None:
        self.flying.discard(call)

    def _route(self, service: Service, shadow: ShadowPolicy) -> Route:
        """Return a way to the other version that shares nothing with its callers'; raise what forbids it."""
        directory = self._gateway.directory
        if self._generation != directory.services_generation:
            self._routes.clear()
            self._generation = directory.services_generation
        name = f"{shadow.service or service.path}@{shadow.version}"
        route = self._routes.get(name)
        if route is not None:
            return route
        found = self._gateway.routes.find(name.encode("ascii"))
        other = found.service
        if (other.provider_org, other.unit) != (service.provider_org, service.unit):
            raise ServiceNotFound("A call is copied to its own provider's services alone, of the same unit.")
        other = structs.replace(
            other,
            policy=structs.replace(other.policy, cache=None, capability="", repeatable=False),
            max_per_second=0,
            division=None,
        )
        credential = self._gateway.routes.credential(other)
        endpoints = []
        for url in (found.executing.endpoint, *found.executing.policy.endpoints):
            endpoint = Endpoint(
                url, deque(maxlen=1), self.pools.of(Origin.parse(url), self._gateway.routes.networks(other, url))
            )
            endpoint.belong(other, found.executing, credential)
            endpoints.append(endpoint)
        made = type(found)(other, found.version, found.executing, tuple(endpoints), Traffic(self._gateway.clock.lately))
        self._gateway.prepare(made)
        self._routes[name] = made
        return made

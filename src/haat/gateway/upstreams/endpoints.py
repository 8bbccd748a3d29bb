"""The endpoints that calls go to, with what is known of their state: it lives as long as they do.

Routes are made anew whenever the market changes; a breaker must not forget meanwhile. So endpoints
are kept here by service, version and address, and forgotten when no listing names them any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from haat.gateway.clock import SECOND, GatewayClock
from haat.gateway.upstreams.balance import Health
from haat.gateway.upstreams.breaker import Breaker
from haat.gateway.upstreams.origin import Origin
from haat.gateway.upstreams.traffic import Traffic
from haat.infra.inference.upstream import UPSTREAM, Upstream, header_of
from haat.infra.net import IPNetwork, resolve
from haat.kernel.errors import AddressForbidden

if TYPE_CHECKING:
    from haat.gateway.market.snapshot import Directory, Service, Version
    from haat.gateway.rollout.division import Tripped
    from haat.gateway.upstreams.pool import Pool, Pools

log = logging.getLogger(__name__)

PROBE_SECONDS = 5.0
"""Between two looks at the health path of an ejected endpoint, and how long one may take."""
_MOST_NOTICES = 1000


class Notice(NamedTuple):
    """Something that happened to an endpoint, for the event log."""

    type: str
    """``breaker_opened``, ``breaker_closed``, ``ejected`` or ``restored``."""
    service: str
    provider_org: str
    version: str
    endpoint: str
    at_us: int

    @property
    def stream(self) -> str:
        return f"endpoint/{self.service}"

    @property
    def kind(self) -> str:
        return f"endpoint.{self.type}"

    @property
    def data(self) -> dict[str, object]:
        return {"version": self.version, "endpoint": self.endpoint}


class Endpoint:
    """One address that executes one version of a service."""

    __slots__ = (
        "breaker",
        "credential_name",
        "failures",
        "health",
        "lines",
        "model",
        "notices",
        "pool",
        "prefix",
        "probed_at",
        "served_by",
        "service",
        "several",
        "url",
        "version",
    )

    def __init__(self, url: str, notices: deque[Notice | Tripped], pool: Pool) -> None:
        self.url, self.notices, self.pool = url, notices, pool
        self.breaker = Breaker()
        self.health = Health()
        self.failures: int = 0
        """Failures ever."""
        self.probed_at: int = 0
        self.prefix: bytes = urlsplit(url).path.rstrip("/").encode("ascii")
        self.model: bytes = b""
        """The path at which it is asked whatever is called, where that speaks of a model; empty for none."""
        self.lines: bytes = b""
        """The Host header and the provider's credential."""
        self.credential_name: bytes = b""
        """The header, in small letters, that a caller can't send because we do; empty for none."""
        self.served_by: bytes = b""
        """The answer's header line that names who executed the call."""
        self.several: bool = False
        """It has siblings, so that it may be ejected."""
        self.service: Service
        self.version: Version

    def belong(self, service: Service, version: Version, credential: str) -> None:
        """Take over what the listing says at present."""
        self.service, self.version = service, version
        self.several = bool(version.policy.endpoints)
        tensors = version.policy.tensors
        self.model = tensors.path.encode("ascii") if version.dialect == "inference" and tensors is not None else b""
        self.served_by = f"X-Haat-Served-By: {service.path}@{version.version}\r\n".encode("ascii")
        self.lines = f"Host: {urlsplit(self.url).netloc}\r\n".encode("ascii")
        self.credential_name = service.credential_header.lower().encode("ascii") if credential else b""
        if self.pool.bridge:
            networks = tuple(str(network) for network in self.pool.networks)
            metadata = ((service.credential_header, credential),) if credential else ()
            self.lines += f"{UPSTREAM}: {header_of(Upstream(self.url, networks, metadata))}\r\n".encode("ascii")
        elif credential:
            self.lines += f"{service.credential_header}: {credential}\r\n".encode("latin-1")

    def request(self, tail: bytes) -> bytes:
        """Return the request line after its method, and the lines that are the same for every call.

        A service that speaks ULCA is asked at its own address, which is its task's, whatever is called.
        """
        if self.version.dialect == "ulca":
            tail = b""
        return b" %b HTTP/1.1\r\n%b" % (self.prefix + (self.model or tail) or b"/", self.lines)

    def succeeded(self, now: int, ticket: object) -> None:
        """Take in that it answered a call."""
        if self.breaker.succeeded(ticket):
            self._tell("breaker_closed", now)
        if self.several:
            self.health.succeeded()

    def failed(self, now: int, ticket: object) -> None:
        """Take in that it failed a call."""
        self.failures += 1
        if self.breaker.failed(now, ticket):
            self._tell("breaker_opened", now)
        if self.several and self.health.failed(now):
            self._tell("ejected", now)

    def restore(self, now: int) -> None:
        """Let it take part again."""
        self.health.restore()
        self._tell("restored", now)

    def _tell(self, what: str, now: int) -> None:
        service = self.service
        log.warning("endpoint %s of %s@%s: %s", self.url, service.path, self.version.version, what)
        self.notices.append(Notice(what, service.id, service.provider_org, self.version.version, self.url, now))


def choose(endpoints: Iterable[Endpoint], now: int, avoid: Endpoint | None = None) -> Endpoint | None:
    """Return the endpoint with the least load among those that may be called, None when none may.

    One that is ejected gets calls only when all are; ``avoid`` has just failed and gets this one only
    when nobody else is there. Of equals the first is returned: give them in another order each time.
    """
    best: Endpoint | None = None
    best_rank = best_load = 0
    for endpoint in endpoints:
        if not endpoint.breaker.ready(now):
            continue
        rank = (2 if endpoint.health.ejected_until else 0) + (1 if endpoint is avoid else 0)
        load = endpoint.pool.load
        if best is None or (rank, load) < (best_rank, best_load):
            best, best_rank, best_load = endpoint, rank, load
    return best


class Endpoints:
    """All endpoints and the traffic of all services, as long as the directory names them."""

    def __init__(self, directory: Directory, pools: Pools, clock: GatewayClock) -> None:
        self.notices: deque[Notice | Tripped] = deque(maxlen=_MOST_NOTICES)
        """What the event log is to learn; the oldest are dropped when nobody comes for them."""
        self._directory, self._pools, self._clock = directory, pools, clock
        self._endpoints: dict[tuple[str, str, str], Endpoint] = {}
        self._traffic: dict[str, Traffic] = {}
        self._generation = -1
        self._probes: set[asyncio.Task[None]] = set()

    def of(
        self, service: Service, version: Version, url: str, networks: tuple[IPNetwork, ...], credential: str
    ) -> Endpoint:
        """Return the endpoint of a version at an address, as its listing has it now."""
        key = (service.id, version.version, url)
        pool = self._pools.of(Origin.parse(url), networks)
        endpoint = self._endpoints.get(key)
        if endpoint is None or endpoint.pool is not pool:  # with other networks it is another place
            endpoint = self._endpoints[key] = Endpoint(url, self.notices, pool)
        endpoint.belong(service, version, credential)
        return endpoint

    def traffic(self, service: str) -> Traffic:
        """Return the traffic of a service by its id."""
        found = self._traffic.get(service)
        if found is None:
            found = self._traffic[service] = Traffic(self._clock.lately)
        return found

    def every(self) -> list[tuple[Endpoint, Traffic]]:
        """Return all endpoints that have been called, with the traffic of their service."""
        return [(endpoint, self.traffic(endpoint.service.id)) for endpoint in self._endpoints.values()]

    def look(self, now: int) -> None:
        """Let ejected endpoints return when it is time, and forget those that no listing names."""
        for endpoint in self._endpoints.values():
            if endpoint.health.ejected_until and endpoint.health.ejected_until <= now:
                if not endpoint.version.health_path:
                    endpoint.restore(now)
                elif endpoint.probed_at + PROBE_SECONDS * SECOND <= now:
                    endpoint.probed_at = now
                    task = asyncio.get_running_loop().create_task(self._probe(endpoint))
                    self._probes.add(task)
                    task.add_done_callback(self._probes.discard)
        if self._generation != self._directory.services_generation:
            self._generation = self._directory.services_generation
            self._forget()

    def _forget(self) -> None:
        named = {
            (service.id, version.version, url)
            for service in self._directory.services.values()
            for version in service.versions
            for url in (version.endpoint, *version.policy.endpoints)
        }
        self._endpoints = {key: endpoint for key, endpoint in self._endpoints.items() if key in named}
        services = {service for service, _, _ in named}
        self._traffic = {service: traffic for service, traffic in self._traffic.items() if service in services}
        self._pools.keep({endpoint.pool for endpoint in self._endpoints.values()})

    async def _probe(self, endpoint: Endpoint) -> None:
        """Ask an ejected endpoint's health path; 200 lets it take part again."""
        origin, pool = Origin.parse(endpoint.url), endpoint.pool
        path = endpoint.prefix + endpoint.version.health_path.encode("ascii", "ignore")
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                if pool.bridge:
                    reader, writer = await asyncio.open_unix_connection(pool.bridge)
                else:
                    address = await resolve(origin.host, origin.port, pool.networks)
                    reader, writer = await asyncio.open_connection(
                        str(address), origin.port, ssl=pool.tls, server_hostname=origin.host if pool.tls else None
                    )
                try:
                    writer.write(b"GET %b HTTP/1.1\r\n%bConnection: close\r\n\r\n" % (path, endpoint.lines))
                    head = await reader.readline()
                finally:
                    writer.close()
        except (OSError, ValueError, AddressForbidden) as error:  # TimeoutError is an OSError
            log.info("endpoint %s stays ejected: %s", endpoint.url, error)
            return
        if head.split(b" ", 2)[1:2] == [b"200"] and endpoint.health.ejected_until:
            endpoint.restore(self._clock.now_us())

    async def close(self) -> None:
        for task in list(self._probes):
            task.cancel()
        await asyncio.gather(*self._probes, return_exceptions=True)

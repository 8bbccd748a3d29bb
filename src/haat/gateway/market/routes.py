"""Services as dispatch needs them: every byte that doesn't change from call to call, prepared."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag

from haat.gateway.limits.plan import MICRO
from haat.gateway.market import versions
from haat.gateway.market.snapshot import Directory, Service, Version
from haat.gateway.upstreams.endpoints import Endpoint, Endpoints
from haat.gateway.upstreams.traffic import Traffic
from haat.infra.keyring import Keyring
from haat.infra.net import IPNetwork, hosted_networks, parse_networks
from haat.kernel.errors import HaatError, ProviderUnavailable, ServiceNotFound, ServiceSuspended

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.rollout.division import Arm, Division, Watches

Step = Callable[["Gateway", "Call"], bool]
"""Return True to go on; False when the step has taken the call over. Refuse by raising HaatError."""


def refusing(error: HaatError) -> Step:
    """Return the step of a version that can't be called."""

    def step(gateway: Gateway, call: Call) -> bool:
        raise error

    return step


class Route:
    """One version of one service. ``executing`` is another version when this one only adapts its shape.

    What belongs to its first endpoint is repeated here, one look-up away: a call of a service that has
    only this one, and has it in order, asks for nothing else.
    """

    __slots__ = (
        "_turn",
        "arm",
        "breaker",
        "credential_name",
        "division",
        "endpoint",
        "endpoints",
        "executing",
        "lines",
        "max_micro_units",
        "passes_forms",
        "passes_parts",
        "path_template",
        "pool",
        "reads_languages",
        "service",
        "simulated",
        "steps",
        "sunset_at",
        "target",
        "timeout_us",
        "traffic",
        "version",
    )

    def __init__(
        self, service: Service, version: Version, executing: Version, endpoints: tuple[Endpoint, ...], traffic: Traffic
    ) -> None:
        self.service, self.version, self.executing, self.traffic = service, version, executing, traffic
        self.endpoint = endpoints[0]
        self.endpoints = endpoints if len(endpoints) > 1 else ()
        """All of them when there is a choice, else nothing."""
        self.pool, self.breaker = self.endpoint.pool, self.endpoint.breaker
        self.credential_name = self.endpoint.credential_name
        self._turn = 0
        most = version.max_units or executing.max_units
        self.max_micro_units = int(Decimal(most) * MICRO) if most else 0
        self.timeout_us = executing.timeout_ms * 1000
        self.reads_languages = version.takes_tasks
        self.steps: tuple[Step, ...] = ()
        """What must happen with a request that is here whole before it goes to the provider."""
        self.passes_forms: bool = False
        """None of its steps has anything to do with a form that has files in it: it need not be here whole."""
        self.passes_parts: bool = False
        """None of its steps needs any request whole."""
        self.division: Division | None = None
        """Its calls are divided between versions; each has a route of its own."""
        self.arm: Arm | None = None
        """It is one of those."""
        self.lines: bytes = b""
        """What every answer says of the version."""
        self.sunset_at: int = versions.end_of(service, version)
        """When it ends, in microseconds since the epoch; 0 for never."""
        self.simulated: Route | None = None
        """What calls of test keys go through in its place, once one has come."""
        self.path_template = "/v1/services/{provider}/{service}/{path}"
        name = service.path if version.version == service.default_version else f"{service.path}@{version.version}"
        self.target: bytes = versions.PREFIX + name.encode("ascii")
        """The native address of its calls, up to what each of them adds."""

    def in_turn(self) -> tuple[Endpoint, ...]:
        """Return the endpoints, each time beginning with another one."""
        endpoints = self.endpoints
        if not endpoints:
            return (self.endpoint,)
        self._turn = turn = (self._turn + 1) % len(endpoints)
        return endpoints[turn:] + endpoints[:turn]


def _version(service: Service, wanted: str) -> Version:
    version = next((version for version in service.versions if version.version == wanted), None)
    if version is None:
        raise ServiceNotFound("The service has no such version; its page in the catalog lists them.")
    return version


class RouteTable:
    """Finds the route that ``provider/service`` or ``provider/service@version`` names."""

    def __init__(
        self,
        directory: Directory,
        keyring: Keyring,
        endpoints: Endpoints,
        allowed_networks: tuple[str, ...],
        prepare: Callable[[Route], None],
        models_address: str = "",
        watches: Watches | None = None,
    ) -> None:
        self._directory, self._keyring, self._endpoints, self._prepare = directory, keyring, endpoints, prepare
        self._allowed, self._models_address = allowed_networks, models_address
        self._watches = watches
        self._routes: dict[bytes, Route] = {}
        self._alike: dict[tuple[str, str, str, str], list[Route]] = {}
        self._generation = -1

    def find(self, name: bytes) -> Route:
        """Return the route; raise ServiceNotFound, ServiceSuspended or ProviderUnavailable."""
        self._keep_up()
        route = self._routes.get(name)
        if route is None:
            route = self._routes[name] = self._build(name.decode("ascii", "replace"))
        return route

    def _build(self, name: str) -> Route:
        path, at, wanted = name.partition("@")
        service = self._directory.services.get(path)
        if service is None:
            raise ServiceNotFound
        if service.status == "suspended":
            raise ServiceSuspended(f"The service is suspended: {service.reason}" if service.reason else None)
        if service.status not in ("published", "deprecated"):
            raise ServiceNotFound("The service was retired; the catalog names others.")
        if at or service.division is None:
            return self.make(service, wanted if at else service.default_version)
        route = self.make(service, service.division.control)
        if self._watches is not None:
            route.division = self._watches.divide(self, service, service.division)
        return route

    def make(self, service: Service, wanted: str) -> Route:
        """Return a new route to a version; raise ServiceNotFound or ProviderUnavailable."""
        version = _version(service, wanted)
        executing = _version(service, version.policy.serves) if version.policy.serves else version
        if executing.policy.serves:
            raise ServiceNotFound("The version adapts another one that is itself only an adapter.")
        credential = self.credential(service)
        urls = (executing.endpoint, *executing.policy.endpoints)
        endpoints = tuple(
            self._endpoints.of(service, executing, url, self.networks(service, url), credential) for url in urls
        )
        route = Route(service, version, executing, endpoints, self._endpoints.traffic(service.id))
        self._prepare(route)
        return route

    def networks(self, service: Service, url: str) -> tuple[IPNetwork, ...]:
        """Return the networks in which an endpoint of a service may lie beside the public ones."""
        hosted = hosted_networks(url, self._models_address, service.provider)
        return parse_networks(sorted({*self._allowed, *service.networks, *hosted}))

    def credential(self, service: Service) -> str:
        """Return what a provider expects with each call, empty for nothing; raise ProviderUnavailable."""
        try:
            return self._keyring.decrypt(service.credential, service.id) if service.credential else ""
        except InvalidTag as error:
            raise ProviderUnavailable("The provider's credential can't be read; the operator can renew it.") from error

    def _keep_up(self) -> None:
        """Forget what was made of a market that has changed since."""
        if self._generation != self._directory.services_generation:
            self._routes.clear()
            self._alike.clear()
            self._generation = self._directory.services_generation

    def of_capability(self, route: Route) -> list[Route]:
        """Return the services that can do what this one does, itself included: see `haat.gateway.upstreams.fallback`.

        A version that only adapts another's shape, or has its own requests changed on their way, stands
        in for nobody: what it is sent would not be what was sent here. Nor does one that calls its model otherwise.
        """
        self._keep_up()
        dialect, model = route.version.dialect, route.executing.policy.model
        wanted = (route.service.policy.capability, dialect, route.service.unit, model)
        found = self._alike.get(wanted)
        if found is None:
            found = self._alike[wanted] = []
            for service in self._directory.services.values():
                if (service.policy.capability, service.status, service.visibility) != (
                    wanted[0],
                    "published",
                    "public",
                ):
                    continue
                try:
                    other = self.find(service.path.encode("ascii"))
                except HaatError:
                    continue
                policy = other.version.policy
                adapts = policy.serves or policy.request or policy.answer or policy.websocket or policy.tensors
                if (other.version.dialect, service.unit, policy.model) == wanted[1:] and not adapts:
                    found.append(other)
        return found

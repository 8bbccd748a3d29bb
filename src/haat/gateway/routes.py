"""Services as dispatch needs them: every byte that doesn't change from call to call, prepared."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidTag

from haat.gateway.snapshot import Directory, Service, Version
from haat.gateway.upstream import Origin, Pool, Pools
from haat.infra.keyring import Keyring
from haat.infra.net import parse_networks
from haat.kernel.errors import ProviderUnavailable, ServiceNotFound, ServiceSuspended

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway

Step = Callable[["Gateway", "Call"], bool]
"""Return True to go on; False when the step has taken the call over. Refuse by raising HaatError."""
MICRO_UNITS = 1_000_000


class Route:
    """One version of one service. ``lines`` are the Host header and the provider's credential."""

    __slots__ = (
        "credential_name",
        "lines",
        "max_micro_units",
        "path_template",
        "pool",
        "prefix",
        "reads_languages",
        "service",
        "steps",
        "timeout_us",
        "version",
    )

    def __init__(self, service: Service, version: Version, pool: Pool, credential: str) -> None:
        parts = urlsplit(version.endpoint)
        authority = parts.netloc
        self.service, self.version, self.pool = service, version, pool
        self.prefix = parts.path.rstrip("/").encode("ascii")
        self.lines = f"Host: {authority}\r\n".encode("ascii")
        self.credential_name = b""
        if credential:
            self.credential_name = service.credential_header.lower().encode("ascii")
            self.lines += f"{service.credential_header}: {credential}\r\n".encode("latin-1")
        self.max_micro_units = int(Decimal(version.max_units) * MICRO_UNITS) if version.max_units else 0
        self.timeout_us = version.timeout_ms * 1000
        self.reads_languages = version.dialect == "task"
        self.steps: tuple[Step, ...] = ()
        """What must happen with a request that is here whole before it goes to the provider."""
        self.path_template = "/v1/services/{provider}/{service}/{path}"


class RouteTable:
    """Finds the route that ``provider/service`` or ``provider/service@version`` names."""

    def __init__(self, directory: Directory, keyring: Keyring, pools: Pools, allowed_networks: tuple[str, ...]) -> None:
        self._directory, self._keyring, self._pools = directory, keyring, pools
        self._allowed = allowed_networks
        self._routes: dict[bytes, Route] = {}
        self._generation = -1

    def find(self, name: bytes) -> Route:
        """Return the route; raise ServiceNotFound, ServiceSuspended or ProviderUnavailable."""
        if self._generation != self._directory.services_generation:
            self._routes.clear()
            self._generation = self._directory.services_generation
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
        wanted = wanted if at else service.default_version
        version = next((version for version in service.versions if version.version == wanted), None)
        if version is None:
            raise ServiceNotFound("The service has no such version; its page in the catalog lists them.")
        try:
            credential = self._keyring.decrypt(service.credential, service.id) if service.credential else ""
        except InvalidTag as error:
            raise ProviderUnavailable("The provider's credential can't be read; the operator can renew it.") from error
        networks = parse_networks({*self._allowed, *service.networks})
        pool = self._pools.of(Origin.parse(version.endpoint), networks)
        return Route(service, version, pool, credential)

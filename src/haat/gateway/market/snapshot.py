"""What the gateway knows about the market: everything a call needs, one dictionary look-up away.

Entries are immutable; a change replaces an entry, and calls in flight keep the one they began with.
How it is kept on disk is `haat.gateway.market.snapshot_file`'s business.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from haat.gateway.limits.plan import PlanLimits
from haat.gateway.market.policy import (
    NO_APPLICATION_POLICY,
    NO_SERVICE_POLICY,
    NO_VERSION_POLICY,
    ApplicationPolicy,
    DivisionPolicy,
    ServicePolicy,
    VersionPolicy,
)


class Credential(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An API key. Times are microseconds since the epoch, 0 for never. On disk the order of members counts."""

    id: str
    org: str
    application: str
    key_hash: bytes
    expires_at: int
    revoked_at: int
    test: bool = False
    """Its calls are answered by `haat.gateway.simulator`: they reach no provider and cost nothing."""
    only: str = ""
    """The paths of the services that it opens, each between spaces; empty when it opens all that its application may
    call."""


class Subscription(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What an application may call. On disk the order of members counts."""

    id: str
    org: str
    application: str
    service: str
    plan: str
    limits: PlanLimits
    zone: str
    started_at: int = 0
    """Microseconds since the epoch: where anniversaries count from."""
    fallback: bool = False
    """The plan lets another provider of the same capability answer."""
    cached_share: str = "1"
    """Part of the price charged for an answer out of the cache, decimal text."""
    prepaid: bool = False
    """The organisation's wallet must cover its calls before they are made."""
    stops: tuple[str, ...] = ()
    """The budgets that refuse calls which they don't cover."""


class Application(msgspec.Struct, frozen=True):
    """An application that says more than its subscriptions do; one that doesn't has no entry."""

    id: str
    policy: ApplicationPolicy = NO_APPLICATION_POLICY


class Version(msgspec.Struct, frozen=True):
    """One version: ``max_units`` is decimal text or empty, ``dialect`` as in ``docs/protocols.md``."""

    version: str
    endpoint: str
    timeout_ms: int
    max_body_bytes: int
    max_units: str
    dialect: str
    policy: VersionPolicy = NO_VERSION_POLICY
    languages: tuple[str, ...] = ()
    language_pairs: tuple[str, ...] = ()
    health_path: str = ""
    """Answers 200 while the endpoint is well; empty when it has none."""

    @property
    def takes_tasks(self) -> bool:
        """Whether it is called in the task schema, whatever its endpoint is then asked in."""
        return self.dialect in ("task", "inference", "ulca")


class Price(msgspec.Struct, frozen=True):
    """A version of what a unit costs, decimal texts; ``plan`` is empty for plans without a price of their own."""

    plan: str
    unit: str
    unit_price: str
    free_units: str
    effective_from: int
    """Microseconds since the epoch."""
    plain: bool = True
    """Whether that is all that is asked for; otherwise ``unit_price`` is what the card is known by."""
    most: tuple[tuple[str, str, str, str], ...] = ()
    """What a call costs at most where it isn't plain: the members of `haat.wallet.prices.Most`."""


class Service(msgspec.Struct, frozen=True):
    """A listing with its accepted versions. ``suspended`` covers the provider's own suspension."""

    id: str
    provider: str
    provider_org: str
    slug: str
    status: str
    reason: str
    unit: str
    region: str
    networks: tuple[str, ...]
    """Networks that this provider's endpoints may lie in although they are not public."""
    credential_header: str
    credential: bytes
    """The value of that header, encrypted; empty when the provider wants none."""
    versions: tuple[Version, ...]
    """Those that were accepted and are not retired."""
    default_version: str
    policy: ServicePolicy = NO_SERVICE_POLICY
    category: str = "custom"
    retains_inputs: bool = False
    max_per_second: int = 0
    """What the provider is ready to take from all callers together; 0 is not said."""
    visibility: str = "public"
    deprecated_at: int = 0
    """When its end was announced, in microseconds since the epoch; 0 while it isn't."""
    sunset_at: int = 0
    """When it ends."""
    prices: tuple[Price, ...] = ()
    """Those in force and those to come."""
    division: DivisionPolicy | None = None
    """How calls are divided between versions at present."""
    maintenance: tuple[tuple[int, int], ...] = ()
    """Announced windows in which it takes no calls, in microseconds since the epoch: begun and to come, in order."""

    @property
    def path(self) -> str:
        return f"{self.provider}/{self.slug}"


class Position(msgspec.Struct, frozen=True):
    """A place in the event log."""

    xid: int = 0
    seq: int = 0
    event: str = ""
    """The id of the event at that place: another database may have another one there."""


class Snapshot(msgspec.Struct):
    """All entries at a position of the event log, as they are loaded and stored."""

    position: Position = Position()
    credentials: list[Credential] = []
    subscriptions: list[Subscription] = []
    services: list[Service] = []
    applications: list[Application] = []
    shape: str = ""


class Part(msgspec.Struct, array_like=True):
    """Some entries of a snapshot, or a change: what ``gone`` names (kind, id) is removed, the rest set."""

    position: Position | None = None
    gone: list[tuple[str, str]] = []
    credentials: list[Credential] = []
    subscriptions: list[Subscription] = []
    services: list[Service] = []
    applications: list[Application] = []


_SHARED = ("org", "application", "service", "plan", "limits", "zone", "cached_share")


def sharing(part: Part, shared: dict[Any, Any]) -> Part:
    """Let equal members of many entries be one object: that halves what they weigh."""
    share = shared.setdefault
    part.credentials = [
        Credential(
            entry.id,
            share(entry.org, entry.org),
            share(entry.application, entry.application),
            entry.key_hash,
            entry.expires_at,
            entry.revoked_at,
            entry.test,
            share(entry.only, entry.only),
        )
        for entry in part.credentials
    ]
    part.subscriptions = [
        structs.replace(entry, **{name: share(value, value) for name in _SHARED if (value := getattr(entry, name))})
        for entry in part.subscriptions
    ]
    return part


class Directory:
    """The entries as calls look them up. Changed only from the event loop, between two calls."""

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self.position = Position()
        self.credentials: dict[bytes, Credential] = {}
        self.subscriptions: dict[tuple[str, str], Subscription] = {}
        self.services: dict[str, Service] = {}
        self.applications: dict[str, Application] = {}
        self._hashes: dict[str, bytes] = {}
        self._subscription_keys: dict[str, tuple[str, str]] = {}
        self._paths: dict[str, str] = {}
        self.generation = 0
        """Counts all changes, for what is derived from several entries."""
        self.services_generation = 0
        """Counts the changes of services, for what is derived from them."""
        self.loaded = False
        self.shape = ""
        """How the tables looked that this was read from; see `haat.gateway.market.store.shape`."""
        if snapshot is not None:
            self.replace(snapshot)

    def replace(self, snapshot: Snapshot) -> None:
        """Forget everything and take over a snapshot."""
        self.credentials = {entry.key_hash: entry for entry in snapshot.credentials}
        self._hashes = {entry.id: entry.key_hash for entry in snapshot.credentials}
        self.subscriptions = {(entry.application, entry.service): entry for entry in snapshot.subscriptions}
        self._subscription_keys = {entry.id: (entry.application, entry.service) for entry in snapshot.subscriptions}
        self.services = {entry.path: entry for entry in snapshot.services}
        self._paths = {entry.id: entry.path for entry in snapshot.services}
        self.applications = {entry.id: entry for entry in snapshot.applications}
        self.generation += 1
        self.services_generation += 1
        self.position, self.shape = snapshot.position, snapshot.shape
        self.loaded = True

    def put_credential(self, identifier: str, entry: Credential | None) -> None:
        self.generation += 1
        old = self._hashes.pop(identifier, None)
        if old is not None:
            del self.credentials[old]
        if entry is not None:
            self.credentials[entry.key_hash] = entry
            self._hashes[identifier] = entry.key_hash

    def put_subscription(self, identifier: str, entry: Subscription | None) -> None:
        """Set or remove a subscription; an ended one doesn't remove the one that took its place."""
        self.generation += 1
        key = self._subscription_keys.pop(identifier, None)
        if key is not None and self.subscriptions[key].id == identifier:
            del self.subscriptions[key]
        if entry is not None:
            key = (entry.application, entry.service)
            self.subscriptions[key] = entry
            self._subscription_keys[identifier] = key

    def put_service(self, identifier: str, entry: Service | None) -> None:
        self.generation += 1
        self.services_generation += 1
        old = self._paths.pop(identifier, None)
        if old is not None:
            del self.services[old]
        if entry is not None:
            self.services[entry.path] = entry
            self._paths[identifier] = entry.path

    def put_application(self, identifier: str, entry: Application | None) -> None:
        self.generation += 1
        if entry is None:
            self.applications.pop(identifier, None)
        else:
            self.applications[identifier] = entry

    def hash_of(self, credential: str) -> bytes | None:
        """Return the hash of the key that a credential has, by the credential's id."""
        return self._hashes.get(credential)

    def renew(self) -> None:
        """Have everything derived anew although no entry has changed."""
        self.generation += 1
        self.services_generation += 1

    def apply(self, part: Part) -> None:
        """Take over a part of a snapshot, or a change."""
        for kind, identifier in part.gone:
            if kind == "credential":
                self.put_credential(identifier, None)
            elif kind == "subscription":
                self.put_subscription(identifier, None)
            elif kind == "service":
                self.put_service(identifier, None)
            else:
                self.put_application(identifier, None)
        for credential in part.credentials:
            self.put_credential(credential.id, credential)
        for subscription in part.subscriptions:
            self.put_subscription(subscription.id, subscription)
        for service in part.services:
            self.put_service(service.id, service)
        for application in part.applications:
            self.put_application(application.id, application)
        if part.position is not None:
            self.position = part.position

    def take_over(self, other: Directory) -> None:
        """Forget everything and be as another directory, which is used up: at once, however large they are."""
        self.credentials, self._hashes = other.credentials, other._hashes
        self.subscriptions, self._subscription_keys = other.subscriptions, other._subscription_keys
        self.services, self._paths = other.services, other._paths
        self.applications = other.applications
        self.position, self.shape = other.position, other.shape
        self.generation += 1
        self.services_generation += 1
        self.loaded = True

    def snapshot(self) -> Snapshot:
        """Return the present entries for keeping."""
        return Snapshot(
            self.position,
            list(self.credentials.values()),
            list(self.subscriptions.values()),
            list(self.services.values()),
            list(self.applications.values()),
            self.shape,
        )


def save(path: Path, content: bytes) -> None:
    """Replace a file at once and for good: it is whole at any moment."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise

"""What the gateway knows about the market: everything a call needs, one dictionary look-up away.

Entries are immutable; a change replaces an entry, and calls in flight keep the one they began with.
The snapshot is kept on disk, so that a gateway that starts while PostgreSQL is down still serves.
On disk it holds nothing that PostgreSQL doesn't hold in the same form: API keys as keyed hashes,
provider credentials encrypted; a MAC under the master key tells it from a damaged or foreign file.
"""

from __future__ import annotations

import contextlib
import hmac
import os
from pathlib import Path

import msgspec

from haat.gateway.limits import PlanLimits
from haat.gateway.policy import (
    NO_APPLICATION_POLICY,
    NO_SERVICE_POLICY,
    NO_VERSION_POLICY,
    ApplicationPolicy,
    ServicePolicy,
    VersionPolicy,
)
from haat.infra.keyring import Keyring


class Credential(msgspec.Struct, frozen=True, gc=False):
    """An API key. Times are microseconds since the epoch, 0 for never."""

    id: str
    org: str
    application: str
    key_hash: bytes
    expires_at: int
    revoked_at: int


class Subscription(msgspec.Struct, frozen=True):
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


class Application(msgspec.Struct, frozen=True):
    """An application that says more than its subscriptions do; one that doesn't has no entry."""

    id: str
    policy: ApplicationPolicy = NO_APPLICATION_POLICY


class Version(msgspec.Struct, frozen=True):
    """One version: ``max_units`` is decimal text or empty, ``dialect`` is ``task`` or ``http``."""

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

    @property
    def path(self) -> str:
        return f"{self.provider}/{self.slug}"


class Position(msgspec.Struct, frozen=True):
    """A place in the event log."""

    xid: int = 0
    seq: int = 0


class Snapshot(msgspec.Struct):
    """All entries at a position of the event log, as they are loaded and stored."""

    position: Position = Position()
    credentials: list[Credential] = []
    subscriptions: list[Subscription] = []
    services: list[Service] = []
    applications: list[Application] = []


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
        self.position = snapshot.position
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

    def snapshot(self) -> Snapshot:
        """Return the present entries for keeping."""
        return Snapshot(
            self.position,
            list(self.credentials.values()),
            list(self.subscriptions.values()),
            list(self.services.values()),
            list(self.applications.values()),
        )


class UnusableSnapshot(Exception):
    """The file is damaged, of another version or of another platform."""


_MAGIC = b"HAATSNAP\x01"
_MAC_BYTES = 32
_decoder = msgspec.msgpack.Decoder(Snapshot)


def encode(snapshot: Snapshot, keyring: Keyring) -> bytes:
    body = msgspec.msgpack.encode(snapshot)
    return _MAGIC + hmac.digest(keyring.derive("gateway-snapshot"), body, "sha256") + body


def save(path: Path, content: bytes) -> None:
    """Replace the file at once and for good: it is whole at any moment."""
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


def load(path: Path, keyring: Keyring) -> Snapshot:
    """Read a kept snapshot; raise FileNotFoundError or UnusableSnapshot."""
    content = path.read_bytes()
    body = content[len(_MAGIC) + _MAC_BYTES :]
    if not content.startswith(_MAGIC):
        raise UnusableSnapshot(f"{path} is not a snapshot of this version")
    mac = hmac.digest(keyring.derive("gateway-snapshot"), body, "sha256")
    if not hmac.compare_digest(mac, content[len(_MAGIC) : len(_MAGIC) + _MAC_BYTES]):
        raise UnusableSnapshot(f"{path} is damaged, or was made under another master key")
    try:
        return _decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise UnusableSnapshot(f"{path} can't be read: {error}") from error

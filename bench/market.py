"""A market for the gateway to know: as many keys, subscriptions and services as wanted."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from haat.gateway.limits.registry import PlanLimits
from haat.gateway.market import snapshot_file
from haat.gateway.market.snapshot import Credential, Service, Snapshot, Subscription, Version
from haat.identity.model import make_key
from haat.infra.keyring import Keyring
from haat.kernel.ids import new_id

PROVIDER = "acme"
PLAN = "bench"
ZONE = "Asia/Kolkata"
LIMITS = PlanLimits(
    per_minute=3_000_000,
    per_hour=100_000_000,
    per_day=1_000_000_000,
    quota_per_month=10_000_000_000,
    max_concurrent=4096,
)
"""Three windows, a quota and a concurrency that are counted on each call and never reached."""


@dataclass(frozen=True, slots=True)
class Market:
    """``keys`` are those that can be used: the first key of the first applications."""

    snapshot: Snapshot
    keys: list[str]


def make_market(
    keyring: Keyring,
    services: list[Service],
    *,
    applications: int = 1,
    keys_each: int = 1,
    usable: int = 1,
    limits: PlanLimits = LIMITS,
) -> Market:
    """Return a market whose applications subscribe to each of these services.

    Only ``usable`` keys are made as texts; of the others nobody needs more than the stored hash.
    """
    keys: list[str] = []
    credentials: list[Credential] = []
    subscriptions: list[Subscription] = []
    ids, hashes = _ids(), os.urandom(32 * applications * keys_each)
    for _ in range(applications):
        application, org = next(ids), next(ids)
        for number in range(keys_each):
            if number == 0 and len(keys) < usable:
                keys.append(make_key())
                key_hash = keyring.hash_key(keys[-1])
            else:
                key_hash = hashes[32 * len(credentials) : 32 * len(credentials) + 32]
            credentials.append(Credential(next(ids), org, application, key_hash, 0, 0))
        for offered in services:
            subscriptions.append(
                Subscription(next(ids), org, application, offered.id, plan=PLAN, limits=limits, zone=ZONE)
            )
    return Market(Snapshot(credentials=credentials, subscriptions=subscriptions, services=services), keys)


def service(
    slug: str, endpoint: str, *, dialect: str = "http", unit: str = "requests", category: str = "custom"
) -> Service:
    """Return a published service of one version."""
    version = Version(
        version="1",
        endpoint=endpoint,
        timeout_ms=30_000,
        max_body_bytes=1 << 20,
        max_units="",
        dialect=dialect,
    )
    return Service(
        id=str(new_id()),
        provider=PROVIDER,
        provider_org=str(new_id()),
        slug=slug,
        status="published",
        reason="",
        unit=unit,
        region="IN",
        networks=("127.0.0.0/8",),
        credential_header="",
        credential=b"",
        versions=(version,),
        default_version="1",
        category=category,
    )


def _ids() -> Iterator[str]:
    """Yield UUIDs one after the other: a million of `new_id` would take longer than the start they are for."""
    for number in itertools.count(uuid4().int):
        digits = f"{number:032x}"
        yield f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def keep(market: Market, keyring: Keyring, data_dir: Path) -> None:
    """Lay the market where a gateway finds it when it starts without a database."""
    snapshot_file.write(data_dir / "gateway" / "snapshot.bin", market.snapshot, keyring)

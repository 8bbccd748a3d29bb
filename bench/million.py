"""A million API keys: how soon a gateway with them serves, what they weigh, what a call costs then."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from psycopg import Connection

from bench import market, servers
from bench.load import Target
from bench.market import Market
from bench.measure import MEGABYTE, rss_megabytes
from bench.servers import Upstreams
from haat.gateway.market.snapshot import Subscription
from haat.infra.dsn import dsn_for
from haat.infra.keyring import Keyring
from haat.infra.prepare import database_server, prepare_database
from haat.kernel.ids import new_id
from haat.settings import Settings

KEYS, SUBSCRIPTIONS = 1_000_000, 100_000
USED = 1_000
"""Keys that the load uses in turn, the same number against the small and the large market."""
START_PATIENCE = 120.0


@dataclass(frozen=True, slots=True)
class Started:
    """A gateway and how long it took from its process's start to its first good answer."""

    target: Target
    seconds: float
    rss_mb: float


def build(data_dir: Path, up: Upstreams, *, large: bool, share: int = 1) -> Market:
    """Lay down a data directory: with one in ``share`` of a million keys, or with only those that the load uses."""
    applications = SUBSCRIPTIONS // share if large else USED
    keyring = Keyring.load(data_dir)
    made = market.make_market(
        keyring,
        servers.services(up)[:1],
        applications=applications,
        keys_each=KEYS // SUBSCRIPTIONS if large else 1,
        usable=USED,
    )
    market.keep(made, keyring, data_dir)
    (data_dir / "keys").write_text("\n".join(made.keys) + "\n")
    return made


@contextlib.contextmanager
def started(name: str, data_dir: Path, key: str) -> Iterator[Started]:
    """Start a gateway from what its data directory has and time it."""
    began = time.monotonic()
    with servers.gateway(name, data_dir, key, patience=START_PATIENCE) as target:
        seconds = time.monotonic() - began
        rotating = replace(target, keys=data_dir / "keys")
        yield Started(rotating, seconds, rss_megabytes(target.pid))


def bytes_per_key(large: Started, small: Started) -> float:
    """Return what a key weighs in the gateway, its share of a subscription (a tenth) with it."""
    return (large.rss_mb - small.rss_mb) * MEGABYTE / (KEYS - USED)


# --- the same market in PostgreSQL -------------------------------------------------------------


@contextlib.contextmanager
def database(data_dir: Path, made: Market) -> Iterator[None]:
    """Run the embedded PostgreSQL of a data directory with the market in it."""
    settings = Settings(data_dir=data_dir)
    keyring = Keyring.load(settings.data_dir)
    with database_server(settings, keyring):
        prepare_database(settings, keyring)
        fill(settings, keyring, made)
        yield


def fill(settings: Settings, keyring: Keyring, made: Market) -> None:
    """Copy a market's entries into the tables that the gateway's feed reads."""
    now = datetime.now(UTC)
    subscriptions, services = made.snapshot.subscriptions, made.snapshot.services
    with psycopg.connect(dsn_for(settings, keyring, "owner")) as connection:
        # The rows fit together by construction: looking up each foreign key would take most of the time.
        connection.execute("SET LOCAL session_replication_role = replica")
        plan = connection.execute("SELECT id FROM plans WHERE code = 'enterprise'").fetchone()
        assert plan is not None
        providers = {listing.provider: listing.provider_org for listing in services}
        organisations = [(org, "provider") for org in providers.values()]
        organisations += [(org, "consumer") for org in dict.fromkeys(entry.org for entry in subscriptions)]
        _copy(
            connection,
            "organisations (id, name, kind, created_at)",
            ((org, "Bench", kind, now) for org, kind in organisations),
        )
        _copy(
            connection,
            "partners (org_id, slug, company_name, email, contact_person, business_type, status, allowed_networks, "
            "created_at)",
            (
                (org, slug, "Bench", "bench@localhost", "Bench", "company", "approved", ["127.0.0.0/8"], now)
                for slug, org in providers.items()
            ),
        )
        _copy(
            connection,
            "services (id, org_id, provider_slug, slug, name, category, status, status_at, unit, created_at)",
            (
                (s.id, s.provider_org, s.provider, s.slug, s.slug, "custom", "published", now, s.unit, now)
                for s in services
            ),
        )
        _copy(
            connection,
            "service_versions (id, service_id, version, endpoint, dialect, is_default, accepted_at, created_at)",
            ((new_id(), s.id, v.version, v.endpoint, v.dialect, True, now, now) for s in services for v in s.versions),
        )
        _copy(
            connection,
            "applications (id, org_id, name, created_at)",
            ((entry.application, entry.org, "Bench", now) for entry in _one_an_application(subscriptions)),
        )
        _copy(
            connection,
            "credentials (id, org_id, application_id, prefix, last_four, key_hash, created_at)",
            (
                (entry.id, entry.org, entry.application, "haat_live_0000", "0000", entry.key_hash, now)
                for entry in made.snapshot.credentials
            ),
        )
        _copy(
            connection,
            "subscriptions (id, org_id, application_id, service_id, plan_id, status, started_at)",
            ((s.id, s.org, s.application, s.service, plan[0], "active", now) for s in subscriptions),
        )


def _one_an_application(subscriptions: list[Subscription]) -> list[Subscription]:
    return list({entry.application: entry for entry in subscriptions}.values())


def _copy(connection: Connection, table: str, rows: Iterator[tuple[object, ...]]) -> None:
    with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)

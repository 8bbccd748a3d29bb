"""The market of the money benchmark, in a database of its own: 20 providers, 100 services, 10,000 subscriptions.

Some customers call much more often than others: the n-th of N has its share of calls by the cube of a random number,
so the first has about a twentieth.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import psycopg

from haat.infra.dsn import dsn_for
from haat.infra.keyring import Keyring
from haat.infra.prepare import database_server, prepare_database
from haat.settings import Settings

PROVIDERS, SERVICES, SUBSCRIPTIONS = 20, 100, 10_000
PAIRS = ("hi-Deva>en-Latn", "hi-Deva>ur-Arab", "ta-Taml>en-Latn", "bn-Beng>en-Latn", "")


@dataclass(frozen=True, slots=True)
class Database:
    """A running server with the market in it."""

    settings: Settings
    keyring: Keyring

    def dsn(self, role: str) -> str:
        if role not in ("owner", "app", "service"):
            raise ValueError(f"no role {role}")
        return dsn_for(self.settings, self.keyring, role)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Bought:
    """A subscription and what a usage event says of it."""

    id: UUID
    org: UUID
    application: UUID
    service: UUID
    slug: str
    provider: str
    provider_org: UUID


@contextlib.contextmanager
def database(data_dir: Path, subscriptions: int = SUBSCRIPTIONS) -> Iterator[Database]:
    """Run an embedded PostgreSQL as an installation has it, with the market in it: each customer subscribed once."""
    settings = Settings(data_dir=data_dir)
    keyring = Keyring.load(data_dir)
    with database_server(settings, keyring):
        prepare_database(settings, keyring)
        made = Database(settings, keyring)
        with psycopg.connect(made.dsn("owner")) as connection:
            connection.execute(_MARKET.format(subscriptions=subscriptions))
        yield made


def subscriptions(made: Database) -> list[Bought]:
    """Return all subscriptions, in the order of how much they call."""
    with psycopg.connect(made.dsn("owner")) as connection:
        rows = connection.execute(
            """
            SELECT bought.id, bought.org_id, bought.application_id, services.id, services.slug, services.provider_slug,
                   services.org_id
            FROM subscriptions AS bought JOIN services ON services.id = bought.service_id
            JOIN organisations ON organisations.id = bought.org_id ORDER BY organisations.name
            """
        ).fetchall()
    return [Bought(*row) for row in rows]


_MARKET = f"""
    SET LOCAL session_replication_role = replica; -- the rows fit together by construction
    INSERT INTO organisations (id, name, kind, zone, created_at)
        VALUES (gen_random_uuid(), 'Operator', 'operator', 'Asia/Kolkata', now());
    CREATE TEMPORARY TABLE sellers ON COMMIT DROP AS
        SELECT n, gen_random_uuid() AS org FROM generate_series(1, {PROVIDERS}) AS n;
    INSERT INTO organisations (id, name, kind, zone, created_at)
        SELECT org, format('Provider %s', n), 'provider', 'Asia/Kolkata', now() FROM sellers;
    INSERT INTO partners (org_id, slug, company_name, email, contact_person, business_type, status, created_at)
        SELECT org, format('provider-%s', n), format('Provider %s', n), 'a@b.example', 'A B', 'company', 'approved',
               now() FROM sellers;
    CREATE TEMPORARY TABLE sold ON COMMIT DROP AS
        SELECT place AS n, gen_random_uuid() AS id, sellers.org, sellers.n AS seller
        FROM generate_series(1, {SERVICES}) AS place JOIN sellers ON sellers.n = place % {PROVIDERS} + 1;
    INSERT INTO services (id, org_id, provider_slug, slug, name, category, status, status_at, unit, created_at)
        SELECT id, org, format('provider-%s', seller), format('service-%s', n), format('Service %s', n), 'nlp',
               'published', now(), 'characters', now() FROM sold;
    INSERT INTO rate_cards (id, service_id, version, unit, unit_price, free_units, provider_share, effective_from,
            created_at)
        SELECT gen_random_uuid(), id, 1, 'characters', 0.0002, 1000, 0.7, now() - interval '300 days', now() FROM sold;
    CREATE TEMPORARY TABLE buyers ON COMMIT DROP AS
        SELECT n, gen_random_uuid() AS org, gen_random_uuid() AS application
        FROM generate_series(1, {{subscriptions}}) AS n;
    INSERT INTO organisations (id, name, kind, zone, state_code, address, created_at)
        SELECT org, format('Customer %s', lpad(n::text, 6, '0')), 'consumer', 'Asia/Kolkata', '29', '4 Bazaar Road',
               now() FROM buyers;
    INSERT INTO applications (id, org_id, name, created_at) SELECT application, org, 'storefront', now() FROM buyers;
    INSERT INTO subscriptions (id, org_id, application_id, service_id, plan_id, status, started_at)
        SELECT gen_random_uuid(), buyers.org, application, sold.id, plans.id, 'active', now() - interval '200 days'
        FROM buyers JOIN sold ON sold.n = buyers.n % {SERVICES} + 1
        CROSS JOIN plans WHERE plans.code = 'basic' AND plans.service_id IS NULL;
"""

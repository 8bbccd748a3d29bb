"""Below the application: what a forgotten filter shows and a forgotten check changes."""

from __future__ import annotations

from uuid import uuid4

import psycopg
import pytest

from haat.infra.migrate import migrate
from haat.infra.postgres import PLATFORM_SCOPE, PUBLIC, Scope, tenant
from market import Market

TABLES = ["service_versions", "rate_cards", "plans", "service_invitations"]


async def _seen(market: Market, table: str, scope: Scope) -> int:
    async with market.db.transaction(scope) as connection:
        rows = await connection.execute(f"SELECT FROM {table} WHERE service_id IS NOT NULL")
        return len(await rows.fetchall())


async def test_versions_are_seen_where_their_service_is(market: Market) -> None:
    provider, stranger = await market.provider(), await market.consumer()
    await market.shelf(provider, "draft")
    await market.listing(provider, "hidden", visibility="invited")
    await market.listing(provider, "members", visibility="members")
    await market.listing(provider, "open")
    seen = [
        await _seen(market, "service_versions", scope)
        for scope in (PUBLIC, tenant(stranger.org_id), tenant(provider.org_id), PLATFORM_SCOPE)
    ]
    assert seen == [1, 2, 4, 4]


async def test_invitations_are_seen_by_the_invited(market: Market) -> None:
    provider, guest, stranger = await market.provider(), await market.consumer(), await market.consumer()
    assert guest.org_id
    listing = await market.listing(provider, visibility="invited")
    await market.catalog.invite(provider, listing.id, guest.org_id)
    seen = [
        await _seen(market, "service_invitations", scope)
        for scope in (PUBLIC, tenant(stranger.org_id), tenant(guest.org_id))
    ]
    assert seen == [0, 0, 1]
    assert (await market.discovery.listing_by_id(guest, listing.id)).id == listing.id


INTRUSIONS = [
    "UPDATE service_versions SET endpoint = 'http://evil.example' WHERE service_id = %(service)s",
    "UPDATE plans SET per_minute = 1000000",
    "DELETE FROM service_versions WHERE service_id = %(service)s",
    "DELETE FROM rate_cards WHERE service_id = %(service)s",
    "DELETE FROM plans",
    "DELETE FROM service_invitations",
]
INSERTIONS = [
    "INSERT INTO service_invitations (service_id, org_id) VALUES (%(service)s, %(org)s)",
    """INSERT INTO rate_cards (id, service_id, version, unit, unit_price, provider_share, effective_from, created_at)
       VALUES (%(id)s, %(service)s, 2, 'requests', 0, 0.7, now(), now())""",
    "INSERT INTO plans (id, service_id, code, name) VALUES (%(id)s, %(service)s, 'own', 'Own')",
    "INSERT INTO plans (id, code, name) VALUES (%(id)s, 'everybodys', 'Everybody''s')",
    """INSERT INTO service_versions (id, service_id, version, endpoint, dialect, created_at)
       VALUES (%(id)s, %(service)s, '2', 'http://evil.example', 'http', now())""",
]


async def test_nobody_changes_what_hangs_on_somebody_elses_service(market: Market) -> None:
    provider, rival = await market.provider(), await market.provider()
    assert rival.org_id
    listing = await market.listing(provider)
    await market.subscriptions.define_plan(provider, listing.id, code="school", name="School")
    values = {"service": listing.id, "org": rival.org_id}
    for statement in INTRUSIONS:
        async with market.db.transaction(tenant(rival.org_id)) as connection:
            assert (await connection.execute(statement, values)).rowcount == 0, statement
    for statement in INSERTIONS:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with market.db.transaction(tenant(rival.org_id)) as connection:
                await connection.execute(statement, {**values, "id": uuid4()})
    async with market.db.transaction(tenant(provider.org_id)) as connection:
        changed = await connection.execute("UPDATE service_versions SET endpoint = 'http://8.8.4.4'")
        assert changed.rowcount == 1


def test_the_policies_go_and_come_back_with_their_revision(database_name: str, cluster: object) -> None:
    dsn = cluster.dsn("owner", database_name)  # type: ignore[attr-defined]  # the fixture's class is a conftest's own

    def secured() -> set[str]:
        with psycopg.connect(dsn) as connection:
            rows = connection.execute(
                "SELECT relname FROM pg_class WHERE relrowsecurity AND relname = ANY (%s)", (TABLES,)
            )
            return {row[0] for row in rows}

    assert secured() == set(TABLES)
    migrate(dsn, "0003")
    assert secured() == set()
    migrate(dsn)
    assert secured() == set(TABLES)

"""Tenancy: what a transaction sees is decided below the query."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest

from haat.infra.postgres import PLATFORM_SCOPE, PUBLIC, Database, Scope, tenant
from haat.kernel.ids import new_id

AT = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
async def two_tenants(database: Any) -> AsyncIterator[tuple[UUID, UUID]]:
    ours, theirs = new_id(), new_id()
    async with database.app.transaction(PLATFORM_SCOPE) as connection:
        for org in (ours, theirs):
            await connection.execute(
                "INSERT INTO organisations (id, name, kind, created_at) VALUES (%s, 'x', 'consumer', %s)", (org, AT)
            )
            await connection.execute(
                "INSERT INTO applications (id, org_id, name, created_at) VALUES (%s, %s, 'app', %s)",
                (new_id(), org, AT),
            )
    yield ours, theirs


async def organisations_seen(db: Database, scope: Scope) -> set[UUID]:
    """Ask for applications with the filter forgotten."""
    async with db.transaction(scope) as connection:
        rows = await connection.execute("SELECT org_id FROM applications")
        return {row["org_id"] async for row in rows}


async def test_a_forgotten_filter_returns_only_the_tenants_own_rows(
    database: Any, two_tenants: tuple[UUID, UUID]
) -> None:
    ours, _ = two_tenants
    assert await organisations_seen(database.app, tenant(ours)) == {ours}


async def test_a_query_without_a_scope_returns_nothing(database: Any, two_tenants: tuple[UUID, UUID]) -> None:
    assert await organisations_seen(database.app, PUBLIC) == set()


async def test_the_platform_sees_every_tenant(database: Any, two_tenants: tuple[UUID, UUID]) -> None:
    assert await organisations_seen(database.app, PLATFORM_SCOPE) == set(two_tenants)


async def test_the_service_role_sees_every_tenant_without_a_scope(
    database: Any, two_tenants: tuple[UUID, UUID]
) -> None:
    assert await organisations_seen(database.service, PUBLIC) == set(two_tenants)


async def test_a_tenant_can_not_write_another_tenants_row(database: Any, two_tenants: tuple[UUID, UUID]) -> None:
    ours, theirs = two_tenants
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with database.app.transaction(tenant(ours)) as connection:
            await connection.execute(
                "INSERT INTO applications (id, org_id, name, created_at) VALUES (%s, %s, 'theirs', %s)",
                (new_id(), theirs, AT),
            )


async def test_a_tenant_can_not_change_another_tenants_row(database: Any, two_tenants: tuple[UUID, UUID]) -> None:
    ours, theirs = two_tenants
    async with database.app.transaction(tenant(ours)) as connection:
        changed = await connection.execute("UPDATE applications SET name = 'mine' WHERE org_id = %s", (theirs,))
        assert changed.rowcount == 0


async def test_a_scope_ends_with_its_transaction(database: Any, two_tenants: tuple[UUID, UUID]) -> None:
    async with Database(database.app.dsn, max_size=1) as one_connection:
        assert await organisations_seen(one_connection, PLATFORM_SCOPE) == set(two_tenants)
        async with one_connection.transaction(PUBLIC) as connection:
            row = await (await connection.execute("SELECT current_setting('haat.scope', true) AS scope")).fetchone()
            assert row is not None
            assert row["scope"] == ""
        assert await organisations_seen(one_connection, PUBLIC) == set()


async def test_a_scope_ends_with_a_failed_transaction_too(database: Any, two_tenants: tuple[UUID, UUID]) -> None:
    async with Database(database.app.dsn, max_size=1) as one_connection:
        with pytest.raises(ZeroDivisionError):
            async with one_connection.transaction(PLATFORM_SCOPE):
                raise ZeroDivisionError
        assert await organisations_seen(one_connection, PUBLIC) == set()


async def test_the_application_is_neither_superuser_nor_owner_nor_above_the_policies(database: Any) -> None:
    async with database.app.transaction(PUBLIC) as connection:
        role = await (
            await connection.execute(
                "SELECT rolname, rolsuper, rolbypassrls, rolcreaterole FROM pg_roles WHERE rolname = current_user"
            )
        ).fetchone()
        owned = await (
            await connection.execute("SELECT count(*) AS tables FROM pg_tables WHERE tableowner = current_user")
        ).fetchone()
    assert role == {"rolname": "haat_app", "rolsuper": False, "rolbypassrls": False, "rolcreaterole": False}
    assert owned == {"tables": 0}


async def test_every_table_with_an_organisation_is_under_row_level_security(database: Any) -> None:
    async with database.app.transaction(PUBLIC) as connection:
        rows = await connection.execute(
            """
            SELECT class.relname FROM pg_class AS class
            JOIN pg_attribute AS attribute ON attribute.attrelid = class.oid
            WHERE class.relkind IN ('r', 'p') AND class.relnamespace = 'public'::regnamespace
              AND NOT class.relispartition AND attribute.attname = 'org_id' AND NOT class.relrowsecurity
            """
        )
        open_tables = {row["relname"] async for row in rows}
    assert open_tables - {"service_invitations"} == set()


def test_a_tenant_scope_needs_an_organisation() -> None:
    with pytest.raises(ValueError, match="organisation"):
        tenant(None)


_MAY = """
    SELECT class.oid::regclass::text AS place, may.what, (SELECT string_agg(quote_ident(attname) || ' = DEFAULT', ', ')
        FROM pg_attribute WHERE attrelid = class.oid AND attnum > 0 AND NOT attisdropped
            AND has_column_privilege(class.oid, attnum, 'UPDATE')) AS columns
    FROM pg_class AS class, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS may (what)
    WHERE class.relrowsecurity AND has_table_privilege(class.oid, may.what)
"""


async def test_no_policy_asks_itself_in_a_circle(database: Any) -> None:
    """PostgreSQL finds a circle of policies when it plans a statement, so each that may be made is planned."""
    planned = set()
    async with database.app.transaction(PLATFORM_SCOPE) as connection:
        for row in await (await connection.execute(_MAY)).fetchall():
            place, what = row["place"], row["what"]
            statement = {
                "SELECT": f"SELECT FROM {place}",
                "INSERT": f"INSERT INTO {place} DEFAULT VALUES",
                "UPDATE": f"UPDATE {place} SET {row['columns']}",
                "DELETE": f"DELETE FROM {place}",
            }[what]
            await connection.execute(f"EXPLAIN {statement}".encode())
            planned.add((place, what))
    assert {("service_invitations", "INSERT"), ("services", "UPDATE")} <= planned

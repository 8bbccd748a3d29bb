"""Migrations: up, down to nothing and up again, on a database with data in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.exc import OperationalError

from haat.infra.migrate import UnknownRevision, known_revisions, migrate
from haat.infra.revision import current_revision, newest_revision

ORG = "0193aaaa-0000-7000-8000-000000000001"


@pytest.fixture
def empty(cluster: Any) -> Iterator[str]:
    """An empty database's connection string."""
    cluster.create("test_empty", "template0")
    yield cluster.dsn("owner", "test_empty")
    cluster.drop("test_empty")


def tables(dsn: str) -> set[str]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    return {name for (name,) in rows} - {"alembic_version"}


def fill(dsn: str) -> None:
    """Put a row into every table that takes one without a parent, and children beneath the first organisation."""
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "INSERT INTO organisations (id, name, kind, created_at) VALUES (%s, 'Haat', 'provider', now())", (ORG,)
        )
        connection.execute(
            "INSERT INTO applications (id, org_id, name, created_at) VALUES (%(org)s, %(org)s, 'app', now())",
            {"org": ORG},
        )
        connection.execute(
            """
            INSERT INTO events (id, stream, version, type, data, actor, org_id, at, prev_hash, hash)
            VALUES (%(org)s, 'organisation/1', 1, 'organisation.created', '{}', 'platform', %(org)s, now(), '', '')
            """,
            {"org": ORG},
        )


def test_an_empty_database_comes_to_the_newest_revision(empty: str) -> None:
    assert current_revision(empty) is None
    migrate(empty)
    assert current_revision(empty) == newest_revision()
    assert "events" in tables(empty)


def test_the_files_are_numbered_in_the_order_of_the_revisions() -> None:
    known = known_revisions()
    assert known == sorted(known)
    assert newest_revision() == known[-1]


def test_migrating_again_changes_nothing(empty: str) -> None:
    migrate(empty)
    fill(empty)
    migrate(empty)
    with psycopg.connect(empty) as connection:
        assert connection.execute("SELECT name FROM organisations").fetchall() == [("Haat",)]


def test_down_to_nothing_and_up_again_leaves_the_same_schema_even_with_data_in_it(empty: str) -> None:
    migrate(empty)
    before = schema(empty)
    fill(empty)
    migrate(empty, "base")
    assert tables(empty) == set()
    assert leftovers(empty) == []
    migrate(empty)
    assert schema(empty) == before


def test_each_migration_goes_down_and_up_by_itself_on_data(empty: str) -> None:
    known = known_revisions()
    migrate(empty, known[0])
    fill(empty)
    while current_revision(empty) != newest_revision():
        at, before = current_revision(empty), schema(empty)
        following = known[known.index(str(at)) + 1]
        migrate(empty, following)
        migrate(empty, str(at))
        assert schema(empty) == before, f"{following} does not undo what it does"
        migrate(empty, following)
    with psycopg.connect(empty) as connection:
        assert connection.execute("SELECT name FROM organisations").fetchall() == [("Haat",)]


def test_a_migration_that_waits_too_long_for_a_table_gives_up_and_changes_nothing(empty: str) -> None:
    migrate(empty)
    before = schema(empty)
    with psycopg.connect(empty) as reader:
        reader.execute("SELECT * FROM organisations")
        with pytest.raises(OperationalError, match="lock timeout"):
            migrate(empty, "base", lock_timeout="50ms")
    migrate(empty)
    assert schema(empty) == before


def test_an_unknown_target_is_refused_with_the_known_ones(empty: str) -> None:
    with pytest.raises(UnknownRevision, match="0001"):
        migrate(empty, "9999")


def test_a_database_from_a_newer_version_is_refused(empty: str) -> None:
    migrate(empty)
    with psycopg.connect(empty) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(UnknownRevision, match="update Haat"):
        migrate(empty)


def schema(dsn: str) -> list[tuple[Any, ...]]:
    """Return columns, constraints, indexes, policies, triggers and rights as comparable rows."""
    queries = (
        """SELECT table_name, column_name, data_type, column_default, is_nullable
           FROM information_schema.columns WHERE table_schema = 'public'""",
        """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
           FROM pg_constraint WHERE connamespace = 'public'::regnamespace""",
        "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
        "SELECT tablename, policyname, cmd, qual, with_check FROM pg_policies WHERE schemaname = 'public'",
        "SELECT relname, relrowsecurity, relacl::text FROM pg_class WHERE relnamespace = 'public'::regnamespace",
        "SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
        "SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
    )
    found: list[tuple[Any, ...]] = []
    with psycopg.connect(dsn) as connection:
        for query in queries:
            found += connection.execute(sql.SQL(query)).fetchall()
    return sorted(tuple(map(str, row)) for row in found if "alembic_version" not in map(str, row))


def leftovers(dsn: str) -> list[tuple[Any, ...]]:
    """Return functions, types and sequences that a downgrade forgot."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(
            """
            SELECT 'function', proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
            UNION ALL SELECT 'type', typname FROM pg_type
                WHERE typnamespace = 'public'::regnamespace AND typname !~ 'alembic_version'
            UNION ALL SELECT 'sequence', relname FROM pg_class
                WHERE relnamespace = 'public'::regnamespace AND relkind = 'S'
            """
        ).fetchall()

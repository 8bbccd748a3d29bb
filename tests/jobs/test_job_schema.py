"""Revision 0002 against the installed engine: same schema, up and down on data, callable by the application."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from importlib.resources import files
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from procrastinate.schema import SchemaManager

from haat.infra.jobs import Jobs, Task
from haat.infra.migrate import migrate
from haat.infra.postgres import PUBLIC

revision_0002 = importlib.import_module("haat.migrations.versions.0002_jobs")

OBJECTS = {
    "columns": """
        SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns
        WHERE starts_with(table_name, 'procrastinate_')""",
    "functions": """
        SELECT proname, pg_get_function_arguments(oid), pg_get_function_result(oid), prosrc FROM pg_proc
        WHERE starts_with(proname, 'procrastinate_')""",
    "indexes": """
        SELECT indexname, indexdef FROM pg_indexes
        WHERE starts_with(tablename, 'procrastinate_') AND indexname <> 'procrastinate_jobs_sunk'""",
    "constraints": """
        SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE starts_with(conrelid::regclass::text, 'procrastinate_')""",
    "triggers": """
        SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger
        WHERE NOT tgisinternal AND starts_with(tgrelid::regclass::text, 'procrastinate_')""",
    "enums": """
        SELECT typname, enumlabel FROM pg_enum JOIN pg_type ON pg_type.oid = enumtypid""",
}


@pytest.fixture
def empty_database(cluster: Any) -> Iterator[str]:
    name = f"empty_{uuid4().hex[:8]}"
    cluster.create(name, "template0")
    yield cluster.dsn("owner", name)
    cluster.drop(name)


def _objects(dsn: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as connection:
        return sorted(connection.execute(query).fetchall(), key=repr)


@pytest.mark.parametrize("kind", OBJECTS)
def test_the_revision_makes_the_schema_of_the_installed_engine(empty_database: str, database: Any, kind: str) -> None:
    with psycopg.connect(empty_database) as connection:
        connection.execute(SchemaManager.get_schema())
    ours = _objects(database.owner_dsn, OBJECTS[kind])
    assert ours
    assert ours == _objects(empty_database, OBJECTS[kind])


def test_every_migration_file_of_the_engine_belongs_to_a_revision_of_ours() -> None:
    folder = files("procrastinate.sql") / "migrations"
    shipped = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    assert revision_0002.engine_files() == shipped


async def test_the_revision_goes_down_on_data_and_up_again(database: Any) -> None:
    jobs = Jobs(database.app, [Task("t", _nothing)])
    async with database.app.transaction(PUBLIC) as connection:
        await jobs.defer(connection, "t", {}, key="k")
    migrate(database.owner_dsn, "0001")
    left = _objects(
        database.owner_dsn,
        """
        SELECT proname::text FROM pg_proc WHERE starts_with(proname, 'procrastinate_')
        UNION ALL SELECT typname::text FROM pg_type WHERE starts_with(typname, 'procrastinate_')
        UNION ALL SELECT relname::text FROM pg_class
            WHERE relname IN ('job_keys', 'job_notes', 'dead_letters') OR starts_with(relname, 'procrastinate_')
        """,
    )
    assert left == []
    migrate(database.owner_dsn)
    async with database.app.transaction(PUBLIC) as connection:
        assert await jobs.defer(connection, "t", {}, key="k") == 1


@pytest.mark.parametrize("role", ["app", "service"])
async def test_both_roles_of_the_application_may_defer(database: Any, role: str) -> None:
    db = getattr(database, role)
    jobs = Jobs(db, [Task("t", _nothing)])
    async with db.transaction(PUBLIC) as connection:
        identifier = await jobs.defer(connection, "t", {"a": 1})
        assert (await jobs.get(connection, identifier)).status == "waiting"


async def _nothing(*_: Any) -> None:
    return None

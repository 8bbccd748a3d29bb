"""What every test may ask for: one PostgreSQL a run, a fresh database a test, a clock that stands still."""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import hypothesis
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

os.environ.setdefault("HAAT_COMPILED", "0")  # tests look into the source; `make verify` runs the compiled form too

from haat.infra.dsn import dsn_for
from haat.infra.embedded import EmbeddedPostgres
from haat.infra.keyring import Keyring
from haat.infra.migrate import migrate
from haat.infra.postgres import Database
from haat.infra.prepare import set_passwords
from haat.kernel.clock import SetClock
from haat.settings import Settings

hypothesis.settings.register_profile("haat", deadline=None)  # a busy machine is no fault
hypothesis.settings.load_profile("haat")

TEMPLATE = "haat_template"
_connect = socket.socket.connect
_connect_ex = socket.socket.connect_ex


class FreshDatabase(NamedTuple):
    """A migrated database of a test's own: its owner's connection string and the two pools."""

    owner_dsn: str
    app: Database
    service: Database


class Cluster(NamedTuple):
    """The PostgreSQL server of this test run, and the settings and keys that lead to it."""

    settings: Settings
    keyring: Keyring

    def dsn(self, role: Any, database: str) -> str:
        return make_conninfo(dsn_for(self.settings, self.keyring, role), dbname=database)

    def create(self, database: str, template: str) -> None:
        self._as_owner(sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy"), database, template)

    def drop(self, database: str) -> None:
        self._as_owner(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)"), database)

    def _as_owner(self, statement: sql.SQL, *names: str) -> None:
        with psycopg.connect(self.dsn("owner", "postgres"), autocommit=True) as connection:
            connection.execute(statement.format(*map(sql.Identifier, names)))


@pytest.fixture(autouse=True, scope="session")
def settings_of_tests_only() -> Iterator[None]:
    """Forget the HAAT_ variables of whoever runs the tests."""
    patch = pytest.MonkeyPatch()
    for name in [name for name in os.environ if name.startswith("HAAT_")]:
        patch.delenv(name)
    yield
    patch.undo()


@pytest.fixture(autouse=True, scope="session")
def only_this_machine() -> Iterator[None]:
    """Refuse connections that would leave this machine: tests are about us, not about the network."""

    def refuse_strangers(address: Any) -> None:
        if isinstance(address, tuple) and not _is_loopback(str(address[0])):
            raise AssertionError(f"a test tried to reach {address[0]}:{address[1]}, which is not this machine")

    def connect(self: socket.socket, address: Any) -> None:
        refuse_strangers(address)
        _connect(self, address)

    def connect_ex(self: socket.socket, address: Any) -> int:
        refuse_strangers(address)
        return _connect_ex(self, address)

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", connect)
    patch.setattr(socket.socket, "connect_ex", connect_ex)
    yield
    patch.undo()


def _is_loopback(host: str) -> bool:
    if host in ("localhost", ""):
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


@pytest.fixture(scope="session")
def short_tmp() -> Iterator[Path]:
    """A folder that PostgreSQL's own account can reach, which pytest's closed one is not."""
    folder = Path(tempfile.mkdtemp(prefix="haat-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def data_dir(short_tmp: Path) -> Iterator[Path]:
    """A fresh data directory for a platform with a PostgreSQL of its own."""
    folder = Path(tempfile.mkdtemp(dir=short_tmp))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def cluster(short_tmp: Path) -> Iterator[Cluster]:
    """One embedded PostgreSQL for the run, made for speed and not for keeping, with a migrated template."""
    settings = Settings(data_dir=short_tmp / "shared", database_url=None)
    keyring = Keyring.load(settings.data_dir)
    quick = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off"}
    quick["shared_buffers"] = "128MB"  # all of them are looked through for each database that is dropped
    server = EmbeddedPostgres(settings.data_dir, keyring, settings.postgres_account, options=quick)
    server.start()
    try:
        cluster = Cluster(settings, keyring)
        cluster.create(TEMPLATE, "template0")
        migrate(cluster.dsn("owner", TEMPLATE))
        set_passwords(cluster.dsn("owner", TEMPLATE), keyring)
        yield cluster
    finally:
        server.stop(3)


@pytest.fixture(scope="session")
def shared_database(cluster: Cluster) -> Iterator[str]:
    """The database that tests use one after another: copying a template costs more than most tests do."""
    name = f"test_{os.getpid()}_{uuid4().hex[:8]}"
    cluster.create(name, TEMPLATE)
    with psycopg.connect(cluster.dsn("owner", name)) as connection:
        connection.execute("CREATE SCHEMA seed; CREATE TABLE seed.plans AS TABLE plans")
    yield name
    cluster.drop(name)


@pytest.fixture
def database_name(cluster: Cluster, shared_database: str) -> str:
    """The name of a migrated database that holds what a fresh one holds."""
    with psycopg.connect(cluster.dsn("owner", shared_database), autocommit=True) as connection:
        connection.execute(_EMPTY)
    return shared_database


# Tables that hold rows are emptied, but for the revision and the platform's own plans.
_EMPTY = """
    DO $$ DECLARE
        table_name text;
        holds_rows boolean;
        full_tables text[] := '{}';
    BEGIN
        PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid();
        FOR table_name IN SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'usage'::regclass LOOP
            EXECUTE 'DROP TABLE ' || table_name; -- a month's partition is made when it is needed
        END LOOP;
        FOR table_name IN SELECT oid::regclass::text FROM pg_class
            WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
                AND relname NOT IN ('alembic_version', 'plans')
        LOOP
            EXECUTE format('SELECT EXISTS (SELECT FROM %s)', table_name) INTO holds_rows;
            IF holds_rows THEN
                full_tables := full_tables || table_name;
            END IF;
        END LOOP;
        IF full_tables <> '{}' THEN
            EXECUTE 'TRUNCATE ' || array_to_string(full_tables, ', ') || ' CASCADE';
        END IF;
        DELETE FROM plans WHERE id NOT IN (SELECT id FROM seed.plans);
        INSERT INTO plans SELECT * FROM seed.plans ON CONFLICT DO NOTHING; -- CASCADE takes them with the services
    END $$
"""


@pytest.fixture
async def database(cluster: Cluster, database_name: str) -> AsyncIterator[FreshDatabase]:
    """A fresh, migrated database as (owner_dsn, app, service)."""
    async with (
        Database(cluster.dsn("app", database_name), max_size=8) as app,
        Database(cluster.dsn("service", database_name), max_size=4) as service,
    ):
        yield FreshDatabase(cluster.dsn("owner", database_name), app, service)


@pytest.fixture
def keyring() -> Keyring:
    """A keyring that is the same in every run."""
    return Keyring(bytes(range(32)))


@pytest.fixture
def clock() -> SetClock:
    """Noon in Kolkata on 21 November 2026, until the test moves it."""
    return SetClock(datetime(2026, 11, 21, 6, 30, tzinfo=UTC))

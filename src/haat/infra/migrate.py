"""Bring a database's schema to a revision, with Alembic, as its owner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, pool

import haat.migrations

_MIGRATION_LOCK = 7_411_001  # an arbitrary key: two migrations at once wait for each other


class UnknownRevision(ValueError):
    """A revision that the migrations of this program don't have."""


def migrate(dsn: str, revision: str = "head", *, lock_timeout: str = "5s") -> None:
    """Upgrade, or downgrade when ``revision`` is older (or ``base``), the database at ``dsn``.

    A statement that waits longer than ``lock_timeout`` for a table fails, and its migration with it:
    everybody else would have to wait behind it. Raise UnknownRevision for a target, or a present
    state, that this program doesn't know.
    """
    config = _config()
    config.attributes["lock_timeout"] = lock_timeout
    with _connect(dsn) as connection:
        connection.exec_driver_sql(f"SELECT pg_advisory_lock({_MIGRATION_LOCK})")  # ends with the connection
        present = MigrationContext.configure(connection).get_current_revision()
        connection.commit()
        config.attributes["connection"] = connection
        if _is_older(revision, present):
            command.downgrade(config, revision)
        else:
            command.upgrade(config, revision)
        connection.commit()


def known_revisions() -> list[str]:
    """Return the revisions of this program, oldest first."""
    return [script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()][::-1]


def _is_older(target: str, present: str | None) -> bool:
    """Tell whether reaching ``target`` from ``present`` is a downgrade."""
    known = known_revisions()
    if present is not None and present not in known:
        raise UnknownRevision(f"The database is at revision {present}, which this version does not know: update Haat.")
    if target == "base":
        return True
    if target == "head":
        return False
    if target not in known:
        raise UnknownRevision(f"There is no revision {target}: it is one of base, {', '.join(known)}, head.")
    return present is not None and known.index(target) < known.index(present)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(haat.migrations.__file__).parent).replace("%", "%%"))
    return config


@contextmanager
def _connect(dsn: str) -> Iterator[Connection]:
    """Open one connection by libpq's own rules, so that every form of ``dsn`` works."""
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn), poolclass=pool.NullPool)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()

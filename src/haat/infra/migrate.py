"""Bring a database's schema to a revision, with Alembic, as its owner."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, pool

import haat.migrations

_ROLES_LOCK = 7_411_001  # an arbitrary key: two migrations at once wait for each other


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(haat.migrations.__file__).parent))
    return config


def _engine_url(dsn: str) -> str:
    return dsn.replace("postgresql://", "postgresql+psycopg://", 1)


def migrate(dsn: str, revision: str = "head") -> None:
    """Upgrade, or downgrade when ``revision`` is older, the database at ``dsn`` (its owner's)."""
    engine = create_engine(_engine_url(dsn), poolclass=pool.NullPool)
    config = _config()
    with engine.connect() as guard, engine.connect() as connection:
        guard.exec_driver_sql(f"SELECT pg_advisory_lock({_ROLES_LOCK})")
        config.attributes["connection"] = connection
        if revision == "base" or revision.startswith("-"):
            command.downgrade(config, revision)
        else:
            command.upgrade(config, revision)
        connection.commit()
    engine.dispose()


def current_revision(dsn: str) -> str | None:
    """Return the revision a database is at, or None for an empty one."""
    engine = create_engine(_engine_url(dsn), poolclass=pool.NullPool)
    with engine.connect() as connection:
        revision = MigrationContext.configure(connection).get_current_revision()
    engine.dispose()
    return revision

"""Which revision a database is at and which one this program wants, without loading the migrations."""

from __future__ import annotations

from pathlib import Path

import psycopg

import haat.migrations


def current_revision(dsn: str) -> str | None:
    """Return the revision a database is at, or None for an empty one."""
    with psycopg.connect(dsn) as connection:
        known = connection.execute("SELECT to_regclass('alembic_version')").fetchone()
        if known is None or known[0] is None:
            return None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(row[0]) if row else None


def newest_revision() -> str:
    """Return the revision this program wants: the number that the last migration's file begins with."""
    versions = Path(next(iter(haat.migrations.__path__))) / "versions"
    return max(path.name.partition("_")[0] for path in versions.glob("[0-9]*.py"))

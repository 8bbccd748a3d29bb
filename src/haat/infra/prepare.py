"""Makes a database ready for us: the server running, the schema at its newest, the roles able to log in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg
from psycopg import sql

from haat.infra.dsn import dsn_for
from haat.infra.embedded import running
from haat.infra.keyring import Keyring
from haat.infra.revision import current_revision, newest_revision
from haat.settings import Settings

_ROLES_LOCK = 7_411_002  # an arbitrary key: two processes that set the same password collide otherwise


def prepare_database(settings: Settings, keyring: Keyring) -> None:
    """Migrate to the newest revision and give `haat_app` and `haat_service` their passwords."""
    owner = dsn_for(settings, keyring, "owner")
    if current_revision(owner) != newest_revision():
        from haat.infra.migrate import migrate  # loads Alembic and SQLAlchemy, which most starts don't need

        migrate(owner)
    set_passwords(owner, keyring)


def set_passwords(owner: str, keyring: Keyring) -> None:
    """Let the application's roles log in. Only the salted verifier reaches the server's logs."""
    with psycopg.connect(owner) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_ROLES_LOCK,))
        for role in ("haat_app", "haat_service"):
            verifier = connection.pgconn.encrypt_password(
                keyring.role_password(role).encode(), role.encode(), b"scram-sha-256"
            )
            connection.execute(
                sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), verifier.decode())
            )


@contextlib.contextmanager
def database_server(settings: Settings, keyring: Keyring) -> Iterator[None]:
    """Keep the embedded server running for the length of a block; nothing to do for another one."""
    if settings.database_url is not None:
        yield
        return
    with running(settings.data_dir, keyring, settings.postgres_account):
        yield

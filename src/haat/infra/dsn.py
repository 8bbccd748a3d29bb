"""Where PostgreSQL is and whom to connect as: connection strings for our three roles."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from haat.infra.embedded import DATABASE, OWNER, cluster_home, running, socket_dir
from haat.infra.keyring import Keyring
from haat.infra.revision import current_revision, newest_revision
from haat.settings import Settings

DatabaseRole = Literal["owner", "app", "service"]

_ROLES_LOCK = 7_411_002  # an arbitrary key: two processes that set the same password collide otherwise


def dsn_for(settings: Settings, keyring: Keyring, role: DatabaseRole) -> str:
    """Return a libpq connection string (``key=value`` words) for one of our roles.

    ``owner`` owns the schema and migrates it; ``app`` (`haat_app`) is held by row-level security;
    ``service`` (`haat_service`) sees every tenant and is for the gateway's feed and the shipper.
    """
    if settings.database_url is None:
        home = cluster_home(settings.data_dir, keyring, settings.postgres_account)
        owner = make_conninfo(
            host=str(socket_dir(home, keyring)), user=OWNER, password=keyring.role_password(OWNER), dbname=DATABASE
        )
    else:
        owner = make_conninfo(settings.database_url.get_secret_value())
    if role == "owner":
        return owner
    user = f"haat_{role}"
    return make_conninfo(owner, user=user, password=keyring.role_password(user))


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

"""Where PostgreSQL is and whom to connect as: connection strings for our three roles."""

from __future__ import annotations

from typing import Literal

from psycopg.conninfo import make_conninfo

from haat.infra.embedded_host import DATABASE, OWNER, cluster_home, socket_dir
from haat.infra.keyring import Keyring
from haat.settings import Settings

DatabaseRole = Literal["owner", "app", "service"]


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

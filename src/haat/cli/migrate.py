"""`haat migrate`: the schema to a revision, and the application's roles with their passwords."""

from __future__ import annotations

import click

from haat.infra.dsn import dsn_for
from haat.infra.keyring import keyring_of
from haat.infra.migrate import migrate as bring_to
from haat.infra.prepare import database_server, set_passwords
from haat.infra.revision import current_revision, newest_revision
from haat.settings import Settings


def migrate(settings: Settings, *, revision: str, check: bool) -> int:
    """Migrate to ``revision``, or only ``check``; return the exit status."""
    keyring = keyring_of(settings)
    with database_server(settings, keyring):
        owner = dsn_for(settings, keyring, "owner")
        before = current_revision(owner)
        if check:
            newest = newest_revision()
            if before == newest:
                click.echo(f"The database is at the newest revision, {newest}.")
                return 0
            click.echo(f"The database is at {before or 'nothing'}, the newest is {newest}: run `haat migrate`.")
            return 1
        bring_to(owner, revision)
        after = current_revision(owner)
        if after is not None:
            set_passwords(owner, keyring)
    click.echo(
        f"The database is at {after or 'nothing'}, as it was."
        if before == after
        else f"The database went from {before or 'nothing'} to {after or 'nothing'}."
    )
    return 0

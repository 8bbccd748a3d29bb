"""Alembic's environment: `haat migrate` hands over an open connection (see `haat.infra.migrate`)."""

from alembic import context
from sqlalchemy import text

connection = context.config.attributes["connection"]
context.configure(connection=connection, transaction_per_migration=True)
with context.begin_transaction():
    connection.execute(
        text("SELECT set_config('lock_timeout', :timeout, false)"),
        {"timeout": context.config.attributes["lock_timeout"]},
    )
    context.run_migrations()

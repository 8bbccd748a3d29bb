"""Alembic's environment: `haat migrate` hands over an open connection (see `haat.infra.migrate`)."""

from alembic import context
from sqlalchemy import text

connection = context.config.attributes["connection"]
context.configure(connection=connection, transaction_per_migration=True)
with context.begin_transaction():
    connection.execute(text("SET lock_timeout = '5s'"))
    context.run_migrations()

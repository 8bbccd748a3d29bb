"""The schema, as Alembic migrations: SQL, a lock timeout on each, tested up and down."""

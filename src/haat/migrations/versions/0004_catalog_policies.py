"""Row-level security for what hangs on a service: its versions, prices, plans and invitations.

Versions name endpoints, so they are seen where their service is seen. Prices and plans are public to
read. All four are written only by the service's own organisation or by the platform.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_PLATFORM = "current_setting('haat.scope', true) = 'platform'"
_ORG = "nullif(current_setting('haat.org', true), '')::uuid"
_READERS = {
    "service_versions": "EXISTS (SELECT FROM services WHERE services.id = service_id)",  # by the policies of services
    "rate_cards": "true",
    "plans": "true",
    # No look at services here: their own policy looks at this table, and the two would go round in circles.
    "service_invitations": f"{_PLATFORM} OR org_id = {_ORG}",
}
_TABLES = tuple(_READERS)


def upgrade() -> None:
    for table, readers in _READERS.items():
        own = f"""{_PLATFORM} OR EXISTS (
            SELECT FROM services WHERE services.id = {table}.service_id AND services.org_id = {_ORG})"""
        op.execute(
            f"""
            ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
            CREATE POLICY seen ON {table} FOR SELECT USING ({readers});
            CREATE POLICY added ON {table} FOR INSERT WITH CHECK ({own});
            CREATE POLICY changed ON {table} FOR UPDATE USING ({own});
            CREATE POLICY removed ON {table} FOR DELETE USING ({own});
            """
        )


def downgrade() -> None:
    for table in _TABLES:
        op.execute(
            f"""
            DROP POLICY seen ON {table};
            DROP POLICY added ON {table};
            DROP POLICY changed ON {table};
            DROP POLICY removed ON {table};
            ALTER TABLE {table} DISABLE ROW LEVEL SECURITY;
            """
        )

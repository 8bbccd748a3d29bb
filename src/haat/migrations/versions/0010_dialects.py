"""What an endpoint can speak besides the task schema and its own HTTP."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE service_versions DROP CONSTRAINT service_versions_dialect_check;
        ALTER TABLE service_versions ADD CONSTRAINT service_versions_dialect_check
            CHECK (dialect IN ('task', 'http', 'openai', 'anthropic', 'ulca', 'inference'));
        """
    )


def downgrade() -> None:
    op.execute(
        """
        UPDATE service_versions SET dialect = 'http' WHERE dialect NOT IN ('task', 'http');
        ALTER TABLE service_versions DROP CONSTRAINT service_versions_dialect_check;
        ALTER TABLE service_versions ADD CONSTRAINT service_versions_dialect_check
            CHECK (dialect IN ('task', 'http'));
        """
    )

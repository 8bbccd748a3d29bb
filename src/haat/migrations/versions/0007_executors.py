"""Who executed a call in place of the service that was called, and how often it was sent."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE usage ADD COLUMN attempts smallint NOT NULL DEFAULT 0, ADD COLUMN executed_by uuid;
        COMMENT ON COLUMN usage.attempts IS 'How often the call was sent, when it was more than once; else 0.';
        COMMENT ON COLUMN usage.executed_by IS 'The service that executed the call in place of service_id; its
            provider is in provider and provider_org.';
        """
    )


def downgrade() -> None:
    op.execute("ALTER TABLE usage DROP COLUMN executed_by, DROP COLUMN attempts")

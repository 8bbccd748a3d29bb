"""The share of the price that a call's cached part costs: what the plan said when the call was made."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE usage ADD COLUMN cached_share numeric(4, 3) CHECK (cached_share BETWEEN 0 AND 1);
        COMMENT ON COLUMN usage.cached_share IS 'The part of the price that cached costs; null when nothing came out of
            the cache. Plans change: this is what the plan said when the call was made.';
        """
    )


def downgrade() -> None:
    op.execute("ALTER TABLE usage DROP COLUMN cached_share")

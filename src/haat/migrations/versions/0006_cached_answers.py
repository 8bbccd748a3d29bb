"""How much of a call was answered from the cache, and the share of the price that it costs."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE usage ADD COLUMN cached numeric(24, 6) NOT NULL DEFAULT 0 CHECK (cached >= 0);
        COMMENT ON COLUMN usage.cached IS 'The part of the unit its service is sold by that came out of the cache.';
        ALTER TABLE invoice_lines ADD COLUMN cached_share numeric(4, 3) CHECK (cached_share BETWEEN 0 AND 1);
        COMMENT ON COLUMN invoice_lines.cached_share IS 'The part of unit_price that is charged for answers out of the
            cache; null on a line of what the provider was asked for. The two predicates differ in usage.cache alone.';
        """
    )


def downgrade() -> None:
    op.execute(
        """
        ALTER TABLE invoice_lines DROP COLUMN cached_share;
        ALTER TABLE usage DROP COLUMN cached;
        """
    )

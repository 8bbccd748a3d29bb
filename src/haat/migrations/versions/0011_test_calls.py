"""Calls of test keys: kept, and never rated."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE usage ADD COLUMN mode text NOT NULL DEFAULT 'live' CHECK (mode IN ('live', 'test'));
        COMMENT ON COLUMN usage.mode IS 'test: a test key called, the gateway answered itself. Such a row is in no
            rollup, no invoice line and no settlement.';
        """
    )


def downgrade() -> None:
    op.execute(
        """
        DELETE FROM usage WHERE mode = 'test'; -- without the column they would be taken for sales
        ALTER TABLE usage DROP COLUMN mode;
        """
    )

"""The trace that a caller said its call belongs to."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE usage ADD COLUMN trace text NOT NULL DEFAULT '';
        COMMENT ON COLUMN usage.trace IS 'W3C trace id, when the caller sent one; else it is the id of the call.';
        """
    )


def downgrade() -> None:
    op.execute("ALTER TABLE usage DROP COLUMN trace")

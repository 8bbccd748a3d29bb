"""The event log is searched by time, by who did it and by what was done (see `haat.infra.audit`)."""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE INDEX events_at ON events (at, seq);
        CREATE INDEX events_actor ON events (actor, at, seq);
        CREATE INDEX events_type ON events (type, at, seq);
        """
    )


def downgrade() -> None:
    op.execute("DROP INDEX events_at, events_actor, events_type")

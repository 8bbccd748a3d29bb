"""An index that leads to a service's hours: the catalog shows those of twenty-four at once."""

from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""CREATE INDEX market_hourly_service ON market_hourly (service_id, hour) WHERE "by" = 'service'""")


def downgrade() -> None:
    op.execute("DROP INDEX market_hourly_service")

"""Invitations can be written again: who sees them is asked without a subquery.

The right to add one asks services, whose policy asks invitations, whose own must then not ask anything: PostgreSQL
takes any subquery there for a circle.
"""

from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

_SCOPE = "current_setting('haat.scope', true)"
_ORG = "NULLIF(current_setting('haat.org', true), '')::uuid"


def upgrade() -> None:
    op.execute(f"ALTER POLICY seen ON service_invitations USING ({_SCOPE} = 'platform' OR org_id = {_ORG})")


def downgrade() -> None:
    op.execute(
        f"ALTER POLICY seen ON service_invitations USING ((SELECT {_SCOPE}) = 'platform' OR org_id = (SELECT {_ORG}))"
    )

"""People: invitations, resets of passwords, sessions that can be told apart, the language of an account."""

from alembic import op

from haat.migrations.policies import tenant_policy

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE users ADD COLUMN language text CHECK (language ~ '^[a-z]{2,3}-[A-Z][a-z]{3}$');
        COMMENT ON COLUMN users.language IS 'The person is spoken to in it, such as hi-Deva; null: as a browser asks.';

        ALTER TABLE memberships ADD COLUMN signed_in_at timestamptz;
        COMMENT ON COLUMN memberships.signed_in_at IS 'When the newest session for this organisation began.';
        UPDATE memberships SET signed_in_at = (
            SELECT max(sessions.created_at) FROM sessions
            WHERE sessions.user_id = memberships.user_id AND sessions.org_id = memberships.org_id);

        ALTER TABLE sessions
            ADD COLUMN id uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE,
            ADD COLUMN browser text NOT NULL DEFAULT '',
            ADD COLUMN system text NOT NULL DEFAULT '',
            ADD COLUMN seen_at timestamptz;
        COMMENT ON COLUMN sessions.browser IS 'A family such as Firefox, never a version; empty for a program.';
        COMMENT ON COLUMN sessions.seen_at IS 'Of its last use, late by an hour at most; null: not since it began.';
        CREATE INDEX sessions_user ON sessions (user_id);

        CREATE TABLE invitations (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
            email text NOT NULL,
            role text NOT NULL CHECK (role IN ('platform_admin', 'partner_admin', 'partner_developer', 'api_consumer')),
            token_hash bytea NOT NULL UNIQUE,
            mailed integer NOT NULL CHECK (mailed > 0),
            invited_by uuid REFERENCES users ON DELETE SET NULL,
            created_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL,
            accepted_at timestamptz,
            revoked_at timestamptz
        );
        CREATE UNIQUE INDEX invitations_open ON invitations (org_id, lower(email))
            WHERE accepted_at IS NULL AND revoked_at IS NULL;
        COMMENT ON COLUMN invitations.mailed IS 'How often it was sent: each mail has its own link, the newest counts.';

        CREATE TABLE password_resets (
            id uuid PRIMARY KEY,
            email text NOT NULL,
            token_hash bytea NOT NULL UNIQUE,
            created_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL
        );
        COMMENT ON TABLE password_resets IS 'Asked for, whether the address has an account or not; gone when used.';
        ALTER TABLE password_resets ENABLE ROW LEVEL SECURITY;
        CREATE POLICY platform ON password_resets USING (current_setting('haat.scope', true) = 'platform');
        """
    )
    op.execute(tenant_policy("invitations"))


def downgrade() -> None:
    op.execute(
        """
        DROP TABLE password_resets, invitations;
        DROP INDEX sessions_user;
        ALTER TABLE sessions DROP COLUMN id, DROP COLUMN browser, DROP COLUMN system, DROP COLUMN seen_at;
        ALTER TABLE memberships DROP COLUMN signed_in_at;
        ALTER TABLE users DROP COLUMN language;
        """
    )

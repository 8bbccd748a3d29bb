"""Feature flags with their overrides, and what callers say of answers."""

from alembic import op

from haat.migrations.policies import tenant_policy

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE flags (
            key text PRIMARY KEY CHECK (length(key) BETWEEN 1 AND 80),
            definition jsonb NOT NULL,
            version integer NOT NULL CHECK (version > 0),
            changed_at timestamptz NOT NULL,
            changed_by text NOT NULL
        );
        COMMENT ON TABLE flags IS 'The platform''s own: of no tenant. Its history is in the events of flag/<key>.';
        CREATE TABLE flag_overrides (
            key text NOT NULL REFERENCES flags ON DELETE CASCADE,
            org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
            variant text NOT NULL,
            set_at timestamptz NOT NULL,
            PRIMARY KEY (key, org_id)
        );

        CREATE TABLE feedback (
            request_id uuid PRIMARY KEY,
            org_id uuid NOT NULL,
            application_id uuid NOT NULL,
            service_id uuid NOT NULL,
            provider_org uuid,
            version text NOT NULL,
            variant text NOT NULL DEFAULT '',
            mode text NOT NULL CHECK (mode IN ('live', 'test')),
            called_at timestamptz NOT NULL,
            given_at timestamptz NOT NULL,
            thumbs text CHECK (thumbs IN ('up', 'down')),
            rating smallint CHECK (rating BETWEEN 1 AND 5),
            corrected text,
            comment text,
            closeness double precision CHECK (closeness BETWEEN 0 AND 1)
        );
        COMMENT ON COLUMN feedback.service_id IS 'The service that executed the call: its version and variant, too.';
        COMMENT ON COLUMN feedback.closeness IS 'How alike the answer and the corrected text are written, 1 for the
            same. The answer itself is not kept.';
        COMMENT ON COLUMN feedback.provider_org IS 'Null for calls of test keys, which nobody earns by.';
        CREATE INDEX feedback_org ON feedback (org_id, request_id);
        CREATE INDEX feedback_provider ON feedback (provider_org, request_id);
        CREATE INDEX feedback_outcomes ON feedback (service_id, called_at);
        CREATE INDEX feedback_given ON feedback (given_at);
        """
    )
    for table in ("flag_overrides", "feedback"):
        op.execute(tenant_policy(table))
    op.execute(
        """
        CREATE POLICY provider ON feedback FOR SELECT
            USING (provider_org = nullif(current_setting('haat.org', true), '')::uuid)
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE feedback, flag_overrides, flags")

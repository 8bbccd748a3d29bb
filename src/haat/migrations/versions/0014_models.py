"""Models that providers bring: the keys that sign them, and their versions."""

from alembic import op

from haat.migrations.policies import tenant_policy

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        SET LOCAL lock_timeout = '5s';
        CREATE TABLE model_keys (
            org_id uuid NOT NULL REFERENCES organisations,
            key_id text NOT NULL,
            public_key bytea NOT NULL CHECK (length(public_key) = 32),
            name text NOT NULL,
            added_at timestamptz NOT NULL,
            revoked_at timestamptz,
            PRIMARY KEY (org_id, key_id)
        );
        COMMENT ON TABLE model_keys IS 'Ed25519 keys whose signature on a bundle of the organisation counts.';

        CREATE TABLE models (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL REFERENCES organisations,
            provider_slug text NOT NULL,
            name text NOT NULL,
            category text NOT NULL,
            created_at timestamptz NOT NULL,
            UNIQUE (org_id, name)
        );

        CREATE TABLE model_versions (
            id uuid PRIMARY KEY,
            model_id uuid NOT NULL REFERENCES models,
            org_id uuid NOT NULL REFERENCES organisations,
            version text NOT NULL,
            manifest jsonb NOT NULL,
            digest text NOT NULL,
            size_bytes bigint NOT NULL,
            key_id text NOT NULL,
            stage text NOT NULL CHECK (stage IN ('uploaded', 'deployed', 'published', 'retired')),
            service_id uuid REFERENCES services,
            created_at timestamptz NOT NULL,
            published_at timestamptz,
            retired_at timestamptz,
            UNIQUE (model_id, version)
        );
        COMMENT ON COLUMN model_versions.stage IS
            'uploaded: its files are here; deployed: the models process has it, not for sale; published: it is sold';
        CREATE INDEX model_versions_running ON model_versions (stage) WHERE stage IN ('deployed', 'published');
        """
    )
    for table in ("model_keys", "models", "model_versions"):
        op.execute(tenant_policy(table))


def downgrade() -> None:
    op.execute("DROP TABLE model_versions; DROP TABLE models; DROP TABLE model_keys")

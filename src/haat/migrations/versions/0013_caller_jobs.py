"""Callers' jobs with their items and files, and the webhooks that tell of their end."""

from alembic import op

from haat.migrations.policies import tenant_policy

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_TABLES = (
    "caller_jobs",
    "caller_job_items",
    "caller_job_holds",
    "caller_files",
    "caller_file_parts",
    "webhook_endpoints",
    "webhook_deliveries",
    "webhook_attempts",
)


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE caller_jobs (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL REFERENCES organisations,
            application_id uuid NOT NULL REFERENCES applications,
            credential_id uuid NOT NULL,
            key_id uuid,
            mode text NOT NULL CHECK (mode IN ('live', 'test')),
            kind text NOT NULL CHECK (kind IN ('native', 'openai', 'ulca')),
            target text NOT NULL,
            name text NOT NULL DEFAULT '',
            metadata jsonb NOT NULL DEFAULT '{}',
            priority smallint NOT NULL CHECK (priority BETWEEN 1 AND 10),
            timeout_seconds integer NOT NULL CHECK (timeout_seconds BETWEEN 1 AND 300),
            max_attempts smallint NOT NULL CHECK (max_attempts BETWEEN 1 AND 10),
            mail boolean NOT NULL DEFAULT false,
            status text NOT NULL CHECK (status IN ('waiting', 'running', 'cancelling', 'completed', 'cancelled',
                'expired', 'failed')),
            reason text NOT NULL DEFAULT '',
            note text NOT NULL DEFAULT '',
            total integer NOT NULL DEFAULT 0,
            succeeded integer NOT NULL DEFAULT 0,
            failed integer NOT NULL DEFAULT 0,
            cancelled integer NOT NULL DEFAULT 0,
            created_at timestamptz NOT NULL,
            started_at timestamptz,
            ended_at timestamptz,
            cancel_asked_at timestamptz,
            due_until timestamptz NOT NULL,
            lease uuid,
            slices integer NOT NULL DEFAULT 0,
            engine_job bigint,
            input_file uuid,
            output_file uuid,
            error_file uuid
        );
        COMMENT ON TABLE caller_jobs IS 'Work that a caller hands in: many calls of one address. lease names the run
            that may store outcomes; each takes it over from the one before. due_until: what has not ended then expires.
            key_id is the credential of the job''s own; its text is derived from the master key and stored nowhere.';
        CREATE INDEX caller_jobs_org ON caller_jobs (org_id, id DESC);
        CREATE INDEX caller_jobs_application ON caller_jobs (application_id, id DESC);
        CREATE INDEX caller_jobs_ended ON caller_jobs (ended_at) WHERE ended_at IS NOT NULL;

        CREATE TABLE caller_job_items (
            job_id uuid NOT NULL REFERENCES caller_jobs ON DELETE CASCADE,
            place integer NOT NULL,
            org_id uuid NOT NULL,
            custom_id text,
            status text NOT NULL DEFAULT 'waiting'
                CHECK (status IN ('waiting', 'succeeded', 'failed', 'cancelled', 'expired')),
            attempts smallint NOT NULL DEFAULT 0,
            key_number smallint NOT NULL DEFAULT 0,
            due_at timestamptz NOT NULL DEFAULT '-infinity',
            body bytea NOT NULL,
            service_id uuid,
            hold bigint NOT NULL DEFAULT 0,
            http_status smallint,
            content_type text NOT NULL DEFAULT '',
            answer bytea,
            request_id text NOT NULL DEFAULT '',
            error_code text NOT NULL DEFAULT '',
            ended_at timestamptz,
            PRIMARY KEY (job_id, place)
        );
        CREATE INDEX caller_job_items_waiting ON caller_job_items (job_id, place) WHERE status = 'waiting';
        COMMENT ON COLUMN caller_job_items.key_number IS 'Part of the call''s Idempotency-Key: counts up only when the
            call is to be executed anew.';

        CREATE TABLE caller_job_holds (
            job_id uuid NOT NULL REFERENCES caller_jobs ON DELETE CASCADE,
            service_id uuid NOT NULL,
            org_id uuid NOT NULL,
            application_id uuid NOT NULL,
            held bigint NOT NULL CHECK (held >= 0),
            PRIMARY KEY (job_id, service_id)
        );
        CREATE INDEX caller_job_holds_application ON caller_job_holds (application_id, service_id);
        COMMENT ON TABLE caller_job_holds IS 'What open jobs have reserved of a quota, in the unit of the plan.';

        CREATE TABLE caller_files (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL REFERENCES organisations,
            application_id uuid NOT NULL REFERENCES applications,
            filename text NOT NULL,
            purpose text NOT NULL,
            bytes bigint NOT NULL DEFAULT 0,
            created_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL
        );
        CREATE INDEX caller_files_application ON caller_files (application_id, id DESC);
        CREATE INDEX caller_files_expire ON caller_files (expires_at);
        CREATE TABLE caller_file_parts (
            file_id uuid NOT NULL REFERENCES caller_files ON DELETE CASCADE,
            number integer NOT NULL,
            org_id uuid NOT NULL,
            content bytea NOT NULL,
            PRIMARY KEY (file_id, number)
        );

        CREATE TABLE webhook_endpoints (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL REFERENCES organisations,
            application_id uuid NOT NULL REFERENCES applications,
            url text NOT NULL,
            secret bytea NOT NULL,
            old_secret bytea,
            old_secret_until timestamptz,
            created_at timestamptz NOT NULL,
            disabled_at timestamptz,
            disabled_reason text NOT NULL DEFAULT '',
            deleted_at timestamptz
        );
        CREATE INDEX webhook_endpoints_application ON webhook_endpoints (application_id) WHERE deleted_at IS NULL;
        CREATE TABLE webhook_deliveries (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL,
            endpoint_id uuid NOT NULL REFERENCES webhook_endpoints,
            job_id uuid,
            event_id uuid NOT NULL,
            type text NOT NULL,
            body text NOT NULL,
            status text NOT NULL DEFAULT 'waiting' CHECK (status IN ('waiting', 'delivered', 'failed')),
            created_at timestamptz NOT NULL,
            delivered_at timestamptz,
            UNIQUE (endpoint_id, event_id)
        );
        CREATE INDEX webhook_deliveries_org ON webhook_deliveries (org_id, id DESC);
        CREATE INDEX webhook_deliveries_job ON webhook_deliveries (job_id);
        CREATE TABLE webhook_attempts (
            delivery_id uuid NOT NULL REFERENCES webhook_deliveries ON DELETE CASCADE,
            number integer NOT NULL,
            org_id uuid NOT NULL,
            at timestamptz NOT NULL,
            status smallint,
            error text NOT NULL DEFAULT '',
            milliseconds integer NOT NULL,
            PRIMARY KEY (delivery_id, number)
        );
        """
    )
    for table in _TABLES:
        op.execute(tenant_policy(table))


def downgrade() -> None:
    for table in reversed(_TABLES):
        op.execute(f"DROP TABLE {table}")

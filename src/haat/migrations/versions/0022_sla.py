"""Service levels: objectives, counts by quarter hour, probes, alerts, suspensions, maintenance, months and credits."""

from alembic import op

from haat.migrations.policies import tenant_policy

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_PLATFORM_ONLY = ("sla_slots", "sla_gathered", "sla_probes")
_TENANT = (
    "sla_objectives",
    "sla_maintenance",
    "sla_alerts",
    "sla_suspensions",
    "sla_months",
    "sla_affected",
    "sla_credits",
)
_NEVER_EDITED = ("sla_objectives", "sla_months", "sla_affected", "sla_credits")


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE sla_objectives (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL REFERENCES organisations,
            service_id uuid NOT NULL REFERENCES services ON DELETE CASCADE,
            version integer NOT NULL CHECK (version > 0),
            effective_from timestamptz NOT NULL,
            availability numeric(6, 3) NOT NULL CHECK (availability BETWEEN 90 AND 99.999),
            p50_ms integer CHECK (p50_ms > 0),
            p95_ms integer CHECK (p95_ms > 0),
            p99_ms integer CHECK (p99_ms > 0),
            window_days integer NOT NULL CHECK (window_days BETWEEN 7 AND 90),
            tiers jsonb NOT NULL,
            latency_credit numeric(6, 3) NOT NULL CHECK (latency_credit BETWEEN 0 AND 100),
            probe text NOT NULL CHECK (probe IN ('health', 'sample', 'none')),
            created_at timestamptz NOT NULL,
            UNIQUE (service_id, version),
            UNIQUE (service_id, effective_from)
        );

        CREATE TABLE sla_slots (
            service_id uuid NOT NULL,
            minutes smallint NOT NULL CHECK (minutes IN (1, 15)),
            slot timestamptz NOT NULL,
            answered bigint NOT NULL DEFAULT 0,
            failed bigint NOT NULL DEFAULT 0,
            down bigint NOT NULL DEFAULT 0 CHECK (down <= failed),
            probes_good bigint NOT NULL DEFAULT 0,
            probes_bad bigint NOT NULL DEFAULT 0,
            latency bigint[] NOT NULL DEFAULT '{}',
            PRIMARY KEY (service_id, minutes, slot)
        );
        CREATE INDEX sla_slots_recent ON sla_slots (minutes, slot);
        COMMENT ON TABLE sla_slots IS 'What calls and probes say of a service, by minute for alerts (kept for two days)
            and by quarter hour for good. Derived from usage: latency is a sketch (see sketch_pack) of the times until
            the first byte.';
        CREATE TABLE sla_gathered (
            one boolean PRIMARY KEY DEFAULT true CHECK (one),
            batch bigint NOT NULL
        );
        COMMENT ON TABLE sla_gathered IS 'The ingest batch up to which sla_slots has the calls.';

        CREATE TABLE sla_probes (
            id uuid PRIMARY KEY,
            service_id uuid NOT NULL,
            at timestamptz NOT NULL,
            kind text NOT NULL,
            good boolean NOT NULL,
            counted boolean NOT NULL,
            ms integer NOT NULL,
            detail text NOT NULL
        );
        CREATE INDEX sla_probes_service ON sla_probes (service_id, at DESC);

        CREATE TABLE sla_alerts (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL REFERENCES organisations,
            service_id uuid NOT NULL REFERENCES services ON DELETE CASCADE,
            signal text NOT NULL CHECK (signal IN ('availability', 'p50', 'p95', 'p99')),
            pace text NOT NULL CHECK (pace IN ('fast', 'slow')),
            opened_at timestamptz NOT NULL,
            quiet_since timestamptz,
            closed_at timestamptz CHECK (closed_at >= opened_at),
            figures jsonb NOT NULL
        );
        CREATE UNIQUE INDEX sla_alerts_open ON sla_alerts (service_id, signal, pace) WHERE closed_at IS NULL;
        CREATE INDEX sla_alerts_service ON sla_alerts (service_id, opened_at);

        CREATE TABLE sla_suspensions (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL REFERENCES organisations,
            service_id uuid NOT NULL REFERENCES services ON DELETE CASCADE,
            suspended_at timestamptz NOT NULL,
            restored_at timestamptz CHECK (restored_at >= suspended_at),
            figures jsonb NOT NULL
        );
        CREATE UNIQUE INDEX sla_suspensions_open ON sla_suspensions (service_id) WHERE restored_at IS NULL;
        CREATE INDEX sla_suspensions_service ON sla_suspensions (service_id, suspended_at);

        CREATE TABLE sla_maintenance (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL REFERENCES organisations,
            service_id uuid NOT NULL REFERENCES services ON DELETE CASCADE,
            starts_at timestamptz NOT NULL,
            ends_at timestamptz NOT NULL CHECK (ends_at > starts_at),
            note text NOT NULL DEFAULT '',
            announced_at timestamptz NOT NULL,
            cancelled_at timestamptz
        );
        CREATE INDEX sla_maintenance_service ON sla_maintenance (service_id, starts_at);

        CREATE TABLE sla_months (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL REFERENCES organisations,
            service_id uuid NOT NULL REFERENCES services,
            objective_id uuid NOT NULL REFERENCES sla_objectives,
            period text NOT NULL CHECK (period ~ '^[0-9]{4}-[0-9]{2}$'),
            verdict text NOT NULL CHECK (verdict IN ('kept', 'breached', 'unmeasured')),
            availability numeric(9, 6),
            source text,
            missed text[] NOT NULL,
            credit numeric(6, 3) NOT NULL CHECK (credit BETWEEN 0 AND 100),
            fault text NOT NULL CHECK (fault IN ('provider', 'platform')),
            judged_at timestamptz NOT NULL,
            evidence jsonb NOT NULL,
            UNIQUE (service_id, period)
        );
        CREATE TABLE sla_affected (
            month_id uuid NOT NULL REFERENCES sla_months,
            org_id uuid NOT NULL REFERENCES organisations,
            calls bigint NOT NULL CHECK (calls > 0),
            PRIMARY KEY (month_id, org_id)
        );
        COMMENT ON TABLE sla_affected IS 'The organisations of which calls broke the promise, and how many calls. A
            month that probes alone have judged names nobody: it concerns whoever was charged.';
        CREATE TABLE sla_credits (
            id uuid PRIMARY KEY,
            month_id uuid NOT NULL REFERENCES sla_months,
            org_id uuid NOT NULL REFERENCES organisations,
            invoice_id uuid NOT NULL REFERENCES invoices,
            credit_note_id uuid NOT NULL,
            taxable numeric(20, 2) NOT NULL CHECK (taxable > 0),
            debited numeric(20, 2) NOT NULL CHECK (debited BETWEEN 0 AND taxable),
            posted_at timestamptz NOT NULL,
            UNIQUE (month_id, invoice_id)
        );
        COMMENT ON COLUMN sla_credits.debited IS 'The part that the provider bears, by the lines'' shares.';
        """
    )
    for table in _NEVER_EDITED:
        op.execute(
            f"""
            CREATE TRIGGER never_edited BEFORE UPDATE OR DELETE ON {table}
                FOR EACH ROW EXECUTE FUNCTION refuse_change();
            REVOKE UPDATE, DELETE ON {table} FROM haat_app, haat_service;
            """
        )
    for table in _TENANT:
        op.execute(tenant_policy(table))
    for table in _PLATFORM_ONLY:
        op.execute(
            f"""
            ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
            CREATE POLICY platform ON {table} USING (current_setting('haat.scope', true) = 'platform');
            """
        )


def downgrade() -> None:
    op.execute(
        """
        DROP TABLE sla_credits, sla_affected, sla_months, sla_maintenance, sla_suspensions, sla_alerts, sla_probes,
            sla_gathered, sla_slots, sla_objectives CASCADE;
        """
    )

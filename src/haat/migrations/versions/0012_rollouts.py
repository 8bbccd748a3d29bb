"""Moving calls between versions: what gateways do now, rollouts, experiments, and what calls say of them."""

from alembic import op

from haat.migrations.policies import tenant_policy

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE rollouts (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL REFERENCES organisations,
            service_id uuid NOT NULL REFERENCES services,
            control text NOT NULL,
            candidate text NOT NULL,
            status text NOT NULL CHECK (status IN ('running', 'paused', 'promoted', 'rolled_back')),
            percent numeric(5, 2) NOT NULL CHECK (percent BETWEEN 0 AND 100),
            plan jsonb NOT NULL,
            step integer NOT NULL,
            step_since timestamptz NOT NULL,
            reason text NOT NULL DEFAULT '',
            figures jsonb NOT NULL DEFAULT '{}',
            started_at timestamptz NOT NULL,
            ended_at timestamptz,
            CHECK ((ended_at IS NULL) = (status IN ('running', 'paused')))
        );
        CREATE INDEX rollouts_service ON rollouts (service_id, started_at);
        CREATE UNIQUE INDEX rollouts_running ON rollouts (service_id) WHERE ended_at IS NULL;

        CREATE TABLE experiments (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL REFERENCES organisations,
            service_id uuid NOT NULL REFERENCES services,
            control text NOT NULL,
            plan jsonb NOT NULL,
            status text NOT NULL CHECK (status IN ('registered', 'running', 'ended', 'stopped', 'withdrawn')),
            reason text NOT NULL DEFAULT '',
            registered_at timestamptz NOT NULL,
            starts_at timestamptz NOT NULL,
            ends_at timestamptz NOT NULL CHECK (ends_at > starts_at),
            started_at timestamptz,
            ended_at timestamptz
        );
        CREATE INDEX experiments_service ON experiments (service_id, registered_at);
        CREATE FUNCTION keep_experiment_plan() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF (NEW.plan, NEW.control, NEW.service_id, NEW.org_id, NEW.registered_at, NEW.starts_at, NEW.ends_at)
                IS DISTINCT FROM
               (OLD.plan, OLD.control, OLD.service_id, OLD.org_id, OLD.registered_at, OLD.starts_at, OLD.ends_at)
            THEN
                RAISE EXCEPTION 'what an experiment was registered with is not changed afterwards';
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER keep_plan BEFORE UPDATE ON experiments FOR EACH ROW EXECUTE FUNCTION keep_experiment_plan();

        CREATE TABLE divisions (
            service_id uuid PRIMARY KEY REFERENCES services,
            org_id uuid NOT NULL REFERENCES organisations,
            policy jsonb NOT NULL
        );
        COMMENT ON TABLE divisions IS 'How gateways divide a service''s calls at present: written by the one rollout or
            experiment that runs, gone when it ends.';

        ALTER TABLE usage ADD COLUMN rollout uuid;
        ALTER TABLE usage ADD COLUMN arm text NOT NULL DEFAULT '';
        ALTER TABLE usage ADD COLUMN agreed boolean;
        ALTER TABLE usage DROP CONSTRAINT usage_mode_check;
        ALTER TABLE usage ADD CONSTRAINT usage_mode_check CHECK (mode IN ('live', 'test', 'shadow'));
        CREATE INDEX usage_rollout ON usage (rollout, id) WHERE rollout IS NOT NULL;
        COMMENT ON COLUMN usage.mode IS 'test: a test key called, the gateway answered itself. shadow: the copy of a
            call, executed for its provider. Such rows are in no rollup, no invoice line and no settlement.';
        """
    )
    for table in ("rollouts", "experiments", "divisions"):
        op.execute(tenant_policy(table))


def downgrade() -> None:
    op.execute(
        """
        DELETE FROM usage WHERE mode = 'shadow'; -- without the mode they would be taken for sales
        DROP INDEX usage_rollout;
        ALTER TABLE usage DROP CONSTRAINT usage_mode_check;
        ALTER TABLE usage ADD CONSTRAINT usage_mode_check CHECK (mode IN ('live', 'test'));
        ALTER TABLE usage DROP COLUMN rollout, DROP COLUMN arm, DROP COLUMN agreed;
        DROP TABLE divisions, experiments, rollouts;
        DROP FUNCTION keep_experiment_plan;
        """
    )

"""Wallets and budgets, projected from their events, and the leases of gateways on both."""

from alembic import op

from haat.migrations.policies import tenant_policy

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_TABLES = ("wallets", "wallet_modes", "wallet_grants", "wallet_burns", "wallet_budgets", "wallet_alerts")


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE wallets (
            org_id uuid PRIMARY KEY,
            mode text NOT NULL CHECK (mode IN ('postpaid', 'prepaid'))
        );
        CREATE TABLE wallet_modes (
            subscription_id uuid PRIMARY KEY,
            org_id uuid NOT NULL,
            mode text NOT NULL CHECK (mode IN ('postpaid', 'prepaid'))
        );
        CREATE INDEX wallet_modes_org ON wallet_modes (org_id);
        CREATE TABLE wallet_grants (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL,
            kind text NOT NULL CHECK (kind IN ('paid', 'free')),
            amount numeric(20, 2) NOT NULL CHECK (amount > 0),
            priority smallint NOT NULL,
            granted_at timestamptz NOT NULL,
            expires_at timestamptz,
            key text NOT NULL,
            note text NOT NULL,
            UNIQUE (org_id, key)
        );
        CREATE TABLE wallet_burns (
            id uuid NOT NULL,
            position smallint NOT NULL,
            org_id uuid NOT NULL,
            grant_id uuid NOT NULL,
            amount numeric(20, 2) NOT NULL CHECK (amount > 0),
            reason text NOT NULL CHECK (reason IN ('invoice', 'expiry')),
            reference text NOT NULL,
            at timestamptz NOT NULL,
            PRIMARY KEY (id, position)
        );
        CREATE INDEX wallet_burns_org ON wallet_burns (org_id, grant_id);
        COMMENT ON TABLE wallet_burns IS 'What was taken from grants: what remains of one is its amount less these.';
        CREATE TABLE wallet_budgets (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL,
            application_id uuid,
            subscription_id uuid,
            amount numeric(20, 2) NOT NULL CHECK (amount > 0),
            hard_stop boolean NOT NULL,
            set_at timestamptz NOT NULL,
            CHECK (application_id IS NULL OR subscription_id IS NULL)
        );
        CREATE UNIQUE INDEX wallet_budgets_whose ON wallet_budgets (org_id, application_id, subscription_id)
            NULLS NOT DISTINCT;
        COMMENT ON TABLE wallet_budgets IS 'Of an organisation, or of an application or a subscription of it, a month.';
        CREATE TABLE wallet_alerts (
            budget_id uuid NOT NULL,
            period text NOT NULL,
            threshold smallint NOT NULL,
            org_id uuid NOT NULL,
            spent numeric(20, 2) NOT NULL,
            at timestamptz NOT NULL,
            PRIMARY KEY (budget_id, period, threshold)
        );

        CREATE TABLE wallet_leases (
            org_id uuid NOT NULL,
            fund text NOT NULL,
            gateway text NOT NULL,
            authorised bigint NOT NULL,
            counted bigint NOT NULL,
            mark bigint,
            mark_positions jsonb NOT NULL DEFAULT '{}',
            latest bigint,
            latest_positions jsonb NOT NULL DEFAULT '{}',
            ended boolean NOT NULL DEFAULT false,
            expires_at timestamptz NOT NULL,
            PRIMARY KEY (org_id, fund, gateway),
            CHECK (counted <= authorised)
        );
        CREATE INDEX wallet_leases_gateway ON wallet_leases (gateway);
        COMMENT ON TABLE wallet_leases IS 'How much a gateway may draw from a fund over its whole life, how much of that
            is in the usage store; mark is what will be once its journals are shipped up to mark_positions, latest the
            same of its latest word. In billionths of a rupee. What is authorised and not counted is out of the fund.';
        """
    )
    for table in ("wallet_grants", "wallet_burns"):
        op.execute(
            f"""
            CREATE TRIGGER never_edited BEFORE UPDATE OR DELETE ON {table}
                FOR EACH ROW EXECUTE FUNCTION refuse_change();
            REVOKE UPDATE, DELETE ON {table} FROM haat_app, haat_service;
            """
        )
    for table in (*_TABLES, "wallet_leases"):
        op.execute(tenant_policy(table))


def downgrade() -> None:
    op.execute(f"DROP TABLE wallet_leases, {', '.join(reversed(_TABLES))} CASCADE")

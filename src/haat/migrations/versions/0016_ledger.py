"""The ledger: operations whose entries sum to zero, never edited, and balances that follow from them."""

from alembic import op

from haat.migrations.policies import tenant_policy

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE ledger_operations (
            id uuid PRIMARY KEY,
            key text NOT NULL UNIQUE,
            kind text NOT NULL,
            at timestamptz NOT NULL,
            reference text NOT NULL DEFAULT '',
            currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
            digest bytea NOT NULL
        );
        CREATE INDEX ledger_operations_reference ON ledger_operations (reference) WHERE reference <> '';
        CREATE TABLE ledger_entries (
            operation_id uuid NOT NULL REFERENCES ledger_operations,
            position smallint NOT NULL,
            account text NOT NULL,
            org_id uuid,
            currency text NOT NULL,
            amount numeric(20, 2) NOT NULL CHECK (amount <> 0),
            PRIMARY KEY (operation_id, position)
        );
        CREATE INDEX ledger_entries_account ON ledger_entries (account, operation_id);
        COMMENT ON COLUMN ledger_entries.amount IS 'A debit is positive, a credit negative.';
        CREATE TABLE ledger_balances (
            account text NOT NULL,
            currency text NOT NULL,
            org_id uuid,
            amount numeric(24, 2) NOT NULL,
            entries bigint NOT NULL,
            PRIMARY KEY (account, currency)
        );
        COMMENT ON TABLE ledger_balances IS 'A projection of ledger_entries.';

        CREATE FUNCTION refuse_unbalanced() RETURNS trigger
            LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
        DECLARE
            wrong uuid;
        BEGIN
            -- An operation's entries are written by one statement: what is there before it may not grow.
            SELECT added.operation_id INTO wrong
            FROM added JOIN ledger_operations AS operation ON operation.id = added.operation_id
            GROUP BY added.operation_id
            HAVING sum(added.amount) <> 0 OR bool_or(added.currency <> operation.currency)
                OR count(*) <> (SELECT count(*) FROM ledger_entries AS one WHERE one.operation_id = added.operation_id)
            LIMIT 1;
            IF wrong IS NOT NULL THEN
                RAISE EXCEPTION 'the entries of operation % are not zero in sum, or not all in one statement', wrong;
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER zero_sum AFTER INSERT ON ledger_entries REFERENCING NEW TABLE AS added
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_unbalanced();
        """
    )
    for table in ("ledger_operations", "ledger_entries"):
        op.execute(
            f"""
            CREATE TRIGGER never_edited BEFORE UPDATE OR DELETE ON {table}
                FOR EACH ROW EXECUTE FUNCTION refuse_change();
            REVOKE UPDATE, DELETE ON {table} FROM haat_app, haat_service;
            """
        )
    for table in ("ledger_entries", "ledger_balances"):
        op.execute(tenant_policy(table))
    op.execute(
        """
        ALTER TABLE ledger_operations ENABLE ROW LEVEL SECURITY;
        CREATE POLICY platform ON ledger_operations USING (current_setting('haat.scope', true) = 'platform');
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE ledger_balances, ledger_entries, ledger_operations CASCADE; DROP FUNCTION refuse_unbalanced")

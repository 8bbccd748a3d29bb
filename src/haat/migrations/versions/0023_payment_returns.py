"""Money that goes back: refunds and chargebacks of payments, and providers' messages that could not be booked."""

from alembic import op

from haat.migrations.policies import tenant_policy

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE allocations
            DROP CONSTRAINT allocations_amount_check,
            ADD CONSTRAINT allocations_amount_check CHECK (amount <> 0);
        COMMENT ON TABLE allocations IS 'What of a payment/{id}, credit-note/{id} or of the wallet paid which invoice,
            and below zero what of a payment was taken off again because it went back. What is left of a payment or a
            note is credit on the receivable account.';

        CREATE TABLE payment_returns (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL REFERENCES organisations,
            payment_key text NOT NULL,
            kind text NOT NULL CHECK (kind IN ('refund', 'chargeback')),
            method text NOT NULL,
            reference text NOT NULL,
            amount numeric(20, 2) NOT NULL CHECK (amount > 0),
            state text NOT NULL CHECK (state IN ('pending', 'gone', 'back')),
            at timestamptz NOT NULL,
            version integer NOT NULL,
            UNIQUE (method, kind, reference)
        );
        CREATE INDEX payment_returns_payment ON payment_returns (payment_key);
        CREATE INDEX payment_returns_org ON payment_returns (org_id, id);
        COMMENT ON TABLE payment_returns IS 'A projection of the events of streams payment-return/{id}.';
        COMMENT ON COLUMN payment_returns.payment_key IS 'The key of its payment, which may be booked later than this.';

        CREATE TABLE payment_refusals (
            provider text NOT NULL,
            message_id text NOT NULL,
            reason text NOT NULL,
            body text NOT NULL,
            attempts integer NOT NULL DEFAULT 1,
            first_at timestamptz NOT NULL,
            last_at timestamptz NOT NULL,
            dealt_with_at timestamptz,
            dealt_with_by text,
            note text,
            PRIMARY KEY (provider, message_id)
        );
        COMMENT ON TABLE payment_refusals IS 'Messages of payment providers, rightly signed, that could not be booked:
            kept until they are, or until the operator has dealt with them.';
        ALTER TABLE payment_refusals ENABLE ROW LEVEL SECURITY;
        CREATE POLICY platform ON payment_refusals USING (current_setting('haat.scope', true) = 'platform');
        """
    )
    op.execute(tenant_policy("payment_returns"))


def downgrade() -> None:
    # Once money has gone back the check refuses: the version before could not say why an invoice is due again.
    op.execute(
        """
        DROP TABLE payment_refusals, payment_returns;
        ALTER TABLE allocations
            DROP CONSTRAINT allocations_amount_check,
            ADD CONSTRAINT allocations_amount_check CHECK (amount > 0);
        """
    )

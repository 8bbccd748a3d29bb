"""What was sent to a bank in which file, and to which account: a payout may be sent again, and elsewhere."""

from alembic import op

from haat.migrations.policies import org_policy

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE payout_sendings (
            file_id uuid NOT NULL,
            payout_id uuid NOT NULL REFERENCES payouts DEFERRABLE INITIALLY DEFERRED,
            org_id uuid NOT NULL REFERENCES organisations,
            account_id uuid NOT NULL,
            amount numeric(20, 2) NOT NULL,
            PRIMARY KEY (file_id, payout_id)
        );
        DROP INDEX payouts_file;
        """
    )
    op.execute(org_policy("payout_sendings"))  # before there are rows, whose references are checked at the end
    op.execute(
        """
        INSERT INTO payout_sendings (file_id, payout_id, org_id, account_id, amount)
            SELECT (sent.data ->> 'file')::uuid, payouts.id, payouts.org_id, approved.account_id, payouts.amount
            FROM events AS sent
            JOIN payouts ON sent.stream = 'payout/' || payouts.id
            CROSS JOIN LATERAL (
                SELECT (before.data ->> 'account_id')::uuid AS account_id FROM events AS before
                WHERE before.stream = sent.stream AND before.version < sent.version
                  AND before.type = 'payout.approved'
                ORDER BY before.version DESC LIMIT 1
            ) AS approved
            WHERE sent.type = 'payout.sent'
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE payout_sendings; CREATE INDEX payouts_file ON payouts (file_id)")

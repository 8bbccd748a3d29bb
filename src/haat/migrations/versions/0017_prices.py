"""Prices of every model on meters of a listing's own, and lines that say how their amount comes together."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_PLATFORM = "current_setting('haat.scope', true) = 'platform'"
_OWN = f"""{_PLATFORM} OR EXISTS (SELECT FROM services WHERE services.id = meters.service_id
    AND services.org_id = nullif(current_setting('haat.org', true), '')::uuid)"""


def upgrade() -> None:
    op.execute(
        f"""
        CREATE TABLE meters (
            id uuid PRIMARY KEY,
            service_id uuid NOT NULL REFERENCES services ON DELETE CASCADE,
            name text NOT NULL CHECK (name ~ '^[a-z][a-z0-9_-]{{0,39}}$'),
            aggregation text NOT NULL CHECK (aggregation IN ('sum', 'count', 'max', 'unique', 'last')),
            measure text NOT NULL,
            less text[] NOT NULL DEFAULT '{{}}',
            filter jsonb NOT NULL DEFAULT '{{}}',
            created_at timestamptz NOT NULL,
            UNIQUE (service_id, name)
        );
        COMMENT ON TABLE meters IS 'Never edited: cards name them, and bills were made by them. The sum of each unit
            is a meter of every listing and not in here.';
        CREATE TRIGGER never_edited BEFORE UPDATE ON meters FOR EACH ROW EXECUTE FUNCTION refuse_change();
        ALTER TABLE meters ENABLE ROW LEVEL SECURITY;
        CREATE POLICY seen ON meters FOR SELECT USING (true);
        CREATE POLICY added ON meters FOR INSERT WITH CHECK ({_OWN});

        ALTER TABLE rate_cards
            ADD COLUMN components jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(components) = 'array'),
            ADD COLUMN minimum numeric(30, 12) NOT NULL DEFAULT 0 CHECK (minimum >= 0);
        COMMENT ON COLUMN rate_cards.components IS 'Empty: unit_price for each unit beyond free_units. Otherwise these
            three say what the card is known by, and the components what it asks for.';

        ALTER TABLE invoice_lines
            ADD COLUMN IF NOT EXISTS kind text NOT NULL DEFAULT 'usage' CHECK (kind IN ('usage', 'fee', 'minimum')),
            ADD COLUMN IF NOT EXISTS meter text NOT NULL DEFAULT '',
            ADD COLUMN IF NOT EXISTS members jsonb NOT NULL DEFAULT '{{}}';
        COMMENT ON COLUMN invoice_lines.members IS 'What else a line''s calls have in common: the filter of its meter.';

        -- A price by volume that was billed in parts may come to less than the parts did; a fee has no calls.
        ALTER TABLE invoice_lines
            DROP CONSTRAINT IF EXISTS invoice_lines_taxable_check,
            DROP CONSTRAINT IF EXISTS invoice_lines_check,
            ADD CONSTRAINT invoice_lines_batches CHECK (batch_to > batch_from OR calls = 0 AND batch_to >= batch_from);
        ALTER TABLE settlement_lines
            DROP CONSTRAINT IF EXISTS settlement_lines_provider_amount_check,
            DROP CONSTRAINT IF EXISTS settlement_lines_platform_amount_check;
        ALTER TABLE settlements
            DROP CONSTRAINT IF EXISTS settlements_provider_amount_check,
            DROP CONSTRAINT IF EXISTS settlements_platform_amount_check;

        -- The running month's cost reads what came since it last looked: rows lie in the order of their batches.
        CREATE INDEX usage_batch ON usage USING brin (batch) WITH (pages_per_range = 32, autosummarize = on);
        """
    )


_CHECKS = {
    "invoice_lines": {"check": "batch_to > batch_from", "taxable_check": "taxable >= 0"},
    "settlement_lines": {
        "provider_amount_check": "provider_amount >= 0",
        "platform_amount_check": "platform_amount >= 0",
    },
    "settlements": {"provider_amount_check": "provider_amount >= 0", "platform_amount_check": "platform_amount >= 0"},
}


def downgrade() -> None:
    for table, checks in _CHECKS.items():
        for name, check in checks.items():  # refused where a line below zero was issued: it can't be undone
            op.execute(
                f"""
                ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {table}_{name},
                    ADD CONSTRAINT {table}_{name} CHECK ({check})
                """
            )
    op.execute(
        """
        DROP INDEX usage_batch;
        ALTER TABLE invoice_lines
            DROP CONSTRAINT IF EXISTS invoice_lines_batches,
            DROP COLUMN IF EXISTS kind, DROP COLUMN IF EXISTS meter, DROP COLUMN IF EXISTS members;
        ALTER TABLE rate_cards DROP COLUMN components, DROP COLUMN minimum;
        DROP TABLE meters;
        """
    )

"""The life of an invoice: states, notes, payments, corrections of usage, and the run that closes a month."""

from alembic import op

from haat.migrations.policies import tenant_policy

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_KEPT = ("invoice_documents", "credit_notes", "credit_note_lines", "payments", "allocations", "usage_corrections")


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE invoice_documents (
            content_hash bytea PRIMARY KEY CHECK (content_hash = sha256(convert_to(document, 'UTF8'))),
            org_id uuid NOT NULL REFERENCES organisations,
            document text NOT NULL
        );
        COMMENT ON TABLE invoice_documents IS 'What was issued, byte for byte. Events name it by its hash.';
        INSERT INTO invoice_documents SELECT content_hash, org_id, document FROM invoices ON CONFLICT DO NOTHING;

        ALTER TABLE invoices DROP COLUMN document;
        ALTER TABLE invoices
            ADD COLUMN kind text NOT NULL DEFAULT 'invoice' CHECK (kind IN ('invoice', 'debit_note', 'statement')),
            ADD COLUMN against uuid REFERENCES invoices DEFERRABLE INITIALLY DEFERRED,
            ADD COLUMN attempt smallint NOT NULL DEFAULT 0,
            ADD COLUMN due_on date,
            ADD COLUMN key text UNIQUE,
            ADD CONSTRAINT invoices_against_check CHECK ((kind = 'debit_note') = (against IS NOT NULL)),
            ADD FOREIGN KEY (content_hash) REFERENCES invoice_documents,
            DROP CONSTRAINT invoices_org_id_period_part_key,
            ADD UNIQUE (org_id, period, kind, part);
        ALTER TABLE invoices ALTER COLUMN kind DROP DEFAULT, ALTER COLUMN attempt DROP DEFAULT;
        CREATE INDEX invoices_against ON invoices (against) WHERE against IS NOT NULL;
        DROP INDEX invoices_closing;
        CREATE UNIQUE INDEX invoices_closing ON invoices (org_id, period, attempt) WHERE closes;
        COMMENT ON COLUMN invoices.key IS 'Names a debit note to whoever asked for it.';
        COMMENT ON COLUMN invoices.attempt IS 'How many invoices of the month had been voided before.';

        ALTER TABLE invoice_lines
            ADD COLUMN charge_key text,
            DROP CONSTRAINT invoice_lines_kind_check,
            DROP CONSTRAINT invoice_lines_batches,
            DROP CONSTRAINT invoice_lines_calls_check,
            DROP CONSTRAINT invoice_lines_quantity_check,
            DROP CONSTRAINT invoice_lines_check1,
            ADD CONSTRAINT invoice_lines_kind_check CHECK (kind IN ('usage', 'fee', 'minimum', 'adjustment')),
            ADD CONSTRAINT invoice_lines_batches CHECK (batch_to >= batch_from);
        ALTER TABLE invoice_lines DISABLE TRIGGER never_edited;
        UPDATE invoice_lines SET charge_key = left(identity, -length('/' || period || '[' || batch_from || ']'));
        ALTER TABLE invoice_lines ENABLE TRIGGER never_edited;
        ALTER TABLE invoice_lines ALTER COLUMN charge_key SET NOT NULL, ALTER COLUMN kind DROP DEFAULT;
        COMMENT ON COLUMN invoice_lines.charge_key IS 'What it charges for: lines of one key and month add up to what
            the month''s usage costs. One that adjusts an earlier line may be below zero.';

        -- A projection that is made anew takes rows out and puts them back before anybody looks.
        ALTER TABLE settlement_lines
            ALTER CONSTRAINT settlement_lines_invoice_line_id_fkey DEFERRABLE INITIALLY DEFERRED;

        CREATE TABLE invoice_states (
            invoice_id uuid PRIMARY KEY,
            org_id uuid NOT NULL,
            kind text NOT NULL,
            period text NOT NULL,
            serial text NOT NULL,
            state text NOT NULL
                CHECK (state IN ('registering', 'issued', 'paid', 'overdue', 'void', 'shown')),
            total numeric(20, 2) NOT NULL,
            paid numeric(20, 2) NOT NULL,
            credited numeric(20, 2) NOT NULL,
            due_on date,
            reminders smallint NOT NULL,
            reason text NOT NULL,
            changed_at timestamptz NOT NULL,
            version integer NOT NULL,
            CHECK (paid >= 0 AND credited >= 0 AND paid + credited <= total)
        );
        CREATE INDEX invoice_states_org ON invoice_states (org_id, invoice_id);
        CREATE INDEX invoice_states_open ON invoice_states (due_on) WHERE state IN ('issued', 'overdue');
        COMMENT ON TABLE invoice_states IS 'A projection of the events of streams invoice/{id}.';
        INSERT INTO invoice_states
            SELECT id, org_id, kind, period, serial, 'issued', total, 0, 0, NULL, 0, '', issued_at, 1 FROM invoices;

        CREATE TABLE credit_notes (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL REFERENCES organisations,
            key text NOT NULL UNIQUE,
            serial text NOT NULL UNIQUE CHECK (serial ~ '^[A-Za-z0-9/-]{1,16}$'),
            reason text NOT NULL CHECK (reason ~ '^[a-z][a-z_-]{0,39}$'),
            reference text NOT NULL,
            issued_at timestamptz NOT NULL,
            place_of_supply text NOT NULL,
            net numeric(20, 2) NOT NULL,
            tax numeric(20, 2) NOT NULL,
            total numeric(20, 2) NOT NULL CHECK (total = net + tax),
            content_hash bytea NOT NULL REFERENCES invoice_documents
        );
        CREATE INDEX credit_notes_org ON credit_notes (org_id, id);
        CREATE TABLE credit_note_lines (
            id uuid PRIMARY KEY,
            credit_note_id uuid NOT NULL REFERENCES credit_notes DEFERRABLE INITIALLY DEFERRED,
            invoice_line_id uuid NOT NULL REFERENCES invoice_lines DEFERRABLE INITIALLY DEFERRED,
            org_id uuid NOT NULL REFERENCES organisations,
            provider_org uuid NOT NULL,
            taxable numeric(20, 2) NOT NULL CHECK (taxable <> 0),
            provider_share numeric(6, 5) NOT NULL,
            fault text NOT NULL CHECK (fault IN ('provider', 'platform'))
        );
        CREATE INDEX credit_note_lines_note ON credit_note_lines (credit_note_id);
        CREATE INDEX credit_note_lines_line ON credit_note_lines (invoice_line_id);
        CREATE INDEX credit_note_lines_provider ON credit_note_lines (provider_org);

        CREATE TABLE payments (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL REFERENCES organisations,
            key text NOT NULL UNIQUE,
            method text NOT NULL,
            reference text NOT NULL,
            amount numeric(20, 2) NOT NULL CHECK (amount > 0),
            received_at timestamptz NOT NULL
        );
        CREATE INDEX payments_org ON payments (org_id, id);
        CREATE TABLE allocations (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL,
            source text NOT NULL,
            invoice_id uuid NOT NULL,
            amount numeric(20, 2) NOT NULL CHECK (amount > 0),
            at timestamptz NOT NULL
        );
        CREATE INDEX allocations_source ON allocations (source);
        CREATE INDEX allocations_invoice ON allocations (invoice_id);
        COMMENT ON TABLE allocations IS 'What of a payment/{id}, credit-note/{id} or of the wallet paid which invoice.
            What is left of a payment or a note is credit on the receivable account.';

        CREATE TABLE payment_orders (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL REFERENCES organisations,
            invoice_id uuid,
            provider text NOT NULL,
            reference text NOT NULL,
            amount numeric(20, 2) NOT NULL CHECK (amount > 0),
            state text NOT NULL CHECK (state IN ('begun', 'pending', 'failed', 'succeeded')),
            url text NOT NULL,
            at timestamptz NOT NULL,
            version integer NOT NULL,
            UNIQUE (provider, reference)
        );
        CREATE INDEX payment_orders_org ON payment_orders (org_id, id);
        CREATE TABLE payment_messages (
            provider text NOT NULL,
            message_id text NOT NULL,
            received_at timestamptz NOT NULL,
            PRIMARY KEY (provider, message_id)
        );
        ALTER TABLE payment_messages ENABLE ROW LEVEL SECURITY;
        CREATE POLICY platform ON payment_messages USING (current_setting('haat.scope', true) = 'platform');

        CREATE TABLE usage_corrections (
            call_id uuid PRIMARY KEY,
            org_id uuid NOT NULL REFERENCES organisations,
            batch bigint NOT NULL,
            replaced_by uuid UNIQUE,
            reason text NOT NULL CHECK (reason <> ''),
            actor text NOT NULL,
            at timestamptz NOT NULL
        );
        CREATE INDEX usage_corrections_org ON usage_corrections (org_id, batch);
        COMMENT ON TABLE usage_corrections IS 'A call that is void from a batch on, and the call that is counted in its
            place if it was corrected. The rows of both stay as they are.';

        CREATE TABLE billing_runs (
            period text PRIMARY KEY CHECK (period ~ '^[0-9]{4}-[0-9]{2}$'),
            state text NOT NULL CHECK (state IN ('billing', 'settling', 'done')),
            pass integer NOT NULL,
            until bigint NOT NULL,
            organisations integer NOT NULL,
            started_at timestamptz NOT NULL,
            started_by text NOT NULL,
            ended_at timestamptz
        );
        CREATE TABLE billing_batches (
            period text NOT NULL REFERENCES billing_runs,
            pass integer NOT NULL,
            number integer NOT NULL,
            organisations uuid[] NOT NULL,
            done_at timestamptz,
            issued integer NOT NULL DEFAULT 0,
            unchanged integer NOT NULL DEFAULT 0,
            failed jsonb NOT NULL DEFAULT '[]',
            PRIMARY KEY (period, pass, number)
        );
        CREATE INDEX billing_batches_waiting ON billing_batches (period, pass, number) WHERE done_at IS NULL;
        """
    )
    for table in ("billing_runs", "billing_batches"):
        op.execute(
            f"""
            ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
            CREATE POLICY platform ON {table} USING (current_setting('haat.scope', true) = 'platform');
            """
        )
    op.execute(
        """
        CREATE TRIGGER sealed BEFORE INSERT ON credit_note_lines
            FOR EACH ROW EXECUTE FUNCTION refuse_sealed('credit_notes', 'credit_note_id');
        """
    )
    for table in _KEPT:
        op.execute(
            f"""
            CREATE TRIGGER never_edited BEFORE UPDATE OR DELETE ON {table}
                FOR EACH ROW EXECUTE FUNCTION refuse_change();
            REVOKE UPDATE, DELETE ON {table} FROM haat_app, haat_service;
            """
        )
    for table in (*_KEPT, "invoice_states", "payment_orders"):
        op.execute(tenant_policy(table))


def downgrade() -> None:
    op.execute(
        """
        DROP TABLE billing_batches, billing_runs, usage_corrections, payment_messages, payment_orders, allocations,
            payments, credit_note_lines, credit_notes, invoice_states;

        ALTER TABLE settlement_lines
            ALTER CONSTRAINT settlement_lines_invoice_line_id_fkey NOT DEFERRABLE;
        ALTER TABLE invoice_lines DISABLE TRIGGER never_edited;
        UPDATE invoice_lines SET kind = 'usage' WHERE kind = 'adjustment';
        ALTER TABLE invoice_lines ENABLE TRIGGER never_edited;
        ALTER TABLE invoice_lines
            ALTER COLUMN kind SET DEFAULT 'usage',
            DROP COLUMN charge_key,
            DROP CONSTRAINT invoice_lines_kind_check,
            DROP CONSTRAINT invoice_lines_batches,
            ADD CONSTRAINT invoice_lines_kind_check CHECK (kind IN ('usage', 'fee', 'minimum')),
            ADD CONSTRAINT invoice_lines_batches CHECK (batch_to > batch_from OR calls = 0 AND batch_to >= batch_from),
            ADD CONSTRAINT invoice_lines_calls_check CHECK (calls >= 0),
            ADD CONSTRAINT invoice_lines_quantity_check CHECK (quantity >= 0),
            ADD CONSTRAINT invoice_lines_check1 CHECK (free_units >= 0 AND free_units <= quantity);

        ALTER TABLE invoices ADD COLUMN document text;
        ALTER TABLE invoices DISABLE TRIGGER never_edited;
        UPDATE invoices SET document = kept.document FROM invoice_documents AS kept
            WHERE kept.content_hash = invoices.content_hash;
        ALTER TABLE invoices ENABLE TRIGGER never_edited;
        DROP INDEX invoices_closing;
        ALTER TABLE invoices
            ALTER COLUMN document SET NOT NULL,
            ADD CONSTRAINT invoices_check1 CHECK (content_hash = sha256(convert_to(document, 'UTF8'))),
            DROP CONSTRAINT invoices_content_hash_fkey,
            DROP COLUMN against, DROP COLUMN attempt, DROP COLUMN due_on, DROP COLUMN kind,
            DROP COLUMN key,
            ADD UNIQUE (org_id, period, part);
        CREATE UNIQUE INDEX invoices_closing ON invoices (org_id, period) WHERE closes;
        DROP TABLE invoice_documents;
        """
    )

"""Settlement: credits, tax withheld, holds, payouts with their accounts, disputes."""

from __future__ import annotations

import hashlib
from typing import Any

from alembic import op
from psycopg.types.json import Jsonb

from haat.kernel.events import GENESIS, chain_hash
from haat.kernel.ids import new_id
from haat.migrations.policies import tenant_policy

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_ADDED_ONLY = (
    "settlement_credits",
    "settlement_withheld",
    "settlement_adjustments",
    "earnings",
    "dispute_differences",
)
_TENANTS = (
    *_ADDED_ONLY,
    "holds",
    "payouts",
    "payout_rows",
    "payout_terms",
    "bank_accounts",
    "disputes",
    "dispute_lines",
)
_LINES_AN_EVENT = 2000


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE settlements DISABLE TRIGGER never_edited;
        ALTER TABLE settlements
            ADD COLUMN credited numeric(20, 2) NOT NULL DEFAULT 0,
            ADD COLUMN credited_provider numeric(20, 2) NOT NULL DEFAULT 0,
            ADD COLUMN credited_platform numeric(20, 2) NOT NULL DEFAULT 0,
            ADD COLUMN adjusted numeric(20, 2) NOT NULL DEFAULT 0,
            ADD COLUMN withheld numeric(20, 2) NOT NULL DEFAULT 0 CHECK (withheld >= 0),
            ADD COLUMN payable numeric(20, 2),
            ADD CHECK (credited = credited_provider + credited_platform);
        UPDATE settlements SET payable = provider_amount;
        ALTER TABLE settlements
            ALTER COLUMN payable SET NOT NULL,
            ADD CHECK (payable = provider_amount - credited_provider + adjusted - withheld);
        ALTER TABLE settlements ENABLE TRIGGER never_edited;
        COMMENT ON COLUMN settlements.adjusted IS 'What others posted to the provider''s account, debits below zero.';
        CREATE INDEX invoice_lines_settling ON invoice_lines (provider_org, invoice_id);

        -- No reference to credit_note_lines: that is a projection, and may be made anew.
        CREATE TABLE settlement_credits (
            id uuid PRIMARY KEY,
            settlement_id uuid NOT NULL REFERENCES settlements DEFERRABLE INITIALLY DEFERRED,
            org_id uuid NOT NULL REFERENCES organisations,
            credit_note_line_id uuid NOT NULL UNIQUE,
            invoice_line_id uuid NOT NULL REFERENCES invoice_lines DEFERRABLE INITIALLY DEFERRED,
            fault text NOT NULL CHECK (fault IN ('provider', 'platform')),
            gross numeric(20, 2) NOT NULL CHECK (gross <> 0),
            share numeric(6, 5) NOT NULL,
            provider_amount numeric(20, 2) NOT NULL,
            platform_amount numeric(20, 2) NOT NULL,
            CHECK (gross = provider_amount + platform_amount)
        );
        COMMENT ON COLUMN settlement_credits.gross IS 'Below zero only of a line that was so itself.';
        CREATE INDEX settlement_credits_settlement ON settlement_credits (settlement_id);
        CREATE INDEX settlement_credits_line ON settlement_credits (invoice_line_id);
        CREATE TABLE settlement_withheld (
            id uuid PRIMARY KEY,
            settlement_id uuid NOT NULL REFERENCES settlements DEFERRABLE INITIALLY DEFERRED,
            org_id uuid NOT NULL REFERENCES organisations,
            name text NOT NULL,
            section text NOT NULL,
            base numeric(20, 2) NOT NULL CHECK (base > 0),
            rate numeric(6, 5) NOT NULL,
            amount numeric(20, 2) NOT NULL CHECK (amount > 0),
            UNIQUE (settlement_id, name)
        );
        CREATE TABLE settlement_adjustments (
            id uuid PRIMARY KEY,
            settlement_id uuid NOT NULL REFERENCES settlements DEFERRABLE INITIALLY DEFERRED,
            org_id uuid NOT NULL REFERENCES organisations,
            operation_id uuid NOT NULL REFERENCES ledger_operations,
            kind text NOT NULL,
            reference text NOT NULL,
            amount numeric(20, 2) NOT NULL CHECK (amount <> 0),
            UNIQUE (org_id, operation_id)
        );
        CREATE INDEX settlement_adjustments_settlement ON settlement_adjustments (settlement_id);
        COMMENT ON TABLE settlement_adjustments IS 'Entries that others posted to payable/<provider>, each on one
            statement; above zero for the provider.';

        CREATE TABLE earnings (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL REFERENCES organisations,
            kind text NOT NULL CHECK (kind IN ('settlement', 'hold', 'release')),
            reference uuid NOT NULL,
            amount numeric(20, 2) NOT NULL CHECK (amount <> 0),
            since timestamptz,
            UNIQUE (kind, reference)
        );
        CREATE INDEX earnings_org ON earnings (org_id, id);
        COMMENT ON TABLE earnings IS 'What a provider''s payouts are made of: settlements, less what is held, and what
            was held once it is released. The delay counts from since; without it a row counts at once.';
        CREATE TABLE holds (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL REFERENCES organisations,
            settlement_id uuid,
            dispute_id uuid,
            amount numeric(20, 2) NOT NULL CHECK (amount > 0),
            reason text NOT NULL,
            placed_at timestamptz NOT NULL,
            released_at timestamptz,
            release_reason text NOT NULL DEFAULT ''
        );
        CREATE INDEX holds_org ON holds (org_id, id);
        CREATE INDEX holds_dispute ON holds (dispute_id);
        CREATE TABLE payouts (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL REFERENCES organisations,
            status text NOT NULL CHECK (status IN ('draft', 'held', 'approved', 'sent', 'paid', 'failed', 'reversed')),
            amount numeric(20, 2) NOT NULL CHECK (amount > 0),
            account_id uuid,
            account text NOT NULL DEFAULT '',
            file_id uuid,
            bank_reference text NOT NULL DEFAULT '',
            reason text NOT NULL DEFAULT '',
            created_at timestamptz NOT NULL,
            changed_at timestamptz NOT NULL,
            CHECK (status IN ('draft', 'held', 'reversed') OR account_id IS NOT NULL)
        );
        CREATE INDEX payouts_org ON payouts (org_id, id);
        CREATE INDEX payouts_open ON payouts (status, id) WHERE status NOT IN ('paid', 'reversed');
        CREATE INDEX payouts_file ON payouts (file_id);
        COMMENT ON COLUMN payouts.account IS 'The account''s IFSC and last four digits, as a reader may see them.';
        CREATE TABLE payout_rows (
            payout_id uuid NOT NULL REFERENCES payouts DEFERRABLE INITIALLY DEFERRED,
            earning_id uuid NOT NULL REFERENCES earnings DEFERRABLE INITIALLY DEFERRED,
            org_id uuid NOT NULL REFERENCES organisations,
            amount numeric(20, 2) NOT NULL,
            active boolean NOT NULL,
            PRIMARY KEY (payout_id, earning_id)
        );
        CREATE UNIQUE INDEX payout_rows_once ON payout_rows (earning_id) WHERE active;
        CREATE TABLE payout_terms (
            org_id uuid PRIMARY KEY REFERENCES organisations,
            minimum numeric(20, 2) CHECK (minimum >= 0),
            delay_days integer CHECK (delay_days BETWEEN 0 AND 365),
            withholdings jsonb NOT NULL,
            stopped text NOT NULL,
            changed_at timestamptz NOT NULL
        );

        CREATE TABLE bank_accounts (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL REFERENCES organisations,
            holder text NOT NULL,
            number_encrypted bytea NOT NULL,
            last_four text NOT NULL,
            ifsc text NOT NULL CHECK (ifsc ~ '^[A-Z]{4}0[A-Z0-9]{6}$'),
            added_at timestamptz NOT NULL,
            replaced_at timestamptz
        );
        CREATE UNIQUE INDEX bank_accounts_present ON bank_accounts (org_id) WHERE replaced_at IS NULL;
        COMMENT ON TABLE bank_accounts IS 'Personal data: outside the events, which name an account by its id.';

        CREATE TABLE disputes (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL REFERENCES organisations,
            side text NOT NULL CHECK (side IN ('provider', 'consumer')),
            subject text NOT NULL,
            period text NOT NULL,
            status text NOT NULL CHECK (status IN ('agreed', 'open', 'decided', 'withdrawn')),
            log_hash text NOT NULL,
            ours bigint NOT NULL,
            theirs bigint NOT NULL,
            only_ours bigint NOT NULL,
            only_theirs bigint NOT NULL,
            different bigint NOT NULL,
            reason text NOT NULL,
            note text NOT NULL DEFAULT '',
            credit_note_id uuid,
            opened_at timestamptz NOT NULL,
            ended_at timestamptz
        );
        CREATE INDEX disputes_org ON disputes (org_id, id);
        CREATE UNIQUE INDEX disputes_subject ON disputes (subject) WHERE status = 'open';
        CREATE TABLE dispute_lines (
            dispute_id uuid NOT NULL REFERENCES disputes DEFERRABLE INITIALLY DEFERRED,
            invoice_line_id uuid NOT NULL REFERENCES invoice_lines DEFERRABLE INITIALLY DEFERRED,
            org_id uuid NOT NULL REFERENCES organisations,
            provider_org uuid NOT NULL,
            calls bigint NOT NULL,
            quantity numeric(30, 6) NOT NULL,
            open boolean NOT NULL,
            credited numeric(20, 2) NOT NULL DEFAULT 0 CHECK (credited >= 0),
            fault text CHECK (fault IN ('provider', 'platform')),
            PRIMARY KEY (dispute_id, invoice_line_id)
        );
        CREATE INDEX dispute_lines_open ON dispute_lines (invoice_line_id) WHERE open;
        COMMENT ON TABLE dispute_lines IS 'Lines on which we count more than they do, with calls and quantity of that.';
        CREATE TABLE dispute_differences (
            dispute_id uuid NOT NULL,
            org_id uuid NOT NULL REFERENCES organisations,
            request_id uuid NOT NULL,
            unit text NOT NULL,
            kind text NOT NULL CHECK (kind IN ('only_ours', 'only_theirs', 'different')),
            ours numeric(30, 6),
            theirs numeric(30, 6),
            PRIMARY KEY (dispute_id, request_id, unit)
        );
        """
    )
    for table in ("settlement_credits", "settlement_withheld", "settlement_adjustments"):
        op.execute(
            f"""
            CREATE TRIGGER sealed BEFORE INSERT ON {table}
                FOR EACH ROW EXECUTE FUNCTION refuse_sealed('settlements', 'settlement_id')
            """
        )
    for table in _ADDED_ONLY:
        op.execute(
            f"""
            CREATE TRIGGER never_edited BEFORE UPDATE OR DELETE ON {table}
                FOR EACH ROW EXECUTE FUNCTION refuse_change();
            REVOKE UPDATE, DELETE ON {table} FROM haat_app, haat_service;
            """
        )
    for table in _TENANTS:
        op.execute(tenant_policy(table))
    _restate()


def downgrade() -> None:
    op.execute(
        """
        DROP TABLE dispute_differences, dispute_lines, disputes, bank_accounts, payout_terms, payout_rows, payouts,
            holds, earnings, settlement_adjustments, settlement_withheld, settlement_credits;
        DROP INDEX invoice_lines_settling;
        ALTER TABLE settlements
            DROP COLUMN payable, DROP COLUMN withheld, DROP COLUMN adjusted, DROP COLUMN credited_platform,
            DROP COLUMN credited_provider, DROP COLUMN credited;
        """
    )


# --- settlements that were closed before: said again as events with all their data, and posted -------


def _restate() -> None:
    for row in _rows("SELECT * FROM settlements ORDER BY id"):
        lines = [
            [str(line["id"]), str(line["invoice_line_id"]), *_texts(line, "gross", "share", *_PARTS)]
            for line in _rows("SELECT * FROM settlement_lines WHERE settlement_id = %s ORDER BY id", row["id"])
        ]
        for start in range(0, len(lines), _LINES_AN_EVENT):
            _append(row, "settlement.lines", {"lines": lines[start : start + _LINES_AN_EVENT]})
        head = {name.removesuffix("_amount"): text for name, text in zip(_HEAD, _texts(row, *_HEAD), strict=True)}
        earning = str(new_id()) if row["payable"] else None
        about = {"period": row["period"], "part": row["part"], "closed_at": row["closed_at"].isoformat()}
        nothing: dict[str, Any] = {"credits": [], "withheld_lines": [], "adjustments": []}
        _append(row, "settlement.restated", {**about, **head, **nothing, "lines": len(lines), "earning": earning})
        if earning:
            _run(
                """
                INSERT INTO earnings (id, org_id, kind, reference, amount, since)
                VALUES (%s, %s, 'settlement', %s, %s, %s)
                """,
                *(earning, row["org_id"], row["id"], row["payable"], row["closed_at"]),
            )
            _post(row)


_PARTS = ("provider_amount", "platform_amount")
_HEAD = ("gross", *_PARTS, "credited", "credited_provider", "credited_platform", "adjusted", "withheld", "payable")


def _append(row: Any, kind: str, data: dict[str, Any]) -> None:
    stream = f"settlement/{row['id']}"
    last = _rows("SELECT version, hash FROM events WHERE stream = %s ORDER BY version DESC LIMIT 1", stream)
    version, before = (last[0]["version"] + 1, bytes(last[0]["hash"])) if last else (1, GENESIS)
    event: dict[str, Any] = {"id": new_id(), "stream": stream, "version": version, "type": kind, "data": data}
    event |= {"actor": "platform", "org": row["org_id"], "at": row["closed_at"]}
    digest = chain_hash(before, **event)
    _run(
        """
        INSERT INTO events (id, stream, version, type, data, actor, org_id, at, prev_hash, hash)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        """,
        *(event["id"], stream, version, kind, Jsonb(data), "platform", row["org_id"], row["closed_at"], before, digest),
    )


def _post(row: Any) -> None:
    """Post what a provider was given, as `haat.ledger.store` does it."""
    reference, operation = f"settlement/{row['id']}", new_id()
    entries = [(f"payable/{row['org_id']}", row["org_id"], -row["payable"]), ("shares", None, row["payable"])]
    text = "\n".join(["settlement", reference, "INR", *(f"{name} {amount:.2f}" for name, _, amount in entries)])
    done = _rows(
        """
        INSERT INTO ledger_operations (id, key, kind, at, reference, currency, digest)
        VALUES (%s, %s, 'settlement', %s, %s, 'INR', %s) ON CONFLICT (key) DO NOTHING RETURNING id
        """,
        *(operation, reference, row["closed_at"], reference, hashlib.sha256(text.encode()).digest()),
    )
    if not done:
        return
    _run(
        """
        INSERT INTO ledger_entries (operation_id, position, account, org_id, currency, amount)
        VALUES (%s, 0, %s, %s, 'INR', %s), (%s, 1, %s, %s, 'INR', %s)
        """,
        *(operation, *entries[0], operation, *entries[1]),
    )
    for name, org, amount in entries:
        _run(
            """
            INSERT INTO ledger_balances AS balance (account, currency, org_id, amount, entries)
            VALUES (%s, 'INR', %s, %s, 1) ON CONFLICT (account, currency)
            DO UPDATE SET amount = balance.amount + excluded.amount, entries = balance.entries + 1
            """,
            *(name, org, amount),
        )


def _texts(row: Any, *names: str) -> list[str]:
    return [str(row[name]) for name in names]


def _run(statement: str, *values: Any) -> Any:
    return op.get_bind().exec_driver_sql(statement, values)


def _rows(statement: str, *values: Any) -> Any:
    return _run(statement, *values).mappings().all()

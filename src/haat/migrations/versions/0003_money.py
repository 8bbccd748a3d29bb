"""Usage and money: usage rows, rollups, shipping positions, invoices, settlements."""

from alembic import op

from haat.migrations.policies import tenant_policy

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_UNITS = (
    "requests",
    "characters",
    "graphemes",
    "tokens",
    "audio_seconds",
    "pages",
    "images",
    "bytes",
    "compute_seconds",
)


def upgrade() -> None:
    op.execute(
        f"""
        CREATE TABLE usage (
            id uuid NOT NULL PRIMARY KEY,
            at timestamptz NOT NULL,
            batch bigint NOT NULL,
            org_id uuid,
            application_id uuid,
            credential_id uuid,
            subscription_id uuid,
            service_id uuid,
            provider_org uuid,
            status smallint NOT NULL,
            admission_us integer NOT NULL,
            queue_us integer NOT NULL,
            connect_us integer NOT NULL,
            first_byte_us integer NOT NULL,
            total_us integer NOT NULL,
            bytes_in bigint NOT NULL,
            bytes_out bigint NOT NULL,
            plan text,
            outcome text NOT NULL CHECK (outcome IN ('completed', 'client_left', 'provider_failed', 'refused',
                'interrupted', 'unconfirmed')),
            {", ".join(f"{unit} numeric(24, 6) CHECK ({unit} >= 0)" for unit in _UNITS)},
            other_units jsonb NOT NULL DEFAULT '{{}}',
            units_source text NOT NULL DEFAULT '',
            raw_usage text NOT NULL DEFAULT '',
            end_user text NOT NULL DEFAULT '',
            tags jsonb NOT NULL DEFAULT '{{}}',
            caller_request_id text NOT NULL DEFAULT '',
            provider text NOT NULL DEFAULT '',
            service_slug text NOT NULL DEFAULT '',
            version text NOT NULL DEFAULT '',
            variant text NOT NULL DEFAULT '',
            method text NOT NULL DEFAULT '',
            path_template text NOT NULL DEFAULT '',
            error_code text NOT NULL DEFAULT '',
            cache text NOT NULL DEFAULT '',
            region text NOT NULL DEFAULT '',
            language_pair text NOT NULL DEFAULT '',
            gateway text NOT NULL DEFAULT ''
        ) PARTITION BY RANGE (id);
        CREATE INDEX usage_org ON usage (org_id, id);
        COMMENT ON TABLE usage IS 'One row a call. Partitioned by the time in its UUIDv7 id, so that the key is the id
            alone and an event counts once wherever it comes from. at is the time in the id. batch is the ingest
            watermark: every batch up to one that can be seen is complete.';

        CREATE FUNCTION usage_partition(month date) RETURNS void
            LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
        DECLARE
            first date := date_trunc('month', month);
            name text := 'usage_' || to_char(first, 'YYYY_MM');
            bounds uuid[] := ARRAY(
                SELECT (lpad(to_hex((extract(epoch FROM edge) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
                FROM unnest(ARRAY[first, (first + interval '1 month')::date]) AS edge);
        BEGIN
            PERFORM pg_advisory_xact_lock(7411003);
            IF to_regclass('public.' || name) IS NOT NULL THEN
                RETURN;
            END IF;
            EXECUTE format('CREATE TABLE %I (LIKE usage INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
            -- Policies guard the way through the parent; nobody goes straight to a partition.
            EXECUTE format('REVOKE ALL ON %I FROM haat_app, haat_service', name);
            EXECUTE format('ALTER TABLE usage ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                name, bounds[1], bounds[2]);
        END $$;
        REVOKE EXECUTE ON FUNCTION usage_partition FROM PUBLIC;
        GRANT EXECUTE ON FUNCTION usage_partition TO haat_app, haat_service;

        CREATE FUNCTION latency_bucket(microseconds integer) RETURNS smallint IMMUTABLE PARALLEL SAFE LANGUAGE sql AS
            $$ SELECT CASE WHEN microseconds <= 1 THEN 0
                ELSE ceil(ln(microseconds::float8) / ln(1.04::float8)) END::smallint $$;
        CREATE FUNCTION histogram_add(one jsonb, other jsonb) RETURNS jsonb IMMUTABLE PARALLEL SAFE LANGUAGE sql AS
            $$ SELECT coalesce(jsonb_object_agg(key, calls), '{{}}') FROM (
                SELECT key, sum(value::bigint) AS calls
                FROM (SELECT * FROM jsonb_each_text(one) UNION ALL SELECT * FROM jsonb_each_text(other)) AS cells
                GROUP BY key) AS merged $$;

        CREATE TABLE usage_hourly (
            hour timestamptz NOT NULL,
            org_id uuid,
            application_id uuid,
            subscription_id uuid,
            service_id uuid,
            provider_org uuid,
            plan text,
            status_class smallint NOT NULL,
            outcome text NOT NULL,
            calls bigint NOT NULL,
            {", ".join(f"{unit} numeric NOT NULL" for unit in _UNITS)},
            bytes_in numeric NOT NULL,
            bytes_out numeric NOT NULL,
            latency_us numeric NOT NULL,
            latency jsonb NOT NULL,
            batch bigint NOT NULL
        );
        CREATE UNIQUE INDEX usage_hourly_key ON usage_hourly (org_id, hour, service_id, application_id,
            subscription_id, provider_org, plan, status_class, outcome) NULLS NOT DISTINCT;
        CREATE INDEX usage_hourly_provider ON usage_hourly (provider_org, hour);
        COMMENT ON TABLE usage_hourly IS 'Hours of the clock on the organisation''s wall, so that its days and months
            consist of whole rows. latency counts calls by latency_bucket; batch is the last one that added to a row.';

        CREATE TABLE usage_batches (
            batch bigint PRIMARY KEY,
            shipped_at timestamptz NOT NULL,
            rows integer NOT NULL,
            duplicates integer NOT NULL,
            quarantined integer NOT NULL
        );
        CREATE TABLE ship_positions (
            worker text PRIMARY KEY,
            segment bigint NOT NULL,
            byte_offset bigint NOT NULL,
            problem text NOT NULL DEFAULT '',
            moved_at timestamptz NOT NULL
        );
        CREATE TABLE usage_quarantine (
            id uuid PRIMARY KEY,
            worker text NOT NULL,
            segment bigint NOT NULL,
            byte_offset bigint NOT NULL,
            outcome text NOT NULL,
            payload bytea NOT NULL,
            reason text NOT NULL,
            set_aside_at timestamptz NOT NULL,
            released_at timestamptz,
            UNIQUE (worker, segment, byte_offset)
        );
        ALTER TABLE usage_quarantine ENABLE ROW LEVEL SECURITY;
        CREATE POLICY platform ON usage_quarantine USING (current_setting('haat.scope', true) = 'platform');

        CREATE TABLE invoice_serials (
            prefix text NOT NULL,
            financial_year text NOT NULL CHECK (financial_year ~ '^[0-9]{{4}}$'),
            last integer NOT NULL,
            PRIMARY KEY (prefix, financial_year)
        );
        CREATE TABLE invoices (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL REFERENCES organisations,
            period text NOT NULL CHECK (period ~ '^[0-9]{{4}}-[0-9]{{2}}$'),
            part integer NOT NULL CHECK (part > 0),
            closes boolean NOT NULL,
            serial text NOT NULL UNIQUE CHECK (serial ~ '^[A-Za-z0-9/-]{{1,16}}$'),
            issued_at timestamptz NOT NULL,
            batch_to bigint NOT NULL,
            place_of_supply text NOT NULL,
            net numeric(20, 2) NOT NULL CHECK (net >= 0),
            tax numeric(20, 2) NOT NULL CHECK (tax >= 0),
            total numeric(20, 2) NOT NULL CHECK (total = net + tax),
            document text NOT NULL,
            content_hash bytea NOT NULL CHECK (content_hash = sha256(convert_to(document, 'UTF8'))),
            UNIQUE (org_id, period, part)
        );
        CREATE UNIQUE INDEX invoices_closing ON invoices (org_id, period) WHERE closes;
        CREATE INDEX invoices_period ON invoices (period);
        CREATE TABLE invoice_lines (
            id uuid PRIMARY KEY,
            invoice_id uuid NOT NULL REFERENCES invoices DEFERRABLE INITIALLY DEFERRED,
            position integer NOT NULL,
            org_id uuid NOT NULL REFERENCES organisations,
            identity text NOT NULL UNIQUE,
            period text NOT NULL,
            subscription_id uuid NOT NULL,
            service_id uuid NOT NULL,
            provider_org uuid NOT NULL,
            plan text,
            rate_card_id uuid NOT NULL REFERENCES rate_cards,
            id_from uuid NOT NULL,
            id_to uuid NOT NULL,
            batch_from bigint NOT NULL,
            batch_to bigint NOT NULL CHECK (batch_to > batch_from),
            calls bigint NOT NULL CHECK (calls >= 0),
            unit text NOT NULL,
            quantity numeric(30, 6) NOT NULL CHECK (quantity >= 0),
            free_units numeric(30, 6) NOT NULL CHECK (free_units BETWEEN 0 AND quantity),
            unit_price numeric(30, 12) NOT NULL,
            taxable numeric(20, 2) NOT NULL CHECK (taxable >= 0),
            provider_share numeric(6, 5) NOT NULL,
            description text NOT NULL,
            UNIQUE (invoice_id, position)
        );
        CREATE INDEX invoice_lines_org ON invoice_lines (org_id, period);
        CREATE INDEX invoice_lines_subscription ON invoice_lines (subscription_id);
        COMMENT ON TABLE invoice_lines IS 'A line''s calls are found, not marked: subscription, plan, service, provider,
            id in [id_from, id_to), batch in (batch_from, batch_to], billed outcomes.';

        CREATE TABLE settlements (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL REFERENCES organisations,
            period text NOT NULL CHECK (period ~ '^[0-9]{{4}}-[0-9]{{2}}$'),
            part integer NOT NULL CHECK (part > 0),
            closed_at timestamptz NOT NULL,
            gross numeric(20, 2) NOT NULL,
            provider_amount numeric(20, 2) NOT NULL CHECK (provider_amount >= 0),
            platform_amount numeric(20, 2) NOT NULL CHECK (platform_amount >= 0),
            CHECK (gross = provider_amount + platform_amount),
            UNIQUE (org_id, period, part)
        );
        CREATE TABLE settlement_lines (
            id uuid PRIMARY KEY,
            settlement_id uuid NOT NULL REFERENCES settlements DEFERRABLE INITIALLY DEFERRED,
            org_id uuid NOT NULL REFERENCES organisations,
            invoice_line_id uuid NOT NULL UNIQUE REFERENCES invoice_lines,
            gross numeric(20, 2) NOT NULL,
            share numeric(6, 5) NOT NULL,
            provider_amount numeric(20, 2) NOT NULL CHECK (provider_amount >= 0),
            platform_amount numeric(20, 2) NOT NULL CHECK (platform_amount >= 0),
            CHECK (gross = provider_amount + platform_amount)
        );
        CREATE INDEX settlement_lines_settlement ON settlement_lines (settlement_id);

        -- What is issued or closed stays as it is. Its lines are written first; writing the head seals them.
        CREATE FUNCTION refuse_sealed() RETURNS trigger
            LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
        DECLARE
            sealed boolean;
        BEGIN
            EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE id = ($1).%I)', TG_ARGV[0], TG_ARGV[1])
                INTO sealed USING NEW;
            IF sealed THEN
                RAISE EXCEPTION 'no line is added to one of % that exists', TG_ARGV[0];
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER sealed BEFORE INSERT ON invoice_lines
            FOR EACH ROW EXECUTE FUNCTION refuse_sealed('invoices', 'invoice_id');
        CREATE TRIGGER sealed BEFORE INSERT ON settlement_lines
            FOR EACH ROW EXECUTE FUNCTION refuse_sealed('settlements', 'settlement_id');
        """
    )
    for table in ("invoices", "invoice_lines", "settlements", "settlement_lines"):
        op.execute(
            f"""
            CREATE TRIGGER never_edited BEFORE UPDATE OR DELETE ON {table}
                FOR EACH ROW EXECUTE FUNCTION refuse_change();
            REVOKE UPDATE, DELETE ON {table} FROM haat_app, haat_service;
            """
        )
    op.execute("REVOKE UPDATE, DELETE ON usage FROM haat_app, haat_service")
    for table in ("usage", "usage_hourly", "invoices", "invoice_lines", "settlements", "settlement_lines"):
        op.execute(tenant_policy(table))
    for table in ("usage", "usage_hourly"):
        op.execute(
            f"""
            CREATE POLICY provider ON {table} FOR SELECT
                USING (provider_org = nullif(current_setting('haat.org', true), '')::uuid)
            """
        )


def downgrade() -> None:
    op.execute(
        """
        DROP TABLE settlement_lines, settlements, invoice_lines, invoices, invoice_serials, usage_quarantine,
            ship_positions, usage_batches, usage_hourly, usage CASCADE;
        DROP FUNCTION refuse_sealed, usage_partition, latency_bucket, histogram_add;
        """
    )

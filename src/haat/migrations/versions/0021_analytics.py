"""Analytics: rollups by language pair, for sellers as for customers, by day as by hour; sketches that merge quickly."""

from alembic import op

from haat.migrations.policies import tenant_policy

revision = "0021"
down_revision = "0020"
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
_MEASURES = f"""
    calls bigint NOT NULL,
    {", ".join(f"{unit} numeric NOT NULL" for unit in _UNITS)},
    bytes_in numeric NOT NULL,
    bytes_out numeric NOT NULL,
    latency_us numeric NOT NULL,
    latency bigint[] NOT NULL
"""
_CUSTOMER = """
    org_id uuid,
    application_id uuid,
    subscription_id uuid,
    service_id uuid,
    provider_org uuid,
    plan text,
    language_pair text NOT NULL,
    status_class smallint NOT NULL,
    outcome text NOT NULL
"""
_SELLER = """
    provider_org uuid,
    "by" text NOT NULL CHECK ("by" IN ('all', 'service', 'pair', 'both')),
    service_id uuid,
    language_pair text NOT NULL,
    status_class smallint NOT NULL,
    outcome text NOT NULL
"""


def upgrade() -> None:
    op.execute(
        """
        CREATE FUNCTION sketch_pack(sketch bigint[]) RETURNS bigint[] IMMUTABLE PARALLEL SAFE LANGUAGE sql AS
            $$ SELECT coalesce(array_agg((bucket << 40) + calls ORDER BY bucket), '{}') FROM (
                SELECT one >> 40 AS bucket, sum(one & 1099511627775)::bigint AS calls
                FROM unnest(sketch) AS one GROUP BY one >> 40) AS merged $$;
        COMMENT ON FUNCTION sketch_pack IS 'A sketch: bucket × 2^40 + calls, for each latency_bucket. The same bucket
            may come twice: sketches are merged by putting one after the other. Packed, each comes once, in order.';
        CREATE FUNCTION sketch_add(one bigint[], other bigint[]) RETURNS bigint[]
            IMMUTABLE PARALLEL SAFE LANGUAGE sql AS
            $$ SELECT CASE WHEN cardinality(one) + cardinality(other) <= 128 THEN one || other
                ELSE sketch_pack(one || other) END $$;
        CREATE AGGREGATE sketch_concat(bigint[]) (sfunc = array_cat, stype = bigint[], initcond = '{}',
            parallel = safe);

        CREATE FUNCTION sketch_of_json(histogram jsonb) RETURNS bigint[] IMMUTABLE LANGUAGE sql AS
            $$ SELECT coalesce(array_agg((key::bigint << 40) + value::bigint ORDER BY key::bigint), '{}')
                FROM jsonb_each_text(histogram) $$;
        ALTER TABLE usage_hourly
            ADD COLUMN language_pair text NOT NULL DEFAULT '',
            ALTER COLUMN latency TYPE bigint[] USING sketch_of_json(latency);
        ALTER TABLE usage_hourly ALTER COLUMN language_pair DROP DEFAULT;
        ALTER TABLE usage_hourly SET (fillfactor = 50); -- most writes are updates: they need room beside the row
        DROP FUNCTION sketch_of_json, histogram_add;
        DROP INDEX usage_hourly_key;
        CREATE UNIQUE INDEX usage_hourly_key ON usage_hourly (org_id, hour, service_id, application_id,
            subscription_id, provider_org, plan, language_pair, status_class, outcome) NULLS NOT DISTINCT;
        COMMENT ON TABLE usage_hourly IS 'Hours of the clock on the organisation''s wall, so that its days and months
            consist of whole rows. latency is a sketch (see sketch_pack); batch is the last one that added to a row.';
        """
    )
    op.execute(
        f"""
        CREATE TABLE usage_daily (day date NOT NULL, {_CUSTOMER}, {_MEASURES});
        CREATE UNIQUE INDEX usage_daily_key ON usage_daily (org_id, day, service_id, application_id,
            subscription_id, provider_org, plan, language_pair, status_class, outcome) NULLS NOT DISTINCT;
        CREATE INDEX usage_daily_provider ON usage_daily (provider_org, day);
        COMMENT ON TABLE usage_daily IS 'Days before usage_settled.until, on the organisation''s wall. Late usage goes
            into its own day.';
        CREATE TABLE market_hourly (hour timestamptz NOT NULL, {_SELLER}, {_MEASURES}) WITH (fillfactor = 50);
        CREATE UNIQUE INDEX market_hourly_key ON market_hourly (provider_org, "by", hour, service_id, language_pair,
            status_class, outcome) NULLS NOT DISTINCT;
        CREATE INDEX market_hourly_by ON market_hourly ("by", hour);
        CREATE TABLE market_daily (day date NOT NULL, {_SELLER}, {_MEASURES});
        CREATE UNIQUE INDEX market_daily_key ON market_daily (provider_org, "by", day, service_id, language_pair,
            status_class, outcome) NULLS NOT DISTINCT;
        CREATE INDEX market_daily_by ON market_daily ("by", day);
        COMMENT ON TABLE market_hourly IS 'The same calls as in usage_hourly, by who executed them and by no customer;
            hours of the provider''s wall. "by" says what a row is divided by besides status and outcome: nothing, the
            service, the language pair, or both.';
        CREATE TABLE usage_settled (one boolean PRIMARY KEY DEFAULT true CHECK (one), until date NOT NULL);
        CREATE INDEX invoice_lines_provider ON invoice_lines (period, provider_org);
        COMMENT ON TABLE usage_settled IS 'Days before this one are in usage_daily and market_daily. No row: none are.';
        """
    )
    for table, column in (
        ("usage_daily", "org_id"),
        ("market_hourly", "provider_org"),
        ("market_daily", "provider_org"),
    ):
        op.execute(tenant_policy(table, column))
    op.execute(
        """
        CREATE POLICY provider ON usage_daily FOR SELECT
            USING (provider_org = nullif(current_setting('haat.org', true), '')::uuid)
        """
    )


def downgrade() -> None:
    keys = "org_id, hour, service_id, application_id, subscription_id, provider_org, plan, status_class, outcome"
    sums = ("calls", *_UNITS, "bytes_in", "bytes_out", "latency_us")
    op.execute(
        f"""
        DROP INDEX invoice_lines_provider;
        DROP TABLE usage_daily, market_hourly, market_daily, usage_settled;
        CREATE FUNCTION sketch_to_json(sketch bigint[]) RETURNS jsonb IMMUTABLE LANGUAGE sql AS
            $$ SELECT coalesce(jsonb_object_agg(one >> 40, one & 1099511627775), '{{}}')
                FROM unnest(sketch_pack(sketch)) AS one $$;
        CREATE TEMPORARY TABLE merged ON COMMIT DROP AS
            SELECT {keys}, {", ".join(f"sum({name}) AS {name}" for name in sums)},
                max(batch) AS batch, sketch_to_json(sketch_concat(latency)) AS latency
            FROM usage_hourly GROUP BY {keys};
        TRUNCATE usage_hourly;
        DROP INDEX usage_hourly_key;
        ALTER TABLE usage_hourly DROP COLUMN language_pair, DROP COLUMN latency, ADD COLUMN latency jsonb NOT NULL;
        ALTER TABLE usage_hourly RESET (fillfactor);
        INSERT INTO usage_hourly ({keys}, {", ".join(sums)}, batch, latency)
            SELECT {keys}, {", ".join(sums)}, batch, latency FROM merged;
        CREATE UNIQUE INDEX usage_hourly_key ON usage_hourly ({keys}) NULLS NOT DISTINCT;
        DROP FUNCTION sketch_to_json;
        DROP AGGREGATE sketch_concat(bigint[]);
        DROP FUNCTION sketch_add, sketch_pack;
        CREATE FUNCTION histogram_add(one jsonb, other jsonb) RETURNS jsonb IMMUTABLE PARALLEL SAFE LANGUAGE sql AS
            $$ SELECT coalesce(jsonb_object_agg(key, calls), '{{}}') FROM (
                SELECT key, sum(value::bigint) AS calls
                FROM (SELECT * FROM jsonb_each_text(one) UNION ALL SELECT * FROM jsonb_each_text(other)) AS cells
                GROUP BY key) AS merged $$;
        """
    )

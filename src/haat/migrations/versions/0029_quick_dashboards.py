"""Quick dashboards: rollups of the whole market, sketches that sum() merges, settings read once a query."""

from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

_SCOPE = r"current_setting\(''haat\.scope''::text, true\)"
_ORG = r"\(NULLIF\(current_setting\(''haat\.org''::text, true\), ''''::text\)\)::uuid"
"""Patterns of what policies read, as PostgreSQL prints it, to be put into quotes."""
_ROLLUPS = ("usage_hourly", "usage_daily", "market_hourly", "market_daily")
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
_MEASURES = ("calls", *_UNITS, "bytes_in", "bytes_out", "latency_us", "latency")


def upgrade() -> None:
    # What a setting says was worked out once a row; a subquery is run once a query.
    _policies(rf"regexp_replace(regexp_replace(text, '{_ORG}', '(SELECT \&)', 'g'), '{_SCOPE}', '(SELECT \&)', 'g')")
    op.execute(
        r"""
        CREATE FUNCTION latency_sketch(microseconds integer) RETURNS numeric IMMUTABLE PARALLEL SAFE LANGUAGE sql AS
            $$ SELECT ('1e' || (12 * latency_bucket(microseconds))::text)::numeric $$;
        COMMENT ON FUNCTION latency_sketch IS 'The sketch of one call. A sketch is a number: twelve of its decimal
            digits, from the right, are the calls of latency_bucket 0, the next of bucket 1. Adding merges.';
        CREATE AGGREGATE sketch_sum(numeric) (sfunc = numeric_add, stype = numeric, combinefunc = numeric_add,
            parallel = safe);
        COMMENT ON AGGREGATE sketch_sum(numeric) IS 'As sum, for groups of few sketches: what sum() begins with has a
            place for every bucket down to 0. It is the quicker one where a group has many.';
        CREATE FUNCTION sketch_of_array(sketch bigint[]) RETURNS numeric IMMUTABLE LANGUAGE sql AS
            $$ SELECT coalesce(sum(((one & 1099511627775)::text || 'e' || (12 * (one >> 40))::text)::numeric), 0)
                FROM unnest(sketch) AS one $$;
        """
    )
    for table in _ROLLUPS:
        # Most rows are of one call, and a function that unnests takes long over millions of them.
        op.execute(
            f"""
            ALTER TABLE {table} ALTER COLUMN latency TYPE numeric USING CASE WHEN latency = ARRAY[latency[1]]
                THEN ((latency[1] & 1099511627775)::text || 'e' || (12 * (latency[1] >> 40))::text)::numeric
                ELSE sketch_of_array(latency) END
            """
        )
    op.execute(
        """
        ALTER TABLE sla_slots ALTER COLUMN latency DROP DEFAULT,
            ALTER COLUMN latency TYPE numeric USING sketch_of_array(latency), ALTER COLUMN latency SET DEFAULT 0;
        COMMENT ON TABLE sla_slots IS 'What calls and probes say of a service, by minute for alerts (kept for two days)
            and by quarter hour for good. Derived from usage: latency is a sketch (see latency_sketch) of the times
            until the first byte.';
        COMMENT ON TABLE usage_hourly IS 'Hours of the clock on the organisation''s wall, so that its days and months
            consist of whole rows. latency is a sketch (see latency_sketch); batch is the last one that added to
            a row.';
        DROP FUNCTION sketch_of_array, sketch_add, sketch_pack;
        DROP AGGREGATE sketch_concat(bigint[]);
        DROP INDEX usage_daily_provider;
        CREATE INDEX usage_daily_provider ON usage_daily (provider_org, day)
            INCLUDE (org_id, language_pair, outcome, calls);
        COMMENT ON TABLE market_hourly IS 'The same calls as in usage_hourly, by who executed them and by no customer;
            hours of the provider''s wall. "by" says what a row is divided by besides status and outcome: nothing, the
            service, the language pair, or both. market and market_pair are of all providers together: their
            provider_org is the operator, and their hours are those of its wall.';
        """
    )
    for table in ("market_hourly", "market_daily"):
        op.execute(
            f"""
            ALTER TABLE {table} DROP CONSTRAINT {table}_by_check, ADD CONSTRAINT {table}_by_check
                CHECK ("by" IN ('all', 'service', 'pair', 'both', 'market', 'market_pair'))
            """
        )
    _of_the_market("market_hourly", "hour", "date_trunc('hour', hour, zone)")
    _of_the_market("market_daily", "day", "day")


def _of_the_market(table: str, column: str, when: str) -> None:
    """Sum up what there is of providers, which `haat usage rebuild` does from the calls themselves."""
    for by, source in (("market", "all"), ("market_pair", "pair")):
        op.execute(
            f"""
            INSERT INTO {table} ({column}, provider_org, "by", service_id, language_pair, status_class, outcome,
                {", ".join(_MEASURES)})
            SELECT {when}, operator.id, '{by}', NULL, language_pair, status_class, outcome,
                   {", ".join(f"sum({name})" for name in _MEASURES)}
            FROM {table} LEFT JOIN (SELECT id FROM organisations WHERE kind = 'operator' ORDER BY created_at LIMIT 1)
                AS operator ON true
            CROSS JOIN (SELECT coalesce((SELECT zone FROM organisations WHERE kind = 'operator'
                                         ORDER BY created_at LIMIT 1), 'UTC') AS zone) AS wall
            WHERE "by" = '{source}' GROUP BY 1, operator.id, language_pair, status_class, outcome
            """
        )


def _policies(changed: str) -> None:
    """Say every policy anew as an expression over its ``text``, its condition as PostgreSQL prints it."""
    for clause, column in (("USING", "polqual"), ("WITH CHECK", "polwithcheck")):
        op.execute(
            f"""
            DO $policies$ DECLARE
                one record;
            BEGIN
                FOR one IN
                    SELECT polname, polrelid::regclass AS place, {changed} AS said
                    FROM (SELECT polname, polrelid, pg_get_expr({column}, polrelid) AS text FROM pg_policy) AS policies
                    WHERE text LIKE '%current_setting%'
                LOOP
                    EXECUTE format('ALTER POLICY %I ON %s {clause} (%s)', one.polname, one.place, one.said);
                END LOOP;
            END $policies$
            """
        )


def downgrade() -> None:
    op.execute(
        r"""
        DELETE FROM market_hourly WHERE "by" IN ('market', 'market_pair');
        DELETE FROM market_daily WHERE "by" IN ('market', 'market_pair');
        DROP INDEX usage_daily_provider;
        CREATE INDEX usage_daily_provider ON usage_daily (provider_org, day);
        CREATE FUNCTION sketch_pack(sketch bigint[]) RETURNS bigint[] IMMUTABLE PARALLEL SAFE LANGUAGE sql AS
            $$ SELECT coalesce(array_agg((bucket << 40) + calls ORDER BY bucket), '{}') FROM (
                SELECT one >> 40 AS bucket, sum(one & 1099511627775)::bigint AS calls
                FROM unnest(sketch) AS one GROUP BY one >> 40) AS merged $$;
        CREATE FUNCTION sketch_add(one bigint[], other bigint[]) RETURNS bigint[]
            IMMUTABLE PARALLEL SAFE LANGUAGE sql AS
            $$ SELECT CASE WHEN cardinality(one) + cardinality(other) <= 128 THEN one || other
                ELSE sketch_pack(one || other) END $$;
        CREATE AGGREGATE sketch_concat(bigint[]) (sfunc = array_cat, stype = bigint[], initcond = '{}',
            parallel = safe);
        CREATE FUNCTION sketch_to_array(sketch numeric) RETURNS bigint[] IMMUTABLE LANGUAGE sql AS
            $$ SELECT coalesce(array_agg((bucket::bigint << 40) + calls ORDER BY bucket) FILTER (WHERE calls > 0), '{}')
                FROM (SELECT bucket, reverse(substr(reverse(sketch::text), 12 * bucket + 1, 12))::bigint AS calls
                      FROM generate_series(0, (length(sketch::text) - 1) / 12) AS bucket) AS buckets $$;
        """
    )
    for table in _ROLLUPS:
        op.execute(f"ALTER TABLE {table} ALTER COLUMN latency TYPE bigint[] USING sketch_to_array(latency)")
    op.execute(
        """
        ALTER TABLE sla_slots ALTER COLUMN latency DROP DEFAULT,
            ALTER COLUMN latency TYPE bigint[] USING sketch_to_array(latency), ALTER COLUMN latency SET DEFAULT '{}';
        DROP FUNCTION sketch_to_array, latency_sketch;
        DROP AGGREGATE sketch_sum(numeric);
        """
    )
    for table in ("market_hourly", "market_daily"):
        op.execute(
            f"""
            ALTER TABLE {table} DROP CONSTRAINT {table}_by_check, ADD CONSTRAINT {table}_by_check
                CHECK ("by" IN ('all', 'service', 'pair', 'both'))
            """
        )
    _policies(
        rf"""regexp_replace(regexp_replace(text, '\( SELECT ({_ORG}) AS "nullif"\)', '\1', 'g'),
               '\( SELECT ({_SCOPE}) AS current_setting\)', '\1', 'g')"""
    )

"""What plans, services, versions and applications say about how the gateway treats their calls."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE plans
            ADD COLUMN burst integer CHECK (burst > 0),
            ADD COLUMN quota_per_day bigint CHECK (quota_per_day > 0),
            ADD COLUMN quota_unit text NOT NULL DEFAULT 'requests'
                CHECK (quota_unit IN ('requests', 'characters', 'graphemes', 'tokens', 'audio_seconds', 'pages',
                    'images', 'bytes', 'compute_seconds')),
            ADD COLUMN quota_reset text NOT NULL DEFAULT 'calendar' CHECK (quota_reset IN ('calendar', 'anniversary')),
            ADD COLUMN overage boolean NOT NULL DEFAULT false,
            ADD COLUMN fallback boolean NOT NULL DEFAULT false,
            ADD COLUMN cached_share numeric(4, 3) NOT NULL DEFAULT 1 CHECK (cached_share BETWEEN 0 AND 1);
        COMMENT ON COLUMN plans.burst IS 'Calls that may come at once; further ones at the pace of per_minute (GCRA).';
        COMMENT ON COLUMN plans.overage IS 'The quota is a soft cap: calls beyond it pass and are billed.';
        COMMENT ON COLUMN plans.fallback IS 'Another provider of the same capability may answer when this one cannot.';
        COMMENT ON COLUMN plans.cached_share IS 'Part of the price that is charged for an answer out of the cache.';
        ALTER TABLE services ADD COLUMN policy jsonb NOT NULL DEFAULT '{}';
        ALTER TABLE service_versions ADD COLUMN policy jsonb NOT NULL DEFAULT '{}';
        ALTER TABLE applications ADD COLUMN policy jsonb NOT NULL DEFAULT '{}';
        INSERT INTO plans (id, code, name, listed, per_minute, quota_per_day, max_concurrent, rank)
        VALUES
            ('00000000-0000-7000-8000-000000000011', 'free-daily', 'Free, by the day', true, 10, 100, 4, 11),
            ('00000000-0000-7000-8000-000000000012', 'pro-daily', 'Pro, by the day', true, 100, 10000, 32, 12),
            ('00000000-0000-7000-8000-000000000013', 'enterprise-daily', 'Enterprise, by the day', true, 1000, NULL,
             256, 13);
        """
    )


def downgrade() -> None:
    op.execute(
        """
        DELETE FROM plans WHERE id IN ('00000000-0000-7000-8000-000000000011', '00000000-0000-7000-8000-000000000012',
            '00000000-0000-7000-8000-000000000013');
        ALTER TABLE applications DROP COLUMN policy;
        ALTER TABLE service_versions DROP COLUMN policy;
        ALTER TABLE services DROP COLUMN policy;
        ALTER TABLE plans DROP COLUMN burst, DROP COLUMN quota_per_day, DROP COLUMN quota_unit, DROP COLUMN quota_reset,
            DROP COLUMN overage, DROP COLUMN fallback, DROP COLUMN cached_share;
        """
    )

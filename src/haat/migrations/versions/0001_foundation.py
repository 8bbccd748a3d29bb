"""Foundation: roles, the event log, identity, partners, catalog, plans, subscriptions."""

from alembic import op

from haat.migrations.policies import tenant_policy

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TENANT_TABLES = (
    "events",
    "memberships",
    "sessions",
    "partners",
    "applications",
    "credentials",
    "provider_credentials",
    "subscriptions",
)


def upgrade() -> None:
    op.execute(
        """
        DO $$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'haat_app') THEN
                CREATE ROLE haat_app NOLOGIN NOSUPERUSER NOBYPASSRLS;
            END IF;
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'haat_service') THEN
                CREATE ROLE haat_service NOLOGIN NOSUPERUSER BYPASSRLS;
            END IF;
        END $$;
        ALTER DEFAULT PRIVILEGES GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO haat_app, haat_service;
        ALTER DEFAULT PRIVILEGES GRANT USAGE, SELECT ON SEQUENCES TO haat_app, haat_service;
        GRANT USAGE ON SCHEMA public TO haat_app, haat_service;

        CREATE TABLE events (
            seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
            id uuid NOT NULL UNIQUE,
            stream text NOT NULL,
            version integer NOT NULL CHECK (version > 0),
            type text NOT NULL,
            data jsonb NOT NULL,
            actor text NOT NULL,
            org_id uuid,
            at timestamptz NOT NULL,
            prev_hash bytea NOT NULL,
            hash bytea NOT NULL,
            UNIQUE (stream, version)
        );
        CREATE INDEX events_position ON events (xid, seq);
        CREATE INDEX events_org ON events (org_id, at);
        REVOKE UPDATE, DELETE ON events FROM haat_app, haat_service;
        CREATE TABLE event_cursors (
            name text PRIMARY KEY,
            position text NOT NULL,
            moved_at timestamptz NOT NULL DEFAULT now()
        );

        CREATE TABLE organisations (
            id uuid PRIMARY KEY,
            name text NOT NULL,
            kind text NOT NULL CHECK (kind IN ('operator', 'provider', 'consumer')),
            address text NOT NULL DEFAULT '',
            state_code text CHECK (state_code ~ '^[0-9]{2}$'),
            gstin text,
            zone text NOT NULL DEFAULT 'Asia/Kolkata',
            created_at timestamptz NOT NULL
        );
        CREATE TABLE users (
            id uuid PRIMARY KEY,
            email text NOT NULL,
            name text NOT NULL,
            password_hash text NOT NULL,
            created_at timestamptz NOT NULL,
            disabled_at timestamptz
        );
        CREATE UNIQUE INDEX users_email ON users (lower(email));
        CREATE TABLE memberships (
            user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
            org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
            role text NOT NULL CHECK (role IN ('platform_admin', 'partner_admin', 'partner_developer', 'api_consumer')),
            created_at timestamptz NOT NULL,
            PRIMARY KEY (user_id, org_id)
        );
        CREATE TABLE sessions (
            token_hash bytea PRIMARY KEY,
            user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
            org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
            created_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL,
            revoked_at timestamptz
        );

        CREATE TABLE applications (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL REFERENCES organisations,
            name text NOT NULL,
            created_at timestamptz NOT NULL,
            archived_at timestamptz,
            UNIQUE (org_id, name)
        );
        CREATE TABLE credentials (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL REFERENCES organisations,
            application_id uuid NOT NULL REFERENCES applications,
            name text NOT NULL DEFAULT '',
            scheme text NOT NULL DEFAULT 'haat',
            prefix text NOT NULL,
            last_four text NOT NULL,
            key_hash bytea NOT NULL UNIQUE,
            scopes text[] NOT NULL DEFAULT '{invoke}',
            created_at timestamptz NOT NULL,
            expires_at timestamptz,
            revoked_at timestamptz,
            rotated_to uuid REFERENCES credentials,
            last_used_at timestamptz
        );
        CREATE INDEX credentials_application ON credentials (application_id);

        CREATE TABLE partners (
            org_id uuid PRIMARY KEY REFERENCES organisations,
            slug text NOT NULL UNIQUE CHECK (slug ~ '^[a-z0-9](-?[a-z0-9])*$'),
            company_name text NOT NULL,
            email text NOT NULL,
            contact_person text NOT NULL,
            business_type text NOT NULL,
            gstin text,
            documents jsonb NOT NULL DEFAULT '[]',
            status text NOT NULL CHECK (status IN ('pending', 'approved', 'rejected', 'suspended')),
            reason text NOT NULL DEFAULT '',
            allowed_networks text[] NOT NULL DEFAULT '{}',
            created_at timestamptz NOT NULL,
            decided_at timestamptz
        );

        CREATE TABLE services (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL REFERENCES organisations,
            provider_slug text NOT NULL REFERENCES partners (slug),
            slug text NOT NULL CHECK (slug ~ '^[a-z0-9](-?[a-z0-9])*$'),
            name text NOT NULL,
            summary text NOT NULL DEFAULT '',
            description text NOT NULL DEFAULT '',
            category text NOT NULL CHECK (category IN ('translation', 'transliteration', 'speech_to_text',
                'text_to_speech', 'ocr', 'nlp', 'llm', 'embedding', 'custom')),
            visibility text NOT NULL DEFAULT 'public' CHECK (visibility IN ('public', 'members', 'invited')),
            status text NOT NULL CHECK (status IN ('draft', 'published', 'deprecated', 'retired', 'suspended')),
            status_reason text NOT NULL DEFAULT '',
            status_at timestamptz NOT NULL,
            sunset_at timestamptz,
            pricing_model text NOT NULL DEFAULT 'pay_per_use'
                CHECK (pricing_model IN ('pay_per_use', 'subscription', 'hybrid')),
            unit text NOT NULL CHECK (unit IN ('requests', 'characters', 'graphemes', 'tokens', 'audio_seconds',
                'pages', 'images', 'bytes', 'compute_seconds')),
            region text NOT NULL DEFAULT 'IN',
            retains_inputs boolean NOT NULL DEFAULT false,
            trains boolean NOT NULL DEFAULT false,
            max_requests_per_second integer NOT NULL DEFAULT 100 CHECK (max_requests_per_second > 0),
            typical_latency_ms integer NOT NULL DEFAULT 200 CHECK (typical_latency_ms > 0),
            uptime_sla numeric(6, 3) NOT NULL DEFAULT 99.9,
            docs_url text NOT NULL DEFAULT '',
            created_at timestamptz NOT NULL,
            UNIQUE (provider_slug, slug)
        );
        CREATE TABLE service_invitations (
            service_id uuid NOT NULL REFERENCES services ON DELETE CASCADE,
            org_id uuid NOT NULL REFERENCES organisations ON DELETE CASCADE,
            PRIMARY KEY (service_id, org_id)
        );
        CREATE TABLE service_versions (
            id uuid PRIMARY KEY,
            service_id uuid NOT NULL REFERENCES services ON DELETE CASCADE,
            version text NOT NULL CHECK (version ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$'),
            endpoint text NOT NULL,
            dialect text NOT NULL CHECK (dialect IN ('task', 'http')),
            health_path text NOT NULL DEFAULT '',
            languages text[] NOT NULL DEFAULT '{}',
            language_pairs text[] NOT NULL DEFAULT '{}',
            sample jsonb NOT NULL DEFAULT '{}',
            openapi jsonb,
            timeout_ms integer NOT NULL DEFAULT 30000 CHECK (timeout_ms BETWEEN 10 AND 600000),
            warm_up_seconds integer NOT NULL DEFAULT 5 CHECK (warm_up_seconds BETWEEN 1 AND 600),
            max_body_bytes integer NOT NULL DEFAULT 1048576 CHECK (max_body_bytes > 0),
            max_units numeric(24, 6),
            is_default boolean NOT NULL DEFAULT false,
            accepted_at timestamptz,
            retired_at timestamptz,
            created_at timestamptz NOT NULL,
            UNIQUE (service_id, version)
        );
        CREATE UNIQUE INDEX service_versions_default ON service_versions (service_id) WHERE is_default;
        CREATE TABLE provider_credentials (
            service_id uuid PRIMARY KEY REFERENCES services ON DELETE CASCADE,
            org_id uuid NOT NULL REFERENCES organisations,
            header text NOT NULL DEFAULT 'Authorization',
            ciphertext bytea NOT NULL,
            last_four text NOT NULL,
            created_at timestamptz NOT NULL
        );
        -- Public by design, and free of row-level security: GIN indexes go unused under it.
        CREATE TABLE listing_search (
            service_id uuid PRIMARY KEY REFERENCES services ON DELETE CASCADE,
            words tsvector NOT NULL
        );
        CREATE INDEX listing_search_words ON listing_search USING gin (words);
        CREATE TABLE listing_words (
            service_id uuid NOT NULL REFERENCES services ON DELETE CASCADE,
            word text COLLATE "C" NOT NULL,
            display text NOT NULL,
            PRIMARY KEY (word, service_id)
        );
        CREATE TABLE rate_cards (
            id uuid PRIMARY KEY,
            service_id uuid NOT NULL REFERENCES services ON DELETE CASCADE,
            version integer NOT NULL CHECK (version > 0),
            plan_code text,
            unit text NOT NULL,
            unit_price numeric(30, 12) NOT NULL CHECK (unit_price >= 0),
            free_units numeric(24, 6) NOT NULL DEFAULT 0 CHECK (free_units >= 0),
            currency text NOT NULL DEFAULT 'INR' CHECK (currency = 'INR'),
            provider_share numeric(6, 5) NOT NULL CHECK (provider_share BETWEEN 0 AND 1),
            effective_from timestamptz NOT NULL,
            created_at timestamptz NOT NULL,
            UNIQUE NULLS NOT DISTINCT (service_id, plan_code, version),
            UNIQUE NULLS NOT DISTINCT (service_id, plan_code, effective_from)
        );
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION '% is never edited', TG_TABLE_NAME; END $$;
        CREATE TRIGGER never_edited BEFORE UPDATE ON rate_cards FOR EACH ROW EXECUTE FUNCTION refuse_change();

        CREATE TABLE plans (
            id uuid PRIMARY KEY,
            service_id uuid REFERENCES services ON DELETE CASCADE,
            code text NOT NULL CHECK (code ~ '^[a-z0-9](-?[a-z0-9])*$'),
            name text NOT NULL,
            listed boolean NOT NULL DEFAULT true,
            per_minute integer CHECK (per_minute > 0),
            per_hour integer CHECK (per_hour > 0),
            per_day integer CHECK (per_day > 0),
            quota_per_month bigint CHECK (quota_per_month > 0),
            max_concurrent integer CHECK (max_concurrent > 0),
            rank integer NOT NULL DEFAULT 0,
            created_at timestamptz NOT NULL DEFAULT now(),
            UNIQUE NULLS NOT DISTINCT (service_id, code)
        );
        COMMENT ON TABLE plans IS 'Without service_id: a plan of the platform, open for every service.';
        INSERT INTO plans (id, code, name, listed, per_minute, per_hour, per_day, quota_per_month, max_concurrent, rank)
        VALUES
            ('00000000-0000-7000-8000-000000000001', 'free', 'Free', true, 10, NULL, NULL, 1000, 4, 1),
            ('00000000-0000-7000-8000-000000000002', 'basic', 'Basic', true, 60, NULL, NULL, 10000, 16, 2),
            ('00000000-0000-7000-8000-000000000003', 'professional', 'Professional', true, 300, NULL, NULL, 100000,
             64, 3),
            ('00000000-0000-7000-8000-000000000004', 'enterprise', 'Enterprise', true, 1000, NULL, NULL, NULL, 256, 4),
            ('00000000-0000-7000-8000-000000000005', 'sandbox', 'Sandbox', false, 3000000, 100000000, 1000000000,
             10000000000, 4096, 9);

        CREATE TABLE subscriptions (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL REFERENCES organisations,
            application_id uuid NOT NULL REFERENCES applications,
            service_id uuid NOT NULL REFERENCES services,
            plan_id uuid NOT NULL REFERENCES plans,
            status text NOT NULL CHECK (status IN ('active', 'cancelled')),
            version integer NOT NULL DEFAULT 1,
            started_at timestamptz NOT NULL,
            ended_at timestamptz
        );
        CREATE UNIQUE INDEX subscriptions_active ON subscriptions (application_id, service_id) WHERE status = 'active';
        CREATE INDEX subscriptions_org ON subscriptions (org_id);
        """
    )
    for table in TENANT_TABLES:
        op.execute(tenant_policy(table))
    op.execute(
        """
        ALTER TABLE services ENABLE ROW LEVEL SECURITY;
        CREATE POLICY visible ON services FOR SELECT
            USING (current_setting('haat.scope', true) = 'platform'
                   OR org_id = nullif(current_setting('haat.org', true), '')::uuid
                   OR (status <> 'draft' AND (
                        visibility = 'public'
                        OR (visibility = 'members' AND nullif(current_setting('haat.org', true), '') IS NOT NULL)
                        OR (visibility = 'invited' AND EXISTS (
                            SELECT FROM service_invitations AS invitation
                            WHERE invitation.service_id = services.id
                              AND invitation.org_id = nullif(current_setting('haat.org', true), '')::uuid)))));
        CREATE POLICY own ON services
            USING (current_setting('haat.scope', true) = 'platform'
                   OR org_id = nullif(current_setting('haat.org', true), '')::uuid);
        """
    )


def downgrade() -> None:
    op.execute(
        """
        DROP TABLE subscriptions, plans, rate_cards, listing_words, listing_search, provider_credentials,
            service_versions, service_invitations, services, partners, credentials, applications, sessions,
            memberships, users, organisations, event_cursors, events CASCADE;
        DROP FUNCTION refuse_change;
        REVOKE USAGE ON SCHEMA public FROM haat_app, haat_service;
        ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM haat_app, haat_service;
        ALTER DEFAULT PRIVILEGES REVOKE ALL ON SEQUENCES FROM haat_app, haat_service;
        -- The roles stay: they belong to the server, and another database may use them.
        """
    )

"""The portal's long texts: pages with their translations, a memory of sentences, reports of bad phrases."""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE content_pages (
            key text PRIMARY KEY CHECK (length(key) BETWEEN 1 AND 80),
            kind text NOT NULL CHECK (kind IN ('page', 'announcement', 'help', 'mail')),
            source text NOT NULL,
            shown_from timestamptz,
            shown_until timestamptz,
            created_at timestamptz NOT NULL,
            CHECK (shown_until > shown_from)
        );
        COMMENT ON TABLE content_pages IS 'Of no tenant. Events of content/<key> tell its history.';

        CREATE TABLE content_translations (
            id uuid PRIMARY KEY,
            key text NOT NULL REFERENCES content_pages,
            tag text NOT NULL,
            version integer NOT NULL CHECK (version > 0),
            state text NOT NULL CHECK (state IN ('draft', 'review', 'published', 'archived')),
            title text NOT NULL,
            body text NOT NULL,
            author text NOT NULL,
            reviewer text,
            source text,
            source_version integer,
            machine boolean NOT NULL,
            revision integer NOT NULL,
            note text NOT NULL DEFAULT '',
            changed_at timestamptz NOT NULL,
            published_at timestamptz,
            UNIQUE (key, tag, version),
            CHECK ((source IS NULL) = (source_version IS NULL)),
            CHECK (state <> 'published' OR (published_at IS NOT NULL AND reviewer IS NOT NULL))
        );
        CREATE UNIQUE INDEX content_translations_published ON content_translations (key, tag)
            WHERE state = 'published';
        CREATE UNIQUE INDEX content_translations_working ON content_translations (key, tag)
            WHERE state IN ('draft', 'review');
        COMMENT ON COLUMN content_translations.source IS 'The language it was translated from, with its version; null
            where it was written first.';

        -- Every published text is everybody's; what is worked on is the operator's alone.
        ALTER TABLE content_translations ENABLE ROW LEVEL SECURITY;
        CREATE POLICY reading ON content_translations FOR SELECT
            USING (state = 'published' OR current_setting('haat.scope', true) = 'platform');
        CREATE POLICY writing ON content_translations USING (current_setting('haat.scope', true) = 'platform');
        ALTER TABLE content_pages ENABLE ROW LEVEL SECURITY;
        CREATE POLICY reading ON content_pages FOR SELECT USING (true);
        CREATE POLICY writing ON content_pages USING (current_setting('haat.scope', true) = 'platform');

        CREATE FUNCTION content_published_stays() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF OLD.published_at IS NOT NULL AND (
                (NEW.title, NEW.body, NEW.tag, NEW.key, NEW.version, NEW.author, NEW.reviewer, NEW.published_at)
                IS DISTINCT FROM
                (OLD.title, OLD.body, OLD.tag, OLD.key, OLD.version, OLD.author, OLD.reviewer, OLD.published_at)
            ) THEN
                RAISE EXCEPTION 'a published text does not change: make a new version';
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER content_published_stays BEFORE UPDATE ON content_translations
            FOR EACH ROW EXECUTE FUNCTION content_published_stays();

        -- Public, as it holds published words alone, and free of row-level security: GIN indexes go unused under it.
        CREATE TABLE content_search (
            key text NOT NULL REFERENCES content_pages,
            tag text NOT NULL,
            words tsvector NOT NULL,
            PRIMARY KEY (key, tag)
        );
        CREATE TABLE content_memory (
            source_tag text NOT NULL,
            target_tag text NOT NULL,
            folded_hash bytea NOT NULL,
            source text NOT NULL,
            target text NOT NULL,
            words tsvector NOT NULL,
            key text NOT NULL,
            version integer NOT NULL,
            learned_at timestamptz NOT NULL,
            PRIMARY KEY (source_tag, target_tag, folded_hash)
        );
        CREATE INDEX content_memory_words ON content_memory USING gin (words);
        COMMENT ON TABLE content_memory IS 'Sentences of published translations; the newest for a source stays.
            The hash is SHA-256 of the folded source.';

        CREATE TABLE content_reports (
            id uuid PRIMARY KEY,
            tag text NOT NULL,
            page text NOT NULL,
            phrase text NOT NULL,
            better text NOT NULL,
            reporter text,
            reported_at timestamptz NOT NULL,
            closed_at timestamptz,
            closed_by text,
            note text NOT NULL DEFAULT ''
        );
        CREATE INDEX content_reports_open ON content_reports (id) WHERE closed_at IS NULL;
        ALTER TABLE content_reports ENABLE ROW LEVEL SECURITY;
        CREATE POLICY platform ON content_reports USING (current_setting('haat.scope', true) = 'platform');
        """
    )


def downgrade() -> None:
    op.execute(
        """
        DROP TABLE content_reports, content_memory, content_search, content_translations, content_pages;
        DROP FUNCTION content_published_stays();
        """
    )

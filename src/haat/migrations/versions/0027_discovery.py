"""A search that stays quick: one narrow row for each open listing, and the vocabulary of the public ones."""

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

_PLATFORM = "current_setting('haat.scope', true) = 'platform'"
_ORG = "nullif(current_setting('haat.org', true), '')::uuid"
_LEXEME = r"'''' || replace(replace(word, '\', '\\'), '''', '''''') || ''':' || 1"
_SEEN = {
    "listing_search": "true",  # a constant: it leaves the GIN index in use, as no other policy does
    "listing_search_closed": f"""{_PLATFORM} OR org_id = {_ORG} OR (visibility = 'members' AND {_ORG} IS NOT NULL)
        OR EXISTS (SELECT FROM service_invitations AS invitation
                   WHERE invitation.service_id = listing_search_closed.service_id AND invitation.org_id = {_ORG})""",
}
_IS = {"listing_search": "visibility = 'public'", "listing_search_closed": "visibility <> 'public'"}


def upgrade() -> None:
    op.execute("ALTER TABLE listing_search RENAME TO former_search; ALTER TABLE listing_words RENAME TO former_words")
    op.execute("ALTER INDEX listing_search_pkey RENAME TO former_search_pkey; DROP INDEX listing_search_words")
    for table in _SEEN:
        op.execute(_table(table))
    op.execute(
        """
        COMMENT ON TABLE listing_search IS 'What the first stage of a search reads: open listings that everybody may
            see, and nothing of others.';
        COMMENT ON COLUMN listing_search.terms IS 'Words, with position 1 and the weight of where they stand: A name, B
            what it belongs to, C summary and languages, D description. Besides, without position: =word of the name,
            @c/category, @p/provider, @l/language with and without script.';
        COMMENT ON COLUMN listing_search.popularity IS 'Grows by four with each doubling of the calls of a week.';
        COMMENT ON COLUMN listing_search.slowness IS 'The measured p95 in ms; of what was not measured ten million and
            the declared latency, so that it comes after.';
        COMMENT ON COLUMN listing_search.opened IS 'When the listing was made, in microseconds since 1970.';
        COMMENT ON COLUMN listing_search.former IS 'The row came over from an earlier index: a job writes it anew.';
        COMMENT ON TABLE listing_search_closed IS 'The same of listings that only some may see, under their policy.';

        CREATE INDEX listing_search_terms ON listing_search USING gin (terms) WITH (fastupdate = off);
        CREATE INDEX listing_search_best ON listing_search ((-popularity), name, path);
        CREATE INDEX listing_search_price ON listing_search (unit_price, name, path);
        CREATE INDEX listing_search_slowness ON listing_search (slowness, name, path);
        CREATE INDEX listing_search_opened ON listing_search ((-opened), name, path);
        CREATE INDEX listing_search_former ON listing_search (service_id) WHERE former;
        CREATE INDEX listing_search_org ON listing_search (org_id);
        CREATE INDEX listing_search_closed_org ON listing_search_closed (org_id);
        CREATE INDEX rate_cards_announced ON rate_cards (effective_from) WHERE effective_from > created_at;

        CREATE TABLE search_words (
            word text COLLATE "C" PRIMARY KEY,
            listings integer NOT NULL,
            popularity integer NOT NULL DEFAULT 0,
            path text COLLATE "C",
            changed xid8 NOT NULL DEFAULT pg_current_xact_id()
        );
        COMMENT ON TABLE search_words IS 'The vocabulary of listing_search, descriptions apart: how many listings hold a
            word, one of them, and how popular they are together. A word in none keeps its row, so that whoever reads
            changes hears of it.';
        CREATE INDEX search_words_changed ON search_words (changed);
        """
    )
    for table, which in _IS.items():
        op.execute(_filled(table, which))
    op.execute(
        """
        INSERT INTO search_words (word, listings, path)
            SELECT word, count(*), min(path) FROM listing_search
            CROSS JOIN unnest(tsvector_to_array(ts_filter(terms, '{a,b,c}'))) AS word GROUP BY word;
        DROP TABLE former_search, former_words;
        """
    )


def _table(name: str) -> str:
    own = f"""({_PLATFORM} OR org_id = {_ORG}) AND EXISTS (
        SELECT FROM services WHERE services.id = service_id AND services.org_id = {name}.org_id
            AND services.visibility = {name}.visibility AND services.status IN ('published', 'deprecated'))"""
    return f"""
        CREATE TABLE {name} (
            service_id uuid PRIMARY KEY REFERENCES services ON DELETE CASCADE,
            org_id uuid NOT NULL,
            path text COLLATE "C" NOT NULL,
            name text COLLATE "C" NOT NULL,
            category text NOT NULL,
            visibility text NOT NULL CHECK ({_IS[name]}),
            languages text[] NOT NULL,
            unit_price numeric NOT NULL,
            popularity integer NOT NULL DEFAULT 0,
            slowness integer NOT NULL,
            opened bigint NOT NULL,
            former boolean NOT NULL DEFAULT false,
            terms tsvector NOT NULL
        );
        ALTER TABLE {name} ENABLE ROW LEVEL SECURITY;
        CREATE POLICY seen ON {name} FOR SELECT USING ({_SEEN[name]});
        CREATE POLICY added ON {name} FOR INSERT WITH CHECK ({own});
        CREATE POLICY changed ON {name} FOR UPDATE USING ({_PLATFORM} OR org_id = {_ORG});
        CREATE POLICY removed ON {name} FOR DELETE USING ({_PLATFORM} OR org_id = {_ORG});
        """


def _filled(table: str, which: str) -> str:
    """Return what carries the rows of the former index over; which words stand in names it did not know."""
    return f"""
        WITH spoken AS (
            SELECT service_id, array_agg(DISTINCT tag) AS tags
            FROM service_versions CROSS JOIN unnest(
                languages || string_to_array(replace(array_to_string(language_pairs, ','), '>', ','), ',')) AS tag
            WHERE is_default AND tag <> '' GROUP BY service_id
        ), lexemes AS (
            SELECT service_id, string_agg({_LEXEME} || CASE WHEN suggested THEN 'C' ELSE 'D' END, ' ') AS terms
            FROM (
                SELECT former_search.service_id, word, EXISTS (
                    SELECT FROM former_words
                    WHERE former_words.service_id = former_search.service_id AND former_words.word = one.word
                ) AS suggested
                FROM former_search CROSS JOIN unnest(tsvector_to_array(words)) AS one (word)
            ) AS words GROUP BY service_id
        )
        INSERT INTO {table} (service_id, org_id, path, name, category, visibility, languages, unit_price, slowness,
                opened, former, terms)
            SELECT services.id, org_id, provider_slug || '/' || slug, name, category, visibility,
                   coalesce(tags, '{{}}'),
                   coalesce((SELECT unit_price FROM rate_cards
                             WHERE rate_cards.service_id = services.id AND plan_code IS NULL AND effective_from <= now()
                             ORDER BY effective_from DESC LIMIT 1), 'Infinity'),
                   10000000 + typical_latency_ms, extract(epoch FROM created_at) * 1000000, true,
                   coalesce(lexemes.terms, '')::tsvector || array_to_tsvector(
                       ARRAY['@c/' || category, '@p/' || provider_slug]
                       || coalesce((SELECT array_agg(DISTINCT '@l/' || form)
                                    FROM unnest(tags) AS tag, unnest(ARRAY[tag, split_part(tag, '-', 1)]) AS form),
                                   '{{}}'))
            FROM services LEFT JOIN spoken ON spoken.service_id = services.id
            LEFT JOIN lexemes ON lexemes.service_id = services.id
            WHERE status IN ('published', 'deprecated') AND {which}
        """


def downgrade() -> None:
    op.execute(
        """
        CREATE TABLE former_search (
            service_id uuid CONSTRAINT listing_search_service_id_not_null NOT NULL
                CONSTRAINT former_search_pkey PRIMARY KEY
                CONSTRAINT listing_search_service_id_fkey REFERENCES services ON DELETE CASCADE,
            words tsvector CONSTRAINT listing_search_words_not_null NOT NULL
        );
        CREATE TABLE listing_words (
            service_id uuid NOT NULL REFERENCES services ON DELETE CASCADE,
            word text COLLATE "C" NOT NULL,
            display text NOT NULL,
            PRIMARY KEY (word, service_id)
        );
        INSERT INTO former_search (service_id, words)
            SELECT service_id, array_to_tsvector(coalesce(array_agg(lexeme) FILTER (WHERE lexeme IS NOT NULL), '{}'))
            FROM (SELECT service_id, terms FROM listing_search
                  UNION ALL SELECT service_id, terms FROM listing_search_closed) AS open
            LEFT JOIN LATERAL unnest(terms) ON positions IS NOT NULL GROUP BY service_id;
        INSERT INTO listing_words (service_id, word, display)
            SELECT service_id, word, word
            FROM (SELECT service_id, terms FROM listing_search
                  UNION ALL SELECT service_id, terms FROM listing_search_closed) AS open
            CROSS JOIN unnest(tsvector_to_array(ts_filter(terms, '{a,b,c}'))) AS word;
        DROP INDEX rate_cards_announced;
        DROP TABLE search_words, listing_search_closed, listing_search;
        ALTER TABLE former_search RENAME TO listing_search;
        ALTER INDEX former_search_pkey RENAME TO listing_search_pkey;
        CREATE INDEX listing_search_words ON listing_search USING gin (words);
        """
    )

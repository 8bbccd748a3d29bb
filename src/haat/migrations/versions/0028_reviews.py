"""Reviews of listings by those who use them, with their history."""

from alembic import op

from haat.migrations.policies import tenant_policy

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE reviews (
            id uuid PRIMARY KEY,
            org_id uuid NOT NULL REFERENCES organisations,
            service_id uuid NOT NULL REFERENCES services ON DELETE CASCADE,
            provider_org uuid NOT NULL REFERENCES organisations,
            version integer NOT NULL CHECK (version > 0),
            stars smallint NOT NULL CHECK (stars BETWEEN 1 AND 5),
            text text NOT NULL CHECK (length(text) BETWEEN 1 AND 1000),
            service_version text NOT NULL,
            buyer_since date,
            monthly_calls bigint CHECK (monthly_calls >= 0),
            written_at timestamptz NOT NULL,
            changed_at timestamptz NOT NULL,
            withdrawn_at timestamptz,
            reply text CHECK (length(reply) BETWEEN 1 AND 1000),
            reply_to integer,
            replied_at timestamptz,
            hidden_at timestamptz,
            hidden_reason text,
            UNIQUE (service_id, org_id),
            CHECK ((reply IS NULL) = (reply_to IS NULL) AND (reply IS NULL) = (replied_at IS NULL)),
            CHECK ((hidden_at IS NULL) = (hidden_reason IS NULL))
        );
        CREATE INDEX reviews_service ON reviews (service_id, id);
        CREATE INDEX reviews_provider ON reviews (provider_org, id);
        CREATE INDEX reviews_org ON reviews (org_id, id);
        COMMENT ON COLUMN reviews.reply_to IS 'The version of the review that the reply answers.';
        COMMENT ON COLUMN reviews.monthly_calls IS 'Rounded down to 1, 2 or 5 times a power of ten when it was written;
            null, as buyer_since, when so few organisations bought the service that it would name the author.';

        CREATE TABLE review_history (
            review_id uuid NOT NULL REFERENCES reviews ON DELETE CASCADE,
            org_id uuid NOT NULL REFERENCES organisations,
            version integer NOT NULL CHECK (version > 0),
            stars smallint NOT NULL,
            text text NOT NULL,
            at timestamptz NOT NULL,
            PRIMARY KEY (review_id, version)
        );
        COMMENT ON TABLE review_history IS 'Every version of a review. Texts are here and not in events, so that a
            person''s words can be erased.';
        REVOKE UPDATE, DELETE ON review_history FROM haat_app;
        """
    )
    for table in ("reviews", "review_history"):
        op.execute(tenant_policy(table))


def downgrade() -> None:
    op.execute("DROP TABLE review_history, reviews")

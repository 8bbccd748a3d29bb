"""Listings of an earlier index stay findable over the migration, and go back with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from haat.infra.migrate import known_revisions, migrate

ORG, OPEN, CLOSED, DRAFT = (f"0193aaaa-0000-7000-8000-00000000000{number}" for number in range(4))
_FORMER = known_revisions()[known_revisions().index("0027") - 1]


@pytest.fixture
def former(cluster: Any) -> Iterator[str]:
    """A database as it was before, with a public listing, one for those invited, and a draft."""
    cluster.create("test_former_search", "template0")
    dsn = cluster.dsn("owner", "test_former_search")
    migrate(dsn, _FORMER)
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "INSERT INTO organisations (id, name, kind, created_at) VALUES (%s, 'Bhasha Labs', 'provider', now())",
            (ORG,),
        )
        connection.execute(
            """
            INSERT INTO partners (org_id, slug, company_name, email, contact_person, business_type, status, created_at)
            VALUES (%s, 'bhasha', 'Bhasha Labs', 'a@b.example', 'Asha', 'company', 'approved', now())
            """,
            (ORG,),
        )
        for identifier, slug, visibility, status in (
            (OPEN, "open", "public", "published"),
            (CLOSED, "closed", "invited", "deprecated"),
            (DRAFT, "draft", "public", "draft"),
        ):
            connection.execute(
                """
                INSERT INTO services (id, org_id, provider_slug, slug, name, category, visibility, status, status_at,
                    unit, typical_latency_ms, created_at)
                VALUES (%s, %s, 'bhasha', %s, 'Anuvad', 'translation', %s, %s, now(), 'characters', 90,
                    '2026-01-01T00:00:00Z')
                """,
                (identifier, ORG, slug, visibility, status),
            )
            if status == "draft":
                continue
            connection.execute(
                """
                INSERT INTO service_versions (id, service_id, version, endpoint, dialect, languages, language_pairs,
                    is_default, created_at)
                VALUES (%(id)s, %(id)s, '1', 'http://x', 'task', '{en-Latn}', '{hi-Deva>ur-Arab}', true, now())
                """,
                {"id": identifier},
            )
            words = ["anuvad", slug, "o'clock", "अनुवाद"]
            connection.execute("INSERT INTO listing_search VALUES (%s, array_to_tsvector(%s))", (identifier, words))
            for word in words[:2]:
                connection.execute("INSERT INTO listing_words VALUES (%s, %s, %s)", (identifier, word, word))
        connection.execute(
            """
            INSERT INTO rate_cards (id, service_id, version, unit, unit_price, provider_share, effective_from,
                created_at)
            VALUES (%(id)s, %(id)s, 1, 'characters', 0.05, 0.7, now(), now())
            """,
            {"id": OPEN},
        )
    yield dsn
    cluster.drop("test_former_search")


def test_open_listings_keep_their_words_marks_and_prices_and_wait_to_be_indexed_anew(former: str) -> None:
    migrate(former, "0027")
    with psycopg.connect(former) as connection:
        public = connection.execute(
            "SELECT path, visibility, unit_price, slowness, opened, former, languages, terms FROM listing_search"
        ).fetchall()
        closed = connection.execute("SELECT path, visibility, unit_price FROM listing_search_closed").fetchall()
        words = connection.execute("SELECT word, listings, path FROM search_words ORDER BY word").fetchall()
    [(path, visibility, price, slowness, opened, waits, languages, terms)] = public
    assert (path, visibility, str(price), slowness) == ("bhasha/open", "public", "0.050000000000", 10_000_090)
    assert (opened, waits, sorted(languages)) == (1_767_225_600_000_000, True, ["en-Latn", "hi-Deva", "ur-Arab"])
    for term in ("'anuvad':1C", "'open':1C", "'o''clock':1", "'अनुवाद':1", "'@c/translation'", "'@p/bhasha'",
                 "'@l/hi'", "'@l/hi-Deva'", "'@l/ur'", "'@l/en-Latn'"):  # fmt: skip
        assert term in terms, term
    assert [(path, visibility, str(price)) for path, visibility, price in closed] == [
        ("bhasha/closed", "invited", "Infinity")
    ]
    assert words == [("anuvad", 1, "bhasha/open"), ("open", 1, "bhasha/open")]


def test_going_back_brings_the_former_words_back(former: str) -> None:
    queries = (
        "SELECT service_id::text, tsvector_to_array(words) FROM listing_search ORDER BY service_id",
        "SELECT service_id::text, word, display FROM listing_words ORDER BY service_id, word",
    )

    def held() -> list[Any]:
        with psycopg.connect(former) as connection:
            return [connection.execute(query).fetchall() for query in queries]

    before = held()
    migrate(former, "0027")
    migrate(former, _FORMER)
    assert held() == before

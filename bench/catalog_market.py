"""The market of the portal's benchmark, in a database of its own: 100,000 listings of 500 providers in six scripts.

Words come as in texts: the n-th most frequent one is met about one n-th as often as the first (Zipf), so a handful
stands in a third of all listings and most in one or two. Three in a hundred listings are not for everybody. One in
seven is called, some a million times a week.
"""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from bench.money_market import Database
from bench.processes import say
from haat.catalog import search_store
from haat.catalog.discovery import spoken, terms_of
from haat.catalog.model import Category, Listing, Visibility
from haat.infra.keyring import Keyring
from haat.infra.prepare import database_server, prepare_database
from haat.settings import Settings

PROVIDERS = 500
LEXICON = 40_000
CATEGORIES: dict[Category, float] = {
    "translation": 0.28, "speech_to_text": 0.14, "text_to_speech": 0.12, "ocr": 0.11, "llm": 0.1, "nlp": 0.1,
    "transliteration": 0.06, "embedding": 0.05, "custom": 0.04,
}  # fmt: skip
LANGUAGES = (
    "hi-Deva", "en-Latn", "bn-Beng", "ta-Taml", "te-Telu", "mr-Deva", "ur-Arab", "gu-Gujr", "kn-Knda", "ml-Mlym",
    "pa-Guru", "or-Orya", "as-Beng", "mai-Deva", "ne-Deva", "sa-Deva", "kok-Deva", "sd-Arab", "ks-Arab", "doi-Deva",
    "brx-Deva", "sat-Olck", "mni-Mtei",
)  # fmt: skip
_COMMON = (
    "the of and for with service text speech voice document language model api fast court hindi bharat records school "
    "health news bank travel letters forms land grain market weather village teacher student hospital railway ticket "
    "notice question answer summary subtitle radio call message scanner printed handwritten legal medical farm price "
    "अनुवाद भाषा सेवा समाचार किसान मंडी शिक्षा अदालत आवाज़ पाठ दिल्ली मुंबई स्वास्थ्य பேச்சு மொழி செய்தி தமிழ் বাংলা ভাষা খবর "
    "తెలుగు భాష వార్తలు اردو زبان خبریں آواز ترجمہ"
)
COMMON = tuple(_COMMON.split())
_CONSONANTS = "b bh ch d g h j k l m n p r s sh t v y"
_SYLLABLES = {
    "Latn": [c + v for c in _CONSONANTS.split() for v in "aeiou"],
    "Deva": [c + v for c in "कखगचजटडतदनपबमयरलवशसह" for v in ("", "ा", "ि", "ी", "ु", "े", "ो")],
    "Taml": [c + v for c in "கசடதநபமயரலவன" for v in ("", "ா", "ி", "ு", "ே", "ோ")],
    "Beng": [c + v for c in "কখগচজটডতদনপবমযরলশসহ" for v in ("", "া", "ি", "ু", "ে", "ো")],
    "Telu": [c + v for c in "కగచజటడతదనపబమయరలవసహ" for v in ("", "ా", "ి", "ు", "ే", "ో")],
    "Arab": [c + v for c in "بپتجچدرسشکگلمنوہی" for v in ("", "ا", "ی", "و")],
}
_SHARES = {"Latn": 0.55, "Deva": 0.2, "Taml": 0.07, "Beng": 0.07, "Telu": 0.05, "Arab": 0.06}
_NOW = datetime.now(UTC)
_CALLED = 1 / 7


@dataclass(frozen=True, slots=True)
class Catalog:
    """A running server with the catalog in it. ``words`` are the lexicon's, the most frequent first."""

    database: Database
    words: Sequence[str]
    listings: int
    guest: UUID
    """An organisation that a hundred listings are open to besides the public ones."""
    path: str
    """The busiest listing's."""
    fill_seconds: float


@contextlib.contextmanager
def catalog(data_dir: Path, listings: int) -> Iterator[Catalog]:
    """Run an embedded PostgreSQL as an installation has it, with the catalog in it."""
    settings, keyring = Settings(data_dir=data_dir), Keyring.load(data_dir)
    with database_server(settings, keyring):
        prepare_database(settings, keyring)
        made = Database(settings, keyring)
        began = time.monotonic()
        dice = random.Random(7)  # noqa: S311 - it makes up listings, no secrets
        words = _lexicon(dice)
        with psycopg.connect(made.dsn("owner")) as connection:
            guest, path = _fill(connection, dice, words, listings)
        with psycopg.connect(made.dsn("owner"), autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
        yield Catalog(made, words, listings, guest, path, time.monotonic() - began)


def _lexicon(dice: random.Random) -> list[str]:
    """Return words in the order of how often they are met: those above first, in a mixed order, then made-up ones."""
    first = list(COMMON)
    dice.shuffle(first)
    words = dict.fromkeys(first)
    scripts, shares = list(_SHARES), list(_SHARES.values())
    while len(words) < LEXICON:
        syllables = _SYLLABLES[dice.choices(scripts, shares)[0]]
        words["".join(dice.choice(syllables) for _ in range(dice.choice((2, 3, 3, 4, 5))))] = None
    return list(words)


def _some(dice: random.Random, words: Sequence[str], number: int) -> str:
    return " ".join(words[int(len(words) ** dice.random()) - 1] for _ in range(number))


def _fill(connection: psycopg.Connection[Any], dice: random.Random, words: list[str], number: int) -> tuple[UUID, str]:
    connection.execute("SET LOCAL session_replication_role = replica")  # the rows fit together by construction
    providers = [
        (_uuid(dice), f"provider-{place}", f"{_some(dice, words, 1)} {dice.choice(('Labs', 'AI', 'Bhasha'))} {place}")
        for place in range(PROVIDERS)
    ]
    guest = _uuid(dice)
    organisations = [(org, name, "provider") for org, _, name in providers] + [(guest, "Guest", "consumer")]
    _copy(connection, "organisations", ("id", "name", "kind", "created_at"), [(*one, _NOW) for one in organisations])
    partners = [(org, slug, name, "a@b.example", "A B", "company", "approved", _NOW) for org, slug, name in providers]
    names = ("org_id", "slug", "company_name", "email", "contact_person", "business_type", "status", "created_at")
    _copy(connection, "partners", names, partners)
    made = [_listing(dice, words, providers[int(PROVIDERS ** dice.random()) - 1], place) for place in range(number)]
    calls = [int(10 ** (6 * dice.random() ** 2)) if dice.random() < _CALLED else 0 for _ in made]
    _copy_listings(connection, made)
    _copy_index(connection, made, calls)
    _copy_use(connection, made, calls)
    invited = [one.id for one in made if one.visibility == "invited"][:100]
    _copy(connection, "service_invitations", ("service_id", "org_id"), [(one, guest) for one in invited])
    busiest = max(range(number), key=lambda place: (made[place].visibility == "public", calls[place]))
    return guest, made[busiest].path


def _listing(dice: random.Random, words: list[str], provider: tuple[UUID, str, str], place: int) -> Listing:
    category = dice.choices(list(CATEGORIES), list(CATEGORIES.values()))[0]
    tags = list(dict.fromkeys(LANGUAGES[int(len(LANGUAGES) ** dice.random()) - 1] for _ in range(4)))
    paired = category in ("translation", "transliteration") and len(tags) > 1
    pairs = tuple(f"{tags[0]}>{tag}" for tag in tags[1:]) if paired else ()
    made_at = _NOW - timedelta(seconds=dice.randrange(3 * 365 * 86400))
    visibility: Visibility = dice.choices(("public", "members", "invited"), (0.97, 0.02, 0.01))[0]
    org, slug, name = provider
    return Listing(
        id=_uuid(dice),
        org_id=org,
        provider_slug=slug,
        provider_name=name,
        slug=f"{category.replace('_', '-')}-{place % 4000}-{place // 4000}",
        name=f"{_some(dice, words, dice.choice((1, 2, 2, 3)))} {dice.choice(words)}"[:80],
        summary=_some(dice, words, 8)[:160],
        description=_some(dice, words, 25),
        category=category,
        visibility=visibility,
        status="published",
        status_reason="",
        status_at=made_at,
        sunset_at=None,
        pricing_model="pay_per_use",
        unit="characters",
        region="IN",
        retains_inputs=False,
        trains=False,
        max_requests_per_second=100,
        typical_latency_ms=dice.randrange(20, 3000),
        uptime_sla=Decimal("99.9"),
        docs_url="",
        created_at=made_at,
        languages=() if pairs else tuple(tags),
        language_pairs=pairs,
        unit_price=Decimal(dice.randrange(1, 10_000)) / 100_000,
        free_units=Decimal(1000),
    )


def _copy_listings(connection: psycopg.Connection[Any], made: Sequence[Listing]) -> None:
    names: tuple[str, ...]
    names = ("id", "org_id", "provider_slug", "slug", "name", "summary", "description", "category", "visibility",
             "status", "status_at", "unit", "typical_latency_ms", "created_at")  # fmt: skip
    _copy(connection, "services", names, [[getattr(one, name) for name in names] for one in made])
    names = ("id", "service_id", "version", "endpoint", "dialect", "languages", "language_pairs", "sample",
             "is_default", "accepted_at", "created_at")  # fmt: skip
    versions = [
        (one.id, one.id, "1", "http://127.0.0.1:1", "task", list(one.languages), list(one.language_pairs),
         '{"path": "/", "body": {"text": "नमस्ते"}}', True, one.created_at, one.created_at)
        for one in made
    ]  # fmt: skip
    _copy(connection, "service_versions", names, versions)
    names = ("id", "service_id", "version", "unit", "unit_price", "free_units", "provider_share", "effective_from",
             "created_at")  # fmt: skip
    cards = [
        (one.id, one.id, 1, one.unit, one.unit_price, one.free_units, Decimal("0.7"), one.created_at, one.created_at)
        for one in made
    ]
    _copy(connection, "rate_cards", names, cards)
    say(f"  {len(made):,} listings are there")


def _copy_index(connection: psycopg.Connection[Any], made: Sequence[Listing], calls: Sequence[int]) -> None:
    """Index the listings as the product does, all at once."""
    rows = []
    for one, called in zip(made, calls, strict=True):
        tags = spoken(one.languages, one.language_pairs)
        popularity = math.floor(4 * math.log2(1 + called))
        rows.append(search_store.row_of(one, tags, terms_of(one, tags)) | {"popularity": popularity})
    for table, public in (("listing_search", True), ("listing_search_closed", False)):
        of_table = [list(row.values()) for row in rows if (row["visibility"] == "public") == public]
        _copy(connection, table, tuple(rows[0]), of_table)
    connection.execute(
        """
        INSERT INTO search_words (word, listings, path, popularity)
            SELECT word, count(*), min(path), floor(4 * log(2, 1 + sum(power(2, popularity / 4.0) - 1)::numeric))
            FROM listing_search CROSS JOIN unnest(tsvector_to_array(ts_filter(terms, '{a,b,c}'))) AS word GROUP BY word
        """
    )
    say(f"  {len(made):,} listings are indexed")


def _copy_use(connection: psycopg.Connection[Any], made: Sequence[Listing], calls: Sequence[int]) -> None:
    """Make the last day's hours of each listing that was called: what the proofs beside the prices are read from."""
    used = [(one.id, one.org_id, called) for one, called in zip(made, calls, strict=True) if called]
    measured = """
        calls, calls, calls * 100, calls * 100, 0, 0, 0, 0, 0, 0, calls * 200, calls * 200, calls * 20000,
        calls * latency_sketch(20000) + latency_sketch(60000)
        FROM unnest(%s::uuid[], %s::uuid[], %s::bigint[]) AS used (service, org, calls)
        CROSS JOIN generate_series(0, 23) AS back
    """
    measures = (
        "calls, requests, characters, graphemes, tokens, audio_seconds, pages, images, bytes, compute_seconds, "
        "bytes_in, bytes_out, latency_us, latency"
    )
    columns = tuple(list(column) for column in zip(*used, strict=True))
    connection.execute(
        f"""
        INSERT INTO usage_hourly (hour, org_id, application_id, subscription_id, service_id, provider_org, plan,
                language_pair, status_class, outcome, batch, {measures})
            SELECT date_trunc('hour', now()) - make_interval(hours => back), org, NULL, NULL, service, org, 'basic', '',
                   2, 'completed', 1, {measured}
        """,
        columns,
    )
    connection.execute(
        f"""
        INSERT INTO market_hourly (hour, provider_org, "by", service_id, language_pair, status_class, outcome,
                {measures})
            SELECT date_trunc('hour', now()) - make_interval(hours => back), org, 'service', service, '', 2,
                   'completed', {measured}
        """,
        columns,
    )


def _copy(connection: psycopg.Connection[Any], table: str, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    columns = sql.SQL(", ").join(map(sql.Identifier, names))
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), columns)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)


def _uuid(dice: random.Random) -> UUID:
    return UUID(int=dice.getrandbits(128), version=4)

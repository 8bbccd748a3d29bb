"""All SQL of finding listings: a narrow row for each open one, and the vocabulary of those that are public.

Public listings lie in ``listing_search``, which everybody may read whole, so that its GIN index can be used; those
that only some may see lie in ``listing_search_closed``, whose policy says who they are. A search reads both.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, NamedTuple
from uuid import UUID

from haat.catalog.model import Listing, Order
from haat.infra.postgres import Connection

_PUBLIC, _CLOSED = "listing_search", "listing_search_closed"
_NUMBERS: Mapping[Order, str] = {
    "best": "(-popularity)",
    "cheapest": "unit_price",
    "fastest": "slowness",
    "newest": "(-opened)",
}
_IN_THE_NAME = 1 << 32
"""By how much all words in the name come before the popularity, which is a 32-bit number."""
_FEW = 1500
"""Up to so many matches are read and sorted; where there are more, 24 of them are soon met in the wanted order.

Of 100,000 listings as many are read either way then: 1,500, or 24 times 100,000 by 1,500.
"""
_UNMEASURED = 10_000_000


class Place(NamedTuple):
    """Where a row stands in an order: ascending."""

    number: int | Decimal
    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Word:
    """A word as it was typed, looked up by its beginning, and whole words that count as it."""

    typed: str
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for: every word, and every mark that is not None."""

    words: Sequence[Word] = ()
    category: str | None = None
    language: str | None = None
    provider: str | None = None
    max_price: Decimal | None = None
    order: Order = "best"
    after: Place | None = None

    def query(self, *, in_names: bool = False) -> str:
        """Return a tsquery of it, empty when there is nothing to ask; the words are those of names if so wished."""
        sign = "=" if in_names else ""
        groups = [_any_of(word, sign) for word in self.words]
        marks = (("@c/", self.category), ("@l/", self.language), ("@p/", self.provider))
        return " & ".join(groups + [_lexeme(mark + value) for mark, value in marks if value is not None])


@dataclass(frozen=True, slots=True)
class Counts:
    """How many open listings there are of each category and language, and of each provider with its name."""

    categories: dict[str, int] = field(default_factory=dict)
    languages: dict[str, int] = field(default_factory=dict)
    providers: dict[str, tuple[str, int]] = field(default_factory=dict)

    def add(self, category: str, languages: Iterable[str], provider: str, name: str) -> None:
        """Count one listing more."""
        self.categories[category] = self.categories.get(category, 0) + 1
        for language in languages:
            self.languages[language] = self.languages.get(language, 0) + 1
        self.providers[provider] = (name, self.providers.get(provider, (name, 0))[1] + 1)

    def plus(self, others: Counts) -> Counts:
        """Return the counts of both together."""
        providers = dict(self.providers)
        for slug, (name, listings) in others.providers.items():
            providers[slug] = (name, providers.get(slug, (name, 0))[1] + listings)
        return Counts(
            dict(Counter(self.categories) + Counter(others.categories)),
            dict(Counter(self.languages) + Counter(others.languages)),
            providers,
        )


class VocabularyRow(NamedTuple):
    word: str
    listings: int
    popularity: int
    path: str


# --- finding ------------------------------------------------------------------------------------


async def find(connection: Connection, wanted: Wanted, limit: int, *, closed: bool) -> list[tuple[Place, UUID]]:
    """Return the first listings behind ``wanted.after``, in order; ``closed`` looks at those besides the public."""
    found = [await _found(connection, table, wanted, limit) for table in ((_PUBLIC, _CLOSED) if closed else (_PUBLIC,))]
    await connection.execute(
        "SELECT set_config(name, 'on', true) FROM unnest(ARRAY['enable_seqscan', 'enable_indexscan',"
        " 'enable_bitmapscan']) AS name"
    )
    return list(heapq.merge(*found))[:limit]


async def _found(connection: Connection, table: str, wanted: Wanted, limit: int) -> list[tuple[Place, UUID]]:
    query, after = wanted.query(), wanted.after
    if wanted.order != "best" or not wanted.words:
        return await _matching(connection, table, wanted, query, after, limit)
    names = wanted.query(in_names=True)
    found: list[tuple[Place, UUID]] = []
    if after is None or after.number < -_IN_THE_NAME // 2:
        within = after and after._replace(number=after.number + _IN_THE_NAME)
        named = await _matching(connection, table, wanted, names, within, limit)
        found = [(place._replace(number=place.number - _IN_THE_NAME), key) for place, key in named]
        after = None
    if len(found) < limit:
        found += await _matching(connection, table, wanted, f"({query}) & !({names})", after, limit - len(found))
    return found


async def _matching(
    connection: Connection, table: str, wanted: Wanted, query: str, after: Place | None, limit: int
) -> list[tuple[Place, UUID]]:
    """Return the first matches of a query behind a place, in the wanted order: few are sorted, many are met soon."""
    if query or wanted.max_price is not None:
        few = await _sorted(connection, table, wanted, query, after, limit)
        if few is not None:
            return few
    return await _walked(connection, table, wanted, query, after, limit)


async def _sorted(
    connection: Connection, table: str, wanted: Wanted, query: str, after: Place | None, limit: int
) -> list[tuple[Place, UUID]] | None:
    """Read all matches by an index and sort them; return None when they are more than a few."""
    await _plan(connection, "bitmapscan")
    rows = await connection.execute(
        f"""
        WITH matched AS MATERIALIZED (
            SELECT {_NUMBERS[wanted.order]} AS number, name, path, service_id FROM {table}
            WHERE {_conditions(wanted, query)} LIMIT %(few)s
        )
        SELECT matches, found.* FROM (SELECT count(*) AS matches FROM matched) AS counted LEFT JOIN LATERAL (
            SELECT * FROM matched WHERE matches < %(few)s AND {_behind(after, "number")}
            ORDER BY number, name, path LIMIT %(limit)s
        ) AS found ON true
        """,
        {**_values(wanted, query, after), "few": _FEW + 1, "limit": limit},
        prepare=False,  # a plan for any words at all would be one for none
    )
    found = await rows.fetchall()
    if found[0]["matches"] > _FEW:
        return None
    return [_placed(row) for row in found if row["service_id"] is not None]


async def _walked(
    connection: Connection, table: str, wanted: Wanted, query: str, after: Place | None, limit: int
) -> list[tuple[Place, UUID]]:
    """Go through the listings in the wanted order until enough of them match."""
    number = _NUMBERS[wanted.order]
    await _plan(connection, "indexscan")
    rows = await connection.execute(
        f"""
        SELECT {number} AS number, name, path, service_id FROM {table}
        WHERE {_conditions(wanted, query)} AND {_behind(after, number)}
        ORDER BY {number}, name, path LIMIT %(limit)s
        """,
        {**_values(wanted, query, after), "limit": limit},
        prepare=False,
    )
    return [_placed(row) async for row in rows]


async def _plan(connection: Connection, scan: Literal["bitmapscan", "indexscan"]) -> None:
    """Leave the planner one kind of scan: it takes words for independent of each other, which languages are not."""
    other = "indexscan" if scan == "bitmapscan" else "bitmapscan"
    await connection.execute(
        "SELECT set_config('enable_seqscan', 'off', true), set_config(%s, 'on', true), set_config(%s, 'off', true)",
        (f"enable_{scan}", f"enable_{other}"),
    )


def _conditions(wanted: Wanted, query: str) -> str:
    parts = ["terms @@ %(query)s::tsquery"] if query else []
    parts += ["unit_price <= %(max_price)s"] if wanted.max_price is not None else []
    return " AND ".join(parts) or "true"


def _behind(after: Place | None, number: str) -> str:
    return f"({number}, name, path) > (%(number)s, %(name)s, %(path)s)" if after else "true"


def _values(wanted: Wanted, query: str, after: Place | None) -> dict[str, Any]:
    place = after._asdict() if after else {}
    return {"query": query, "max_price": wanted.max_price, **place}


def _placed(row: Mapping[str, Any]) -> tuple[Place, UUID]:
    return Place(row["number"], row["name"], row["path"]), row["service_id"]


def _any_of(word: Word, sign: str) -> str:
    """Return the alternatives for a word; one letter alone would be the beginning of too much."""
    typed = _lexeme(sign + word.typed) + (":*" if len(word.typed) > 1 else "")
    return " | ".join([typed, *(_lexeme(sign + other) for other in word.others)]).join("()")


def _lexeme(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


async def stand_somewhere(connection: Connection, words: Iterable[str], *, closed: bool) -> set[str]:
    """Return those words that some listing holds, as a beginning at least, be it in its description."""
    await _plan(connection, "bitmapscan")
    either = " OR ".join(
        f"EXISTS (SELECT FROM {table} WHERE terms @@ %(query)s::tsquery)"
        for table in ((_PUBLIC, _CLOSED) if closed else (_PUBLIC,))
    )
    found = set()
    for word in words:
        rows = await connection.execute(f"SELECT {either} AS found", {"query": _any_of(Word(word), "")}, prepare=False)
        row = await rows.fetchone()
        if row and row["found"]:
            found.add(word)
    return found


# --- what is kept in the process ----------------------------------------------------------------


async def vocabulary_position(connection: Connection) -> str:
    """Return from where `vocabulary` will have whatever is not committed yet."""
    row = await (await connection.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS at")).fetchone()
    assert row is not None
    return str(row["at"])


async def vocabulary(connection: Connection, since: str) -> list[VocabularyRow]:
    """Return the words of public listings that changed since a position; those now in no listing have 0."""
    rows = await connection.execute(
        """
        SELECT word, listings, popularity, coalesce(path, '') AS path FROM search_words
        WHERE changed >= %(since)s::xid8 AND (listings > 0 OR %(since)s <> '0')
        """,
        {"since": since},
    )
    return [VocabularyRow(**row) async for row in rows]


async def counts(connection: Connection) -> Counts:
    """Count the public listings."""
    rows = await connection.execute(
        """
        WITH open AS MATERIALIZED (
            SELECT category, split_part(path, '/', 1) AS provider, org_id, languages FROM listing_search
        )
        SELECT 'category' AS kind, category AS value, '' AS name, count(*) FROM open GROUP BY category
        UNION ALL SELECT 'language', language, '', count(*) FROM open CROSS JOIN unnest(languages) AS language
            GROUP BY language
        UNION ALL SELECT 'provider', provider, (SELECT name FROM organisations WHERE id = org_id), count(*) FROM open
            GROUP BY provider, org_id
        """
    )
    found = Counts()
    async for row in rows:
        match row["kind"]:
            case "category":
                found.categories[row["value"]] = row["count"]
            case "language":
                found.languages[row["value"]] = row["count"]
            case _:
                found.providers[row["value"]] = (row["name"], row["count"])
    return found


async def closed_listings(connection: Connection, limit: int, *, for_members: bool) -> Sequence[Mapping[str, Any]]:
    """Return what the transaction's scope may see besides the public: its words, and what it is counted by.

    Either those that are open to all members, or those that are not.
    """
    rows = await connection.execute(
        """
        SELECT path, category, split_part(path, '/', 1) AS provider, languages,
               (SELECT name FROM organisations WHERE id = org_id) AS provider_name,
               tsvector_to_array(ts_filter(terms, '{a,b,c}')) AS words
        FROM listing_search_closed WHERE (visibility = 'members') = %s ORDER BY popularity DESC, path LIMIT %s
        """,
        (for_members, limit),
    )
    return await rows.fetchall()


# --- writing ------------------------------------------------------------------------------------


class _Removed(NamedTuple):
    public: bool
    path: str
    popularity: int
    slowness: int
    words: list[str]


def row_of(listing: Listing, languages: Sequence[str], terms: Mapping[str, str]) -> dict[str, Any]:
    """Return what is kept of an open listing: ``languages`` are its tags, ``terms`` its words, weighted from A to D."""
    marks = {"@c/" + listing.category, "@p/" + listing.provider_slug}
    marks |= {"@l/" + form for tag in languages for form in (tag, tag.partition("-")[0])}
    marks |= {"=" + word for word, weight in terms.items() if weight == "A"}
    lexemes = [f"{_lexeme(word)}:1{weight}" for word, weight in terms.items()] + [_lexeme(mark) for mark in marks]
    return {
        "service_id": listing.id,
        "org_id": listing.org_id,
        "path": listing.path,
        "name": listing.name,
        "category": listing.category,
        "visibility": listing.visibility,
        "languages": list(languages),
        "unit_price": listing.unit_price if listing.unit_price is not None else Decimal("Infinity"),
        "popularity": 0,
        "slowness": _UNMEASURED + listing.typical_latency_ms,
        "opened": round(listing.created_at.timestamp() * 1_000_000),
        "terms": " ".join(lexemes),
    }


async def index(connection: Connection, listing: Listing, languages: Sequence[str], terms: Mapping[str, str]) -> None:
    """Make an open listing findable, or anew; its use is known already in the second case."""
    removed = await _remove(connection, [listing.id])
    row = row_of(listing, languages, terms)
    for one in removed:
        row["popularity"] = one.popularity
        row["slowness"] = one.slowness if one.slowness < _UNMEASURED else row["slowness"]
    public = listing.visibility == "public"
    await connection.execute(
        f"""
        INSERT INTO {_PUBLIC if public else _CLOSED} ({", ".join(row)})
        VALUES ({", ".join(f"%({name})s" for name in row)}::tsvector)
        """,
        row,
    )
    suggested = [word for word, weight in terms.items() if weight != "D"] if public else []
    await _recount(connection, removed, suggested, listing.path)


async def unindex(connection: Connection, service_ids: Sequence[UUID]) -> None:
    """Let listings be found no more, all in one go: words are locked in their order, against deadlocks."""
    await _recount(connection, await _remove(connection, service_ids))


async def _remove(connection: Connection, service_ids: Sequence[UUID]) -> list[_Removed]:
    found = []
    for table in (_PUBLIC, _CLOSED):
        rows = await connection.execute(
            f"""
            DELETE FROM {table} WHERE service_id = ANY(%s)
            RETURNING visibility = 'public' AS public, path, popularity, slowness,
                      tsvector_to_array(ts_filter(terms, '{{a,b,c}}')) AS words
            """,
            (list(service_ids),),
        )
        found += [_Removed(**row) async for row in rows]
    return found


async def _recount(
    connection: Connection, removed: Iterable[_Removed], added: Iterable[str] = (), path: str | None = None
) -> None:
    """Keep the vocabulary in step with what left ``listing_search`` and the words of what entered it."""
    gone = [one for one in removed if one.public]
    changes = Counter(added)
    for one in gone:
        changes.subtract(one.words)
    changed = sorted(word for word, by in changes.items() if by)
    await connection.execute(
        """
        INSERT INTO search_words AS known (word, listings, path)
            SELECT word, by, %(path)s FROM unnest(%(words)s::text[], %(by)s::integer[]) AS change (word, by)
            ORDER BY word COLLATE "C"
        ON CONFLICT (word) DO UPDATE SET
            listings = greatest(0, known.listings + excluded.listings),
            changed = pg_current_xact_id(),
            path = CASE WHEN known.path IS NOT NULL AND known.path <> ALL(%(gone)s::text[]) THEN known.path
                WHEN excluded.listings > 0 THEN excluded.path
                ELSE (SELECT other.path FROM listing_search AS other -- letters, marks and digits need no escape
                      WHERE terms @@ ('''' || known.word || ''':ABC')::tsquery LIMIT 1)
                END
        """,
        {"words": changed, "by": [changes[word] for word in changed], "path": path, "gone": [one.path for one in gone]},
    )


async def unindexed(connection: Connection, limit: int) -> list[UUID]:
    """Return open listings that are to be indexed: those that never were, and those of an earlier index."""
    rows = await connection.execute(
        """
        SELECT service_id FROM listing_search WHERE former
        UNION ALL SELECT service_id FROM listing_search_closed WHERE former
        UNION ALL SELECT id FROM services
            WHERE status IN ('published', 'deprecated')
              AND NOT EXISTS (SELECT FROM listing_search WHERE service_id = services.id)
              AND NOT EXISTS (SELECT FROM listing_search_closed WHERE service_id = services.id)
        LIMIT %s
        """,
        (limit,),
    )
    return [row["service_id"] async for row in rows]


async def renew_price(connection: Connection, listing: Listing) -> None:
    """Take over the price that a listing has now."""
    for table in (_PUBLIC, _CLOSED):
        await connection.execute(
            f"UPDATE {table} SET unit_price = %s WHERE service_id = %s", (listing.unit_price, listing.id)
        )


async def renew_announced_prices(connection: Connection, begun: datetime, at: datetime) -> int:
    """Take over prices that were announced and began between two moments; return how many listings changed."""
    changed = 0
    for table in (_PUBLIC, _CLOSED):
        done = await connection.execute(
            f"""
            UPDATE {table} AS known SET unit_price = fresh.unit_price
            FROM (
                SELECT DISTINCT ON (service_id) service_id, unit_price FROM rate_cards
                WHERE plan_code IS NULL AND effective_from <= %(at)s AND service_id IN (
                    SELECT service_id FROM rate_cards
                    WHERE effective_from > created_at AND effective_from BETWEEN %(begun)s AND %(at)s)
                ORDER BY service_id, effective_from DESC
            ) AS fresh
            WHERE fresh.service_id = known.service_id AND fresh.unit_price <> known.unit_price
            """,
            {"begun": begun, "at": at},
        )
        changed += done.rowcount
    return changed


async def renew_use(connection: Connection, used: Collection[tuple[UUID, int, float | None]]) -> int:
    """Take over a week's use: calls and measured p95 in ms by listing; return how many listings changed."""
    ids, calls, p95s = zip(*used, strict=True) if used else ((), (), ())
    changed = 0
    for table in (_PUBLIC, _CLOSED):
        done = await connection.execute(
            f"""
            UPDATE {table} AS known SET popularity = fresh.popularity, slowness = fresh.slowness
            FROM (
                SELECT services.id, floor(4 * log(2, 1 + coalesce(calls, 0)))::integer AS popularity,
                       coalesce(p95, {_UNMEASURED} + typical_latency_ms)::integer AS slowness
                FROM services LEFT JOIN unnest(%(ids)s::uuid[], %(calls)s::numeric[], %(p95s)s::float8[])
                    AS used (id, calls, p95) ON used.id = services.id
                WHERE services.status IN ('published', 'deprecated')
            ) AS fresh
            WHERE fresh.id = known.service_id
              AND (fresh.popularity, fresh.slowness) <> (known.popularity, known.slowness)
            """,
            {"ids": list(ids), "calls": list(calls), "p95s": list(p95s)},
        )
        changed += done.rowcount
    return changed


async def renew_popular_words(connection: Connection) -> int:
    """Give each word the popularity that all listings with it have together; return how many words changed."""
    done = await connection.execute(
        """
        WITH fresh AS MATERIALIZED (
            SELECT word, floor(4 * log(2, 1 + sum(power(2, popularity / 4.0) - 1)::numeric))::integer AS popularity
            FROM listing_search CROSS JOIN unnest(tsvector_to_array(ts_filter(terms, '{a,b,c}'))) AS word
            WHERE popularity > 0 GROUP BY word
        ), changing AS MATERIALIZED (
            SELECT known.word, coalesce(fresh.popularity, 0) AS popularity
            FROM search_words AS known LEFT JOIN fresh USING (word)
            WHERE known.popularity <> coalesce(fresh.popularity, 0)
            ORDER BY known.word FOR UPDATE OF known
        )
        UPDATE search_words SET popularity = changing.popularity, changed = pg_current_xact_id()
        FROM changing WHERE changing.word = search_words.word
        """
    )
    return done.rowcount

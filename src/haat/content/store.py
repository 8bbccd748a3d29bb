"""All SQL of pages and their texts, and of what they are found by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg.errors import UniqueViolation

from haat.content.model import Page, Published, Standing, Translation
from haat.infra.postgres import Connection
from haat.kernel.errors import AlreadyExists, NotFound
from haat.language import Tag, parse_tag
from haat.language.messages import _

_PAGE = "key, kind, source, shown_from, shown_until, created_at"
_TRANSLATION = """id, key, tag, version, state, title, body, author, reviewer, source, source_version, machine,
    revision, note, changed_at, published_at"""


# --- pages ------------------------------------------------------------------------------------------


async def add_page(connection: Connection, page: Page) -> None:
    """Keep a new page; raise AlreadyExists."""
    try:
        async with connection.transaction():
            await connection.execute(
                f"INSERT INTO content_pages ({_PAGE}) VALUES (%s, %s, %s, %s, %s, %s)",
                (page.key, page.kind, str(page.source), page.shown_from, page.shown_until, page.created_at),
            )
    except UniqueViolation as error:
        raise AlreadyExists(
            _("There is a page %(key)s: choose another key, or write in that one.", key=page.key)
        ) from error


async def page(connection: Connection, key: str, *, for_change: bool = False) -> Page:
    """Return a page; raise NotFound. When it is to be changed it is locked until the transaction ends."""
    lock = "FOR UPDATE" if for_change else ""
    found = await connection.execute(f"SELECT {_PAGE} FROM content_pages WHERE key = %s {lock}", (key,))
    row = await found.fetchone()
    if row is None:
        raise NotFound(_("There is no page %(key)s.", key=key))
    return _page(row)


async def pages(connection: Connection) -> list[Page]:
    rows = await connection.execute(f"SELECT {_PAGE} FROM content_pages ORDER BY kind, key")
    return [_page(row) async for row in rows]


async def set_window(connection: Connection, key: str, since: datetime | None, until: datetime | None) -> None:
    await connection.execute(
        "UPDATE content_pages SET shown_from = %s, shown_until = %s WHERE key = %s", (since, until, key)
    )


# --- texts ------------------------------------------------------------------------------------------


async def working(connection: Connection, key: str, tag: Tag) -> Translation | None:
    """Return the version that is worked on, or None."""
    return await _one(connection, "key = %s AND tag = %s AND state IN ('draft', 'review')", (key, str(tag)))


async def published(connection: Connection, key: str, tag: Tag) -> Translation | None:
    return await _one(connection, "key = %s AND tag = %s AND state = 'published'", (key, str(tag)))


async def version(connection: Connection, key: str, tag: Tag, number: int) -> Translation | None:
    return await _one(connection, "key = %s AND tag = %s AND version = %s", (key, str(tag), number))


async def versions(connection: Connection, key: str, tag: Tag) -> list[Translation]:
    """Return every version of a page in a language, the newest first."""
    rows = await connection.execute(
        f"SELECT {_TRANSLATION} FROM content_translations WHERE key = %s AND tag = %s ORDER BY version DESC",
        (key, str(tag)),
    )
    return [_translation(row) async for row in rows]


async def standings(connection: Connection, key: str | None = None) -> list[Standing]:
    """Return how far each page, or one, is in each language that something was written in."""
    rows = await connection.execute(
        """
        SELECT key, tag, max(version) FILTER (WHERE state = 'published') AS published,
               max(version) FILTER (WHERE state IN ('draft', 'review')) AS working,
               max(state) FILTER (WHERE state IN ('draft', 'review')) AS state,
               coalesce(bool_or(state = 'published' AND source_version < (
                   SELECT version FROM content_translations AS origin
                   WHERE origin.key = one.key AND origin.tag = one.source AND origin.state = 'published'
               )), false) AS stale
        FROM content_translations AS one
        WHERE %(key)s::text IS NULL OR key = %(key)s
        GROUP BY key, tag ORDER BY key, tag
        """,
        {"key": key},
    )
    return [Standing(**{**row, "tag": parse_tag(row["tag"])}) async for row in rows]


async def put(connection: Connection, one: Translation) -> None:
    """Keep a version as it is now; a published one keeps its words whatever is asked (a trigger refuses)."""
    await connection.execute(
        f"""
        INSERT INTO content_translations ({_TRANSLATION})
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT (id) DO UPDATE SET state = excluded.state, title = excluded.title, body = excluded.body,
            author = excluded.author, reviewer = excluded.reviewer, source = excluded.source,
            source_version = excluded.source_version, machine = excluded.machine, revision = excluded.revision,
            note = excluded.note, changed_at = excluded.changed_at, published_at = excluded.published_at
        """,
        (
            *(one.id, one.key, str(one.tag), one.version, one.state, one.title, one.body, one.author, one.reviewer),
            *(str(one.source) if one.source else None, one.source_version, one.machine, one.revision),
            *(one.note, one.changed_at, one.published_at),
        ),
    )


# --- what readers get -------------------------------------------------------------------------------

_PUBLISHED = """page.key, page.kind, one.tag, one.version, one.title, one.body, one.published_at
    FROM content_pages AS page JOIN content_translations AS one ON one.key = page.key AND one.state = 'published'"""
_NEAREST = "coalesce(array_position(%(chain)s::text[], one.tag), CASE WHEN one.tag = page.source THEN 99 END)"
"""How near a text is to the reader: its place in the chain, the page's own language last, null for any other."""


async def nearest(connection: Connection, key: str, chain: Sequence[Tag]) -> Published | None:
    """Return a page in the first language of a chain that it is published in, else in its own; None if in none."""
    found = await connection.execute(
        f"SELECT {_PUBLISHED} WHERE page.key = %(key)s AND {_NEAREST} IS NOT NULL ORDER BY {_NEAREST} LIMIT 1",
        {"key": key, "chain": [str(tag) for tag in chain]},
    )
    row = await found.fetchone()
    return _published(row, chain[0]) if row else None


async def shelf(connection: Connection, kinds: Sequence[str], chain: Sequence[Tag]) -> list[Published]:
    """Return every published page of some kinds, each in the reader's nearest language, by title."""
    rows = await connection.execute(
        f"""
        SELECT * FROM (
            SELECT DISTINCT ON (page.key) {_PUBLISHED} WHERE page.kind = ANY(%(kinds)s) AND {_NEAREST} IS NOT NULL
            ORDER BY page.key, {_NEAREST}
        ) AS found ORDER BY title, key
        """,
        {"kinds": list(kinds), "chain": [str(tag) for tag in chain]},
    )
    return [_published(row, chain[0]) async for row in rows]


async def announced(connection: Connection, at: datetime) -> list[tuple[Tag, Published]]:
    """Return what is announced now in every language it is published in, the newest announcement first.

    Each comes with its page's own language.
    """
    rows = await connection.execute(
        f"""
        SELECT page.source, {_PUBLISHED}
        WHERE page.kind = 'announcement' AND (page.shown_from IS NULL OR page.shown_from <= %(at)s)
            AND (page.shown_until IS NULL OR page.shown_until > %(at)s)
        ORDER BY coalesce(page.shown_from, page.created_at) DESC, page.key
        """,
        {"at": at},
    )
    return [(parse_tag(row.pop("source")), _published(row, parse_tag(row["tag"]))) async for row in rows]


async def languages_of(connection: Connection, key: str) -> list[Tag]:
    """Return the languages that a page is published in."""
    rows = await connection.execute(
        "SELECT tag FROM content_translations WHERE key = %s AND state = 'published' ORDER BY tag", (key,)
    )
    return [parse_tag(row["tag"]) async for row in rows]


async def search(
    connection: Connection, words: Sequence[str], kinds: Sequence[str], chain: Sequence[Tag], limit: int
) -> list[Published]:
    """Return pages that hold every word (as a prefix) in the language the reader gets them in, best first."""
    rows = await connection.execute(
        f"""
        SELECT key, kind, tag, version, title, body, published_at FROM (
            SELECT DISTINCT ON (page.key) {_PUBLISHED} WHERE page.kind = ANY(%(kinds)s) AND {_NEAREST} IS NOT NULL
            ORDER BY page.key, {_NEAREST}
        ) AS shown JOIN content_search USING (key, tag)
        WHERE words @@ %(query)s::tsquery
        ORDER BY ts_rank(words, %(query)s::tsquery) DESC, title, key LIMIT %(limit)s
        """,
        {
            "query": query_of(words, " & "),
            "kinds": list(kinds),
            "chain": [str(tag) for tag in chain],
            "limit": limit,
        },
    )
    return [_published(row, chain[0]) async for row in rows]


async def index(connection: Connection, key: str, tag: Tag, title: Sequence[str], body: Sequence[str]) -> None:
    """Replace the words that a page is found by in a language; those of the title weigh more."""
    await connection.execute(
        """
        INSERT INTO content_search (key, tag, words) VALUES (%s, %s, %s::tsvector)
        ON CONFLICT (key, tag) DO UPDATE SET words = excluded.words
        """,
        # A weight belongs to a position: without one all words would weigh the same.
        (
            key,
            str(tag),
            " ".join([*(f"{_quoted(word)}:1A" for word in title), *(f"{_quoted(word)}:2D" for word in body)]),
        ),
    )


async def unindex(connection: Connection, key: str, tag: Tag) -> None:
    await connection.execute("DELETE FROM content_search WHERE key = %s AND tag = %s", (key, str(tag)))


def query_of(words: Sequence[str], between: str) -> str:
    """Return a tsquery of words, each as a prefix, quoted so that none is taken for an operator."""
    return between.join(f"{_quoted(word)}:*" for word in words)


def _quoted(word: str) -> str:
    """Return a word as PostgreSQL's text search reads it, whatever signs it has."""
    return "'" + word.replace("\\", "\\\\").replace("'", "''") + "'"


# --- rows -------------------------------------------------------------------------------------------


async def _one(connection: Connection, where: str, values: tuple[Any, ...]) -> Translation | None:
    found = await connection.execute(f"SELECT {_TRANSLATION} FROM content_translations WHERE {where}", values)
    row = await found.fetchone()
    return _translation(row) if row else None


def _page(row: Mapping[str, Any]) -> Page:
    return Page(**{**row, "source": parse_tag(row["source"])})


def _translation(row: Mapping[str, Any]) -> Translation:
    source = parse_tag(row["source"]) if row["source"] else None
    return Translation(**{**row, "tag": parse_tag(row["tag"]), "source": source})


def _published(row: Mapping[str, Any], asked: Tag) -> Published:
    return Published(**{**row, "tag": parse_tag(row["tag"]), "asked": asked})

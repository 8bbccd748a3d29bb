"""All SQL of the translation memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from haat.content.store import query_of
from haat.infra.postgres import Connection
from haat.language import Tag


@dataclass(frozen=True, slots=True)
class Learned:
    """A sentence and its translation; ``folded_hash`` is SHA-256 of the folded source, ``words`` its words."""

    folded_hash: bytes
    source: str
    target: str
    words: list[str]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A known sentence that shares a word with another one, its translation, and the page that it was learned from."""

    source: str
    target: str
    key: str
    version: int


async def learn(
    connection: Connection, source: Tag, target: Tag, pairs: Iterable[Learned], key: str, version: int, at: datetime
) -> None:
    """Keep pairs of a published translation, each in place of an older one for the same source."""
    async with connection.cursor() as cursor:
        await cursor.executemany(
            """
            INSERT INTO content_memory (source_tag, target_tag, folded_hash, source, target, words, key, version,
                learned_at)
            VALUES (%s, %s, %s, %s, %s, array_to_tsvector(%s::text[]), %s, %s, %s)
            ON CONFLICT (source_tag, target_tag, folded_hash) DO UPDATE SET source = excluded.source,
                target = excluded.target, key = excluded.key, version = excluded.version,
                learned_at = excluded.learned_at
            """,
            [
                (
                    *(str(source), str(target), one.folded_hash, one.source, one.target),
                    *(sorted(set(one.words)), key, version, at),
                )
                for one in pairs
            ],
        )


async def exact(connection: Connection, source: Tag, target: Tag, hashes: Sequence[bytes]) -> dict[bytes, str]:
    """Return the translations of those sentences that are known as they are."""
    rows = await connection.execute(
        """
        SELECT folded_hash, target FROM content_memory
        WHERE source_tag = %s AND target_tag = %s AND folded_hash = ANY(%s)
        """,
        (str(source), str(target), list(hashes)),
    )
    return {bytes(row["folded_hash"]): row["target"] async for row in rows}


async def candidates(
    connection: Connection, source: Tag, target: Tag, words: Sequence[str], limit: int
) -> list[Candidate]:
    """Return sentences that share a word, those that share most first."""
    rows = await connection.execute(
        """
        SELECT source, target, key, version FROM content_memory
        WHERE source_tag = %(source)s AND target_tag = %(target)s AND words @@ %(query)s::tsquery
        ORDER BY ts_rank(words, %(query)s::tsquery) DESC, learned_at DESC LIMIT %(limit)s
        """,
        {"source": str(source), "target": str(target), "query": query_of(words, " | "), "limit": limit},
    )
    return [Candidate(**row) async for row in rows]

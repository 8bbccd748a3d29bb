"""How long it takes to find listings: searches of every kind and completions, in the process, on a filled catalog."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import psutil

from bench.catalog_market import LANGUAGES, Catalog
from bench.measure import cpu, percentile
from haat.catalog import search_store
from haat.catalog.discovery import Discovery
from haat.infra import postgres
from haat.infra.postgres import PUBLIC
from haat.kernel.clock import SystemClock
from haat.kernel.permissions import Actor, Role

DEEP = 40
"""Pages that are turned before the page behind a deep cursor is measured."""


@dataclass(frozen=True, slots=True)
class Asked:
    """How long one kind of question took, in milliseconds. ``found`` is how many answers had anything in them.

    ``cpu_ms`` is the mean of what a question cost PostgreSQL and us together, which others on the machine disturb less.
    """

    kind: str
    asked: int
    found: int
    p50_ms: float
    p95_ms: float
    most_ms: float
    cpu_ms: float
    worst: str
    """The question that took longest."""


@dataclass(frozen=True, slots=True)
class Seen:
    warm_up_seconds: float
    facets_seconds: float
    vocabulary: int
    searches: tuple[Asked, ...]
    completions: tuple[Asked, ...]


def find(made: Catalog, times: int) -> Seen:
    return asyncio.run(_find(made, times))


async def _find(made: Catalog, times: int) -> Seen:
    dice = random.Random(11)  # noqa: S311 - it makes up questions, no secrets
    async with postgres.Database(made.database.dsn("app"), max_size=2) as db:
        discovery, server = Discovery(db, SystemClock()), await _server(db)
        began = time.perf_counter()
        await discovery.warm_up()
        warm_up = time.perf_counter() - began
        began = time.perf_counter()
        async with db.transaction(PUBLIC) as connection:
            await search_store.counts(connection)
        facets = time.perf_counter() - began
        searches = [
            await _ask(kind, discovery.search, [make() for _ in range(times)], server, actor)
            for kind, make, actor in _kinds(dice, made)
        ]
        searches.append(await _deep(discovery, dice, made, max(3, times // 10), server))
        completions = [
            await _ask(f"{length} letters", discovery.autocomplete, _beginnings(dice, made, length, times), server)
            for length in range(1, 7)
        ]
        words = len(await discovery._shelf.words())
    return Seen(warm_up, facets, words, tuple(searches), tuple(completions))


def _kinds(dice: random.Random, made: Catalog) -> list[tuple[str, Callable[[], dict[str, Any]], Actor | None]]:
    common, rare = made.words[:30], made.words[5_000:]
    latin = [word for word in made.words[:2_000] if word.isascii() and len(word) > 5]
    indic = [word for word in made.words[:2_000] if not word.isascii()]
    guest = Actor(None, made.guest, Role.API_CONSUMER)

    def text(words: Sequence[str]) -> dict[str, Any]:
        return {"text": dice.choice(words)}

    def any_word() -> str:
        return made.words[int(len(made.words) ** dice.random()) - 1]

    return [
        ("no words", dict, None),
        ("one word, common", lambda: text(common), None),
        ("one word, as in texts", lambda: {"text": any_word()}, None),
        ("one word, rare", lambda: text(rare), None),
        ("two words, common", lambda: {"text": f"{dice.choice(common)} {dice.choice(common)}"}, None),
        ("two words, as in texts", lambda: {"text": f"{any_word()} {any_word()}"}, None),
        ("two letters", lambda: {"text": dice.choice(latin)[:2]}, None),
        ("another script", lambda: text(indic), None),
        ("misspelt", lambda: {"text": _misspelt(dice, dice.choice(latin))}, None),
        ("by language", lambda: {"language": dice.choice(LANGUAGES)}, None),
        ("word and language", lambda: text(common) | {"language": dice.choice(LANGUAGES)}, None),
        ("word and category", lambda: text(common) | {"category": dice.choice(("ocr", "llm", "translation"))}, None),
        ("word and price", lambda: text(common) | {"max_price": Decimal(dice.choice(("0.001", "0.01", "0.08")))}, None),
        ("price alone", lambda: {"max_price": Decimal(dice.choice(("0.0005", "0.005", "0.05")))}, None),
        ("word, cheapest first", lambda: text(common) | {"order": "cheapest"}, None),
        ("word, newest first", lambda: text(common) | {"order": "newest"}, None),
        ("word, signed in", lambda: {"text": any_word()}, guest),
    ]


def _misspelt(dice: random.Random, word: str) -> str:
    place = dice.randrange(1, len(word) - 1)
    return dice.choice((word[:place] + word[place + 1 :], word[:place] + "x" + word[place:]))


def _beginnings(dice: random.Random, made: Catalog, length: int, times: int) -> list[dict[str, Any]]:
    words = [word for word in made.words[:5_000] if len(word) >= length]
    return [{"prefix": words[int(len(words) ** dice.random()) - 1][:length]} for _ in range(times)]


async def _ask(
    kind: str,
    ask: Callable[..., Awaitable[Any]],
    questions: Sequence[dict[str, Any]],
    server: int,
    actor: Actor | None = None,
) -> Asked:
    took: list[tuple[float, str]] = []
    found = 0
    spent = _cpu_seconds(server)
    for question in questions:
        began = time.perf_counter()
        answer = await ask(actor, **question)
        took.append(((time.perf_counter() - began) * 1000, " ".join(map(str, question.values()))))
        found += bool(getattr(answer, "items", answer))
    spent = _cpu_seconds(server) - spent
    took.sort()
    times = [one for one, _ in took]
    return Asked(
        kind, len(times), found, percentile(times, 0.5), percentile(times, 0.95), times[-1], spent / len(times) * 1000,
        took[-1][1],
    )  # fmt: skip


async def _deep(discovery: Discovery, dice: random.Random, made: Catalog, times: int, server: int) -> Asked:
    """Turn pages first, then measure the page behind them."""
    questions = []
    for _ in range(times):
        query: dict[str, Any] = {"text": dice.choice(made.words[:10])}
        cursor = None
        for _ in range(DEEP):
            cursor = (await discovery.search(None, cursor=cursor, **query)).next or cursor
        questions.append(query | {"cursor": cursor})
    return await _ask(f"page {DEEP + 1} of a common word", discovery.search, questions, server)


async def _server(db: postgres.Database) -> int:
    """Return the process id of the server behind a database."""
    async with db.transaction(PUBLIC) as connection:
        row = await (await connection.execute("SELECT pg_backend_pid() AS pid")).fetchone()
    assert row is not None
    return psutil.Process(row["pid"]).ppid()


def _cpu_seconds(server: int) -> float:
    """Return what this process and the server have used."""
    return sum(cpu(server)) + time.process_time()

"""The operator's desk of texts on a fresh database, with a translator that writes what it was asked in capitals."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from haat.content.model import Page, Translation
from haat.content.reading import Library
from haat.content.service import Content
from haat.content.translator import Translated
from haat.identity import store as identity_store
from haat.infra.letters import MailTemplate
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.errors import UnsupportedLanguage
from haat.kernel.permissions import Actor, Role
from haat.language import ENGLISH, Tag, parse_tag
from market import Market, market
from office import Control, control

__all__ = ["Control", "control", "market"]

HINDI, URDU, MAITHILI, TAMIL = parse_tag("hi"), parse_tag("ur"), parse_tag("mai"), parse_tag("ta")
GREETING = MailTemplate("greeting", "Hello, {company}", "{company} is here: {portal}\n", optional=frozenset({"reason"}))


@dataclass
class Shouter:
    """Knows one pair, and answers each text in capitals before the target's name."""

    pairs: frozenset[tuple[Tag, Tag]] = frozenset({(ENGLISH, HINDI), (ENGLISH, URDU)})
    asked: list[str] = field(default_factory=list)

    async def translate(self, actor: Actor, texts: Sequence[str], source: Tag, target: Tag) -> Translated:
        if (source, target) not in self.pairs:
            raise UnsupportedLanguage(f"Nobody translates from {source} to {target}.")
        self.asked += texts
        return Translated(tuple(f"{text.upper()}" for text in texts), ("acme/shouter",))


@dataclass
class Writers:
    """The services of content, and two people of the operator's: who writes and who reviews."""

    market: Market
    content: Content
    library: Library
    translator: Shouter
    writer: Actor
    reviewer: Actor

    async def help(self, key: str = "first-call", **changes: Any) -> Page:
        return await self.content.create(self.writer, key, **{"kind": "help", "source": ENGLISH, **changes})

    async def publish(self, key: str, tag: Tag, title: str, body: str, **changes: Any) -> Translation:
        """Take a text through all of its states."""
        await self.content.save(self.writer, key, tag, title, body, **changes)
        await self.content.ask_review(self.writer, key, tag)
        return await self.content.publish(self.reviewer, key, tag)


async def colleague(market: Market, of: Actor) -> Actor:
    """Return a second member of somebody's organisation, with the same role."""
    other = await market.consumer()
    assert other.user_id and of.org_id
    async with market.db.transaction(PLATFORM_SCOPE) as connection:
        await identity_store.add_membership(connection, other.user_id, of.org_id, of.role, market.clock.now())
    return Actor(other.user_id, of.org_id, Role(of.role), other.name)


@pytest.fixture
async def writers(market: Market) -> AsyncIterator[Writers]:
    translator = Shouter()
    content = Content(market.db, market.clock, market.identity, translator, [GREETING])
    writer = await market.operator()
    yield Writers(
        market, content, Library(market.db, market.clock), translator, writer, await colleague(market, writer)
    )

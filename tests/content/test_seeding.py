"""The help pages that come with the platform are laid out once, and never over what somebody wrote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from haat.bootstrap import ensure_help_pages
from haat.content import seeding
from haat.kernel.permissions import PLATFORM
from haat.language import ENGLISH, Tag
from office import Control

from .conftest import HINDI, URDU


async def seeded(control: Control) -> list[tuple[str, str]]:
    return [(key, tag.language) for key, tag in await ensure_help_pages(control.platform)]


def shipped(monkeypatch: pytest.MonkeyPatch, *texts: tuple[str, Tag, str, str]) -> None:
    def seeds() -> Iterator[tuple[str, Tag, str, str]]:
        yield from texts

    monkeypatch.setattr(seeding, "seeds", seeds)


async def test_the_pages_are_laid_out_once_and_read_in_both_languages(control: Control) -> None:
    first = await seeded(control)
    assert {key for key, _ in first} >= {"first-call", "keys-and-limits", "prices-and-invoices", "for-providers"}
    assert len(first) == 2 * len({key for key, _ in first})
    assert await seeded(control) == []
    library = control.platform.library
    assert (await library.published("first-call", HINDI)).tag == HINDI
    assert (await library.published("first-call", URDU)).tag == ENGLISH
    assert [found.page.key for found in await library.search(HINDI, "कुंजी सीमाएँ")] != []
    known = await control.platform.content.memory.exact(ENGLISH, HINDI, ["Your first call"])
    assert known == {"Your first call": "आपकी पहली कॉल"}


async def test_a_new_release_changes_what_nobody_touched_and_nothing_else(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform, operator = control.platform, await control.market.operator()
    shipped(monkeypatch, *((key, tag, "A", "one") for key in ("a", "b", "c", "d") for tag in (ENGLISH, HINDI)))
    assert len(await seeded(control)) == 8
    content = platform.content
    await content.save(operator, "a", ENGLISH, "Mine", "Mine")  # a draft is enough
    await content.archive(operator, "b", ENGLISH, published=True)
    shipped(monkeypatch, *((key, tag, "A", "two") for key in ("a", "b", "c", "d") for tag in (ENGLISH, HINDI)))
    assert await seeded(control) == [("a", "hi"), ("c", "en"), ("c", "hi"), ("d", "en"), ("d", "hi")]
    assert (await platform.library.published("a", ENGLISH)).body == "one"
    assert (await platform.library.published("c", ENGLISH)).body == "two"
    [newest, _] = (await content.desk(operator, "c", HINDI)).versions
    assert (newest.source_version, newest.author) == (2, PLATFORM.label)
    assert await seeded(control) == []


async def test_a_page_that_the_operator_made_under_that_key_stays(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator: Any = await control.market.operator()
    await control.platform.content.create(operator, "a", "help", HINDI)
    await control.platform.content.save(operator, "a", HINDI, "क", "ख")
    shipped(monkeypatch, ("a", ENGLISH, "A", "one"), ("a", HINDI, "क", "one"))
    assert await seeded(control) == []

"""What is announced, on every page until its reader has put it away.

It is read from the facts every few seconds, not for every page; who has put something away is remembered by their own
browser, in a cookie of short names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from markupsafe import Markup

from haat.app import Platform
from haat.content.markup import render
from haat.content.reading import Announced
from haat.language import Tag

SEEN_COOKIE = "haat_seen"
_KEPT = timedelta(seconds=5)
_MOST_SEEN = 40
_NAME = 8  # hexadecimal digits


@dataclass(frozen=True, slots=True)
class Notice:
    """An announcement for one reader. ``name`` is what it is put away by, ``elsewhere`` if it isn't in theirs."""

    name: str
    title: str
    html: Markup
    tag: Tag
    elsewhere: bool


@dataclass(slots=True)
class Announcements:
    """Keeps the last reading for five seconds, so that a busy street costs one query, not one a page."""

    _read_at: datetime | None = None
    _found: Sequence[Announced] = ()
    _html: dict[str, Markup] = field(default_factory=dict)

    async def look(self, platform: Platform) -> None:
        """Read what is announced, unless that was done a moment ago."""
        now = platform.clock.now()
        if self._read_at is None or not timedelta(0) <= now - self._read_at < _KEPT:
            self._found = await platform.library.announced()
            self._html = {one.body: Markup(render(one.body)) for each in self._found for one in each.texts.values()}  # noqa: S704 - rendered safely
            self._read_at = now

    def for_reader(self, tag: Tag, seen: Collection[str]) -> list[Notice]:
        """Return what a reader of a language has not put away, as it was last read."""
        notices = []
        for each in self._found:
            name, text = _name(each), each.for_reader(tag)
            if text is not None and name not in seen:
                notices.append(Notice(name, text.title, self._html[text.body], text.tag, text.tag != tag))
        return notices


def seen_in(cookie: str) -> list[str]:
    """Return the names in the cookie, the latest last; what we can't have written is left out."""
    names = cookie[: (_NAME + 1) * _MOST_SEEN].split(".")
    return [name for name in names if len(name) == _NAME and name.isalnum() and name.isascii()]


def with_seen(cookie: str, name: str) -> str:
    """Return the cookie of somebody who has put one more away; the oldest names go first."""
    names = [one for one in seen_in(cookie) if one != name]
    return ".".join([*names, *seen_in(name)][-_MOST_SEEN:])


def _name(announced: Announced) -> str:
    """Return the short name of an announcement: a new version of its own text has another one."""
    text = announced.texts.get(announced.source) or next(iter(announced.texts.values()))
    return hashlib.sha256(f"{text.key}/{text.tag}/{text.version}".encode()).hexdigest()[:_NAME]

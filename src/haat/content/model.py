"""Pages and their texts in languages, and the states a text passes: draft → review → published → archived.

A text's versions are counted per page and language. One version at most is worked on, one at most is published;
what was published never changes again: a change is the next version.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from difflib import SequenceMatcher
from typing import Literal, get_args
from uuid import UUID

from haat.kernel.errors import Conflict, ValidationFailed
from haat.kernel.text import check_name
from haat.language import Tag, normalise, parse_tag
from haat.language.messages import _, gettext

Kind = Literal["page", "announcement", "help", "mail"]
State = Literal["draft", "review", "published", "archived"]

KINDS: tuple[Kind, ...] = get_args(Kind)
LONGEST_TITLE = 200
LONGEST_BODY = 60_000
"""Characters of a body: about thirty printed pages."""
LONGEST_PHRASE = 500
LONGEST_NOTE = 500

_KEY = re.compile(r"[a-z0-9](?:[._-]?[a-z0-9]){0,79}")
_TAKEN = frozenset({"new", "reports"})  # they are addresses on the operator's desk
_TRANSITIONS: dict[State, frozenset[State]] = {
    "draft": frozenset({"review", "archived"}),
    "review": frozenset({"draft", "published"}),
    "published": frozenset({"archived"}),
    "archived": frozenset(),
}


@dataclass(frozen=True, slots=True)
class Page:
    """What is written about under one key. ``source`` is the language it is first written in.

    An announcement is shown from ``shown_from`` until just before ``shown_until``; None leaves an end open.
    """

    key: str
    kind: Kind
    source: Tag
    shown_from: datetime | None
    shown_until: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Translation:
    """One version of a page's text in one language.

    ``author`` saved it last and ``reviewer`` published it, as the event log names them. ``source`` and
    ``source_version`` say what it was translated from; None for a text that was written in this language.
    ``revision`` counts how often it was saved, so that two who write at once notice. ``note`` is why it was sent back.
    """

    id: UUID
    key: str
    tag: Tag
    version: int
    state: State
    title: str
    body: str
    author: str
    reviewer: str | None
    source: Tag | None
    source_version: int | None
    machine: bool
    revision: int
    note: str
    changed_at: datetime
    published_at: datetime | None


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a page is in one language: what is published, and what is worked on.

    ``stale`` when what is published was translated from a text that has moved on since.
    """

    key: str
    tag: Tag
    published: int | None
    working: int | None
    state: State | None
    """The state of the version that is worked on."""
    stale: bool


@dataclass(frozen=True, slots=True)
class Published:
    """A text for a reader. ``asked`` is the language that was wanted, ``tag`` the one that the text is in."""

    key: str
    kind: Kind
    tag: Tag
    asked: Tag
    version: int
    title: str
    body: str
    published_at: datetime

    @property
    def is_elsewhere(self) -> bool:
        """Whether the reader gets another language than was asked for."""
        return self.tag != self.asked


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a difference: ``same``, ``gone`` or ``new``."""

    kind: Literal["same", "gone", "new"]
    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a reader says of a phrase. ``page`` is its address, ``better`` how it should be, or empty."""

    id: UUID
    tag: Tag
    page: str
    phrase: str
    better: str
    reporter: str | None
    """As the event log names who was signed in; None for a visitor."""
    reported_at: datetime
    closed_at: datetime | None
    closed_by: str | None
    note: str


def check_key(key: str) -> str:
    """Return a key fit for addresses; raise ValidationFailed."""
    key = key.strip()
    if not _KEY.fullmatch(key) or len(key) > 80 or key in _TAKEN:
        message = _("Use up to 80 small letters and digits, with single points or hyphens between them.")
        raise ValidationFailed(errors=[{"field": "key", "message": message}])
    return key


def check_tag(text: str, field: str = "language") -> Tag:
    """Return a language of ours, in a script it is written in; raise ValidationFailed."""
    try:
        return parse_tag(text)
    except ValueError as error:
        raise ValidationFailed(errors=[{"field": field, "message": f"{error}."}]) from error


def check_text(title: str, body: str) -> tuple[str, str]:
    """Return title and body in one spelling, lines ended by ``\\n``; raise ValidationFailed for what is too long."""
    title = check_name(normalise(title), "title", LONGEST_TITLE)
    lines = [line.rstrip() for line in normalise(body).replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    body = "\n".join(lines).strip("\n")
    if not body or len(body) > LONGEST_BODY:
        raise ValidationFailed(
            errors=[
                {"field": "body", "message": _("Write 1 to %(longest_body)s characters.", longest_body=LONGEST_BODY)}
            ]
        )
    return title, body


def check_window(shown_from: datetime | None, shown_until: datetime | None) -> None:
    """Raise ValidationFailed for a time that ends before it begins."""
    if shown_from is not None and shown_until is not None and shown_until <= shown_from:
        raise ValidationFailed(errors=[{"field": "shown_until", "message": _("Choose an end after the beginning.")}])


def check_transition(present: State, wanted: State) -> None:
    """Raise Conflict when a text can't go from one state to the other."""
    if wanted not in _TRANSITIONS[present]:
        raise Conflict(
            _(
                "A text that is %(present)s can't become %(wanted)s: reload the page and decide again.",
                present=gettext(present),
                wanted=gettext(wanted),
            )
        )


def check_reviewer(author: str, reviewer: str, others: Collection[str]) -> None:
    """Raise Conflict when who wrote a text would publish it although somebody else could.

    ``others`` are those who may publish besides the reviewer. Where there is nobody else, the author decides alone.
    """
    if author == reviewer and others:
        raise Conflict(_("Who wrote a text doesn't publish it: ask a colleague to review it."))


def is_stale(translation: Translation, published_source: int | None) -> bool:
    """Tell whether the text a translation was made from has moved on; ``published_source`` is its version now."""
    return translation.source_version is not None and (published_source or 0) > translation.source_version


def difference(old: str, new: str) -> list[Line]:
    """Return line by line what became of a text."""
    before, after = old.splitlines(), new.splitlines()
    lines: list[Line] = []
    for kind, first, last, start, end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal":
            lines += [Line("same", line) for line in before[first:last]]
        else:
            lines += [Line("gone", line) for line in before[first:last]]
            lines += [Line("new", line) for line in after[start:end]]
    return lines

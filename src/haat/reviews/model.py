"""A review of a listing, and what many of them come to. No I/O."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_HALF_UP, Decimal
from uuid import UUID

from haat.kernel.errors import ValidationFailed
from haat.kernel.text import is_readable
from haat.language.messages import _

MOST_TEXT = 1000
"""Characters of a review, of a reply and of the operator's reason."""
LEAST_REVIEWS = 3
"""Fewer have no average: it would be about a person, not about the service."""
LEAST_BUYERS = 5
"""With fewer buyers a month and a count of calls would name the author."""
PRIOR_STARS = Decimal("3.5")
PRIOR_REVIEWS = 5
"""Before anybody has said anything a listing stands as if so many had given it `PRIOR_STARS`."""
_STEPS = (5, 2, 1)
_BLANK_LINES = re.compile(r"\n{3,}")


@dataclass(frozen=True, slots=True)
class Use:
    """An organisation's billed use of a listing: of test keys nothing counts, nor what another provider executed."""

    calls: int
    """Completed calls in the days that a review looks back."""
    monthly: int
    """Those of the last 30 days."""
    since: datetime | None
    """When its first subscription began."""
    buyers: int
    """Organisations with such calls, this one included."""
    version: str
    """The listing's version that it called most in these 30 days, empty without a call."""


@dataclass(frozen=True, slots=True)
class Buyer:
    """What is told of a review's author. ``monthly_calls`` is rounded down; both are None where they would name it."""

    since: date | None
    """The first day of the month in which it became a buyer."""
    monthly_calls: int | None


@dataclass(frozen=True, slots=True)
class Review:
    """A review as its readers see it: who wrote it is in none of it.

    ``service`` is ``provider/service``; ``reply_to`` is the version that the provider answered, which is less than
    ``version`` when the author has changed the review since.
    """

    id: UUID
    service_id: UUID
    service: str
    service_name: str
    version: int
    stars: int
    text: str
    service_version: str
    buyer: Buyer
    written_at: datetime
    changed_at: datetime
    withdrawn_at: datetime | None
    reply: str | None
    reply_to: int | None
    replied_at: datetime | None
    hidden_at: datetime | None
    hidden_reason: str | None


@dataclass(frozen=True, slots=True)
class Past:
    """What a review said before, or says now."""

    version: int
    stars: int
    text: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """What the reviews of a listing come to. ``mean`` is None for fewer than `LEAST_REVIEWS`, see `shrunk`."""

    count: int = 0
    mean: Decimal | None = None
    version: str = ""
    """The version that most of their authors used most."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Whether an organisation may review a listing, and what stands in the way: empty when nothing does."""

    calls: int
    least_calls: int
    days: int
    obstacle: str


def shrunk(count: int, stars: int) -> Decimal | None:
    """Return the mean of ``count`` reviews with ``stars`` in all, drawn towards `PRIOR_STARS`, to one decimal."""
    if count < LEAST_REVIEWS:
        return None
    mean = (PRIOR_STARS * PRIOR_REVIEWS + stars) / (PRIOR_REVIEWS + count)
    return mean.quantize(Decimal("0.1"), ROUND_HALF_UP)


def rounded(calls: int) -> int:
    """Return calls rounded down to 1, 2 or 5 times a power of ten; 0 for fewer than 100."""
    if calls < 100:
        return 0
    power: int = 10 ** (len(str(calls)) - 1)
    return next(step * power for step in _STEPS if step * power <= calls)


def buyer_of(use: Use) -> Buyer:
    """Return what may be told of an author with this use."""
    if use.buyers < LEAST_BUYERS or use.since is None:
        return Buyer(None, None)
    return Buyer(use.since.date().replace(day=1), rounded(use.monthly))


def checked_stars(stars: int) -> int:
    """Return stars as they are; raise ValidationFailed for what is not 1 to 5."""
    if not 1 <= stars <= 5:
        raise ValidationFailed(errors=[{"field": "stars", "message": _("Choose 1 to 5 stars.")}])
    return stars


def checked_text(text: str, field: str = "text") -> str:
    """Return paragraphs in NFC without stray space; raise ValidationFailed when empty, too long or unreadable."""
    lines = [" ".join(line.split()) for line in unicodedata.normalize("NFC", text).splitlines()]
    tidied = _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip()
    if not tidied:
        raise ValidationFailed(errors=[{"field": field, "message": _("Write a sentence or two.")}])
    if len(tidied) > MOST_TEXT:
        message = _("Write at most %(most)s characters; these are %(length)s.", most=MOST_TEXT, length=len(tidied))
        raise ValidationFailed(errors=[{"field": field, "message": message}])
    if not all(is_readable(line) for line in tidied.split("\n") if line):
        message = _("Leave out characters that can't be seen or that turn the text around them.")
        raise ValidationFailed(errors=[{"field": field, "message": message}])
    return tidied

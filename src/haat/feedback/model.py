"""One opinion of one answer, and what the opinions of many come to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from haat.kernel.errors import ValidationFailed
from haat.language.similarity import edit_similarity

Thumbs = Literal["up", "down"]

MOST_ITEMS = 100
"""Opinions in one request."""
MOST_TEXT = 10_000
"""Characters of a corrected text, and of the answer it is held against."""
MOST_COMMENT = 2_000


MOST_OF = {"thumbs": 1.0, "rating": 5.0, "closeness": 1.0}
"""The metrics that opinions come to, each with its largest value."""
GRACE = timedelta(hours=1)
"""How long after a subject's time in an experiment what it says of its calls still counts."""
LANDING = timedelta(minutes=1)
"""How long after that its value is settled: what was said in the last moment is stored by then."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a caller says of the answer to ``request_id``; None where it says nothing.

    ``rating`` is 1 to 5. ``answered`` is the text that was corrected: it is compared with ``corrected`` and not kept.
    """

    request_id: UUID
    thumbs: Thumbs | None = None
    rating: int | None = None
    corrected: str | None = None
    answered: str | None = None
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class Execution:
    """Who executed a call: the service, its version and variant, and whose it is."""

    service_id: UUID
    provider_org: UUID | None
    """None for a call of a test key, which the gateway answered itself."""
    version: str
    variant: str
    mode: str
    called_at: datetime


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of an opinion. ``kept`` names its members that are stored, ``replaced`` whether one was there."""

    request_id: UUID
    kept: tuple[str, ...]
    replaced: bool


@dataclass(frozen=True, slots=True)
class Given:
    """An opinion as it is kept. ``closeness`` is 1 when the answer needed no correction, see `closeness`."""

    request_id: UUID
    application_id: UUID | None
    service_id: UUID
    service: str
    """``provider/service`` of who executed the call, empty when it is no more."""
    version: str
    variant: str
    mode: str
    called_at: datetime
    given_at: datetime
    thumbs: Thumbs | None
    rating: int | None
    corrected: str | None
    comment: str | None
    closeness: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """A metric over many opinions: enough for a mean, its variance, and for adding to others."""

    count: int = 0
    sum: float = 0.0
    sum_squares: float = 0.0

    @property
    def mean(self) -> float | None:
        return self.sum / self.count if self.count else None

    @property
    def variance(self) -> float | None:
        """The sample's, None for fewer than two."""
        if self.count < 2:
            return None
        return max(0.0, self.sum_squares - self.sum * self.sum / self.count) / (self.count - 1)

    @classmethod
    def of(cls, values: Sequence[float]) -> Figures:
        return cls(len(values), math.fsum(values), math.fsum(value * value for value in values))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was said of one version and variant of a service.

    ``thumbs`` counts an up as 1 and a down as 0, ``rating`` is 1 to 5, ``closeness`` 0 to 1.
    """

    version: str
    variant: str
    thumbs: Figures
    rating: Figures
    closeness: Figures


def check_opinions(opinions: Sequence[Opinion], place: str = "items.{}.") -> None:
    """Raise ValidationFailed for opinions that say nothing, that say too much, or of which two are of one request."""
    errors = []
    seen: set[UUID] = set()
    if not 1 <= len(opinions) <= MOST_ITEMS:
        raise ValidationFailed(errors=[{"field": "items", "message": f"must be a list of 1 to {MOST_ITEMS} items"}])
    for number, opinion in enumerate(opinions):
        before = place.format(number)
        if opinion.request_id in seen:
            errors.append({"field": f"{before}request_id", "message": "stands twice in one request"})
        seen.add(opinion.request_id)
        said = (opinion.thumbs, opinion.rating, opinion.corrected, opinion.comment)
        if all(one is None for one in said):
            message = "must be given, or `rating`, `corrected` or `comment`"
            errors.append({"field": f"{before}thumbs", "message": message})
        if opinion.rating is not None and not 1 <= opinion.rating <= 5:
            errors.append({"field": f"{before}rating", "message": "must be 1 to 5"})
        if opinion.answered is not None and opinion.corrected is None:
            errors.append({"field": f"{before}answered", "message": "is for comparing: send `corrected` too"})
        for name, most in (("corrected", MOST_TEXT), ("answered", MOST_TEXT), ("comment", MOST_COMMENT)):
            text = getattr(opinion, name)
            if text is not None and len(text) > most:
                errors.append({"field": f"{before}{name}", "message": f"must have at most {most} characters"})
    if errors:
        raise ValidationFailed(errors=errors)


def closeness(opinion: Opinion) -> float | None:
    """Return how alike the answer and its correction are written, 0 to 1; None when there are not both."""
    if opinion.corrected is None or opinion.answered is None:
        return None
    return edit_similarity(opinion.answered, opinion.corrected)


def may_keep_texts(policy: Mapping[str, Any]) -> bool:
    """Tell whether an application's data policy lets texts of its calls be kept (`identity.policy`)."""
    data = policy.get("data") or {}
    return bool(data.get("retains_inputs", True))

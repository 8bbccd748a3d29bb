"""What a version may say of how well it translates: see `haat.gateway.market.policy.Quality`."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class QualityDraft(BaseModel):
    """What a provider has measured of one pair, as it says: nobody here has.

    One metric, so that numbers can be held against each other: chrF, which is fair to languages with many endings
    and needs no agreement on what a word is. ``score`` is from 0 to 100.
    """

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    pair: Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Z][a-z]{3})?>[a-z]{2,3}(-[A-Z][a-z]{3})?$")]
    score: Annotated[Decimal, Field(ge=0, le=100, max_digits=6, decimal_places=3)]
    test_set: Annotated[str, Field(min_length=1, max_length=120)]
    date: datetime.date
    metric: Literal["chrF"] = "chrF"

    @field_validator("date")
    @classmethod
    def _is_past(cls, date: datetime.date) -> datetime.date:
        if date > datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=1):  # somebody's today
            raise ValueError("is still to come")
        return date


def check_quality(quality: Sequence[QualityDraft], pairs: Collection[str]) -> None:
    """Raise ValueError when a pair is declared twice, or isn't one of the version's."""
    declared = [one.pair for one in quality]
    if len(set(declared)) != len(declared):
        raise ValueError("declare one score a pair")
    for pair in declared:
        if pair not in pairs:
            raise ValueError(f"is for the version's own `language_pairs`: {pair} is none")

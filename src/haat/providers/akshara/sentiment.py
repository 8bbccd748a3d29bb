"""How an English text feels, by VADER's lexicon and rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

from haat.models.hosted import HostedService, Item, Output, Units
from haat.providers.companies import AKSHARA

# The bounds that VADER's authors give for its compound score.
_BOUND = 0.05


@lru_cache(maxsize=1)
def _analyser() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer  # type: ignore[import-untyped]  # no types

    return SentimentIntensityAnalyzer()


def sentiment(text: str) -> Output:
    """Return ``label`` (positive, neutral, negative), ``score`` in -1..1 and the share of each feeling."""
    scores = _analyser().polarity_scores(text)
    score = scores["compound"]
    label = "positive" if score >= _BOUND else "negative" if score <= -_BOUND else "neutral"
    shares = {"positive": scores["pos"], "neutral": scores["neu"], "negative": scores["neg"]}
    return {"label": label, "score": score, "shares": shares}


def invoke(items: Sequence[Item], config: Mapping[str, Any]) -> tuple[list[Output], Units]:
    """Return one `sentiment` answer an item; units are the characters of the input."""
    return [sentiment(item.text) for item in items], {"characters": Decimal(sum(len(item.text) for item in items))}


def service() -> HostedService:
    return HostedService(
        company=AKSHARA,
        slug="sentiment",
        name="Sentiment",
        summary="Tells whether an English text sounds positive, neutral or negative.",
        description="Made for short, everyday texts such as reviews and messages, emoticons included. English only; "
        "irony escapes it.",
        category="nlp",
        unit="characters",
        kind="text",
        languages=("en-Latn",),
        sample={"input": [{"text": "The delivery was quick and the staff were lovely."}], "config": {"language": "en"}},
        unit_price=Decimal("0.0005"),
        free_units=1_000,
        max_characters=2_000,
        typical_latency_ms=2,
        runtime="inline",
        license_note="Engine: vaderSentiment (MIT).",
        invoke=invoke,
    )

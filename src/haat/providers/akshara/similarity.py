"""How alike two texts are written, in any script: compared by graphemes or words, not by meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from haat.language import SIMILARITIES
from haat.models.hosted import HostedService, Item, Option, Output, Units
from haat.providers.companies import AKSHARA

METHODS = tuple(SIMILARITIES)


def similarity(first: str, second: str, method: str) -> float:
    """Return 0 (nothing alike) to 1 (the same when normalised and without case) by one of `METHODS`."""
    return SIMILARITIES[method](first, second)


def invoke(items: Sequence[Item], config: Mapping[str, Any]) -> tuple[list[Output], Units]:
    """Return ``{"score", "method"}`` a pair; units are the characters of both texts."""
    method = config["method"]
    outputs: list[Output] = [
        {"score": round(similarity(item.text, item.other, method), 4), "method": method} for item in items
    ]
    return outputs, {"characters": Decimal(sum(len(item.text) + len(item.other) for item in items))}


def service() -> HostedService:
    return HostedService(
        company=AKSHARA,
        slug="text-similarity",
        name="Text similarity",
        summary="Scores how alike two texts are written, in any script.",
        description="Compares `text` with `other` by what a reader sees as characters, so that a matra counts with its "
        "letter. Methods: edit (edit distance), jaccard (shared words), ngram (shared pairs of characters), weighted "
        "(all three). Lexical: two ways to say one thing in different words score low.",
        category="nlp",
        unit="characters",
        kind="text_pair",
        options=(Option("method", "choice", "How the texts are compared.", "weighted", choices=METHODS),),
        sample={
            "input": [{"text": "मेरा नाम राजेश है", "other": "मेरा नाम राकेश है"}],
            "config": {"method": "weighted"},
        },
        unit_price=Decimal("0.0002"),
        free_units=1_000,
        max_characters=2_000,
        typical_latency_ms=2,
        runtime="inline",
        license_note="Engine: RapidFuzz (MIT).",
        invoke=invoke,
    )

"""Vectors of texts by how they are written: hashed pieces of words, in any script, the same on every machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from hashlib import blake2b
from math import fsum, sqrt
from typing import Any

from haat.language import fold, search_words
from haat.models.hosted import HostedService, Item, Output, Units
from haat.providers.companies import AKSHARA

DIMENSIONS = 256
_SIZES = (2, 3, 4)  # characters in a piece
_DIGITS = 8


def embed(text: str) -> list[float]:
    """Return a vector of `DIMENSIONS` numbers, of length 1 but for rounding to eight decimals.

    Each piece of the folded text adds to or takes from one number, both told by its hash. What occurs often counts
    by the root of how often. Only operations that IEEE 754 defines to the last bit are used, so that two machines
    agree.
    """
    sums: list[list[float]] = [[] for _ in range(DIMENSIONS)]
    for piece, times in Counter(_pieces(text)).items():
        place, sign = _hashed(piece)
        sums[place].append(sign * sqrt(times))
    vector = [fsum(parts) for parts in sums]
    length = sqrt(fsum(number * number for number in vector))
    if not length:  # everything has cancelled out: what is left is that there was something
        vector = [fsum(abs(part) for part in parts) for parts in sums]
        length = sqrt(fsum(number * number for number in vector))
    return [round(number / length, _DIGITS) + 0.0 for number in vector]


def count_tokens(text: str) -> int:
    """Return the words of a text; one that has none counts as one."""
    return max(1, len(search_words(text)))


def _pieces(text: str) -> Iterator[str]:
    """Yield whole words, and runs of two to four characters in each, its beginning and end marked by a space."""
    for word in search_words(text) or [fold(text) or text]:
        yield word
        marked = f" {word} "
        for size in _SIZES:
            for start in range(len(marked) - size + 1):
                yield marked[start : start + size]


@lru_cache(maxsize=20_000)
def _hashed(piece: str) -> tuple[int, int]:
    digest = blake2b(piece.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest[:2], "big") % DIMENSIONS, 1 if digest[2] & 1 else -1


def invoke(items: Sequence[Item], config: Mapping[str, Any]) -> tuple[list[Output], Units]:
    """Return ``{"embedding"}`` an item; units are the words of the input."""
    outputs: list[Output] = [{"embedding": embed(item.text)} for item in items]
    return outputs, {"tokens": Decimal(sum(count_tokens(item.text) for item in items))}


def service() -> HostedService:
    return HostedService(
        company=AKSHARA,
        slug="embed",
        name="Embeddings of spelling",
        summary="Vectors that are near where texts are written alike; they know nothing of meaning.",
        description="256 numbers for a text in any script: hashed runs of two to four characters and whole words, "
        "without case and in one normal form. Good for finding near duplicates, misspelt names and inflected words. "
        "Not a language model: `car` and `automobile` are as far apart as any two words, and so are a sentence and "
        "its translation. The same text has the same vector on every machine. Vectors have length 1, so that their "
        "dot product is their cosine. A token is a word.",
        category="embedding",
        unit="tokens",
        kind="text",
        takes_language=False,
        sample={"input": [{"text": "नमस्ते दुनिया"}, {"text": "hello world"}], "config": {}},
        unit_price=Decimal("0.0001"),
        free_units=200,
        typical_latency_ms=3,
        runtime="inline",
        license_note="Engine: the platform's own feature hashing.",
        invoke=invoke,
    )

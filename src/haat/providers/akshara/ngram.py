"""A language model of characters: how often which one followed the few before it.

Longer contexts are smoothed with shorter ones by Witten and Bell's rule: one that was followed by ``t`` different
characters ``n`` times in all leaves t / (n + t) of its say to the context that is one shorter.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from random import Random

_LEAST_TEMPERATURE = 0.05
"""Below it the likeliest character is taken, which is what the formula comes to, without its overflow."""


class NgramModel:
    """Trained once; `continue_text` keeps nothing between calls, and many may run at a time."""

    def __init__(self, text: str, reach: int = 6) -> None:
        """Learn from a text that is not empty, looking back ``reach`` characters."""
        if not text or reach < 0:
            raise ValueError("a model needs a text, and looks back over no less than nothing")
        self._reach = reach
        following: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for place, character in enumerate(text):
            for size in range(min(reach, place) + 1):
                following[text[place - size : place]][character] += 1
        self._following = dict(following)
        self._alphabet = sorted(self._following[""])

    def probabilities(self, context: str) -> dict[str, float]:
        """Return how likely each character of the alphabet is to follow; together they are 1."""
        shares = dict.fromkeys(self._alphabet, 1 / len(self._alphabet))
        for size in range(min(self._reach, len(context)) + 1):
            seen = self._following.get(context[len(context) - size :])
            if seen is None:
                break  # no longer context was seen either
            total, kinds = seen.total(), len(seen)
            left = kinds / (total + kinds)
            for character in shares:
                shares[character] *= left
            for character, count in seen.items():
                shares[character] += count / (total + kinds)
        return shares

    def continue_text(self, context: str, seed: int | None, temperature: float, top_p: float) -> Iterator[str]:
        """Yield characters without end. The same seed gives the same ones; None leaves them to chance.

        ``temperature`` 0 always takes the likeliest, more than 1 the unlikely ones more often. ``top_p`` chooses
        among the likeliest that have so much of the probability together.
        """
        chance = Random(seed)  # noqa: S311  # nothing is kept secret by it
        while True:
            character = _choose(self.probabilities(context), chance, temperature, top_p)
            yield character
            context = (context + character)[-self._reach :] if self._reach else ""


def _choose(shares: dict[str, float], chance: Random, temperature: float, top_p: float) -> str:
    ranked = sorted(shares.items(), key=lambda one: (-one[1], one[0]))
    if temperature < _LEAST_TEMPERATURE:
        return ranked[0][0]
    if temperature != 1:
        likeliest = ranked[0][1]
        ranked = [(character, (share / likeliest) ** (1 / temperature)) for character, share in ranked]
    ranked = _nucleus(ranked, top_p)
    left = chance.random() * sum(share for _, share in ranked)
    for character, share in ranked:
        left -= share
        if left < 0:
            return character
    return ranked[0][0]  # what rounding has left over


def _nucleus(ranked: list[tuple[str, float]], top_p: float) -> list[tuple[str, float]]:
    if top_p >= 1:
        return ranked
    left = top_p * sum(share for _, share in ranked)
    for place, (_, share) in enumerate(ranked):
        left -= share
        if left <= 0:
            return ranked[: place + 1]
    return ranked

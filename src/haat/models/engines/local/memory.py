"""Which models give their memory back when another needs it. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

HALF_LIFE = 60.0
HOT = 3.0
"""A model is hot when, counted so that a call weighs half after each minute, it has had more than three lately."""


@dataclass(slots=True)
class Heat:
    """How much a model is used: calls, each of which weighs half after a minute."""

    value: float = 0.0
    at: float = 0.0

    def add(self, now: float) -> None:
        """Count a call."""
        self.value = self.now(now) + 1
        self.at = now

    def now(self, now: float) -> float:
        """Return what the calls weigh now."""
        return self.value * math.exp2((self.at - now) / HALF_LIFE)


@dataclass(frozen=True, slots=True)
class Resident:
    """A model in memory. ``kept`` says that it may not be unloaded: it is busy, hot, or to be kept loaded."""

    key: str
    memory: int
    last_used: float
    kept: bool


def to_unload(residents: Iterable[Resident], needed: int, limit: int) -> list[str] | None:
    """Return whom to unload, least recently used first, so that ``needed`` bytes more stay within ``limit``.

    None when those that may be unloaded are not enough.
    """
    residents = list(residents)
    over = sum(resident.memory for resident in residents) + needed - limit
    chosen = []
    for resident in sorted(residents, key=lambda resident: resident.last_used):
        if over <= 0:
            break
        if not resident.kept:
            chosen.append(resident.key)
            over -= resident.memory
    return chosen if over <= 0 else None

"""What a provider is ready to take a second, from all callers together."""

from __future__ import annotations

from haat.gateway.limits.counts import Counts
from haat.gateway.limits.windows import Rate, Windows

_SECOND = 0  # its place among the spans


class Pace(Windows):
    """One window of a second, under the provider's own key."""

    __slots__ = ("key", "limit")

    def __init__(self, counts: Counts, key: str, limit: int, now: int) -> None:
        rates = [Rate(_SECOND, limit)]
        self.key, self.limit = key, limit
        super().__init__(rates, counts.fitting(key, rates, now), now)

"""What has gone through one service: counted for the metrics, and for what may be retried."""

from __future__ import annotations

from haat.gateway.upstreams.retries import RetryBudget

BUCKETS = 64
"""Durations are counted by their number of bits: bucket n holds those below 2**n microseconds."""


class Traffic:
    """Counts since this process has known the service; they die with it."""

    __slots__ = ("answers", "buckets", "budget", "microseconds", "refused", "stood_in")

    def __init__(self, now: int) -> None:
        self.answers: dict[tuple[bytes, int], int] = {}
        """Answers to callers by method and status."""
        self.buckets: list[int] = [0] * BUCKETS
        self.microseconds: int = 0
        self.refused: int = 0
        """Answers of the gateway itself, made before any provider was asked."""
        self.stood_in: int = 0
        """Calls of this service that another service has answered."""
        self.budget = RetryBudget(now)

    def count(self, method: bytes, status: int, microseconds: int) -> None:
        """Take in one answered call."""
        try:
            self.answers[method, status] += 1
        except KeyError:
            self.answers[method, status] = 1
        self.buckets[microseconds.bit_length()] += 1
        self.microseconds += microseconds

    @property
    def calls(self) -> int:
        """Calls that have gone to a provider."""
        return sum(self.answers.values()) - self.refused

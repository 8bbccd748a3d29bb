"""What is counted of a model, and how it has been doing lately."""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass, field

LATELY_SECONDS = 10.0
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_MOST_RECENT = 1_000


@dataclass(slots=True)
class Histogram:
    """Counts of values up to each edge, as Prometheus has them."""

    edges: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0
    count: int = 0

    def __post_init__(self) -> None:
        self.counts = [0] * len(self.edges)

    def add(self, value: float) -> None:
        """Count a value."""
        self.total += value
        self.count += 1
        for index, edge in enumerate(self.edges):
            if value <= edge:
                self.counts[index] += 1
                break


@dataclass(slots=True)
class Counters:
    """One model's, since the engine has started."""

    calls: int = 0
    inputs: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    """Calls that failed, by the code of the error."""
    abandoned: int = 0
    loads: int = 0
    unloads: int = 0
    lost: int = 0
    """Workers that died or were killed at work."""
    batch_size: Histogram = field(default_factory=lambda: Histogram(_SIZES))
    queue_seconds: Histogram = field(default_factory=lambda: Histogram(_SECONDS))
    inference_seconds: Histogram = field(default_factory=lambda: Histogram(_SECONDS))
    load_seconds: Histogram = field(default_factory=lambda: Histogram(_SECONDS))


class Lately:
    """The batches and answers of the last ten seconds, at most a thousand of each."""

    def __init__(self) -> None:
        self._batches: deque[tuple[float, int, float]] = deque(maxlen=_MOST_RECENT)
        self._answers: deque[tuple[float, float]] = deque(maxlen=_MOST_RECENT)

    def batch(self, now: float, size: int, seconds: float) -> None:
        """Note a batch that has ended."""
        self._batches.append((now, size, seconds))

    def answer(self, now: float, seconds: float) -> None:
        """Note how long a call has taken."""
        self._answers.append((now, seconds))

    def rate(self, workers: int) -> float:
        """Return the inputs a second that the workers get done when they are all at work; 0 before the first batch."""
        seconds = sum(batch[2] for batch in self._batches)
        return sum(batch[1] for batch in self._batches) / seconds * workers if seconds else 0.0

    def utilisation(self, now: float, workers: int, running: float) -> float:
        """Return the share of lately that workers were at work; ``running`` are seconds of batches that run still."""
        if not workers:
            return 0.0
        since = now - LATELY_SECONDS
        if len(self._batches) == self._batches.maxlen:
            since = max(since, self._batches[0][0])
        worked = sum(min(batch[2], batch[0] - since) for batch in self._batches if batch[0] > since)
        return min(1.0, (worked + running) / ((now - since) * workers))

    def latency_p95(self, now: float) -> float:
        """Return what 95 of 100 calls of lately were answered within; 0 if there were none."""
        times = sorted(seconds for at, seconds in self._answers if at > now - LATELY_SECONDS)
        return times[math.ceil(len(times) * 0.95) - 1] if times else 0.0

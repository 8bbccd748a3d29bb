"""What a load cost: CPU time and memory of a process tree, and the statistics of repeated rounds."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import psutil

from bench.processes import process_tree

MEGABYTE = 1 << 20
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sample:
    """One server under one load. ``rss_mb`` counts pages that processes share once for each.

    ``system_us_per_request`` is the kernel's part of ``cpu_us_per_request``.
    """

    cpu_us_per_request: float
    system_us_per_request: float
    rps: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    rss_mb: float
    errors: int


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of several rounds, with the least and the most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def __format__(self, spec: str) -> str:
        """Write ``20.1 (19.8–21.0)`` with each figure in the format given; one value stands alone."""
        if self.least == self.most:
            return format(self.median, spec)
        return f"{self.median:{spec}} ({self.least:{spec}}–{self.most:{spec}})"


class Cpu(NamedTuple):
    """Processor time in seconds."""

    user: float
    system: float

    def since(self, before: Cpu, requests: int) -> tuple[float, float]:
        """Return microseconds a request since an earlier look: all of it, and the kernel's part."""
        system = self.system - before.system
        spent = self.user - before.user + system
        return spent / max(1, requests) * 1e6, system / max(1, requests) * 1e6


def cpu(pid: int) -> Cpu:
    """Return the time that a process tree has used so far; those that ended don't count."""
    user = system = 0.0
    for process in process_tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            user, system = user + times.user, system + times.system
    return Cpu(user, system)


def rss_megabytes(pid: int) -> float:
    """Return the resident memory of a process tree."""
    held = 0
    for process in process_tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            held += process.memory_info().rss
    return held / MEGABYTE


def in_pairs(
    base: Callable[[], T], row: Callable[[], T], rounds: int, told: Callable[[int, T, T], None]
) -> tuple[list[T], list[T]]:
    """Measure both in each round, the one first in odd and the other in even rounds.

    What drifts on the machine meets both alike, and neither is always the one that comes second.
    """
    bases: list[T] = []
    rows: list[T] = []
    for number in range(rounds):
        if number % 2:
            rows.append(row())
            bases.append(base())
        else:
            bases.append(base())
            rows.append(row())
        told(number, bases[-1], rows[-1])
    return bases, rows


def ratios(bases: Sequence[Sample], rows: Sequence[Sample]) -> Spread:
    """Return CPU time a request as a multiple of what the base needed in the same round."""
    return Spread.of([row.cpu_us_per_request / base.cpu_us_per_request for base, row in zip(bases, rows, strict=True)])


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` (0 to 1) of the ordered values don't exceed."""
    if not ordered:
        return 0.0
    rank = -(-len(ordered) * share // 1)
    return ordered[min(len(ordered), max(1, int(rank))) - 1]

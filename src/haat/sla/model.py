"""Objectives, what was measured of them, error budgets, and what a breach pays. Pure.

A share of calls is a `Fraction`, so that a budget's arithmetic is exact; percentages that people write are Decimal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator, model_validator

from haat.kernel.clock import Period
from haat.kernel.money import multiply, to_paisa
from haat.kernel.text import is_storable
from haat.usage.model import GROWTH, quantile

LEAST_CALLS, LEAST_PROBES = 100, 20
"""The smallest sample of which anything is concluded."""
QUARTER = timedelta(minutes=15)
"""Counts are kept for quarter hours: every zone's days and months begin on one."""

Percent = Annotated[Decimal, Field(gt=0, le=100, decimal_places=3)]
Milliseconds = Annotated[int, Field(ge=1, le=600_000)]
Signal = Literal["availability", "p50", "p95", "p99"]
QUANTILES: dict[str, Fraction] = {"p50": Fraction(1, 2), "p95": Fraction(95, 100), "p99": Fraction(99, 100)}
ProbeKind = Literal["health", "sample", "none"]
MonthVerdict = Literal["kept", "breached", "unmeasured"]


class Tier(BaseModel):
    """What is credited when a month's availability is below ``below``: ``credit`` percent of its charge."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    below: Percent
    credit: Percent


class ObjectiveDraft(BaseModel):
    """An objective as it is asked for.

    ``availability`` is the percentage of counted calls that are answered; ``p50_ms`` and its like the milliseconds
    until the first byte that that part of the answers stays within. ``window_days`` is the budget's rolling window.
    ``tiers`` begin at the objective or below it, each lower and dearer than the one before. ``latency_credit`` is for a
    month in which a latency wasn't kept. ``probe`` says how the service is probed: by its health path, or a connection
    where it has none; by its sample call; not at all.
    """

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, allow_inf_nan=False)

    availability: Annotated[Decimal, Field(ge=90, le=Decimal("99.999"), decimal_places=3)] = Decimal("99.5")
    p50_ms: Milliseconds | None = None
    p95_ms: Milliseconds | None = None
    p99_ms: Milliseconds | None = None
    window_days: Annotated[int, Field(ge=7, le=90)] = 30
    tiers: Annotated[list[Tier], Field(max_length=10)] = []
    latency_credit: Annotated[Decimal, Field(ge=0, le=100, decimal_places=3)] = Decimal(0)
    probe: ProbeKind = "health"
    effective_from: AwareDatetime | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        if not is_storable(value):
            raise ValueError("holds characters or numbers that can't be stored")
        return value

    @model_validator(mode="after")
    def _fits(self) -> ObjectiveDraft:
        if self.tiers and self.tiers[0].below > self.availability:
            raise ValueError("the first tier begins at the objective or below it")
        if any(one.below <= other.below or one.credit >= other.credit for one, other in pairwise(self.tiers)):
            raise ValueError("each tier is lower than the one before and credits more")
        latencies = [one for one in (self.p50_ms, self.p95_ms, self.p99_ms) if one is not None]
        if latencies != sorted(latencies):
            raise ValueError("a latency that more answers stay within is not shorter")
        if self.latency_credit and not latencies:
            raise ValueError("a credit for latency needs a latency objective")
        return self


@dataclass(frozen=True, slots=True)
class Objective:
    """A version of what a listing promises, from ``effective_from`` until the next one; never edited."""

    id: UUID
    org_id: UUID
    service_id: UUID
    version: int
    effective_from: datetime
    availability: Decimal
    p50_ms: int | None
    p95_ms: int | None
    p99_ms: int | None
    window_days: int
    tiers: Sequence[Tier]
    latency_credit: Decimal
    probe: ProbeKind

    @property
    def latencies(self) -> dict[Signal, int]:
        """The milliseconds promised, by quantile."""
        named: dict[Signal, int | None] = {"p50": self.p50_ms, "p95": self.p95_ms, "p99": self.p99_ms}
        return {signal: limit for signal, limit in named.items() if limit is not None}

    def credit_for(self, availability: Fraction) -> Decimal:
        """Return the percent credited for a month's availability; 0 where no tier begins."""
        reached = [tier.credit for tier in self.tiers if availability * 100 < Fraction(tier.below)]
        return max(reached, default=Decimal(0))


def in_force(objectives: Sequence[Objective], at: datetime) -> Objective | None:
    """Return the objective that holds at a time."""
    begun = [one for one in objectives if one.effective_from <= at]
    return max(begun, key=lambda one: one.effective_from, default=None)


def of_month(objectives: Sequence[Objective], month: Period) -> tuple[Objective, Period] | None:
    """Return the objective by which a month is judged and the part of the month in which it holds.

    That is the one in force as the month begins; else the listing's first, from when it begins.
    """
    found = in_force(objectives, month.start)
    if found is not None:
        return found, month
    later = [one for one in objectives if one.effective_from in month]
    if not later:
        return None
    first = min(later, key=lambda one: one.effective_from)
    return first, Period(first.effective_from, month.end, month.label)


# --- what was measured ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Counts:
    """Calls and probes of a time. ``down`` is the part of ``failed`` that speaks for the endpoint."""

    answered: int = 0
    failed: int = 0
    down: int = 0
    probes_good: int = 0
    probes_bad: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.answered + other.answered,
            self.failed + other.failed,
            self.down + other.down,
            self.probes_good + other.probes_good,
            self.probes_bad + other.probes_bad,
        )

    @property
    def calls(self) -> int:
        return self.answered + self.failed

    @property
    def probes(self) -> int:
        return self.probes_good + self.probes_bad

    @property
    def source(self) -> Literal["traffic", "probes"] | None:
        """What may be believed: traffic where there is enough of it, else probes, else nothing."""
        if self.calls >= LEAST_CALLS:
            return "traffic"
        return "probes" if self.probes >= LEAST_PROBES else None

    def bad_of(self, source: Literal["traffic", "probes"]) -> tuple[int, int]:
        """Return how many were bad, of how many."""
        return (self.failed, self.calls) if source == "traffic" else (self.probes_bad, self.probes)

    @property
    def availability(self) -> Fraction | None:
        """The share that was answered; None of too small a sample."""
        if self.source is None:
            return None
        bad, of = self.bad_of(self.source)
        return 1 - Fraction(bad, of)


Histogram = Mapping[int, int]
"""Answers by `latency_bucket` of their microseconds until the first byte."""


def slow_from(limit_ms: int) -> int:
    """Return the first bucket whose every call took longer than a limit: in doubt, for the provider."""
    bucket = 0
    while GROWTH ** (bucket - 1) < limit_ms * 1000:
        bucket += 1
    return bucket


def slow_of(histogram: Histogram, limit_ms: int) -> tuple[int, int]:
    """Return how many calls surely took longer than a limit, of how many."""
    first = slow_from(limit_ms)
    slow = sum(calls for bucket, calls in histogram.items() if bucket >= first)
    return slow, sum(histogram.values())


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may go wrong and how much has. ``allowed`` is what the objective leaves of ``of`` calls or probes."""

    bad: int
    of: int
    allowed: Fraction

    @property
    def left(self) -> Fraction:
        """What may still go wrong; below zero once the objective is missed."""
        return self.allowed - self.bad

    @property
    def spent(self) -> Fraction:
        """The share of the budget that is used, 0 before anything was counted; above 1 once it is missed."""
        return self.bad / self.allowed if self.allowed else Fraction(0)


def budget_of(bad: int, of: int, objective: Decimal) -> Budget:
    """Return the budget of an objective in percent, as exact as the counts are."""
    if not 0 <= bad <= of:
        raise ValueError("what went wrong is a part of what was counted")
    return Budget(bad, of, of * (1 - Fraction(objective) / 100))


# --- a month ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a month comes to. ``missed`` names the promises that weren't kept, ``credit`` the percent that they pay."""

    verdict: MonthVerdict
    source: Literal["traffic", "probes"] | None
    availability: Fraction | None
    latency_ms: Mapping[str, float | None] = field(default_factory=dict)
    missed: Sequence[Signal] = ()
    credit: Decimal = Decimal(0)


def judge(objective: Objective, counts: Counts, histogram: Histogram) -> Judgement:
    """Judge what was measured in a month by an objective; too small a sample is judged by nothing."""
    availability = counts.availability
    missed: list[Signal] = []
    credit = Decimal(0)
    if availability is not None and availability * 100 < Fraction(objective.availability):
        missed.append("availability")
        credit = objective.credit_for(availability)
    answers = sum(histogram.values())
    for signal, limit in objective.latencies.items():
        slow, of = slow_of(histogram, limit)
        if of >= LEAST_CALLS and slow > of * (1 - QUANTILES[signal]):
            missed.append(signal)
            credit = max(credit, objective.latency_credit)
    measured = availability is not None or (bool(objective.latencies) and answers >= LEAST_CALLS)
    verdict: MonthVerdict = "breached" if missed else "kept" if measured else "unmeasured"
    latency: dict[str, float | None] = {
        signal: quantile(histogram, float(QUANTILES[signal])) for signal in objective.latencies
    }
    return Judgement(verdict, counts.source, availability, latency, missed, credit)


def credited(taxable: Decimal, percent: Decimal) -> Decimal:
    """Return what is credited of a line's taxable value, in rupees, half-up to the paisa once."""
    return to_paisa(multiply(taxable, percent.scaleb(-2)))


def percent_of(part: Fraction, decimals: int = 3) -> Decimal:
    """Return a share as a percentage rounded down: 99.9999 % is not 100 %."""
    step = 10**decimals
    return Decimal(part.numerator * 100 * step // part.denominator).scaleb(-decimals)

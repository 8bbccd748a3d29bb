"""Comparing two means as often as one likes: intervals and p-values that hold at every look. Pure.

The mixture sequential probability ratio test (Robbins 1970; Johari, Koomen, Pekelis, Walsh: "Always valid inference",
Operations Research 70, 2022, equations 13 to 15) with a normal mixture over the effect; its confidence sequence is the
normal-mixture boundary of Howard, Ramdas, McAuliffe, Sekhon ("Time-uniform, nonparametric, nonasymptotic confidence
sequences", Annals of Statistics 49, 2021, equation 14). Variances are estimated, so that both rest on the central
limit theorem: nothing is said before each side has `LEAST` subjects, and a bounded value's variance is estimated with
one more subject at each end of its range. Whether subjects came to the variants as they should is tested by the
Dirichlet mixture of Lindon and Malek ("Anytime-valid inference for multinomial count data", NeurIPS 2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEAST = 100
"""Subjects that each side must have."""
_CONCENTRATION = 100.0
"""How close to the planned shares the mixture of the ratio test lies."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Independent values, one a subject: how many, their sum, and the sum of their squares."""

    subjects: int = 0
    total: float = 0.0
    squares: float = 0.0

    @property
    def mean(self) -> float | None:
        return self.total / self.subjects if self.subjects else None

    def variance(self, most: float | None = None) -> float:
        """Return the values' variance; with ``most``, of values from 0 to that, never less than may well be."""
        count, total, squares = float(self.subjects), self.total, self.squares
        if most is not None:
            count, total, squares = count + 2, total + most, squares + most * most
        if count < 2:
            return 0.0
        return max(0.0, (squares - total * total / count) / (count - 1))


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is known of variant less control. ``low`` to ``high`` holds the true difference with probability 1 - alpha,
    at all looks together; ``p_value`` may be compared with alpha at any of them. None and 1 while subjects are few."""

    difference: float | None
    low: float | None
    high: float | None
    p_value: float

    @property
    def decided(self) -> bool:
        """Whether the interval leaves no room for "no difference"."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


UNKNOWN = Comparison(None, None, None, 1.0)


def compare(control: Sample, variant: Sample, *, alpha: float, effect: float, most: float | None = None) -> Comparison:
    """Compare two samples. ``effect`` is the difference worth finding: there the test is sharpest. ``most`` is the
    largest value a subject can have (the smallest is 0), None where there is none."""
    if min(control.subjects, variant.subjects) < LEAST:
        return UNKNOWN
    difference = variant.total / variant.subjects - control.total / control.subjects
    spread = control.variance(most) / control.subjects + variant.variance(most) / variant.subjects
    if spread <= 0:  # all values alike, on both sides
        return UNKNOWN
    mixed = effect * effect
    both = spread + mixed
    log_ratio = 0.5 * math.log(spread / both) + mixed * difference * difference / (2 * spread * both)
    half = math.sqrt(2 * spread * both / mixed * (math.log(1 / alpha) + 0.5 * math.log(both / spread)))
    return Comparison(difference, difference - half, difference + half, math.exp(min(0.0, -log_ratio)))


def ratio_p_value(subjects: Sequence[int], shares: Sequence[float]) -> float:
    """Return the p-value, valid at every look, of "subjects come to the variants in these shares" (which add up to 1).

    Below 0.001 something is wrong with the division itself, and nothing else should be believed.
    """
    count = sum(subjects)
    log_ratio = math.lgamma(_CONCENTRATION) - math.lgamma(_CONCENTRATION + count)
    for seen, share in zip(subjects, shares, strict=True):
        prior = _CONCENTRATION * share
        log_ratio += math.lgamma(prior + seen) - math.lgamma(prior) - seen * math.log(share)
    return math.exp(min(0.0, -log_ratio))

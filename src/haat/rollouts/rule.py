"""When a candidate is worse than its control, and has to go back. Pure: figures in, a verdict out.

Errors are compared by the difference of two proportions, of which the lower end must lie above the margin. Each
proportion's bounds are Chernoff's: the rates that the observed one lies from by a Kullback-Leibler divergence of
log(1 / 0.001) / calls (Garivier and Cappé 2011). They hold for any number of calls; the difference's bound is made of
them as by Zou and Donner (2008). Latencies are compared by a quantile: the lower end of the candidate's order-statistic
interval must lie above the upper end of the control's, times the ratio. So a few unlucky calls send nobody back, and a
version that fails every call goes back at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from haat.usage.model import GROWTH

Z = 3.0902
"""The standard normal's 99.9 % quantile."""
_DOUBT = math.log(1000)
"""The same as a divergence: one in a thousand."""
_HALVINGS = 40
_LEAST_SLOWER_MS = 5.0
"""A candidate that is slower by less than this is not slower."""


class Rule(msgspec.Struct, frozen=True, omit_defaults=True):
    """``error_margin`` is the difference of the error rates that is borne (0.02 is two points), ``latency_ratio`` how
    often as slow the candidate may be at ``latency_quantile`` (0 doesn't look), ``min_calls`` how many calls it must
    have had before it is judged."""

    min_calls: int = 50
    error_margin: float = 0.02
    latency_ratio: float = 1.5
    latency_quantile: float = 0.95


@dataclass(frozen=True, slots=True)
class Figures:
    """What a version did in some time. ``latency`` counts calls by the sketch's buckets (`haat.usage.model`)."""

    calls: int = 0
    errors: int = 0
    latency: Mapping[int, int] = field(default_factory=dict)

    @property
    def error_rate(self) -> float:
        return self.errors / self.calls if self.calls else 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a candidate goes back: ``reason`` is a sentence, ``figures`` the numbers behind it."""

    reason: str
    figures: Mapping[str, Any]


NOTHING = Figures()


def bucket(microseconds: int) -> int:
    """Return the sketch's bucket of a duration."""
    return 0 if microseconds <= 1 else math.ceil(math.log(microseconds) / _LOG_GROWTH)


_LOG_GROWTH = math.log(GROWTH)


def judge(control: Figures, candidate: Figures, rule: Rule) -> Verdict | None:
    """Return why the candidate goes back, None when nothing speaks against it.

    Of a control that has had few calls little is known, and the interval is as wide. Without any the candidate's error
    rate alone must stay within the margin. Latencies are compared once both have had ``min_calls`` calls.
    """
    if candidate.calls < rule.min_calls:
        return None
    if _difference(control, candidate) > rule.error_margin:
        numbers = _numbers(control, candidate)
        against = f", the control {control.error_rate:.1%} of {control.calls}" if control.calls else ""
        return Verdict(f"The candidate failed {candidate.error_rate:.1%} of {candidate.calls} calls{against}.", numbers)
    if control.calls < rule.min_calls or rule.latency_ratio <= 0:
        return None
    quick = _at(control.latency, rule.latency_quantile, 1)
    slow = _at(candidate.latency, rule.latency_quantile, -1)
    if quick is None or slow is None or slow <= quick * rule.latency_ratio or slow - quick < _LEAST_SLOWER_MS:
        return None
    name = f"p{rule.latency_quantile * 100:g}"
    numbers = {**_numbers(control, candidate), "control_ms": round(quick, 1), "candidate_ms": round(slow, 1)}
    return Verdict(
        f"The candidate's {name} is at least {slow:.0f} ms, the control's at most {quick:.0f} ms: "
        f"more than {rule.latency_ratio:g} times as long.",
        numbers,
    )


def _numbers(control: Figures, candidate: Figures) -> dict[str, Any]:
    return {
        "control_calls": control.calls,
        "control_errors": control.errors,
        "candidate_calls": candidate.calls,
        "candidate_errors": candidate.errors,
    }


def bounds(errors: int, calls: int) -> tuple[float, float]:
    """Return the least and the greatest rate of which a share of errors may have come, each at 99.9 %."""
    if not calls:
        return 0.0, 1.0
    rate, most = errors / calls, _DOUBT / calls
    ends = []
    for far in (0.0, 1.0):
        near = rate
        for _ in range(_HALVINGS):
            middle = (near + far) / 2
            if _divergence(rate, middle) > most:
                far = middle
            else:
                near = middle
        ends.append(near)
    return ends[0], ends[1]


def _divergence(rate: float, other: float) -> float:
    """Return the Kullback-Leibler divergence of two coins."""
    total = 0.0
    for mine, theirs in ((rate, other), (1 - rate, 1 - other)):
        if mine > 0:
            if theirs <= 0:
                return math.inf
            total += mine * math.log(mine / theirs)
    return total


def _difference(control: Figures, candidate: Figures) -> float:
    """Return the least by which the candidate's error rate lies above the control's (0 of 0 is taken for a sure 0)."""
    low, _ = bounds(candidate.errors, candidate.calls)
    _, high = bounds(control.errors, control.calls) if control.calls else (0.0, 0.0)
    difference = candidate.error_rate - control.error_rate
    return difference - math.hypot(candidate.error_rate - low, high - control.error_rate)


def _at(latency: Mapping[int, int], quantile: float, side: int) -> float | None:
    """Return the lower (-1) or upper (1) end of a quantile's interval, in milliseconds; None for too few calls."""
    calls = sum(latency.values())
    rank = quantile * calls + side * Z * math.sqrt(calls * quantile * (1 - quantile))
    wanted = math.ceil(rank)
    if not 1 <= wanted <= calls:
        return None
    seen = 0
    for place in sorted(latency):
        seen += latency[place]
        if seen >= wanted:
            return 2 * GROWTH**place / (GROWTH + 1) / 1000
    return None

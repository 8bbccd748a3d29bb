"""Burn-rate alerts over two windows at once: fast for an outage, slow for what smoulders. Pure, its time is given.

A burn rate of 1 uses up an error budget exactly at the end of its window. An alert opens when both a long and a short
window burn faster than a factor: the long one says that it matters, the short one that it still goes on. With a budget
of 30 days the factors are the usual ones: 14.4 (2 % of the budget in an hour) and 6 (5 % in six hours).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Literal

from haat.sla.model import LEAST_CALLS, QUANTILES, Counts, Signal

Pace = Literal["fast", "slow"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A pair of windows, and the part of the budget that may be gone within the long one."""

    pace: Pace
    short: timedelta
    long: timedelta
    part: Fraction

    def factor(self, window_days: int) -> Fraction:
        """Return the burn rate at which that part of a budget of so many days is gone within the long window."""
        return self.part * Fraction(timedelta(days=window_days) // timedelta(minutes=1), self.long // _MINUTE)


_MINUTE = timedelta(minutes=1)
RULES = (
    Rule("fast", timedelta(minutes=5), timedelta(hours=1), Fraction(2, 100)),
    Rule("slow", timedelta(minutes=30), timedelta(hours=6), Fraction(5, 100)),
)


@dataclass(frozen=True, slots=True)
class Burn:
    """The burn rates of both windows, None where nothing was counted, and the factor they are held against.

    ``enough`` says whether the long window's sample is one to conclude from.
    """

    short: Fraction | None
    long: Fraction | None
    factor: Fraction
    enough: bool

    @property
    def burning(self) -> bool:
        return (
            self.enough
            and self.long is not None
            and self.short is not None
            and self.long >= self.factor
            and self.short >= self.factor
        )

    @property
    def over(self) -> bool:
        """Whether neither window burns so fast any more; a window in which nothing was counted doesn't."""
        return all(rate is None or rate < self.factor for rate in (self.short, self.long))


def rate(bad: int, of: int, budget: Fraction) -> Fraction | None:
    """Return how fast a budget (the share that may go wrong) burns; None when nothing was counted."""
    return Fraction(bad, of) / budget if of else None


def of_availability(rule: Rule, short: Counts, long: Counts, objective: Decimal, window_days: int) -> Burn:
    """Return the burn of an availability in percent; both windows are judged by what the long one has enough of."""
    budget, factor = 1 - Fraction(objective) / 100, rule.factor(window_days)
    source = long.source
    if source is None:
        return Burn(None, None, factor, False)
    return Burn(rate(*short.bad_of(source), budget), rate(*long.bad_of(source), budget), factor, True)


def of_latency(rule: Rule, signal: Signal, short: tuple[int, int], long: tuple[int, int], window_days: int) -> Burn:
    """Return the burn of a latency objective, of (slow, all) answers of both windows.

    A p50 has half of all answers for its budget: no burn is fast enough for an alert of it.
    """
    budget = 1 - QUANTILES[signal]
    return Burn(rate(*short, budget), rate(*long, budget), rule.factor(window_days), long[1] >= LEAST_CALLS)


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done about an alert, and since when an open one has been quiet."""

    do: Literal["nothing", "open", "close"]
    quiet_since: datetime | None = None


def step(rule: Rule, burn: Burn, now: datetime, *, is_open: bool, quiet_since: datetime | None) -> Step:
    """Decide about one alert: it opens at once, and closes when it has been quiet for its short window.

    Between burning and over it stays as it is, so that an incident with pauses is one alert.
    """
    if not is_open:
        return Step("open") if burn.burning else Step("nothing")
    if not burn.over:
        return Step("nothing")
    since = quiet_since or now
    return Step("close") if now - since >= rule.short else Step("nothing", since)

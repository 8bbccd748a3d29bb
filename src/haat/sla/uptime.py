"""When a listing is suspended for its uptime, and when it may come back. Pure, its time is given.

Suspension is the last resort: it needs a day below nine tenths, a failure that has lasted and still goes on, and more
than one witness. What comes back is judged anew, and stays away longer each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from fractions import Fraction

from haat.sla.model import LEAST_PROBES, Counts

LEAST_UPTIME = Fraction(9, 10)
DAY, RECENT, LATEST = timedelta(hours=24), timedelta(minutes=30), timedelta(minutes=5)
LEAST_MINUTES = 15
"""In so many minutes of the last half hour it must have been found down: a burst of failures is no outage."""
LEAST_CALLERS = 2
"""One caller's failing calls suspend nobody, unless probes fail as well."""
FIRST_HOLD, LONGEST_HOLD = timedelta(minutes=30), timedelta(hours=24)
REMEMBERED = timedelta(days=7)
"""Suspensions of so many days count when the next hold is measured."""


def uptime(counts: Counts) -> Fraction | None:
    """Return the share of calls for which the endpoint was there; by probes where traffic is too small, else None."""
    if counts.source is None:
        return None
    if counts.source == "traffic":
        return 1 - Fraction(counts.down, counts.calls)
    return 1 - Fraction(counts.probes_bad, counts.probes)


def is_down(day: Counts, recent: Counts, latest: Counts, minutes: int, callers: int) -> bool:
    """Tell whether a listing is to be suspended.

    ``day``, ``recent`` and ``latest`` are the last 24 hours, half hour and five minutes, since it came back if it was
    suspended before; in ``minutes`` of the half hour something found it down, and ``callers`` organisations did.
    """
    whole = uptime(day)
    if whole is None or whole >= LEAST_UPTIME or minutes < LEAST_MINUTES:
        return False
    probes_fail = _below(recent.probes_bad, recent.probes) and (
        not latest.probes or _below(latest.probes_bad, latest.probes)
    )
    if day.source == "probes":
        return probes_fail
    calls_fail = _below(recent.down, recent.calls) and (not latest.calls or _below(latest.down, latest.calls))
    return calls_fail and (callers >= LEAST_CALLERS or probes_fail)


def _below(bad: int, of: int) -> bool:
    return of > 0 and 1 - Fraction(bad, of) < LEAST_UPTIME


def hold(earlier: int) -> timedelta:
    """Return how long a listing stays suspended at least, after so many earlier times in a week."""
    return min(LONGEST_HOLD, FIRST_HOLD * (1 << min(earlier, 10)))


def is_back(probes: Sequence[bool], suspended_at: datetime, now: datetime, earlier: int) -> bool:
    """Tell whether a suspended listing opens again: its hold is over and its newest probes were all good.

    ``probes`` are those since it was suspended, the newest first.
    """
    newest = probes[:LEAST_PROBES]
    return now - suspended_at >= hold(earlier) and len(newest) == LEAST_PROBES and all(newest)

"""Whether and when a call goes again: pure, its time and its chance are given.

A call that may have been executed is not repeated unless its listing declares that harmless: a
repeated execution would be a second sale. What may be repeated is bounded threefold, so that retries
never become the load that keeps a provider down: attempts a call, a budget a service, a random wait.
"""

from __future__ import annotations

from haat.gateway.clock import SECOND

MAX_ATTEMPTS = 3
BASE_US = 50_000
LONGEST_US = SECOND
SAFE_METHODS = frozenset({b"GET", b"HEAD", b"OPTIONS"})

SHARE_OF_CALLS = 10
"""One retry for so many calls …"""
PER_SECOND = 3
"""… and so many a second besides, for services that are seldom called."""
MOST_SAVED = 100


class RetryBudget:
    """Tokens of one service: filled by its calls and by time, each retry takes one.

    Filled only when it is asked, from the number of calls so far: a call that goes well pays nothing.
    """

    __slots__ = ("_calls", "_microtokens", "_since", "spent")

    def __init__(self, now: int, calls: int = 0) -> None:
        self.spent: int = 0
        self._microtokens = 10 * PER_SECOND * SECOND
        self._since, self._calls = now, calls

    def left(self, now: int, calls: int) -> int:
        """Return how many retries there is room for; ``calls`` counts the service's calls ever."""
        filled = (now - self._since) * PER_SECOND + (calls - self._calls) * SECOND // SHARE_OF_CALLS
        self._microtokens = min(MOST_SAVED * SECOND, self._microtokens + max(0, filled))
        self._since, self._calls = now, calls
        return self._microtokens // SECOND

    def spend(self, now: int, calls: int) -> bool:
        """Take a token; return False when there is none."""
        if not self.left(now, calls):
            return False
        self._microtokens -= SECOND
        self.spent += 1
        return True


def wait(attempts: int, left_us: int, retry_after_us: int, draw: float) -> int | None:
    """Return the microseconds to wait before another attempt, None when the call's time is too short.

    ``attempts`` were made so far, ``left_us`` remain until the call's deadline, ``draw`` lies in [0, 1).
    The wait is exponential with full jitter, and not below what the provider asked for.
    """
    ceiling = min(LONGEST_US, BASE_US << attempts - 1)
    pause = max(int(ceiling * draw), retry_after_us)
    return pause if pause < left_us else None

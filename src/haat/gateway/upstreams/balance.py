"""Health of an endpoint that has siblings, judged by its last calls: pure, its time is given.

The breaker knows only whether an endpoint answers at all. One that fails every fifth call never
opens it, and still its callers would rather be elsewhere: such an outlier is ejected for a while.
A verdict needs a sample: fewer than `SAMPLE` calls eject nobody.
"""

from __future__ import annotations

from haat.gateway.clock import SECOND

SAMPLE = 100
FAILED_OF_SAMPLE = 20
EJECT_US = 30 * SECOND
LONGEST_EJECTION_US = 300 * SECOND
_ALL = (1 << SAMPLE) - 1


class Health:
    """The last `SAMPLE` calls as bits, 1 for a failure. Times are microseconds of one clock."""

    __slots__ = ("_calls", "_window", "ejected_until", "ejections")

    def __init__(self) -> None:
        self.ejected_until: int = 0
        """0 while it takes part."""
        self.ejections: int = 0
        """How often in a row; each one lasts longer than the one before."""
        self._window: int = 0
        self._calls: int = 0

    @property
    def failures(self) -> int:
        """Failures among the calls looked at."""
        return self._window.bit_count()

    def succeeded(self) -> None:
        self._window = self._window << 1 & _ALL
        self._calls += 1
        if self.ejections and self._calls >= SAMPLE and not self._window:
            self.ejections = 0

    def failed(self, now: int) -> bool:
        """Take in a failure; return whether the endpoint is ejected by it."""
        self._window = (self._window << 1 | 1) & _ALL
        self._calls += 1
        if self.ejected_until or self._calls < SAMPLE or self._window.bit_count() < FAILED_OF_SAMPLE:
            return False
        self.ejections += 1
        self.ejected_until = now + min(LONGEST_EJECTION_US, EJECT_US * self.ejections)
        return True

    def restore(self) -> None:
        """Let it take part again, judged anew."""
        self.ejected_until = self._window = self._calls = 0

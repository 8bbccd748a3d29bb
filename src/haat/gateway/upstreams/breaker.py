"""The circuit breaker of one endpoint: pure, its time is given.

Closed, calls pass. After `THRESHOLD` failures without a success between them it opens: calls are
refused at once, so that nobody waits for what isn't there and the endpoint gets room to recover.
When its time is over it is half open: one call goes as a probe, and what becomes of that one closes
it or opens it again for twice as long. What other calls report meanwhile began before and says nothing.
"""

from __future__ import annotations

from haat.gateway.clock import SECOND

THRESHOLD = 5
OPEN_US = 60 * SECOND
LONGEST_US = 600 * SECOND


class Breaker:
    """Times are microseconds of one clock. A ticket is whatever tells one call from the others."""

    __slots__ = ("_delay", "_probe", "failures", "open_until", "opened")

    def __init__(self) -> None:
        self.failures: int = 0
        """Failures since the last success; who succeeds sets it back only when it isn't 0."""
        self.open_until: int = 0
        """0 while closed: the one thing that a call looks at."""
        self.opened: int = 0
        """How often it has opened."""
        self._delay: int = OPEN_US
        self._probe: object = None

    def state(self, now: int) -> str:
        """Return ``closed``, ``open`` or ``half_open``."""
        if not self.open_until:
            return "closed"
        return "open" if now < self.open_until else "half_open"

    def ready(self, now: int) -> bool:
        """Tell whether `admit` would let a call pass."""
        return not self.open_until or (now >= self.open_until and self._probe is None)

    def admit(self, now: int, ticket: object) -> bool:
        """Let a call pass or not; when half open the first to ask becomes the probe."""
        if not self.open_until:
            return True
        if now < self.open_until or self._probe is not None:
            return False
        self._probe = ticket
        return True

    def succeeded(self, ticket: object) -> bool:
        """Take in that a call was answered; return whether this closed the breaker."""
        if not self.open_until:
            self.failures = 0
            return False
        if ticket is not self._probe:
            return False
        self.open_until = self.failures = 0
        self._delay = OPEN_US
        self._probe = None
        return True

    def failed(self, now: int, ticket: object) -> bool:
        """Take in that a call failed; return whether this opened the breaker, again or for the first time."""
        if not self.open_until:
            self.failures += 1
            if self.failures < THRESHOLD:
                return False
        elif ticket is self._probe:
            self.failures += 1
            self._delay = min(LONGEST_US, self._delay * 2)
            self._probe = None
        else:
            return False
        self.open_until = now + self._delay
        self.opened += 1
        return True

    def released(self, ticket: object) -> None:
        """Take in that a call ended without saying anything about the endpoint: another may probe."""
        if ticket is self._probe:
            self._probe = None

    def retry_after(self, now: int) -> int:
        """Return whole seconds until it is worth asking again, at least 1."""
        return max(1, -((now - self.open_until) // SECOND))

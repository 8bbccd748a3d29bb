"""Rate windows, monthly quota and concurrency of one application at one service. No I/O, no clock.

"60 a minute" means at most 60 in any 60 seconds. A call is admitted by all of its limits or by
none. Times are microseconds since the epoch and are given by the caller; when they step back, the
latest time seen counts.

Up to `EXACT_LIMIT` a window keeps the time of each admission. Above, it keeps 1,024 counters and
lets a counter go only when its youngest admission has left the window: it never admits more than
the limit in any span, and gives places back at most a thousandth of the span late.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

import msgspec

from haat.kernel.clock import month_of

SECOND = 1_000_000
EXACT_LIMIT = 16_384
_BUCKETS = 1024
_NO_LIMIT = (1 << 62) - 1


class PlanLimits(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a plan allows, in requests; None is unlimited."""

    per_minute: int | None = None
    per_hour: int | None = None
    per_day: int | None = None
    quota_per_month: int | None = None
    max_concurrent: int | None = None


class Refusal(NamedTuple):
    """Why a call is not admitted."""

    limit: str
    """``minute``, ``hour``, ``day``, ``month`` or ``concurrent``."""
    quota: int
    remaining: int
    reset_seconds: int
    """Whole seconds, rounded up, until a further call may pass."""


class Standing(NamedTuple):
    """The tightest limit after an admission."""

    limit: str
    quota: int
    remaining: int
    reset_seconds: int


class Window(Protocol):
    """At most ``limit`` admissions in any ``span``."""

    limit: int
    span: int
    size: int
    wakes: int
    """Until then `expire` would change nothing."""

    def expire(self, now: int) -> int:
        """Forget what has left the window; return how many admissions remain in it."""
        ...

    def add(self, now: int, count: int = 1) -> None:
        """Count admissions at the time that `expire` was just given."""
        ...

    def frees_at(self) -> int:
        """Return when the next place becomes free; 0 when nothing is in the window."""
        ...

    def entries(self) -> list[tuple[int, int]]:
        """Return (time, count) of what is in the window, oldest first, never earlier than it was."""
        ...


class ExactWindow:
    """A ring of the times of admissions, as large as was needed so far."""

    __slots__ = ("_head", "_times", "limit", "size", "span", "wakes")

    def __init__(self, limit: int, span: int) -> None:
        self.limit, self.span, self.size, self.wakes = limit, span, 0, _NO_LIMIT
        self._times = array("q")
        self._head = 0

    def expire(self, now: int) -> int:
        if self.size:
            times, head, size, edge = self._times, self._head, self.size, now - self.span
            while size and times[head] <= edge:
                head += 1
                if head == len(times):
                    head = 0
                size -= 1
            self._head, self.size = head, size
            self.wakes = times[head] + self.span if size else _NO_LIMIT
        return self.size

    def add(self, now: int, count: int = 1) -> None:
        for _ in range(count):
            capacity = len(self._times)
            if self.size == capacity:
                self._grow(max(8, 2 * capacity))
                capacity = len(self._times)
            self._times[(self._head + self.size) % capacity] = now
            if not self.size:
                self.wakes = now + self.span
            self.size += 1

    def _grow(self, capacity: int) -> None:
        ordered = self._times[self._head :] + self._times[: self._head]
        ordered.extend([0] * (capacity - len(ordered)))
        self._times, self._head = ordered, 0

    def frees_at(self) -> int:
        if not self.size:
            return 0
        surplus = max(0, self.size - self.limit)  # more than the limit are in it when the limit was lowered
        return self._times[(self._head + surplus) % len(self._times)] + self.span

    def entries(self) -> list[tuple[int, int]]:
        ordered = self._times[self._head :] + self._times[: self._head]
        return [(at, 1) for at in ordered[: self.size]]


class CoarseWindow:
    """Counters of a thousandth of the span each: bounded memory for huge limits."""

    __slots__ = ("_counts", "_first", "_last", "_width", "limit", "size", "span", "wakes")

    def __init__(self, limit: int, span: int) -> None:
        self.limit, self.span, self.size, self.wakes = limit, span, 0, 0
        self._width = -(-span // _BUCKETS)
        self._counts = array("q", [0]) * (_BUCKETS + 1)
        self._first = 0  # no bucket before this one holds anything
        self._last = 0

    def expire(self, now: int) -> int:
        present = now // self._width
        gone = present - self._last
        if gone > 0:
            counts = self._counts
            if gone > _BUCKETS:
                self._counts = array("q", [0]) * (_BUCKETS + 1)
                self.size = 0
            else:
                for bucket in range(self._last + 1, present + 1):
                    place = bucket % (_BUCKETS + 1)
                    self.size -= counts[place]
                    counts[place] = 0
            self._last = present
            self.wakes = (present + 1) * self._width
        return self.size

    def add(self, now: int, count: int = 1) -> None:
        self._counts[self._last % (_BUCKETS + 1)] += count
        self.size += count

    def frees_at(self) -> int:
        if not self.size:
            return 0
        bucket = max(self._first, self._last - _BUCKETS)
        while not self._counts[bucket % (_BUCKETS + 1)]:
            bucket += 1
        self._first = bucket
        return (bucket + _BUCKETS + 1) * self._width

    def entries(self) -> list[tuple[int, int]]:
        found = []
        for bucket in range(self._last - _BUCKETS, self._last + 1):
            count = self._counts[bucket % (_BUCKETS + 1)]
            if count:
                found.append(((bucket + 1) * self._width - 1, count))
        return found


def make_window(limit: int, span: int) -> Window:
    return ExactWindow(limit, span) if limit <= EXACT_LIMIT else CoarseWindow(limit, span)


SPANS = (("minute", 60 * SECOND), ("hour", 3600 * SECOND), ("day", 86_400 * SECOND))


class Kept(msgspec.Struct, frozen=True, gc=False):
    """What of an allowance is kept on disk: the quota used, and how full each window was."""

    application: str
    service: str
    month_start: int
    used: int
    sizes: dict[str, int]


class Allowance:
    """What one application may still do at one service.

    ``zone`` is the IANA zone of the organisation, in which its months begin.
    """

    __slots__ = (
        "_latest",
        "_windows",
        "in_flight",
        "limits",
        "month_end",
        "month_start",
        "policy",
        "policy_line",
        "reserved",
        "used",
        "zone",
    )

    def __init__(self, limits: PlanLimits, zone: str, now: int) -> None:
        self.limits = limits
        self.zone = zone
        self.in_flight = 0
        self.used = 0
        self.reserved = 0
        self._latest = now
        self._windows: list[tuple[str, Window]] = []
        self._begin_month(now)
        self.change(limits)

    def change(self, limits: PlanLimits) -> None:
        """Go over to other limits; what was done under the old ones still counts."""
        if self._windows and limits == self.limits:
            self.limits = limits
            return
        widest = self._windows[-1][1].entries() if self._windows else []
        present = {name: window.entries() for name, window in self._windows}
        self.limits = limits
        self._windows = []
        for (name, span), limit in zip(SPANS, (limits.per_minute, limits.per_hour, limits.per_day), strict=True):
            if limit is not None:
                window = make_window(limit, span)
                _fill(window, present.get(name, widest), self._latest)
                self._windows.append((name, window))
        self._write_policy()

    def admit(self, now: int, amount: int = 1) -> Refusal | None:
        """Admit one call, reserving ``amount`` of the month's quota, or say which limit forbids it.

        Each admission is answered by one `settle`, with ``month_start`` as it is after the admission.
        """
        if now < self._latest:
            now = self._latest
        self._latest = now
        limits = self.limits
        for name, window in self._windows:
            if (window.expire(now) if now >= window.wakes else window.size) >= window.limit:
                return Refusal(name, window.limit, 0, _seconds(window.frees_at() - now))
        quota = limits.quota_per_month
        if now >= self.month_end:
            self._begin_month(now)
            self._write_policy()
        if quota is not None and self.used + self.reserved + amount > quota:
            remaining = max(0, quota - self.used - self.reserved)
            return Refusal("month", quota, remaining, _seconds(self.month_end - now))
        most = limits.max_concurrent
        if most is not None and self.in_flight >= most:
            return Refusal("concurrent", most, 0, 1)
        for _, window in self._windows:
            window.add(now)
        self.in_flight += 1
        self.reserved += amount
        return None

    def settle(self, month_start: int, reserved: int, used: int) -> None:
        """End one admitted call: its reservation becomes what was really used, 0 to release it."""
        self.in_flight -= 1
        if month_start == self.month_start:  # a call that outlived its month belongs to that one
            self.reserved -= reserved
            self.used += used

    def standing(self, now: int) -> Standing | None:
        """Return the limit with the least remaining, or None for an unlimited plan."""
        if now < self._latest:
            now = self._latest
        tightest: tuple[str, Window] | None = None
        least = _NO_LIMIT
        for pair in self._windows:
            left = pair[1].limit - pair[1].size
            if left < least:
                tightest, least = pair, left
        quota = self.limits.quota_per_month
        if quota is not None and (left := quota - self.used - self.reserved) < least:
            return Standing("month", quota, max(0, left), _seconds(self.month_end - now))
        if tightest is None:
            return None
        name, window = tightest
        return Standing(name, window.limit, max(0, least), _seconds(window.frees_at() - now))

    def restore(self, now: int, month_used: int, admissions: Mapping[str, list[tuple[int, int]]]) -> None:
        """Count what is known from before a restart: by window, (time, count) in ascending order."""
        self._latest = max(now, self._latest)
        self.used += month_used
        widest = next((admissions[name] for name, _ in reversed(SPANS) if name in admissions), [])
        for name, window in self._windows:
            _fill(window, admissions.get(name, widest), self._latest)

    def kept(self, application: str, service: str, now: int) -> Kept:
        """Return what a successor must know if it can't ask anybody else."""
        self._latest = max(now, self._latest)
        sizes = {name: window.expire(self._latest) for name, window in self._windows}
        return Kept(application, service, self.month_start, self.used + self.reserved, sizes)

    def _begin_month(self, now: int) -> None:
        month = month_of(datetime.fromtimestamp(now / SECOND, UTC), self.zone)
        self.month_start = int(month.start.timestamp()) * SECOND
        self.month_end = int(month.end.timestamp()) * SECOND
        self.used = 0
        self.reserved = 0

    def _write_policy(self) -> None:
        """Prepare the RateLimit-Policy header: it changes with the plan and the length of the month."""
        parts = [f'"{name}";q={window.limit};w={window.span // SECOND}' for name, window in self._windows]
        if self.limits.quota_per_month is not None:
            parts.append(f'"month";q={self.limits.quota_per_month};w={(self.month_end - self.month_start) // SECOND}')
        self.policy = ", ".join(parts)
        self.policy_line = f"RateLimit-Policy: {self.policy}\r\n".encode("ascii")


def _fill(window: Window, entries: Iterable[tuple[int, int]], now: int) -> None:
    for at, count in entries:
        if now - window.span < at:
            window.expire(min(at, now))
            window.add(min(at, now), count)
    window.expire(now)


def _seconds(microseconds: int) -> int:
    return max(1, -(-microseconds // SECOND))


class Limits:
    """The allowances of all applications, made when they are first needed."""

    def __init__(self) -> None:
        self._allowances: dict[tuple[str, str], Allowance] = {}
        self._before: dict[tuple[str, str], tuple[int, int, Mapping[str, list[tuple[int, int]]]]] = {}

    def of(self, application: str, service: str, limits: PlanLimits, zone: str, now: int) -> Allowance:
        """Return the allowance of an application at a service, under the plan it has now."""
        key = (application, service)
        allowance = self._allowances.get(key)
        if allowance is None:
            allowance = self._allowances[key] = Allowance(limits, zone, now)
            before = self._before.pop(key, None)
            if before is not None:
                month_start, used, admissions = before
                allowance.restore(now, used if month_start == allowance.month_start else 0, admissions)
        elif allowance.limits is not limits:
            allowance.change(limits)
        return allowance

    def remember(
        self,
        application: str,
        service: str,
        month_start: int,
        used: int,
        admissions: Mapping[str, list[tuple[int, int]]],
    ) -> None:
        """Keep what recovery found until the application's next call."""
        self._before[application, service] = (month_start, used, admissions)

    def kept(self, now: int) -> list[Kept]:
        """Return the state of every allowance, and of those that nobody has asked for since a restart."""
        spans = dict(SPANS)
        untouched = [
            Kept(
                *key,
                month_start,
                used,
                {
                    name: sum(count for at, count in entries if at > now - spans[name])
                    for name, entries in admissions.items()
                },
            )
            for key, (month_start, used, admissions) in self._before.items()
        ]
        return untouched + [allowance.kept(*key, now) for key, allowance in self._allowances.items()]

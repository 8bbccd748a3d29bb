"""Everything that can keep an authorised call from being made: rates, quotas, concurrency, the provider's pace.

A call is admitted by all of its limits or by none. What it may use of a quota is reserved with the
admission and settled to what it used. All counts lie in the cells of a record (`haat.gateway.limits.windows`,
`haat.gateway.limits.counts`), which several gateway processes may share: then everything here that changes them
runs under one lock, so that N processes admit exactly what one would.

The order of stores matters where a process can be killed between two of them: at each moment the cells
say that as much as is true has been used, or more.
"""

from __future__ import annotations

from typing import Final

from haat.gateway.limits.counts import (
    DAY,
    DAY_END,
    FLYING,
    MONTH,
    MONTH_END,
    PERIOD,
    SLOT_CELLS,
    SLOT_FLYING,
    SLOT_RESERVED_DAY,
    SLOT_RESERVED_MONTH,
    SLOT_UNIT,
    SLOTS,
    Counts,
)
from haat.gateway.limits.faces import Face, faces_of
from haat.gateway.limits.pace import Pace
from haat.gateway.limits.periods import day_and_month
from haat.gateway.limits.plan import MICRO, PlanLimits, Refusal, Standing
from haat.gateway.limits.windows import COUNT, FAR, SECOND, TAT, History, Rate, Windows, in_span, merge, replay
from haat.usage.model import UNITS

_MINUTE, _HOUR, _DAY = range(1, 4)  # their places among the spans
_MONTHS: Final = 20  # a period's number: months in the upper bits, days in the lower
_TICKET: Final = 5  # below it in a ticket: whether the day counts, and the unit


class Allowance(Windows):
    """What one application may still do at one service.

    ``zone`` is the IANA zone of the organisation, in which its days and months begin; ``started_at`` is
    when it subscribed, in microseconds: where a plan's anniversaries count from.
    """

    __slots__ = ("_burst_face", "_counts", "_daily", "_day", "_day_end", "_day_face", "_day_most", "_day_quota",
                 "_faces", "_faces_differ", "_flying", "_month", "_month_end", "_month_face", "_month_most",
                 "_month_quota", "_most", "_pace", "_reserved", "_reserved_day", "_shared", "_slot",
                 "_started_at", "_unit", "_zone", "in_requests", "is_hard", "key", "limits", "period",
                 "policy_line", "unit")  # fmt: skip

    def __init__(self, counts: Counts, key: str, limits: PlanLimits, zone: str, now: int, started_at: int = 0) -> None:
        self.key = key
        self.limits = limits
        self.unit = limits.quota_unit
        self.in_requests = limits.quota_unit == "requests"
        self.is_hard = not limits.overage
        self.period = 0
        """A ticket for `settle`: to which month, day and unit a reservation made now belongs."""
        self.policy_line = b""
        self._counts = counts
        self._shared = counts.lock is not None
        self._slot = SLOTS + SLOT_CELLS * counts.slot
        self._zone, self._started_at = zone, started_at
        self._pace: Pace | None = None
        self._month_end = self._day_end = 0
        self._burst_face: Face | None = None
        self._month_face: Face | None = None
        self._day_face: Face | None = None
        rates = _rates(limits)
        super().__init__(rates, counts.fitting(key, rates, now), now)
        self._follow(limits)
        self._wake(now)

    # --- the plan ------------------------------------------------------------------------------

    def change(self, limits: PlanLimits, zone: str, now: int, started_at: int = 0) -> None:
        """Go over to other limits; what was done under the old ones still counts."""
        if limits == self.limits and zone == self._zone and started_at == self._started_at:
            self.limits = limits
            return
        self._zone, self._started_at = zone, started_at
        self._month_end = self._day_end = 0
        self._rates = _rates(limits)
        self.bind(self._counts.fitting(self.key, self._rates, max(now, self._latest)))
        self._follow(limits)
        self._wake(max(now, self._latest))

    def _follow(self, limits: PlanLimits) -> None:
        self.limits = limits
        self.unit = limits.quota_unit
        self.in_requests = limits.quota_unit == "requests"
        self._unit = UNITS.index(limits.quota_unit)
        self._month, self._day = MONTH + self._unit, DAY + self._unit
        self._month_quota = FAR if limits.quota_per_month is None else limits.quota_per_month * MICRO
        self._day_quota = FAR if limits.quota_per_day is None else limits.quota_per_day * MICRO
        self._daily = limits.quota_per_day is not None
        self.is_hard = not limits.overage
        self._month_most = FAR if limits.overage else self._month_quota
        self._day_most = FAR if limits.overage else self._day_quota
        self._most = FAR if limits.max_concurrent is None else limits.max_concurrent
        self._faces_differ = limits.quota_unit != "requests" and (self._daily or limits.quota_per_month is not None)
        burst, per_minute = limits.burst or 0, limits.per_minute or 0
        self.set_burst(burst if per_minute else 0, per_minute)
        self._flying = self._slot + SLOT_FLYING
        self._reserved = self._slot + SLOT_RESERVED_MONTH
        self._reserved_day = self._slot + SLOT_RESERVED_DAY
        cells = self._cells
        if cells[self._slot + SLOT_UNIT] != self._unit:  # what is reserved in the old unit stays counted there
            cells[self._reserved] = cells[self._reserved_day] = 0
            cells[self._slot + SLOT_UNIT] = self._unit

    def follow_pace(self, pace: Pace | None) -> None:
        """Ask the provider's pace, too."""
        self._pace = pace

    # --- a call --------------------------------------------------------------------------------

    def admit(self, now: int, amount: int = MICRO) -> Refusal | None:
        """Admit one call, reserving ``amount`` millionths of the quota's unit, or say which limit forbids it.

        Each admission is answered by one `settle`, with ``period`` as it is after the admission.
        """
        if now < self._latest:
            now = self._latest
        else:
            self._latest = now
        if now >= self._wakes:
            self._wake(now)
        cells = self._cells
        count = cells[COUNT]
        if count >= self._ceiling:
            rate, frees = self.full(count)
            return _refusal(rate.face, 0, frees - now)
        tat = 0
        if self._interval:
            tat = cells[TAT]
            if tat < now * 1000:
                tat = now * 1000
            elif tat - now * 1000 > self._tolerance:
                assert self._burst_face is not None
                return _refusal(self._burst_face, 0, -((self._tolerance - tat) // 1000) - now)
        month = cells[self._month] + amount
        if month > self._month_most:
            assert self._month_face is not None
            return _refusal(self._month_face, self._month_quota - month + amount, self._month_end - now)
        day = 0
        if self._daily:
            day = cells[self._day] + amount
            if day > self._day_most:
                assert self._day_face is not None
                return _refusal(self._day_face, self._day_quota - day + amount, self._day_end - now)
        flying = cells[FLYING]
        if flying >= self._most:
            return Refusal("concurrent", self._most, 0, 1)
        if self._pace is not None and (frees := self._pace.take(now)):
            return Refusal("provider", self._pace.limit, 0, _seconds(frees - now))
        # All agree. The total goes up before the slot's share, which a successor gives back.
        cells[FLYING] = flying + 1
        cells[self._month] = month
        cells[self._reserved] += amount
        if self._daily:
            cells[self._day] = day
            cells[self._reserved_day] += amount
        if self._shared:
            cells[self._flying] += 1
        if self._interval:
            cells[TAT] = tat + self._interval
        if self._capacity:
            cells[self._ring + (count & self._mask)] = now
        cells[COUNT] = count + 1
        return None

    def extend(self, period: int, more: int) -> Refusal | None:
        """Reserve ``more`` for a call that was admitted when less was known of it, or say which quota forbids it.

        A call that outlived its period since then belongs to that one, and reserves nothing here.
        """
        cells = self._cells
        if period != self.period:
            return None
        month, day = cells[self._month] + more, 0
        if month > self._month_most:
            assert self._month_face is not None
            return _refusal(self._month_face, self._month_quota - month + more, self._month_end - self._latest)
        if self._daily:
            day = cells[self._day] + more
            if day > self._day_most:
                assert self._day_face is not None
                return _refusal(self._day_face, self._day_quota - day + more, self._day_end - self._latest)
        cells[self._month] = month
        cells[self._reserved] += more
        if self._daily:
            cells[self._day] = day
            cells[self._reserved_day] += more
        return None

    def settle(self, period: int, reserved: int, used: int) -> None:
        """End one admitted call: its reservation becomes what was really used, 0 to release it."""
        cells = self._cells
        cells[FLYING] -= 1
        if self._shared:
            cells[self._flying] -= 1
        if period != self.period:
            self._settle_late(period, reserved, used)
            return
        cells[self._reserved] -= reserved  # first: a successor must not give back what is given back here
        if used != reserved:
            cells[self._month] += used - reserved
        if self._daily:
            cells[self._reserved_day] -= reserved
            if used != reserved:
                cells[self._day] += used - reserved

    def give_back(self, period: int, used: int) -> None:
        """Take back what a call was settled to, because it could not be recorded."""
        self._settle_late(period, 0, -used)

    def _settle_late(self, period: int, reserved: int, used: int) -> None:
        """Settle a call that outlived its day, its month or its plan: it belongs to those."""
        if period & 15 != self._unit:
            return
        cells, begun = self._cells, period >> _TICKET
        if begun >> _MONTHS == cells[PERIOD] >> _MONTHS:
            cells[self._reserved] -= reserved
            cells[self._month] += used - reserved
        if period >> 4 & 1 and begun & ((1 << _MONTHS) - 1) == cells[PERIOD] & ((1 << _MONTHS) - 1):
            cells[self._reserved_day] -= reserved
            cells[self._day] += used - reserved

    # --- what is said about it -----------------------------------------------------------------

    def headers(self, now: int) -> bytes:
        """Return the complete rate limit header lines, empty for an unlimited plan."""
        found = self._tightest(now)
        if found is None:
            return b""
        face, left, seconds = found
        lines = face.head % (left, seconds, left, seconds)
        return lines + self._quota_line(now) if self._faces_differ else lines

    def _quota_line(self, now: int) -> bytes:
        """Return a further member of RateLimit: a quota in another unit than requests can't be compared with rates."""
        face, left, ends = self._month_face, self._month_quota - self._cells[self._month], self._month_end
        if self._day_face is not None and (day := self._day_quota - self._cells[self._day]) < left:
            face, left, ends = self._day_face, day, self._day_end
        if face is None or not (self._rates or self._interval):
            return b""
        return b'RateLimit: "%b";r=%d;t=%d\r\n' % (face.name.encode(), max(0, left) // MICRO, _seconds(ends - now))

    def standing(self, now: int) -> Standing | None:
        """Return the limit with the least remaining, or None for an unlimited plan."""
        found = self._tightest(now)
        if found is None:
            return None
        face, left, seconds = found
        return Standing(face.name, face.quota, left, seconds, face.unit)

    def lines_of(self, name: str, left: int, seconds: int) -> bytes:
        """Return the header lines that go with a refusal by a rate or a quota; for others, the present standing."""
        for face in self._faces.all:
            if face.name == name:
                return face.head % (left, seconds, left, seconds)
        return self.headers(self._latest)

    def _tightest(self, now: int) -> tuple[Face, int, int] | None:
        """Return the limit with the least remaining, what remains, and the seconds until it is more."""
        if now < self._latest:
            now = self._latest
        else:
            self._latest = now
        if now >= self._wakes:
            self._wake(now)
        cells = self._cells
        face: Face | None = None
        left, resets = FAR, 0
        rate = self._tight
        if rate is not None:
            count = cells[COUNT]
            face, left = rate.face, self._ceiling - count
            resets = rate.frees
            if not resets or left < 0:
                resets = self.resets(rate, count, now)
        if self._interval:
            ahead = max(0, cells[TAT] - now * 1000)
            most = (self._tolerance + self._interval - ahead) // self._interval
            if most < left:
                face, left, resets = self._burst_face, most, now + ahead % self._interval // 1000
        if not self._faces_differ or face is None:
            most = (self._month_quota - cells[self._month]) // MICRO
            if most < left and self._month_face is not None:
                face, left, resets = self._month_face, most, self._month_end
            if self._daily:
                most = (self._day_quota - cells[self._day]) // MICRO
                if most < left:
                    face, left, resets = self._day_face, most, self._day_end
        if face is None:
            return None
        seconds = (resets - now + SECOND - 1) // SECOND
        return face, left if left > 0 else 0, seconds if seconds > 0 else 1

    # --- time ----------------------------------------------------------------------------------

    def _wake(self, now: int) -> None:
        """Let windows move on and days and months begin."""
        self.advance(now)
        if now >= self._month_end or now >= self._day_end:
            self._turn(now)
        self._wakes = min(self._wakes, self._month_end, self._day_end)
        self._take_ticket()

    def _take_ticket(self) -> None:
        self.period = self._cells[PERIOD] << _TICKET | (16 if self._daily else 0) | self._unit

    def _turn(self, now: int) -> None:
        """Begin the day and the month that contain ``now``, unless another process has done so.

        A period that is cut or drawn out by a change of plan or zone goes on with what was used in it.
        """
        cells = self._cells
        by_anniversary = self.limits.quota_reset == "anniversary"
        day, month = day_and_month(now, self._zone, self._started_at if by_anniversary else None)
        self._month_end, self._day_end = month.end, day.end
        if now >= cells[MONTH_END]:
            self._begin(1 << _MONTHS, SLOT_RESERVED_MONTH, MONTH)
        cells[MONTH_END] = self._month_end
        if now >= cells[DAY_END]:
            self._begin(1, SLOT_RESERVED_DAY, DAY)
        cells[DAY_END] = self._day_end
        self._draw_faces(month.seconds, day.seconds)

    def _begin(self, step: int, reserved: int, used: int) -> None:
        cells = self._cells
        cells[PERIOD] += step
        for slot in range(self._counts.slots):
            cells[SLOTS + SLOT_CELLS * slot + reserved] = 0
        for unit in range(len(UNITS)):
            cells[used + unit] = 0

    def _draw_faces(self, month_seconds: int, day_seconds: int) -> None:
        """Prepare the headers: they change with the plan and with the length of the month."""
        faces = faces_of(self.limits, month_seconds, day_seconds)
        self._faces = faces
        self._burst_face, self._day_face, self._month_face = faces.burst, faces.day, faces.month
        self.policy_line = faces.policy_line
        for rate, face in zip(self._rates, faces.rates, strict=True):
            rate.face = face

    # --- before and after a restart -------------------------------------------------------------

    def restore(self, now: int, month_used: int, day_used: int, admissions: list[History]) -> None:
        """Count what is known from before: millionths of the unit, accounts of the last admissions, finest first."""
        replay(self._cells, merge(admissions), now)
        self._cells[self._month] += month_used
        self._cells[self._day] += day_used
        self._latest = max(self._latest, now)
        self.bind(self._cells)

    def admitted(self, window: str, now: int) -> int:
        """Return how many were admitted in the last ``minute``, ``hour`` or ``day``, as far as the plan asks."""
        for rate in self._rates:
            if rate.name == window:
                return in_span(self._cells, rate.place, now)
        return 0

    @property
    def in_flight(self) -> int:
        """Calls admitted and not ended, over all processes."""
        return self._cells[FLYING]

    @property
    def reserved(self) -> int:
        """Whole units of this month's quota that calls in flight hold, over all processes."""
        cells = self._cells
        shares = [cells[SLOTS + SLOT_CELLS * slot + SLOT_RESERVED_MONTH] for slot in range(self._counts.slots)]
        return sum(shares) // MICRO

    @property
    def used(self) -> int:
        """Whole units of this month's quota that ended calls have used."""
        return self._cells[self._month] // MICRO - self.reserved


def _rates(limits: PlanLimits) -> list[Rate]:
    named = ((_MINUTE, limits.per_minute), (_HOUR, limits.per_hour), (_DAY, limits.per_day))
    return [Rate(place, limit) for place, limit in named if limit is not None]


def _refusal(face: Face, left: int, wait: int) -> Refusal:
    return Refusal(face.name, face.quota, max(0, left // MICRO), _seconds(wait), face.unit)


def _seconds(microseconds: int) -> int:
    return max(1, -(-microseconds // SECOND))

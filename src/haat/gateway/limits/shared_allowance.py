"""Allowances in cells that other processes change, too."""

from __future__ import annotations

from haat.gateway.limits.allowance import Allowance
from haat.gateway.limits.counts import END, Counts
from haat.gateway.limits.faces import Face
from haat.gateway.limits.plan import MICRO, PlanLimits, Refusal


class SharedAllowance(Allowance):
    """An allowance of which each change is made under the lock of all."""

    __slots__ = ("_let", "_take", "_version")

    def __init__(self, counts: Counts, key: str, limits: PlanLimits, zone: str, now: int, started_at: int = 0) -> None:
        assert counts.lock is not None
        self._take, self._let = counts.lock.take, counts.lock.let
        self._version = counts.version
        super().__init__(counts, key, limits, zone, now, started_at)

    def admit(self, now: int, amount: int = MICRO) -> Refusal | None:
        code = self._take()
        if code:
            self._counts.mend(code)
        try:
            counts = self._counts
            if counts.header[END] != counts.seen or counts.version != self._version:
                self._rebind()
            self.follow()
            if self._pace is not None:
                self._pace.follow()
            refusal = Allowance.admit(self, now, amount)
            self._take_ticket()
            return refusal
        finally:
            self._let()

    def extend(self, period: int, more: int) -> Refusal | None:
        self._counts.acquire()
        try:
            self._rebind()
            self._take_ticket()
            return Allowance.extend(self, period, more)
        finally:
            self._counts.release()

    def settle(self, period: int, reserved: int, used: int) -> None:
        code = self._take()
        if code:
            self._counts.mend(code)
        try:
            counts = self._counts
            if counts.header[END] != counts.seen or counts.version != self._version:
                self._rebind()
            self._take_ticket()
            Allowance.settle(self, period, reserved, used)
        finally:
            self._let()

    def give_back(self, period: int, used: int) -> None:
        self._counts.acquire()
        try:
            self._rebind()
            Allowance.give_back(self, period, used)
        finally:
            self._counts.release()

    def _tightest(self, now: int) -> tuple[Face, int, int] | None:
        if now < self._wakes:
            return Allowance._tightest(self, now)  # reads only, and what it reads may be a moment old
        self._counts.acquire()
        try:
            self._rebind()
            return Allowance._tightest(self, now)
        finally:
            self._counts.release()

    def change(self, limits: PlanLimits, zone: str, now: int, started_at: int = 0) -> None:
        self._counts.acquire()
        try:
            self._rebind()
            Allowance.change(self, limits, zone, now, started_at)
        finally:
            self._counts.release()

    def _rebind(self) -> None:
        """Look where another process may have moved the records."""
        counts, pace = self._counts, self._pace
        self._version = counts.look()
        cells = counts.find(self.key)
        if cells is not None:
            self.bind(cells)
        if pace is not None:
            cells = counts.find(pace.key)
            if cells is not None:
                pace.bind(cells)

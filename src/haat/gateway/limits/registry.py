"""The allowances of all applications, and the paces of all providers: made when they are first needed."""

from __future__ import annotations

from haat.gateway.limits.allowance import Allowance
from haat.gateway.limits.counts import Counts
from haat.gateway.limits.pace import Pace
from haat.gateway.limits.plan import MICRO, PlanLimits, Refusal, Standing
from haat.gateway.limits.shared_allowance import SharedAllowance
from haat.gateway.limits.windows import SECOND, History
from haat.kernel.errors import Overloaded

__all__ = ["MICRO", "SECOND", "Allowance", "Limits", "PlanLimits", "Refusal", "Standing"]


class Limits:
    """The allowances of all applications, made when they are first needed."""

    def __init__(self, counts: Counts | None = None) -> None:
        self.counts = counts if counts is not None else Counts()
        self._allowances: dict[tuple[str, str], Allowance] = {}
        self._paces: dict[str, Pace] = {}

    def of(
        self,
        application: str,
        service: str,
        limits: PlanLimits,
        zone: str,
        now: int,
        started_at: int = 0,
        max_per_second: int = 0,
    ) -> Allowance:
        """Return the allowance of an application at a service, under the plan it has now.

        ``max_per_second`` is what the provider takes from all callers together, 0 when that is not said.
        Raise Overloaded when the disk has no room for its record.
        """
        try:
            allowance = self._allowances.get((application, service))
            if allowance is None:
                allowance = self._make(f"{application}\n{service}", limits, zone, now, started_at)
                self._allowances[application, service] = allowance
            else:
                allowance.change(limits, zone, now, started_at)
            allowance.follow_pace(self._pace(service, max_per_second, now) if max_per_second else None)
        except OSError as error:
            raise Overloaded(f"The gateway can't count any further caller's limits: {error.strerror}.") from error
        return allowance

    def _make(self, key: str, limits: PlanLimits, zone: str, now: int, started_at: int) -> Allowance:
        counts = self.counts
        if counts.lock is None:
            return Allowance(counts, key, limits, zone, now, started_at)
        counts.acquire()
        try:
            counts.look()
            return SharedAllowance(counts, key, limits, zone, now, started_at)
        finally:
            counts.release()

    def takes(self, service: str, max_per_second: int, now: int) -> bool:
        """Take a place in a provider's second for a call that it executes instead of another; tell if there was one."""
        if not max_per_second:
            return True
        try:
            pace = self._pace(service, max_per_second, now)
        except OSError:
            return False  # it can't be counted
        counts = self.counts
        counts.acquire()
        try:
            counts.look()
            cells = counts.find(pace.key)
            if cells is not None:
                pace.bind(cells)
            return not pace.take(now)
        finally:
            counts.release()

    def _pace(self, service: str, limit: int, now: int) -> Pace:
        pace = self._paces.get(service)
        if pace is None or pace.limit != limit:
            counts = self.counts
            counts.acquire()
            try:
                counts.look()
                pace = self._paces[service] = Pace(counts, f"\n{service}", limit, now)
            finally:
                counts.release()
        return pace

    def restore(
        self,
        application: str,
        service: str,
        limits: PlanLimits,
        zone: str,
        now: int,
        started_at: int,
        month_used: int,
        day_used: int,
        admissions: list[History],
    ) -> None:
        """Count what recovery found from before the start: nobody else may be using the counts yet.

        Quantities are millionths of the plan's unit; ``admissions`` are accounts of the last admissions,
        the finest first (`haat.gateway.limits.windows.merge`). Raise OSError.
        """
        allowance = Allowance(self.counts, f"{application}\n{service}", limits, zone, now, started_at)
        allowance.restore(now, month_used, day_used, admissions)

"""What the gateway measured of each service in the last 24 hours: the proofs beside the prices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from haat.app import Platform
from haat.kernel.clock import Period
from haat.kernel.permissions import PLATFORM
from haat.usage.service import ServiceUsage

WINDOW = timedelta(hours=24)
_KEPT = timedelta(seconds=10)
_LEAST_SAMPLE = 100
_TROUBLE = Decimal("0.05")


@dataclass(frozen=True, slots=True)
class Proof:
    """A service in the last 24 hours. ``uptime`` is the share of its calls that its provider answered."""

    calls: int
    p95_ms: float | None
    uptime: Decimal | None

    @property
    def failed_share(self) -> Decimal:
        return 1 - self.uptime if self.uptime is not None else Decimal(0)

    @property
    def troubled(self) -> bool:
        """Whether so many calls failed that a buyer should know; a few calls prove nothing."""
        return self.calls >= _LEAST_SAMPLE and self.failed_share > _TROUBLE


def proof_of(usage: ServiceUsage) -> Proof:
    """Return what a service's usage proves; calls that were refused before it say nothing about it."""
    counts = usage.counts
    answered = counts.completed + counts.client_left
    reached = answered + counts.failed
    return Proof(reached, usage.p95_ms, Decimal(answered) / reached if reached else None)


@dataclass(slots=True)
class Proofs:
    """Keeps the last reading for ten seconds, so that a busy street costs one query, not one a visitor."""

    _read_at: datetime | None = None
    _found: Mapping[UUID, Proof] = field(default_factory=dict)

    async def of_all(self, platform: Platform) -> Mapping[UUID, Proof]:
        """Return the proof of each service that had a call."""
        now = platform.clock.now()
        if self._read_at is None or not timedelta(0) <= now - self._read_at < _KEPT:
            window = Period(now - WINDOW, now, "24 h")
            usage = await platform.usage.summary(PLATFORM, window)
            self._found = {one.service_id: proof_of(one) for one in usage if one.service_id}
            self._read_at = now
        return self._found

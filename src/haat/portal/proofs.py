"""What the gateway measured of each service in the last 24 hours: the proofs beside the prices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from haat.app import Platform
from haat.catalog.model import Listing
from haat.kernel.clock import Period
from haat.usage.service import ServiceUsage

WINDOW = timedelta(hours=24)
_KEPT = timedelta(seconds=10)
_MOST_KEPT = 10_000
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
    """Keeps each service's proof for ten seconds, so that a busy street costs a query a listing, not one a visitor."""

    _kept: dict[UUID, tuple[datetime, Proof | None]] = field(default_factory=dict)

    async def of(self, platform: Platform, listings: Iterable[Listing]) -> Mapping[UUID, Proof]:
        """Return the proof of each of these listings that had a call."""
        now = platform.clock.now()
        wanted = [listing.id for listing in listings]
        unread = [one for one in wanted if not self._is_fresh(one, now)]
        if unread:
            usage = await platform.usage.of_services(Period(now - WINDOW, now, "24 h"), unread)
            found = {one.service_id: proof_of(one) for one in usage if one.service_id}
            if len(self._kept) > _MOST_KEPT:
                self._kept.clear()
            self._kept |= {one: (now, found.get(one)) for one in unread}
        proofs = {one: self._kept[one][1] for one in wanted if one in self._kept}
        return {one: proof for one, proof in proofs.items() if proof is not None}

    def _is_fresh(self, service_id: UUID, now: datetime) -> bool:
        read = self._kept.get(service_id)
        return read is not None and timedelta(0) <= now - read[0] < _KEPT

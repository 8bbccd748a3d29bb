"""Plans with their limits, and subscriptions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from haat.kernel.errors import ValidationFailed

DEFAULT_PER_MINUTE = 60
DEFAULT_PER_HOUR = 1000
MAX_LIMIT = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Plan:
    """Limits in requests; None means unlimited. ``service_id`` None: a plan of the platform."""

    id: UUID
    service_id: UUID | None
    code: str
    name: str
    listed: bool
    per_minute: int | None
    per_hour: int | None
    per_day: int | None
    quota_per_month: int | None
    max_concurrent: int | None
    rank: int


@dataclass(frozen=True, slots=True)
class Subscription:
    """An application's right to call a service, with the names a page shows."""

    id: UUID
    org_id: UUID
    application_id: UUID
    application_name: str
    service_id: UUID
    provider_slug: str
    service_slug: str
    service_name: str
    plan_id: UUID
    plan_code: str
    plan_name: str
    status: Literal["active", "cancelled"]
    version: int
    started_at: datetime
    ended_at: datetime | None


def check_limits(limits: dict[str, int | None]) -> dict[str, int | None]:
    """Return a plan's limits with the defaults of a plan that names none; refuse what can't be kept."""
    for name, value in limits.items():
        if value is not None and not 1 <= value <= MAX_LIMIT:
            message = f"A limit is between 1 and {MAX_LIMIT}; leave it out for none."
            raise ValidationFailed(errors=[{"field": name, "message": message}])
    if not any(limits.values()):
        return {**limits, "per_minute": DEFAULT_PER_MINUTE, "per_hour": DEFAULT_PER_HOUR}
    return limits

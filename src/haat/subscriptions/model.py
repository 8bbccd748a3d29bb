"""Plans with their limits, and subscriptions."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from haat.catalog.model import UNITS
from haat.kernel.errors import ValidationFailed
from haat.language.messages import _

DEFAULT_PER_MINUTE = 60
DEFAULT_PER_HOUR = 1000
MAX_LIMIT = 2_000_000_000
MAX_QUOTA = 1_000_000_000_000
RESETS = ("calendar", "anniversary")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a plan allows; None means unlimited. `docs/limits.md` says exactly what each limit means.

    Rates, ``burst`` and ``max_concurrent`` are in requests, quotas in ``quota_unit``. ``overage`` makes the
    quotas soft caps. ``fallback`` lets another provider of the same capability answer; ``cached_share`` is the
    part of the price that an answer out of the cache costs.
    """

    per_minute: int | None = None
    per_hour: int | None = None
    per_day: int | None = None
    quota_per_month: int | None = None
    max_concurrent: int | None = None
    burst: int | None = None
    quota_per_day: int | None = None
    quota_unit: str = "requests"
    quota_reset: str = "calendar"
    overage: bool = False
    fallback: bool = False
    cached_share: Decimal = Decimal(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Terms):
    """``service_id`` None: a plan of the platform."""

    id: UUID
    service_id: UUID | None
    code: str
    name: str
    listed: bool
    rank: int


LIMITS = ("per_minute", "per_hour", "per_day", "quota_per_month", "max_concurrent", "burst", "quota_per_day")
TERMS = tuple(field.name for field in fields(Terms))


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


def check_terms(terms: Terms) -> Terms:
    """Return what a plan may allow, with the defaults of a plan that names no limit; refuse what can't be kept."""
    checked = replace(terms, **check_limits({name: getattr(terms, name) for name in LIMITS}))
    wrong: list[dict[str, str]] = []

    def refuse(field: str, message: str) -> None:
        wrong.append({"field": field, "message": message})

    if checked.burst is not None and (checked.per_minute is None or checked.burst > checked.per_minute):
        refuse("burst", "A burst is at most as large as per_minute, which gives the pace after it.")
    if checked.quota_unit not in UNITS:
        refuse("quota_unit", f"A quota is counted in one of {', '.join(UNITS)}.")
    if checked.quota_reset not in RESETS:
        refuse("quota_reset", f"A quota resets by {' or '.join(RESETS)}.")
    if checked.quota_per_month is None and checked.quota_per_day is None:
        if checked.overage:
            refuse("overage", "Overage is what goes beyond a quota: set quota_per_month or quota_per_day.")
        if checked.quota_unit != "requests":
            refuse("quota_unit", "Without a quota there is nothing to count: set quota_per_month or quota_per_day.")
    if not 0 <= checked.cached_share <= 1 or checked.cached_share != round(checked.cached_share, 3):
        refuse("cached_share", "The share is between 0 and 1, with at most three decimals.")
    if wrong:
        raise ValidationFailed(errors=wrong)
    return checked


def check_limits(limits: dict[str, int | None]) -> dict[str, Any]:
    """Return a plan's limits with the defaults of a plan that names none; refuse what can't be kept."""
    for name, value in limits.items():
        most = MAX_QUOTA if name.startswith("quota") else MAX_LIMIT
        if value is not None and not 1 <= value <= most:
            message = _("This limit is between 1 and %(most)s; leave it out for none.", most=most)
            raise ValidationFailed(errors=[{"field": name, "message": message}])
    if not any(limits.values()):
        return {**limits, "per_minute": DEFAULT_PER_MINUTE, "per_hour": DEFAULT_PER_HOUR}
    return limits
